//! Promise 3 over random schedules: a placed flow stays placed, whatever is retargeted, refused, swept, lost, found dead, sent away by the
//! surge guard, brought home, interrupted or restarted, and when.
//!
//! The packet path is `burst_common::place`, which is what the program runs; its maps are these. The controller is the real table.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use burst_common::flow::{Flow, TCP};
use burst_common::hash;
use burst_common::pin::{Pin, PinKey};
use burst_common::place::{self, Pinned, World};
use burst_common::reason::Note;
use burst_common::slot::{EndpointId, LOCAL, Slot, State};
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

const SEED: u64 = 99;
const IDLE: Duration = Duration::from_secs(4);
const ID: GroupId = GroupId { class: 3, family: 4 };
const BASE: u32 = 128;
const SLOTS: u32 = 2;

fn client(port: u16) -> Flow<u32> {
    Flow { src: 0x0100_33c6, dst: 0x1471_00cb, src_port: port, dst_port: 443_u16.to_be(), proto: TCP, flags: 0 }
}

fn group() -> Group {
    Group { id: ID, base: BASE, slots: SLOTS, by_client: false, idle_timeout: IDLE }
}

/// A flow, as its client sees it.
#[derive(Clone, Copy)]
struct Placed {
    endpoint: EndpointId,
    /// Its last packet.
    last: Duration,
    /// Nothing but openers were sent so far.
    opening: bool,
}

/// What happens while a packet is on its way through the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meanwhile {
    Nothing,
    /// Before the program replaces a slot's word, the controller does.
    Retarget([EndpointId; 2]),
    /// After it replaced the word, and before it makes the pin, the controller sweeps and ends what is over.
    Sweep,
}

/// The program, its maps, and the controller's loop.
struct Edge {
    table: Table,
    slots: HashMap<u32, Slot>,
    pins: HashMap<PinKey, Pin>,
    room_for_pins: usize,
    openers: HashMap<PinKey, EndpointId>,
    /// Whether the premises take new flows, and where they go otherwise.
    room: bool,
    overflow: EndpointId,
    lost: HashSet<EndpointId>,
    dead: HashSet<EndpointId>,
    /// Whether a daemon runs; new flows come home some time after it ended.
    leads: bool,
    homing: bool,
    now: Duration,
    epoch: u32,
    refused: bool,
    sweep: Option<Sweep>,
    flows: HashMap<u16, Placed>,
    next: u16,
    meanwhile: Meanwhile,
}

/// A packet on its way.
struct Packet<'a> {
    edge: &'a mut Edge,
    key: PinKey,
    slot: u32,
}

impl World for Packet<'_> {
    fn slot(&mut self) -> Option<Slot> {
        Some(self.edge.slots[&self.slot])
    }
    fn swap(&mut self, old: Slot, new: Slot) -> bool {
        if let Meanwhile::Retarget(targets) = self.edge.meanwhile {
            self.edge.meanwhile = Meanwhile::Nothing;
            self.edge.retarget(targets, 0);
        }
        let is = self.edge.slots[&self.slot] == old;
        if is {
            self.edge.slots.insert(self.slot, new);
        }
        is
    }
    fn pinned(&mut self) -> Option<EndpointId> {
        let epoch = self.edge.epoch;
        self.edge.pins.get_mut(&self.key).map(|pin| {
            pin.epoch = epoch;
            pin.endpoint
        })
    }
    fn pin(&mut self, endpoint: EndpointId) -> Pinned {
        if self.edge.meanwhile == Meanwhile::Sweep {
            self.edge.meanwhile = Meanwhile::Nothing;
            self.edge.sweep();
            self.edge.tick();
        }
        if let Some(pin) = self.edge.pins.get(&self.key) {
            return Pinned::Exists(pin.endpoint);
        }
        if self.edge.pins.len() >= self.edge.room_for_pins {
            return Pinned::Refused;
        }
        self.edge.pins.insert(self.key, Pin { endpoint, class: ID.class, epoch: self.edge.epoch });
        Pinned::Made
    }
    fn repeats(&mut self) -> Option<EndpointId> {
        self.edge.openers.get(&self.key).copied()
    }
    fn remember(&mut self, endpoint: EndpointId) {
        self.edge.openers.insert(self.key, endpoint);
    }
    fn homing(&mut self) -> bool {
        self.edge.homing
    }
    fn admits(&mut self) -> bool {
        self.edge.room
    }
    fn overflow(&mut self) -> EndpointId {
        self.edge.overflow
    }
    fn reaches(&mut self, endpoint: EndpointId) -> bool {
        !self.edge.lost.contains(&endpoint) && !self.edge.dead.contains(&endpoint)
    }
    fn note(&mut self, note: Note) {
        self.edge.refused |= note == Note::PinRefused;
    }
}

