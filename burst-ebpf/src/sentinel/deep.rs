//! Any frame → whether a keep rule names what it carries: header by header, by copies.
//!
//! What cannot be read to its ports (later fragments, headers that end early) counts as kept if a keep rule names one of
//! its addresses. An IP header that is none is nobody's.

use burst_common::flow::{Addr4, Addr6, Flow, TCP, UDP};
use burst_common::forget::forget;
use burst_common::reason::Reason;

use super::{Found, Leaving, NONE};
use crate::bytes::Source;
use crate::walk::{FIRST_FRAGMENT, IPIP, IPV6, Ip, Walk};
use crate::{guard, maps};

const ETHERTYPE_IPV4: u16 = 0x0800u16.to_be();
const ETHERTYPE_IPV6: u16 = 0x86ddu16.to_be();
const ETHERTYPE_8021Q: u16 = 0x8100u16.to_be();
const ETHERTYPE_8021AD: u16 = 0x88a8u16.to_be();

/// Whether a frame carries what a keep rule names: `found` then has it. `leaving` gets the destination and the VLAN id.
#[inline(never)]
pub fn deep<S: Source>(ctx: *mut S::Context, leaving: &mut Leaving, named: &mut Found) -> bool {
    let (mut at, mut ethertype, mut tag) = (0, leaving.bare as u16, leaving.vlan);
    if leaving.bare == NONE {
        let mut eth = [0u16; 8];
        // Sixteen bytes: no frame that carries anything is shorter.
        if !S::read(ctx, 0, &mut eth) {
            return false;
        }
        leaving.to = u64::from(eth[0]) | u64::from(eth[1]) << 16 | u64::from(eth[2]) << 32;
        (at, ethertype) = (14, eth[6]);
        for _ in 0..2 {
            let mut next = [0u16; 2];
            if !matches!(ethertype, ETHERTYPE_8021Q | ETHERTYPE_8021AD) || !S::read(ctx, at as u32, &mut next) {
                break;
            }
            if tag == NONE.into() {
                tag = u16::from_be(next[0]).into();
            }
            ethertype = next[1];
            at += 4;
        }
    }
    // VLAN id (IEEE 802.1Q, section 9.6).
    leaving.vlan = forget(if tag == NONE.into() { 0 } else { tag & 0x0fff });
    if maps::policy().link(leaving.vlan as u16).is_none() {
        return false;
    }
    let family = match ethertype {
        ETHERTYPE_IPV4 => INSIDE4,
        ETHERTYPE_IPV6 => INSIDE6,
        _ => return false,
    };
    let mut found = level::<S>(ctx, &mut at, family, named);
    if matches!(found, INSIDE4 | INSIDE6) {
        found = level::<S>(ctx, &mut at, found, named);
    }
    if matches!(found, ERROR4 | ERROR6) {
        found = if found == ERROR4 { quoted::<S, Addr4>(ctx, at, named) } else { quoted::<S, Addr6>(ctx, at, named) };
    }
    found == KEPT
}

/// Nothing that is kept.
const FREE: u32 = 0;
/// Kept.
const KEPT: u32 = 1;
/// There is an IPv4 packet inside.
const INSIDE4: u32 = 4;
/// There is an IPv6 packet inside.
const INSIDE6: u32 = 6;
/// It is an ICMP error about an IPv4 packet.
const ERROR4: u32 = 14;
/// It is an ICMPv6 error about an IPv6 packet.
const ERROR6: u32 = 16;

/// Looks at the packet at `at`, and moves on to what is inside. Offsets are whole words: the verifier compares halves worse.
#[inline(always)]
fn level<S: Source>(ctx: *mut S::Context, at: &mut u64, family: u32, named: &mut Found) -> u32 {
    let found = if family == INSIDE4 { packet::<S, Addr4>(ctx, at, named) } else { packet::<S, Addr6>(ctx, at, named) };
    // Else the verifier would follow each of the ways to each answer.
    forget(found.into()) as u32
}

