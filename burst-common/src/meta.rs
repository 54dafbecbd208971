//! What the pinned maps say about themselves: the ABI stamp, and the names behind the ids.

use bytemuck::{Pod, Zeroable};

use crate::limits::{MAX_CLASSES, MAX_ENDPOINTS, MAX_LINKS};
use crate::proof::layout;

/// Version of the ABI. Raised whenever a layout, a capacity, the hash or the meaning of a field changes.
pub const ABI: u32 = 4;
/// "burst", two NULs and a one, as bytes.
pub const MAGIC: u64 = u64::from_le_bytes(*b"burst\0\0\x01");

/// The only row of the meta map.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Zeroable, Pod)]
pub struct Meta {
    /// [`MAGIC`].
    pub magic: u64,
    /// [`ABI`] of the daemon that made the maps.
    pub abi: u32,
    /// CPUs the counters have rows for.
    pub cpus: u32,
    /// Seed of the flow hash the slots were filled for.
    pub seed: u64,
    /// Four bits per class: how its flows find their slots, see [`shape`]. Zero: nothing was placed yet.
    pub shapes: [u64; 4],
    /// [`MODE_ACTIVE`] or [`MODE_SHADOW`]: what the slots were filled under. Zero: nothing was filled yet.
    pub mode: u8,
    /// [`ATTACH_NATIVE`] or [`ATTACH_GENERIC`]: how the pinned links were attached. Zero: nothing is recorded.
    pub attach: u8,
    /// Zero.
    pub pad: [u8; 6],
}
layout!(
    Meta,
    size = 64,
    magic @ 0,
    abi @ 8,
    cpus @ 12,
    seed @ 16,
    shapes @ 24,
    mode @ 56,
    attach @ 57,
    pad @ 58
);

/// Flows are where the slots say.
pub const MODE_ACTIVE: u8 = 1;
/// Flows are local, wherever the slots say.
pub const MODE_SHADOW: u8 = 2;

/// Links run the program in the driver.
pub const ATTACH_NATIVE: u8 = 1;
/// Links run the program after the driver, on socket buffers.
pub const ATTACH_GENERIC: u8 = 2;

/// How the flows of a class find their slots: another shape sends every flow elsewhere. `slots` is a power of two, 64
/// to 4096. Not zero.
#[must_use]
pub const fn shape(slots: u32, by_client: bool) -> u64 {
    (slots.trailing_zeros() as u64 - 5) & 7 | (by_client as u64) << 3
}

impl Meta {
    /// The shape that a class's flows were placed by; 0 when none were.
    #[must_use]
    pub const fn shape(&self, class: u8) -> u64 {
        self.shapes[class as usize / 16 % 4] >> (class % 16 * 4) & 15
    }

    /// The same with another shape of a class.
    #[must_use]
    pub const fn with_shape(mut self, class: u8, shape: u64) -> Self {
        let (word, shift) = (class as usize / 16 % 4, class % 16 * 4);
        self.shapes[word] = self.shapes[word] & !(15 << shift) | (shape & 15) << shift;
        self
    }
}

/// Rows of the names map: classes, then links, then endpoints.
pub const NAMES: usize = MAX_CLASSES + MAX_LINKS + MAX_ENDPOINTS;
/// Bytes of a name, at most.
pub const NAME_LEN: usize = 124;

/// The name behind an id. Free when `len` is 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Zeroable, Pod)]
pub struct Name {
    /// Bytes in use.
    len: u16,
    /// Non-zero: the id is taken by something that is no longer configured, and stays taken while flows may name it.
    retired: u16,
    bytes: [u8; NAME_LEN],
}
layout!(Name, size = 128, len @ 0, retired @ 2, bytes @ 4);

impl Name {
    /// A name in use; `None` when it is empty or longer than [`NAME_LEN`] bytes.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        if text.is_empty() || text.len() > NAME_LEN {
            return None;
        }
        let mut name = Self { len: text.len() as u16, retired: 0, bytes: [0; NAME_LEN] };
        name.bytes[..text.len()].copy_from_slice(text.as_bytes());
        Some(name)
    }

    /// The text; `None` when the row is free or was not written by burst.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self.len as usize {
            0 => None,
            len => core::str::from_utf8(self.bytes.get(..len)?).ok(),
        }
    }

    /// Whether the id is held for something that is no longer configured.
    #[must_use]
    pub const fn is_retired(&self) -> bool {
        self.retired != 0
    }

    /// The same name, held back or released.
    #[must_use]
    pub const fn retire(mut self, retired: bool) -> Self {
        self.retired = retired as u16;
        self
    }
}

/// Row of a class's name.
#[must_use]
pub const fn class_name(id: usize) -> usize {
    id
}

/// Row of a link's name.
#[must_use]
pub const fn link_name(id: usize) -> usize {
    MAX_CLASSES + id
}

/// Row of an endpoint's name.
#[must_use]
pub const fn endpoint_name(id: usize) -> usize {
    MAX_CLASSES + MAX_LINKS + id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_keeps_its_own_shape() {
        let mut meta = Meta::zeroed();
        for class in 1..64 {
            meta = meta.with_shape(class, shape(64 << (class % 7), class % 2 == 0));
        }
        for class in 1..64 {
            assert_eq!(meta.shape(class), shape(64 << (class % 7), class % 2 == 0), "{class}");
        }
        assert_eq!((meta.shape(0), shape(64, false), shape(4096, true)), (0, 1, 15));
        assert_eq!(meta.with_shape(7, 0).shape(7), 0);
    }

    #[test]
    fn a_name_survives_and_a_broken_row_is_no_name() {
        let name = Name::new("promo/reserved/10.20.0.10").unwrap();
        assert_eq!(name.text(), Some("promo/reserved/10.20.0.10"));
        assert!(name.retire(true).is_retired() && name.retire(true).text().is_some());
        assert!(Name::new("").is_none() && Name::new(&"x".repeat(125)).is_none());
        let broken = Name { len: 999, ..name };
        assert_eq!(broken.text(), None);
    }
}
