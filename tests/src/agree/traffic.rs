//! Packets by chance, near everything that a configuration tells apart: its addresses and ports and those beside them,
//! ways in and out, sizes around MTUs, ends of ways, and everything that may stand between Ethernet and ports.

use std::net::{IpAddr, SocketAddr};

use burst::config::model::{Config, Mode, Rule, Tier};
use ipnet::IpNet;

use super::dice::Dice;
use super::draft::{Draft, Transport};
use super::edge::{CLIENT0, DX0, DX1, PORTS};
use super::mutate::mutate;
use super::policies::VLANS;
use crate::model::wire::{TCP, UDP};
use crate::model::world::{Line, World};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Clients: those whose MAC address is known and unknown, behind the gateway and other routers, this host itself,
/// card networks, and where nobody is.
const CLIENTS: [[&str; 2]; 16] = [
    ["198.51.100.10", "2001:db8:51::10"],
    ["198.51.100.10", "2001:db8:51::10"],
    ["198.51.100.11", "2001:db8:51::11"],
    ["198.51.100.12", "2001:db8:51::12"],
    ["198.51.100.1", "2001:db8:51::1"],
    ["198.51.100.255", "2001:db8:51::"],
    ["192.0.2.7", "2001:db8:7::7"],
    ["192.0.2.140", "2001:db8:ca::5"],
    ["192.0.2.150", "2001:db8:ca:1::5"],
    ["192.0.2.70", "2001:db8:dead::1"],
    ["192.0.2.40", "2001:db8:beef::1"],
    ["198.18.0.1", "2001:db8:98::1"],
    ["198.19.0.1", "2001:db8:99::1"],
    ["10.64.0.2", "fd00:64::2"],
    ["10.64.0.1", "fe80::1"],
    ["224.0.0.1", "ff02::1"],
];

/// A packet on its way to the host: the device it arrives on, and the tunnel it arrives in.
struct Arrival {
    draft: Draft,
    device: &'static str,
    tunnel: Option<Tunnel>,
}

/// Outer addresses, and the UDP port of `gue`.
struct Tunnel {
    source: IpAddr,
    destination: IpAddr,
    port: Option<u16>,
}

/// A frame and the device that it arrives on.
#[must_use]
pub fn frame(dice: &mut Dice, world: &World) -> (&'static str, Vec<u8>) {
    let Arrival { mut draft, device, tunnel } = match dice.below(20) {
        0..=10 => request(dice, &world.config),
        11..=17 => reply(dice, world),
        18 => client_error(dice, world),
        _ => between_any(dice),
    };
    let device = if dice.chance(3) { *dice.pick(&[CLIENT0, DX0, DX1]) } else { device };
    let mac = PORTS.iter().find(|port| port.name == device).expect("a device").mac;
    decorate(dice, &mut draft);
    if draft.payload.is_empty() {
        size(dice, world, &mut draft);
    }
    let tags = std::mem::take(&mut draft.tags);
    if let Some(tunnel) = tunnel {
        draft = tunnelled(dice, &draft, &tunnel);
    }
    draft.tags = tags;
    draft.macs[0] = if dice.chance(2) { [0x00, 0x00, 0x5e, 0x00, 0x53, dice.byte()] } else { mac };
    tag(dice, world, device, &mut draft);
    let mut frame = draft.frame();
    if dice.chance(25) {
        mutate(dice, &mut frame);
    }
    // Test runs take no frame that is shorter than its Ethernet header.
    if frame.len() < 14 {
        frame.resize(14, 0);
    }
    (device, frame)
}

