//! Flow → endpoint: the slot's word, and where that cannot tell, the flow's pin.

use burst_common::flow::Flow;
use burst_common::hash;
use burst_common::pin::{Pin, PinKey};
use burst_common::place::{Placement, place as by_slot};
use burst_common::policy::{BY_CLIENT, Class, Policy, constant};
use burst_common::reason::{Note, Reason};
use burst_common::slot::EndpointId;

use crate::classify::Family;
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
}

/// Places a packet of class `id`.
#[inline(always)]
pub fn place<A: Family>(policy: &Policy, id: u32, class: &Class, flow: &Flow<A>) -> Result<Placed, Reason> {
    let hash = hash::flow(constant(&policy.seed), flow);
    let selector =
        if constant(&class.flags) & BY_CLIENT != 0 { hash::client(constant(&policy.seed), flow) } else { hash };
    let base = if A::FAMILY == 4 { constant(&class.base4) } else { constant(&class.base6) };
    let slot = base + hash::slot(selector, constant(&class.mask));
    let word = maps::slot(slot).ok_or(Reason::Unready)?;
    let endpoint = match by_slot(word, flow.opens()) {
        Placement::Slot(endpoint) => endpoint,
        Placement::Ask(miss) => {
            let epoch = maps::control().ok_or(Reason::Unready)?.epoch;
            let key = PinKey::new(flow);
            match maps::pinned(&key, epoch) {
                Some(endpoint) => {
                    count::note(id, Note::PinHit);
                    endpoint
                }
                None if !miss.pin => miss.endpoint,
                None => match maps::pin(&key, &Pin { endpoint: miss.endpoint, class: id as u16, epoch }) {
                    Ok(()) => {
                        count::note(id, Note::Pinned);
                        miss.endpoint
                    }
                    // Another CPU was first: its pin decides.
                    Err(EEXIST) => maps::pinned(&key, epoch).unwrap_or(miss.refused),
                    Err(_) => {
                        count::note(id, Note::PinRefused);
                        miss.refused
                    }
                },
            }
        }
    };
    Ok(Placed { endpoint, slot, hash })
}