impl Edge {
    fn new(room_for_pins: usize) -> Self {
        let table = Table::adopt(Duration::ZERO, SEED, &[group()], |_| 0);
        let slots = table.words().collect();
        Self {
            table,
            slots,
            pins: HashMap::new(),
            room_for_pins,
            openers: HashMap::new(),
            room: true,
            overflow: LOCAL,
            lost: HashSet::new(),
            dead: HashSet::new(),
            leads: true,
            homing: false,
            now: Duration::ZERO,
            epoch: 0,
            refused: false,
            sweep: None,
            flows: HashMap::new(),
            next: 1,
            meanwhile: Meanwhile::Nothing,
        }
    }

    /// Publishes as the daemon does: by compare-and-swap, and takes over what is there instead.
    fn publish(&mut self, writes: &[Write]) {
        for &Write { index, old, new } in writes {
            let word = self.slots.get_mut(&index).expect("a slot of this table");
            if *word == old {
                *word = new;
            } else {
                let found = *word;
                self.table.learn(self.now, index, found);
            }
        }
    }

    fn reconcile(&mut self) {
        let slots = &self.slots;
        self.table.reconcile(self.now, |index| slots[&index]);
    }

    fn packet(&mut self, port: u16, opens: bool) -> EndpointId {
        let flow = client(port);
        let slot = BASE + hash::slot(hash::flow(SEED, &flow), SLOTS - 1);
        let mut packet = Packet { edge: self, key: PinKey::new(&flow), slot };
        if opens {
            place::opener(&mut packet).expect("a slot").endpoint
        } else {
            place::later(&mut packet, true).expect("a slot")
        }
    }

    fn open(&mut self) {
        let port = self.next;
        self.next += 1;
        let endpoint = self.packet(port, true);
        self.flows.insert(port, Placed { endpoint, last: self.now, opening: true });
    }

    /// One more packet of a flow; again its opener, if `opens` and nothing else was sent yet.
    fn send(&mut self, port: u16, opens: bool) -> Result<(), TestCaseError> {
        let placed = self.flows[&port];
        if self.dead.contains(&placed.endpoint) {
            self.flows.remove(&port);
            return Ok(());
        }
        let opens = opens && placed.opening;
        let went = self.packet(port, opens);
        if opens && self.lost.contains(&placed.endpoint) {
            // Nobody answered, and nobody there can: this opener is the flow's first again.
            self.flows.insert(port, Placed { endpoint: went, last: self.now, opening: true });
            return Ok(());
        }
        prop_assert_eq!(
            went,
            placed.endpoint,
            "flow {} last seen {:?}, now {:?}, opener {}",
            port,
            placed.last,
            self.now,
            opens
        );
        self.flows.insert(port, Placed { last: self.now, opening: opens, ..placed });
        Ok(())
    }

    /// Time passes in quarters of a second; a flow speaks before it would be idle for too long.
    fn pass(&mut self, quarters: u32) -> Result<(), TestCaseError> {
        for _ in 0..quarters {
            self.now += Duration::from_millis(250);
            // By one a second while a daemon leads, and not at all while none does.
            if self.leads && self.now.subsec_nanos() == 0 {
                self.epoch += 1;
            }
            let due = |(_, placed): &(&u16, &Placed)| self.now - placed.last >= IDLE;
            let mut due: Vec<_> = self.flows.iter().filter(due).map(|(port, _)| *port).collect();
            due.sort_unstable();
            due.into_iter().try_for_each(|port| self.send(port, false))?;
            self.tick();
        }
        Ok(())
    }

    fn tick(&mut self) {
        if self.leads {
            self.reconcile();
            let refused = std::mem::take(&mut self.refused);
            let writes = self.table.tick(self.now, &|_| refused, self.sweep.as_ref());
            self.publish(&writes);
        }
    }

    /// New flows go elsewhere. `between` new ones come after the daemon read the slots and before it writes them.
    fn retarget(&mut self, targets: [EndpointId; 2], between: u8) {
        if !self.leads {
            return;
        }
        let targets = targets.map(|target| if self.dead.contains(&target) { LOCAL } else { target });
        self.reconcile();
        let writes = self.table.retarget(self.now, ID, &targets);
        (0..between).for_each(|_| self.open());
        self.publish(&writes);
    }

    /// An endpoint dies: its flows break, and nobody goes there any more.
    fn die(&mut self, endpoint: EndpointId) {
        if !self.leads || endpoint == LOCAL || !self.dead.insert(endpoint) {
            return;
        }
        if self.overflow == endpoint {
            self.overflow = LOCAL;
        }
        self.reconcile();
        let writes = self.table.bury(ID, endpoint, &[LOCAL; 2]);
        self.publish(&writes);
    }

