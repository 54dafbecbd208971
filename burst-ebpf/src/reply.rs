//! A packet from a link: if it is the answer of an endpoint, its source becomes the service again and it goes to its
//! client. Never shifted again.

use aya_ebpf::bindings::xdp_md;
use burst_common::flow::SYN;
use burst_common::limits::RETURN_PROBES;
use burst_common::policy::{NEXTHOP, ROOM_SHIFT, constant};
use burst_common::reason::Reason;
use burst_common::returns::{Return, ReturnKey, proto};
use burst_common::slot::{EndpointId, LOCAL};

use crate::classify::{Family, classify, kept};
use crate::count::Account;
use crate::guard::{self, Guarded};
use crate::home::{self, Home, NO_ROW};
use crate::packet::Packet;
use crate::parse::{ETH, Frame, Offsets, TAG, full};
use crate::subprogram::subprograms;
use crate::{apply, maps, mss, rewrite};

/// Decides over a packet from the link `link` (0: one of several). [`Reason::NotReturn`]: it is not an endpoint's answer,
/// and was not touched.
#[inline(always)]
pub fn reply<A: Guarded>(packet: &Packet, frame: &Frame<A>, link: u32, account: &mut Account) -> Reason {
    match send_home(packet, frame, link, account) {
        Ok(reason) | Err(reason) => reason,
    }
}

/// Whose answer a packet is.
pub struct Answer {
    /// Row of the return table that says what its source becomes; [`NO_ROW`]: it stays.
    pub row: u32,
    /// The endpoint; [`LOCAL`]: it is not known.
    pub endpoint: EndpointId,
    /// Largest packet that fits the links of its flow; 0: not limited.
    pub room: u16,
}

#[inline(always)]
fn send_home<A: Guarded>(
    packet: &Packet,
    frame: &Frame<A>,
    link: u32,
    account: &mut Account,
) -> Result<Reason, Reason> {
    let answer = answer(frame, account)?;
    (account.endpoint, account.link) = (answer.endpoint, link);
    if maps::control().ok_or(Reason::Unready)?.bypass != 0 {
        return Err(Reason::Bypass);
    }
    let way = home::home(packet, frame, answer.row);
    if let Err(stays @ (Reason::ToHost | Reason::NoRoute)) = way {
        // The answer to a probe, or nothing the kernel would forward: nothing of it changes, and it is no class's.
        account.class = 0;
        return Err(stays);
    }
    if frame.ttl <= 1 {
        return Err(Reason::TtlExpired);
    }
    let left = match way {
        // Where the kernel answers "too big", it must answer the endpoint, which knows the packet as it came.
        Err(reason @ Reason::ReturnTooBig) if frame.whole => return Err(reason),
        Err(reason) => Err(reason),
        Ok(mut way) => way.leave().map(|()| way),
    };
    let way = match left {
        Ok(way) => way,
        Err(reason) => {
            // The kernel goes on with it, under the address the client knows.
            kernel::<A>(packet.context().ctx, frame.offsets().word(), answer.row, u32::from(answer.room));
            return Err(reason);
        }
    };
    account.device = way.ifindex;
    home::remember(way);
    if retag::<A>(packet.context().ctx, frame.offsets().word(), answer.row, u32::from(answer.room)) != 0 {
        return Err(Reason::NoHeadroom);
    }
    Ok(Reason::Returned)
}

