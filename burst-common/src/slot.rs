//! The slot word: which endpoint the flows of one hash bucket go to.
//!
//! One aligned 64-bit word, published by one store and read by one load, so that no reader sees half of one:
//! bits 0–15 current endpoint, 16–31 previous endpoint, 32–39 state, 40–63 generation. The controller writes it, and in a few cases
//! the program (see [`crate::place`]); both by compare-and-swap.

use bytemuck::{Pod, Zeroable};

use crate::limits::MAX_CLASS_SLOTS;

/// An endpoint id. 0 is [`LOCAL`].
pub type EndpointId = u16;

/// The endpoint "on premises": the packet goes on to the kernel.
pub const LOCAL: EndpointId = 0;

/// Index of the first slot of a class and family (4 or 6): a function of the class id alone, so that it persists.
#[must_use]
pub const fn base(class: u8, family: u8) -> u32 {
    (class as u32 * 2 + (family == 6) as u32) * MAX_CLASS_SLOTS as u32
}

/// What a slot remembers of its past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Every flow is on `current`; nothing is looked up.
    Stable,
    /// The endpoint changed: unrecorded flows are on `previous`, new ones go to `current`, each is pinned.
    Transition,
    /// Some flows are pinned elsewhere: look up, and go to `current` on a miss.
    Pins,
}

/// A slot word. The all-zero word is a stable slot that stays local.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Zeroable, Pod)]
pub struct Slot(u64);
const _: () = assert!(size_of::<Slot>() == 8 && align_of::<Slot>() == 8);

impl Slot {
    /// A stable slot of generation 0.
    #[must_use]
    pub const fn stable(current: EndpointId) -> Self {
        Self::new(current, current, State::Stable, 0)
    }

    /// A slot word; `generation` counts modulo 2²⁴.
    #[inline(always)]
    #[must_use]
    pub const fn new(current: EndpointId, previous: EndpointId, state: State, generation: u32) -> Self {
        let state = match state {
            State::Stable => 0,
            State::Transition => 1,
            State::Pins => 2,
        };
        Self(current as u64 | (previous as u64) << 16 | state << 32 | ((generation & 0xff_ffff) as u64) << 40)
    }

    /// From the word in the map.
    #[inline(always)]
    #[must_use]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The word in the map.
    #[inline(always)]
    #[must_use]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// Where new flows go, and in a stable slot all flows.
    #[inline(always)]
    #[must_use]
    pub const fn current(self) -> EndpointId {
        self.0 as u16
    }

    /// Where the unrecorded flows of a slot in transition are.
    #[inline(always)]
    #[must_use]
    pub const fn previous(self) -> EndpointId {
        (self.0 >> 16) as u16
    }

    /// The state; a number this version does not know reads as [`State::Pins`], which is never wrong, only slower.
    #[inline(always)]
    #[must_use]
    pub const fn state(self) -> State {
        match (self.0 >> 32) as u8 {
            0 => State::Stable,
            1 => State::Transition,
            _ => State::Pins,
        }
    }

    /// How often the slot was written, modulo 2²⁴.
    #[inline(always)]
    #[must_use]
    pub const fn generation(self) -> u32 {
        (self.0 >> 40) as u32
    }

    /// The slot after its new flows are sent to `endpoint`.
    ///
    /// The invariant that makes a change safe at any time: **every unrecorded live flow of a slot is on `previous`
    /// while it is in transition, and on `current` when it is not.** So a slot that is already in transition keeps
    /// its `previous` (its unrecorded flows have not moved), and any other gets its `current` as `previous`.
    #[inline(always)]
    #[must_use]
    pub const fn flip(self, endpoint: EndpointId) -> Self {
        if self.current() == endpoint {
            return self;
        }
        Self::new(endpoint, self.unrecorded(), State::Transition, self.generation().wrapping_add(1))
    }

    /// The slot after its transition ended: every flow that was not on `current` is either pinned or gone.
    #[must_use]
    pub const fn settle(self, pinned_elsewhere: bool) -> Self {
        let state = if pinned_elsewhere { State::Pins } else { State::Stable };
        Self::new(self.current(), self.current(), state, self.generation().wrapping_add(1))
    }

