//! The controller's loop with the real table, what the clients know of their flows, and what each packet is held against: promise 3.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use burst::slots::{Group, Sweep, Table, Write};
use burst_common::admission::NONE;
use burst_common::endpoint::HELD_LINKS;
use burst_common::limits::OVERFLOW_ROWS;
use burst_common::reason::Note;
use burst_common::slot::{EndpointId, LOCAL, State};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::event::{Event, Line};
use crate::host::{FAR, FLOWS, Host, IDLE, PASS, Place, Places, Went};

/// A flow, as its client sees it.
#[derive(Clone, Copy)]
pub(crate) struct Placed {
    /// Where it is; several, as long as what was seen of it tells no more.
    pub(crate) at: Places,
    /// Its last packet.
    pub(crate) last: Duration,
    /// Nothing but openers were sent so far.
    pub(crate) opening: bool,
}

/// A fault of the controller, by which a test sees the check fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// It stores words instead of swapping them.
    Stores,
}

/// The controller's loop, and what the clients know.
pub(crate) struct Edge<'a> {
    pub(crate) host: &'a mut Host,
    pub(crate) side: usize,
    pub(crate) fault: Fault,
    pub(crate) table: Table,
    pub(crate) overflow: Place,
    /// Places that cannot be reached and are waited for; those that have no link; the dead, which are among the latter.
    pub(crate) held: Places,
    pub(crate) gone: Places,
    pub(crate) dead: Places,
    pub(crate) leads: bool,
    pub(crate) now: Duration,
    pub(crate) epoch: u32,
    /// Refused pins that were asked for.
    pub(crate) refused: u64,
    pub(crate) sweep: Option<Sweep>,
    pub(crate) flows: BTreeMap<usize, Placed>,
    pub(crate) opened: usize,
}

/// A failure of the test itself is one of the schedule.
pub(crate) fn broken(error: anyhow::Error) -> TestCaseError {
    TestCaseError::fail(format!("{error:#}"))
}

impl<'a> Edge<'a> {
    pub(crate) fn new(host: &'a mut Host, six: bool, room: usize, fault: Fault) -> Result<Self> {
        let side = usize::from(six);
        host.reset(side, FLOWS, room)?;
        let seed = host.bed.compiled().policy.seed;
        let table = Table::adopt(Duration::ZERO, seed, &[host.sides[side].group], |_| 0);
        Ok(Self {
            refused: host.count(Note::PinRefused.number()),
            host,
            side,
            fault,
            table,
            overflow: 0,
            held: 0,
            gone: 0,
            dead: 0,
            leads: true,
            now: Duration::ZERO,
            epoch: 0,
            sweep: None,
            flows: BTreeMap::new(),
            opened: 0,
        })
    }

    pub(crate) fn id(&self, place: Place) -> EndpointId {
        self.host.sides[self.side].ids[place]
    }

    pub(crate) fn group(&self) -> Group {
        self.host.sides[self.side].group
    }

    /// Publishes as the daemon does: by compare-and-swap, and takes over what is there instead.
    pub(crate) fn publish(&mut self, writes: &[Write]) {
        for &Write { index, old, new } in writes {
            let maps = self.host.bed.maps();
            if self.fault == Fault::Stores {
                maps.set_slot(index as usize, new);
            } else if let Err(found) = maps.swap_slot(index as usize, old, new) {
                self.table.learn(self.now, index, found);
            }
        }
    }

    pub(crate) fn reconcile(&mut self) {
        let maps = self.host.bed.maps();
        self.table.reconcile(self.now, |index| maps.slot(index as usize));
    }

    /// Sends a packet of a flow; where it can have gone.
    pub(crate) fn packet(&mut self, client: usize, opens: bool) -> Result<Places, TestCaseError> {
        let went = self.host.packet(self.side, client, opens).map_err(broken)?;
        Ok(match went {
            Went::To(place) => {
                prop_assert!((self.held | self.gone) >> place & 1 == 0, "{} is where no link leads", place);
                1 << place
            }
            Went::Held => self.held,
            Went::NoLink => self.gone,
        })
    }

    pub(crate) fn open(&mut self) -> Result<(), TestCaseError> {
        if self.opened < FLOWS {
            let client = self.opened;
            self.opened += 1;
            let at = self.packet(client, true)?;
            self.flows.insert(client, Placed { at, last: self.now, opening: true });
        }
        Ok(())
    }

