//! Bytes → what a packet says of itself, or `None` where that is not understood in every part: such a packet passes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::hash::Flow;

/// ICMP (RFC 792).
pub const ICMP: u8 = 1;
/// IPv4 in IP (RFC 2003).
pub const IPV4: u8 = 4;
/// TCP (RFC 9293).
pub const TCP: u8 = 6;
/// UDP (RFC 768).
pub const UDP: u8 = 17;
/// IPv6 in IP (RFC 4213, RFC 2473).
pub const IPV6: u8 = 41;
/// ICMPv6 (RFC 4443).
pub const ICMPV6: u8 = 58;

/// Options of an IPv4 header, and of TCP, that are looked at.
const MOST_OPTIONS: usize = 10;
/// Extension headers of IPv6 that are looked at.
const MOST_EXTENSIONS: usize = 6;

/// Ethernet and tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ethernet {
    /// Id of the outermost tag; 0 without one.
    pub vlan: u16,
    /// Bytes of tags.
    pub tags: usize,
}

impl Ethernet {
    /// Where the IP packet begins.
    pub const fn packet(self) -> usize {
        14 + self.tags
    }
}

/// One byte.
pub fn byte(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

/// Two bytes.
pub fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// Reads Ethernet and up to two tags in front of an IP packet (IEEE 802.1Q, 802.1ad).
pub fn ethernet(frame: &[u8]) -> Option<Ethernet> {
    let mut found = Ethernet { vlan: 0, tags: 0 };
    loop {
        match word(frame, 12 + found.tags)? {
            0x8100 | 0x88a8 if found.tags < 8 => {
                let id = word(frame, 14 + found.tags)? & 0xfff;
                if found.tags == 0 {
                    found.vlan = id;
                }
                found.tags += 4;
            }
            0x0800 | 0x86dd => return Some(found),
            _ => return None,
        }
    }
}

/// Whether the IP packet of a frame is announced as IPv6.
pub fn announced_v6(frame: &[u8], ethernet: Ethernet) -> bool {
    word(frame, 12 + ethernet.tags) == Some(0x86dd)
}

/// An IP packet, without what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip {
    /// IPv6, not IPv4.
    pub v6: bool,
    /// Bytes of the packet, as its header says.
    pub length: usize,
    /// Where header and extension headers end.
    pub body: usize,
    /// What is there.
    pub protocol: u8,
    /// Source.
    pub source: IpAddr,
    /// Destination.
    pub destination: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TOS or traffic class.
    pub tos: u8,
}

fn v4_addresses(bytes: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let address = |at| Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok()?).into());
    Some((address(12)?, address(16)?))
}

fn v6_addresses(bytes: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let address = |at| Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.get(at..at + 16)?).ok()?).into());
    Some((address(8)?, address(24)?))
}

/// Reads an IP packet; `bytes` may go on behind it.
pub fn ip(bytes: &[u8], v6: bool) -> Option<Ip> {
    if v6 { ipv6(bytes) } else { ipv4(bytes) }
}

/// RFC 791.
fn ipv4(bytes: &[u8]) -> Option<Ip> {
    let first = byte(bytes, 0)?;
    let body = usize::from(first & 15) * 4;
    let length = usize::from(word(bytes, 2)?);
    let (source, destination) = v4_addresses(bytes)?;
    if first >> 4 != 4 || body < 20 || length < body || length > bytes.len() {
        return None;
    }
    // More fragments, or an offset.
    if word(bytes, 6)? & 0x3fff != 0 {
        return None;
    }
    options(&bytes[20..body])?;
    Some(Ip {
        v6: false,
        length,
        body,
        protocol: byte(bytes, 9)?,
        source,
        destination,
        ttl: byte(bytes, 8)?,
        tos: byte(bytes, 1)?,
    })
}

/// IPv4 options that are all understood, and none of which chose the packet's route.
fn options(bytes: &[u8]) -> Option<()> {
    let mut at = 0;
    for _ in 0..MOST_OPTIONS {
        if at == bytes.len() {
            return Some(());
        }
        match bytes[at] {
            0 => return Some(()),
            1 => at += 1,
            // Loose and strict source route.
            131 | 137 => return None,
            _ => {
                let length = usize::from(byte(bytes, at + 1)?);
                if length < 2 || at + length > bytes.len() {
                    return None;
                }
                at += length;
            }
        }
    }
    (at == bytes.len()).then_some(())
}

/// RFC 8200.
fn ipv6(bytes: &[u8]) -> Option<Ip> {
    let first = byte(bytes, 0)?;
    let payload = usize::from(word(bytes, 4)?);
    let length = 40 + payload;
    let (source, destination) = v6_addresses(bytes)?;
    // A payload length of zero would be a jumbogram's (RFC 2675).
    if first >> 4 != 6 || payload == 0 || length > bytes.len() {
        return None;
    }
    let packet = &bytes[..length];
    let (mut protocol, mut body) = (packet[6], 40);
    let mut extensions = 0;
    while matches!(protocol, 0 | 43 | 44 | 60) {
        if extensions == MOST_EXTENSIONS || protocol == 0 && extensions != 0 {
            return None;
        }
        extensions += 1;
        let header = packet.get(body..body + 8)?;
        // A routing header whose way is not over; a fragment header of more than the whole packet.
        if protocol == 43 && header[3] != 0 || protocol == 44 && word(header, 2)? & 0xfff9 != 0 {
            return None;
        }
        let size = if protocol == 44 { 8 } else { 8 + usize::from(header[1]) * 8 };
        protocol = header[0];
        body += size;
        if body > length {
            return None;
        }
    }
    let tos = first << 4 | packet[1] >> 4;
    Some(Ip { v6: true, length, body, protocol, source, destination, ttl: packet[7], tos })
}

