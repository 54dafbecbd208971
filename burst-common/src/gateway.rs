//! The clients' gateway: where replies go without a lookup, while the routing table has one way to the clients.

use bytemuck::{Pod, Zeroable};

use crate::limits::GATEWAY_EXCEPTIONS;
use crate::proof::layout;

/// Destinations of a prefix; addresses and masks as they lie in the packet, IPv4 in the first word.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Zeroable, Pod)]
pub struct Except {
    /// Network address.
    pub addr: [u32; 4],
    /// Network mask.
    pub mask: [u32; 4],
}
layout!(Except, size = 32, addr @ 0, mask @ 16);

/// A row of the gateway table, one per family: the default route towards the clients, and every destination that the
/// routing table treats otherwise. Userspace writes a row only if that is the whole of the routing table.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Zeroable, Pod)]
pub struct Gateway {
    /// The first twelve bytes of a frame to the gateway.
    pub macs: [u32; 3],
    /// Device (the parent of a VLAN); 0: ask the routing table. Written last, in one word with the end of `macs`.
    pub ifindex: u32,
    /// 802.1Q VLAN id, host byte order; 0 is untagged.
    pub vlan: u16,
    /// Largest IP packet in bytes.
    pub mtu: u16,
    /// Exceptions in use.
    pub exceptions: u32,
    /// Destinations for which the routing table is asked.
    pub except: [Except; GATEWAY_EXCEPTIONS],
}
layout!(Gateway, size = 280, macs @ 0, ifindex @ 12, vlan @ 16, mtu @ 18, exceptions @ 20, except @ 24);

impl Gateway {
    /// Offset of the word that says whether the row counts, for userspace that publishes it first and last.
    pub const READY_OFFSET: usize = 8;

    /// Row of a family (4 or 6).
    #[inline(always)]
    #[must_use]
    pub const fn row(family: u8) -> u32 {
        (family == 6) as u32
    }

    /// Whether a destination takes another way than the gateway.
    #[inline(always)]
    #[must_use]
    pub fn excepts(&self, address: [u32; 4]) -> bool {
        for (number, except) in self.except.iter().enumerate() {
            if number as u32 >= self.exceptions {
                return false;
            }
            let mut differs = 0;
            for (word, part) in address.iter().enumerate() {
                differs |= (part ^ except.addr[word]) & except.mask[word];
            }
            if differs == 0 {
                return true;
            }
        }
        false
    }
}

/// What stands behind a VLAN device that the routing table names.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Zeroable, Pod)]
pub struct Vlan {
    /// Index of its parent, a device of burst's.
    pub parent: u32,
    /// 802.1Q VLAN id, host byte order.
    pub vlan: u32,
}
layout!(Vlan, size = 8, parent @ 0, vlan @ 4);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::wide;

    #[test]
    fn a_destination_inside_an_exception_takes_another_way() {
        let mut gateway = Gateway { exceptions: 1, ..Gateway::zeroed() };
        gateway.except[0] =
            Except { addr: wide("198.51.100.0".parse().unwrap()), mask: wide("255.255.255.0".parse().unwrap()) };
        let excepts = |gateway: &Gateway, ip: &str| gateway.excepts(wide(ip.parse().unwrap()));
        assert!(excepts(&gateway, "198.51.100.7") && !excepts(&gateway, "198.51.101.7"));
        gateway.exceptions = 0;
        assert!(!excepts(&gateway, "198.51.100.7"), "a row that is not in use counts for nothing");
    }
}