    /// The slot after a flow of it is to be pinned elsewhere than its unrecorded flows are: from now on its flows ask for their
    /// pins. Of one in state pins the generation alone changes: it tells the controller that there are pins which it has not read.
    /// In a slot in transition flows ask anyway.
    #[inline(always)]
    #[must_use]
    pub const fn watch(self) -> Self {
        match self.state() {
            State::Transition => self,
            State::Stable | State::Pins => {
                Self::new(self.current(), self.current(), State::Pins, self.generation().wrapping_add(1))
            }
        }
    }

    /// Where the unrecorded flows of the slot are.
    #[inline(always)]
    #[must_use]
    pub const fn unrecorded(self) -> EndpointId {
        match self.state() {
            State::Transition => self.previous(),
            State::Stable | State::Pins => self.current(),
        }
    }

    /// The slot after the endpoint it names died: its flows cannot be saved, all go to `endpoint` at once.
    #[must_use]
    pub const fn bury(self, dead: EndpointId, endpoint: EndpointId) -> Self {
        let current = if self.current() == dead { endpoint } else { self.current() };
        let previous = if self.previous() == dead { current } else { self.previous() };
        Self::new(current, previous, self.state(), self.generation().wrapping_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_change_keeps_where_the_unrecorded_flows_are() {
        let slot = Slot::stable(LOCAL).flip(7);
        assert_eq!((slot.current(), slot.previous(), slot.state()), (7, LOCAL, State::Transition));
        let slot = slot.flip(9);
        assert_eq!((slot.current(), slot.previous(), slot.state()), (9, LOCAL, State::Transition));
        let back = slot.flip(LOCAL);
        assert_eq!(
            (back.current(), back.previous(), back.state()),
            (LOCAL, LOCAL, State::Transition),
            "pins to 7 and 9 live on"
        );
        let slot = slot.settle(true).flip(3);
        assert_eq!((slot.current(), slot.previous(), slot.state()), (3, 9, State::Transition));
    }

    #[test]
    fn a_watched_slot_keeps_its_unrecorded_flows_and_says_that_it_changed() {
        for slot in [Slot::stable(7), Slot::stable(LOCAL).flip(7).settle(true)] {
            let watched = slot.watch();
            assert_eq!((watched.unrecorded(), watched.state()), (7, State::Pins));
            assert_eq!(watched.generation(), slot.generation() + 1);
        }
        let moving = Slot::stable(LOCAL).flip(7);
        assert_eq!((moving.watch(), moving.unrecorded()), (moving, LOCAL));
    }

    #[test]
    fn a_change_to_the_same_endpoint_is_none() {
        let slot = Slot::stable(4);
        assert_eq!(slot.flip(4), slot);
    }

    #[test]
    fn death_moves_both_halves() {
        let slot = Slot::stable(5).flip(6);
        assert_eq!((slot.bury(6, 8).current(), slot.bury(6, 8).previous()), (8, 5));
        assert_eq!((slot.bury(5, 8).current(), slot.bury(5, 8).previous()), (6, 6));
    }

    #[test]
    fn no_two_classes_share_a_slot_and_all_fit_the_map() {
        let bases: Vec<u32> = (0..64).flat_map(|class| [base(class, 4), base(class, 6)]).collect();
        assert!(bases.windows(2).all(|pair| pair[1] - pair[0] == MAX_CLASS_SLOTS as u32));
        assert_eq!(bases[127] as usize + MAX_CLASS_SLOTS, crate::limits::MAX_SLOTS);
    }

    #[test]
    fn fields_do_not_touch() {
        let slot = Slot::new(0xffff, 0, State::Pins, 0xff_ffff);
        assert_eq!(
            (slot.current(), slot.previous(), slot.state(), slot.generation()),
            (0xffff, 0, State::Pins, 0xff_ffff)
        );
        assert_eq!(Slot::new(1, 2, State::Stable, 0x1ff_ffff).generation(), 0xff_ffff);
        assert_eq!(Slot::from_word(0), Slot::stable(LOCAL));
        assert_eq!(Slot::from_word(0x77 << 32).state(), State::Pins);
    }
}
