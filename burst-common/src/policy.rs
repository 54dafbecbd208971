//! The policy as it is compiled into the program: tables in frozen read-only data.
//!
//! A rule is a bit. Each dimension (destination prefix, source prefix, protocol and destination port) has a
//! table of rows, each with the bitmap of the rules it satisfies, and a constant bitmap of the rules that do
//! not ask for this dimension. A packet's bitmaps are ANDed; the lowest bit that is left is the rule. Rules
//! of `keep` classes are numbered before all others, so keep always wins.

use bytemuck::{Pod, Zeroable};

use crate::flow::{Addr4, Addr6};
use crate::limits::{DEVICE_LINKS, INLINE_PORTS, INLINE_PREFIXES, MAX_CLASSES, MAX_RULES};
use crate::proof::layout;

/// A set of rules, one bit each; bit `n` is rule `n`.
pub type Rules = u64;

/// A prefix of one family and the rules that name it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Zeroable, Pod)]
pub struct Prefix4 {
    /// Network address, as it lies in the packet.
    pub addr: Addr4,
    /// Network mask, as it would lie in the packet.
    pub mask: Addr4,
    /// The rules that name this prefix; every row is looked at, so those of covering prefixes are not added.
    pub rules: Rules,
}
layout!(Prefix4, size = 16, addr @ 0, mask @ 4, rules @ 8);

/// As [`Prefix4`], for IPv6.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Zeroable, Pod)]
pub struct Prefix6 {
    /// Network address, as it lies in the packet.
    pub addr: Addr6,
    /// Network mask, as it would lie in the packet.
    pub mask: Addr6,
    /// The rules that name this prefix.
    pub rules: Rules,
}
layout!(Prefix6, size = 40, addr @ 0, mask @ 16, rules @ 32);

/// A range of destination ports of one protocol.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Zeroable, Pod)]
pub struct Ports {
    /// First port, host byte order.
    pub first: u16,
    /// Last port, host byte order; not below `first`.
    pub last: u16,
    /// Protocol number.
    pub proto: u32,
    /// The rules that name this range.
    pub rules: Rules,
}
layout!(Ports, size = 16, first @ 0, last @ 2, proto @ 4, rules @ 8);

/// Rows of one dimension.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table<T, const N: usize> {
    /// Rows in use, at most `N`.
    len: u32,
    /// Zero.
    pad: u32,
    /// Rules that do not ask for this dimension.
    any: Rules,
    rows: [T; N],
}

// SAFETY: all-zero is a valid `T` and a valid `u32`/`u64`.
unsafe impl<T: Zeroable, const N: usize> Zeroable for Table<T, N> {}
// SAFETY: `repr(C)`; the header is 16 bytes without holes, and `T` is `Pod` with an alignment of at most 8
// (asserted for each instance below), so no padding stands before or between or behind the rows.
unsafe impl<T: Pod, const N: usize> Pod for Table<T, N> {}

impl<T: Pod, const N: usize> Table<T, N> {
    /// A table of `rows`.
    ///
    /// # Errors
    /// When there are more rows than the table can hold.
    pub fn new(any: Rules, rows: &[T]) -> Result<Self, TooMany> {
        if rows.len() > N {
            return Err(TooMany { rows: rows.len(), limit: N });
        }
        let mut table = Self { len: rows.len() as u32, pad: 0, any, rows: [T::zeroed(); N] };
        table.rows[..rows.len()].copy_from_slice(rows);
        Ok(table)
    }

    /// Rows in use.
    #[inline(always)]
    #[must_use]
    pub fn len(&self) -> u32 {
        constant(&self.len)
    }

    /// Whether no row is in use.
    #[inline(always)]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rules that do not ask for this dimension.
    #[inline(always)]
    #[must_use]
    pub fn any(&self) -> Rules {
        constant(&self.any)
    }

    /// All rows, used or not. Their fields are read with [`constant`].
    #[inline(always)]
    #[must_use]
    pub fn rows(&self) -> &[T; N] {
        &self.rows
    }
}

/// Reads a word of the policy. Volatile, because the loader replaces the bytes of the program's read-only data
/// after compilation: the compiler must not fold those that it sees. The verifier then folds the real ones.
#[inline(always)]
#[must_use]
pub fn constant<T: Pod>(word: &T) -> T {
    // SAFETY: a reference is valid and aligned for a read, and `Pod` is `Copy`.
    unsafe { core::ptr::read_volatile(word) }
}

/// More rows than a table holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany {
    /// Rows wanted.
    pub rows: usize,
    /// Rows there is room for.
    pub limit: usize,
}

/// The dimensions of the rules, matched inline.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Zeroable, Pod)]
pub struct Dimensions {
    /// Destination prefixes, IPv4.
    pub dst4: Table<Prefix4, INLINE_PREFIXES>,
    /// Source prefixes, IPv4.
    pub src4: Table<Prefix4, INLINE_PREFIXES>,
    /// Destination prefixes, IPv6.
    pub dst6: Table<Prefix6, INLINE_PREFIXES>,
    /// Source prefixes, IPv6.
    pub src6: Table<Prefix6, INLINE_PREFIXES>,
    /// Protocols and destination ports. Rules with a protocol and no ports have the range 0–65535.
    pub ports: Table<Ports, INLINE_PORTS>,
}
layout!(Dimensions, size = 2 * 272 + 2 * 656 + 272, dst4 @ 0, src4 @ 272, dst6 @ 544, src6 @ 1200, ports @ 1856);

