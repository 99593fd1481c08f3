//! No bucket left out.

use crate::bbolt::{Source, Visitor};

use super::Bucket;

/// Rows with every bucket of [`Bucket::ALL`], empty where the source has none; etcd expects all of them.
#[derive(Debug)]
pub struct Complete<'a, S>(pub &'a S);

impl<S: Source> Source for Complete<'_, S> {
    type Error = S::Error;

    fn visit(&self, visitor: &mut dyn Visitor<S::Error>) -> Result<(), S::Error> {
        let mut filler = Filler { left: &Bucket::ALL, visitor };
        self.0.visit(&mut filler)?;
        filler.fill(|_| true)
    }
}

struct Filler<'a, E> {
    /// The buckets that are neither told nor passed yet.
    left: &'static [Bucket],
    visitor: &'a mut dyn Visitor<E>,
}

impl<E> Filler<'_, E> {
    fn fill(&mut self, before: impl Fn(&[u8]) -> bool) -> Result<(), E> {
        while let Some((first, rest)) =
            self.left.split_first().filter(|(first, _)| before(first.name().as_bytes()))
        {
            self.left = rest;
            self.visitor.bucket(first.name().as_bytes())?;
        }
        Ok(())
    }
}

impl<E> Visitor<E> for Filler<'_, E> {
    fn bucket(&mut self, name: &[u8]) -> Result<(), E> {
        self.fill(|missing| missing < name)?;
        if let Some((first, rest)) = self.left.split_first()
            && first.name().as_bytes() == name
        {
            self.left = rest;
        }
        self.visitor.bucket(name)
    }

    fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), E> {
        self.visitor.row(key, value)
    }
}
