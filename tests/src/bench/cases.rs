//! What is measured of burst's own program: one case per budget, each on the bed of a policy.
//!
//! A case is a golden [`Row`] for its first flow: what is timed is known to be right. Add a case in `Rows::plain` or `Rows::modes`; the
//! budgets are those of the design, in net nanoseconds over a program that does nothing.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result};
use burst_common::flow::wide;
use burst_common::gateway::{Except, Gateway};
use burst_common::link::Link;
use burst_common::policy::{ROLE_CLIENT, ROLE_LINK};
use burst_common::reason::{Note, Reason};
use burst_common::slot::{LOCAL, Slot, State};
use bytemuck::Zeroable as _;

use super::policies::Size::{self, Four, Sixteen, Thousand};
use super::replay::{Shape, Side};
use crate::golden::{Bed, Entry, Leg, Row};
use crate::packet::{Frame, flag, tunnel};
use crate::topology::{
    CLIENT_DEVICE, CLIENT_MAC, DIRECT_CONNECT_MAC, DX_DEVICE, EDGE_CLIENT_MAC, EDGE_DX, EDGE_DX_MAC, FIRST_CLIENT,
    FIRST_ENDPOINT, Family, PAYMENT, Pair, SECOND_DIRECT_CONNECT_MAC, SECOND_DX_DEVICE, SECOND_EDGE_DX_MAC, SHOP,
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
    pub budget: Option<f64>,
    /// Whether it is for the sentinel, on the frame's way out of the entry's device.
    pub sentinel: bool,
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
        for (size, all) in [(Four, false), (Sixteen, false), (Four, true), (Sixteen, true), (Thousand, false)] {
            let mut bed = Bed::new(&size.config(all)).with_context(|| format!("{} prefixes", size.name()))?;
            // The clients' gateway, with a neighbour entry.
            let Pair { v4, v6 } = FIRST_CLIENT;
            bed.edge().ip(&format!(
                "route add {}/16 via {v4}\nroute add {}/112 via {v6} dev {CLIENT_DEVICE}",
                CLIENTS.v4, CLIENTS.v6
            ))?;
            let mut cases = Vec::new();
            for family in Family::ALL {
                for flows in [1, MANY] {
                    let mut rows =
                        Rows { bed: &mut bed, size, family, flows, number: table.beds.len(), cases: &mut cases };
                    if all {
                        rows.modes()?;
                    } else {
                        rows.plain();
                    }
                }
            }
            bed.reach(&[CLIENT_DEVICE, DX_DEVICE, SECOND_DX_DEVICE])?;
            cases.retain(|case| case.name.contains(only));
            if !cases.is_empty() {
                table.cases.append(&mut cases);
                table.beds.push(bed);
            }
        }
        Ok(table)
    }
}

/// The cases of a policy, a family and a number of flows, in the making.
struct Rows<'a> {
    bed: &'a mut Bed,
    size: Size,
    family: Family,
    flows: u32,
    /// Number of the bed.
    number: usize,
    cases: &'a mut Vec<Case>,
}

