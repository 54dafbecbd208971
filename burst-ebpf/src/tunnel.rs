//! A tunnel from an endpoint: its outer headers go, and the inner packet goes to its client.
//!
//! The outer source must be an endpoint, the outer destination the link's own tunnel address; the inner source must be a
//! service of that endpoint's class. Anything else that comes out of an endpoint's tunnel is dropped: it is spoofed.

use aya_ebpf::bindings::xdp_md;
use burst_common::endpoint::{Endpoint, MODE_GUE, MODE_IPIP};
use burst_common::flow::{Addr4, Addr6, SYN};
use burst_common::limits::MAX_LINKS;
use burst_common::policy::constant;
use burst_common::reason::Reason;
use burst_common::returns::{ReturnKey, proto};
use burst_common::slot::EndpointId;

use crate::classify::{Family, classify};
use crate::count::Account;
use crate::guard::{self, Guarded};
use crate::home::{NO_ROW, home};
use crate::outer::{GUE, IPIP, IPV6, UDP};
use crate::packet::Packet;
use crate::parse::full::{self, Found};
use crate::parse::{ETH, Frame, TAG, UDP_LEN};
use crate::reply::find;
use crate::{apply, maps, mss};

/// Congestion experienced (RFC 3168, section 5), and the two bits it is one value of.
const CE: u8 = 0b11;

/// Whether any endpoint of this policy may send tunnels.
#[inline(always)]
pub fn may_come() -> bool {
    constant(&maps::policy().modes) & (1 << MODE_GUE | 1 << MODE_IPIP) != 0
}

/// Whether a UDP packet may be one of them: `gue` is used, and this device has a link.
#[inline(always)]
pub fn may_come_in_udp() -> bool {
    let policy = maps::policy();
    constant(&policy.modes) & 1 << MODE_GUE != 0 && !policy.links.is_empty()
}

/// Looks whether the packet that was found is an endpoint's tunnel over this link (0: one of several). 1: it is, and what is
/// found from now on is the packet inside.
// SAFETY (no_mangle): no other symbol of the object has this name.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn open_tunnel(ctx: *mut xdp_md, link: u32) -> u32 {
    let packet = Packet::of(ctx);
    let Some(found) = maps::found() else { return 0 };
    // SAFETY: the row is this CPU's alone, and an XDP program is not preempted by another on its CPU.
    let found = unsafe { &mut *found };
    let inside =
        if found.family == 4 { inside::<Addr4>(&packet, found, link) } else { inside::<Addr6>(&packet, found, link) };
    let Some(inside) = inside else { return 0 };
    *found = inside;
    1
}

/// Where the packet inside is.
#[inline(always)]
fn inside<A: Family>(packet: &Packet, found: &Found, link: u32) -> Option<Found> {
    let carrier = found.proto as u8;
    if !matches!(carrier, UDP | IPIP | IPV6) {
        return None;
    }
    let outer = full::header::<A>(packet, found.l3())?;
    let key = ReturnKey { address: outer.flow.src.wide(), port: 0, proto: proto(A::FAMILY, IPIP) };
    let id = find(&key)?.1.endpoint;
    let endpoint = maps::endpoint(id)?;
    if !is_ours(outer.flow.dst, link) {
        return None;
    }
    let (inner, behind, most) = match (carrier, endpoint.mode) {
        (IPIP | IPV6, MODE_IPIP) => (carrier, 0, found.payload()),
        (UDP, MODE_GUE) => {
            let (inner, most) = gue(packet, found.l4(), found.payload(), endpoint)?;
            (inner, (UDP_LEN + GUE) as u32, most)
        }
        _ => return None,
    };
    let family = match inner {
        IPIP => 4,
        IPV6 => 6,
        _ => return None,
    };
    if most > 0xffff {
        return None;
    }
    Some(Found { l3: found.l4 + behind, family, endpoint: id.into(), outer_tos: outer.tos.into(), most, ..*found })
}

