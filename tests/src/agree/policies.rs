//! Configurations by chance: few addresses and ports, so that rules overlap, and each of burst's choices is made.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::dice::Dice;
use super::edge::{CLIENT0, DX0, DX1};
use super::spec::{Burst, Class, Link, Rule, Spec, Tier};

/// Last bytes of services' addresses.
const HOSTS: [u8; 6] = [10, 20, 21, 30, 40, 200];
/// Ports that rules begin or end with.
const PORTS: [u16; 10] = [1, 80, 443, 444, 1000, 4500, 8080, 8443, 40_000, u16::MAX];
/// VLANs of links.
pub const VLANS: [u16; 4] = [1, 101, 102, 4094];

/// A service's address.
pub fn service(host: u8, v6: bool) -> IpAddr {
    match v6 {
        true => Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, host.into()).into(),
        false => Ipv4Addr::new(203, 0, 113, host).into(),
    }
}

/// A configuration. Not all are valid: what the compiler refuses is thrown again.
pub fn policy(dice: &mut Dice) -> Spec {
    let clients = match dice.below(10) {
        0 => vec![CLIENT0, DX0],
        1 => vec![CLIENT0, DX1],
        _ => vec![CLIENT0],
    };
    let mut links: Vec<Link> = (0..dice.within(1..=4)).map(|number| link(dice, number, &clients)).collect();
    // A VPN has a device of its own.
    if dice.chance(60) && !clients.contains(&DX1) && links.iter().all(|link| link.device != DX1) {
        let vpn = Link { device: DX1, vlan: 0, next_hop: None, source: Vec::new(), ..links[0].clone() };
        let at = dice.below(links.len() + 1);
        links.insert(at, Link { name: "vpn".to_owned(), ..vpn });
    }
    let mut classes = Vec::new();
    for number in 0..dice.below(3) {
        classes.push(keep(dice, number));
    }
    for number in 0..dice.within(1..=3) {
        classes.push(burst(dice, number, &links));
    }
    if dice.chance(30) {
        classes.push(filler(dice));
    }
    // Keep rules are numbered first wherever their class stands.
    let turn = dice.below(classes.len());
    classes.rotate_left(turn);
    Spec { seed: format!("seed-{}", dice.below(1000)), shadow: dice.chance(5), clients, links, classes }
}

fn link(dice: &mut Dice, number: usize, clients: &[&str]) -> Link {
    let device = *dice.pick(&[DX0, DX0, DX0, DX1, CLIENT0]);
    let shared = clients.contains(&device);
    let vlan = if dice.chance(if shared { 70 } else { 40 }) { *dice.pick(&VLANS) } else { 0 };
    let host = 100 + number as u8;
    let router: [IpAddr; 2] =
        [Ipv4Addr::new(10, 64, 0, host).into(), Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, host.into()).into()];
    let host = 50 + number as u8;
    let mut source: Vec<IpAddr> =
        vec![Ipv4Addr::new(10, 64, 0, host).into(), Ipv6Addr::new(0xfd00, 0x64, 0, 0, 0, 0, 0, host.into()).into()];
    if dice.chance(5) {
        source.truncate(dice.below(2));
    }
    Link {
        name: format!("dx-{}", number + 1),
        device,
        vlan,
        next_hop: Some(*dice.pick(&router)),
        mtu: *dice.pick(&[1280, 1400, 1400, 1500, 1500, 1500, 8500]),
        fallback: dice.chance(15),
        source,
    }
}

/// A prefix around a service: one address, or some.
fn around(dice: &mut Dice, host: u8, v6: bool, whole: bool) -> IpNet {
    let address = service(host, v6);
    let length = if whole { 0 } else { *dice.pick(&[0, 0, 0, 2, 3, 5, 8]) };
    let most = if v6 { 128 } else { 32 };
    IpNet::new(address, most - length).expect("a length below the whole").trunc()
}