/// A packet inside another.
fn tunnelled(dice: &mut Dice, inner: &Draft, tunnel: &Tunnel) -> Draft {
    let number = if inner.v6() { 41 } else { 4 };
    let port = if dice.chance(3) { tunnel.port.xor(Some(6080)) } else { tunnel.port };
    let (source, destination) = (tunnel.source, tunnel.destination);
    let mut outer = match port {
        Some(port) => {
            let (source, destination) = (SocketAddr::new(source, dice.word()), SocketAddr::new(destination, port));
            let mut outer = Draft::new(source, destination, Transport::Udp(dice.chance(30)));
            outer.payload = match dice.below(30) {
                0 => vec![dice.byte(), number, 0, 0],
                1 => vec![0, dice.byte(), 0, 0],
                2 => vec![0, number, dice.byte(), dice.byte()],
                _ => vec![0, number, 0, 0],
            };
            outer
        }
        None => {
            let number = if dice.chance(3) { 45 - number } else { number };
            Draft::new(SocketAddr::new(source, 0), SocketAddr::new(destination, 0), Transport::Other(number))
        }
    };
    let mut packet = inner.packet();
    if dice.chance(10) {
        mutate(dice, &mut packet);
    }
    outer.payload.extend(packet);
    let ecn = *dice.pick(&[0, 0, 1, 2, 3, 3]);
    decorate(dice, &mut outer);
    outer.tos = outer.tos & 0xfc | ecn;
    outer
}

fn client(dice: &mut Dice, v6: bool) -> SocketAddr {
    let address: IpAddr = dice.pick(&CLIENTS)[usize::from(v6)].parse().expect("an address");
    SocketAddr::new(address, dice.word().max(1))
}

/// An address in a prefix: its first, its last, or any.
fn inside(dice: &mut Dice, prefix: IpNet) -> IpAddr {
    match (dice.below(3), prefix) {
        (0, _) => prefix.network(),
        (1, _) => prefix.broadcast(),
        (_, IpNet::V4(prefix)) => {
            (prefix.network() | std::net::Ipv4Addr::from_bits(dice.next() as u32) & prefix.hostmask()).into()
        }
        (_, IpNet::V6(prefix)) => {
            let any = std::net::Ipv6Addr::from_bits(u128::from(dice.next()) << 64 | u128::from(dice.next()));
            (prefix.network() | any & prefix.hostmask()).into()
        }
    }
}

/// The address behind one, or before it.
fn beside(dice: &mut Dice, address: IpAddr) -> IpAddr {
    let up = dice.chance(50);
    match address {
        IpAddr::V4(address) => {
            let bits = address.to_bits();
            std::net::Ipv4Addr::from_bits(if up { bits.wrapping_add(1) } else { bits.wrapping_sub(1) }).into()
        }
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            std::net::Ipv6Addr::from_bits(if up { bits.wrapping_add(1) } else { bits.wrapping_sub(1) }).into()
        }
    }
}

fn port(dice: &mut Dice, ranges: &[(u16, u16)]) -> u16 {
    if ranges.is_empty() {
        return dice.word();
    }
    let (first, last) = *dice.pick(ranges);
    match dice.below(20) {
        0 => first.wrapping_sub(1),
        1 => last.wrapping_add(1),
        2..=8 => first,
        9..=15 => last,
        _ => dice.within(usize::from(first)..=usize::from(last)) as u16,
    }
}

/// Who speaks to what a rule names: source and destination, and the protocol.
fn by_rule(dice: &mut Dice, rule: &Rule) -> (SocketAddr, SocketAddr, u8) {
    let destination = match rule.dst.is_empty() {
        true => super::policies::service(*dice.pick(&[10, 20, 77]), dice.chance(50)),
        false => {
            let prefix = *dice.pick(&rule.dst);
            inside(dice, prefix)
        }
    };
    let destination = if dice.chance(4) { beside(dice, destination) } else { destination };
    let v6 = destination.is_ipv6();
    let mut source = client(dice, v6);
    let named: Vec<IpNet> = rule.src.iter().copied().filter(|prefix| prefix.addr().is_ipv6() == v6).collect();
    if !named.is_empty() && dice.chance(70) {
        let prefix = *dice.pick(&named);
        source.set_ip(inside(dice, prefix));
    }
    let protocol = rule.proto.unwrap_or(if dice.chance(60) { TCP } else { UDP });
    let protocol = if dice.chance(5) { TCP + UDP - protocol } else { protocol };
    (source, SocketAddr::new(destination, port(dice, &rule.ports)), protocol)
}

fn transport(dice: &mut Dice, protocol: u8) -> Transport {
    if protocol == UDP {
        return Transport::Udp(dice.chance(85));
    }
    let flags = *dice.pick(&[SYN, SYN, SYN, ACK, ACK, ACK, SYN | ACK, FIN | ACK, RST, 0, SYN | 0xc0, SYN | FIN, 0xff]);
    Transport::Tcp(flags, tcp_options(dice))
}

