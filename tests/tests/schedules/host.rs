//! The edge host: a bed with a table of pins that can be full, what a flow of a family consists of, and what came of a packet. It
//! judges nothing.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use aya::maps::{HashMap, Map, MapData};
use aya::programs::{TestRun, TestRunOptions};
use burst::kernel::Mapped;
use burst::slots::{Group, GroupId};
use burst_common::counter::{Counter, ROWS, class_row};
use burst_common::flow::{TCP, UDP};
use burst_common::limits::{MAX_REPEATS, OVERFLOW_ROWS};
use burst_common::pin::{Pin, PinKey};
use burst_common::policy::ROLE_CLIENT;
use burst_common::reason::Reason;
use burst_common::repeat::Repeat;
use burst_common::slot::{EndpointId, LOCAL, Slot};
use burst_tests::foreign::{self, Layout};
use burst_tests::golden::{Bed, Entry, key};
use burst_tests::packet::{Frame, flag};
use burst_tests::topology::{
    CLIENT_DEVICE, CLIENT_MAC, DX_DEVICE, EDGE_CLIENT_MAC, FIRST_CLIENT, FIRST_ENDPOINT, Family, PAYMENT, Pair, SHOP,
};

/// A shop with four endpoints in each family. Two of its slots are used ([`SLOTS`]).
pub(crate) const CONFIG: &str = r#"
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

pub(crate) const IDLE: Duration = Duration::from_secs(4);
pub(crate) const FROM_CLIENT: Entry = Entry { device: CLIENT_DEVICE, role: ROLE_CLIENT, link: 0 };
/// Slots of a family that flows are in; the fewest that a class can have are more, and flows would hardly meet in one.
pub(crate) const SLOTS: u32 = 2;
/// Flows of a family that a schedule can open.
pub(crate) const FLOWS: usize = 48;
/// Pins of a table that has room for all, and of one that is soon full.
pub(crate) const TABLES: [usize; 2] = [FLOWS, 6];
/// `BPF_MAP_TYPE_HASH`.
pub(crate) const HASH: u32 = 1;
/// A lease that never ends.
pub(crate) const FAR: u64 = u64::MAX / 2;
/// `enum xdp_action` (include/uapi/linux/bpf.h).
pub(crate) const DROP: u32 = 1;
pub(crate) const PASS: u32 = 2;
pub(crate) const REDIRECT: u32 = 4;

/// Places by number: 0 is the premises, the others are the endpoints of a family.
pub(crate) type Place = usize;
/// How many.
pub(crate) const PLACES: usize = 5;
/// A set of places, one bit each.
pub(crate) type Places = u8;

/// The small table of pins.
pub(crate) type Pins = HashMap<MapData, [u8; size_of::<PinKey>()], [u8; size_of::<Pin>()]>;

/// A frame, and the context it arrives in.
pub(crate) struct Packet {
    pub(crate) frame: Vec<u8>,
    pub(crate) context: Vec<u8>,
}

/// A flow that can be opened.
pub(crate) struct Client {
    pub(crate) key: PinKey,
    /// Its row among the openers that are remembered.
    pub(crate) row: usize,
    pub(crate) opener: Packet,
    pub(crate) later: Packet,
}

/// What there is of a family.
pub(crate) struct Side {
    pub(crate) family: Family,
    /// The endpoints by place.
    pub(crate) ids: [EndpointId; PLACES],
    /// Addresses of the endpoints, from the first that is none of the premises.
    pub(crate) addresses: Vec<Vec<u8>>,
    pub(crate) clients: Vec<Client>,
    pub(crate) payment: Packet,
    pub(crate) group: Group,
}

/// The bed, and what is read of it.
pub(crate) struct Host {
    pub(crate) bed: Bed,
    pub(crate) pins: Pins,
    pub(crate) openers: Mapped<u64>,
    pub(crate) counts: Mapped<Counter>,
    pub(crate) cpus: usize,
    pub(crate) class: usize,
    pub(crate) sides: [Side; 2],
    /// Pins that the table holds.
    pub(crate) entries: usize,
    /// Pins of nobody, which leave room for no more than are wanted.
    pub(crate) fillers: Vec<PinKey>,
    pub(crate) filled: usize,
    pub(crate) runs: u64,
}

/// What a packet came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Went {
    To(Place),
    /// It was dropped, for its endpoint is waited for.
    Held,
    /// Its endpoint has no link, and it was passed.
    NoLink,
}

impl Host {
    pub(crate) fn new(entries: usize) -> Result<Self> {
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
    pub(crate) fn run(&mut self, packet: impl Fn(&Self) -> &Packet) -> Result<(u32, Vec<u8>)> {
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
    pub(crate) fn count(&self, row: usize) -> u64 {
        (0..self.cpus).map(|cpu| self.counts.read(cpu * ROWS + class_row(self.class, row)).packets).sum()
    }

    /// Sends a packet of a flow and says where it went.
    pub(crate) fn packet(&mut self, side: usize, client: usize, opens: bool) -> Result<Went> {
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
    pub(crate) fn read_pins(&self) -> Result<Vec<(PinKey, Pin)>> {
        let mut pins = Vec::new();
        for row in self.pins.iter() {
            let (key, pin) = row?;
            pins.push((bytemuck::cast::<_, PinKey>(key), bytemuck::cast::<_, Pin>(pin)));
        }
        pins.retain(|(key, _)| key.destination().port() == 443);
        Ok(pins)
    }

    pub(crate) fn unpin(&mut self, key: &PinKey) -> Result<()> {
        Ok(self.pins.remove(&bytemuck::cast(*key))?)
    }

    /// Leaves room for so many pins.
    pub(crate) fn leave_room(&mut self, room: usize) -> Result<()> {
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
    pub(crate) fn reset(&mut self, side: usize, opened: usize, room: usize) -> Result<()> {
        for (key, _) in self.read_pins()? {
            self.unpin(&key)?;
        }
        self.leave_room(room)?;
        let (side, maps) = (&self.sides[side], self.bed.maps());
        (0..side.group.slots).for_each(|n| maps.set_slot((side.group.base + n) as usize, Slot::stable(LOCAL)));
        side.clients[..opened].iter().for_each(|client| self.openers.write(client.row, &0));
        side.ids[1..].iter().for_each(|id| maps.set_endpoint_links(*id, self.links(*id)));
        maps.set_admission(self.class as u8, 0);
        maps.set_overflow(self.class as u8, side.group.id.family, &[LOCAL; OVERFLOW_ROWS]);
        maps.set_home(0, 0);
        maps.set_lease(FAR);
        maps.set_epoch(0);
        Ok(())
    }

    /// The word of an endpoint's links while they are up.
    pub(crate) fn links(&self, id: EndpointId) -> u64 {
        let endpoint = self.bed.compiled().endpoints.iter().find(|endpoint| endpoint.id == id);
        endpoint.expect("an endpoint of the configuration").links_word(|_| true)
    }
}

pub(crate) fn key_of(from: SocketAddr, to: SocketAddr) -> PinKey {
    key(from, to, TCP)
}

/// The payload of a QUIC packet (RFC 9000, section 17.2): an Initial of version 1, or one with a short header.
pub(crate) fn quic(initial: bool) -> Vec<u8> {
    let mut payload = if initial { vec![0xc3, 0, 0, 0, 1] } else { vec![0x43, 7, 7, 7, 7] };
    payload.extend([8; 40]);
    payload
}

pub(crate) fn side(bed: &Bed, family: Family) -> Result<Side> {
    let at = |address: Pair, port| SocketAddr::new(address.of(family), port);
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
