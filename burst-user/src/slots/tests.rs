//! Promises of the table: a placed flow stays placed under any schedule, and transitions end.

use std::collections::HashMap;
use std::time::Duration;

use burst_common::flow::{Flow, TCP};
use burst_common::hash;
use burst_common::pin::{Pin, PinKey};
use burst_common::place::{Placement, place};
use burst_common::slot::{LOCAL, Slot, State};
use proptest::prelude::*;

use super::*;

const SEED: u64 = 99;
const IDLE: Duration = Duration::from_secs(4);
const ID: GroupId = GroupId { class: 3, family: 4 };

fn group(base: u32, slots: u32) -> Group {
    Group { id: ID, base, slots, by_client: false, idle_timeout: IDLE }
}

fn table(slots: u32) -> Table {
    Table::adopt(Duration::ZERO, SEED, &[group(128, slots)], |_| 0)
}

fn client(port: u16) -> Flow<u32> {
    Flow { src: 0x0100_33c6, dst: 0x1471_00cb, src_port: port, dst_port: 443_u16.to_be(), proto: TCP, flags: 0 }
}

fn nobody(_: u16) -> bool {
    false
}

fn alive(_: u16) -> bool {
    false
}

/// The packet path, its maps and the controller's loop, in a few lines: words are published at once, pins are of
/// limited room, flows send a packet at least once per idle timeout until they end.
struct World {
    table: Table,
    map: HashMap<u32, Slot>,
    pins: HashMap<PinKey, Pin>,
    room: usize,
    now: Duration,
    epoch: u32,
    refused: bool,
    sweep: Option<Sweep>,
    /// Port → (endpoint, last packet).
    flows: HashMap<u16, (u16, Duration)>,
    next: u16,
}

impl World {
    fn new(room: usize) -> Self {
        let table = table(2);
        let map = table.words().collect();
        let (pins, flows) = (HashMap::new(), HashMap::new());
        Self { table, map, pins, room, now: Duration::ZERO, epoch: 0, refused: false, sweep: None, flows, next: 1 }
    }

    fn publish(&mut self, writes: Vec<Write>) {
        for (index, slot) in writes {
            assert!(self.map.insert(index, slot).is_some(), "slot {index} is not of this table");
        }
    }

    /// Where a packet goes, by `place` and the pins as the program uses them.
    fn packet(&mut self, port: u16, opens: bool) -> u16 {
        let key = PinKey::new(&client(port));
        let index = 128 + hash::slot(hash::flow(SEED, &client(port)), 1);
        match place(self.map[&index], opens) {
            Placement::Slot(endpoint) => endpoint,
            Placement::Ask(miss) => {
                if let Some(pin) = self.pins.get_mut(&key) {
                    pin.epoch = self.epoch;
                    pin.endpoint
                } else if !miss.pin {
                    miss.endpoint
                } else if self.pins.len() < self.room {
                    self.pins.insert(key, Pin { endpoint: miss.endpoint, class: ID.class, epoch: self.epoch });
                    miss.endpoint
                } else {
                    self.refused = true;
                    miss.refused
                }
            }
        }
    }

    fn open(&mut self) {
        let port = self.next;
        self.next += 1;
        let endpoint = self.packet(port, true);
        self.flows.insert(port, (endpoint, self.now));
    }

    fn send(&mut self, port: u16) -> Result<(), TestCaseError> {
        let (placed, last) = self.flows[&port];
        let went = self.packet(port, false);
        prop_assert_eq!(went, placed, "flow {} last seen {:?}, now {:?}", port, last, self.now);
        self.flows.insert(port, (placed, self.now));
        Ok(())
    }

    /// Time passes in quarters of a second; a flow speaks before it would be idle for too long.
    fn pass(&mut self, quarters: u32) -> Result<(), TestCaseError> {
        for _ in 0..quarters {
            self.now += Duration::from_millis(250);
            self.epoch = self.now.as_secs() as u32;
            let due: Vec<_> =
                self.flows.iter().filter(|(_, (_, last))| self.now - *last >= IDLE).map(|(port, _)| *port).collect();
            due.into_iter().try_for_each(|port| self.send(port))?;
            let refused = std::mem::take(&mut self.refused);
            let writes = self.table.tick(self.now, &|_| refused, self.sweep.as_ref());
            self.publish(writes);
        }
        Ok(())
    }