fn tcp_options(dice: &mut Dice) -> Vec<u8> {
    let [high, low] = dice.pick::<u16>(&[1460, 1440, 536, 1220, 1360, 9000, 65_535, 0, 1]).to_be_bytes();
    let mss = [2, 4, high, low];
    let mut options = match dice.below(12) {
        0..=2 => Vec::new(),
        3..=5 => mss.to_vec(),
        6 => [&[1, 1, 4, 2][..], &mss].concat(),
        7 => [&[1][..], &mss, &[8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1]].concat(),
        8 => [&vec![1; dice.within(6..=14)][..], &mss].concat(),
        9 => [&[0][..], &mss].concat(),
        10 => [&[2, dice.byte() % 8, high, low][..], &mss].concat(),
        _ => {
            let length = dice.within(1..=40);
            dice.bytes(length)
        }
    };
    options.truncate(40);
    options.resize(options.len().next_multiple_of(4), 0);
    options
}

/// Somebody speaks to a service.
fn request(dice: &mut Dice, config: &Config) -> Arrival {
    let class = match dice.chance(75) {
        true => {
            let bursts: Vec<_> = config.classes.iter().filter(|class| class.burst.is_some()).collect();
            *dice.pick(&bursts)
        }
        false => dice.pick(&config.classes),
    };
    let rule = dice.pick(&class.rules);
    let (source, destination, protocol) = by_rule(dice, rule);
    let draft = Draft::new(source, destination, transport(dice, protocol));
    let clients = &config.edge.client;
    let device = dice.pick(clients);
    Arrival { draft, device: PORTS.iter().find(|port| port.name == device).expect("a device").name, tunnel: None }
}

/// A packet that an error quotes, as much of it as the error's sender had or wanted.
fn quote(dice: &mut Dice, from: SocketAddr, to: SocketAddr, protocol: u8) -> Vec<u8> {
    let mut quoted = Draft::new(from, to, transport(dice, protocol));
    quoted.ttl = dice.byte();
    if dice.chance(10) {
        quoted.options = ip_options(dice);
    }
    if dice.chance(10) {
        quoted.fragment = *dice.pick(&[0, 0x2000, 0x2001, 0x0100]);
    }
    if quoted.v6() && dice.chance(5) {
        quoted.extensions.push((60, extension(dice, 60)));
    }
    let length = dice.below(30);
    quoted.payload = dice.bytes(length);
    let mut packet = quoted.packet();
    if dice.chance(10) {
        mutate(dice, &mut packet);
    }
    // At least eight bytes behind the header (RFC 792), as much as fits (RFC 1812 section 4.3.2.3), or too few.
    let header = if quoted.v6() { 40 } else { 20 };
    let most = match dice.below(10) {
        0..=3 => header + 8,
        4 => header + dice.below(20),
        _ => packet.len(),
    };
    packet.truncate(most);
    packet
}

/// An ICMP error.
fn error(dice: &mut Dice, v6: bool) -> Transport {
    let kind = match (v6, dice.chance(90)) {
        (false, true) => *dice.pick(&[3, 3, 3, 4, 11, 12]),
        (true, true) => *dice.pick(&[1, 2, 2, 3, 4]),
        (false, false) => *dice.pick(&[0, 5, 8, 13]),
        (true, false) => *dice.pick(&[0, 128, 133, 135, 137]),
    };
    Transport::Icmp(kind, dice.byte() % 6, [0, 0, dice.byte(), dice.byte()])
}

/// A client, or a router before it, says that a packet of a service did not arrive.
fn client_error(dice: &mut Dice, world: &World) -> Arrival {
    let Arrival { draft, device, .. } = request(dice, &world.config);
    let protocol = if matches!(draft.transport, Transport::Udp(_)) { UDP } else { TCP };
    let (client, service) = (draft.source, draft.destination);
    let from = if dice.chance(50) { client } else { self::client(dice, draft.v6()) };
    let to = if dice.chance(95) { service } else { self::client(dice, draft.v6()) };
    let mut draft = Draft::new(from, to, error(dice, draft.v6()));
    draft.payload = quote(dice, service, client, protocol);
    if dice.chance(15) {
        // Larger than any link takes it.
        draft.payload.resize(9300, 0);
    }
    Arrival { draft, device, tunnel: None }
}

