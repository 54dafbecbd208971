//! A usual frame from a client.

use burst_common::endpoint::{Endpoint, MODE_DNAT, MODE_GUE, MODE_IPIP, MODE_NEXTHOP, link_at, overhead};
use burst_common::flow::SYN;
use burst_common::hash;
use burst_common::link::{Link, VIA_KERNEL};
use burst_common::policy::{Class, Policy, TAGGED, constant};
use burst_common::reason::{Note, Reason};
use burst_common::slot::LOCAL;
use burst_common::tables::Tables;

use crate::classify::among;
use crate::count::{self, Account};
use crate::forward::write;
use crate::guard::Guarded;
use crate::opener::{self, Opens};
use crate::outer::{self, Inner};
use crate::packet::Packet;
use crate::parse::{Checked, ETH, Frame, TAG, TCP_MIN, Usual};
use crate::place::{self, Placed};
use crate::usual::Conclude;
use crate::{apply, leave, maps};

/// Decides over a packet and rewrites it if it is to leave; `act` counts it and knows the action. `None`: it is for the way step
/// by step; nothing of it was written or counted.
#[inline(always)]
pub fn out<A: Usual>(packet: &Packet, usual: &Checked, act: &impl Conclude) -> Option<u32> {
    let policy = maps::policy();
    let mut account = Account::new(usual.bytes());
    // Nothing but the destination is read of most packets.
    let rules = A::destination_of(packet)?.destination(policy);
    if rules == 0 {
        return Some(act.conclude(&account, Reason::NoMatch));
    }
    let packet = &packet.again();
    let frame = &A::frame(packet, usual)?;
    let Some(matched) = among(policy, rules, &frame.flow) else { return Some(act.conclude(&account, Reason::NoMatch)) };
    (account.class, account.rule) = (matched.class, matched.rule + 1);
    if matched.keep {
        account.opener = frame.flow.opens();
        return Some(act.conclude(&account, Reason::Keep));
    }
    let tables = maps::tables()?;
    if tables.control.bypass != 0 {
        return None;
    }
    let class = &policy.classes[matched.class as usize];
    let onward = Onward { policy, tables, class, usual };
    let packet = &packet.again();
    // Two ways from here, so that nothing of an opener's is asked or kept for other packets. A TCP packet has some flag.
    if frame.flow.flags & SYN == 0 && (frame.flow.flags != 0 || !opens::<A>(packet, usual, class)?) {
        return onward.go::<A, false>(packet, &mut account, act);
    }
    if frame.flow.flags != 0 && !frame.flow.opens() {
        return None;
    }
    onward.go::<A, true>(packet, &mut account, act)
}

/// Whether a UDP packet opens its flow; `None`: it is one by itself.
#[inline(always)]
fn opens<A: Usual>(packet: &Packet, usual: &Checked, class: &Class) -> Option<bool> {
    let frame = A::frame(packet, usual)?;
    match opener::opens(constant(&class.flags), packet, &frame.flow, frame.l4) {
        Opens::No => Some(false),
        Opens::Flow => Some(true),
        Opens::Alone => None,
    }
}

/// What is known of a packet that is to be placed.
struct Onward<'a> {
    policy: &'static Policy,
    tables: &'static Tables,
    class: &'static Class,
    usual: &'a Checked,
}

impl Onward<'_> {
    /// Places a packet, and sends it on if it is to leave; of an opener, `OPENS`.
    #[inline(always)]
    fn go<A: Usual, const OPENS: bool>(
        &self,
        packet: &Packet,
        account: &mut Account,
        act: &impl Conclude,
    ) -> Option<u32> {
        let Self { policy, tables, class, usual } = *self;
        let frame = &A::frame(packet, usual)?;
        let placed = if OPENS {
            place::of_opener(policy, class, frame)?
        } else {
            place::usual(policy, tables.control.epoch, class, frame)?
        };
        (account.endpoint, account.slot) = (placed.endpoint, placed.slot + 1);
        if placed.endpoint == LOCAL {
            if OPENS {
                open(packet, frame, &placed, account)?;
            }
            note(&placed, account.class);
            return Some(act.conclude(account, Reason::Local));
        }
        let packet = &packet.again();
        shift::<A, OPENS>(policy, tables, packet, &A::frame(packet, usual)?, &placed, account)?;
        note(&placed, account.class);
        Some(act.conclude(account, Reason::Shifted))
    }
}

/// Asks whether an opener may go where it was placed.
#[inline(always)]
fn open<A: Guarded>(packet: &Packet, frame: &Frame<A>, placed: &Placed, account: &mut Account) -> Option<()> {
    let mark = opener::mark(packet, &frame.flow, frame.l4, placed.hash);
    match opener::usual(account.class, placed.slot, u32::from(placed.endpoint), mark) {
        opener::GOES => account.opener = true,
        opener::REPEATS => count::note(account.class, Note::Repeated),
        _ => return None,
    }
    Some(())
}

