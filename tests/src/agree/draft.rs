//! Packets in the making, every part of which may be wrong. Lengths and checksums are right unless spoilt afterwards.

use std::net::{IpAddr, SocketAddr};

use crate::model::sum;
use crate::model::wire::{ICMP, ICMPV6, TCP, UDP};

/// A packet in the making.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Destination and source MAC.
    pub macs: [[u8; 6]; 2],
    /// Tags: protocol id and control information.
    pub tags: Vec<(u16, u16)>,
    /// Source; the port is the transport's.
    pub source: SocketAddr,
    /// Destination, of the same family.
    pub destination: SocketAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TOS or traffic class.
    pub tos: u8,
    /// IPv4: flags and fragment offset.
    pub fragment: u16,
    /// IPv4 options, a multiple of four bytes, at most 40.
    pub options: Vec<u8>,
    /// IPv6 extension headers: number, and all bytes but the first.
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// What the packet carries.
    pub transport: Transport,
    /// Behind the transport header.
    pub payload: Vec<u8>,
    /// Behind the packet.
    pub padding: usize,
}

/// A transport header.
#[derive(Clone, Debug)]
pub enum Transport {
    /// TCP: flags, and options of a multiple of four bytes.
    Tcp(u8, Vec<u8>),
    /// UDP, with a checksum or without.
    Udp(bool),
    /// ICMP or ICMPv6: type, code, rest of the header.
    Icmp(u8, u8, [u8; 4]),
    /// Another protocol, without a header.
    Other(u8),
}

impl Draft {
    /// A packet between two sockets of one family.
    #[must_use]
    pub fn new(source: SocketAddr, destination: SocketAddr, transport: Transport) -> Self {
        Self {
            macs: [[0; 6], [0x00, 0x00, 0x5e, 0x00, 0x53, 0xf0]],
            tags: Vec::new(),
            source,
            destination,
            ttl: 64,
            tos: 0,
            fragment: 0x4000,
            options: Vec::new(),
            extensions: Vec::new(),
            transport,
            payload: Vec::new(),
            padding: 0,
        }
    }

    /// Whether it is IPv6.
    #[must_use]
    pub const fn v6(&self) -> bool {
        self.source.is_ipv6()
    }

    const fn protocol(&self) -> u8 {
        match self.transport {
            Transport::Tcp(..) => TCP,
            Transport::Udp(_) => UDP,
            Transport::Icmp(..) if self.source.is_ipv6() => ICMPV6,
            Transport::Icmp(..) => ICMP,
            Transport::Other(number) => number,
        }
    }

    /// The frame.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        let mut frame = self.macs.concat();
        for (id, tag) in &self.tags {
            frame.extend(id.to_be_bytes());
            frame.extend(tag.to_be_bytes());
        }
        frame.extend(if self.v6() { [0x86, 0xdd] } else { [0x08, 0x00] });
        frame.extend(self.packet());
        frame.extend((0..self.padding).map(|n| 0xe0 | n as u8));
        frame
    }

    /// The IP packet.
    #[must_use]
    pub fn packet(&self) -> Vec<u8> {
        let segment = self.segment();
        let mut packet = Vec::new();
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let header = 20 + self.options.len();
                packet.extend([0x40 | (header / 4) as u8, self.tos]);
                packet.extend(((header + segment.len()) as u16).to_be_bytes());
                packet.extend([0x12, 0x34]);
                packet.extend(self.fragment.to_be_bytes());
                packet.extend([self.ttl, self.protocol(), 0, 0]);
                packet.extend(source.octets());
                packet.extend(destination.octets());
                packet.extend(&self.options);
                let sum = sum::fresh([&packet[..]]);
                packet[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let extensions: usize = self.extensions.iter().map(|(_, rest)| 1 + rest.len()).sum();
                let mut numbers = self.extensions.iter().map(|(number, _)| *number).chain([self.protocol()]);
                packet.extend([0x60 | self.tos >> 4, self.tos << 4 | 0x0a, 0xbc, 0xde]);
                packet.extend(((extensions + segment.len()) as u16).to_be_bytes());
                packet.extend([numbers.next().unwrap_or(0), self.ttl]);
                packet.extend(source.octets());
                packet.extend(destination.octets());
                for ((_, rest), next) in self.extensions.iter().zip(numbers) {
                    packet.push(next);
                    packet.extend(rest);
                }
            }
            _ => unreachable!("both ends are of one family"),
        }
        packet.extend(segment);
        packet
    }

    fn segment(&self) -> Vec<u8> {
        let ports = [self.source.port().to_be_bytes(), self.destination.port().to_be_bytes()].concat();
        let (mut segment, field) = match &self.transport {
            Transport::Tcp(flags, options) => {
                let mut segment = ports;
                segment.extend([0x10, 0, 0, 1, 0x20, 0, 0, 2]);
                segment.extend([(((20 + options.len()) / 4) << 4) as u8, *flags, 0xfd, 0xe8, 0, 0, 0, 0]);
                segment.extend(options);
                (segment, Some(16))
            }
            Transport::Udp(checksum) => {
                let length = ((8 + self.payload.len()) as u16).to_be_bytes();
                ([&ports[..], &length, &[0, 0]].concat(), checksum.then_some(6))
            }
            Transport::Icmp(kind, code, rest) => ([&[*kind, *code, 0, 0][..], rest].concat(), Some(2)),
            Transport::Other(_) => (Vec::new(), None),
        };
        segment.extend(&self.payload);
        if let Some(field) = field {
            let pseudo = match self.protocol() {
                ICMP => Vec::new(),
                protocol => self.pseudo(protocol, segment.len()),
            };
            let sum = match sum::fresh([&pseudo[..], &segment]) {
                0 if self.protocol() == UDP => 0xffff,
                sum => sum,
            };
            segment[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        }
        segment
    }

    /// RFC 9293 section 3.1, RFC 8200 section 8.1; the order of words does not matter to their sum.
    fn pseudo(&self, protocol: u8, length: usize) -> Vec<u8> {
        let mut pseudo = Vec::new();
        for address in [self.source.ip(), self.destination.ip()] {
            match address {
                IpAddr::V4(address) => pseudo.extend(address.octets()),
                IpAddr::V6(address) => pseudo.extend(address.octets()),
            }
        }
        pseudo.extend((length as u32).to_be_bytes());
        pseudo.extend([0, protocol]);
        pseudo
    }
}