/// What an IP packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// A TCP segment.
    Tcp {
        /// The ports are in it.
        flow: Flow,
        /// Flags, as in the 14th byte.
        flags: u8,
    },
    /// A UDP datagram.
    Udp {
        /// The ports are in it.
        flow: Flow,
    },
    /// An ICMP error about a packet of TCP or UDP.
    Error {
        /// The packet that it quotes.
        quoted: Quoted,
    },
    /// Another IP packet, right behind the header.
    Inside {
        /// That is an IPv6 packet.
        v6: bool,
    },
}

/// What an ICMP error quotes. Offsets are from the start of the IP packet that the error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// The quoted packet's flow.
    pub flow: Flow,
    /// Where the quoted packet begins.
    pub packet: usize,
    /// Where its transport header begins.
    pub body: usize,
}

/// Reads what the packet at the start of `bytes` carries.
pub fn body(bytes: &[u8], ip: &Ip) -> Option<Body> {
    let segment = &bytes[ip.body..ip.length];
    let flow = || -> Option<Flow> {
        let source = SocketAddr::new(ip.source, word(segment, 0)?);
        let destination = SocketAddr::new(ip.destination, word(segment, 2)?);
        Some(Flow { source, destination, protocol: ip.protocol })
    };
    match (ip.protocol, ip.v6) {
        (TCP, _) => {
            let header = usize::from(byte(segment, 12)? >> 4) * 4;
            let fits = (20..=segment.len()).contains(&header);
            fits.then(|| Some(Body::Tcp { flow: flow()?, flags: byte(segment, 13)? })).flatten()
        }
        (UDP, _) => {
            let length = usize::from(word(segment, 4)?);
            let fits = segment.len() >= 8 && (8..=segment.len()).contains(&length);
            fits.then(|| Some(Body::Udp { flow: flow()? })).flatten()
        }
        // Unreachable, source quench, time exceeded, parameter problem.
        (ICMP, false) if matches!(byte(segment, 0)?, 3 | 4 | 11 | 12) => quoted(bytes, ip),
        // Unreachable, packet too big, time exceeded, parameter problem.
        (ICMPV6, true) if matches!(byte(segment, 0)?, 1..=4) => quoted(bytes, ip),
        (IPV4, _) => Some(Body::Inside { v6: false }),
        (IPV6, _) => Some(Body::Inside { v6: true }),
        _ => None,
    }
}

/// Reads as much of a quoted packet as every error quotes (RFC 792): its header and eight bytes.
fn quoted(bytes: &[u8], ip: &Ip) -> Option<Body> {
    let packet = ip.body + 8;
    let inner = bytes.get(packet..ip.length)?;
    let first = byte(inner, 0)?;
    let (header, protocol, (source, destination)) = if ip.v6 {
        (40, byte(inner, 6)?, v6_addresses(inner)?)
    } else {
        // Of a fragment, the first has the ports.
        if word(inner, 6)? & 0x1fff != 0 {
            return None;
        }
        (usize::from(first & 15) * 4, byte(inner, 9)?, v4_addresses(inner)?)
    };
    if first >> 4 != if ip.v6 { 6 } else { 4 } || header < 20 || !matches!(protocol, TCP | UDP) {
        return None;
    }
    let ports = inner.get(header..header + 8)?;
    let flow = Flow {
        source: SocketAddr::new(source, word(ports, 0)?),
        destination: SocketAddr::new(destination, word(ports, 2)?),
        protocol,
    };
    Some(Body::Error { quoted: Quoted { flow, packet, body: packet + header } })
}

/// Where the packet inside a datagram of GUE begins and ends, and whether it is IPv6: variant 0, a data message without
/// flags or extensions (draft-ietf-intarea-gue, section 3).
pub fn gue(bytes: &[u8], ip: &Ip) -> Option<(usize, usize, bool)> {
    let length = usize::from(word(bytes, ip.body + 4)?);
    let end = ip.body + length;
    match bytes.get(ip.body + 8..ip.body + 12)? {
        [0, protocol @ (IPV4 | IPV6), 0, 0] if length >= 12 => Some((ip.body + 12, end, *protocol == IPV6)),
        _ => None,
    }
}

/// Where the value of a segment's MSS option stands, from the start of the segment: among the first ten options, of
/// four bytes (RFC 9293, section 3.7.1).
pub fn mss(segment: &[u8]) -> Option<usize> {
    let header = usize::from(byte(segment, 12)? >> 4) * 4;
    let options = segment.get(20..header)?;
    let mut at = 0;
    for _ in 0..MOST_OPTIONS {
        match byte(options, at)? {
            0 => return None,
            1 => at += 1,
            kind => {
                let length = usize::from(byte(options, at + 1)?);
                if length < 2 || at + length > options.len() {
                    return None;
                }
                if kind == 2 {
                    return (length == 4).then_some(20 + at + 2);
                }
                at += length;
            }
        }
    }
    None
}
