//! A packet from a client: classify, place, and on to an endpoint if that is where it belongs.

use burst_common::counter::OUT;
use burst_common::endpoint::{MODE_DNAT, MODE_NONE, link_at};
use burst_common::hash;
use burst_common::policy::constant;
use burst_common::reason::Reason;
use burst_common::slot::LOCAL;

use crate::classify::{Family, classify};
use crate::count::{self, Account};
use crate::packet::Packet;
use crate::parse::Frame;
use crate::place::place;
use crate::{apply, maps, rewrite};

/// Decides over a packet from a client, and rewrites it if it is to leave.
#[inline(always)]
pub fn forward<A: Family>(packet: &Packet, frame: &Frame<A>, account: &mut Account) -> Reason {
    match shift(packet, frame, account) {
        Ok(reason) | Err(reason) => reason,
    }
}

#[inline(always)]
fn shift<A: Family>(packet: &Packet, frame: &Frame<A>, account: &mut Account) -> Result<Reason, Reason> {
    let policy = maps::policy();
    let matched = classify(policy, &frame.flow).ok_or(Reason::NoMatch)?;
    (account.class, account.rule) = (matched.class, matched.rule + 1);
    account.opener = frame.flow.opens();
    if matched.keep {
        return Err(Reason::Keep);
    }
    if frame.flow.answers() {
        return Err(Reason::SynAck);
    }
    if maps::control().ok_or(Reason::Unready)?.bypass != 0 {
        return Err(Reason::Bypass);
    }
    let class = &policy.classes[matched.class as usize];
    let placed = place(policy, matched.class, class, &frame.flow)?;
    (account.endpoint, account.slot) = (placed.endpoint, placed.slot + 1);
    if placed.endpoint == LOCAL {
        return Err(Reason::Local);
    }
    let endpoint = maps::endpoint(placed.endpoint).ok_or(Reason::NoEndpoint)?;
    // An endpoint without an address (`nexthop`) takes both families.
    if endpoint.mode == MODE_NONE || endpoint.family != 0 && endpoint.family != A::FAMILY {
        return Err(Reason::NoEndpoint);
    }
    // SAFETY: a reference is valid for a read; volatile, because the daemon stores this word while we run.
    let table = unsafe { core::ptr::read_volatile(&raw const endpoint.links) };
    let id = link_at(table, hash::link(placed.hash));
    let link = maps::link(id).ok_or(Reason::NoLink)?;
    let ifindex = link.ifindex;
    (account.link, account.device) = (u32::from(id), ifindex);
    if id == 0 || ifindex == 0 {
        return Err(Reason::NoLink);
    }
    if frame.ttl <= 1 {
        return Err(Reason::TtlExpired);
    }
    if constant(&policy.shadow) != 0 {
        return Err(Reason::Shadow);
    }
    if frame.ip_len > u32::from(link.mtu) {
        return Err(Reason::TooBig);
    }
    // Nothing is written before it is certain that the packet leaves.
    if !maps::redirect(ifindex) {
        return Err(Reason::NoLink);
    }
    let written = if endpoint.mode == MODE_DNAT {
        apply::hop_as(packet, frame, link.macs, &rewrite::outward(&frame.flow, endpoint))
    } else {
        apply::hop(packet, frame, link.macs)
    };
    written.ok_or(Reason::Truncated)?;
    count::endpoint(placed.endpoint, OUT, account);
    count::link(u32::from(id), OUT, account);
    Ok(Reason::Shifted)
}