/// Counts that a pin decided, once it is certain that this way has.
#[inline(always)]
fn note(placed: &Placed, class: u32) {
    if placed.pinned {
        count::note(class, Note::PinHit);
    }
}

/// Sends a packet to where it was placed, if nothing is in the way.
#[inline(always)]
fn shift<A: Guarded, const OPENS: bool>(
    policy: &Policy,
    tables: &'static Tables,
    packet: &Packet,
    frame: &Frame<A>,
    placed: &Placed,
    account: &mut Account,
) -> Option<()> {
    let endpoint = tables.endpoint(placed.endpoint);
    // SAFETY: a reference is valid for a read; volatile, because the daemon stores this word while we run.
    let table = unsafe { core::ptr::read_volatile(&raw const endpoint.links) };
    let id = link_at(table, hash::link(placed.hash));
    // Row 0 is no link: its device is 0.
    let link = tables.link(id);
    let ifindex = link.ifindex;
    let (vlan, mtu, flags) = link.shape();
    let fits = frame.ip_len + u32::from(endpoint.overhead) <= u32::from(mtu);
    if ifindex == 0 || flags & VIA_KERNEL != 0 || !fits || frame.ttl <= 1 || constant(&policy.shadow) != 0 {
        return None;
    }
    leave::to_link_if_free(frame, ifindex)?;
    // Last of all: what it remembers must be what becomes of the packet.
    if OPENS {
        open(packet, frame, placed, account)?;
    }
    let packet = &packet.again();
    let modes = constant(&policy.modes);
    let is = |mode: u8| modes & 1 << mode != 0 && endpoint.mode == mode;
    let way = Way { packet, frame, endpoint, link, vlan, entropy: (placed.hash >> 16) as u32 };
    // What is not in the policy the verifier removes; a tag that came after it takes the way step by step.
    let tagged = vlan != 0;
    if tagged && modes & TAGGED == 0 {
        return None;
    }
    match () {
        () if is(MODE_DNAT) && endpoint.family != A::FAMILY => return None,
        () if is(MODE_DNAT) && !tagged => way.plain::<MODE_DNAT>()?,
        () if is(MODE_DNAT) => way.grown::<MODE_DNAT, 0, TAG>()?,
        () if is(MODE_NEXTHOP) && !tagged => way.plain::<MODE_NEXTHOP>()?,
        () if is(MODE_NEXTHOP) => way.grown::<MODE_NEXTHOP, 0, TAG>()?,
        () if is(MODE_GUE) => way.tunnel::<MODE_GUE>(tagged)?,
        () if is(MODE_IPIP) => way.tunnel::<MODE_IPIP>(tagged)?,
        () => return None,
    }
    (account.link, account.device) = (u32::from(id), ifindex);
    Some(())
}

/// How a packet leaves.
struct Way<'a, A> {
    packet: &'a Packet,
    frame: &'a Frame<A>,
    endpoint: &'static Endpoint,
    link: &'static Link,
    vlan: u16,
    entropy: u32,
}

impl<A: Guarded> Way<'_, A> {
    /// With its headers where they are.
    #[inline(always)]
    fn plain<const MODE: u8>(&self) -> Option<()> {
        write(self.packet, self.frame, self.endpoint, MODE)?;
        apply::macs(self.packet, &self.link.macs)
    }

    #[inline(always)]
    fn tunnel<const MODE: u8>(&self, tagged: bool) -> Option<()> {
        if !outer::can(self.endpoint, self.link) {
            return None;
        }
        match (self.endpoint.family, tagged) {
            (6, false) => self.grown::<MODE, 6, 0>(),
            (6, true) => self.grown::<MODE, 6, TAG>(),
            (_, false) => self.grown::<MODE, 4, 0>(),
            (_, true) => self.grown::<MODE, 4, TAG>(),
        }
    }

    /// With a tag, or outer headers of a family, in front: where the headers are then is a constant in each case.
    #[inline(always)]
    fn grown<const MODE: u8, const FAMILY: u8, const TAG: usize>(&self) -> Option<()> {
        let Self { packet, frame, endpoint, link, vlan, entropy } = *self;
        let before = TAG + usize::from(overhead(MODE, FAMILY));
        let grown = packet.grow(before as i32)?.hold(before + frame.l4 + TCP_MIN)?;
        let moved = Frame { l3: ETH + before, l4: frame.l4 + before, ..*frame };
        write(&grown, &moved, endpoint, MODE)?;
        let mut family = A::FAMILY;
        if MODE == MODE_GUE || MODE == MODE_IPIP {
            family = FAMILY;
            let inner = Inner { family: A::FAMILY, tos: frame.tos, len: frame.ip_len };
            outer::write(&grown, ETH + TAG, &inner, (MODE, FAMILY), (endpoint, link), entropy)?;
        }
        apply::ethernet(&grown, &link.macs, if TAG == 0 { 0 } else { vlan }, family)
    }
}
