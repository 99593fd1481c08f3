//! Pages as bytes: constants, headers, elements and metas.

/// Bytes a page of a written image has.
pub const PAGE_SIZE: usize = 4096;
/// Bytes a key may have.
pub const KEY_LEN_MAX: usize = 32768;
/// Bytes a value may have.
pub const VALUE_LEN_MAX: usize = (1 << 31) - 2;