/// Prefixes of one or both families.
fn destinations(dice: &mut Dice, hosts: usize, whole: bool) -> Vec<IpNet> {
    let mut prefixes = Vec::new();
    for _ in 0..hosts {
        let host = *dice.pick(&HOSTS);
        let families: &[bool] = dice.pick::<&[bool]>(&[&[false, true], &[false, true], &[false], &[true]]);
        prefixes.extend(families.iter().map(|&v6| around(dice, host, v6, whole)));
    }
    prefixes.sort_unstable();
    prefixes.dedup();
    prefixes
}

/// Networks that packets come from.
fn sources(dice: &mut Dice) -> Vec<IpNet> {
    let all = [
        ["192.0.2.128/25", "2001:db8:ca::/48"],
        ["192.0.2.0/24", "2001:db8:ca:1::/64"],
        ["198.51.100.10/32", "2001:db8:51::10/128"],
        ["198.51.100.0/24", "2001:db8:51::/64"],
        ["198.51.100.8/29", "2001:db8:51::8/125"],
    ];
    let [four, six] = dice.pick(&all).map(|prefix| prefix.parse().expect("a prefix"));
    match dice.below(4) {
        0 => vec![four],
        1 => vec![six],
        _ => vec![four, six],
    }
}

fn range(dice: &mut Dice) -> (u16, u16) {
    let first = *dice.pick(&PORTS);
    match dice.below(4) {
        0 => (first, first.saturating_add(dice.within(1..=9) as u16)),
        1 => (first.saturating_sub(dice.within(1..=3) as u16).max(1), first),
        _ => (first, first),
    }
}

fn ranges(dice: &mut Dice, most: usize) -> Vec<(u16, u16)> {
    (0..dice.within(1..=most)).map(|_| range(dice)).collect()
}

fn proto(dice: &mut Dice) -> &'static str {
    if dice.chance(70) { "tcp" } else { "udp" }
}

fn keep(dice: &mut Dice, number: usize) -> Class {
    let rule = |dice: &mut Dice| {
        let mut rule = Rule { dst: Vec::new(), src: Vec::new(), proto: None, ports: Vec::new() };
        let shape = dice.below(8);
        if shape != 0 && shape != 1 {
            let hosts = dice.within(1..=2);
            rule.dst = destinations(dice, hosts, false);
        }
        if shape == 0 || shape == 2 {
            rule.src = sources(dice);
        }
        if matches!(shape, 1 | 3 | 4 | 5 | 6) {
            rule.proto = Some(proto(dice));
            if shape != 3 {
                rule.ports = ranges(dice, 3);
            }
        }
        rule
    };
    let rules = (0..dice.within(1..=3)).map(|_| rule(dice)).collect();
    Class { name: format!("keep-{number}"), rules, burst: None }
}

/// The endpoints of a tier, which no other tier has: `dnat`'s are of the families that it serves, a tunnel's of any.
fn endpoints(dice: &mut Dice, first: u8, rules: &[Rule], tunnels: bool) -> Vec<IpAddr> {
    let serves = |v6: bool| tunnels || rules.iter().flat_map(|rule| &rule.dst).any(|dst| dst.addr().is_ipv6() == v6);
    let mut addresses: Vec<IpAddr> = Vec::new();
    for number in 0..dice.within(1..=2) as u8 {
        if serves(false) && dice.chance(if tunnels { 60 } else { 95 }) {
            addresses.push(Ipv4Addr::new(10, 20, 0, first + number).into());
        }
        if serves(true) && (addresses.is_empty() || dice.chance(if tunnels { 50 } else { 95 })) {
            addresses.push(Ipv6Addr::new(0xfd00, 0x20, 0, 0, 0, 0, 0, u16::from(first + number)).into());
        }
    }
    addresses
}

