//! Promise 3 over random schedules, with the real program: a placed flow stays placed, whatever is retargeted, refused, swept, lost,
//! found dead, sent away by the surge guard, brought home or restarted, and when. Payment that is thrown in passes untouched.
//!
//! Every packet is a frame through the program by test run, and where it went is read from the frame that came out. The controller's side
//! is the real table over the real maps; its time is the test's own. The table of pins alone is small, so that it can be full. What
//! cannot be had here is a controller that acts in the middle of a packet: that is in `burst-user/src/slots/schedules.rs`, where
//! the packet path is `burst_common::place` without the program around it.
//!
//! `BURST_SCHEDULES` says how many schedules, `BURST_SEED` which.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use aya::maps::{HashMap, Map, MapData};
use aya::programs::{TestRun, TestRunOptions};
use burst::kernel::Mapped;
use burst::slots::{Group, GroupId, Sweep, Table, Write};
use burst_common::admission::NONE;
use burst_common::counter::{Counter, ROWS, class_row};
use burst_common::endpoint::HELD_LINKS;
use burst_common::flow::{TCP, UDP};
use burst_common::limits::{MAX_REPEATS, OVERFLOW_ROWS};
use burst_common::pin::{Pin, PinKey};
use burst_common::policy::ROLE_CLIENT;
use burst_common::reason::{Note, Reason};
use burst_common::repeat::Repeat;
use burst_common::slot::{EndpointId, LOCAL, Slot, State};
use burst_tests::foreign::{self, Layout};
use burst_tests::golden::{Bed, Entry, key};
use burst_tests::packet::{Frame, flag};
use burst_tests::topology::{
    CLIENT_DEVICE, CLIENT_MAC, DX_DEVICE, EDGE_CLIENT_MAC, FIRST_CLIENT, FIRST_ENDPOINT, Family, PAYMENT, SHOP,
};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{RngAlgorithm, TestError, TestRng, TestRunner};

/// A shop with four endpoints in each family. Two of its slots are used ([`SLOTS`]).
const CONFIG: &str = r#"
version = 1
edge = { name = "edge-a1", client = ["client0"], seed = "schedules", mode = "active" }

[[link]]
name = "dx-1"
device = "dx0"
next_hop = "10.64.0.1"
mtu = 1500

[class.payment]
keep = true
match = [{ dst = ["203.0.113.10", "2001:db8:113::10"], proto = "tcp", ports = [443] }]

[class.promo]
match = [
  { dst = ["203.0.113.20", "2001:db8:113::20"], proto = "tcp", ports = [443] },
  { dst = ["203.0.113.20", "2001:db8:113::20"], proto = "udp", ports = [443] },
]
affinity = "flow"
udp = "quic"
slots = 64
idle_timeout = "4s"
when_full = "local"
local = { capacity = "1k flows/s" }

[[class.promo.tier]]
name = "reserved"
mode = "dnat"
endpoints = [
  "10.20.0.10", "10.20.0.11", "10.20.0.12", "10.20.0.13",
  "fd00:20::10", "fd00:20::11", "fd00:20::12", "fd00:20::13",
]
ports = { 443 = 8443 }
links = ["dx-1"]
capacity = "1k flows/s"
"#;

const IDLE: Duration = Duration::from_secs(4);
const FROM_CLIENT: Entry = Entry { device: CLIENT_DEVICE, role: ROLE_CLIENT, link: 0 };
/// Slots of a family that flows are in; the fewest that a class can have are more, and flows would hardly meet in one.
const SLOTS: u32 = 2;
/// Flows of a family that a schedule can open.
const FLOWS: usize = 48;
/// Pins of a table that has room for all, and of one that is soon full.
const TABLES: [usize; 2] = [FLOWS, 6];
/// `BPF_MAP_TYPE_HASH`.
const HASH: u32 = 1;
/// A lease that never ends.
const FAR: u64 = u64::MAX / 2;
/// `enum xdp_action` (include/uapi/linux/bpf.h).
const DROP: u32 = 1;
const PASS: u32 = 2;
const REDIRECT: u32 = 4;

