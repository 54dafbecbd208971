//! Which fault comes when: a pure function of seed and length. The faults themselves are in `faults`.

use std::fmt;
use std::time::Duration;

use crate::agree::dice::Dice;

/// Nothing is done to the testbed in the first and the last of the time, so that traffic has begun and comes to its end.
const MARGIN: u64 = 1500;

/// A line to the cloud: 0 the first, 1 the second.
pub type Line = usize;

/// A configuration that may take the place of any other without a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// As at the start.
    Plain,
    /// One more keep rule, for an address that nobody asks.
    KeepingMore,
    /// Without the second endpoint of each family. Flows that are there stay there.
    FewerEndpoints,
}

/// A fault, or its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Order this share of new flows offsite, in percent.
    Share(u8),
    /// SIGKILL to the daemon.
    Kill,
    /// Order this share, and kill the daemon so many milliseconds after the order was given.
    ShareAndKill(u8, u16),
    /// Start the daemon that was killed.
    Start,
    /// SIGTERM to the daemon, and another takes over.
    Upgrade,
    /// Another configuration, by SIGHUP; nobody waits for it.
    Hangup(Variant),
    /// Another configuration, by `burst reload`.
    Reload(Variant),
    /// A file that is wrong, and `burst reload`: it must be refused.
    BadReload,
    /// A line goes down, at the edge's device or (by its carrier) at the router's.
    Down(Line, End),
    /// It comes back.
    Up(Line, End),
    /// The router's device on a line gets another MAC address and announces it.
    NewMac(Line),
    /// So many SYNs of distinct sources within a second.
    Flood(u16),
}

/// The end of a line that is set down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The edge's device.
    Edge,
    /// The router's device.
    Router,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A step and its time since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub at: Duration,
    /// What.
    pub step: Step,
}

/// A deck that is drawn from without putting back until it is empty: each kind comes again and again, in an order of chance.
struct Deck<T: 'static> {
    all: &'static [T],
    left: Vec<T>,
}

impl<T: Copy> Deck<T> {
    const fn new(all: &'static [T]) -> Self {
        Self { all, left: Vec::new() }
    }

    fn draw(&mut self, dice: &mut Dice) -> T {
        if self.left.is_empty() {
            self.left = self.all.to_vec();
        }
        self.left.swap_remove(dice.below(self.left.len()))
    }
}

/// A fault of the daemon's.
#[derive(Clone, Copy)]
enum Daemon {
    Kill,
    ShareAndKill,
    Upgrade,
    Hangup,
    Reload,
    BadReload,
}

/// A fault of the lines'.
#[derive(Clone, Copy)]
enum Lines {
    One(End),
    Both,
    NewMac,
}

const SHARES: [u8; 5] = [0, 25, 50, 75, 100];

/// The schedule of a run: events in the order of their times. Whatever goes down has come up at its end.
#[must_use]
pub fn schedule(seed: u64, length: Duration) -> Vec<Event> {
    let end = u64::try_from(length.as_millis()).unwrap_or(u64::MAX).saturating_sub(MARGIN);
    let mut events = Vec::new();
    let mut put = |at: u64, step| events.push(Event { at: Duration::from_millis(at), step });
    shares(&mut Dice::new(seed, 1), end, &mut put);
    daemons(&mut Dice::new(seed, 2), end, &mut put);
    lines(&mut Dice::new(seed, 3), end, &mut put);
    floods(&mut Dice::new(seed, 4), end, &mut put);
    // Stable: what is due at the same time keeps its order.
    events.sort_by_key(|event| event.at);
    events
}

fn between(dice: &mut Dice, from: usize, to: usize) -> u64 {
    dice.within(from..=to) as u64
}

/// Storms, in which the share changes about five times a second, and calms, in which transitions can end.
fn shares(dice: &mut Dice, end: u64, put: &mut impl FnMut(u64, Step)) {
    let mut at = MARGIN;
    while at < end {
        let storm = at + between(dice, 5000, 12_000);
        while at < storm.min(end) {
            put(at, Step::Share(*dice.pick(&SHARES)));
            at += between(dice, 100, 300);
        }
        at += between(dice, 5000, 16_000);
    }
}

fn daemons(dice: &mut Dice, end: u64, put: &mut impl FnMut(u64, Step)) {
    const DECK: [Daemon; 10] = [
        Daemon::Kill,
        Daemon::Kill,
        Daemon::ShareAndKill,
        Daemon::ShareAndKill,
        Daemon::ShareAndKill,
        Daemon::Upgrade,
        Daemon::Hangup,
        Daemon::Hangup,
        Daemon::Reload,
        Daemon::BadReload,
    ];
    let mut deck = Deck::new(&DECK);
    let mut at = MARGIN + between(dice, 500, 2000);
    while at < end {
        let variant = *dice.pick(&[Variant::Plain, Variant::KeepingMore, Variant::FewerEndpoints]);
        match deck.draw(dice) {
            Daemon::Kill => {
                put(at, Step::Kill);
                at += between(dice, 50, 2000);
                put(at, Step::Start);
            }
            Daemon::ShareAndKill => {
                put(at, Step::ShareAndKill(*dice.pick(&SHARES), between(dice, 0, 40) as u16));
                at += between(dice, 50, 2000);
                put(at, Step::Start);
            }
            Daemon::Upgrade => put(at, Step::Upgrade),
            Daemon::Hangup => {
                put(at, Step::Hangup(variant));
                // Sometimes in the middle of it.
                if dice.chance(40) {
                    at += between(dice, 10, 500);
                    put(at, Step::Kill);
                    at += between(dice, 50, 1000);
                    put(at, Step::Start);
                }
            }
            Daemon::Reload => put(at, Step::Reload(variant)),
            Daemon::BadReload => put(at, Step::BadReload),
        }
        at += between(dice, 1200, 4500);
    }
}

