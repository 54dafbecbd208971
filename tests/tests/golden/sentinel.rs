//! The sentinel: what a keep rule names does not go out to a link, whatever it is wrapped in; everything else does.
//!
//! Every frame goes by both gates: the one for what XDP sends, and the one for what the kernel sends, which reports or stops
//! as it is told.

mod inside;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Result;
use burst_common::flow::{TCP, UDP};
use burst_common::policy::DeviceLink;
use burst_tests::golden::Bed;
use burst_tests::golden::sentinel::{Fate, Gate, Passage, Post, Sentinel, Tuple, verified};
use burst_tests::packet::Frame;
use burst_tests::topology::{
    DIRECT_CONNECT_MAC, DX_DEVICE, EDGE_DX_MAC, FIRST_CLIENT, Family, LOCAL_MAC, PAYMENT, Pair,
    SECOND_DIRECT_CONNECT_MAC, SHOP,
};

use super::{Kind, RENAMED, bed, both_beds};

/// A client in the card networks: all it sends is kept.
const CARDS: Pair = Pair { v4: Ipv4Addr::new(192, 0, 2, 200), v6: Ipv6Addr::new(0x2001, 0xdb8, 0xca, 0, 0, 0, 0, 2) };
/// A port of the shop that the payment class keeps.
const KEPT_PORT: u16 = 8845;

const ICMP: [u8; 2] = [1, 58];
const IPIP: [u8; 2] = [4, 41];

/// One sentinel, and a name for what it guards.
struct Guarded {
    bed: Bed,
    sentinel: Sentinel,
    link: u32,
    /// What the kernel's gate does with what is kept.
    kernel: Fate,
}

impl Guarded {
    fn new(bed: Bed, enforce: bool) -> Result<Self> {
        let link = u32::from(bed.link("dx-1"));
        let links = [DeviceLink { vlan: 0, link }];
        let sentinel = bed.sentinel(&Post { device: DX_DEVICE, links: &links, enforce, shadow: false })?;
        let kernel = if enforce { Fate::Stopped } else { Fate::Reported };
        Ok(Self { bed, sentinel, link, kernel })
    }

    /// Neither gate says anything of the frame.
    #[track_caller]
    fn frees(&mut self, name: impl Into<String>, frame: Vec<u8>) -> Result<()> {
        self.frees_by(&Gate::ALL, name, frame)
    }

    /// These gates say nothing of the frame.
    #[track_caller]
    fn frees_by(&mut self, gates: &[Gate], name: impl Into<String>, frame: Vec<u8>) -> Result<()> {
        let nobody = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        let named = (Tuple { source: nobody, destination: nobody, proto: 0 }, 0);
        let passage = Passage { name: name.into(), frame, fate: Fate::Free, named };
        gates.iter().try_for_each(|&gate| self.bed.watch(&mut self.sentinel, gate, &passage))
    }

    /// XDP's gate stops the frame, the kernel's does what it was told, and both name this flow.
    #[track_caller]
    fn holds(&mut self, name: impl Into<String>, frame: Vec<u8>, named: Tuple) -> Result<()> {
        let mut passage = Passage { name: name.into(), frame, fate: Fate::StoppedOwn, named: (named, self.link) };
        self.bed.watch(&mut self.sentinel, Gate::Xdp, &passage)?;
        passage.fate = self.kernel;
        self.bed.watch(&mut self.sentinel, Gate::Kernel, &passage)
    }
}

/// Inline and through maps, reporting and enforcing.
fn all() -> Result<Vec<Guarded>> {
    let [inline, large] = both_beds()?;
    Ok(vec![Guarded::new(inline, false)?, Guarded::new(large, true)?])
}

/// To the first line's next hop.
fn out(frame: Frame) -> Vec<u8> {
    frame.macs(EDGE_DX_MAC, DIRECT_CONNECT_MAC).build()
}

const fn tuple(source: SocketAddr, destination: SocketAddr, proto: u8) -> Tuple {
    Tuple { source, destination, proto }
}

/// A tuple without ports.
fn addresses(source: SocketAddr, destination: SocketAddr, proto: u8) -> Tuple {
    let bare = |socket: SocketAddr| SocketAddr::new(socket.ip(), 0);
    Tuple { source: bare(source), destination: bare(destination), proto }
}

fn number(family: Family) -> usize {
    usize::from(family == Family::V6)
}