/// Places by number: 0 is the premises, the others are the endpoints of a family.
type Place = usize;
/// How many.
const PLACES: usize = 5;
/// A set of places, one bit each.
type Places = u8;

/// The small table of pins.
type Pins = HashMap<MapData, [u8; size_of::<PinKey>()], [u8; size_of::<Pin>()]>;

/// A frame, and the context it arrives in.
struct Packet {
    frame: Vec<u8>,
    context: Vec<u8>,
}

/// A flow that can be opened.
struct Client {
    key: PinKey,
    /// Its row among the openers that are remembered.
    row: usize,
    opener: Packet,
    later: Packet,
}

/// What there is of a family.
struct Side {
    family: Family,
    /// The endpoints by place.
    ids: [EndpointId; PLACES],
    /// Addresses of the endpoints, from the first that is none of the premises.
    addresses: Vec<Vec<u8>>,
    clients: Vec<Client>,
    payment: Packet,
    group: Group,
}

/// The bed, and what is read of it.
struct Host {
    bed: Bed,
    pins: Pins,
    openers: Mapped<u64>,
    counts: Mapped<Counter>,
    cpus: usize,
    class: usize,
    sides: [Side; 2],
    /// Pins that the table holds.
    entries: usize,
    /// Pins of nobody, which leave room for no more than are wanted.
    fillers: Vec<PinKey>,
    filled: usize,
    runs: u64,
}

/// What a packet came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Went {
    To(Place),
    /// It was dropped, for its endpoint is waited for.
    Held,
    /// Its endpoint has no link, and it was passed.
    NoLink,
}

impl Host {
    fn new(entries: usize) -> Result<Self> {
        let mut bed = Bed::new(CONFIG)?;
        let maps = bed.pin_dir().join("maps");
        // Nobody uses the map yet but userspace's own view of it, which is not asked here.
        let path = maps.join("PINS");
        std::fs::remove_file(&path).context("unpinning PINS")?;
        let (key, value) = (size_of::<PinKey>() as u32, size_of::<Pin>() as u32);
        foreign::pin_map(Layout { kind: HASH, key, value, entries: entries as u32, flags: 0 }, &path)?;
        bed.instance(FROM_CLIENT)?;
        bed.reach(&[DX_DEVICE])?;
        let cpus = aya::util::nr_cpus().map_err(|(path, error)| anyhow!("{path}: {error}"))?;
        let openers = MapData::from_pin(maps.join("REPEATS"))?;
        let counts = MapData::from_pin(maps.join("COUNTS"))?;
        let sides = [side(&bed, Family::V4)?, side(&bed, Family::V6)?];
        let filler =
            |n| key_of(SocketAddr::new(FIRST_CLIENT.v4.into(), n), SocketAddr::new(PAYMENT.address.v4.into(), 9));
        Ok(Self {
            pins: HashMap::try_from(Map::HashMap(MapData::from_pin(&path)?))?,
            openers: Mapped::new(openers.fd().as_fd(), MAX_REPEATS)?,
            counts: Mapped::new(counts.fd().as_fd(), ROWS * cpus)?,
            cpus,
            class: bed.class("promo"),
            sides,
            entries,
            fillers: (1..=entries as u16).map(filler).collect(),
            filled: 0,
            runs: 0,
            bed,
        })
    }

