//! A packet with other addresses, ports, TTL or MSS, and checksums to match; frames around packets.

use std::net::{IpAddr, SocketAddr};

use super::sum::{self, Check};
use super::wire::{self, Body, Ethernet, Ip, Quoted, TCP, UDP};

/// A frame that is understood.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// All of it.
    pub bytes: &'a [u8],
    /// Ethernet and tags.
    pub ethernet: Ethernet,
    /// The IP packet.
    pub ip: Ip,
    /// What it carries.
    pub body: Body,
}

impl<'a> Frame<'a> {
    /// The IP packet.
    pub fn packet(&self) -> &'a [u8] {
        &self.bytes[self.ethernet.packet()..][..self.ip.length]
    }

    /// What stands behind the IP packet.
    pub fn padding(&self) -> &'a [u8] {
        &self.bytes[self.ethernet.packet() + self.ip.length..]
    }

    /// The IP packet after changes, with its checksums, and those of a packet that it quotes, as right as they were.
    pub fn changed(&self, changes: &[Change]) -> Vec<u8> {
        let before = self.packet();
        let mut after = before.to_vec();
        changes.iter().for_each(|change| self.change(change, &mut after));
        self.checks().iter().for_each(|check| check.repair(before, &mut after));
        after
    }

    /// The frame with another packet in the place of its own.
    pub fn with(&self, packet: &[u8]) -> Vec<u8> {
        [&self.bytes[..self.ethernet.packet()], packet, self.padding()].concat()
    }

    fn change(&self, change: &Change, packet: &mut [u8]) {
        let address = |packet: &mut [u8], ip: usize, at: [usize; 2], address: IpAddr| match address {
            IpAddr::V4(address) => packet[ip + at[0]..][..4].copy_from_slice(&address.octets()),
            IpAddr::V6(address) => packet[ip + at[1]..][..16].copy_from_slice(&address.octets()),
        };
        let word = |packet: &mut [u8], at: usize, word: u16| packet[at..at + 2].copy_from_slice(&word.to_be_bytes());
        match *change {
            Change::Hop => packet[if self.ip.v6 { 7 } else { 8 }] -= 1,
            Change::Tos(tos) if self.ip.v6 => {
                packet[0] = packet[0] & 0xf0 | tos >> 4;
                packet[1] = packet[1] & 0x0f | tos << 4;
            }
            Change::Tos(tos) => packet[1] = tos,
            Change::SourceAddress(source) => address(packet, 0, [12, 8], source),
            Change::DestinationAddress(destination) => address(packet, 0, [16, 24], destination),
            Change::Source(source) => {
                address(packet, 0, [12, 8], source.ip());
                word(packet, self.ip.body, source.port());
            }
            Change::Destination(destination) => {
                address(packet, 0, [16, 24], destination.ip());
                word(packet, self.ip.body + 2, destination.port());
            }
            Change::QuotedSource(quoted, source) => {
                address(packet, quoted.packet, [12, 8], source.ip());
                word(packet, quoted.body, source.port());
            }
            Change::QuotedDestination(quoted, destination) => {
                address(packet, quoted.packet, [16, 24], destination.ip());
                word(packet, quoted.body + 2, destination.port());
            }
            Change::Mss(most) => {
                let Some(at) = wire::mss(&packet[self.ip.body..]).map(|at| self.ip.body + at) else { return };
                let size = u16::from_be_bytes([packet[at], packet[at + 1]]);
                word(packet, at, size.min(most));
            }
        }
    }

    /// Checksums, the innermost first: an ICMP error's covers those that it quotes.
    fn checks(&self) -> Vec<Check> {
        let addresses = |ip: usize| if self.ip.v6 { (ip + 8, ip + 40) } else { (ip + 12, ip + 20) };
        let end = self.ip.length;
        let transport = |ip: usize, body: usize, protocol: u8| Check {
            field: body + if protocol == UDP { 6 } else { 16 },
            covers: vec![addresses(ip), (body, end)],
            udp: protocol == UDP,
        };
        let header = |ip: usize, end: usize| Check { field: ip + 10, covers: vec![(ip, end)], udp: false };
        let mut checks = Vec::new();
        match self.body {
            Body::Tcp { .. } => checks.push(transport(0, self.ip.body, TCP)),
            Body::Udp { .. } => checks.push(transport(0, self.ip.body, UDP)),
            Body::Error { quoted } => {
                if !self.ip.v6 {
                    checks.push(header(quoted.packet, quoted.body));
                }
                // As much as is quoted of a segment may end before its checksum.
                checks.extend(
                    Some(transport(quoted.packet, quoted.body, quoted.flow.protocol))
                        .filter(|check| check.field + 2 <= end),
                );
                // ICMPv6's covers the addresses, too (RFC 4443, section 2.3).
                let mut covers = vec![(self.ip.body, end)];
                covers.extend(self.ip.v6.then(|| addresses(0)));
                checks.push(Check { field: self.ip.body + 2, covers, udp: false });
            }
            Body::Inside { .. } => {}
        }
        checks.extend((!self.ip.v6).then(|| header(0, self.ip.body)));
        checks
    }
}

/// A change to an IP packet.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    /// TTL or hop limit: one less.
    Hop,
    /// TOS or traffic class.
    Tos(u8),
    /// The source address alone.
    SourceAddress(IpAddr),
    /// The destination address alone.
    DestinationAddress(IpAddr),
    /// Source address and port.
    Source(SocketAddr),
    /// Destination address and port.
    Destination(SocketAddr),
    /// Source address and port of the packet that an error quotes.
    QuotedSource(Quoted, SocketAddr),
    /// Its destination address and port.
    QuotedDestination(Quoted, SocketAddr),
    /// The MSS option, if there is one: at most this.
    Mss(u16),
}

/// A frame: destination and source MAC, the tag if it has one, and what kind of packet follows.
pub fn ethernet([destination, source]: [[u8; 6]; 2], vlan: u16, v6: bool) -> Vec<u8> {
    let mut frame = [destination, source].concat();
    if vlan != 0 {
        frame.extend(0x8100_u16.to_be_bytes());
        frame.extend(vlan.to_be_bytes());
    }
    frame.extend(if v6 { [0x86, 0xdd] } else { [0x08, 0x00] });
    frame
}

/// An IPv4 or IPv6 header without options, of a packet that this host makes: TTL 64, not to be fragmented.
pub fn header(source: IpAddr, destination: IpAddr, protocol: u8, tos: u8, payload: usize) -> Vec<u8> {
    let mut header = Vec::new();
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            header.extend([0x45, tos]);
            header.extend((20 + payload as u16).to_be_bytes());
            header.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
            header.extend(source.octets());
            header.extend(destination.octets());
            let sum = sum::fresh([&header[..]]);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            header.extend([0x60 | tos >> 4, tos << 4, 0, 0]);
            header.extend((payload as u16).to_be_bytes());
            header.extend([protocol, 64]);
            header.extend(source.octets());
            header.extend(destination.octets());
        }
        _ => unreachable!("both ends of a tunnel are of one family"),
    }
    header
}
