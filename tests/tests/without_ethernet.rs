//! Replies over a link of `via = "kernel"` whose device has no Ethernet header: every byte on the client's wire, with checksums
//! that come whole and such as are not computed yet, and every counter that moves.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use burst_common::reason::Reason;
use burst_tests::golden::bare::{Arrives, Bare};
use burst_tests::golden::{Bed, Leg, Row};
use burst_tests::packet::checksum::verify;
use burst_tests::packet::{Frame, flag, icmp};
use burst_tests::topology::{
    CLIENT_MAC, DIRECT_CONNECT, EDGE_CLIENT_MAC, FIRST_CLIENT, FIRST_ENDPOINT, Family, Pair, SHOP,
};

const CONFIG: &str = r#"
version = 1

[edge]
name = "edge"
client = ["client0"]
seed = "one-string-for-all-edges"

[[link]]
name = "vpn"
device = "dx0"
via = "kernel"
mtu = 1400

[class.promo]
match = [
  { dst = ["203.0.113.20", "2001:db8:113::20"], proto = "tcp", ports = [443] },
  { dst = ["203.0.113.20", "2001:db8:113::20"], proto = "udp", ports = [443] },
]
slots = 64
when_full = "local"
affinity = "flow"
local = { capacity = "1k flows/s" }

[[class.promo.tier]]
name = "reserved"
mode = "dnat"
endpoints = ["10.20.0.10", "fd00:20::10"]
ports = { 443 = 8443 }
links = ["vpn"]
capacity = "1k flows/s"
"#;

/// What a packet is carried by.
#[derive(Clone, Copy)]
struct Kind {
    family: Family,
    tcp: bool,
}

impl Kind {
    fn all() -> impl Iterator<Item = Self> {
        Family::ALL.into_iter().flat_map(|family| [true, false].map(|tcp| Self { family, tcp }))
    }

    fn at(self, address: Pair, port: u16) -> SocketAddr {
        SocketAddr::new(address.of(self.family), port)
    }

    fn client(self) -> SocketAddr {
        self.at(FIRST_CLIENT, 40_000)
    }

    fn shop(self) -> SocketAddr {
        self.at(SHOP.address, 443)
    }

    fn endpoint(self, port: u16) -> SocketAddr {
        self.at(FIRST_ENDPOINT, port)
    }

    fn frame(self, from: SocketAddr, to: SocketAddr) -> Frame {
        if self.tcp { Frame::tcp(from, to, flag::ACK | flag::PSH) } else { Frame::udp(from, to) }
    }

    fn row(self, what: &str) -> String {
        format!("{what} ({:?}, {})", self.family, if self.tcp { "TCP" } else { "UDP" })
    }

    fn leg(self, bed: &Bed) -> Leg {
        let endpoint = bed.endpoint(&format!("promo/reserved/{}", FIRST_ENDPOINT.of(self.family)));
        Leg { class: bed.class("promo"), endpoint: Some(endpoint), link: Some(bed.link("vpn")) }
    }
}

/// As it goes to the client, one hop on.
fn homeward(frame: Frame) -> Vec<u8> {
    frame.macs(EDGE_CLIENT_MAC, CLIENT_MAC).ttl(63).build()
}

/// The same, and its checksums are right.
fn verified(frame: Frame) -> Vec<u8> {
    let out = homeward(frame);
    verify(&out).expect("valid checksums");
    out
}

const BOTH: [Arrives; 2] = [Arrives::Whole, Arrives::Partial];

fn check(bare: &mut Bare<'_>, arrives: &[Arrives], row: &Row) -> Result<()> {
    arrives.iter().try_for_each(|arrives| bare.check(*arrives, row))
}

