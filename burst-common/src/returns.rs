//! The return table: (endpoint address, port, protocol) → (service address, port).
//!
//! Open addressing in a plain array, a function of the configuration alone, so that any edge host can reverse any
//! reply. A key is looked for in at most [`RETURN_PROBES`] rows.

use bytemuck::{Pod, Zeroable};

use crate::hash;
use crate::limits::{MAX_RETURNS, RETURN_PROBES};
use crate::proof::layout;

/// A row of the return table; free when `proto` is 0. Ports in network byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Zeroable, Pod)]
pub struct Return {
    /// Endpoint address.
    pub address: [u32; 4],
    /// Service address, of the same family.
    pub service: [u32; 4],
    /// Endpoint port.
    pub port: u16,
    /// Service port.
    pub service_port: u16,
    /// Endpoint id, for its counters.
    pub endpoint: u16,
    /// [`proto`] of the packets it answers; 0: the row is free.
    pub proto: u8,
    /// Class id.
    pub class: u8,
}
layout!(Return, size = 40, address @ 0, service @ 16, port @ 32, service_port @ 34, endpoint @ 36, proto @ 38, class @ 39);

/// Protocol number and family (4 or 6) in one byte: an IPv4 address in the first word of the ABI looks like an IPv6
/// address with zeros behind it, and must not be taken for one. Protocol numbers of transports are below 128.
#[inline(always)]
#[must_use]
pub const fn proto(family: u8, proto: u8) -> u8 {
    if family == 6 { proto | 0x80 } else { proto }
}

/// What a reply is looked up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReturnKey {
    /// Endpoint address.
    pub address: [u32; 4],
    /// Endpoint port, network byte order.
    pub port: u16,
    /// [`proto`] of the packet.
    pub proto: u8,
}

impl ReturnKey {
    /// The first row to look at.
    #[inline(always)]
    #[must_use]
    pub const fn first(&self) -> usize {
        let [a, b, c, d] = self.address;
        let high = a as u64 | (b as u64) << 32;
        let low = (c as u64 | (d as u64) << 32) ^ ((self.port as u64) << 16 | self.proto as u64);
        hash::pair(high, low) as usize & (MAX_RETURNS - 1)
    }

    /// The row to look at after `row`.
    #[inline(always)]
    #[must_use]
    pub const fn next(row: usize) -> usize {
        (row + 1) & (MAX_RETURNS - 1)
    }

    /// The rows to look at, in order.
    pub fn rows(&self) -> impl Iterator<Item = usize> + use<> {
        core::iter::successors(Some(self.first()), |&row| Some(Self::next(row))).take(RETURN_PROBES)
    }
}

impl Return {
    /// Whether this row answers `key`.
    #[inline(always)]
    #[must_use]
    pub fn answers(&self, key: &ReturnKey) -> bool {
        self.proto == key.proto && self.port == key.port && self.address == key.address
    }

    /// The key of this row.
    #[must_use]
    pub const fn key(&self) -> ReturnKey {
        ReturnKey { address: self.address, port: self.port, proto: self.proto }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{TCP, wide};

    #[test]
    fn families_with_the_same_words_are_told_apart() {
        let key =
            |ip: &str, family| ReturnKey { address: wide(ip.parse().unwrap()), port: 1, proto: proto(family, TCP) };
        let (four, six) = (key("10.20.0.10", 4), key("a14:a::", 6));
        assert_eq!(four.address, six.address, "the same words");
        let row = Return { address: four.address, port: 1, proto: four.proto, ..Return::zeroed() };
        assert!(row.answers(&four) && !row.answers(&six));
    }
}
