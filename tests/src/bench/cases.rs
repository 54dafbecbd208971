//! What is measured of burst's own program: one case per budget, each on the bed of a policy.
//!
//! A case is a golden [`Row`] for its first flow: what is timed is known to be right. Add a case in `Table::policy`; the
//! budgets are those of the design, in net nanoseconds over a program that does nothing.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result};
use burst_common::policy::{ROLE_CLIENT, ROLE_LINK};
use burst_common::reason::{Note, Reason};
use burst_common::slot::{LOCAL, Slot, State};

use super::replay::{Shape, Side};
use crate::golden::{Bed, Entry, Leg, Row};
use crate::packet::{Frame, flag};
use crate::topology::{
    CLIENT_DEVICE, CLIENT_MAC, DIRECT_CONNECT_MAC, DX_DEVICE, EDGE_CLIENT_MAC, EDGE_DX_MAC, FIRST_CLIENT,
    FIRST_ENDPOINT, Family, PAYMENT, Pair, SHOP,
};

/// Client traffic.
pub(super) const FROM_CLIENT: Entry = Entry { device: CLIENT_DEVICE, role: ROLE_CLIENT, link: 0 };
/// The line.
const FROM_DX: Entry = Entry { device: DX_DEVICE, role: ROLE_LINK, link: 1 };
/// Clients of the benchmark, 65,536 of each family from this address on (RFC 2544, appendix C.2.2; RFC 5180, section 8).
const CLIENTS: Pair = Pair { v4: Ipv4Addr::new(198, 18, 0, 0), v6: Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 0) };
/// The news' address.
const NEWS: Pair =
    Pair { v4: Ipv4Addr::new(203, 0, 113, 30), v6: Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0x30) };
/// An address that no rule names.
const OTHER: Pair =
    Pair { v4: Ipv4Addr::new(203, 0, 113, 77), v6: Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0x77) };
/// What the tier makes of the shop's port 443.
const RENAMED: u16 = 8443;
/// Length of every frame.
const LENGTH: usize = 128;
/// Flows where there are many.
pub(super) const MANY: u32 = 1 << 16;

/// How many prefixes of each family a policy has, in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    /// Three destinations and a source.
    Four,
    /// Twelve and four: as many as are matched inline.
    Sixteen,
    /// A thousand, matched through maps.
    Thousand,
}

impl Size {
    const fn name(self) -> &'static str {
        match self {
            Self::Four => "4",
            Self::Sixteen => "16",
            Self::Thousand => "1000",
        }
    }

    /// Prefixes more than [`Self::Four`] has: payment's and the news' destinations, payment's sources.
    const fn more(self) -> (u32, u32, u32) {
        match self {
            Self::Four => (0, 0, 0),
            Self::Sixteen => (4, 5, 3),
            Self::Thousand => (400, 590, 6),
        }
    }

    /// Payment by address and by source, a shop that is moved by `dnat`, news that are moved by `nexthop`.
    fn config(self) -> String {
        let (payment, news, cards) = self.more();
        let hosts = |net: u32, count: u32| {
            let address = |n: u32| format!(", \"10.{net}.{}.{}\", \"fd00:{net}::{:x}\"", n / 250, n % 250 + 1, n + 1);
            (0..count).map(address).collect::<String>()
        };
        let cards: String = (0..cards).map(|n| format!(", \"10.102.{n}.0/24\", \"fd00:102:{n:x}::/48\"")).collect();
        format!(
            r#"
version = 1
edge = {{ name = "edge-a1", client = ["client0"], seed = "bench", mode = "active" }}

[[link]]
name = "dx-1"
device = "dx0"
next_hop = "10.64.0.1"
mtu = 1500

[class.payment]
keep = true
match = [
  {{ dst = ["203.0.113.10", "2001:db8:113::10"{}], proto = "tcp", ports = [443, "8440-8449"] }},
  {{ src = ["192.0.2.128/25", "2001:db8:ca::/48"{cards}] }},
]

[class.promo]
match = [{{ dst = ["203.0.113.20", "2001:db8:113::20"], proto = "tcp", ports = [80, 443] }}]
affinity = "flow"
slots = 4096
when_full = "local"
local = {{ capacity = "1k flows/s" }}

[[class.promo.tier]]
name = "reserved"
mode = "dnat"
endpoints = ["10.20.0.10", "fd00:20::10"]
ports = {{ 80 = 8080, 443 = 8443 }}
links = ["dx-1"]
capacity = "1k flows/s"

[class.news]
match = [{{ dst = ["203.0.113.30", "2001:db8:113::30"{}], proto = "tcp", ports = [443] }}]
affinity = "flow"
slots = 4096
when_full = "local"
local = {{ capacity = "1k flows/s" }}

[[class.news.tier]]
name = "flat"
mode = "nexthop"
links = ["dx-1"]
capacity = "1k flows/s"
"#,
            hosts(100, payment),
            hosts(101, news),
        )
    }
}

