//! The slots of all classes as the controller knows them, and their transitions.
//!
//! The invariant (see [`burst_common::slot`]): every unrecorded live flow of a slot is on `previous` while it is in
//! transition and on `current` when it is not. A flow that is seen at least once per `idle_timeout` has been pinned, or
//! is on `current`, once a transition lasted that long without a refused pin; only then may it end. It ends in state
//! `pins`, never at once in `stable`: pins made while the pins were being read are not in what was read. A slot becomes
//! stable by a sweep that began after its word of state `pins` was published.
//!
//! The program changes slots, too: it makes their flows ask for pins, and brings new flows home when nobody leads
//! ([`burst_common::place`]). So a word is published by compare-and-swap alone; where that fails, and before anything is decided, the table
//! takes over what stands there ([`Table::learn`]).

use std::collections::BTreeMap;
use std::time::Duration;

use burst_common::hash;
use burst_common::pin::PinKey;
use burst_common::slot::{EndpointId, LOCAL, Slot, State};

use super::sweep::{Mark, Sweep};

/// The slots of one class and address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupId {
    /// Class id.
    pub class: u16,
    /// Address family: 4 or 6.
    pub family: u8,
}

/// What the table is told of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// Which.
    pub id: GroupId,
    /// Index of its first slot in the map.
    pub base: u32,
    /// Number of its slots, a power of two.
    pub slots: u32,
    /// Whether the slot is chosen by source address alone.
    pub by_client: bool,
    /// A flow unseen for so long is over.
    pub idle_timeout: Duration,
}

/// A word to publish, if the one that it replaces is still there: the program changes slots, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    /// Index in the map.
    pub index: u32,
    /// What stands there, as far as the table knows.
    pub old: Slot,
    /// What is to stand there.
    pub new: Slot,
}

/// A group and its words.
#[derive(Clone, Debug)]
struct Block {
    group: Group,
    slots: Vec<Slot>,
    /// Slots in transition, by number within the group, and when each flipped last.
    moving: BTreeMap<u32, Duration>,
    /// Slots in state `pins`, and the mark before which a sweep says nothing about them.
    pinned: BTreeMap<u32, Mark>,
    /// When a pin was refused last.
    refused: Option<Duration>,
}

/// All groups.
#[derive(Clone, Debug)]
pub struct Table {
    seed: u64,
    blocks: BTreeMap<GroupId, Block>,
    mark: Mark,
}

/// How the slots of a group stand.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// Share of the slots that send new flows to each endpoint.
    pub shares: BTreeMap<EndpointId, f64>,
    /// Slots in transition.
    pub moving: usize,
    /// Slots that look pins up.
    pub pinned: usize,
    /// Slots that name an endpoint, for new flows or for those that are written down nowhere.
    pub offsite: usize,
}

impl Table {
    /// Takes over the words of the live map (`word` reads one). `seed` is that of the flow hash. When a slot found in
    /// transition flipped is not known: its window starts now.
    #[must_use]
    pub fn adopt(now: Duration, seed: u64, groups: &[Group], word: impl Fn(u32) -> u64) -> Self {
        let mark = Mark::default();
        let block = |group: &Group| {
            let slots: Vec<_> = (0..group.slots).map(|n| Slot::from_word(word(group.base + n))).collect();
            let of =
                |state: State| (0_u32..).zip(&slots).filter(move |(_, slot)| slot.state() == state).map(|(n, _)| n);
            let moving = of(State::Transition).map(|n| (n, now)).collect();
            // As in `learn`: the pins for which the program changed the word may not be there yet.
            let pinned = of(State::Pins).map(|n| (n, mark.next().next())).collect();
            (group.id, Block { group: *group, moving, pinned, slots, refused: None })
        };
        Self { seed, blocks: groups.iter().map(block).collect(), mark }
    }

    /// Takes over from another table of the same process since when slots are in transition, where they are as that one has them.
    pub fn keep_windows(&mut self, former: &Self) {
        for block in self.blocks.values_mut() {
            let Some(other) = former.blocks.get(&block.group.id).filter(|other| other.slots.len() == block.slots.len())
            else {
                continue;
            };
            for (n, since) in &mut block.moving {
                if let Some(known) = other.moving.get(n)
                    && other.slots[*n as usize] == block.slots[*n as usize]
                {
                    *since = *known;
                }
            }
            block.refused = other.refused;
        }
    }

