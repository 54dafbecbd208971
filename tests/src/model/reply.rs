//! From a link: what goes home to a client, and how.

use std::net::{IpAddr, SocketAddr};

use burst::config::model::{Class, Mode, Rule, Tier};

use super::forward::{renamed, room, segment};
use super::hash::Flow;
use super::rewrite::{Change, Frame, ethernet};
use super::routes::Said;
use super::wire::{self, Body, Ethernet, byte};
use super::world::{Decision, Line, State, Tuple, World, matches};
use super::{Answer, Verdict, Why};

const SYN: u8 = 0x02;

/// All that may become of a packet from a link; `None`: it is not a return.
pub fn reply(world: &World, device: &str, frame: &Frame<'_>) -> Option<Vec<Answer>> {
    if let Some(answers) = tunnel(world, device, frame) {
        return Some(answers);
    }
    match frame.body {
        Body::Tcp { flow, .. } | Body::Udp { flow } => {
            let Name { changes, room, why } = name(world, &flow)?;
            Some(home(world, frame, &changes, room, why))
        }
        Body::Error { quoted } => {
            // It is about what the client sent, as it left.
            if frame.ip.destination != quoted.flow.source.ip() || kept(world, &quoted.flow.reversed()) {
                return None;
            }
            let Name { room, .. } = name(world, &quoted.flow.reversed())?;
            let changes = match service(world, quoted.flow.destination, quoted.flow.protocol) {
                Some((service, _)) => {
                    vec![Change::SourceAddress(service.ip()), Change::QuotedDestination(quoted, service)]
                }
                None => Vec::new(),
            };
            Some(home(world, frame, &changes, room, Why::ErrorReturned))
        }
        Body::Inside { .. } => None,
    }
}

/// A packet out of a tunnel: from an endpoint to the source of the tunnels over its link; `None`: it is no such packet.
fn tunnel<'a>(world: &'a World, device: &str, frame: &Frame<'_>) -> Option<Vec<Answer>> {
    let packet = frame.packet();
    let tiers = |class: &'a Class| class.burst.iter().flat_map(|burst| &burst.tiers);
    let tunnels = |tier: &&Tier| tier.mode.tunnels() && tier.endpoints.contains(&frame.ip.source);
    let (class, tier) =
        world.config.classes.iter().find_map(|class| tiers(class).find(tunnels).map(|tier| (class, tier)))?;
    let (at, end, v6) = match (frame.body, tier.mode) {
        (Body::Inside { v6 }, Mode::Ipip) => (frame.ip.body, frame.ip.length, v6),
        (Body::Udp { flow }, Mode::Gue) if tier.port == Some(flow.destination.port()) => wire::gue(packet, &frame.ip)?,
        _ => return None,
    };
    let ours = |line: &&Line| match frame.ip.destination {
        IpAddr::V4(destination) => line.source4 == Some(destination),
        IpAddr::V6(destination) => line.source6 == Some(destination),
    };
    // Of several links in one VLAN it is not known which one it is: then the source of any will do.
    let candidates: Vec<&Line> = match world.lines_on(device, frame.ethernet.vlan).count() {
        1 => world.lines_on(device, frame.ethernet.vlan).collect(),
        _ => world.lines.iter().filter(|line| !line.via_kernel).collect(),
    };
    candidates.into_iter().filter(|line| line.state == State::Up).find(ours)?;
    if world.bypass {
        return Some(vec![Answer::pass(frame.bytes, Why::Bypass)]);
    }
    let dropped = |why| Some(vec![Answer { verdict: Verdict::Drop, frame: frame.bytes.to_vec(), why }]);
    let Some(ip) = wire::ip(&packet[at..end], v6) else { return dropped(Why::Unreadable) };
    let Some(body) = wire::body(&packet[at..end], &ip) else { return dropped(Why::Unreadable) };
    // As if it had come without the tunnel.
    let bytes = [&ethernet([[0; 6]; 2], 0, v6), &frame.bytes[frame.ethernet.packet() + at..]].concat();
    let ethernet = Ethernet { vlan: 0, tags: 0 };
    let inner = Frame { bytes: &bytes, ethernet, ip, body };
    let flow = match body {
        Body::Tcp { flow, .. } | Body::Udp { flow } => flow.reversed(),
        // A router behind the endpoint has no address that is known: only the service itself speaks.
        Body::Error { quoted }
            if ip.destination == quoted.flow.source.ip() && ip.source == quoted.flow.destination.ip() =>
        {
            quoted.flow
        }
        Body::Error { .. } => return dropped(Why::Spoofed),
        Body::Inside { .. } => return dropped(Why::Unreadable),
    };
    match world.decide(&(&flow).into()) {
        Decision::Burst(shift) if shift.class.name == class.name && !kept(world, &flow.reversed()) => {}
        _ => return dropped(Why::Spoofed),
    }
    // RFC 6040 section 4.2.
    let mut changes = Vec::new();
    if frame.ip.tos & 3 == 3 {
        match ip.tos & 3 {
            0 => return dropped(Why::Congested),
            _ => changes.push(Change::Tos(ip.tos | 3)),
        }
    }
    let room = room(world, tier, frame.ip.v6);
    let answers = home(world, &inner, &changes, room, Why::TunnelReturned);
    // What does not leave stays in its tunnel.
    let whole = |answer: Answer| match answer.verdict {
        Verdict::Redirect(_) => answer,
        Verdict::Pass | Verdict::Drop => Answer::pass(frame.bytes, answer.why),
    };
    Some(answers.into_iter().map(whole).collect())
}

