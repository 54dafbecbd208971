//! Slot, opener or not, pin → where a packet goes, and what must be remembered of that.
//!
//! Everything outside is asked through [`World`]: the program answers from its maps, the model check from its own. So what is
//! proven of one is what the other does.
//!
//! The invariant (see [`crate::slot`]): every unrecorded live flow of a slot is on `previous` while the slot is in transition, and on
//! `current` when it is not. So a packet without a pin goes there, unless it opens its flow and is pinned where it goes instead; and
//! in a slot whose flows do not ask for pins, none is made before they do ([`Slot::watch`]).
//!
//! The program changes slots in two cases, both by compare-and-swap, so that neither it nor the controller undoes what the other
//! wrote: it makes a slot's flows ask for pins, and it brings new flows home when nobody leads any more.

use crate::reason::Note;
use crate::slot::{EndpointId, LOCAL, Slot, State};

/// What the placement of one packet asks and tells.
pub trait World {
    /// The word of the packet's slot as it is now.
    fn slot(&mut self) -> Option<Slot>;
    /// Replaces the word of the slot, if it still is `old`.
    fn swap(&mut self, old: Slot, new: Slot) -> bool;
    /// The flow's pin, which is thereby seen.
    fn pinned(&mut self) -> Option<EndpointId>;
    /// Pins the flow, if it has no pin.
    fn pin(&mut self, endpoint: EndpointId) -> Pinned;
    /// Where an opener of this flow went not long ago.
    fn repeats(&mut self) -> Option<EndpointId>;
    /// Remembers where an opener went.
    fn remember(&mut self, endpoint: EndpointId);
    /// Whether new flows of the slot are to come home, because nobody leads.
    fn homing(&mut self) -> bool;
    /// Whether the premises have room for one more new flow, which is then taken.
    fn admits(&mut self) -> bool;
    /// Where a new flow goes for which they have none; [`LOCAL`]: nowhere.
    fn overflow(&mut self) -> EndpointId;
    /// Whether a link leads to an endpoint.
    fn reaches(&mut self, endpoint: EndpointId) -> bool;
    /// Counts an occurrence.
    fn note(&mut self, note: Note);
}

/// What came of pinning a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pinned {
    /// It is pinned where it was to be.
    Made,
    /// Another packet of the flow was first: that pin decides.
    Exists(EndpointId),
    /// No more pins can be made.
    Refused,
}

/// Where an opener goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// Whether it repeats one that was seen: it is no new flow then.
    pub repeats: bool,
}

/// Places a packet that does not open its flow. `lasting` is false for one that leaves no trace: an ICMP error. `None`: there is no
/// such slot.
#[inline(always)]
pub fn later(world: &mut impl World, lasting: bool) -> Option<EndpointId> {
    let slot = world.slot()?;
    if let State::Stable = slot.state() {
        return Some(slot.current());
    }
    if let Some(endpoint) = world.pinned() {
        world.note(Note::PinHit);
        return Some(endpoint);
    }
    let unrecorded = slot.unrecorded();
    if !lasting || slot.state() != State::Transition {
        return Some(unrecorded);
    }
    Some(record(world, unrecorded, unrecorded))
}

/// Places a packet that opens its flow. `None`: there is no such slot.
#[inline(always)]
pub fn opener(world: &mut impl World) -> Option<Opened> {
    let mut slot = world.slot()?;
    let before = world.repeats();
    let repeats = before.is_some();
    if repeats {
        world.note(Note::Repeated);
    }
    if slot.state() != State::Stable
        && let Some(endpoint) = world.pinned()
    {
        world.note(Note::PinHit);
        world.remember(endpoint);
        return Some(Opened { endpoint, repeats });
    }
    if slot.current() != LOCAL && world.homing() {
        if world.swap(slot, slot.flip(LOCAL)) {
            world.note(Note::Homed);
        }
        // If another writer was first, what it wrote is as consistent.
        slot = world.slot()?;
    }
    let wanted = match before {
        // Where flows ask for no pins, this one's later packets go to `current`, wherever a former opener went.
        Some(endpoint) if slot.state() != State::Stable && (endpoint == LOCAL || world.reaches(endpoint)) => endpoint,
        _ => slot.current(),
    };
    let wanted = possible(world, wanted, repeats);
    if wanted != slot.current() && slot.state() != State::Transition {
        world.swap(slot, slot.watch());
        // Again, whoever was first: its word says where this flow's later packets will go.
        slot = world.slot()?;
    }
    let endpoint = match slot.state() {
        State::Stable => slot.current(),
        State::Pins if wanted == slot.current() => wanted,
        State::Pins | State::Transition => record(world, wanted, slot.unrecorded()),
    };
    world.remember(endpoint);
    Some(Opened { endpoint, repeats })
}

/// Places a packet that is a flow by itself. `None`: there is no such slot.
#[inline(always)]
pub fn alone(world: &mut impl World) -> Option<EndpointId> {
    let slot = world.slot()?;
    // Nothing is remembered of it, so the slot may stay as it is.
    let wanted = if slot.current() != LOCAL && world.homing() { LOCAL } else { slot.current() };
    Some(possible(world, wanted, false))
}

/// Where a new flow goes that was meant for `wanted`: home if no link leads there, and away if there is no room at home. One that is
/// repeated has its room already.
#[inline(always)]
fn possible(world: &mut impl World, wanted: EndpointId, repeats: bool) -> EndpointId {
    if wanted != LOCAL {
        if world.reaches(wanted) {
            return wanted;
        }
        world.note(Note::Stranded);
        return LOCAL;
    }
    if repeats || world.admits() {
        return LOCAL;
    }
    let away = world.overflow();
    if away == LOCAL || !world.reaches(away) {
        return LOCAL;
    }
    world.note(Note::Surged);
    away
}

/// Pins a flow; where that is refused, it goes where its later packets, unpinned, will go.
#[inline(always)]
fn record(world: &mut impl World, endpoint: EndpointId, unrecorded: EndpointId) -> EndpointId {
    match world.pin(endpoint) {
        Pinned::Made => {
            world.note(Note::Pinned);
            endpoint
        }
        Pinned::Exists(endpoint) => endpoint,
        Pinned::Refused => {
            world.note(Note::PinRefused);
            unrecorded
        }
    }
}

#[cfg(test)]
mod tests;