impl Rows<'_> {
    /// Adds a case. Over many flows it may cost 3 more, and in IPv6 1.3 times as much.
    fn add(&mut self, what: &str, (entry, side): (Entry, Side), row: Row, budget: Option<f64>, prepare: Prepare) {
        let many = if self.flows > 1 && what != "pin-hit" { 3.0 } else { 0.0 };
        let (family, times) = if self.family == Family::V4 { ("v4", 1.0) } else { ("v6", 1.3) };
        let flows = if self.flows > 1 { "64k" } else { "1" };
        self.cases.push(Case {
            name: format!("{what}/{}/{family}/{flows}", self.size.name()),
            bed: self.number,
            entry,
            shape: Shape { frame: row.frame.clone(), flows: self.flows, side },
            row,
            budget: budget.map(|budget| (budget + many) * times),
            sentinel: what == "sentinel",
            // Flows are pinned, and openers known, before they are measured.
            settles: what == "pin-hit" || what.starts_with("opener"),
            prepare,
        });
    }

    /// The budget of four, sixteen and a thousand prefixes.
    const fn budget(&self, four: f64, sixteen: f64, thousand: f64) -> Option<f64> {
        Some(match self.size {
            Four => four,
            Sixteen => sixteen,
            Thousand => thousand,
        })
    }

    const fn client(&self) -> SocketAddr {
        SocketAddr::new(CLIENTS.of(self.family), 40_000)
    }

    const fn at(&self, address: Pair, port: u16) -> SocketAddr {
        SocketAddr::new(address.of(self.family), port)
    }

    /// A client's packet to the shop.
    fn shopping(&self, flags: u8) -> Frame {
        let packet = Frame::tcp(self.client(), self.at(SHOP.address, 443), flags);
        // Whoever opens a connection says how large its segments may be; what fits every link stays as it is.
        if flags & flag::SYN == 0 { packet } else { packet.mss(if self.family == Family::V4 { 1460 } else { 1440 }) }
    }

    /// What a tier's packets are counted under, and what puts all of the shop's there.
    fn leg(&self, tier: &str, endpoint: u8, link: &str) -> (Leg, Prepare) {
        let address = FIRST_ENDPOINT.plus(endpoint).of(self.family);
        let id = self.bed.endpoint(&format!("promo/{tier}/{address}"));
        let leg = Leg { class: self.bed.class("promo"), endpoint: Some(id), link: Some(self.bed.link(link)) };
        (leg, fill("promo", Slot::stable(id)))
    }

    /// The cases of a policy with `dnat` and `nexthop`.
    fn plain(&mut self) {
        let promo = self.bed.class("promo");
        let client = self.client();
        let packet = arriving(Frame::tcp(client, self.at(OTHER, 443), flag::ACK));
        let row = Row::passes("not ours", packet, 0, Reason::NoMatch);
        self.add("not-ours", IN, row, self.budget(9.0, 15.0, 50.0), none());

        let (leg, shifted) = self.leg("reserved", 0, "dx-1");
        let dnat = |rows: &Self, flags| {
            let mut out = Frame::tcp(client, rows.at(FIRST_ENDPOINT, RENAMED), flags);
            if flags & flag::SYN != 0 {
                out = out.mss(if rows.family == Family::V4 { 1460 } else { 1440 });
            }
            Row::leaves("dnat", arriving(rows.shopping(flags)), DX_DEVICE, leg, leaving(out))
        };
        self.add("dnat", IN, dnat(self, flag::ACK), self.budget(30.0, 36.0, 90.0), shifted);
        if self.size == Thousand {
            return;
        }

        let packet = arriving(Frame::tcp(client, self.at(PAYMENT.address, 443), flag::ACK));
        let row = Row::passes("payment", packet, self.bed.class("payment"), Reason::Keep);
        self.add("payment", IN, row, self.budget(12.0, 20.0, 0.0), none());

        let stays = || fill("promo", Slot::stable(LOCAL));
        let local = |rows: &Self, flags| Row::passes("local", arriving(rows.shopping(flags)), promo, Reason::Local);
        self.add("local", IN, local(self, flag::ACK), self.budget(14.0, 22.0, 0.0), stays());

        let flat = self.bed.endpoint("news/flat");
        let packet = Frame::tcp(client, self.at(NEWS, 443), flag::ACK);
        let way = Leg { class: self.bed.class("news"), endpoint: Some(flat), link: Some(self.bed.link("dx-1")) };
        let row = Row::leaves("nexthop", arriving(packet.clone()), DX_DEVICE, way, leaving(packet));
        self.add("nexthop", IN, row, self.budget(28.0, 34.0, 0.0), fill("news", Slot::stable(flat)));

        // An opener may cost 20 more. After the first round every one repeats another: it asks all that a new one asks but for room.
        let known = |row: Row| row.notes(promo, Note::Repeated);
        let (_, shifted) = self.leg("reserved", 0, "dx-1");
        self.add("opener-dnat", IN, known(dnat(self, flag::SYN)), self.budget(50.0, 56.0, 0.0), shifted);
        self.add("opener-local", IN, known(local(self, flag::SYN)), self.budget(34.0, 42.0, 0.0), stays());
        if self.size == Sixteen {
            return;
        }

        let endpoint = leg.endpoint.unwrap_or(LOCAL);
        let moving = fill("promo", Slot::new(endpoint, endpoint, State::Transition, 1));
        let allowed = if self.flows > 1 { 90.0 } else { 60.0 };
        self.add("pin-hit", IN, dnat(self, flag::ACK).notes(promo, Note::PinHit), Some(allowed), moving);

        let packet = replying(Frame::tcp(self.at(FIRST_ENDPOINT, RENAMED), client, flag::ACK));
        let out = homeward(Frame::tcp(self.at(SHOP.address, 443), client, flag::ACK));
        let row = || Row::returns("return", packet.clone(), CLIENT_DEVICE, leg, out.clone());
        let family = if self.family == Family::V4 { 4 } else { 6 };
        let gateway = self.gateway();
        self.add("return-fib", BACK, row(), Some(125.0), Box::new(move |bed| bed.maps().set_gateway(family, None)));
        let cached: Prepare = Box::new(move |bed| bed.maps().set_gateway(family, Some(&gateway)));
        self.add("return", BACK, row(), Some(35.0), cached);

        // What burst sends, on its way out. The sentinel counts nothing of what may leave.
        let frame = leaving(Frame::tcp(client, self.at(FIRST_ENDPOINT, RENAMED), flag::ACK));
        let mut row = Row::passes("sentinel", frame, 0, Reason::NoMatch);
        row.moved.clear();
        self.add("sentinel", (FROM_DX, Side::Source), row, None, none());
    }

    /// The clients' gateway, with two nets that are not behind it.
    fn gateway(&self) -> Gateway {
        let nets = match self.family {
            Family::V4 => [("203.0.113.0", "255.255.255.0"), ("198.51.100.0", "255.255.255.0")],
            Family::V6 => [("2001:db8:113::", "ffff:ffff:ffff:ffff::"), ("2001:db8:51::", "ffff:ffff:ffff:ffff::")],
        };
        let address = |text: &str| wide(text.parse().expect("an address"));
        let mut gateway = Gateway {
            macs: Link::macs(CLIENT_MAC, EDGE_CLIENT_MAC),
            ifindex: self.bed.ifindex(CLIENT_DEVICE),
            mtu: 1500,
            exceptions: 2,
            ..Gateway::zeroed()
        };
        for (row, (addr, mask)) in gateway.except.iter_mut().zip(nets) {
            *row = Except { addr: address(addr), mask: address(mask) };
        }
        gateway
    }

    /// The cases of the other modes, and of a link on a VLAN.
    fn modes(&mut self) -> Result<()> {
        let frame = arriving(self.shopping(flag::ACK));
        let inner = leaving(self.shopping(flag::ACK));
        let edge = EDGE_DX.of(self.family);
        for (mode, number) in [("gue", 2), ("ipip", 3)] {
            let endpoint = FIRST_ENDPOINT.plus(number).of(self.family);
            let (leg, shifted) = self.leg(mode, number, "dx-1");
            let outer = if mode == "gue" {
                // The source port is anything that the flow's packets have in common.
                shifted(self.bed);
                let sent = self.bed.run(FROM_CLIENT, &frame, &[DX_DEVICE])?.frame;
                let at = if self.family == Family::V4 { 34 } else { 54 };
                let port = u16::from_be_bytes([sent[at], sent[at + 1]]);
                tunnel::gue(SocketAddr::new(edge, port), endpoint, &inner)
            } else {
                tunnel::ipip(edge, endpoint, &inner)
            };
            let out = outer.ttl(64).macs(EDGE_DX_MAC, DIRECT_CONNECT_MAC).build();
            let row = Row::leaves(mode, frame.clone(), DX_DEVICE, leg, out);
            self.add(mode, IN, row, self.budget(42.0, 48.0, 0.0), shifted);
        }
        let (leg, shifted) = self.leg("tagged", 4, "dx-2");
        let out = Frame::tcp(self.client(), self.at(FIRST_ENDPOINT.plus(4), RENAMED), flag::ACK);
        let out = filled(out.macs(SECOND_EDGE_DX_MAC, SECOND_DIRECT_CONNECT_MAC).ttl(63));
        let tag = [0x81, 0x00, 0x00, 101];
        let out = [&out[..12], &tag, &out[12..]].concat();
        let row = Row::leaves("tagged", frame, SECOND_DX_DEVICE, leg, out);
        self.add("dnat-vlan", IN, row, None, shifted);
        Ok(())
    }
}

/// Client traffic, many clients.
const IN: (Entry, Side) = (FROM_CLIENT, Side::Source);
/// Replies to many clients.
const BACK: (Entry, Side) = (FROM_DX, Side::Destination);

fn none() -> Prepare {
    Box::new(|_| {})
}

fn fill(class: &'static str, slot: Slot) -> Prepare {
    Box::new(move |bed| bed.fill(class, slot))
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
