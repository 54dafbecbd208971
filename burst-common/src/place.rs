//! Slot, opener or not, pin → where the packet goes, and whether that must be remembered.
//!
//! Pure: the program looks the pin up and writes it, this says what the lookup means.

use crate::slot::{EndpointId, Slot, State};

/// What a slot alone says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// The slot alone tells.
    Slot(EndpointId),
    /// Look the flow's pin up; on a hit the pin decides.
    Ask(Miss),
}

/// What a pin's absence means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Miss {
    /// Where the packet goes.
    pub endpoint: EndpointId,
    /// Whether to pin it there.
    pub pin: bool,
    /// Where it goes when the pin is refused: where its followers, unpinned, will go too.
    pub refused: EndpointId,
}

/// Places a packet; `opens` says whether it opens its flow.
#[inline(always)]
#[must_use]
pub fn place(slot: Slot, opens: bool) -> Placement {
    match slot.state() {
        State::Stable => Placement::Slot(slot.current()),
        State::Transition => {
            let endpoint = if opens { slot.current() } else { slot.previous() };
            Placement::Ask(Miss { endpoint, pin: true, refused: slot.previous() })
        }
        State::Pins => Placement::Ask(Miss { endpoint: slot.current(), pin: false, refused: slot.current() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::LOCAL;

    #[test]
    fn only_a_slot_in_transition_tells_openers_from_others() {
        let stable = Slot::stable(3);
        assert_eq!(place(stable, true), Placement::Slot(3));
        assert_eq!(place(stable, false), Placement::Slot(3));
        let moving = Slot::stable(LOCAL).flip(3);
        assert_eq!(place(moving, true), Placement::Ask(Miss { endpoint: 3, pin: true, refused: LOCAL }));
        assert_eq!(place(moving, false), Placement::Ask(Miss { endpoint: LOCAL, pin: true, refused: LOCAL }));
        let pins = moving.settle(true);
        assert_eq!(place(pins, false), Placement::Ask(Miss { endpoint: 3, pin: false, refused: 3 }));
    }
}