/// What the verifier had to look at: `cargo test … -- --nocapture`.
#[test]
fn every_program_loads() -> Result<()> {
    for mut guarded in all()? {
        for name in ["burst", "sentinel", "sentinel_probe", "sentinel_tc"] {
            let (verified, length) = verified(&mut guarded.sentinel, name)?;
            assert!(length > 0, "{name}");
            println!("{name}: {verified} instructions verified, {length} translated");
        }
    }
    Ok(())
}

#[test]
fn what_a_keep_rule_names_is_held_and_its_neighbours_go() -> Result<()> {
    for mut guarded in all()? {
        for kind in Kind::ALL {
            let (client, cards) = (kind.client(), kind.at(CARDS, 40_000));
            for (name, from, to, kept) in [
                ("payment", client, kind.payment(), kind.proto == TCP),
                ("payment's other port", client, kind.at(PAYMENT.address, 444), false),
                ("the shop", client, kind.shop(443), false),
                ("the shop's kept port", client, kind.shop(KEPT_PORT), kind.proto == TCP),
                ("first of a range", client, kind.shop(8840), kind.proto == TCP),
                ("before it", client, kind.shop(8839), false),
                ("last of a range", client, kind.shop(8849), kind.proto == TCP),
                ("behind it", client, kind.shop(8850), false),
                ("an endpoint", client, kind.reserved(RENAMED), false),
                ("card networks to the shop", cards, kind.shop(443), true),
                ("card networks to an endpoint", cards, kind.reserved(RENAMED), true),
                ("payment's answer", kind.payment(), client, false),
                ("an answer to card networks", kind.shop(443), cards, false),
            ] {
                let frame = kind.frame(from, to);
                for (where_, frame) in [("", frame.clone()), (", an opener", opened(kind, frame, from, to))] {
                    let name = kind.row(&format!("{name}{where_}"));
                    match kept {
                        true => guarded.holds(name, out(frame), tuple(from, to, kind.proto))?,
                        false => guarded.frees(name, out(frame))?,
                    }
                }
            }
        }
    }
    Ok(())
}

/// The frame that opens the flow, where there is such a thing.
fn opened(kind: Kind, frame: Frame, from: SocketAddr, to: SocketAddr) -> Frame {
    if kind.proto == TCP { kind.opener(from, to) } else { frame }
}

#[test]
fn only_frames_to_the_next_hop_are_looked_at() -> Result<()> {
    for mut guarded in all()? {
        for kind in Kind::tcp() {
            let frame = || kind.frame(kind.client(), kind.payment());
            for (name, mac) in [
                ("to a backend", LOCAL_MAC),
                ("to another line's router", SECOND_DIRECT_CONNECT_MAC),
                ("differs in the first byte", differs(0)),
                ("differs in the last byte", differs(5)),
                ("to all", [0xff; 6]),
            ] {
                guarded.frees(kind.row(name), frame().macs(EDGE_DX_MAC, mac).build())?;
            }
            let named = tuple(kind.client(), kind.payment(), TCP);
            guarded.holds(kind.row("whoever sends it"), frame().macs(LOCAL_MAC, DIRECT_CONNECT_MAC).build(), named)?;
            for vlans in [&[7][..], &[7, 9], &[7, 0]] {
                let name = kind.row(&format!("on VLAN {vlans:?}, which has no link"));
                guarded.frees(name, out(frame().vlans(vlans)))?;
            }
            for vlans in [&[0][..], &[0, 9]] {
                let name = kind.row(&format!("a priority tag is no VLAN {vlans:?}"));
                guarded.holds(name, out(frame().vlans(vlans)), named)?;
            }
        }
    }
    Ok(())
}

/// The next hop's MAC address but for one byte.
const fn differs(byte: usize) -> [u8; 6] {
    let mut mac = DIRECT_CONNECT_MAC;
    mac[byte] ^= 4;
    mac
}