    fn sweep(&mut self) {
        let mark = self.table.begin_sweep();
        let pins: Vec<_> = self.pins.iter().map(|(key, pin)| (*key, *pin)).collect();
        let sweep = self.table.sweep(mark, self.epoch, pins, &alive);
        for key in &sweep.expired {
            self.pins.remove(key);
        }
        self.sweep = Some(sweep);
    }
}

/// One event of a schedule.
#[derive(Clone, Debug)]
enum Event {
    Open,
    Send(prop::sample::Index),
    End(prop::sample::Index),
    Retarget([u16; 2]),
    Pass(u32),
    Sweep,
    /// A new daemon takes over the live words.
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => Just(Event::Open),
        4 => any::<prop::sample::Index>().prop_map(Event::Send),
        2 => any::<prop::sample::Index>().prop_map(Event::End),
        3 => prop::array::uniform2(0..4_u16).prop_map(Event::Retarget),
        4 => (1..20_u32).prop_map(Event::Pass),
        3 => Just(Event::Sweep),
        1 => Just(Event::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Promise 3: a live flow never changes its endpoint, whatever is retargeted, refused, swept or restarted, and when.
    #[test]
    fn a_placed_flow_stays_placed(events in prop::collection::vec(event(), 1..120), room in prop_oneof![Just(usize::MAX), 0..6_usize]) {
        let mut world = World::new(room);
        for event in events {
            let ports = || { let mut ports: Vec<_> = world.flows.keys().copied().collect(); ports.sort_unstable(); ports };
            match event {
                Event::Open => world.open(),
                Event::Send(index) => if !world.flows.is_empty() { let port = *index.get(&ports()); world.send(port)? },
                Event::End(index) => if !world.flows.is_empty() { let port = *index.get(&ports()); world.flows.remove(&port); },
                Event::Retarget(targets) => {
                    let writes = world.table.retarget(world.now, ID, &targets);
                    world.publish(writes);
                }
                Event::Pass(quarters) => world.pass(quarters)?,
                Event::Sweep => world.sweep(),
                Event::Restart => {
                    world.table = Table::adopt(world.now, SEED, &[group(128, 2)], |index| world.map[&index].word());
                    world.sweep = None;
                }
            }
        }
        // In the end, with all flows over, everything comes to rest: no pins, no transitions, nothing looked up.
        world.flows.clear();
        for _ in 0..8 {
            world.pass(8)?;
            world.sweep();
        }
        world.pass(1)?;
        prop_assert!(world.pins.is_empty());
        prop_assert!(world.map.values().all(|slot| slot.state() == State::Stable), "{:?}", world.map);
    }
}

#[test]
fn a_transition_ends_after_the_idle_timeout_and_by_way_of_pins() {
    let mut table = table(64);
    let at = Duration::from_secs;
    let writes = table.retarget(at(10), ID, &[7; 64]);
    assert_eq!(writes.len(), 64);
    assert_eq!((writes[0], table.summary(ID).moving), ((128, Slot::stable(LOCAL).flip(7)), 64));
    assert!(table.retarget(at(11), ID, &[7; 64]).is_empty(), "no change, no write");
    assert!(table.tick(at(13), &nobody, None).is_empty());
    assert!(table.tick(at(13), &|class| class == 3, None).is_empty(), "a pin was refused at 13");
    assert!(table.tick(at(16), &|class| class == 4, None).is_empty());
    let writes = table.tick(at(17), &nobody, None);
    assert!(writes.len() == 64 && writes.iter().all(|(_, slot)| slot.state() == State::Pins && slot.current() == 7));
    // A sweep that began before says nothing.
    let mark = Mark::default();
    let old = table.sweep(mark, 0, [], &alive);
    assert!(table.tick(at(18), &nobody, Some(&old)).is_empty());
    // One after it, with one pin elsewhere and one where the slot is.
    let mark = table.begin_sweep();
    let pin = |port, endpoint| (PinKey::new(&client(port)), Pin { endpoint, class: 3, epoch: 18 });
    let sweep = table.sweep(mark, 18, [pin(1, LOCAL), pin(2, 7)], &alive);
    let (index, ..) = table.locate(3, &PinKey::new(&client(1))).unwrap();
    assert!(sweep.elsewhere(index) && sweep.live == 2 && sweep.expired.is_empty());
    let writes = table.tick(at(19), &nobody, Some(&sweep));
    assert!(writes.len() == 63 && writes.iter().all(|(at, slot)| *at != index && slot.state() == State::Stable));
    assert_eq!((table.summary(ID).pinned, table.summary(ID).shares[&7]), (1, 1.0));
}

#[test]
fn a_change_within_the_window_starts_it_again() {
    let mut table = table(64);
    let at = Duration::from_secs;
    assert_eq!(table.retarget(at(0), ID, &[7; 64]).len(), 64);
    let mut next = [7; 64];
    next[5] = 9;
    assert_eq!(table.retarget(at(3), ID, &next), [(133, Slot::stable(LOCAL).flip(7).flip(9))]);
    assert_eq!(table.tick(at(4), &nobody, None).len(), 63);
    assert_eq!(table.tick(at(7), &nobody, None).len(), 1);
}

#[test]
fn slots_found_in_transition_start_their_window_at_adoption() {
    let words = [Slot::stable(LOCAL).flip(7), Slot::stable(LOCAL).flip(7).settle(true)];
    let mut table = Table::adopt(Duration::from_secs(100), SEED, &[group(0, 2)], |index| words[index as usize].word());
    assert_eq!((table.summary(ID).moving, table.summary(ID).pinned), (1, 1));
    assert!(table.tick(Duration::from_secs(103), &nobody, None).is_empty());
    assert_eq!(table.tick(Duration::from_secs(104), &nobody, None), [(0, words[0].settle(true))]);
}

#[test]
fn pins_expire_when_unseen_for_longer_than_the_timeout() {
    let table = table(64);
    let key = PinKey::new(&client(1));
    let rows = [
        ("just seen", 3, 100, 100, false, false),
        ("at the edge", 3, 96, 100, false, false),
        ("over", 3, 95, 100, false, true),
        ("ahead of the controller", 3, 101, 100, false, false),
        ("epochs wrapped", 3, u32::MAX, 3, false, false),
        ("epochs wrapped, over", 3, u32::MAX, 4, false, true),
        ("endpoint dead", 3, 100, 100, true, true),
        ("class gone", 4, 100, 100, false, true),
    ];
    for (name, class, seen, epoch, dead, expired) in rows {
        let pin = Pin { endpoint: 7, class, epoch: seen };
        let sweep = table.sweep(Mark::default(), epoch, [(key, pin)], &|_| dead);
        assert_eq!((sweep.expired.len(), sweep.live), (usize::from(expired), usize::from(!expired)), "{name}");
        let (index, ..) = table.locate(3, &key).unwrap();
        assert_eq!(sweep.elsewhere(index), !expired, "{name}");
    }
}

#[test]
fn the_dead_are_named_no_more() {
    let mut table = table(64);
    let mut mixed = [7; 64];
    mixed[..16].fill(8);
    assert_eq!(table.retarget(Duration::ZERO, ID, &mixed).len(), 64);
    assert!(table.names(7) && table.names(LOCAL));
    let writes = table.bury(ID, 7, &[8; 64]);
    assert!(writes.len() == 48 && writes.iter().all(|(_, slot)| (slot.current(), slot.previous()) == (8, LOCAL)));
    assert!(!table.names(7) && table.names(8));
    assert!(table.bury(ID, 7, &[8; 64]).is_empty());
}

#[test]
fn what_does_not_fit_changes_nothing() {
    let mut table = table(64);
    let other = GroupId { class: 9, family: 4 };
    assert!(table.retarget(Duration::ZERO, other, &[1; 64]).is_empty());
    assert!(table.retarget(Duration::ZERO, ID, &[1; 63]).is_empty());
    assert!(table.bury(ID, LOCAL, &[1; 63]).is_empty());
    assert_eq!(table.summary(other), Summary::default());
}

#[test]
fn a_full_table_is_filled_by_one_decision() {
    let candidates: Vec<_> =
        (0..10).map(|n| Candidate { id: n, key: key(&format!("reserved/10.20.0.{n}")), weight: 0.1 }).collect();
    let mut table = Table::adopt(Duration::ZERO, SEED, &[group(0, 4096)], |_| 0);
    let assignment = assign(space(SEED, "promo", 4), 4096, &candidates);
    let writes = table.retarget(Duration::ZERO, ID, &assignment);
    // All but the tenth that is local and stays.
    assert!((3500..3900).contains(&writes.len()), "{}", writes.len());
    assert!(writes.iter().all(|(index, slot)| slot.current() == assignment[*index as usize]));
}