    fn sweep(&mut self) {
        if !self.leads {
            return;
        }
        self.reconcile();
        let mark = self.table.begin_sweep();
        let pins: Vec<_> = self.pins.iter().map(|(key, pin)| (*key, *pin)).collect();
        let dead = &self.dead;
        let sweep = self.table.sweep(mark, self.epoch, pins, &|endpoint| dead.contains(&endpoint));
        for key in &sweep.expired {
            self.pins.remove(key);
        }
        self.sweep = Some(sweep);
    }

    /// The daemon ends, or a new one takes over the live words.
    fn lead(&mut self, leads: bool) {
        self.leads = leads;
        if leads {
            self.homing = false;
            self.table = Table::adopt(self.now, SEED, &[group()], |index| self.slots[&index].word());
            self.sweep = None;
            // Counters outlive the daemon; a refusal that nobody asked for is asked for now.
            self.refused = false;
        }
    }
}

/// One event of a schedule.
#[derive(Clone, Debug)]
enum Event {
    Open,
    Interrupted(Meanwhile),
    Send(Index),
    Again(Index),
    End(Index),
    Retarget([EndpointId; 2], u8),
    Pass(u32),
    Sweep,
    Room(bool, EndpointId),
    Lost(EndpointId, bool),
    Die(EndpointId),
    Lead(bool),
    Homing,
}

fn event() -> impl Strategy<Value = Event> {
    let targets = || prop::array::uniform2(0..5_u16);
    let meanwhile = prop_oneof![targets().prop_map(Meanwhile::Retarget), Just(Meanwhile::Sweep)];
    prop_oneof![
        6 => Just(Event::Open),
        3 => meanwhile.prop_map(Event::Interrupted),
        4 => any::<Index>().prop_map(Event::Send),
        3 => any::<Index>().prop_map(Event::Again),
        2 => any::<Index>().prop_map(Event::End),
        3 => (targets(), 0..3_u8).prop_map(|(targets, between)| Event::Retarget(targets, between)),
        4 => (1..20_u32).prop_map(Event::Pass),
        3 => Just(Event::Sweep),
        2 => (any::<bool>(), 0..5_u16).prop_map(|(room, overflow)| Event::Room(room, overflow)),
        2 => (1..5_u16, any::<bool>()).prop_map(|(endpoint, lost)| Event::Lost(endpoint, lost)),
        1 => (1..5_u16).prop_map(Event::Die),
        2 => any::<bool>().prop_map(Event::Lead),
        1 => Just(Event::Homing),
    ]
}

/// As many schedules as `BURST_SCHEDULES` says.
fn config() -> ProptestConfig {
    let cases = std::env::var("BURST_SCHEDULES").ok().map(|text| text.parse().expect("BURST_SCHEDULES is a number"));
    ProptestConfig { cases: cases.unwrap_or(2000), failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_placed_flow_stays_placed(
        events in prop::collection::vec(event(), 1..120),
        room in prop_oneof![Just(usize::MAX), 0..6_usize],
    ) {
        let mut edge = Edge::new(room);
        for event in events {
            let port = |index: Index| {
                let mut ports: Vec<_> = edge.flows.keys().copied().collect();
                ports.sort_unstable();
                (!ports.is_empty()).then(|| *index.get(&ports))
            };
            match event {
                Event::Open => edge.open(),
                Event::Interrupted(meanwhile) => {
                    edge.meanwhile = meanwhile;
                    edge.open();
                    edge.meanwhile = Meanwhile::Nothing;
                }
                Event::Send(index) => if let Some(port) = port(index) { edge.send(port, false)? },
                Event::Again(index) => if let Some(port) = port(index) { edge.send(port, true)? },
                Event::End(index) => if let Some(port) = port(index) { edge.flows.remove(&port); },
                Event::Retarget(targets, between) => edge.retarget(targets, between),
                Event::Pass(quarters) => edge.pass(quarters)?,
                Event::Sweep => edge.sweep(),
                Event::Room(room, overflow) => {
                    edge.room = room;
                    edge.overflow = if edge.dead.contains(&overflow) { LOCAL } else { overflow };
                }
                Event::Lost(endpoint, true) => { edge.lost.insert(endpoint); }
                Event::Lost(endpoint, false) => { edge.lost.remove(&endpoint); }
                Event::Die(endpoint) => edge.die(endpoint),
                Event::Lead(leads) => edge.lead(leads),
                Event::Homing => edge.homing = !edge.leads,
            }
        }
        // In the end, with all flows over and a daemon that leads, everything comes to rest: no pins, no transitions, nothing looked up.
        edge.flows.clear();
        edge.room = true;
        edge.lead(true);
        for _ in 0..10 {
            edge.pass(8)?;
            edge.sweep();
        }
        edge.pass(1)?;
        prop_assert!(edge.pins.is_empty());
        prop_assert!(edge.slots.values().all(|slot| slot.state() == State::Stable), "{:?}", edge.slots);
    }
}
