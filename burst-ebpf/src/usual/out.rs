//! A usual frame from a client.

use burst_common::counter::OUT;
use burst_common::endpoint::{Endpoint, MODE_DNAT, MODE_GUE, MODE_IPIP, MODE_NEXTHOP, link_at, overhead};
use burst_common::hash;
use burst_common::link::Link;
use burst_common::policy::{Policy, constant};
use burst_common::reason::Reason;
use burst_common::slot::LOCAL;

use crate::classify::among;
use crate::count::{self, Account};
use crate::forward::write;
use crate::guard::Guarded;
use crate::outer::{self, Inner};
use crate::packet::Packet;
use crate::parse::{Checked, ETH, Frame, TCP_MIN, Usual};
use crate::place::{self, Placed};
use crate::{apply, leave, maps};

/// Decides over a packet and rewrites it if it is to leave; `act` counts it and knows the action. `None`: it is for the way step
/// by step; nothing of it was written or counted.
#[inline(always)]
pub fn out<A: Usual>(packet: &Packet, usual: &Checked, act: impl Fn(&Account, Reason) -> u32) -> Option<u32> {
    let policy = maps::policy();
    let mut account = Account::new(usual.bytes());
    // Nothing but the destination is read of most packets.
    let rules = A::destination_of(packet)?.destination(policy);
    if rules == 0 {
        return Some(act(&account, Reason::NoMatch));
    }
    let packet = &packet.again();
    let frame = &A::frame(packet, usual)?;
    let Some(matched) = among(policy, rules, &frame.flow) else { return Some(act(&account, Reason::NoMatch)) };
    (account.class, account.rule) = (matched.class, matched.rule + 1);
    account.opener = frame.flow.opens();
    if matched.keep {
        return Some(act(&account, Reason::Keep));
    }
    if frame.flow.answers() || maps::control()?.bypass != 0 {
        return None;
    }
    let class = &policy.classes[matched.class as usize];
    let packet = &packet.again();
    let placed = place::usual(policy, matched.class, class, &A::frame(packet, usual)?)?;
    (account.endpoint, account.slot) = (placed.endpoint, placed.slot + 1);
    if placed.endpoint == LOCAL {
        return Some(act(&account, Reason::Local));
    }
    let packet = &packet.again();
    shift(policy, packet, &A::frame(packet, usual)?, &placed, &mut account)?;
    Some(act(&account, Reason::Shifted))
}

/// Sends a packet to where it was placed, if nothing is in the way.
#[inline(always)]
fn shift<A: Guarded>(
    policy: &Policy,
    packet: &Packet,
    frame: &Frame<A>,
    placed: &Placed,
    account: &mut Account,
) -> Option<()> {
    let endpoint = maps::endpoint(placed.endpoint)?;
    // SAFETY: a reference is valid for a read; volatile, because the daemon stores this word while we run.
    let table = unsafe { core::ptr::read_volatile(&raw const endpoint.links) };
    let id = link_at(table, hash::link(placed.hash));
    // Row 0 is no link: its device is 0.
    let link = maps::link(id)?;
    let ifindex = link.ifindex;
    let (plain, mtu) = link.plain();
    let fits = frame.ip_len + u32::from(endpoint.overhead) <= mtu;
    if ifindex == 0 || !plain || !fits || frame.ttl <= 1 || constant(&policy.shadow) != 0 {
        return None;
    }
    leave::to_link_if_free(frame, ifindex)?;
    let packet = &packet.again();
    let modes = constant(&policy.modes);
    let is = |mode: u8| modes & 1 << mode != 0 && endpoint.mode == mode;
    let tunnel = Tunnel { packet, frame, endpoint, link, entropy: (placed.hash >> 16) as u32 };
    if is(MODE_DNAT) {
        if endpoint.family != A::FAMILY {
            return None;
        }
        write(packet, frame, endpoint, MODE_DNAT)?;
        apply::macs(packet, &link.macs)?;
    } else if is(MODE_NEXTHOP) {
        write(packet, frame, endpoint, MODE_NEXTHOP)?;
        apply::macs(packet, &link.macs)?;
    } else if is(MODE_GUE) {
        if endpoint.family == 6 { tunnel.enter::<MODE_GUE, 6>()? } else { tunnel.enter::<MODE_GUE, 4>()? }
    } else if is(MODE_IPIP) {
        if endpoint.family == 6 { tunnel.enter::<MODE_IPIP, 6>()? } else { tunnel.enter::<MODE_IPIP, 4>()? }
    } else {
        return None;
    }
    (account.link, account.device) = (u32::from(id), ifindex);
    count::endpoint(placed.endpoint, OUT, account);
    count::link(u32::from(id), OUT, account);
    Some(())
}

/// A packet on its way into a tunnel.
struct Tunnel<'a, A> {
    packet: &'a Packet,
    frame: &'a Frame<A>,
    endpoint: &'static Endpoint,
    link: &'static Link,
    entropy: u32,
}

impl<A: Guarded> Tunnel<'_, A> {
    /// Makes room, and writes inner and outer headers. Where they are is a constant in each mode and family.
    #[inline(always)]
    fn enter<const MODE: u8, const FAMILY: u8>(&self) -> Option<()> {
        let Self { packet, frame, endpoint, link, entropy } = *self;
        if !outer::can(endpoint, link) {
            return None;
        }
        let before = usize::from(overhead(MODE, FAMILY));
        let grown = packet.grow(before as i32)?.hold(before + frame.l4 + TCP_MIN)?;
        let inner = Inner { family: A::FAMILY, tos: frame.tos, len: frame.ip_len };
        let moved = Frame { l3: ETH + before, l4: frame.l4 + before, ..*frame };
        write(&grown, &moved, endpoint, MODE)?;
        outer::write(&grown, ETH, &inner, (MODE, FAMILY), (endpoint, link), entropy)?;
        apply::ethernet(&grown, &link.macs, 0, FAMILY)
    }
}
