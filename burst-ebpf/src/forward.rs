//! A packet from a client: classify, place, and on to an endpoint if that is where it belongs.

use aya_ebpf::bindings::xdp_md;
use burst_common::endpoint::{Endpoint, HELD, MODE_DNAT, MODE_GUE, MODE_IPIP, MODE_NEXTHOP, link_at, overhead};
use burst_common::flow::SYN;
use burst_common::hash;
use burst_common::link::{Link, VIA_KERNEL};
use burst_common::policy::{Policy, constant};
use burst_common::reason::Reason;
use burst_common::slot::{EndpointId, LOCAL};

use crate::classify::classify;
use crate::count::Account;
use crate::guard::{self, Guarded};
use crate::outer::{self, Inner};
use crate::packet::Packet;
use crate::parse::{ETH, Frame, Offsets, TAG, full};
use crate::place::place;
use crate::subprogram::subprograms;
use crate::{answer, apply, leave, maps, mss, rewrite};

/// Decides over a packet from a client, and rewrites it if it is to leave.
#[inline(always)]
pub fn forward<A: Guarded>(packet: &Packet, frame: &Frame<A>, account: &mut Account) -> Reason {
    match shift(packet, frame, account) {
        Ok(reason) | Err(reason) => reason,
    }
}

#[inline(always)]
fn shift<A: Guarded>(packet: &Packet, frame: &Frame<A>, account: &mut Account) -> Result<Reason, Reason> {
    let policy = maps::policy();
    let matched = classify(policy, &frame.flow).ok_or(Reason::NoMatch)?;
    (account.class, account.rule) = (matched.class, matched.rule + 1);
    account.opener = frame.flow.opens();
    if matched.keep || frame.is_error() && guard::keeps_portless(frame.from, frame.flow.dst) {
        return Err(Reason::Keep);
    }
    if frame.flow.answers() {
        return Err(Reason::SynAck);
    }
    if maps::control().ok_or(Reason::Unready)?.bypass != 0 {
        return Err(Reason::Bypass);
    }
    let class = &policy.classes[matched.class as usize];
    let placed = place(policy, matched.class, class, packet, frame)?;
    (account.endpoint, account.slot, account.opener) = (placed.endpoint, placed.slot + 1, placed.opens);
    if placed.endpoint == LOCAL {
        return Err(Reason::Local);
    }
    let endpoint = maps::endpoint(placed.endpoint).ok_or(Reason::NoEndpoint)?;
    let mode = mode::<A>(policy, endpoint)?;
    // SAFETY: a reference is valid for a read; volatile, because the daemon stores this word while we run.
    let table = unsafe { core::ptr::read_volatile(&raw const endpoint.links) };
    let id = link_at(table, hash::link(placed.hash));
    let link = maps::link(id).ok_or(Reason::NoLink)?;
    let ifindex = link.ifindex;
    (account.link, account.device) = (u32::from(id), ifindex);
    if id == 0 {
        return Err(Reason::NoLink);
    }
    if frame.ttl <= 1 {
        return Err(Reason::TtlExpired);
    }
    if constant(&policy.shadow) != 0 {
        return Err(Reason::Shadow);
    }
    // A link that endpoints still name has no device for the moment in which it is taken out of their tables.
    if id == HELD || ifindex == 0 {
        return Err(Reason::Held);
    }
    let most = u32::from(link.mtu).saturating_sub(u32::from(overhead(mode, endpoint.family)));
    if frame.ip_len > most {
        return Err(answer::too_big(packet, frame, most));
    }
    let reason = if link.flags & VIA_KERNEL != 0 {
        if mode != MODE_DNAT {
            return Err(Reason::NoLink);
        }
        leave::may_leave(packet, frame)?;
        rename::<A>(packet.context().ctx, frame.offsets().word(), u32::from(placed.endpoint));
        Reason::ShiftedKernel
    } else {
        let way = Way { id: placed.endpoint, endpoint, mode, link_id: id, link, ifindex, hash: placed.hash };
        send(packet, frame, &way)?;
        Reason::Shifted
    };
    Ok(reason)
}

/// The mode in which an endpoint takes packets of a family. What the policy does not use is dead code in its instance.
#[inline(always)]
fn mode<A: Guarded>(policy: &Policy, endpoint: &Endpoint) -> Result<u8, Reason> {
    let modes = constant(&policy.modes);
    let used = |mode: u8| modes & 1 << mode != 0 && endpoint.mode == mode;
    if used(MODE_DNAT) {
        return if endpoint.family == A::FAMILY { Ok(MODE_DNAT) } else { Err(Reason::NoEndpoint) };
    }
    // Layer 2 and tunnels take both families.
    for mode in [MODE_NEXTHOP, MODE_GUE, MODE_IPIP] {
        if used(mode) {
            return Ok(mode);
        }
    }
    Err(Reason::NoEndpoint)
}