/// The policies: number of prefixes, and configuration.
#[must_use]
pub fn policies() -> [(&'static str, String); 3] {
    [Size::Four, Size::Sixteen, Size::Thousand].map(|size| (size.name(), size.config()))
}

/// The policy of what goes over a wire.
pub(super) fn small_policy() -> String {
    Size::Four.config()
}

/// Where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum To {
    /// The shop: `dnat`.
    Promo,
    /// The news: `nexthop`.
    News,
    /// An address that no rule names.
    Other,
}

impl To {
    /// The class of its packets, if they have one.
    pub(super) const fn class(self) -> Option<&'static str> {
        match self {
            Self::Promo => Some("promo"),
            Self::News => Some("news"),
            Self::Other => None,
        }
    }

    /// The first client's packet, in IPv4.
    pub(super) fn frame(self) -> Vec<u8> {
        let address = match self {
            Self::Promo => SHOP.address,
            Self::News => NEWS,
            Self::Other => OTHER,
        };
        arriving(Frame::tcp((CLIENTS.v4, 40_000), (address.v4, 443), flag::ACK))
    }
}

/// What a case needs of its bed's maps before it runs.
type Prepare = Box<dyn Fn(&Bed) + Send>;

/// A packet, where it enters, what comes of it, and what it may cost.
pub struct Case {
    /// What, number of prefixes, family, number of flows: `dnat/4/v4/64k`.
    pub name: String,
    /// Number of its bed.
    pub bed: usize,
    /// Where it enters.
    pub entry: Entry,
    /// What comes of the first flow's packet.
    pub row: Row,
    /// How it varies.
    pub shape: Shape,
    /// Net nanoseconds it may cost.
    pub budget: f64,
    /// Whether flows leave something behind at their first packet that makes their second another case.
    pub settles: bool,
    prepare: Prepare,
}

impl Case {
    /// Puts into the maps what the case needs there.
    pub fn prepare(&self, bed: &Bed) {
        (self.prepare)(bed);
    }
}

/// All cases and their beds.
pub struct Table {
    /// One edge host per policy.
    pub beds: Vec<Bed>,
    /// The cases.
    pub cases: Vec<Case>,
}

impl Table {
    /// All cases whose name has `only` in it.
    ///
    /// # Errors
    /// When a bed cannot be made.
    pub fn new(only: &str) -> Result<Self> {
        let mut table = Self { beds: Vec::new(), cases: Vec::new() };
        for size in [Size::Four, Size::Sixteen, Size::Thousand] {
            let mut bed = Bed::new(&size.config()).with_context(|| format!("{} prefixes", size.name()))?;
            bed.reach(&[CLIENT_DEVICE, DX_DEVICE])?;
            // The clients' gateway, with a neighbour entry.
            let Pair { v4, v6 } = FIRST_CLIENT;
            bed.edge().ip(&format!(
                "route add {}/16 via {v4}\nroute add {}/112 via {v6} dev {CLIENT_DEVICE}",
                CLIENTS.v4, CLIENTS.v6
            ))?;
            let before = table.cases.len();
            for family in Family::ALL {
                for flows in [1, MANY] {
                    table.policy(&bed, size, family, flows);
                }
            }
            let kept = table.cases.split_off(before).into_iter().filter(|case| case.name.contains(only));
            table.cases.extend(kept);
            if table.cases.len() > before {
                table.beds.push(bed);
            }
        }
        Ok(table)
    }

