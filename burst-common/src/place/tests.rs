//! What each fact does to one packet. That flows stay is proven over schedules, with the controller: `burst-user/src/slots`.

use super::*;

const AWAY: EndpointId = 7;
const OTHER: EndpointId = 9;

/// A world in which everything is as usual, until a row says otherwise.
struct Here {
    slot: Slot,
    pin: Option<EndpointId>,
    room_for_pins: bool,
    before: Option<EndpointId>,
    remembered: Option<EndpointId>,
    homing: bool,
    room: bool,
    overflow: EndpointId,
    down: &'static [EndpointId],
    notes: Vec<Note>,
}

fn here(slot: Slot) -> Here {
    Here {
        slot,
        pin: None,
        room_for_pins: true,
        before: None,
        remembered: None,
        homing: false,
        room: true,
        overflow: LOCAL,
        down: &[],
        notes: Vec::new(),
    }
}

impl World for Here {
    fn slot(&mut self) -> Option<Slot> {
        Some(self.slot)
    }
    fn swap(&mut self, old: Slot, new: Slot) -> bool {
        assert_eq!(self.slot, old, "nobody else writes here");
        self.slot = new;
        true
    }
    fn pinned(&mut self) -> Option<EndpointId> {
        self.pin
    }
    fn pin(&mut self, endpoint: EndpointId) -> Pinned {
        assert_ne!(self.slot.state(), State::Stable, "nobody would ask for this pin");
        match self.pin {
            Some(endpoint) => Pinned::Exists(endpoint),
            None if !self.room_for_pins => Pinned::Refused,
            None => {
                self.pin = Some(endpoint);
                Pinned::Made
            }
        }
    }
    fn repeats(&mut self) -> Option<EndpointId> {
        self.before
    }
    fn remember(&mut self, endpoint: EndpointId) {
        self.remembered = Some(endpoint);
    }
    fn homing(&mut self) -> bool {
        self.homing
    }
    fn admits(&mut self) -> bool {
        self.room
    }
    fn overflow(&mut self) -> EndpointId {
        self.overflow
    }
    fn reaches(&mut self, endpoint: EndpointId) -> bool {
        assert_ne!(endpoint, LOCAL);
        !self.down.contains(&endpoint)
    }
    fn note(&mut self, note: Note) {
        self.notes.push(note);
    }
}

const LOCAL_SLOT: Slot = Slot::stable(LOCAL);
const AWAY_SLOT: Slot = Slot::stable(AWAY);

fn out() -> Slot {
    LOCAL_SLOT.flip(AWAY)
}

fn home() -> Slot {
    AWAY_SLOT.flip(LOCAL)
}

/// Places an opener, and the next packet of its flow: both go the same way.
fn opens(name: &str, mut world: Here, endpoint: EndpointId, pinned: bool, notes: &[Note]) -> Here {
    let opened = opener(&mut world).expect("a slot");
    assert_eq!((opened.endpoint, opened.repeats), (endpoint, world.before.is_some()), "{name}");
    assert_eq!(world.pin.is_some(), pinned, "{name}: pinned");
    assert_eq!(world.remembered, Some(endpoint), "{name}: remembered");
    assert_eq!(world.notes, notes, "{name}");
    assert_eq!(later(&mut world, true), Some(endpoint), "{name}: its next packet");
    world
}