    /// One more packet of a flow; again its opener, if `opens` and nothing else was sent yet.
    pub(crate) fn send(&mut self, client: usize, opens: bool) -> Result<(), TestCaseError> {
        let placed = self.flows[&client];
        let opens = opens && placed.opening;
        let went = self.packet(client, opens)?;
        if placed.at & self.dead != 0 {
            self.flows.remove(&client);
            return Ok(());
        }
        if opens && placed.at & (self.held | self.gone) != 0 {
            // Nobody answered, and nobody there can: this opener is the flow's first again.
            self.flows.insert(client, Placed { at: went, last: self.now, opening: true });
            return Ok(());
        }
        let at = placed.at & went;
        prop_assert!(
            at != 0,
            "flow {} of slot {} was in places {:#07b}, last seen {:?}; now {:?} it went to {:#07b}, {}",
            client,
            self.table
                .locate(self.group().id.class, &self.host.sides[self.side].clients[client].key)
                .expect("a slot")
                .0,
            placed.at,
            placed.last,
            self.now,
            went,
            if opens { "an opener" } else { "a later packet" }
        );
        self.flows.insert(client, Placed { at, last: self.now, opening: opens });
        Ok(())
    }

    /// A packet of a payment.
    pub(crate) fn pay(&mut self) -> Result<(), TestCaseError> {
        let side = self.side;
        let (action, out) = self.host.run(|host| &host.sides[side].payment).map_err(broken)?;
        prop_assert_eq!(action, PASS, "payment");
        prop_assert_eq!(&out, &self.host.sides[side].payment.frame, "payment");
        Ok(())
    }

    /// Time passes in quarters of a second; a flow speaks before it would be idle for too long.
    pub(crate) fn pass(&mut self, quarters: u32) -> Result<(), TestCaseError> {
        for _ in 0..quarters {
            self.now += Duration::from_millis(250);
            // By one a second while a daemon leads, and not at all while none does.
            if self.leads && self.now.subsec_nanos() == 0 {
                self.epoch += 1;
                self.host.bed.maps().set_epoch(self.epoch);
            }
            let due = |(_, placed): &(&usize, &Placed)| self.now - placed.last >= IDLE;
            let due: Vec<_> = self.flows.iter().filter(due).map(|(client, _)| *client).collect();
            due.into_iter().try_for_each(|client| self.send(client, false))?;
            self.tick(0)?;
        }
        Ok(())
    }

    /// Ends what is over. `between` new flows come after the daemon read the slots and before it writes them.
    pub(crate) fn tick(&mut self, between: u8) -> Result<(), TestCaseError> {
        if self.leads {
            self.reconcile();
            let refused = self.host.count(Note::PinRefused.number());
            let more = std::mem::replace(&mut self.refused, refused) != refused;
            let writes = self.table.tick(self.now, &|_| more, self.sweep.as_ref());
            (0..between).try_for_each(|_| self.open())?;
            self.publish(&writes);
        }
        Ok(())
    }

    /// New flows go elsewhere; `between` as in [`Self::tick`].
    pub(crate) fn retarget(&mut self, targets: [Place; 2], between: u8) -> Result<(), TestCaseError> {
        if self.leads {
            let targets = targets.map(|place| self.id(if self.dead >> place & 1 == 1 { 0 } else { place }));
            self.reconcile();
            let writes = self.table.retarget(self.now, self.group().id, &targets);
            (0..between).try_for_each(|_| self.open())?;
            self.publish(&writes);
        }
        Ok(())
    }

    /// Whether the premises take new flows, and where they go otherwise.
    pub(crate) fn room(&mut self, room: bool, overflow: Place) {
        self.overflow = if self.dead >> overflow & 1 == 1 { 0 } else { overflow };
        let (class, family) = (self.host.class as u8, self.group().id.family);
        let maps = self.host.bed.maps();
        maps.set_overflow(class, family, &[self.id(self.overflow); OVERFLOW_ROWS]);
        maps.set_admission(class, if room { 0 } else { NONE });
    }

    /// The links of an endpoint: up, down and waited for, or down for good.
    pub(crate) fn line(&mut self, place: Place, line: Line) {
        let bit = 1 << place;
        if self.dead & bit != 0 {
            return;
        }
        self.held &= !bit;
        self.gone &= !bit;
        let id = self.id(place);
        let word = match line {
            Line::Up => self.host.links(id),
            Line::Held => HELD_LINKS,
            Line::Gone => 0,
        };
        match line {
            Line::Up => {}
            Line::Held => self.held |= bit,
            Line::Gone => self.gone |= bit,
        }
        self.host.bed.maps().set_endpoint_links(id, word);
    }