#[test]
fn links_are_told_apart_by_their_vlans() -> Result<()> {
    let bed = bed()?;
    let [first, second] = ["dx-1", "dx-2"].map(|name| u32::from(bed.link(name)));
    for (name, vlan) in [("dx-1", 101), ("dx-2", 102)] {
        let row = bed.maps().link(bed.link(name));
        bed.maps().set_link(bed.link(name), &burst_common::link::Link { vlan, ..row });
    }
    let links = [DeviceLink { vlan: 101, link: first }, DeviceLink { vlan: 102, link: second }];
    let sentinel = bed.sentinel(&Post { device: DX_DEVICE, links: &links, enforce: true, shadow: false })?;
    let mut guarded = Guarded { bed, sentinel, link: 0, kernel: Fate::Stopped };
    for kind in Kind::tcp() {
        let named = tuple(kind.client(), kind.payment(), TCP);
        let to =
            |vlans: &[u16], mac| kind.frame(kind.client(), kind.payment()).vlans(vlans).macs(EDGE_DX_MAC, mac).build();
        for vlans in [&[][..], &[0], &[103], &[103, 101]] {
            guarded.frees(kind.row(&format!("VLANs {vlans:?}")), to(vlans, DIRECT_CONNECT_MAC))?;
        }
        for (vlan, link, mac, other) in [
            (101, first, DIRECT_CONNECT_MAC, SECOND_DIRECT_CONNECT_MAC),
            (102, second, SECOND_DIRECT_CONNECT_MAC, DIRECT_CONNECT_MAC),
        ] {
            guarded.link = link;
            guarded.holds(kind.row(&format!("VLAN {vlan}")), to(&[vlan], mac), named)?;
            guarded.holds(kind.row(&format!("VLAN {vlan} outside another")), to(&[vlan, 103], mac), named)?;
            guarded.frees(kind.row(&format!("VLAN {vlan}, the other's router")), to(&[vlan], other))?;
        }
    }
    Ok(())
}

#[test]
fn of_several_links_on_one_vlan_the_next_hop_tells() -> Result<()> {
    let bed = bed()?;
    let links = [DeviceLink { vlan: 0, link: 0 }];
    let [first, second] = ["dx-1", "dx-2"].map(|name| u32::from(bed.link(name)));
    let sentinel = bed.sentinel(&Post { device: DX_DEVICE, links: &links, enforce: false, shadow: false })?;
    let mut guarded = Guarded { bed, sentinel, link: 0, kernel: Fate::Reported };
    for kind in Kind::tcp() {
        let to = |mac| kind.frame(kind.client(), kind.payment()).macs(EDGE_DX_MAC, mac).build();
        for (link, mac) in [(first, DIRECT_CONNECT_MAC), (second, SECOND_DIRECT_CONNECT_MAC)] {
            guarded.link = link;
            guarded.holds(kind.row("one's router"), to(mac), tuple(kind.client(), kind.payment(), TCP))?;
        }
        guarded.frees(kind.row("a backend"), to(LOCAL_MAC))?;
    }
    Ok(())
}

#[test]
fn a_link_that_is_down_is_still_a_link() -> Result<()> {
    let mut guarded = Guarded::new(bed()?, true)?;
    let id = guarded.bed.link("dx-1");
    let up = guarded.bed.maps().link(id);
    for kind in Kind::tcp() {
        let frame = || out(kind.frame(kind.client(), kind.payment()));
        guarded.bed.maps().set_link(id, &burst_common::link::Link { ifindex: 0, ..up });
        guarded.holds(kind.row("down"), frame(), tuple(kind.client(), kind.payment(), TCP))?;
        // One that never was up has no next hop that a frame could go to.
        guarded.bed.maps().set_link(id, &bytemuck::Zeroable::zeroed());
        guarded.frees(kind.row("never up"), frame())?;
        guarded.frees(kind.row("never up, to nobody"), kind_to_nobody(kind))?;
    }
    Ok(())
}

/// A frame to the MAC address that an unresolved link would have.
fn kind_to_nobody(kind: Kind) -> Vec<u8> {
    kind.frame(kind.client(), kind.payment()).macs(EDGE_DX_MAC, [0; 6]).build()
}

#[test]
fn what_is_no_packet_goes() -> Result<()> {
    for mut guarded in all()? {
        let kind = Kind { family: Family::V4, proto: TCP };
        let payment = || out(kind.frame(kind.client(), kind.payment()));
        let mut arp = payment();
        arp[12..14].copy_from_slice(&[0x08, 0x06]);
        guarded.frees("ARP", arp)?;
        let mut version = payment();
        version[14] = 0x65;
        guarded.frees("an IPv4 frame with version 6", version)?;
        // The kernel runs no socket buffer without an IP header for a test.
        for length in [14, 15, 30] {
            guarded.frees_by(&[Gate::Xdp], format!("{length} bytes"), payment()[..length].to_vec())?;
        }
        let three = [&payment()[..12], &[0x81, 0, 0, 0, 0x81, 0, 0, 0, 0x81, 0, 0, 0], &payment()[12..]].concat();
        guarded.frees("three tags", three)?;
    }
    Ok(())
}

