//! Modes `gue` and `ipip`: the packet whole inside another, and out of another; both families in both.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use burst_common::reason::Reason;
use burst_common::slot::Slot;
use burst_tests::golden::{Bed, Leg, Row};
use burst_tests::packet::{Frame, icmp, tunnel};
use burst_tests::topology::{
    CLIENT_DEVICE, CLIENT_MAC, DIRECT_CONNECT_MAC, DX_DEVICE, EDGE_CLIENT_MAC, EDGE_DX, EDGE_DX_MAC, FIRST_CLIENT,
    FIRST_ENDPOINT, Family, SECOND_EDGE_DX,
};

use super::{FROM_CLIENT, FROM_DX, Kind, arriving, homeward, replying};

/// The shop behind tunnels of all sorts; what is the news' is behind a tunnel of its own. Payment is kept.
const CONFIG: &str = r#"
version = 1
edge = { name = "edge-a1", client = ["client0"], seed = "golden", mode = "active" }

[[link]]
name = "dx-1"
device = "dx0"
next_hop = "10.64.0.1"
mtu = 1500
source = ["10.64.0.2", "fd00:64::2"]

[class.payment]
keep = true
match = [
  { dst = ["203.0.113.10", "2001:db8:113::10"], proto = "tcp", ports = [443] },
  { src = ["192.0.2.128/25", "2001:db8:ca::/48"], dst = ["203.0.113.0/24", "2001:db8:113::/64"] },
  { dst = ["203.0.113.20", "2001:db8:113::20"], proto = "tcp", ports = ["8840-8849"] },
]

[class.promo]
match = [
  { dst = ["203.0.113.20", "2001:db8:113::20"], proto = "tcp", ports = [443, "8840-8860"] },
  { dst = ["203.0.113.20", "2001:db8:113::20"], proto = "udp", ports = [443] },
]
affinity = "flow"
slots = 64
when_full = "local"
local = { capacity = "1k flows/s" }

[[class.promo.tier]]
name = "gue"
mode = "gue"
endpoints = ["10.20.0.10", "fd00:20::10"]
links = ["dx-1"]
capacity = "1k flows/s"

[[class.promo.tier]]
name = "ipip"
mode = "ipip"
endpoints = ["10.20.0.11", "fd00:20::11"]
links = ["dx-1"]
capacity = "1k flows/s"

[class.news]
match = [
  { dst = ["203.0.113.30", "2001:db8:113::33"], proto = "tcp", ports = [443] },
  { dst = ["203.0.113.30", "2001:db8:113::33"], proto = "udp", ports = [443] },
]
affinity = "flow"
slots = 64
when_full = "local"
local = { capacity = "1k flows/s" }

[[class.news.tier]]
name = "ipip"
mode = "ipip"
endpoints = ["10.20.0.12", "fd00:20::12"]
links = ["dx-1"]
capacity = "1k flows/s"
"#;

pub fn bed() -> Result<Bed> {
    Bed::new(CONFIG)
}

/// One of the shop's tunnels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    gue: bool,
    /// Family outside.
    outer: Family,
}

impl Tunnel {
    pub const ALL: [Self; 4] = [
        Self { gue: true, outer: Family::V4 },
        Self { gue: true, outer: Family::V6 },
        Self { gue: false, outer: Family::V4 },
        Self { gue: false, outer: Family::V6 },
    ];

    /// Bytes in front of the packet: IP, and for GUE eight of UDP and four of its own.
    pub fn overhead(self) -> u16 {
        let ip = if self.outer == Family::V4 { 20 } else { 40 };
        ip + if self.gue { 12 } else { 0 }
    }

    fn endpoint(self) -> IpAddr {
        FIRST_ENDPOINT.plus(u8::from(!self.gue)).of(self.outer)
    }

    /// Sends all of promo through it, and tells what that is counted under.
    pub fn leg(self, bed: &Bed) -> Leg {
        let tier = if self.gue { "gue" } else { "ipip" };
        let id = bed.endpoint(&format!("promo/{tier}/{}", self.endpoint()));
        bed.fill("promo", Slot::stable(id));
        Leg { class: bed.class("promo"), endpoint: Some(id), link: Some(bed.link("dx-1")) }
    }

