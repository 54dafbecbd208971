//! Flow → endpoint: the slot's word, and where that cannot tell, what is remembered of the flow.
//!
//! The rules are `burst_common::place`'s; here is what it asks.

use aya_ebpf::bindings::xdp_md;
use burst_common::control::Control;
use burst_common::endpoint::Endpoint;
use burst_common::flow::Flow;
use burst_common::hash;
use burst_common::pin::{Pin, PinKey};
use burst_common::place::{self as by_rule, Opened, Pinned, World};
use burst_common::policy::{BY_CLIENT, Class, Policy, constant};
use burst_common::reason::{Note, Reason};
use burst_common::slot::{EndpointId, Slot, State};

use crate::guard::Guarded;
use crate::opener::{self, Opens};
use crate::packet::Packet;
use crate::parse::{Frame, Offsets, full};
use crate::subprogram::subprograms;
use crate::{count, maps};

/// Errno of an insert that found the key (include/uapi/asm-generic/errno-base.h).
const EEXIST: i32 = -17;

/// Where a flow goes.
pub struct Placed {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// Index of its slot.
    pub slot: u32,
    /// The flow's hash, for the choice of the link.
    pub hash: u64,
    /// Whether a pin decided that is not counted yet.
    pub pinned: bool,
    /// Whether the packet opens a new flow; of the usual way, whether it may be one.
    pub opens: bool,
}

/// Places a packet that opens nothing, whose slot, or pin, is there to tell; `None`: what must be remembered of it.
#[inline(always)]
pub fn usual<A: Guarded>(policy: &Policy, epoch: u32, class: &Class, frame: &Frame<A>) -> Option<Placed> {
    let (slot, hash) = slot(policy, class, &frame.flow);
    let word = maps::slot(slot)?;
    let here = |endpoint, pinned| Placed { endpoint, slot, hash, pinned, opens: false };
    if word.state() == State::Stable {
        return Some(here(word.current(), false));
    }
    Some(here(maps::pinned(&PinKey::new(&frame.flow), epoch)?, true))
}

/// Places an opener whose slot is stable; `None`: it is not.
#[inline(always)]
pub fn of_opener<A: Guarded>(policy: &Policy, class: &Class, frame: &Frame<A>) -> Option<Placed> {
    let (slot, hash) = slot(policy, class, &frame.flow);
    let word = maps::slot(slot)?;
    let stable = word.state() == State::Stable;
    stable.then_some(Placed { endpoint: word.current(), slot, hash, pinned: false, opens: true })
}

/// A flow's slot, and its hash.
#[inline(always)]
fn slot<A: Guarded>(policy: &Policy, class: &Class, flow: &Flow<A>) -> (u32, u64) {
    let hash = hash::flow(constant(&policy.seed), flow);
    let selector =
        if constant(&class.flags) & BY_CLIENT != 0 { hash::client(constant(&policy.seed), flow) } else { hash };
    let base = if A::FAMILY == 4 { constant(&class.base4) } else { constant(&class.base6) };
    (base + hash::slot(selector, constant(&class.mask)), hash)
}

/// Places a packet of class `id`.
#[inline(always)]
pub fn place<A: Guarded>(
    policy: &Policy,
    id: u32,
    class: &Class,
    packet: &Packet,
    frame: &Frame<A>,
) -> Result<Placed, Reason> {
    let (slot, hash) = slot(policy, class, &frame.flow);
    let answer = ask::<A>(packet.context().ctx, frame.offsets().word(), slot, id);
    if answer & UNREADY != 0 {
        return Err(Reason::Unready);
    }
    Ok(Placed { endpoint: answer as EndpointId, slot, hash, pinned: false, opens: answer & OPENS != 0 })
}

/// In the answer of [`ask`], behind the endpoint: the packet opens a new flow.
const OPENS: u32 = 1 << 16;
/// There is no such slot, or no such frame.
const UNREADY: u32 = 1 << 17;