    /// The cases of a policy, a family and a number of flows.
    fn policy(&mut self, bed: &Bed, size: Size, family: Family, flows: u32) {
        let number = self.beds.len();
        let cases = &mut self.cases;
        let mut add = |what: &str, entry: Entry, side, row: Row, budget: f64, prepare: Prepare| {
            // The design: 3 more over 64 k flows, and 1.3 times as much in IPv6.
            let many = if flows > 1 && what != "pin-hit" { 3.0 } else { 0.0 };
            cases.push(Case {
                name: format!(
                    "{what}/{}/{}/{}",
                    size.name(),
                    if family == Family::V4 { "v4" } else { "v6" },
                    if flows > 1 { "64k" } else { "1" }
                ),
                bed: number,
                entry,
                shape: Shape { frame: row.frame.clone(), flows, side },
                row,
                budget: (budget + many) * if family == Family::V4 { 1.0 } else { 1.3 },
                settles: what == "pin-hit",
                prepare,
            });
        };
        // Budgets of four, sixteen and a thousand prefixes.
        let budget = |four, sixteen, thousand| match size {
            Size::Four => four,
            Size::Sixteen => sixteen,
            Size::Thousand => thousand,
        };
        let client = SocketAddr::new(CLIENTS.of(family), 40_000);
        let at = |address: Pair, port| SocketAddr::new(address.of(family), port);
        let none = || -> Prepare { Box::new(|_| {}) };
        let fill = |class: &'static str, slot| -> Prepare { Box::new(move |bed| bed.fill(class, slot)) };

        let packet = arriving(Frame::tcp(client, at(OTHER, 443), flag::ACK));
        let row = Row::passes("not ours", packet, 0, Reason::NoMatch);
        add("not-ours", FROM_CLIENT, Side::Source, row, budget(9.0, 15.0, 50.0), none());

        let promo = bed.class("promo");
        let endpoint = bed.endpoint(&format!("promo/reserved/{}", FIRST_ENDPOINT.of(family)));
        let leg = Leg { class: promo, endpoint: Some(endpoint), link: Some(bed.link("dx-1")) };
        let dnat = |flags| {
            let packet = arriving(Frame::tcp(client, at(SHOP.address, 443), flags));
            let out = leaving(Frame::tcp(client, at(FIRST_ENDPOINT, RENAMED), flags));
            Row::leaves("dnat", packet, DX_DEVICE, leg, out)
        };
        let shifted = || fill("promo", Slot::stable(endpoint));
        add("dnat", FROM_CLIENT, Side::Source, dnat(flag::ACK), budget(30.0, 36.0, 90.0), shifted());
        if size == Size::Thousand {
            return;
        }

        let packet = arriving(Frame::tcp(client, at(PAYMENT.address, 443), flag::ACK));
        let row = Row::passes("payment", packet, bed.class("payment"), Reason::Keep);
        add("payment", FROM_CLIENT, Side::Source, row, budget(12.0, 20.0, 0.0), none());

        let local = |flags| {
            let packet = arriving(Frame::tcp(client, at(SHOP.address, 443), flags));
            Row::passes("local", packet, promo, Reason::Local)
        };
        let stays = || fill("promo", Slot::stable(LOCAL));
        add("local", FROM_CLIENT, Side::Source, local(flag::ACK), budget(14.0, 22.0, 0.0), stays());

        let flat = bed.endpoint("news/flat");
        let packet = || Frame::tcp(client, at(NEWS, 443), flag::ACK);
        let leg = Leg { class: bed.class("news"), endpoint: Some(flat), link: Some(bed.link("dx-1")) };
        let row = Row::leaves("nexthop", arriving(packet()), DX_DEVICE, leg, leaving(packet()));
        add("nexthop", FROM_CLIENT, Side::Source, row, budget(28.0, 34.0, 0.0), fill("news", Slot::stable(flat)));

        // An opener may cost 20 more.
        add("opener-dnat", FROM_CLIENT, Side::Source, dnat(flag::SYN).opens(), budget(50.0, 56.0, 0.0), shifted());
        add("opener-local", FROM_CLIENT, Side::Source, local(flag::SYN).opens(), budget(34.0, 42.0, 0.0), stays());

        if size == Size::Sixteen {
            return;
        }
        let moving = Slot::new(endpoint, endpoint, State::Transition, 1);
        let pinned = dnat(flag::ACK).notes(promo, Note::PinHit);
        let allowed = if flows > 1 { 90.0 } else { 60.0 };
        add("pin-hit", FROM_CLIENT, Side::Source, pinned, allowed, fill("promo", moving));

        let leg = Leg { class: promo, endpoint: Some(endpoint), link: Some(bed.link("dx-1")) };
        let packet = replying(Frame::tcp(at(FIRST_ENDPOINT, RENAMED), client, flag::ACK));
        let out = homeward(Frame::tcp(at(SHOP.address, 443), client, flag::ACK));
        let row = Row::returns("return", packet, CLIENT_DEVICE, leg, out);
        add("return-fib", FROM_DX, Side::Destination, row, 125.0, none());
    }
}

/// Fills a frame up to the length that all have.
fn filled(frame: Frame) -> Vec<u8> {
    let headers = frame.build().len();
    frame.payload(&vec![0x2a; LENGTH - headers]).build()
}

/// As it comes from a client.
fn arriving(frame: Frame) -> Vec<u8> {
    filled(frame.macs(CLIENT_MAC, EDGE_CLIENT_MAC))
}

/// As it leaves on the line, one hop on.
fn leaving(frame: Frame) -> Vec<u8> {
    filled(frame.macs(EDGE_DX_MAC, DIRECT_CONNECT_MAC).ttl(63))
}

/// As it comes from the line.
fn replying(frame: Frame) -> Vec<u8> {
    filled(frame.macs(DIRECT_CONNECT_MAC, EDGE_DX_MAC))
}

/// As it goes to the clients' gateway, one hop on.
fn homeward(frame: Frame) -> Vec<u8> {
    filled(frame.macs(EDGE_CLIENT_MAC, CLIENT_MAC).ttl(63))
}