    /// The source port of the first client's flow to the shop. It is anything of the dynamic range.
    pub fn port(self, bed: &mut Bed, kind: Kind) -> Result<u16> {
        self.port_of(bed, kind, kind.client())
    }

    fn port_of(self, bed: &mut Bed, kind: Kind, client: SocketAddr) -> Result<u16> {
        let out = bed.run(FROM_CLIENT, &arriving(kind.frame(client, kind.shop(443))), &[DX_DEVICE])?.frame;
        let at = if self.outer == Family::V4 { 34 } else { 54 };
        Ok(u16::from_be_bytes([out[at], out[at + 1]]))
    }

    fn around(self, from: SocketAddr, to: IpAddr, inner: &[u8]) -> Frame {
        if self.gue { tunnel::gue(from, to, inner) } else { tunnel::ipip(from.ip(), to, inner) }
    }

    /// A packet as it leaves, one hop on; `port` counts for GUE alone.
    pub fn leaving(self, port: u16, inner: Frame, tos: u8) -> Vec<u8> {
        let from = SocketAddr::new(EDGE_DX.of(self.outer), port);
        let outer = self.around(from, self.endpoint(), &inner.ttl(63).build()).tos(tos).ttl(64);
        outer.macs(EDGE_DX_MAC, DIRECT_CONNECT_MAC).build()
    }

    /// A packet as it comes from the endpoint.
    pub fn replying(self, inner: Frame, tos: u8) -> Vec<u8> {
        self.replying_with(&inner.build(), tos)
    }

    fn replying_with(self, inner: &[u8], tos: u8) -> Vec<u8> {
        let from = SocketAddr::new(self.endpoint(), 50_000);
        replying(self.around(from, EDGE_DX.of(self.outer), inner).tos(tos).ttl(9))
    }
}

#[test]
fn a_packet_leaves_whole_inside_another() -> Result<()> {
    let mut bed = bed()?;
    for tunnel in Tunnel::ALL {
        for kind in Kind::ALL {
            let leg = tunnel.leg(&bed);
            let port = tunnel.port(&mut bed, kind)?;
            for tos in [0, 0xb8, 0x2e | 0x01, 0x02, 0x03] {
                for length in [0, 1, 11, 1300] {
                    let packet = || kind.frame(kind.client(), kind.shop(443)).tos(tos).payload(&vec![0x5a; length]);
                    let name = kind.row(&format!("{tunnel:?}, TOS {tos:#04x}, {length} bytes"));
                    let out = tunnel.leaving(port, packet(), tos);
                    bed.check(FROM_CLIENT, &Row::leaves(name, arriving(packet()), DX_DEVICE, leg, out))?;
                }
            }
            // Tags of the client go, options of the inner packet stay, padding stays behind it.
            let packet = || kind.frame(kind.client(), kind.shop(443));
            let out = tunnel.leaving(port, packet(), 0);
            let frame = arriving(packet().vlans(&[100, 7]));
            bed.check(FROM_CLIENT, &Row::leaves(kind.row("tags"), frame, DX_DEVICE, leg, out))?;
            let with = |frame: Frame| match kind.family {
                Family::V4 => frame.ip_options(&[148, 4, 0, 0]),
                Family::V6 => frame.extension(60, &[1, 4, 0, 0, 0, 0]),
            };
            let out = tunnel.leaving(port, with(packet()), 0);
            let row = Row::leaves(kind.row("options"), arriving(with(packet())), DX_DEVICE, leg, out);
            bed.check(FROM_CLIENT, &row)?;
        }
    }
    Ok(())
}

#[test]
fn the_source_port_is_a_flows_own() -> Result<()> {
    let mut bed = bed()?;
    for tunnel in Tunnel::ALL.into_iter().filter(|tunnel| tunnel.gue) {
        for kind in Kind::ALL {
            tunnel.leg(&bed);
            let mut ports = BTreeSet::new();
            for number in 0..64 {
                let client = kind.at(FIRST_CLIENT, 40_000 + number);
                let port = tunnel.port_of(&mut bed, kind, client)?;
                ensure!(port >= 49_152, "{port} is not of the dynamic range");
                ensure!(port == tunnel.port_of(&mut bed, kind, client)?, "the second packet's differs");
                ports.insert(port);
            }
            // Among 16,384, 64 draws meet one of the others with a probability of one in eight; four times, never.
            ensure!(ports.len() >= 60, "{} ports of 64 flows", ports.len());
        }
    }
    Ok(())
}