fn lines(dice: &mut Dice, end: u64, put: &mut impl FnMut(u64, Step)) {
    const DECK: [Lines; 5] =
        [Lines::One(End::Edge), Lines::One(End::Router), Lines::Both, Lines::NewMac, Lines::NewMac];
    let mut deck = Deck::new(&DECK);
    let mut at = MARGIN + between(dice, 1000, 4000);
    while at < end {
        let line = dice.below(2);
        match deck.draw(dice) {
            Lines::One(side) => {
                put(at, Step::Down(line, side));
                at += between(dice, 200, 2000);
                put(at, Step::Up(line, side));
            }
            Lines::Both => {
                let sides = [0, 1].map(|_| *dice.pick(&[End::Edge, End::Router]));
                put(at, Step::Down(line, sides[0]));
                put(at + between(dice, 0, 300), Step::Down(1 - line, sides[1]));
                at += between(dice, 500, 1500);
                put(at, Step::Up(line, sides[0]));
                put(at + between(dice, 0, 300), Step::Up(1 - line, sides[1]));
            }
            Lines::NewMac => put(at, Step::NewMac(line)),
        }
        // A flow must be seen once per `idle_timeout`: what TCP sends again comes at growing intervals.
        at += between(dice, 3000, 7000);
    }
}

fn floods(dice: &mut Dice, end: u64, put: &mut impl FnMut(u64, Step)) {
    let mut at = MARGIN + between(dice, 3000, 10_000);
    while at < end {
        // One second, or two.
        for _ in 0..dice.within(1..=2) {
            put(at, Step::Flood(between(dice, 500, 4000) as u16));
            at += 1000;
        }
        at += between(dice, 8000, 20_000);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn the_same_seed_is_the_same_schedule_and_another_is_another() {
        assert_eq!(schedule(7, MINUTE), schedule(7, MINUTE));
        assert_ne!(schedule(7, MINUTE), schedule(8, MINUTE));
    }

    #[test]
    fn a_longer_run_begins_as_a_shorter_one() {
        let (long, short) = (schedule(7, 10 * MINUTE), schedule(7, MINUTE));
        let until = Duration::from_secs(55);
        let early = |events: &[Event]| events.iter().filter(|event| event.at < until).copied().collect::<Vec<_>>();
        assert_eq!(early(&long), early(&short));
    }

    #[test]
    fn every_kind_of_fault_comes_within_a_minute_or_two_and_shares_change_all_the_time() {
        for seed in 0..50 {
            let events = schedule(seed, 2 * MINUTE);
            let some = |kind: fn(&Step) -> bool| events.iter().filter(|event| kind(&event.step)).count();
            assert!(some(|step| matches!(step, Step::Share(_))) > 100, "seed {seed}");
            let kinds: [fn(&Step) -> bool; 10] = [
                |step| *step == Step::Kill,
                |step| matches!(step, Step::ShareAndKill(..)),
                |step| *step == Step::Upgrade,
                |step| matches!(step, Step::Hangup(_)),
                |step| matches!(step, Step::Reload(_)),
                |step| *step == Step::BadReload,
                |step| matches!(step, Step::Down(_, End::Edge)),
                |step| matches!(step, Step::Down(_, End::Router)),
                |step| matches!(step, Step::NewMac(_)),
                |step| matches!(step, Step::Flood(_)),
            ];
            for (number, kind) in kinds.into_iter().enumerate() {
                assert!(some(kind) > 0, "seed {seed}, kind {number}");
            }
        }
    }

    #[test]
    fn times_do_not_go_back_and_what_goes_down_comes_up_soon() {
        for seed in 0..50 {
            let events = schedule(seed, MINUTE);
            assert!(events.is_sorted_by_key(|event| event.at));
            let (mut down, mut alive) = ([None; 2], true);
            for Event { at, step } in events {
                match step {
                    Step::Down(line, side) => assert_eq!(down[line].replace((side, at)), None, "seed {seed}"),
                    Step::Up(line, side) => {
                        let (was, since) = down[line].take().expect("it is down");
                        assert!(was == side && at - since < Duration::from_secs(3), "seed {seed}");
                    }
                    Step::Kill | Step::ShareAndKill(..) => assert!(std::mem::replace(&mut alive, false), "seed {seed}"),
                    Step::Start => assert!(!std::mem::replace(&mut alive, true), "seed {seed}"),
                    Step::Hangup(_) | Step::Reload(_) | Step::BadReload | Step::Upgrade => {
                        assert!(alive, "seed {seed}");
                    }
                    Step::Share(_) | Step::NewMac(_) | Step::Flood(_) => {}
                }
            }
            assert!(alive && down == [None; 2], "seed {seed}");
        }
    }
}
