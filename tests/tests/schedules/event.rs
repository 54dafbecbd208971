//! What happens in a schedule, by chance.

use proptest::prelude::*;
use proptest::sample::Index;

use crate::host::{PLACES, Place};

/// How an endpoint can be reached.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Line {
    Up,
    Held,
    Gone,
}

/// One event of a schedule.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Open,
    Send(Index),
    Again(Index),
    End(Index),
    Retarget([Place; 2], u8),
    Pass(u32),
    Sweep(u8),
    Room(bool, Place),
    Line(Place, Line),
    Die(Place),
    Lead(bool),
    Homing,
    Pay,
}

pub(crate) fn event() -> impl Strategy<Value = Event> {
    let line = prop_oneof![2 => Just(Line::Up), 1 => Just(Line::Held), 1 => Just(Line::Gone)];
    prop_oneof![
        6 => Just(Event::Open),
        4 => any::<Index>().prop_map(Event::Send),
        3 => any::<Index>().prop_map(Event::Again),
        2 => any::<Index>().prop_map(Event::End),
        4 => (prop::array::uniform2(0..PLACES), 0..3_u8).prop_map(|(targets, between)| Event::Retarget(targets, between)),
        4 => (1..20_u32).prop_map(Event::Pass),
        3 => (0..3_u8).prop_map(Event::Sweep),
        2 => (any::<bool>(), 0..PLACES).prop_map(|(room, overflow)| Event::Room(room, overflow)),
        2 => (1..PLACES, line).prop_map(|(place, line)| Event::Line(place, line)),
        1 => (1..PLACES).prop_map(Event::Die),
        2 => any::<bool>().prop_map(Event::Lead),
        1 => Just(Event::Homing),
        1 => Just(Event::Pay),
    ]
}
