//! What the programs of this crate are told, shared with the tests that load them. Plain values: no map, no packet.

#![no_std]

use bytemuck::{Pod, Zeroable};

/// Bytes of a frame that are restored before each run: all that burst may write to, and more.
pub const HEAD: usize = 128;

/// Read-only data of the program `replay`: the frame that each run begins with, and how it varies.
///
/// Flow `n` differs from the template in one 16-bit word of an address, to which `n` is added, and in a port and an
/// IPv4 identification, from which it is subtracted in ones' complement: all checksums stay right (RFC 1071).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Zeroable, Pod)]
pub struct Replay {
    /// The first bytes of the frame. The word at `address_at` must be zero.
    pub head: [u64; HEAD / 8],
    /// Length of the frame, at least [`HEAD`].
    pub len: u32,
    /// Number of flows less one, a power of two less one.
    pub flows: u32,
    /// Offset of the last 16 bits of the address that varies.
    pub address_at: u32,
    /// Offset of the port that varies.
    pub port_at: u32,
    /// Offset of the IPv4 identification; 0 in IPv6.
    pub id_at: u32,
    /// Zero.
    pub pad: u32,
}

/// A word less `n` in ones' complement, so that a sum over the word and another one to which `n` was added is the same.
#[inline(always)]
#[must_use]
pub const fn less(word: u16, n: u16) -> u16 {
    let sum = word as u32 + (!n) as u32;
    ((sum & 0xffff) + (sum >> 16)) as u16
}