#[test]
fn an_opener_goes_where_its_later_packets_will() {
    use Note::{Homed, PinHit, PinRefused, Pinned as Made, Repeated, Stranded, Surged};
    let pins = home().settle(true);
    opens("stable", here(AWAY_SLOT), AWAY, false, &[]);
    opens("in transition", here(out()), AWAY, true, &[Made]);
    opens("on its way home", here(home()), LOCAL, true, &[Made]);
    opens("among pins", here(pins), LOCAL, false, &[]);
    opens("pinned", Here { pin: Some(OTHER), ..here(out()) }, OTHER, true, &[PinHit]);
    opens("no pins left", Here { room_for_pins: false, ..here(out()) }, LOCAL, false, &[PinRefused]);

    let known = |endpoint, slot| Here { before: Some(endpoint), ..here(slot) };
    opens("repeated, stable", known(OTHER, AWAY_SLOT), AWAY, false, &[Repeated]);
    opens("repeated across a flip", known(LOCAL, out()), LOCAL, true, &[Repeated, Made]);
    opens(
        "repeated, where no pin was left",
        Here { room_for_pins: false, ..known(LOCAL, out()) },
        LOCAL,
        false,
        &[Repeated, PinRefused],
    );
    opens("repeated among pins", known(AWAY, pins), AWAY, true, &[Repeated, Made]);
    opens(
        "repeated, the former way is gone",
        Here { down: &[OTHER], ..known(OTHER, out()) },
        AWAY,
        true,
        &[Repeated, Made],
    );
    opens(
        "repeated, no room",
        Here { room: false, overflow: AWAY, ..known(LOCAL, LOCAL_SLOT) },
        LOCAL,
        false,
        &[Repeated],
    );

    let full = |slot| Here { room: false, overflow: OTHER, ..here(slot) };
    let surged = opens("no room", full(LOCAL_SLOT), OTHER, true, &[Surged, Made]);
    assert_eq!((surged.slot.state(), surged.slot.unrecorded()), (State::Pins, LOCAL));
    let surged = opens("no room, among pins", full(pins), OTHER, true, &[Surged, Made]);
    assert_ne!(surged.slot, pins, "the controller must see that there are new pins");
    opens("no room, on its way home", full(home()), OTHER, true, &[Surged, Made]);
    opens(
        "no room, no pins left",
        Here { room_for_pins: false, ..full(LOCAL_SLOT) },
        LOCAL,
        false,
        &[Surged, PinRefused],
    );
    opens("no room here, none elsewhere", Here { overflow: LOCAL, ..full(LOCAL_SLOT) }, LOCAL, false, &[]);
    opens("no room here, no way there", Here { down: &[OTHER], ..full(LOCAL_SLOT) }, LOCAL, false, &[]);
    opens("no room here, but it leaves", full(AWAY_SLOT), AWAY, false, &[]);

    let lost = |slot| Here { down: &[AWAY], ..here(slot) };
    let stranded = opens("no way", lost(AWAY_SLOT), LOCAL, true, &[Stranded, Made]);
    assert_eq!((stranded.slot.state(), stranded.slot.unrecorded()), (State::Pins, AWAY), "its other flows wait there");
    opens("no way, in transition", lost(out()), LOCAL, true, &[Stranded, Made]);
    opens(
        "no way, no pins left",
        Here { room_for_pins: false, ..lost(AWAY_SLOT) },
        AWAY,
        false,
        &[Stranded, PinRefused],
    );

    let alone = |slot| Here { homing: true, ..here(slot) };
    let homed = opens("nobody leads", alone(AWAY_SLOT), LOCAL, true, &[Homed, Made]);
    assert_eq!(homed.slot, home(), "its other flows stay");
    let homed = opens("nobody leads, in transition", alone(out()), LOCAL, true, &[Homed, Made]);
    assert_eq!(homed.slot.unrecorded(), LOCAL);
    opens("nobody leads, it is home", alone(LOCAL_SLOT), LOCAL, false, &[]);
    opens(
        "nobody leads, no room",
        Here { room: false, overflow: OTHER, ..alone(AWAY_SLOT) },
        OTHER,
        true,
        &[Homed, Surged, Made],
    );
}

#[test]
fn a_later_packet_goes_where_its_flow_is() {
    let pins = home().settle(true);
    for (name, world, endpoint, pinned) in [
        ("stable", here(AWAY_SLOT), AWAY, false),
        ("stable, no way", Here { down: &[AWAY], ..here(AWAY_SLOT) }, AWAY, false),
        ("in transition", here(out()), LOCAL, true),
        ("in transition, no pins left", Here { room_for_pins: false, ..here(home()) }, AWAY, false),
        ("in transition, pinned", Here { pin: Some(OTHER), ..here(home()) }, OTHER, true),
        ("among pins", here(pins), LOCAL, false),
        ("among pins, pinned", Here { pin: Some(AWAY), ..here(pins) }, AWAY, true),
        ("no room, nobody leads", Here { room: false, homing: true, overflow: OTHER, ..here(AWAY_SLOT) }, AWAY, false),
    ] {
        let mut world = world;
        let slot = world.slot;
        assert_eq!(later(&mut world, true), Some(endpoint), "{name}");
        assert_eq!((world.pin.is_some(), world.slot), (pinned, slot), "{name}");
        assert_eq!(world.remembered, None, "{name}");
    }
    let mut world = here(out());
    assert_eq!((later(&mut world, false), world.pin), (Some(LOCAL), None), "an ICMP error leaves no trace");
}

#[test]
fn a_packet_that_is_a_flow_by_itself_leaves_nothing_behind() {
    for (name, world, endpoint) in [
        ("stable", here(AWAY_SLOT), AWAY),
        ("in transition", here(out()), AWAY),
        ("no room", Here { room: false, overflow: OTHER, ..here(LOCAL_SLOT) }, OTHER),
        ("no way", Here { down: &[AWAY], ..here(AWAY_SLOT) }, LOCAL),
        ("nobody leads", Here { homing: true, ..here(AWAY_SLOT) }, LOCAL),
    ] {
        let mut world = world;
        let slot = world.slot;
        assert_eq!(alone(&mut world), Some(endpoint), "{name}");
        assert_eq!((world.pin, world.remembered, world.slot), (None, None, slot), "{name}");
    }
}