/// The class is never shifted.
pub const KEEP: u32 = 1 << 0;
/// The slot is chosen by source address alone (affinity by client).
pub const BY_CLIENT: u32 = 1 << 1;
/// The class has an endpoint of mode `nexthop`: packets from its service addresses come back over links.
pub const NEXTHOP: u32 = 1 << 2;
/// Of the class's UDP packets, QUIC Initials (RFC 9000, section 17.2.2; RFC 9369, section 3.2) open flows.
pub const QUIC: u32 = 1 << 3;
/// Of the class's UDP packets, each is placed by itself.
pub const PER_PACKET: u32 = 1 << 4;

/// Where [`Class::flags`] holds the largest IP packet in bytes that fits the links of its `nexthop` tiers: the upper half.
/// 0: not limited.
pub const ROOM_SHIFT: u32 = 16;

/// What the packet path knows of a class.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Zeroable, Pod)]
pub struct Class {
    /// Index of its first IPv4 slot.
    pub base4: u32,
    /// Index of its first IPv6 slot.
    pub base6: u32,
    /// Slots per family, less one; the number is a power of two.
    pub mask: u32,
    /// [`KEEP`], [`BY_CLIENT`], [`NEXTHOP`], [`QUIC`], [`PER_PACKET`], and a size, see [`ROOM_SHIFT`].
    pub flags: u32,
}
layout!(Class, size = 16, base4 @ 0, base6 @ 4, mask @ 8, flags @ 12);

/// In [`Policy::modes`], in the place of `MODE_NONE`: a link has a VLAN.
pub const TAGGED: u32 = 1 << 0;

/// Packets that arrive on this device come from clients.
pub const ROLE_CLIENT: u32 = 1 << 0;
/// Packets that arrive on this device come from a link.
pub const ROLE_LINK: u32 = 1 << 1;

/// A link on the device of an instance, told apart from others by its VLAN.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Zeroable, Pod)]
pub struct DeviceLink {
    /// 802.1Q VLAN id, host byte order; 0 is untagged.
    pub vlan: u32,
    /// Id of the only link with this device and VLAN; 0 when there are several.
    pub link: u32,
}
layout!(DeviceLink, size = 8, vlan @ 0, link @ 4);

/// Everything a program instance is told when it is loaded. Immutable: a reload loads new instances.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Zeroable, Pod)]
pub struct Policy {
    /// Seed of the flow hash, the same on every edge host.
    pub seed: u64,
    /// [`ROLE_CLIENT`], [`ROLE_LINK`] or both: what the device of this instance is.
    pub role: u32,
    /// Non-zero: decide and count, shift nothing.
    pub shadow: u32,
    /// Non-zero: the dimensions are looked up in maps, [`Policy::dims`] holds only the `any` bitmaps.
    pub large: u32,
    /// One bit for each mode that an endpoint has: `1 << MODE_…` of [`crate::endpoint`]; and [`TAGGED`].
    pub modes: u32,
    /// MAC address of this instance's device, as the first six bytes of a frame read as words ([`mac_word`]); frames for
    /// others pass. 0: not asked.
    pub mac: u64,
    /// Rules of keep classes: the lowest bits.
    pub keep: Rules,
    /// The links on this instance's device, one row for each VLAN; `any` is zero.
    pub links: Table<DeviceLink, DEVICE_LINKS>,
    /// The dimensions of the rules.
    pub dims: Dimensions,
    /// Class id of each rule.
    pub rule_class: [u8; MAX_RULES],
    /// The classes; row 0 is never used.
    pub classes: [Class; MAX_CLASSES],
}
layout!(
    Policy, size = 3400,
    seed @ 0, role @ 8, shadow @ 12, large @ 16, modes @ 20, mac @ 24, keep @ 32, links @ 40, dims @ 184,
    rule_class @ 2312, classes @ 2376,
);

impl Policy {
    /// The link that a packet with this VLAN id (host byte order, 0 is untagged) comes from: its id, 0 when several links
    /// have this device and VLAN. `None`: it comes from no link.
    #[inline(always)]
    #[must_use]
    pub fn link(&self, vlan: u16) -> Option<u32> {
        let len = self.links.len();
        for (index, row) in self.links.rows().iter().enumerate() {
            if index as u32 >= len {
                break;
            }
            if constant(&row.vlan) == u32::from(vlan) {
                return Some(constant(&row.link));
            }
        }
        None
    }
}

/// The keep rules once more, compiled by themselves: what guard and sentinel consult. Frozen read-only data of its own.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Zeroable, Pod)]
pub struct Guard {
    /// Non-zero: the dimensions are looked up in maps of the guard's own, `dims` holds only the `any` bitmaps.
    pub large: u32,
    /// Non-zero: the sentinel stops what the kernel sends, too (`sentinel = "enforce"`).
    pub enforce: u32,
    /// The dimensions of the keep rules alone.
    pub dims: Dimensions,
}
layout!(Guard, size = 8 + 2128, large @ 0, enforce @ 4, dims @ 8);

/// A MAC address as the packet path compares it: the four and the two bytes that begin a frame, each read as a native
/// word.
#[must_use]
pub const fn mac_word(mac: [u8; 6]) -> u64 {
    u32::from_ne_bytes([mac[0], mac[1], mac[2], mac[3]]) as u64 | (u16::from_ne_bytes([mac[4], mac[5]]) as u64) << 32
}