    /// Sends the new flows of a group where `assignment` says, one endpoint per slot. What is returned must be
    /// published before anything else is asked of the table. A group that is not known, or an assignment of another
    /// length, changes nothing.
    #[must_use]
    pub fn retarget(&mut self, now: Duration, id: GroupId, assignment: &[EndpointId]) -> Vec<Write> {
        let Some(block) = self.blocks.get_mut(&id).filter(|block| block.slots.len() == assignment.len()) else {
            return Vec::new();
        };
        block.change(
            |n, slot| slot.flip(assignment[n as usize]),
            |block, n| {
                block.pinned.remove(&n);
                block.moving.insert(n, now);
            },
        )
    }

    /// Takes a dead endpoint out of every slot of a group: its flows cannot be saved and go where `assignment` (which
    /// does not name it) says. Pins to it are given up by the next [`Table::sweep`] that is told.
    #[must_use]
    pub fn bury(&mut self, id: GroupId, dead: EndpointId, assignment: &[EndpointId]) -> Vec<Write> {
        let Some(block) = self.blocks.get_mut(&id).filter(|block| block.slots.len() == assignment.len()) else {
            return Vec::new();
        };
        let named = |slot: Slot| slot.current() == dead || slot.previous() == dead;
        let mark = self.mark.next();
        block.change(
            |n, slot| if named(slot) { slot.bury(dead, assignment[n as usize]) } else { slot },
            |block, n| {
                // Pins that named what was `current` may name something else than what is now: ask the sweep anew.
                if block.slots[n as usize].state() == State::Pins {
                    block.pinned.insert(n, mark);
                }
            },
        )
    }

    /// Takes over the words of the live map that are not as the table has them (`word` reads one). Gives the groups whose new flows go
    /// elsewhere than the table had it.
    pub fn reconcile(&mut self, now: Duration, word: impl Fn(u32) -> Slot) -> Vec<GroupId> {
        let differ: Vec<_> = self.words().map(|(index, slot)| (index, slot, word(index))).collect();
        let differ = differ.into_iter().filter(|(_, known, found)| known != found);
        let mut moved: Vec<_> = differ.filter_map(|(index, _, found)| self.learn(now, index, found)).collect();
        moved.dedup();
        moved
    }

    /// Takes over the word that stands in the live map. Gives its group if its new flows go elsewhere than the table had it.
    pub fn learn(&mut self, now: Duration, index: u32, found: Slot) -> Option<GroupId> {
        let block = self.blocks.values_mut().find(|block| (block.group.base..block.end()).contains(&index))?;
        let n = index - block.group.base;
        let known = std::mem::replace(&mut block.slots[n as usize], found);
        block.moving.remove(&n);
        block.pinned.remove(&n);
        match found.state() {
            State::Stable => {}
            State::Transition => drop(block.moving.insert(n, now)),
            // The pin for which the program changed the word may not be there yet: not the next sweep tells of it, but the one after,
            // which begins long after that packet is through.
            State::Pins => drop(block.pinned.insert(n, self.mark.next().next())),
        }
        (known.current() != found.current()).then_some(block.group.id)
    }

    /// The group of a slot.
    #[must_use]
    pub fn group_of(&self, index: u32) -> Option<GroupId> {
        self.blocks.values().find(|block| (block.group.base..block.end()).contains(&index)).map(|block| block.group.id)
    }

    /// Makes every slot stable and local: for state under which no flow was ever shifted. Gives all words.
    #[must_use]
    pub fn reset(&mut self) -> Vec<(u32, Slot)> {
        for block in self.blocks.values_mut() {
            block.slots.fill(Slot::stable(LOCAL));
            block.moving.clear();
            block.pinned.clear();
        }
        self.words().collect()
    }

    /// Begins a sweep; call it after everything returned so far was published, and before the pins are read.
    #[must_use]
    pub fn begin_sweep(&mut self) -> Mark {
        self.mark = self.mark.next();
        self.mark
    }

