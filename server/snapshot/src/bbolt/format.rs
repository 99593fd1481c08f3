//! Pages as bytes: constants, headers, elements and metas.
//!
//! ```text
//!   page     id u64 │ kind u16 │ count u16 │ overflow u32 │ elements … │ keys and values …
//!   leaf     flags u32 │ pos u32 │ key length u32 │ value length u32
//!   branch   pos u32 │ key length u32 │ page u64
//!   meta     magic u32 │ version u32 │ page size u32 │ flags u32 │ root u64 │ sequence u64
//!            │ freelist u64 │ high-water mark u64 │ txid u64 │ FNV-1a of the 56 bytes before u64
//! ```
//!
//! `pos` counts from the element itself. A page goes on over as many pages as `overflow` says.

use super::Damage;

/// Bytes a page of a written image has.
pub const PAGE_SIZE: usize = 4096;
/// Bytes a key may have.
pub const KEY_LEN_MAX: usize = 32768;
/// Bytes a value may have.
pub const VALUE_LEN_MAX: usize = (1 << 31) - 2;

/// Bytes of a page's header, of an element, and of the header in a bucket's entry.
pub(super) const HEADER_LEN: usize = 16;
pub(super) const ELEMENT_LEN: usize = 16;
pub(super) const BUCKET_LEN: usize = 16;
/// Bytes of a meta, behind the header of its page.
pub(super) const META_LEN: usize = 64;

/// A bucket whose leaf is not longer than the page's length divided by this stands in its entry.
pub(super) const INLINE_FRACTION: usize = 4;
/// Children a branch page has at least.
pub(super) const CHILDREN_MIN: usize = 2;
/// The flag of a leaf element that is a bucket.
pub(super) const BUCKET_FLAG: u32 = 1;
/// In a meta: no freelist is stored.
pub(super) const NO_FREELIST: u64 = u64::MAX;

pub(super) const BRANCH: u16 = 1;
pub(super) const LEAF: u16 = 2;
pub(super) const META: u16 = 4;
pub(super) const FREELIST: u16 = 0x10;

/// What a meta page begins with.
pub const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;

/// What a page begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) id: u64,
    pub(super) kind: u16,
    pub(super) count: u16,
    pub(super) overflow: u32,
}

impl Header {
    pub(super) fn parse(bytes: &[u8; HEADER_LEN]) -> Self {
        Self {
            id: u64_at(bytes, 0),
            kind: u16::from_le_bytes([bytes[8], bytes[9]]),
            count: u16::from_le_bytes([bytes[10], bytes[11]]),
            overflow: u32_at(bytes, 12),
        }
    }

    pub(super) fn to_bytes(self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..8].copy_from_slice(&self.id.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.kind.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.count.to_le_bytes());
        bytes[12..].copy_from_slice(&self.overflow.to_le_bytes());
        bytes
    }
}

/// The element of a leaf page.
#[derive(Debug, Clone, Copy)]
pub(super) struct LeafElement {
    pub(super) flags: u32,
    pub(super) pos: u32,
    pub(super) key_len: u32,
    pub(super) value_len: u32,
}

impl LeafElement {
    pub(super) fn parse(bytes: &[u8; ELEMENT_LEN]) -> Self {
        Self {
            flags: u32_at(bytes, 0),
            pos: u32_at(bytes, 4),
            key_len: u32_at(bytes, 8),
            value_len: u32_at(bytes, 12),
        }
    }

    pub(super) fn to_bytes(self) -> [u8; ELEMENT_LEN] {
        four(self.flags, self.pos, self.key_len, self.value_len)
    }
}

/// The element of a branch page.
#[derive(Debug, Clone, Copy)]
pub(super) struct BranchElement {
    pub(super) pos: u32,
    pub(super) key_len: u32,
    pub(super) page: u64,
}

impl BranchElement {
    pub(super) fn parse(bytes: &[u8; ELEMENT_LEN]) -> Self {
        Self { pos: u32_at(bytes, 0), key_len: u32_at(bytes, 4), page: u64_at(bytes, 8) }
    }

    pub(super) fn to_bytes(self) -> [u8; ELEMENT_LEN] {
        four(self.pos, self.key_len, self.page as u32, (self.page >> 32) as u32)
    }
}

/// The header in a bucket's entry, with the sequence that etcd leaves at 0.
pub(super) fn bucket_bytes(root: u64) -> [u8; BUCKET_LEN] {
    four(root as u32, (root >> 32) as u32, 0, 0)
}

/// What the first two pages say of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) page_size: u32,
    pub(super) root: u64,
    pub(super) freelist: u64,
    /// Number of pages.
    pub(super) high_water: u64,
    pub(super) txid: u64,
}

impl Meta {
    /// Takes a meta whose magic, version and checksum are right.
    pub(super) fn parse(bytes: &[u8; META_LEN]) -> Result<Self, Damage> {
        let (magic, version) = (u32_at(bytes, 0), u32_at(bytes, 4));
        if magic != MAGIC {
            return Err(Damage::Magic { found: magic });
        }
        if version != VERSION {
            return Err(Damage::Version { found: version });
        }
        let (stored, computed) = (u64_at(bytes, 56), fnv1a(&bytes[..56]));
        if stored != computed {
            return Err(Damage::Checksum { stored, computed });
        }
        Ok(Self {
            page_size: u32_at(bytes, 8),
            root: u64_at(bytes, 16),
            freelist: u64_at(bytes, 32),
            high_water: u64_at(bytes, 40),
            txid: u64_at(bytes, 48),
        })
    }

    pub(super) fn to_bytes(self) -> [u8; META_LEN] {
        let mut bytes = [0; META_LEN];
        bytes[..16].copy_from_slice(&four(MAGIC, VERSION, self.page_size, 0));
        for (at, number) in [(16, self.root), (32, self.freelist), (40, self.high_water), (48, self.txid)] {
            bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        let checksum = fnv1a(&bytes[..56]);
        bytes[56..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }
}

/// Reads a number of 8 bytes that the caller knows to be there.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn four(a: u32, b: u32, c: u32, d: u32) -> [u8; 16] {
    (u128::from(a) | u128::from(b) << 32 | u128::from(c) << 64 | u128::from(d) << 96).to_le_bytes()
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metas_survive_and_damage_shows() {
        let meta = Meta { page_size: 4096, root: 3, freelist: NO_FREELIST, high_water: 1 << 40, txid: 7 };
        let bytes = meta.to_bytes();
        assert_eq!(Meta::parse(&bytes), Ok(meta));
        for at in 0..META_LEN * 8 {
            let mut bytes = bytes;
            bytes[at / 8] ^= 1 << (at % 8);
            assert!(Meta::parse(&bytes).is_err(), "bit {at}");
        }
    }

    #[test]
    fn headers_and_elements_survive() {
        let header = Header { id: 0x0102_0304_0506_0708, kind: LEAF, count: 0x0a0b, overflow: 0x0c0d_0e0f };
        assert_eq!(Header::parse(&header.to_bytes()), header);
        assert_eq!(header.to_bytes()[..10], [8, 7, 6, 5, 4, 3, 2, 1, 2, 0]);
        let branch = BranchElement { pos: 1, key_len: 2, page: 0x0102_0304_0506_0708 };
        assert_eq!(branch.to_bytes()[8..], 0x0102_0304_0506_0708_u64.to_le_bytes());
        assert_eq!(BranchElement::parse(&branch.to_bytes()).page, branch.page);
        assert_eq!(bucket_bytes(9)[..9], [9, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
}
