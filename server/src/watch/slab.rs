//! Values under small keys that are never mistaken for a later value's key.

/// A key into a [`Slab`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    at: u32,
    generation: u32,
}

/// Values under keys.
pub(super) struct Slab<T> {
    cells: Vec<Cell<T>>,
    free: Vec<u32>,
}

struct Cell<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Slab<T> {
    pub(super) fn new() -> Self {
        Self { cells: Vec::new(), free: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.cells.len() - self.free.len()
    }

    pub(super) fn insert(&mut self, value: T) -> Key {
        if let Some(at) = self.free.pop() {
            let cell = &mut self.cells[at as usize];
            cell.value = Some(value);
            return Key { at, generation: cell.generation };
        }
        let at = u32::try_from(self.cells.len()).expect("fewer values than memory holds");
        self.cells.push(Cell { generation: 0, value: Some(value) });
        Key { at, generation: 0 }
    }

    pub(super) fn get(&self, key: Key) -> Option<&T> {
        self.cell(key)?.value.as_ref()
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let cell = self.cells.get_mut(key.at as usize)?;
        if cell.generation == key.generation { cell.value.as_mut() } else { None }
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<T> {
        let cell = self.cells.get_mut(key.at as usize)?;
        if cell.generation != key.generation {
            return None;
        }
        let value = cell.value.take()?;
        cell.generation = cell.generation.wrapping_add(1);
        self.free.push(key.at);
        Some(value)
    }

    /// All keys in use.
    pub(super) fn keys(&self) -> impl Iterator<Item = Key> {
        let key = |(at, cell): (usize, &Cell<T>)| {
            let at = u32::try_from(at).expect("keys are 32 bits");
            cell.value.is_some().then_some(Key { at, generation: cell.generation })
        };
        self.cells.iter().enumerate().filter_map(key)
    }

    fn cell(&self, key: Key) -> Option<&Cell<T>> {
        self.cells.get(key.at as usize).filter(|cell| cell.generation == key.generation)
    }
}