    /// Runs a frame; the program's answer and the frame as it goes on.
    fn run(&mut self, packet: impl Fn(&Self) -> &Packet) -> Result<(u32, Vec<u8>)> {
        let (frame, context) = (packet(self).frame.clone(), packet(self).context.clone());
        let mut out = vec![0xa5; frame.len() + 64];
        let result = self.bed.instance(FROM_CLIENT)?.program().test_run(TestRunOptions {
            data_in: Some(&frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::new()
        })?;
        self.runs += 1;
        out.truncate(result.data_size_out as usize);
        Ok((result.return_value, out))
    }

    /// A counter of the promotion, over all CPUs.
    fn count(&self, row: usize) -> u64 {
        (0..self.cpus).map(|cpu| self.counts.read(cpu * ROWS + class_row(self.class, row)).packets).sum()
    }

    /// Sends a packet of a flow and says where it went.
    fn packet(&mut self, side: usize, client: usize, opens: bool) -> Result<Went> {
        let lost = self.count(Reason::NoLink.number());
        let (action, out) = self.run(|host| {
            let client = &host.sides[side].clients[client];
            if opens { &client.opener } else { &client.later }
        })?;
        let side = &self.sides[side];
        let client = &side.clients[client];
        let sent = if opens { &client.opener.frame } else { &client.later.frame };
        match action {
            PASS if out == *sent && self.count(Reason::NoLink.number()) > lost => Ok(Went::NoLink),
            PASS if out == *sent => Ok(Went::To(0)),
            DROP => Ok(Went::Held),
            REDIRECT => {
                let at = if side.family == Family::V4 { 30..34 } else { 38..54 };
                let place = side.addresses.iter().position(|address| *address == out[at.clone()]);
                Ok(Went::To(1 + place.with_context(|| format!("redirected to {:?}", &out[at]))?))
            }
            _ => Err(anyhow!("action {action}, {out:?}")),
        }
    }

    /// Every pin but the fillers.
    fn read_pins(&self) -> Result<Vec<(PinKey, Pin)>> {
        let mut pins = Vec::new();
        for row in self.pins.iter() {
            let (key, pin) = row?;
            pins.push((bytemuck::cast::<_, PinKey>(key), bytemuck::cast::<_, Pin>(pin)));
        }
        pins.retain(|(key, _)| key.destination().port() == 443);
        Ok(pins)
    }

    fn unpin(&mut self, key: &PinKey) -> Result<()> {
        Ok(self.pins.remove(&bytemuck::cast(*key))?)
    }

    /// Leaves room for so many pins.
    fn leave_room(&mut self, room: usize) -> Result<()> {
        let wanted = self.entries - room.min(self.entries);
        while self.filled < wanted {
            let pin = Pin { endpoint: LOCAL, class: 0, epoch: 0 };
            self.pins.insert(
                bytemuck::cast::<_, [u8; 40]>(self.fillers[self.filled]),
                bytemuck::cast::<_, [u8; 8]>(pin),
                0,
            )?;
            self.filled += 1;
        }
        while self.filled > wanted {
            self.filled -= 1;
            let key = self.fillers[self.filled];
            self.unpin(&key)?;
        }
        Ok(())
    }

    /// As it was at first.
    fn reset(&mut self, side: usize, opened: usize, room: usize) -> Result<()> {
        for (key, _) in self.read_pins()? {
            self.unpin(&key)?;
        }
        self.leave_room(room)?;
        let (side, maps) = (&self.sides[side], self.bed.maps());
        (0..side.group.slots).for_each(|n| maps.set_slot((side.group.base + n) as usize, Slot::stable(LOCAL)));
        side.clients[..opened].iter().for_each(|client| self.openers.write(client.row, &0));
        side.ids[1..].iter().for_each(|id| maps.set_endpoint_links(*id, self.links(*id)));
        maps.set_admission(self.class as u8, 0);
        maps.set_overflow(self.class as u8, side.group.id.family as u8, &[LOCAL; OVERFLOW_ROWS]);
        maps.set_home(0, 0);
        maps.set_lease(FAR);
        maps.set_epoch(0);
        Ok(())
    }

    /// The word of an endpoint's links while they are up.
    fn links(&self, id: EndpointId) -> u64 {
        let endpoint = self.bed.compiled().endpoints.iter().find(|endpoint| endpoint.id == id);
        endpoint.expect("an endpoint of the configuration").links_word(|_| true)
    }
}

fn key_of(from: SocketAddr, to: SocketAddr) -> PinKey {
    key(from, to, TCP)
}

/// The payload of a QUIC packet (RFC 9000, section 17.2): an Initial of version 1, or one with a short header.
fn quic(initial: bool) -> Vec<u8> {
    let mut payload = if initial { vec![0xc3, 0, 0, 0, 1] } else { vec![0x43, 7, 7, 7, 7] };
    payload.extend([8; 40]);
    payload
}

fn side(bed: &Bed, family: Family) -> Result<Side> {
    let at = |address: burst_tests::topology::Pair, port| SocketAddr::new(address.of(family), port);
    let arrives = |frame: Frame| -> Result<Packet> {
        let frame = frame.macs(CLIENT_MAC, EDGE_CLIENT_MAC).build();
        Ok(Packet { context: bed.context(FROM_CLIENT, frame.len())?, frame })
    };
    let seed = bed.compiled().policy.seed;
    let class = bed.class("promo");
    let row = bed.compiled().policy.classes[class];
    let (base, number) = if family == Family::V4 { (row.base4, 4) } else { (row.base6, 6) };
    let mut rows = BTreeSet::new();
    let mut clients = Vec::new();
    for port in 1024.. {
        let (from, to) = (at(FIRST_CLIENT, port), at(SHOP.address, 443));
        let proto = if port % 3 == 0 { UDP } else { TCP };
        let flow = key(from, to, proto);
        let row = Repeat::row(flow.hash(seed, false)) as usize;
        // An opener that overwrites another's row makes it forgotten: by design, and not what this is about.
        if bed.slot_of("promo", &flow) as u32 >= base + SLOTS || !rows.insert(row) {
            continue;
        }
        let (opener, later) = if proto == TCP {
            (Frame::tcp(from, to, flag::SYN).mss(1300), Frame::tcp(from, to, flag::ACK | flag::PSH).payload(b"more"))
        } else {
            (Frame::udp(from, to).payload(&quic(true)), Frame::udp(from, to).payload(&quic(false)))
        };
        clients.push(Client { key: flow, row, opener: arrives(opener)?, later: arrives(later)? });
        if clients.len() == FLOWS {
            break;
        }
    }
    let endpoints: Vec<IpAddr> = (0..PLACES as u8 - 1).map(|n| FIRST_ENDPOINT.plus(n).of(family)).collect();
    let mut ids = [LOCAL; PLACES];
    for (id, endpoint) in ids[1..].iter_mut().zip(&endpoints) {
        *id = bed.endpoint(&format!("promo/reserved/{endpoint}"));
    }
    let octets = |address: &IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    // The number of a slot is the lowest bits of the hash: of these flows the table finds the same with fewer bits.
    let id = GroupId { class: class as u16, family: number };
    Ok(Side {
        family,
        ids,
        addresses: endpoints.iter().map(octets).collect(),
        clients,
        payment: arrives(Frame::tcp(at(FIRST_CLIENT, 999), at(PAYMENT.address, 443), flag::ACK).payload(b"money"))?,
        group: Group { id, base, slots: SLOTS, by_client: false, idle_timeout: IDLE },
    })
}

/// A flow, as its client sees it.
#[derive(Clone, Copy)]
struct Placed {
    /// Where it is; several, as long as what was seen of it tells no more.
    at: Places,
    /// Its last packet.
    last: Duration,
    /// Nothing but openers were sent so far.
    opening: bool,
}

/// A fault of the controller, by which a test sees the check fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// It stores words instead of swapping them.
    Stores,
}