/// Somebody behind a link answers, or pretends to.
fn reply(dice: &mut Dice, world: &World) -> Arrival {
    let bursts: Vec<_> = world.config.classes.iter().filter(|class| class.burst.is_some()).collect();
    let class = *dice.pick(&bursts);
    let tiers = &class.burst.as_ref().expect("a burst class").tiers;
    let tier = dice.pick(tiers);
    let rule = dice.pick(&class.rules);
    let (mut to, mut from, protocol) = by_rule(dice, rule);
    if tier.mode == Mode::Dnat {
        let same: Vec<_> = tier.endpoints.iter().filter(|address| address.is_ipv6() == from.is_ipv6()).collect();
        if !same.is_empty() {
            from.set_ip(**dice.pick(&same));
        }
        if dice.chance(90) {
            from.set_port(crate::model::forward::renamed(tier, from.port()));
        }
    }
    if dice.chance(6) {
        // To a service, as if it were a client, or from another class's.
        let other = dice.pick(&world.config.classes);
        let rule = dice.pick(&other.rules);
        let (_, service, _) = by_rule(dice, rule);
        if service.is_ipv6() == from.is_ipv6() {
            *if dice.chance(50) { &mut to } else { &mut from } = service;
        }
    }
    let link = dice.pick(&tier.links);
    let number = world.config.links.iter().position(|found| found.name == *link).expect("a link");
    let line = &world.lines[number];
    let draft = if dice.chance(15) {
        let sender = if dice.chance(40) { from } else { client(dice, from.is_ipv6()) };
        let receiver = if dice.chance(95) { to } else { client(dice, from.is_ipv6()) };
        let mut draft = Draft::new(sender, receiver, error(dice, from.is_ipv6()));
        draft.payload = quote(dice, to, from, protocol);
        draft
    } else {
        Draft::new(from, to, transport(dice, protocol))
    };
    let tunnel = (tier.mode.tunnels() && dice.chance(95)).then(|| tunnel(dice, world, tier, line)).flatten();
    let mut arrival = Arrival { draft, device: line.device, tunnel };
    if line.vlan != 0 {
        arrival.draft.tags.push((0x8100, line.vlan | u16::from(dice.byte()) << 13));
    }
    arrival
}

/// The tunnel of a tier's endpoint over a link, or nearly.
fn tunnel(dice: &mut Dice, world: &World, tier: &Tier, line: &Line) -> Option<Tunnel> {
    let source = *dice.pick(&tier.endpoints);
    let line = if dice.chance(5) { dice.pick(&world.lines) } else { line };
    let destination = match source {
        IpAddr::V4(_) => line.source4?.into(),
        IpAddr::V6(_) => line.source6?.into(),
    };
    let source = if dice.chance(3) { beside(dice, source) } else { source };
    let gue = (tier.mode == Mode::Gue) != dice.chance(3);
    Some(Tunnel { source, destination, port: gue.then(|| tier.port.unwrap_or(6080)) })
}

/// Anything to anywhere.
fn between_any(dice: &mut Dice) -> Arrival {
    let v6 = dice.chance(50);
    let (source, destination) = (client(dice, v6), client(dice, v6));
    let protocol = *dice.pick(&[1, 2, 4, 6, 17, 41, 47, 50, 58, 59, 132, 255]);
    let mut draft = Draft::new(source, destination, Transport::Other(protocol));
    let length = dice.below(60);
    draft.payload = dice.bytes(length);
    Arrival { draft, device: dice.pick::<&str>(&[CLIENT0, DX0, DX1]), tunnel: None }
}

