//! `--decode`: values shown as what they encode, in place of their bytes.
//!
//! Standard output is a stream of YAML documents, or a line of JSON a key. A value that says what it is and
//! cannot be read is shown in base64, named on stderr, and makes the command fail once all is printed.

use k8s::{Entry, Options};
use proto::mvccpb::KeyValue;

use crate::failure::{Failure, exit};
use crate::go::quote;
use crate::output::{self, Format, Printer};

/// What values can be decoded as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoder {
    /// Objects of Kubernetes.
    K8s,
}

impl Decoder {
    /// Reads the value of `--decode`.
    ///
    /// # Errors
    /// The reason, for the command line's error.
    pub fn parse(name: &str) -> Result<Self, String> {
        match name {
            "k8s" => Ok(Self::K8s),
            _ => Err("k8s is what values can be decoded as".to_owned()),
        }
    }
}

/// Refuses the forms of output in which there is no place for a decoded value.
pub fn check(format: Format, without_values: bool) -> Result<(), Failure> {
    if without_values {
        return Err(Failure::args(
            "`--decode` needs values: neither `--keys-only` nor `--count-only` goes with it",
        ));
    }
    match format {
        Format::Simple | Format::Json => Ok(()),
        _ => {
            let message = "`--decode` writes YAML, or JSON with `--write-out=json`";
            Err(Failure::new(exit::BAD_FEATURE, message))
        }
    }
}

/// The key of a reply, for the decoder.
pub fn entry(kv: &KeyValue) -> Entry<'_> {
    Entry {
        key: &kv.key,
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        lease: kv.lease,
        value: &kv.value,
    }
}

/// Prints the objects of these keys.
pub fn print<'a>(
    printer: Printer,
    entries: impl Iterator<Item = Entry<'a>>,
    options: Options,
) -> Result<(), Failure> {
    let mut objects = Objects::new(printer, options);
    for entry in entries {
        objects.print(entry)?;
    }
    objects.end()
}

/// Prints the objects of keys, one after the other: a line of JSON each, or YAML documents with `---` between them.
#[derive(Debug)]
pub struct Objects {
    printer: Printer,
    options: Options,
    printed: bool,
    damaged: bool,
}

impl Objects {
    /// Nothing is printed yet.
    pub fn new(printer: Printer, options: Options) -> Self {
        Self { printer, options, printed: false, damaged: false }
    }

    /// Prints the object of the next key.
    pub fn print(&mut self, entry: Entry<'_>) -> Result<(), Failure> {
        let (text, error) = match (self.printer.format, self.printer.value_only) {
            (Format::Json, _) => entry.json(self.options),
            (_, true) => entry.yaml_value(self.options),
            (_, false) => entry.yaml(self.options),
        };
        if std::mem::replace(&mut self.printed, true) && self.printer.format != Format::Json {
            output::write(b"---\n")?;
        }
        output::write(text.as_bytes())?;
        if let Some(error) = error {
            self.damaged = true;
            eprintln!("the value of {} cannot be decoded: {error}", quote(entry.key));
        }
        Ok(())
    }

    /// Fails if some value could not be decoded.
    pub fn end(self) -> Result<(), Failure> {
        if self.damaged { Err(Failure::silent(exit::ERROR)) } else { Ok(()) }
    }
}
