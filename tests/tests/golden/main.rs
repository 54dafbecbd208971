//! Golden packets: rows of frames through the real program, with every byte that comes out and every counter that
//! moves. What is expected is built here from addresses and ports, never by the data plane's own code.
//!
//! One configuration for all rows ([`CONFIG`]), once as it stands and once made large, so that the same rows prove both
//! ways of matching. Rows about frames on the wire are elsewhere: nothing is attached here.

mod bits;
mod extremes;
mod forward;
mod gateway;
mod icmp;
mod kernel_link;
mod kernel_return;
mod layers;
mod links;
mod malformed;
mod many_rules;
mod mss;
mod one_arm;
mod openers;
mod options;
mod pins;
mod replies;
mod replies_kernel;
mod sentinel;
mod slots;
mod tags;
mod tunnels;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Result;
use burst_common::flow::{TCP, UDP};
use burst_common::policy::{ROLE_CLIENT, ROLE_LINK};
use burst_common::slot::Slot;
use burst_tests::golden::{Bed, Entry, Leg};
use burst_tests::packet::{Frame, flag};
use burst_tests::topology::{
    CLIENT_DEVICE, CLIENT_MAC, DIRECT_CONNECT_MAC, DX_DEVICE, EDGE_CLIENT_MAC, EDGE_DX_MAC, FIRST_CLIENT,
    FIRST_ENDPOINT, Family, PAYMENT, Pair, SECOND_DIRECT_CONNECT_MAC, SECOND_EDGE_DX_MAC, SHOP,
};

/// Payment, a shop that is moved by `dnat`, and news that are moved by `nexthop`. Both keep the sources of the card
/// networks and a part of the shop's ports.
const CONFIG: &str = r#"
version = 1
edge = { name = "edge-a1", client = ["client0"], seed = "golden", mode = "active" }

[[link]]
name = "dx-1"
device = "dx0"
next_hop = "10.64.0.1"
mtu = 1500

[[link]]
name = "dx-2"
device = "dx1"
next_hop = "10.64.1.1"
mtu = 1400

[class.payment]
keep = true
match = [
  { dst = ["203.0.113.10", "2001:db8:113::10"], proto = "tcp", ports = [443] },
  { src = ["192.0.2.128/25", "2001:db8:ca::/48"] },
  { dst = ["203.0.113.20", "2001:db8:113::20"], proto = "tcp", ports = ["8840-8849"] },
]

[class.promo]
match = [
  { dst = ["203.0.113.20", "2001:db8:113::20"], proto = "tcp", ports = [80, 443, "8840-8860"] },
  { dst = ["203.0.113.20", "2001:db8:113::20"], proto = "udp", ports = [80, 443, "8850-8859"] },
]
affinity = "flow"
slots = 64
when_full = "local"
local = { capacity = "1k flows/s" }

[[class.promo.tier]]
name = "reserved"
mode = "dnat"
endpoints = ["10.20.0.10", "fd00:20::10"]
ports = { 80 = 8080, 443 = 8443 }
links = ["dx-1"]
capacity = "1k flows/s"

[[class.promo.tier]]
name = "elastic"
mode = "dnat"
endpoints = ["10.20.0.11", "fd00:20::11"]
ports = { 80 = 8080, 443 = 8443 }
links = ["dx-1", "dx-2"]
capacity = "1k flows/s"

[class.news]
match = [
  { dst = ["203.0.113.30", "2001:db8:113::33"], proto = "tcp", ports = [443] },
  { dst = ["203.0.113.30", "2001:db8:113::33"], proto = "udp", ports = [443] },
]
affinity = "client"
slots = 64
when_full = "local"
local = { capacity = "1k flows/s" }

[[class.news.tier]]
name = "flat"
mode = "nexthop"
links = ["dx-1"]
capacity = "1k flows/s"
"#;

/// The news' address.
const NEWS: Pair =
    Pair { v4: Ipv4Addr::new(203, 0, 113, 30), v6: Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0x33) };
/// A port of the shop that no tier renames.
const PLAIN_PORT: u16 = 8855;
/// What every `dnat` tier makes of the shop's port 443.
const RENAMED: u16 = 8443;

/// Client traffic.
const FROM_CLIENT: Entry = Entry { device: CLIENT_DEVICE, role: ROLE_CLIENT, link: 0 };
/// The first line.
const FROM_DX: Entry = Entry { device: DX_DEVICE, role: ROLE_LINK, link: 1 };

/// The host of [`CONFIG`].
fn bed() -> Result<Bed> {
    Bed::new(CONFIG)
}

