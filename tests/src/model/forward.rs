//! From a client: what stays, and what leaves how.

use std::net::{IpAddr, SocketAddr};

use burst::config::model::{Mode, Tier};

use super::hash::Flow;
use super::rewrite::{Change, Frame, ethernet, header};
use super::wire::{Body, IPV4, IPV6, UDP};
use super::world::{Decision, Line, Place, Shift, State, Tuple, World};
use super::{Answer, Verdict, Why, too_big};

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const RST: u8 = 0x04;
const FIN: u8 = 0x01;

/// Where a packet goes, and by what.
struct Leg<'a> {
    tier: &'a Tier,
    address: Option<IpAddr>,
    line: &'a Line,
}

/// All that may become of a packet from a client.
pub fn forward(world: &World, device: &'static str, frame: &Frame<'_>) -> Vec<Answer> {
    if matches!(frame.body, Body::Inside { .. }) {
        return vec![Answer::pass(frame.bytes, Why::NotUnderstood)];
    }
    match leg(world, frame) {
        Ok(leg) => send(world, device, frame, &leg),
        Err(Why::Held) => vec![Answer { verdict: Verdict::Drop, frame: frame.bytes.to_vec(), why: Why::Held }],
        Err(why) => vec![Answer::pass(frame.bytes, why)],
    }
}

/// Whether a packet opens a TCP connection (RFC 9293, section 3.5).
fn opens(frame: &Frame<'_>) -> bool {
    matches!(frame.body, Body::Tcp { flags, .. } if flags & (SYN | ACK | RST | FIN) == SYN)
}

/// The flow that a packet belongs to, as its client sends it.
fn flow(frame: &Frame<'_>) -> Flow {
    match frame.body {
        Body::Tcp { flow, .. } | Body::Udp { flow } => flow,
        // The error is about what the service sent.
        Body::Error { quoted } => quoted.flow.reversed(),
        Body::Inside { .. } => unreachable!("no client tunnels to this host"),
    }
}

fn leg<'a>(world: &'a World, frame: &Frame<'_>) -> Result<Leg<'a>, Why> {
    let flow = flow(frame);
    let shift = shift(world, frame, &flow)?;
    if matches!(frame.body, Body::Tcp { flags, .. } if flags & (SYN | ACK) == SYN | ACK) {
        return Err(Why::SynAck);
    }
    if world.bypass {
        return Err(Why::Bypass);
    }
    let (tier, address) = match world.place(&shift, &flow) {
        None => return Err(Why::Local),
        Some(Place::Nowhere) => return Err(Why::NoEndpoint),
        Some(Place::Endpoint(tier, address)) => {
            let tier = &shift.burst.tiers[tier];
            (tier, tier.endpoints.get(address).copied())
        }
    };
    // dnat changes addresses, not families.
    if tier.mode == Mode::Dnat && address.is_none_or(|address| address.is_ipv6() != frame.ip.v6) {
        return Err(Why::NoEndpoint);
    }
    // What has no way there yet has one here.
    let nowhere = if opens(frame) { Why::Local } else { Why::NoLink };
    let line = world.line(tier, world.hash(&flow)).ok_or(nowhere)?;
    if frame.ip.ttl <= 1 {
        return Err(Why::Ttl);
    }
    if world.config.edge.shadow {
        return Err(Why::Shadow);
    }
    if line.state != State::Up {
        return Err(Why::Held);
    }
    Ok(Leg { tier, address, line })
}

/// The class that takes the packet, if it is a burst class.
fn shift<'a>(world: &'a World, frame: &Frame<'_>, flow: &Flow) -> Result<Shift<'a>, Why> {
    if let Body::Error { quoted } = frame.body {
        if frame.ip.destination != quoted.flow.source.ip() {
            return Err(Why::NoMatch);
        }
        let outer =
            Tuple { source: frame.ip.source, destination: frame.ip.destination, protocol: frame.ip.protocol, port: 0 };
        if matches!(world.decide(&outer), Decision::Keep) {
            return Err(Why::Keep);
        }
    }
    match world.decide(&flow.into()) {
        Decision::Nobody => Err(Why::NoMatch),
        Decision::Keep => Err(Why::Keep),
        Decision::Burst(shift) => Ok(shift),
    }
}

/// What a service's port is in a tier.
pub fn renamed(tier: &Tier, port: u16) -> u16 {
    tier.ports.iter().find(|(from, _)| *from == port).map_or(port, |(_, to)| *to)
}