    /// Ends what is over: transitions in which every live flow was seen, and lookups that no pin needs any more.
    ///
    /// `refused` says of each class id whether a pin was refused since the last tick; its transitions then go on, for a
    /// refused flow is unrecorded on `previous`. `sweep` is the latest one, if there was any.
    #[must_use]
    pub fn tick(&mut self, now: Duration, refused: &dyn Fn(u16) -> bool, sweep: Option<&Sweep>) -> Vec<Write> {
        let fresh = self.mark.next();
        let mut writes = Vec::new();
        for block in self.blocks.values_mut() {
            if refused(block.group.id.class) {
                block.refused = Some(now);
            }
            let idle = block.group.idle_timeout;
            let quiet = block.refused;
            let over = |since: Duration| now.saturating_sub(quiet.map_or(since, |last| last.max(since))) >= idle;
            let ended: Vec<_> = block.moving.iter().filter(|(_, since)| over(**since)).map(|(n, _)| *n).collect();
            for n in ended {
                block.moving.remove(&n);
                block.pinned.insert(n, fresh);
                writes.push(block.settle(n, true));
            }
            if let Some(sweep) = sweep {
                let base = block.group.base;
                let free = |n: u32, asked: Mark| sweep.mark() >= asked && !sweep.elsewhere(base + n);
                let freed: Vec<_> =
                    block.pinned.iter().filter(|(n, asked)| free(**n, **asked)).map(|(n, _)| *n).collect();
                for n in freed {
                    block.pinned.remove(&n);
                    writes.push(block.settle(n, false));
                }
            }
        }
        writes
    }

    /// The slot of a flow: its index in the map, its word, and how long its class's flows may be idle. `None` for a
    /// class or family that has no slots.
    #[must_use]
    pub fn locate(&self, class: u16, key: &PinKey) -> Option<(u32, Slot, Duration)> {
        let block = self.blocks.get(&GroupId { class, family: key.family() })?;
        let group = &block.group;
        let n = hash::slot(key.hash(self.seed, group.by_client), group.slots - 1);
        Some((group.base + n, block.slots[n as usize], group.idle_timeout))
    }

    /// The endpoint each slot of a group sends new flows to.
    pub fn currents(&self, id: GroupId) -> impl Iterator<Item = EndpointId> {
        self.blocks.get(&id).into_iter().flat_map(|block| block.slots.iter().map(|slot| slot.current()))
    }

    /// Every word, with its index in the map.
    pub fn words(&self) -> impl Iterator<Item = (u32, Slot)> {
        self.blocks.values().flat_map(|block| (block.group.base..).zip(block.slots.iter().copied()))
    }

    /// Whether a slot names `endpoint`, as where new or as where unrecorded flows go.
    #[must_use]
    pub fn names(&self, endpoint: EndpointId) -> bool {
        self.words().any(|(_, slot)| slot.current() == endpoint || slot.previous() == endpoint)
    }

    /// How a group stands; empty for one that is not known.
    #[must_use]
    pub fn summary(&self, id: GroupId) -> Summary {
        let Some(block) = self.blocks.get(&id) else { return Summary::default() };
        let (moving, pinned) = (block.moving.len(), block.pinned.len());
        let offsite = block.slots.iter().filter(|slot| slot.current() != LOCAL || slot.previous() != LOCAL).count();
        Summary { shares: super::achieved(self.currents(id)), moving, pinned, offsite }
    }
}

impl Block {
    /// Changes every slot and gives the words that became others; `changed` is told of each.
    fn change(&mut self, new: impl Fn(u32, Slot) -> Slot, changed: impl Fn(&mut Self, u32)) -> Vec<Write> {
        let mut writes = Vec::new();
        for n in 0..self.slots.len() as u32 {
            let (old, new) = (self.slots[n as usize], new(n, self.slots[n as usize]));
            if new != old {
                self.slots[n as usize] = new;
                changed(self, n);
                writes.push(Write { index: self.group.base + n, old, new });
            }
        }
        writes
    }

    fn settle(&mut self, n: u32, pins: bool) -> Write {
        let slot = &mut self.slots[n as usize];
        let (old, new) = (*slot, slot.settle(pins));
        *slot = new;
        Write { index: self.group.base + n, old, new }
    }

    /// Index behind its last slot.
    fn end(&self) -> u32 {
        self.group.base + self.group.slots
    }
}