/// The same policy matched inline and through maps: more prefixes and ports than are matched inline, some of them
/// inside prefixes of the payment class.
fn both_beds() -> Result<[Bed; 2]> {
    let hosts = 0..20;
    let four: Vec<_> = hosts.clone().map(|n| format!("\"203.0.113.{}\"", 100 + n)).collect();
    let six: Vec<_> = hosts.clone().map(|n| format!("\"2001:db8:113::1:{n}\"")).collect();
    let sources = hosts.clone().map(|n| format!("\"192.0.2.{0}\", \"2001:db8:ca::{0}\"", 200 + n));
    let filler = format!(
        "[class.filler]\nkeep = true\nmatch = [{{ dst = [{}, {}], src = [{}], proto = \"udp\", ports = [{}] }}]\n",
        four.join(", "),
        six.join(", "),
        sources.collect::<Vec<_>>().join(", "),
        hosts.map(|n| (9000 + 2 * n).to_string()).collect::<Vec<_>>().join(", "),
    );
    let beds = [bed()?, Bed::new(&format!("{CONFIG}\n{filler}"))?];
    assert_eq!(beds.each_ref().map(|bed| bed.compiled().large.is_some()), [false, true]);
    Ok(beds)
}

/// What a packet is carried by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind {
    family: Family,
    /// TCP or UDP.
    proto: u8,
}

impl Kind {
    /// Every one is as good as the others.
    const ALL: [Self; 4] = [
        Self { family: Family::V4, proto: TCP },
        Self { family: Family::V4, proto: UDP },
        Self { family: Family::V6, proto: TCP },
        Self { family: Family::V6, proto: UDP },
    ];

    fn at(self, address: Pair, port: u16) -> SocketAddr {
        SocketAddr::new(address.of(self.family), port)
    }

    /// The first client's socket.
    fn client(self) -> SocketAddr {
        self.at(FIRST_CLIENT, 40_000)
    }

    fn shop(self, port: u16) -> SocketAddr {
        self.at(SHOP.address, port)
    }

    fn news(self) -> SocketAddr {
        self.at(NEWS, 443)
    }

    fn payment(self) -> SocketAddr {
        self.at(PAYMENT.address, 443)
    }

    /// The only endpoint of tier `reserved` in this family.
    fn reserved(self, port: u16) -> SocketAddr {
        self.at(FIRST_ENDPOINT, port)
    }

    /// The only endpoint of tier `elastic` in this family.
    fn elastic(self, port: u16) -> SocketAddr {
        self.at(FIRST_ENDPOINT.plus(1), port)
    }

    /// A packet in the middle of a flow.
    fn frame(self, from: SocketAddr, to: SocketAddr) -> Frame {
        let frame = if self.proto == TCP { Frame::tcp(from, to, flag::ACK | flag::PSH) } else { Frame::udp(from, to) };
        frame.payload(b"a promotion")
    }

    /// The first packet of a TCP connection.
    fn opener(self, from: SocketAddr, to: SocketAddr) -> Frame {
        assert_eq!(self.proto, TCP, "only TCP says what opens a flow");
        Frame::tcp(from, to, flag::SYN).mss(1300)
    }

    /// Name of a row.
    fn row(self, promise: &str) -> String {
        format!("{promise} ({:?}, {})", self.family, if self.proto == TCP { "TCP" } else { "UDP" })
    }

    /// Those of TCP.
    fn tcp() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|kind| kind.proto == TCP)
    }
}

/// As it comes from a client.
fn arriving(frame: Frame) -> Vec<u8> {
    frame.macs(CLIENT_MAC, EDGE_CLIENT_MAC).build()
}

/// As it leaves on the first line, one hop on.
fn leaving(frame: Frame) -> Vec<u8> {
    frame.macs(EDGE_DX_MAC, DIRECT_CONNECT_MAC).ttl(63).build()
}

/// As it leaves on the second line, one hop on.
fn leaving_second(frame: Frame) -> Vec<u8> {
    frame.macs(SECOND_EDGE_DX_MAC, SECOND_DIRECT_CONNECT_MAC).ttl(63).build()
}

/// As it comes from the first line.
fn replying(frame: Frame) -> Vec<u8> {
    frame.macs(DIRECT_CONNECT_MAC, EDGE_DX_MAC).build()
}

/// As it goes to the first client, one hop on.
fn homeward(frame: Frame) -> Vec<u8> {
    frame.macs(EDGE_CLIENT_MAC, CLIENT_MAC).ttl(63).build()
}

/// The tier's endpoint of a family, in class `promo`.
fn promo_endpoint(bed: &Bed, tier: &str, family: Family) -> u16 {
    let number = u8::from(tier != "reserved");
    bed.endpoint(&format!("promo/{tier}/{}", FIRST_ENDPOINT.plus(number).of(family)))
}

/// Sends all of promo to `reserved`, each family to the endpoint of its own, and tells what that is counted under.
fn promo_leg(bed: &Bed, kind: Kind) -> Leg {
    let endpoint = promo_endpoint(bed, "reserved", kind.family);
    bed.fill("promo", Slot::stable(endpoint));
    Leg { class: bed.class("promo"), endpoint: Some(endpoint), link: Some(bed.link("dx-1")) }
}

/// Sends all of news to `flat`, and tells what that is counted under.
fn news_leg(bed: &Bed) -> Leg {
    let endpoint = bed.endpoint("news/flat");
    bed.fill("news", Slot::stable(endpoint));
    Leg { class: bed.class("news"), endpoint: Some(endpoint), link: Some(bed.link("dx-1")) }
}