/// Looks at the packet whose IP header is at `at`.
#[inline(never)]
fn packet<S: Source, A: Walk>(ctx: *mut S::Context, at: &mut u64, named: &mut Found) -> u32 {
    let mut ip = Ip::<A>::new();
    let walked = A::walk::<S>(ctx, *at as u32, &mut ip);
    let (flow, l4) = (&mut ip.flow, ip.l4);
    if let Err(reason) = walked {
        return if matches!(reason, Reason::NotIp) { FREE } else { verdict(flow, ADDRESSES, named) };
    }
    // The ports of a first fragment are there, but a later one may write over them.
    if ip.odd & FIRST_FRAGMENT != 0 {
        let answer = verdict(flow, ADDRESSES, named);
        if answer != FREE {
            return answer;
        }
    }
    if !matches!(flow.proto, TCP | UDP) {
        // No ports: only rules that ask for none can name it.
        let answer = verdict(flow, PORTLESS, named);
        if answer != FREE {
            return answer;
        }
        *at = l4.into();
        return match flow.proto {
            IPIP => INSIDE4,
            IPV6 => INSIDE6,
            proto if proto == A::ICMP => ERROR4 - INSIDE4 + u32::from(A::FAMILY),
            _ => FREE,
        };
    }
    let mut udp = [0u16; 8];
    let mut ports = [0u16; 2];
    if !S::read(ctx, l4, &mut ports) {
        return verdict(flow, ADDRESSES, named);
    }
    [flow.src_port, flow.dst_port] = ports;
    let answer = verdict(flow, PORTS, named);
    if answer != FREE || flow.proto != UDP || !S::read(ctx, l4, &mut udp) {
        return answer;
    }
    match wraps(&udp) {
        Some((family, header)) => {
            *at = u64::from(l4 + header);
            family
        }
        None => FREE,
    }
}

/// Looks at the packet that an ICMP error is about: the error goes where that packet came from, so it is the packet's
/// other direction that may be kept.
#[inline(never)]
fn quoted<S: Source, A: Walk>(ctx: *mut S::Context, icmp: u64, named: &mut Found) -> u32 {
    let mut kind = 0u8;
    if !S::read(ctx, icmp as u32, &mut kind) || !A::is_error(kind) {
        return FREE;
    }
    let mut ip = Ip::<A>::new();
    let walked = A::walk::<S>(ctx, icmp as u32 + 8, &mut ip);
    let flow = &mut ip.flow;
    (flow.src, flow.dst) = (flow.dst, flow.src);
    if let Err(reason) = walked {
        return if matches!(reason, Reason::NotIp) { FREE } else { verdict(flow, ADDRESSES, named) };
    }
    if !matches!(flow.proto, TCP | UDP) {
        return verdict(flow, PORTLESS, named);
    }
    let mut ports = [0u16; 2];
    if !S::read(ctx, ip.l4, &mut ports) {
        return verdict(flow, ADDRESSES, named);
    }
    [flow.dst_port, flow.src_port] = ports;
    verdict(flow, PORTS, named)
}

/// By all that rules ask for.
const PORTS: u32 = 0;
/// By addresses, and rules that ask for no ports.
const PORTLESS: u32 = 1;
/// By addresses, whatever else the rules ask for: the ports cannot be read.
const ADDRESSES: u32 = 2;

/// [`KEPT`] if a keep rule names the flow, which is then written down; else [`FREE`].
#[inline(always)]
fn verdict<A: Walk>(flow: &Flow<A>, by: u32, named: &mut Found) -> u32 {
    forget(ask(flow, by, named).into()) as u32
}

#[inline(never)]
fn ask<A: Walk>(flow: &Flow<A>, by: u32, found: &mut Found) -> u32 {
    let named = match by {
        PORTS => guard::keeps(flow),
        PORTLESS => guard::keeps_portless(flow.src, flow.dst),
        _ => guard::keeps_addresses(flow.src, flow.dst),
    };
    if named {
        found.write(flow);
        KEPT
    } else {
        FREE
    }
}

/// Whether a UDP datagram, by its header and the eight bytes behind it, carries an IP packet: family, and where it begins.
/// Any port may be a tunnel's, so the payload is asked. Generic UDP Encapsulation (draft-ietf-intarea-gue, section 3):
/// variant 0 names a protocol of IP; variant 1, and foo-over-UDP, are the IP packet itself, whose length must then be the
/// datagram's, for other protocols begin with these bits, too (QUIC does).
#[inline(always)]
pub fn wraps(udp: &[u16; 8]) -> Option<(u32, u32)> {
    const HEADER: u32 = 8;
    let [first, second] = udp[4].to_ne_bytes();
    let payload = u32::from(u16::from_be(udp[2])).wrapping_sub(HEADER);
    match first >> 4 {
        // Variant, control bit, length of what is optional in words.
        0 | 1 => match second {
            IPIP => Some((4, HEADER + 4 + u32::from(first & 0x1f) * 4)),
            IPV6 => Some((6, HEADER + 4 + u32::from(first & 0x1f) * 4)),
            _ => None,
        },
        4 if u32::from(u16::from_be(udp[5])) == payload => Some((4, HEADER)),
        6 if u32::from(u16::from_be(udp[6])) + crate::walk::IP6 == payload => Some((6, HEADER)),
        _ => None,
    }
}