#[test]
fn rules_without_ports_name_every_protocol() -> Result<()> {
    for mut guarded in all()? {
        for family in Family::ALL {
            for proto in [ICMP[number(family)], 47, 50, 132] {
                let (cards, payment) = (CARDS.of(family), PAYMENT.address.of(family));
                let to = SHOP.address.of(family);
                let frame = |from| out(Frame::other(from, to, proto).payload(&[0; 24]));
                let named = tuple(SocketAddr::new(cards, 0), SocketAddr::new(to, 0), proto);
                guarded.holds(format!("protocol {proto} from card networks"), frame(cards), named)?;
                guarded.frees(format!("protocol {proto} from a client"), frame(FIRST_CLIENT.of(family)))?;
                let ping = out(Frame::other(FIRST_CLIENT.of(family), payment, proto).payload(&[0; 24]));
                guarded.frees(format!("protocol {proto} to payment, whose rule names ports"), ping)?;
            }
        }
    }
    Ok(())
}

#[test]
fn where_burst_is_to_touch_nothing_the_kernels_packets_are_reported() -> Result<()> {
    let kind = Kind { family: Family::V4, proto: TCP };
    let frame = || out(kind.frame(kind.client(), kind.payment()));
    let named = tuple(kind.client(), kind.payment(), TCP);

    let mut guarded = Guarded::new(bed()?, true)?;
    guarded.holds("enforced", frame(), named)?;
    guarded.bed.maps().set_control(true, 0);
    guarded.kernel = Fate::Reported;
    guarded.holds("bypass", frame(), named)?;
    guarded.bed.maps().set_control(false, 0);
    guarded.kernel = Fate::Stopped;
    guarded.holds("no bypass", frame(), named)?;

    let links = [DeviceLink { vlan: 0, link: guarded.link }];
    let post = Post { device: DX_DEVICE, links: &links, enforce: true, shadow: true };
    guarded.sentinel = guarded.bed.sentinel(&post)?;
    guarded.kernel = Fate::Reported;
    guarded.holds("shadow", frame(), named)
}

#[test]
fn everything_on_a_link_that_the_kernel_routes_is_for_it() -> Result<()> {
    for enforce in [false, true] {
        let mut guarded = Guarded::new(bed()?, enforce)?;
        let id = guarded.bed.link("dx-1");
        let row = guarded.bed.maps().link(id);
        let via = burst_common::link::Link { flags: burst_common::link::VIA_KERNEL, macs: [0; 3], ..row };
        guarded.bed.maps().set_link(id, &via);
        for kind in Kind::ALL {
            let cards = kind.at(CARDS, 40_000);
            let to = |mac, to| kind.frame(cards, to).macs(EDGE_DX_MAC, mac).build();
            for mac in [DIRECT_CONNECT_MAC, LOCAL_MAC] {
                guarded.holds(
                    kind.row("to anybody"),
                    to(mac, kind.shop(443)),
                    tuple(cards, kind.shop(443), kind.proto),
                )?;
            }
            // Only burst sends to an endpoint's address and port, and what burst sends is stopped.
            let renamed = Passage {
                name: kind.row("rewritten for an endpoint"),
                frame: to(LOCAL_MAC, kind.reserved(RENAMED)),
                fate: Fate::StoppedOwn,
                named: (tuple(cards, kind.reserved(RENAMED), kind.proto), guarded.link),
            };
            guarded.bed.watch(&mut guarded.sentinel, Gate::Kernel, &renamed)?;
            let beside = kind.reserved(22);
            guarded.holds(
                kind.row("an endpoint's other port"),
                to(LOCAL_MAC, beside),
                tuple(cards, beside, kind.proto),
            )?;
        }
    }
    Ok(())
}

#[test]
fn udp_ports_of_tcp_rules_are_free() -> Result<()> {
    let mut guarded = Guarded::new(bed()?, true)?;
    for family in Family::ALL {
        for (proto, kept) in [(TCP, true), (UDP, false)] {
            let kind = Kind { family, proto };
            let frame = out(kind.frame(kind.client(), kind.shop(KEPT_PORT)));
            match kept {
                true => guarded.holds(kind.row("kept"), frame, tuple(kind.client(), kind.shop(KEPT_PORT), proto))?,
                false => guarded.frees(kind.row("free"), frame)?,
            }
        }
    }
    Ok(())
}