#[test]
fn what_does_not_fit_the_tunnel_is_answered() -> Result<()> {
    let mut bed = bed()?;
    for tunnel in Tunnel::ALL {
        for kind in Kind::ALL {
            let leg = tunnel.leg(&bed);
            let port = tunnel.port(&mut bed, kind)?;
            let most = 1500 - tunnel.overhead();
            let packet = |size: u16| {
                let headers = kind.frame(kind.client(), kind.shop(443)).payload(b"").build().len() - 14;
                kind.frame(kind.client(), kind.shop(443)).payload(&vec![0x5a; usize::from(size) - headers])
            };
            let name = kind.row(&format!("{tunnel:?}"));
            let out = tunnel.leaving(port, packet(most), 0);
            bed.check(FROM_CLIENT, &Row::leaves(name.clone(), arriving(packet(most)), DX_DEVICE, leg, out))?;
            let frame = arriving(packet(most + 1));
            let answer = icmp::too_big(kind.shop(443).ip(), kind.client().ip(), &frame, most);
            let answer = answer.macs(EDGE_CLIENT_MAC, CLIENT_MAC).build();
            bed.check(FROM_CLIENT, &Row::answered(name, frame, CLIENT_DEVICE, leg.class, answer))?;
        }
    }
    Ok(())
}

#[test]
fn what_an_endpoint_sends_through_its_tunnel_goes_to_the_client() -> Result<()> {
    let mut bed = bed()?;
    for tunnel in Tunnel::ALL {
        for kind in Kind::ALL {
            let leg = tunnel.leg(&bed);
            let packet = || kind.frame(kind.shop(443), kind.client());
            // What congestion the tunnel met, the packet hears of (RFC 6040, section 4.2).
            for (outer, inner, becomes) in [
                (0, 0, Some(0)),
                (0xb8, 0x28, Some(0x28)),
                (0, 1, Some(1)),
                (0, 2, Some(2)),
                (0, 3, Some(3)),
                (2, 2, Some(2)),
                (1, 1, Some(1)),
                (3, 1, Some(3)),
                (3, 2, Some(3)),
                (3, 3, Some(3)),
                (0xbb, 0x29, Some(0x2b)),
                (3, 0, None),
                (0xbb, 0x28, None),
            ] {
                let name = kind.row(&format!("{tunnel:?}, {outer:#04x} outside, {inner:#04x} inside"));
                let frame = tunnel.replying(packet().tos(inner), outer);
                let row = match becomes {
                    Some(tos) => Row::returns(name, frame, CLIENT_DEVICE, leg, homeward(packet().tos(tos))),
                    None => Row::dropped(name, frame, leg.class, Reason::Congested),
                };
                bed.check(FROM_DX, &row)?;
            }
        }
    }
    Ok(())
}

#[test]
fn what_an_endpoint_may_not_say_is_dropped() -> Result<()> {
    let mut bed = bed()?;
    for tunnel in Tunnel::ALL {
        for kind in Kind::ALL {
            let leg = tunnel.leg(&bed);
            let to = kind.client();
            let mut inner: Vec<(&str, Vec<u8>)> = [
                ("no service", kind.at(FIRST_ENDPOINT, 443)),
                ("the shop's other port", kind.shop(22)),
                ("another class", kind.news()),
                ("payment", kind.payment()),
                ("a part of the shop that is kept", kind.shop(8845)),
            ]
            .map(|(name, from)| (name, kind.frame(from, to).build()))
            .into();
            let packet = || kind.frame(kind.shop(443), to);
            inner.push(("to payment", kind.frame(kind.shop(443), kind.payment()).build()));
            inner.push(("a first fragment", packet().fragment(0, true).build()));
            inner.push(("a later fragment", packet().fragment(7, false).build()));
            let mut cut = packet().build();
            cut.truncate(cut.len() - 1);
            inner.push(("less than it says", cut));
            let ping = Frame::other(kind.shop(443).ip(), to.ip(), if kind.family == Family::V4 { 1 } else { 58 });
            inner.push(("a ping", ping.payload(&[8, 0, 0, 0, 0, 0, 0, 0]).build()));
            for (name, inner) in inner {
                // Only TCP is payment's.
                if name == "to payment" && kind.proto != 6 {
                    continue;
                }
                let frame = tunnel.replying_with(&inner, 0);
                let name = kind.row(&format!("{tunnel:?}, {name}"));
                // What is not even a packet of somebody's is counted under no class.
                let class = if ["a first fragment", "a later fragment", "less than it says", "a ping"]
                    .iter()
                    .any(|unread| name.contains(unread))
                {
                    0
                } else {
                    leg.class
                };
                bed.check(FROM_DX, &Row::dropped(name, frame, class, Reason::Spoofed))?;
            }
            let row = Row::returns(
                kind.row("its twin"),
                tunnel.replying(packet(), 0),
                CLIENT_DEVICE,
                leg,
                homeward(packet()),
            );
            bed.check(FROM_DX, &row)?;
        }
    }
    Ok(())
}

