//! The placement of one packet once more, by the rules that the program has ([`burst_common::place`]): from what stands in its maps, and
//! from what it noted where only it can know, such as whether there was room.

use burst_common::place::{Pinned, World};
use burst_common::reason::Note;
use burst_common::slot::{EndpointId, Slot};

/// What placement is told.
pub(super) struct Placing<'a> {
    /// The slot's word.
    pub(super) slot: Slot,
    /// The flow's pin before.
    pub(super) pin: Option<EndpointId>,
    /// Whether the program noted an occurrence.
    pub(super) noted: &'a dyn Fn(Note) -> bool,
    /// Where the program went.
    pub(super) went: EndpointId,
    /// Where new flows of the slot go for which the premises have no room.
    pub(super) overflow: EndpointId,
    /// Whether a link leads to an endpoint.
    pub(super) reaches: &'a dyn Fn(EndpointId) -> bool,
    /// What was remembered: the flow was pinned here.
    pub(super) made: Option<EndpointId>,
    /// What was remembered: nothing, the table is full.
    pub(super) refused: bool,
}

impl World for Placing<'_> {
    fn slot(&mut self) -> Option<Slot> {
        Some(self.slot)
    }

    fn swap(&mut self, old: Slot, new: Slot) -> bool {
        let is = self.slot == old;
        if is {
            self.slot = new;
        }
        is
    }

    fn pinned(&mut self) -> Option<EndpointId> {
        self.pin
    }

    fn pin(&mut self, endpoint: EndpointId) -> Pinned {
        self.refused = (self.noted)(Note::PinRefused);
        if self.refused {
            return Pinned::Refused;
        }
        self.made = Some(endpoint);
        Pinned::Made
    }

    fn repeats(&mut self) -> Option<EndpointId> {
        (self.noted)(Note::Repeated).then_some(self.went)
    }

    fn remember(&mut self, _: EndpointId) {}

    fn homing(&mut self) -> bool {
        (self.noted)(Note::Homed)
    }

    fn admits(&mut self) -> bool {
        !(self.noted)(Note::Surged)
    }

    fn overflow(&mut self) -> EndpointId {
        self.overflow
    }

    fn reaches(&mut self, endpoint: EndpointId) -> bool {
        (self.reaches)(endpoint)
    }

    fn note(&mut self, _: Note) {}
}