/// What a tier's tunnels to an address of this family add to a packet.
fn added(tier: &Tier, v6: bool) -> u16 {
    let outer = if v6 { 40 } else { 20 };
    match tier.mode {
        Mode::Nexthop | Mode::Dnat => 0,
        Mode::Ipip => outer,
        // UDP, and GUE without options.
        Mode::Gue => outer + 8 + 4,
    }
}

/// The largest packet of a client that fits every link of a tier on its way to an address of this family.
pub fn room(world: &World, tier: &Tier, v6: bool) -> u16 {
    let named = |name: &String| world.config.links.iter().position(|link| link.name == *name);
    let mtus = tier.links.iter().filter_map(named).map(|number| world.lines[number].mtu);
    mtus.min().unwrap_or(0).saturating_sub(added(tier, v6))
}

/// The largest segment of a packet of `room` bytes.
pub const fn segment(room: u16, v6: bool) -> u16 {
    room.saturating_sub(if v6 { 60 } else { 40 })
}

fn send(world: &World, device: &'static str, frame: &Frame<'_>, leg: &Leg<'_>) -> Vec<Answer> {
    let Leg { tier, address, line } = leg;
    let outer_v6 = address.is_some_and(|address| address.is_ipv6());
    let most = line.mtu - added(tier, outer_v6);
    if frame.ip.length > usize::from(most) {
        return too_big(device, frame, most);
    }
    let mut changes = Vec::new();
    if matches!(frame.body, Body::Tcp { flags, .. } if flags & SYN != 0) {
        changes.push(Change::Mss(segment(room(world, tier, outer_v6), frame.ip.v6)));
    }
    if let (Mode::Dnat, Some(address)) = (tier.mode, address) {
        let endpoint = SocketAddr::new(*address, renamed(tier, flow(frame).destination.port()));
        changes.extend(match frame.body {
            Body::Error { quoted } => {
                vec![Change::DestinationAddress(endpoint.ip()), Change::QuotedSource(quoted, endpoint)]
            }
            _ => vec![Change::Destination(endpoint)],
        });
    }
    if line.via_kernel {
        return vec![Answer::pass(&frame.with(&frame.changed(&changes)), Why::ViaKernel)];
    }
    changes.push(Change::Hop);
    let mut packet = frame.changed(&changes);
    let mut v6 = frame.ip.v6;
    if let (Mode::Gue | Mode::Ipip, Some(address)) = (tier.mode, address) {
        packet = outer(world, frame, leg, *address, packet);
        v6 = outer_v6;
    }
    let out = [ethernet(line.macs, line.vlan, v6), packet, frame.padding().to_vec()].concat();
    let why = match (frame.body, tier.mode) {
        (Body::Error { .. }, _) => Why::ErrorShifted,
        (_, Mode::Nexthop) => Why::Nexthop,
        (_, Mode::Dnat) => Why::Dnat,
        (_, Mode::Gue) => Why::Gue,
        (_, Mode::Ipip) => Why::Ipip,
    };
    vec![Answer::redirect(line.device, out, why)]
}

/// A packet inside a tunnel to `address`.
fn outer(world: &World, frame: &Frame<'_>, leg: &Leg<'_>, address: IpAddr, packet: Vec<u8>) -> Vec<u8> {
    let source = match address {
        IpAddr::V4(_) => leg.line.source4.map(IpAddr::from),
        IpAddr::V6(_) => leg.line.source6.map(IpAddr::from),
    };
    let source = source.expect("no tunnel goes over a link without a source of its family");
    let inner = if frame.ip.v6 { IPV6 } else { IPV4 };
    if leg.tier.mode == Mode::Ipip {
        return [header(source, address, inner, frame.ip.tos, packet.len()), packet].concat();
    }
    // One flow is one flow to every router on the way; 0xc000 and above are ports that nobody listens on (RFC 6335).
    // Not the bits that chose the slot: those are the same for all flows of it.
    let port = 0xc000 | (world.hash(&flow(frame)) >> 16) as u16 & 0x3fff;
    let mut datagram = port.to_be_bytes().to_vec();
    datagram.extend(leg.tier.port.unwrap_or(6080).to_be_bytes());
    datagram.extend((8 + 4 + packet.len() as u16).to_be_bytes());
    datagram.extend([0, 0, 0, inner, 0, 0]);
    datagram.extend(packet);
    [header(source, address, UDP, frame.ip.tos, datagram.len()), datagram].concat()
}