/// Finds out whose answer it is.
#[inline(always)]
pub fn answer<A: Guarded>(frame: &Frame<A>, account: &mut Account) -> Result<Answer, Reason> {
    let policy = maps::policy();
    let flow = &frame.flow;
    let key = ReturnKey { address: flow.src.wide(), port: flow.src_port, proto: proto(A::FAMILY, flow.proto) };
    let (class, answer) = if let Some((index, row)) = find(&key) {
        let room = maps::endpoint(row.endpoint).ok_or(Reason::Unready)?.room;
        (u32::from(row.class), Answer { row: index, endpoint: row.endpoint, room })
    } else {
        // Layer 2 forwarding keeps the service's address: the reply is the mirror image of a packet of the class.
        let mirror = flow.reversed();
        let matched = classify(policy, &mirror).ok_or(Reason::NotReturn)?;
        let flags = constant(&policy.classes[matched.class as usize].flags);
        if matched.keep || flags & NEXTHOP == 0 || guard::keeps(&mirror) {
            return Err(Reason::NotReturn);
        }
        (matched.class, Answer { row: NO_ROW, endpoint: LOCAL, room: (flags >> ROOM_SHIFT) as u16 })
    };
    // What comes over a line must not speak to payment, least of all under the name of a service on premises. Asked of the
    // policy and of the guard.
    if kept(policy, flow) || guard::keeps_from(flow) {
        return Err(Reason::NotReturn);
    }
    account.class = class;
    Ok(answer)
}

/// Writes what changes from the IP header on.
#[inline(always)]
pub fn write<A: Family>(packet: &Packet, frame: &Frame<A>, row: u32, room: u16) -> Option<()> {
    match maps::returns(row) {
        Some(row) => {
            apply::hop_as(packet, frame, &rewrite::homeward(&frame.flow, A::narrow(row.service), row.service_port))?;
        }
        None => apply::hop(packet, frame)?,
    }
    clamp(packet, frame, room);
    Some(())
}

#[inline(always)]
fn clamp<A: Family>(packet: &Packet, frame: &Frame<A>, room: u16) {
    if frame.flow.flags & SYN != 0 {
        mss::clamp::<A>(packet, frame.l4, room);
    }
}

subprograms! {
    /// Sends a packet home, by the way in this CPU's memory, whatever its headers are and with the way's tag. 0 when it is done.
    retag = retag4, retag6: retagged(offsets, row, room)
}

#[inline(always)]
fn retagged<A: Guarded>(ctx: *mut xdp_md, offsets: u32, row: u32, room: u32) -> u32 {
    let packet = Packet::of(ctx);
    let Some(way) = home::recall() else { return 1 };
    u32::from(try_retag::<A>(&packet, Offsets::from_word(offsets), row, &way, room as u16).is_none())
}

#[inline(always)]
fn try_retag<A: Guarded>(packet: &Packet, offsets: Offsets, row: u32, way: &Home, room: u16) -> Option<()> {
    let l3 = ETH + if way.vlan == 0 { 0 } else { TAG };
    let grown = packet.grow(l3 as i32 - offsets.l3() as i32)?;
    // What was there before is there after: none of these is ever too short.
    let frame = full::again::<A>(&grown, offsets.moved(l3))?;
    write(&grown, &frame, row, room)?;
    apply::ethernet(&grown, &way.macs, way.vlan, A::FAMILY)
}

subprograms! {
    /// Rewrites the source only, and leaves the rest of the way to the kernel.
    kernel = rename_home4, rename_home6: renamed(offsets, row, room)
}

#[inline(always)]
fn renamed<A: Guarded>(ctx: *mut xdp_md, offsets: u32, row: u32, room: u32) -> u32 {
    let packet = Packet::of(ctx);
    let Some(frame) = full::again::<A>(&packet, Offsets::from_word(offsets)) else { return 1 };
    if let Some(row) = maps::returns(row) {
        let changed = rewrite::homeward(&frame.flow, A::narrow(row.service), row.service_port);
        if apply::rename(&packet, &frame, &changed).is_none() {
            return 1;
        }
    }
    clamp(&packet, &frame, room as u16);
    0
}

/// Looks a reply up in the return table.
#[inline(always)]
pub fn find(key: &ReturnKey) -> Option<(u32, &'static Return)> {
    let mut row = key.first();
    for _ in 0..RETURN_PROBES {
        let entry = maps::returns(row as u32)?;
        if entry.proto == 0 {
            return None;
        }
        if entry.answers(key) {
            return Some((row as u32, entry));
        }
        row = ReturnKey::next(row);
    }
    None
}