/// The protocol inside GUE, variant 0, no control message, no optional fields, no flags; and the bytes there are of it, as
/// the UDP length says. `None` where that contradicts the packet, too.
#[inline(always)]
fn gue(packet: &Packet, l4: usize, payload: u32, endpoint: &Endpoint) -> Option<(u8, u32)> {
    let header = packet.at::<[u16; (UDP_LEN + GUE) / 2]>(l4)?;
    // SAFETY: `at` checked twelve bytes: UDP ports, length, checksum; GUE control and protocol, flags.
    let (port, length, gue, flags) =
        unsafe { ((*header)[1], u16::from_be((*header)[2]), u16::from_be((*header)[4]), (*header)[5]) };
    if port != endpoint.tunnel_port || gue >> 8 != 0 || flags != 0 || u32::from(length) > payload {
        return None;
    }
    Some((gue as u8, u32::from(length).checked_sub((UDP_LEN + GUE) as u32)?))
}

/// Whether an outer destination is the link's own tunnel address; where a VLAN has several links, that of any link.
#[inline(always)]
fn is_ours<A: Family>(destination: A, link: u32) -> bool {
    if link != 0 {
        return is_source(destination, link);
    }
    for id in 1..MAX_LINKS as u32 {
        if is_source(destination, id) {
            return true;
        }
    }
    false
}

#[inline(always)]
fn is_source<A: Family>(address: A, link: u32) -> bool {
    let Some(link) = maps::link(link as u8) else { return false };
    link.ifindex != 0 && address.wide() == if A::FAMILY == 6 { link.source6 } else { [link.source4, 0, 0, 0] }
}

/// Sends the packet inside to its client.
#[inline(always)]
pub fn unwrap<A: Guarded>(packet: &Packet, link: u32, account: &mut Account) -> Result<Reason, Reason> {
    // SAFETY: as in `open`.
    let found = unsafe { *maps::found().ok_or(Reason::Unready)? };
    let endpoint = maps::endpoint(found.endpoint as EndpointId).ok_or(Reason::Unready)?;
    (account.class, account.link) = (u32::from(endpoint.class), link);
    account.endpoint = found.endpoint as EndpointId;
    if maps::control().ok_or(Reason::Unready)?.bypass != 0 {
        return Err(Reason::Bypass);
    }
    if found.ip_len > found.most {
        return Err(Reason::Spoofed);
    }
    let frame = full::frame::<A>(packet).ok_or(Reason::Spoofed)?;
    let policy = maps::policy();
    let mirror = frame.flow.reversed();
    let matched = classify(policy, &mirror).ok_or(Reason::Spoofed)?;
    // The sender of an ICMP error must be the service as well: a router's would be under no address that is known.
    if matched.keep
        || matched.class != u32::from(endpoint.class)
        || frame.is_error() && frame.from != frame.flow.src
        || guard::keeps(&mirror)
        || guard::keeps_from(&frame.flow)
    {
        return Err(Reason::Spoofed);
    }
    // RFC 6040, section 4.2: congestion that the tunnel met is the inner sender's to hear of, if it listens.
    let congested = found.outer_tos as u8 & CE == CE;
    if congested && frame.tos & CE == 0 {
        return Err(Reason::Congested);
    }
    let mut way = home(packet, &frame, NO_ROW)?;
    if frame.ttl <= 1 {
        return Err(Reason::TtlExpired);
    }
    way.leave()?;
    let l3 = ETH + if way.vlan == 0 { 0 } else { TAG };
    let cut = packet.grow(l3 as i32 - frame.l3 as i32).ok_or(Reason::NoHeadroom)?;
    let moved = full::again::<A>(&cut, frame.offsets().moved(l3)).ok_or(Reason::Truncated)?;
    write(&cut, &moved, congested, endpoint.room).ok_or(Reason::Truncated)?;
    apply::ethernet(&cut, &way.macs, way.vlan, A::FAMILY).ok_or(Reason::Truncated)?;
    account.device = way.ifindex;
    account.bytes = frame.bytes();
    Ok(Reason::Returned)
}

#[inline(always)]
fn write<A: Guarded>(packet: &Packet, frame: &Frame<A>, congested: bool, room: u16) -> Option<()> {
    apply::hop(packet, frame)?;
    if congested {
        apply::congested(packet, frame)?;
    }
    if frame.flow.flags & SYN != 0 {
        mss::clamp::<A>(packet, frame.l4, room);
    }
    Some(())
}