fn burst(dice: &mut Dice, class: usize, links: &[Link]) -> Class {
    // dnat needs hosts, and each of its endpoints stands for one.
    let flat = dice.chance(50);
    let mut rules = Vec::new();
    let hosts = if flat { dice.within(1..=2) } else { 1 };
    let dst = destinations(dice, hosts, !flat);
    for _ in 0..dice.within(1..=2) {
        let src = if dice.chance(15) { sources(dice) } else { Vec::new() };
        rules.push(Rule { dst: dst.clone(), src, proto: Some(proto(dice)), ports: ranges(dice, 3) });
    }
    let one_arm = links.iter().any(|link| link.device == CLIENT0 && link.vlan == 0);
    let modes: &[&str] = match (flat, one_arm) {
        (true, false) => &["nexthop", "nexthop", "gue", "ipip"],
        (true, true) => &["gue", "ipip"],
        (false, false) => &["dnat", "dnat", "dnat", "nexthop", "gue", "ipip"],
        (false, true) => &["dnat", "dnat", "gue", "ipip"],
    };
    let tiers = (0..dice.within(1..=3)).map(|number| tier(dice, class, number, links, &rules, modes));
    let tiers = tiers.collect();
    let slots = *dice.pick(&[64, 64, 64, 128, 1024]);
    Class { name: format!("burst-{class}"), rules, burst: Some(Burst { by_client: dice.chance(40), slots, tiers }) }
}

fn tier(dice: &mut Dice, class: usize, number: usize, links: &[Link], rules: &[Rule], modes: &[&'static str]) -> Tier {
    let mode = *dice.pick(modes);
    let tunnels = matches!(mode, "gue" | "ipip");
    let mut tier = Tier {
        name: format!("tier-{number}"),
        mode,
        endpoints: Vec::new(),
        ports: Vec::new(),
        port: None,
        links: Vec::new(),
    };
    if mode != "nexthop" {
        tier.endpoints = endpoints(dice, (10 + class * 20 + number * 4) as u8, rules, tunnels);
    }
    if mode == "dnat" && dice.chance(60) {
        let named: Vec<u16> = rules.iter().flat_map(|rule| &rule.ports).flat_map(|ports| [ports.0, ports.1]).collect();
        tier.ports.push((*dice.pick(&named), *dice.pick(&[8443, 8080, 9999, 18_443])));
    }
    if mode == "gue" && dice.chance(20) {
        tier.port = Some(*dice.pick(&[6081, 443, 6080]));
    }
    // Only dnat goes by the kernel.
    let links: Vec<_> = links.iter().filter(|link| mode == "dnat" || link.next_hop.is_some()).collect();
    let first = dice.below(links.len());
    let wanted = dice.within(1..=links.len());
    tier.links = (0..wanted).map(|n| links[(first + n) % links.len()].name.clone()).collect();
    tier
}

/// More prefixes and ports than are matched inline: the policy is looked up in maps.
fn filler(dice: &mut Dice) -> Class {
    let hosts = 0..20_u8;
    let mut dst: Vec<IpNet> = hosts.clone().map(|n| service(100 + n, false).into()).collect();
    dst.extend(hosts.clone().map(|n| IpNet::from(service(100 + n, true))));
    // Longer and shorter ones than the other rules', so that they lie in one another.
    for v6 in [false, true] {
        let host = *dice.pick(&HOSTS);
        dst.extend([around(dice, host, v6, true), around(dice, host, v6, false)]);
    }
    dst.sort_unstable();
    dst.dedup();
    let src = match dice.chance(50) {
        true => (0..20).flat_map(|n| [format!("192.0.2.{}/32", 128 + n), format!("2001:db8:ca::{n}/128")]).collect(),
        false => Vec::new(),
    };
    let src = src.iter().map(|prefix| prefix.parse().expect("a prefix")).collect();
    let mut ports: Vec<(u16, u16)> = (0..20).map(|n| (9000 + 2 * n, 9000 + 2 * n)).collect();
    ports.push(range(dice));
    Class { name: "filler".to_owned(), rules: vec![Rule { dst, src, proto: Some(proto(dice)), ports }], burst: None }
}