/// The service behind an endpoint's socket, and its tier.
fn service(world: &World, endpoint: SocketAddr, protocol: u8) -> Option<(SocketAddr, &Tier)> {
    for class in &world.config.classes {
        for tier in class.burst.iter().flat_map(|burst| &burst.tiers) {
            if tier.mode != Mode::Dnat || !tier.endpoints.contains(&endpoint.ip()) {
                continue;
            }
            // Ports that become the endpoint's in this tier.
            let renames = tier.ports.iter().map(|(from, _)| *from).chain([endpoint.port()]);
            let ports: Vec<u16> = renames.filter(|&port| renamed(tier, port) == endpoint.port()).collect();
            for rule in class.rules.iter().filter(|rule| rule.proto == Some(protocol)) {
                let named = |port: u16| rule.ports.iter().any(|&(first, last)| (first..=last).contains(&port));
                let port = ports.iter().copied().find(|&port| named(port));
                let host = rule.dst.iter().map(|dst| dst.addr()).find(|host| host.is_ipv6() == endpoint.is_ipv6());
                if let (Some(port), Some(host)) = (port, host) {
                    return Some((SocketAddr::new(host, port), tier));
                }
            }
        }
    }
    None
}

/// What a reply is to be called, and what it is.
struct Name {
    changes: Vec<Change>,
    /// The largest packet of its flow.
    room: u16,
    why: Why,
}

fn name(world: &World, flow: &Flow) -> Option<Name> {
    if kept(world, flow) {
        return None;
    }
    if let Some((service, tier)) = service(world, flow.source, flow.protocol) {
        let room = room(world, tier, flow.source.is_ipv6());
        return Some(Name { changes: vec![Change::Source(service)], room, why: Why::DnatReturned });
    }
    let Decision::Burst(shift) = world.decide(&(&flow.reversed()).into()) else { return None };
    let tiers = shift.burst.tiers.iter().filter(|tier| tier.mode == Mode::Nexthop);
    let room = tiers.map(|tier| room(world, tier, false)).min()?;
    Some(Name { changes: Vec::new(), room, why: Why::NexthopReturned })
}

/// Whether it speaks to a payment service, which would take it for a client's. By destination and port: whom a rule
/// names as sources is not asked, since the source is not what it will be.
fn kept(world: &World, flow: &Flow) -> bool {
    let tuple: Tuple = flow.into();
    let mut rules = world.config.classes.iter().filter(|class| class.burst.is_none()).flat_map(|class| &class.rules);
    rules.any(|rule| !rule.dst.is_empty() && matches(&Rule { src: Vec::new(), ..rule.clone() }, &tuple))
}

/// Sends a packet to its client, or leaves it to the kernel as far as that is due.
fn home(world: &World, frame: &Frame<'_>, names: &[Change], room: u16, why: Why) -> Vec<Answer> {
    if world.bypass {
        return vec![Answer::pass(frame.bytes, Why::Bypass)];
    }
    let said = world.routes.ask(frame.ip.destination, frame.ip.length);
    let mut changes = names.to_vec();
    if matches!(frame.body, Body::Tcp { flags, .. } if flags & SYN != 0) {
        changes.push(Change::Mss(segment(room, frame.ip.v6)));
    }
    let named = |why| Answer::pass(&frame.with(&frame.changed(&changes)), why);
    let untouched = |why| Answer::pass(frame.bytes, why);
    let answer = match said {
        Said::NotForwarded => untouched(Why::NotForwarded),
        _ if frame.ip.ttl <= 1 => untouched(Why::Ttl),
        Said::Unknown => named(Why::NoNeighbour),
        Said::TooBig if may_fragment(frame) => named(Why::ReturnTooBig),
        Said::TooBig => untouched(Why::ReturnTooBig),
        Said::Sent(device, mac) => {
            let packet = frame.changed(&[&changes[..], &[Change::Hop]].concat());
            let macs = [mac, world.device(device).mac];
            let out = [ethernet(macs, 0, frame.ip.v6), packet, frame.padding().to_vec()].concat();
            Answer::redirect(device, out, why)
        }
    };
    vec![answer]
}

fn may_fragment(frame: &Frame<'_>) -> bool {
    matches!(frame.ip.destination, IpAddr::V4(_)) && byte(frame.packet(), 6).is_some_and(|flags| flags & 0x40 == 0)
}