#[test]
fn what_is_no_tunnel_of_an_endpoints_passes() -> Result<()> {
    let mut bed = bed()?;
    for tunnel in Tunnel::ALL {
        for kind in Kind::ALL {
            let leg = tunnel.leg(&bed);
            let inner = kind.frame(kind.shop(443), kind.client()).build();
            let (endpoint, edge) = (tunnel.endpoint(), EDGE_DX.of(tunnel.outer));
            let at = |address| SocketAddr::new(address, 50_000);
            // UDP that is no tunnel is UDP from nobody; what is in IP alone is a protocol that is not understood.
            let reason = if tunnel.gue { Reason::NotReturn } else { Reason::Protocol };
            let mut frames = vec![
                ("from nobody", tunnel.around(at(FIRST_ENDPOINT.plus(9).of(tunnel.outer)), edge, &inner), reason),
                ("to another address", tunnel.around(at(endpoint), SECOND_EDGE_DX.of(tunnel.outer), &inner), reason),
            ];
            let from_other = FIRST_ENDPOINT.plus(u8::from(tunnel.gue)).of(tunnel.outer);
            frames.push(("the mode of another endpoint", tunnel.around(at(from_other), edge, &inner), reason));
            if tunnel.gue {
                let proto = if kind.family == Family::V4 { 4 } else { 41 };
                for (name, header) in [
                    ("variant 1", [0x40, proto, 0, 0]),
                    ("a control message", [0x20, proto, 0, 0]),
                    ("an optional field", [0x01, proto, 0, 0]),
                    ("a flag", [0, proto, 0, 1]),
                    ("another flag", [0, proto, 0x80, 0]),
                    ("another protocol", [0, 6, 0, 0]),
                ] {
                    frames.push((name, tunnel::gue_with(at(endpoint), edge, header, &inner), reason));
                }
                let payload = [&[0, proto, 0, 0][..], &inner[14..]].concat();
                let other_port = Frame::udp(at(endpoint), (edge, 6081)).no_udp_checksum().payload(&payload);
                frames.push(("another port", other_port, reason));
            }
            for (name, frame, reason) in frames {
                let name = kind.row(&format!("{tunnel:?}, {name}"));
                bed.check(FROM_DX, &Row::passes(name, replying(frame), 0, reason))?;
            }
            let packet = kind.frame(kind.shop(443), kind.client());
            let frame = tunnel.replying(packet.clone(), 0);
            let row = Row::returns(kind.row("its twin"), frame, CLIENT_DEVICE, leg, homeward(packet));
            bed.check(FROM_DX, &row)?;
        }
    }
    Ok(())
}

#[test]
fn a_ttl_of_one_inside_is_nobodys_to_forward() -> Result<()> {
    let mut bed = bed()?;
    for tunnel in Tunnel::ALL {
        for kind in Kind::ALL {
            let leg = tunnel.leg(&bed);
            let name = kind.row(&format!("{tunnel:?}"));
            let frame = tunnel.replying(kind.frame(kind.shop(443), kind.client()).ttl(1), 0);
            bed.check(FROM_DX, &Row::passes(name.clone(), frame, leg.class, Reason::TtlExpired))?;
            let packet = || kind.frame(kind.shop(443), kind.client()).ttl(2);
            let out = packet().ttl(1).macs(EDGE_CLIENT_MAC, CLIENT_MAC).build();
            bed.check(FROM_DX, &Row::returns(name, tunnel.replying(packet(), 0), CLIENT_DEVICE, leg, out))?;
        }
    }
    Ok(())
}
