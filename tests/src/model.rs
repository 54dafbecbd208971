//! A second opinion on every packet: its verdict and its bytes, worked out naively from the configuration, the RFCs and
//! the words of the documentation.
//!
//! It shares nothing with the data plane. Rules are scanned in order, the service behind an endpoint is searched for
//! port by port, checksums are added up over whole packets: slow and plain is the point. Of burst it uses the validated
//! configuration as plain data, and nothing else.

pub mod hash;
pub mod sum;
pub mod wire;

pub mod routes;
pub mod world;

pub mod rewrite;

pub mod forward;
pub mod reply;

use self::rewrite::Frame;
use self::wire::Body;
use self::world::World;
pub use crate::golden::Verdict;

/// Why a packet becomes what it becomes. Coarser and finer than the program's reasons: it is for people, and to see
/// that a run of generated packets got everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// For another host, or not understood in every part.
    NotUnderstood,
    /// From nowhere that burst cares for.
    Foreign,
    /// No rule matches, or what comes by a link is no return.
    NoMatch,
    /// Payment.
    Keep,
    /// A SYN-ACK from a client.
    SynAck,
    /// Everything passes.
    Bypass,
    /// Its slot is local.
    Local,
    /// Its slot names an endpoint that is not there, or of the other family.
    NoEndpoint,
    /// No link is up.
    NoLink,
    /// Its link is down, for the moment: it waits.
    Held,
    /// At the end of its way.
    Ttl,
    /// It would leave, were this not shadow mode.
    Shadow,
    /// Left, layer 2 only.
    Nexthop,
    /// Left, with another destination.
    Dnat,
    /// Left, inside UDP.
    Gue,
    /// Left, inside another IP packet.
    Ipip,
    /// Rewritten, and left to the routing table.
    ViaKernel,
    /// An ICMP error that went where its flow went.
    ErrorShifted,
    /// Too big, and nobody is told.
    TooBig,
    /// Too big, and its sender is told.
    TooBigAnswered,
    /// A reply to this host, or without a way.
    NotForwarded,
    /// A reply whose client's MAC address is not known.
    NoNeighbour,
    /// A reply that does not fit the clients' side.
    ReturnTooBig,
    /// A reply that got its service's name.
    DnatReturned,
    /// A reply that needs none.
    NexthopReturned,
    /// A reply out of a tunnel.
    TunnelReturned,
    /// An ICMP error that went to the client of its flow.
    ErrorReturned,
    /// Out of a tunnel, and not understood in every part.
    Unreadable,
    /// Out of a tunnel, and no reply of its endpoint's class.
    Spoofed,
    /// Out of a tunnel that says "congestion experienced", to somebody who cannot be told.
    Congested,
}

impl Why {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::NotUnderstood,
        Self::Foreign,
        Self::NoMatch,
        Self::Keep,
        Self::SynAck,
        Self::Bypass,
        Self::Local,
        Self::NoEndpoint,
        Self::NoLink,
        Self::Ttl,
        Self::Shadow,
        Self::Nexthop,
        Self::Dnat,
        Self::Gue,
        Self::Ipip,
        Self::ViaKernel,
        Self::ErrorShifted,
        Self::TooBig,
        Self::TooBigAnswered,
        Self::NotForwarded,
        Self::NoNeighbour,
        Self::ReturnTooBig,
        Self::DnatReturned,
        Self::NexthopReturned,
        Self::TunnelReturned,
        Self::ErrorReturned,
        Self::Unreadable,
        Self::Spoofed,
        Self::Congested,
    ];
}

/// What may become of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Where it goes.
    pub verdict: Verdict,
    /// Its bytes then.
    pub frame: Vec<u8>,
    /// Why.
    pub why: Why,
}

impl Answer {
    fn pass(frame: &[u8], why: Why) -> Self {
        Self { verdict: Verdict::Pass, frame: frame.to_vec(), why }
    }

    fn redirect(device: &'static str, frame: Vec<u8>, why: Why) -> Self {
        Self { verdict: Verdict::Redirect(device), frame, why }
    }
}

/// All that may become of a frame that arrives on a device; more than one where a limit of rate decides.
///
/// # Panics
/// When the host has no such device.
#[must_use]
pub fn judge(world: &World, device: &'static str, bytes: &[u8]) -> Vec<Answer> {
    let own = world.device(device);
    let Some(frame) = understood(bytes, own.mac) else {
        return vec![Answer::pass(bytes, Why::NotUnderstood)];
    };
    let from_link = world.lines_on(device, frame.ethernet.vlan).next().is_some();
    if from_link && let Some(answers) = reply::reply(world, device, &frame) {
        return answers;
    }
    if own.client {
        return forward::forward(world, device, &frame);
    }
    vec![Answer::pass(bytes, if from_link { Why::NoMatch } else { Why::Foreign })]
}

/// Reads a frame that is addressed to this device.
fn understood(bytes: &[u8], mac: [u8; 6]) -> Option<Frame<'_>> {
    if bytes.get(..6)? != mac {
        return None;
    }
    let ethernet = wire::ethernet(bytes)?;
    let packet = &bytes[ethernet.packet()..];
    let ip = wire::ip(packet, wire::announced_v6(bytes, ethernet))?;
    let body = wire::body(packet, &ip)?;
    Some(Frame { bytes, ethernet, ip, body })
}

/// A packet that does not fit its link: nobody is told, or its sender is (RFC 792, RFC 1191, RFC 4443).
fn too_big(device: &'static str, frame: &Frame<'_>, mtu: u16) -> Vec<Answer> {
    let dropped = Answer { verdict: Verdict::Drop, frame: frame.bytes.to_vec(), why: Why::TooBig };
    // Of an error nobody is told (RFC 1122 section 3.2.2, RFC 4443 section 2.4).
    if matches!(frame.body, Body::Error { .. }) {
        return vec![dropped];
    }
    let (destination, source) = (frame.ip.source, frame.ip.destination);
    let quote = |most: usize| &frame.packet()[..frame.ip.length.min(most)];
    let (protocol, mut message) = if frame.ip.v6 {
        (wire::ICMPV6, [&[2, 0, 0, 0, 0, 0][..], &mtu.to_be_bytes(), quote(1232)].concat())
    } else {
        (wire::ICMP, [&[3, 4, 0, 0, 0, 0][..], &mtu.to_be_bytes(), quote(512)].concat())
    };
    let header = rewrite::header(source, destination, protocol, 0, message.len());
    // RFC 4443 section 2.3: addresses, length, and next header.
    let pseudo = match frame.ip.v6 {
        true => [&header[8..40], &(message.len() as u32).to_be_bytes(), &[0, 0, 0, protocol]].concat(),
        false => Vec::new(),
    };
    let sum = sum::fresh([&pseudo[..], &message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let macs = [&frame.bytes[6..12], &frame.bytes[..6]].concat();
    let tags = &frame.bytes[12..frame.ethernet.packet()];
    let answer = [&macs, tags, &header, &message].concat();
    vec![dropped, Answer::redirect(device, answer, Why::TooBigAnswered)]
}
