//! Flow → endpoint: the slot's word, and where that cannot tell, the flow's pin.

use aya_ebpf::bindings::xdp_md;
use burst_common::flow::Flow;
use burst_common::hash;
use burst_common::pin::{Pin, PinKey};
use burst_common::place::{Placement, place as by_slot};
use burst_common::policy::{BY_CLIENT, Class, Policy, constant};
use burst_common::reason::{Note, Reason};
use burst_common::slot::{EndpointId, LOCAL};

use crate::guard::Guarded;
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
}

/// Places a packet whose slot, or pin, is there to tell; `None`: it may need a pin.
#[inline(always)]
pub fn usual<A: Guarded>(policy: &Policy, epoch: u32, class: &Class, frame: &Frame<A>) -> Option<Placed> {
    let (slot, hash) = slot(policy, class, &frame.flow);
    Some(match by_slot(maps::slot(slot)?, frame.flow.opens()) {
        Placement::Slot(endpoint) => Placed { endpoint, slot, hash, pinned: false },
        Placement::Ask(_) => {
            let endpoint = maps::pinned(&PinKey::new(&frame.flow), epoch)?;
            Placed { endpoint, slot, hash, pinned: true }
        }
    })
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
    let word = maps::slot(slot).ok_or(Reason::Unready)?;
    let endpoint = match by_slot(word, frame.flow.opens()) {
        Placement::Slot(endpoint) => endpoint,
        Placement::Ask(_) => ask::<A>(packet.context().ctx, frame.offsets().word(), slot, id) as EndpointId,
    };
    Ok(Placed { endpoint, slot, hash, pinned: false })
}

subprograms! {
    /// Looks a flow's pin up, and pins it if it has none: out of the way of the stable slot. An ICMP error goes where its flow
    /// is, and leaves no trace.
    ask = ask_pin4, ask_pin6: asked(offsets, slot, class)
}

#[inline(always)]
fn asked<A: Guarded>(ctx: *mut xdp_md, offsets: u32, slot: u32, class: u32) -> u32 {
    let packet = Packet::of(ctx);
    u32::from(by_pin::<A>(&packet, Offsets::from_word(offsets), slot, class).unwrap_or(LOCAL))
}

#[inline(always)]
fn by_pin<A: Guarded>(packet: &Packet, offsets: Offsets, slot: u32, class: u32) -> Option<EndpointId> {
    let frame = full::again::<A>(packet, offsets)?;
    // The slot may have changed since: whatever it says now is consistent in itself.
    let miss = match by_slot(maps::slot(slot)?, frame.flow.opens()) {
        Placement::Slot(endpoint) => return Some(endpoint),
        Placement::Ask(miss) => miss,
    };
    let epoch = maps::control()?.epoch;
    let key = PinKey::new(&frame.flow);
    if let Some(endpoint) = maps::pinned(&key, epoch) {
        count::note(class, Note::PinHit);
        return Some(endpoint);
    }
    if !miss.pin || frame.is_error() {
        return Some(miss.endpoint);
    }
    match maps::pin(&key, &Pin { endpoint: miss.endpoint, class: class as u16, epoch }) {
        Ok(()) => {
            count::note(class, Note::Pinned);
            Some(miss.endpoint)
        }
        // Another CPU was first: its pin decides.
        Err(EEXIST) => Some(maps::pinned(&key, epoch).unwrap_or(miss.refused)),
        Err(_) => {
            count::note(class, Note::PinRefused);
            Some(miss.refused)
        }
    }
}