/// How a packet leaves.
struct Way<'a> {
    id: EndpointId,
    endpoint: &'a Endpoint,
    mode: u8,
    link_id: u8,
    link: &'a Link,
    ifindex: u32,
    hash: u64,
}

/// Rewrites a packet and sends it out of the link's device. Nothing is written before it is certain that it leaves.
#[inline(always)]
fn send<A: Guarded>(packet: &Packet, frame: &Frame<A>, way: &Way<'_>) -> Result<(), Reason> {
    let grows = way.mode == MODE_GUE || way.mode == MODE_IPIP;
    if grows && !outer::can(way.endpoint, way.link) {
        return Err(Reason::NoLink);
    }
    leave::to_link(packet, frame, way.ifindex)?;
    let ids = u32::from(way.id) | u32::from(way.link_id) << 16;
    match wrap::<A>(packet.context().ctx, frame.offsets().word(), ids, (way.hash >> 16) as u32) {
        0 => Ok(()),
        _ => Err(Reason::NoHeadroom),
    }
}

subprograms! {
    /// Gives a packet its new destination; the routing table sends it on.
    rename = rename_out4, rename_out6: renamed(offsets, id)
}

#[inline(always)]
fn renamed<A: Guarded>(ctx: *mut xdp_md, offsets: u32, id: u32) -> u32 {
    let packet = Packet::of(ctx);
    let renamed = full::again::<A>(&packet, Offsets::from_word(offsets)).and_then(|frame| {
        let endpoint = maps::endpoint(id as EndpointId)?;
        apply::rename(&packet, &frame, &rewrite::outward(&frame.flow, endpoint))?;
        clamp(&packet, &frame, endpoint);
        Some(())
    });
    u32::from(renamed.is_none())
}

subprograms! {
    /// Rewrites a packet, whatever its headers are and wherever it goes: into a tunnel, to or from a VLAN. 0 when it is done. `ids`
    /// are the endpoint's, and above it the link's.
    wrap = wrap4, wrap6: wrapped(offsets, ids, entropy)
}

#[inline(always)]
fn wrapped<A: Guarded>(ctx: *mut xdp_md, offsets: u32, ids: u32, entropy: u32) -> u32 {
    u32::from(try_wrap::<A>(&Packet::of(ctx), Offsets::from_word(offsets), ids, entropy).is_none())
}

#[inline(always)]
fn try_wrap<A: Guarded>(packet: &Packet, offsets: Offsets, ids: u32, entropy: u32) -> Option<()> {
    let endpoint = maps::endpoint(ids as u16)?;
    let link = maps::link((ids >> 16) as u8)?;
    let mode = mode::<A>(maps::policy(), endpoint).ok()?;
    let tag = if link.vlan == 0 { 0 } else { TAG };
    let l3 = ETH + tag + usize::from(overhead(mode, endpoint.family));
    let grown = packet.grow(l3 as i32 - offsets.l3() as i32)?;
    // What was there before is there after: none of these is ever too short.
    let frame = full::again::<A>(&grown, offsets.moved(l3))?;
    write(&grown, &frame, endpoint, mode)?;
    let mut family = A::FAMILY;
    if mode == MODE_GUE || mode == MODE_IPIP {
        family = endpoint.family;
        let inner = Inner { family: A::FAMILY, tos: frame.tos, len: frame.ip_len };
        outer::write(&grown, ETH + tag, &inner, (mode, family), (endpoint, link), entropy)?;
    }
    apply::ethernet(&grown, &link.macs, link.vlan, family)
}

/// Writes what changes from the IP header on.
#[inline(always)]
pub fn write<A: Guarded>(packet: &Packet, frame: &Frame<A>, endpoint: &Endpoint, mode: u8) -> Option<()> {
    if mode == MODE_DNAT {
        apply::hop_as(packet, frame, &rewrite::outward(&frame.flow, endpoint))?;
    } else {
        apply::hop(packet, frame)?;
    }
    clamp(packet, frame, endpoint);
    Some(())
}

#[inline(always)]
fn clamp<A: Guarded>(packet: &Packet, frame: &Frame<A>, endpoint: &Endpoint) {
    if frame.flow.flags & SYN != 0 {
        mss::clamp::<A>(packet, frame.l4, endpoint.room);
    }
}
