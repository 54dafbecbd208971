//! An endpoint: a cloud destination of a class, and the links its flows are spread over.

use bytemuck::{Pod, Zeroable};

use crate::limits::{ENDPOINT_LINKS, ENDPOINT_PORTS};
use crate::proof::layout;

/// No endpoint: the row is free.
pub const MODE_NONE: u8 = 0;
/// Layer 2 only: the destination address is kept.
pub const MODE_NEXTHOP: u8 = 1;
/// Destination address and port are rewritten.
pub const MODE_DNAT: u8 = 2;
/// The packet travels inside UDP (Generic UDP Encapsulation, draft-ietf-intarea-gue, variant 0).
pub const MODE_GUE: u8 = 3;
/// The packet travels inside another IP packet (RFC 2003, RFC 2473, RFC 4213).
pub const MODE_IPIP: u8 = 4;

/// A port and what it becomes, both in network byte order. `from` 0 ends the list.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Zeroable, Pod)]
pub struct PortPair {
    /// The service's port.
    pub from: u16,
    /// The endpoint's port.
    pub to: u16,
}
layout!(PortPair, size = 4, from @ 0, to @ 2);

/// A row of the endpoint table: one cache line.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Zeroable, Pod)]
pub struct Endpoint {
    /// Address, as in the packet; IPv4 in the first word. Zero for `nexthop`.
    pub address: [u32; 4],
    /// Link ids by flow hash, one byte each; 0 is none. One word, published by one store: a lost link is gone from
    /// all its endpoints at once. All zero: the endpoint cannot be reached; [`HELD_LINKS`]: nor can it, but it is waited for.
    pub links: u64,
    /// Ports that are renamed; all others are preserved.
    pub ports: [PortPair; ENDPOINT_PORTS],
    /// [`MODE_NONE`], [`MODE_NEXTHOP`], [`MODE_DNAT`], [`MODE_GUE`], [`MODE_IPIP`].
    pub mode: u8,
    /// Family of `address`: 4 or 6; 0 for `nexthop`.
    pub family: u8,
    /// Class id.
    pub class: u8,
    /// Bytes that its mode adds in front of a packet: [`overhead`] of mode and family.
    pub overhead: u8,
    /// Largest IP packet of a client, in bytes, that fits the smallest of the endpoint's links, whichever are up, after
    /// what a tunnel adds ([`overhead`]). What the maximum segment size of its connections is clamped to. 0: not clamped.
    pub room: u16,
    /// UDP destination port of `gue`, network byte order; 0 for other modes.
    pub tunnel_port: u16,
}
layout!(
    Endpoint, size = 64,
    address @ 0, links @ 16, ports @ 24, mode @ 56, family @ 57, class @ 58, overhead @ 59, room @ 60, tunnel_port @ 62,
);

/// The link of an endpoint that cannot be reached for the moment: an id that no link has, whose row stays free. Packets of flows that
/// are there are dropped, for the local stack would reset them; TCP sends them again.
pub const HELD: u8 = crate::limits::MAX_LINKS as u8 - 1;
/// [`Endpoint::links`] of such an endpoint.
pub const HELD_LINKS: u64 = u64::from_ne_bytes([HELD; ENDPOINT_LINKS]);

impl Endpoint {
    /// Offset of [`Endpoint::links`], for userspace that publishes only this word.
    pub const LINKS_OFFSET: usize = core::mem::offset_of!(Endpoint, links);

    /// Whether a link leads there, by the word of its links.
    #[inline(always)]
    #[must_use]
    pub const fn reached(links: u64) -> bool {
        links != 0 && links != HELD_LINKS
    }

    /// What a destination port (network byte order) becomes.
    #[inline(always)]
    #[must_use]
    pub fn port(&self, port: u16) -> u16 {
        for pair in &self.ports {
            if pair.from == 0 {
                break;
            }
            if pair.from == port {
                return pair.to;
            }
        }
        port
    }
}

/// Bytes that a mode adds in front of a packet; `family` is the endpoint's, 4 or 6.
#[inline(always)]
#[must_use]
pub const fn overhead(mode: u8, family: u8) -> u16 {
    // RFC 791, RFC 8200: 20 and 40 bytes; UDP (RFC 768) and GUE headers of 8 and 4 bytes.
    let outer = if family == 6 { 40 } else { 20 };
    match mode {
        MODE_GUE => outer + 8 + 4,
        MODE_IPIP => outer,
        _ => 0,
    }
}

/// The word of a link table that spreads flows evenly over `links`: entry `n` is link `n` modulo their number.
/// No links give 0.
#[must_use]
pub fn link_table(links: &[u8]) -> u64 {
    if links.is_empty() {
        return 0;
    }
    u64::from_le_bytes(core::array::from_fn::<u8, ENDPOINT_LINKS, _>(|n| links[n % links.len()]))
}

/// The link of the table's entry `n`.
#[inline(always)]
#[must_use]
pub const fn link_at(table: u64, n: usize) -> u8 {
    (table >> (n * 8)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_table_names_every_link_and_no_other() {
        assert_eq!(link_table(&[]), 0);
        let table = link_table(&[3, 9]);
        assert_eq!((0..8).map(|n| link_at(table, n)).collect::<Vec<_>>(), [3, 9, 3, 9, 3, 9, 3, 9]);
    }

    #[test]
    fn an_unnamed_port_is_preserved() {
        let mut endpoint = Endpoint::zeroed();
        endpoint.ports[0] = PortPair { from: 443u16.to_be(), to: 8443u16.to_be() };
        assert_eq!(endpoint.port(443u16.to_be()), 8443u16.to_be());
        assert_eq!(endpoint.port(80u16.to_be()), 80u16.to_be());
        assert_eq!(endpoint.port(0), 0);
    }
}