/// What stands between Ethernet and ports, and the fields that say little.
fn decorate(dice: &mut Dice, draft: &mut Draft) {
    draft.ttl = *dice.pick(&[64, 64, 64, 64, 64, 64, 64, 128, 255, 3, 2, 1, 0]);
    draft.tos = if dice.chance(30) { dice.byte() } else { 0 };
    if dice.chance(30) {
        draft.fragment = *dice.pick(&[0, 0, 0, 0x8000, 0x2000, 0x0001, 0x1fff, 0xc000]);
    }
    if dice.chance(15) {
        draft.padding = dice.within(1..=30);
    }
    if dice.chance(12) {
        draft.options = ip_options(dice);
    }
    if draft.v6() && dice.chance(15) {
        let count = *dice.pick(&[1, 1, 1, 2, 2, 3, 6, 7]);
        for n in 0..count {
            let number =
                if n == 0 { *dice.pick(&[0, 0, 60, 60, 43, 44]) } else { *dice.pick(&[60, 60, 60, 60, 43, 44, 0]) };
            let number = if dice.chance(8) { *dice.pick(&[51, 135, 139, 140, 253, 59, 50]) } else { number };
            draft.extensions.push((number, extension(dice, number)));
        }
    }
}

fn ip_options(dice: &mut Dice) -> Vec<u8> {
    let mut options = match dice.below(8) {
        0 => vec![148, 4, 0, 0],
        1 => vec![1; dice.within(1..=14)],
        2 => vec![7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0],
        3 => vec![*dice.pick(&[131, 137]), 7, 4, 10, 20, 0, 10],
        4 => vec![0, 131, 7, 4],
        5 => [vec![1; dice.within(7..=11)], vec![131, 3, 4]].concat(),
        6 => [vec![1; dice.within(0..=3)], vec![dice.byte(), dice.byte() % 12, 0]].concat(),
        _ => {
            let length = dice.within(1..=40);
            dice.bytes(length)
        }
    };
    options.resize(options.len().next_multiple_of(4), 0);
    options
}

/// The bytes of an extension header behind its first.
fn extension(dice: &mut Dice, number: u8) -> Vec<u8> {
    if number == 44 {
        let [high, low] = dice.pick::<u16>(&[0, 0, 0, 1, 8, 6, 0xfff8]).to_be_bytes();
        return [&[dice.byte(), high, low][..], &dice.bytes(4)].concat();
    }
    let units = *dice.pick(&[0, 0, 0, 1, 2]);
    let length = 6 + 8 * units;
    let mut rest = [vec![units as u8], dice.bytes(length)].concat();
    if number == 43 {
        // Type, and segments left.
        rest[2] = *dice.pick(&[0, 0, 0, 1, 255]);
    }
    rest
}

/// Tags beside those of the link.
fn tag(dice: &mut Dice, world: &World, device: &str, draft: &mut Draft) {
    let id = |dice: &mut Dice| *dice.pick(&[0x8100, 0x8100, 0x88a8]);
    match dice.below(30) {
        // Of one of the device's links.
        0..=2 => {
            let vlans: Vec<u16> =
                world.lines.iter().filter(|line| line.device == device).map(|line| line.vlan).collect();
            if let Some(&vlan) = vlans.first() {
                draft.tags = vec![(id(dice), vlan)];
            }
        }
        3 => {
            let tag = (id(dice), *dice.pick(&VLANS) | u16::from(dice.byte()) << 12);
            draft.tags.push(tag);
        }
        4 => draft.tags = vec![(0x8100, u16::from(dice.byte()) << 13)],
        5 => draft.tags = (0..dice.within(2..=4)).map(|_| (id(dice), *dice.pick(&VLANS))).collect(),
        6 => draft.tags.clear(),
        _ => {}
    }
}

/// How long the packet is.
fn size(dice: &mut Dice, world: &World, draft: &mut Draft) {
    let length = match dice.below(20) {
        0..=14 => dice.below(40),
        15..=18 => {
            // Around what a link or device takes, with or without what a tunnel adds.
            let mtus: Vec<u16> = world.lines.iter().map(|line| line.mtu).chain([1400, 1500]).collect();
            let most = usize::from(*dice.pick(&mtus)) - dice.pick(&[0, 0, 0, 20, 32, 40, 52]);
            let headers = draft.packet().len() - draft.payload.len();
            (most + dice.below(3)).saturating_sub(1 + headers)
        }
        _ => dice.within(500..=4000),
    };
    draft.payload = dice.bytes(length);
}