/// The controller's loop, and what the clients know.
struct Edge<'a> {
    host: &'a mut Host,
    side: usize,
    fault: Fault,
    table: Table,
    overflow: Place,
    /// Places that cannot be reached and are waited for; those that have no link; the dead, which are among the latter.
    held: Places,
    gone: Places,
    dead: Places,
    leads: bool,
    now: Duration,
    epoch: u32,
    /// Refused pins that were asked for.
    refused: u64,
    sweep: Option<Sweep>,
    flows: BTreeMap<usize, Placed>,
    opened: usize,
}

/// A failure of the test itself is one of the schedule.
fn broken(error: anyhow::Error) -> TestCaseError {
    TestCaseError::fail(format!("{error:#}"))
}

impl<'a> Edge<'a> {
    fn new(host: &'a mut Host, six: bool, room: usize, fault: Fault) -> Result<Self> {
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

    fn id(&self, place: Place) -> EndpointId {
        self.host.sides[self.side].ids[place]
    }

    fn group(&self) -> Group {
        self.host.sides[self.side].group
    }

    /// Publishes as the daemon does: by compare-and-swap, and takes over what is there instead.
    fn publish(&mut self, writes: &[Write]) {
        for &Write { index, old, new } in writes {
            let maps = self.host.bed.maps();
            if self.fault == Fault::Stores {
                maps.set_slot(index as usize, new);
            } else if let Err(found) = maps.swap_slot(index as usize, old, new) {
                self.table.learn(self.now, index, found);
            }
        }
    }

    fn reconcile(&mut self) {
        let maps = self.host.bed.maps();
        self.table.reconcile(self.now, |index| maps.slot(index as usize));
    }

    /// Sends a packet of a flow; where it can have gone.
    fn packet(&mut self, client: usize, opens: bool) -> Result<Places, TestCaseError> {
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

    fn open(&mut self) -> Result<(), TestCaseError> {
        if self.opened < FLOWS {
            let client = self.opened;
            self.opened += 1;
            let at = self.packet(client, true)?;
            self.flows.insert(client, Placed { at, last: self.now, opening: true });
        }
        Ok(())
    }

    /// One more packet of a flow; again its opener, if `opens` and nothing else was sent yet.
    fn send(&mut self, client: usize, opens: bool) -> Result<(), TestCaseError> {
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
    fn pay(&mut self) -> Result<(), TestCaseError> {
        let side = self.side;
        let (action, out) = self.host.run(|host| &host.sides[side].payment).map_err(broken)?;
        prop_assert_eq!(action, PASS, "payment");
        prop_assert_eq!(&out, &self.host.sides[side].payment.frame, "payment");
        Ok(())
    }

    /// Time passes in quarters of a second; a flow speaks before it would be idle for too long.
    fn pass(&mut self, quarters: u32) -> Result<(), TestCaseError> {
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
    fn tick(&mut self, between: u8) -> Result<(), TestCaseError> {
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
    fn retarget(&mut self, targets: [Place; 2], between: u8) -> Result<(), TestCaseError> {
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
    fn room(&mut self, room: bool, overflow: Place) {
        self.overflow = if self.dead >> overflow & 1 == 1 { 0 } else { overflow };
        let (class, family) = (self.host.class as u8, self.group().id.family as u8);
        let maps = self.host.bed.maps();
        maps.set_overflow(class, family, &[self.id(self.overflow); OVERFLOW_ROWS]);
        maps.set_admission(class, if room { 0 } else { NONE });
    }

    /// The links of an endpoint: up, down and waited for, or down for good.
    fn line(&mut self, place: Place, line: Line) {
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
    fn die(&mut self, place: Place) {
        if !self.leads || self.dead >> place & 1 == 1 {
            return;
        }
        self.line(place, Line::Gone);
        self.dead |= 1 << place;
        if self.overflow == place {
            let (class, family) = (self.host.class as u8, self.group().id.family as u8);
            self.overflow = 0;
            self.host.bed.maps().set_overflow(class, family, &[LOCAL; OVERFLOW_ROWS]);
        }
        self.reconcile();
        let writes = self.table.bury(self.group().id, self.id(place), &[LOCAL; 2]);
        self.publish(&writes);
    }

    fn sweep(&mut self) -> Result<(), TestCaseError> {
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
    fn lead(&mut self, leads: bool) {
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

    fn event(&mut self, event: &Event) -> Result<(), TestCaseError> {
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
    fn rest(&mut self) -> Result<(), TestCaseError> {
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

/// How an endpoint can be reached.
#[derive(Clone, Copy, Debug)]
enum Line {
    Up,
    Held,
    Gone,
}

/// One event of a schedule.
#[derive(Clone, Debug)]
enum Event {
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

fn event() -> impl Strategy<Value = Event> {
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

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().map_or(otherwise, |text| text.parse().expect("a number"))
}

/// Runs so many schedules; the first that fails, made small.
fn run(hosts: &mut [Host; 2], schedules: u32, seed: u64, fault: Fault) -> Result<(), String> {
    let mut bytes = [1; 16];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = ProptestConfig {
        cases: schedules,
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::XorShift, &bytes));
    let schedule = (prop::collection::vec(event(), 1..120), prop_oneof![Just(FLOWS), 0..TABLES[1]], any::<bool>());
    let hosts = RefCell::new(hosts);
    let result = runner.run(&schedule, |(events, room, six)| {
        let mut hosts = hosts.borrow_mut();
        let host = &mut hosts[usize::from(room < FLOWS)];
        let mut edge = Edge::new(host, six, room, fault).map_err(broken)?;
        events.iter().try_for_each(|event| edge.event(event))?;
        edge.rest()
    });
    result.map_err(|error| match error {
        TestError::Fail(reason, (events, room, six)) => {
            let events: Vec<_> = events.iter().map(|event| format!("  {event:?}")).collect();
            let family = if six { "IPv6" } else { "IPv4" };
            format!("BURST_SEED={seed}: {reason}\n{family}, room for {room} pins:\n{}", events.join("\n"))
        }
        TestError::Abort(reason) => reason.to_string(),
    })
}

/// On a thread that is in the namespace of its first bed: a test run wants the device that its frame arrives on.
fn on_beds<T: Send + 'static>(work: impl FnOnce(&mut [Host; 2]) -> T + Send + 'static) -> JoinHandle<Result<T>> {
    std::thread::spawn(move || {
        let [roomy, small] = TABLES;
        let mut hosts = [Host::new(roomy)?, Host::new(small)?];
        hosts[0].bed.edge().enter()?;
        let [one, other] = hosts.each_ref().map(|host| host.bed.ifindex(CLIENT_DEVICE));
        assert_eq!(one, other, "the device is known by the same index in both namespaces");
        Ok(work(&mut hosts))
    })
}

fn joined<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[test]
fn a_placed_flow_stays_placed() -> Result<()> {
    let (schedules, seed) = (number("BURST_SCHEDULES", 10_000) as u32, number("BURST_SEED", 20_260_101));
    let half = |seed, schedules| {
        on_beds(move |hosts| {
            let result = run(hosts, schedules, seed, Fault::None);
            result.map(|()| hosts.iter().map(|host| host.runs).sum::<u64>())
        })
    };
    let halves = [half(seed, schedules.div_ceil(2)), half(seed + 1, schedules / 2)];
    let mut packets = 0;
    for half in halves {
        packets += joined(half)?.map_err(|text| anyhow!("{text}"))?;
    }
    eprintln!("{schedules} schedules, {packets} packets");
    Ok(())
}

#[test]
fn a_controller_that_stores_instead_of_swapping_is_found_and_the_schedule_is_small() -> Result<()> {
    let text = joined(on_beds(|hosts| run(hosts, 10_000, 1, Fault::Stores)))?.expect_err("it breaks flows");
    eprintln!("{text}");
    assert!(text.lines().count() < 12, "{text}");
    Ok(())
}