    /// An endpoint dies: its flows break, and nobody goes there any more.
    pub(crate) fn die(&mut self, place: Place) {
        if !self.leads || self.dead >> place & 1 == 1 {
            return;
        }
        self.line(place, Line::Gone);
        self.dead |= 1 << place;
        if self.overflow == place {
            let (class, family) = (self.host.class as u8, self.group().id.family);
            self.overflow = 0;
            self.host.bed.maps().set_overflow(class, family, &[LOCAL; OVERFLOW_ROWS]);
        }
        self.reconcile();
        let writes = self.table.bury(self.group().id, self.id(place), &[LOCAL; 2]);
        self.publish(&writes);
    }

    pub(crate) fn sweep(&mut self) -> Result<(), TestCaseError> {
        if !self.leads {
            return Ok(());
        }
        self.reconcile();
        let mark = self.table.begin_sweep();
        let pins = self.host.read_pins().map_err(broken)?;
        let (dead, ids) = (self.dead, self.host.sides[self.side].ids);
        let is_dead = |id| ids.iter().enumerate().any(|(place, of)| *of == id && dead >> place & 1 == 1);
        let sweep = self.table.sweep(mark, self.epoch, pins, &is_dead);
        sweep.expired.iter().try_for_each(|key| self.host.unpin(key)).map_err(broken)?;
        self.sweep = Some(sweep);
        Ok(())
    }

    /// The daemon ends, or a new one takes over the live words.
    pub(crate) fn lead(&mut self, leads: bool) {
        self.leads = leads;
        if leads {
            let maps = self.host.bed.maps();
            maps.set_lease(FAR);
            let seed = self.host.bed.compiled().policy.seed;
            self.table = Table::adopt(self.now, seed, &[self.group()], |index| maps.slot(index as usize).word());
            self.sweep = None;
            // Counters outlive the daemon.
            self.refused = self.host.count(Note::PinRefused.number());
        }
    }

    pub(crate) fn event(&mut self, event: &Event) -> Result<(), TestCaseError> {
        let flow = |index: &Index| {
            let clients: Vec<_> = self.flows.keys().copied().collect();
            (!clients.is_empty()).then(|| *index.get(&clients))
        };
        match event {
            Event::Open => self.open()?,
            Event::Send(index) => {
                if let Some(client) = flow(index) {
                    self.send(client, false)?;
                }
            }
            Event::Again(index) => {
                if let Some(client) = flow(index) {
                    self.send(client, true)?;
                }
            }
            Event::End(index) => {
                if let Some(client) = flow(index) {
                    self.flows.remove(&client);
                }
            }
            Event::Retarget(targets, between) => self.retarget(*targets, *between)?,
            Event::Pass(quarters) => self.pass(*quarters)?,
            Event::Sweep(between) => {
                self.sweep()?;
                self.tick(*between)?;
            }
            Event::Room(room, overflow) => self.room(*room, *overflow),
            Event::Line(place, line) => self.line(*place, *line),
            Event::Die(place) => self.die(*place),
            Event::Lead(leads) => self.lead(*leads),
            Event::Homing => {
                if !self.leads {
                    self.host.bed.maps().set_lease(1);
                }
            }
            Event::Pay => self.pay()?,
        }
        Ok(())
    }

    /// With all flows over and a daemon that leads, everything comes to rest: no pins, no transitions, nothing looked up.
    pub(crate) fn rest(&mut self) -> Result<(), TestCaseError> {
        self.flows.clear();
        self.room(true, 0);
        self.lead(true);
        for _ in 0..10 {
            self.now += Duration::from_secs(2);
            self.epoch += 2;
            self.host.bed.maps().set_epoch(self.epoch);
            self.tick(0)?;
            self.sweep()?;
        }
        self.tick(0)?;
        let pins = self.host.read_pins().map_err(broken)?;
        prop_assert!(pins.is_empty(), "{:?}", pins);
        let (group, maps) = (self.group(), self.host.bed.maps());
        let slots: Vec<_> = (0..group.slots).map(|n| maps.slot((group.base + n) as usize)).collect();
        prop_assert!(slots.iter().all(|slot| slot.state() == State::Stable), "{:?}", slots);
        Ok(())
    }
}
