//! The outer headers of a tunnel: as values, then as bytes.
//!
//! IP in IP (RFC 2003, RFC 2473, RFC 4213), or UDP and GUE, variant 0 without optional fields (draft-ietf-intarea-gue). Each
//! family may carry the other.

use burst_common::checksum;
use burst_common::endpoint::{Endpoint, MODE_GUE};
use burst_common::link::Link;

use crate::packet::Packet;
use crate::parse::{IP4, IP6, UDP_LEN};

/// Protocol numbers (IANA): UDP, IPv4 and IPv6 in a tunnel.
pub const UDP: u8 = 17;
/// IPv4 in a tunnel.
pub const IPIP: u8 = 4;
/// IPv6 in a tunnel.
pub const IPV6: u8 = 41;
/// Bytes of a GUE header without optional fields.
pub const GUE: usize = 4;
/// TTL and hop limit of what starts here (RFC 1700; RFC 2473, section 6.3, leaves it to us).
const TTL: u8 = 64;
/// First port of the dynamic range (RFC 6335, section 6), which the flow's hash is added to.
const FIRST_PORT: u16 = 0xc000;

/// Whether a link carries tunnels of an endpoint's family.
#[inline(always)]
pub fn can(endpoint: &Endpoint, link: &Link) -> bool {
    if endpoint.family == 6 {
        let [a, b, c, d] = link.source6;
        a | b | c | d != 0
    } else {
        link.source4 != 0
    }
}

/// The packet inside.
pub struct Inner {
    /// 4 or 6.
    pub family: u8,
    /// DSCP and ECN, which the outer header repeats (RFC 6040, section 4.1, normal mode; RFC 2983, section 2, uniform model).
    pub tos: u8,
    /// Bytes.
    pub len: u32,
}

/// Writes the outer headers at `at`; the inner packet stands right behind them. Mode and family are the endpoint's, `entropy` is
/// of the flow's hash.
#[inline(always)]
pub fn write(
    packet: &Packet,
    at: usize,
    inner: &Inner,
    (mode, family): (u8, u8),
    (endpoint, link): (&Endpoint, &Link),
    entropy: u32,
) -> Option<()> {
    let gue = mode == MODE_GUE;
    let carried = if inner.family == 6 { IPV6 } else { IPIP };
    let payload = inner.len as u16 + if gue { (UDP_LEN + GUE) as u16 } else { 0 };
    let proto = if gue { UDP } else { carried };
    let behind = if family == 6 {
        ipv6(packet, at, inner.tos, payload, proto, endpoint, link)?;
        at + IP6
    } else {
        ipv4(packet, at, inner.tos, payload, proto, endpoint, link)?;
        at + IP4
    };
    if !gue {
        return Some(());
    }
    let header = packet.at::<[u16; (UDP_LEN + GUE) / 2]>(behind)?;
    // The same for every packet of a flow, so that the routers and hosts between spread flows and keep each in order.
    let port = FIRST_PORT | entropy as u16 & !FIRST_PORT;
    // No UDP checksum: the inner packet has its own (RFC 768; over IPv6, RFC 6935 and 6936). GUE: variant 0, not a control
    // message, no optional fields; the protocol; no flags.
    // SAFETY: `at` checked twelve bytes.
    unsafe {
        *header = [port.to_be(), endpoint.tunnel_port, payload.to_be(), 0, u16::from(carried).to_be(), 0];
    }
    Some(())
}

#[inline(always)]
fn ipv6(packet: &Packet, at: usize, tos: u8, payload: u16, proto: u8, endpoint: &Endpoint, link: &Link) -> Option<()> {
    let ip = packet.at::<[u32; IP6 / 4]>(at)?;
    // RFC 8200, section 3: version, traffic class, flow label 0.
    let first = 6 << 28 | u32::from(tos) << 20;
    let second = u32::from(payload) << 16 | u32::from(proto) << 8 | u32::from(TTL);
    // SAFETY: `at` checked forty bytes.
    unsafe {
        (*ip)[0] = first.to_be();
        (*ip)[1] = second.to_be();
        for word in 0..4 {
            (*ip)[2 + word] = link.source6[word];
            (*ip)[6 + word] = endpoint.address[word];
        }
    }
    Some(())
}

#[inline(always)]
fn ipv4(packet: &Packet, at: usize, tos: u8, payload: u16, proto: u8, endpoint: &Endpoint, link: &Link) -> Option<()> {
    let ip = packet.at::<[u32; IP4 / 4]>(at)?;
    // RFC 791, section 3.1. One packet, one datagram: DF, and an identification of 0 (RFC 6864, section 4.1).
    let first = 0x4500_0000 | u32::from(tos) << 16 | u32::from(payload + IP4 as u16);
    let second = 0x4000_u32;
    let third = u32::from(TTL) << 24 | u32::from(proto) << 16;
    let (source, destination) = (link.source4, endpoint.address[0]);
    let mut sum = u64::from(first) + u64::from(second) + u64::from(third);
    sum += u64::from(u32::from_be(source)) + u64::from(u32::from_be(destination));
    let third = third | u32::from(checksum::fold(sum));
    // SAFETY: `at` checked twenty bytes.
    unsafe { *ip = [first.to_be(), second.to_be(), third.to_be(), source, destination] };
    Some(())
}