#[test]
fn replies_get_the_services_name_back_and_an_ethernet_header() -> Result<()> {
    let bed = Bed::new(CONFIG)?;
    let mut bare = bed.bare(bed.link("vpn"))?;
    for kind in Kind::all() {
        for length in [0, 1, 2, 11, 1300] {
            let payload: Vec<u8> = (0..length).map(|n: u32| (n * 5 + 1) as u8).collect();
            let packet = |from| kind.frame(from, kind.client()).payload(&payload).tos(0x03);
            let (frame, out) = (packet(kind.endpoint(8443)).build(), verified(packet(kind.shop())));
            let row = Row::returns_from_kernel(kind.row(&format!("{length} bytes")), frame, kind.leg(&bed), out);
            check(&mut bare, &BOTH, &row)?;
        }
        let with = |from| match kind.family {
            Family::V4 => kind.frame(from, kind.client()).ip_options(&[148, 4, 0, 0]).payload(b"options"),
            Family::V6 => kind.frame(from, kind.client()).extension(0, &[1, 4, 0, 0, 0, 0]).payload(b"extension"),
        };
        let (frame, out) = (with(kind.endpoint(8443)).build(), verified(with(kind.shop())));
        check(&mut bare, &BOTH, &Row::returns_from_kernel(kind.row("options"), frame, kind.leg(&bed), out))?;
        if kind.tcp {
            let syn_ack = |from, size| Frame::tcp(from, kind.client(), flag::SYN | flag::ACK).mss(size);
            let most = if kind.family == Family::V4 { 1360 } else { 1340 };
            for (offered, left) in [(9000, most), (536, 536)] {
                let (frame, out) = (syn_ack(kind.endpoint(8443), offered), verified(syn_ack(kind.shop(), left)));
                let name = kind.row(&format!("{offered} offered"));
                check(&mut bare, &BOTH, &Row::returns_from_kernel(name, frame.build(), kind.leg(&bed), out))?;
            }
        } else {
            let none = |from| Frame::udp(from, kind.client()).no_udp_checksum().payload(b"none");
            let (frame, out) = (none(kind.endpoint(8443)).build(), homeward(none(kind.shop())));
            let row = Row::returns_from_kernel(kind.row("no checksum"), frame, kind.leg(&bed), out);
            check(&mut bare, &[Arrives::Whole], &row)?;
        }
    }
    Ok(())
}

#[test]
fn an_error_goes_to_the_client_about_its_own_packet() -> Result<()> {
    let bed = Bed::new(CONFIG)?;
    let mut bare = bed.bare(bed.link("vpn"))?;
    for kind in Kind::all() {
        let header = if kind.family == Family::V4 { 20 } else { 40 };
        let head = if kind.family == Family::V4 { [3, 4] } else { [2, 0] };
        for from in [DIRECT_CONNECT.of(kind.family), kind.endpoint(0).ip()] {
            for behind in [8, 16, 18, 20, 25, 1000] {
                let error = |from: IpAddr, about: SocketAddr| {
                    let packet = kind.frame(kind.client(), about).payload(b"a promotion").ttl(17).build();
                    icmp::error(from, kind.client().ip(), head, [0, 0, 5, 0x14], &packet, header + behind)
                };
                let frame = error(from, kind.endpoint(8443)).build();
                let out = verified(error(kind.shop().ip(), kind.shop()));
                let row = Row::returns_from_kernel(
                    kind.row(&format!("from {from}, {behind} bytes")),
                    frame,
                    kind.leg(&bed),
                    out,
                );
                check(&mut bare, &[Arrives::Whole], &row)?;
            }
        }
    }
    Ok(())
}

#[test]
fn what_is_no_reply_is_the_kernels_and_goes_on_as_it_is() -> Result<()> {
    let bed = Bed::new(CONFIG)?;
    let mut bare = bed.bare(bed.link("vpn"))?;
    for kind in Kind::all() {
        let packet = |from| kind.frame(from, kind.client()).payload(b"not a reply");
        let (frame, out) = (packet(kind.endpoint(22)).build(), verified(packet(kind.endpoint(22))));
        let row = Row::passes(kind.row("another port"), frame, 0, Reason::NotReturn).becomes(out);
        check(&mut bare, &BOTH, &row)?;
        // At the end of its way it is the kernel's to answer.
        let frame = packet(kind.endpoint(8443)).ttl(1).build();
        let row = Row::passes(kind.row("TTL 1"), frame, bed.class("promo"), Reason::TtlExpired).becomes(vec![]);
        check(&mut bare, &BOTH, &row)?;
    }
    Ok(())
}
