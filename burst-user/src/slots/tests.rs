//! What the table promises of single steps; of schedules, see `schedules`.

use std::time::Duration;

use burst_common::flow::{Flow, TCP};
use burst_common::pin::{Pin, PinKey};
use burst_common::slot::{LOCAL, Slot, State};

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

#[test]
fn a_transition_ends_after_the_idle_timeout_and_by_way_of_pins() {
    let mut table = table(64);
    let at = Duration::from_secs;
    let writes = table.retarget(at(10), ID, &[7; 64]);
    assert_eq!(writes.len(), 64);
    let (old, new) = (Slot::stable(LOCAL), Slot::stable(LOCAL).flip(7));
    assert_eq!((writes[0], table.summary(ID).moving), (Write { index: 128, old, new }, 64));
    assert!(table.retarget(at(11), ID, &[7; 64]).is_empty(), "no change, no write");
    assert!(table.tick(at(13), &nobody, None).is_empty());
    assert!(table.tick(at(13), &|class| class == 3, None).is_empty(), "a pin was refused at 13");
    assert!(table.tick(at(16), &|class| class == 4, None).is_empty());
    let writes = table.tick(at(17), &nobody, None);
    assert!(writes.len() == 64 && writes.iter().all(|w| w.new.state() == State::Pins && w.new.current() == 7));
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
    assert!(writes.len() == 63 && writes.iter().all(|w| w.index != index && w.new.state() == State::Stable));
    assert_eq!((table.summary(ID).pinned, table.summary(ID).shares[&7]), (1, 1.0));
}

#[test]
fn a_change_within_the_window_starts_it_again() {
    let mut table = table(64);
    let at = Duration::from_secs;
    assert_eq!(table.retarget(at(0), ID, &[7; 64]).len(), 64);
    let mut next = [7; 64];
    next[5] = 9;
    let old = Slot::stable(LOCAL).flip(7);
    assert_eq!(table.retarget(at(3), ID, &next), [Write { index: 133, old, new: old.flip(9) }]);
    assert_eq!(table.tick(at(4), &nobody, None).len(), 63);
    assert_eq!(table.tick(at(7), &nobody, None).len(), 1);
}

#[test]
fn slots_found_in_transition_start_their_window_at_adoption() {
    let words = [Slot::stable(LOCAL).flip(7), Slot::stable(LOCAL).flip(7).settle(true)];
    let mut table = Table::adopt(Duration::from_secs(100), SEED, &[group(0, 2)], |index| words[index as usize].word());
    assert_eq!((table.summary(ID).moving, table.summary(ID).pinned), (1, 1));
    assert!(table.tick(Duration::from_secs(103), &nobody, None).is_empty());
    let write = Write { index: 0, old: words[0], new: words[0].settle(true) };
    assert_eq!(table.tick(Duration::from_secs(104), &nobody, None), [write]);
}

#[test]
fn what_the_program_wrote_is_taken_over() {
    let mut table = table(64);
    let at = Duration::from_secs;
    let mut map: std::collections::BTreeMap<u32, Slot> = table.words().collect();
    let (watched, homed) = (Slot::stable(LOCAL).watch(), Slot::stable(7).flip(LOCAL));
    assert_eq!(table.retarget(at(0), ID, &[7; 64]).len(), 64);
    map.values_mut().for_each(|slot| *slot = slot.flip(7));
    map.insert(130, watched);
    map.insert(131, homed);
    let moved = table.reconcile(at(1), |index| map[&index]);
    assert_eq!(moved, [ID], "two slots send new flows elsewhere than was decided");
    assert!(table.words().all(|(index, slot)| map[&index] == slot));
    assert_eq!((table.summary(ID).moving, table.summary(ID).pinned), (63, 1));
    assert!(table.reconcile(at(1), |index| map[&index]).is_empty());
    // The one that came home has its own window.
    assert_eq!(table.tick(at(4), &nobody, None).len(), 62);
    assert_eq!(table.tick(at(5), &nobody, None), [Write { index: 131, old: homed, new: homed.settle(true) }]);
    // The one with pins is believed by the second sweep from then on.
    let settles = |table: &mut Table| {
        let mark = table.begin_sweep();
        let sweep = table.sweep(mark, 0, [], &alive);
        table.tick(at(6), &nobody, Some(&sweep)).iter().any(|write| write.index == 130)
    };
    assert!(table.retarget(at(6), ID, &[7; 64]).len() == 2, "both are drawn anew");
    let learned = watched.watch();
    assert!(table.learn(at(6), 130, learned).is_some() && !settles(&mut table) && settles(&mut table));
}

#[test]
fn a_table_that_is_adopted_anew_in_one_process_keeps_the_windows_of_slots_that_are_the_same() {
    let mut former = table(64);
    let at = Duration::from_secs;
    assert_eq!(former.retarget(at(10), ID, &[7; 64]).len(), 64);
    let words: std::collections::BTreeMap<u32, Slot> = former.words().collect();
    let adopted = |changed: u32| {
        let word = |index| if index == changed { words[&index].flip(9) } else { words[&index] };
        Table::adopt(at(13), SEED, &[group(128, 64)], |index| word(index).word())
    };
    let (mut anew, mut kept) = (adopted(u32::MAX), adopted(130));
    assert!(anew.tick(at(14), &nobody, None).is_empty(), "without: from when it was adopted");
    kept.keep_windows(&former);
    let ended = kept.tick(at(14), &nobody, None);
    assert!(ended.len() == 63 && ended.iter().all(|write| write.index != 130), "not of one that changed since");
    // A refusal is remembered, too.
    assert!(former.tick(at(12), &|_| true, None).is_empty());
    let mut kept = adopted(u32::MAX);
    kept.keep_windows(&former);
    assert!(kept.tick(at(15), &nobody, None).is_empty());
    assert_eq!(kept.tick(at(16), &nobody, None).len(), 64);
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
        assert_eq!(sweep.elsewhere(index), class == 3, "{name}: what is over is still there");
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
    assert!(writes.len() == 48 && writes.iter().all(|w| (w.new.current(), w.new.previous()) == (8, LOCAL)));
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
    assert!(writes.iter().all(|w| w.new.current() == assignment[w.index as usize]));
}