subprograms! {
    /// Places a packet, and remembers what must be. An ICMP error goes where its flow is, and leaves no trace.
    ask = ask_pin4, ask_pin6: asked(offsets, slot, class)
}

#[inline(always)]
fn asked<A: Guarded>(ctx: *mut xdp_md, offsets: u32, slot: u32, class: u32) -> u32 {
    answered::<A>(&Packet::of(ctx), Offsets::from_word(offsets), slot, class).unwrap_or(UNREADY)
}

#[inline(always)]
fn answered<A: Guarded>(packet: &Packet, offsets: Offsets, slot: u32, class: u32) -> Option<u32> {
    let frame = full::again::<A>(packet, offsets)?;
    let policy = maps::policy();
    let flags = maps::class_flags(class);
    let opens = if frame.is_error() { Opens::No } else { opener::opens(flags, packet, &frame.flow, frame.l4) };
    let mut here = Here {
        key: PinKey::new(&frame.flow),
        mark: opener::mark(packet, &frame.flow, frame.l4, hash::flow(constant(&policy.seed), &frame.flow)),
        control: maps::control()?,
        slot,
        class,
    };
    Some(match opens {
        Opens::No => u32::from(by_rule::later(&mut here, !frame.is_error())?),
        Opens::Alone => u32::from(by_rule::alone(&mut here)?) | OPENS,
        Opens::Flow => {
            let Opened { endpoint, repeats } = by_rule::opener(&mut here)?;
            u32::from(endpoint) | if repeats { 0 } else { OPENS }
        }
    })
}

/// What placement asks of one packet, answered from the maps.
struct Here {
    key: PinKey,
    /// What it is remembered by, if it is an opener.
    mark: u64,
    control: &'static Control,
    slot: u32,
    class: u32,
}

impl World for Here {
    #[inline(always)]
    fn slot(&mut self) -> Option<Slot> {
        maps::slot(self.slot)
    }

    #[inline(always)]
    fn swap(&mut self, old: Slot, new: Slot) -> bool {
        let Some(word) = maps::slot_word(self.slot) else { return false };
        // SAFETY: array elements live as long as the program and are aligned to their size.
        unsafe { maps::swap(word, old.word(), new.word()) == old.word() }
    }

    #[inline(always)]
    fn pinned(&mut self) -> Option<EndpointId> {
        maps::pinned(&self.key, self.control.epoch)
    }

    #[inline(always)]
    fn pin(&mut self, endpoint: EndpointId) -> Pinned {
        let epoch = self.control.epoch;
        match maps::pin(&self.key, &Pin { endpoint, class: self.class as u16, epoch }) {
            Ok(()) => Pinned::Made,
            Err(EEXIST) => maps::pinned(&self.key, epoch).map_or(Pinned::Refused, Pinned::Exists),
            Err(_) => Pinned::Refused,
        }
    }

    #[inline(always)]
    fn repeats(&mut self) -> Option<EndpointId> {
        opener::repeats(self.mark, self.control.epoch)
    }

    #[inline(always)]
    fn remember(&mut self, endpoint: EndpointId) {
        opener::remember(self.mark, endpoint, self.control.epoch);
    }

    #[inline(always)]
    fn homing(&mut self) -> bool {
        self.control.homing(self.slot, maps::now())
    }

    #[inline(always)]
    fn admits(&mut self) -> bool {
        opener::admits(self.class, maps::now())
    }

    #[inline(always)]
    fn overflow(&mut self) -> EndpointId {
        opener::overflow(self.class, self.key.family(), self.slot)
    }

    #[inline(always)]
    fn reaches(&mut self, endpoint: EndpointId) -> bool {
        // SAFETY: a reference is valid for a read; volatile, because the daemon stores this word while we run.
        maps::endpoint(endpoint)
            .is_some_and(|row| Endpoint::reached(unsafe { core::ptr::read_volatile(&raw const row.links) }))
    }

    #[inline(always)]
    fn note(&mut self, note: Note) {
        count::note(self.class, note);
    }
}
