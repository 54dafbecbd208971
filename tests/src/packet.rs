//! Packets for golden tests: frames built from named parts, with valid checksums unless a test wants others. What a
//! frame should look like after burst is built here, too, from the values expected, never from burst's own code.
//!
//! [`checksum`] verifies with code of its own, [`diff`] shows two frames side by side. Live traffic is not for this
//! module.

pub mod checksum;
pub mod diff;
pub mod icmp;
pub mod tunnel;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::{
    EtherType, Ethernet2Header, IpNumber, Ipv4Header, Ipv4Options, Ipv6Header, SingleVlanHeader, TcpHeader, UdpHeader,
    VlanId,
};

/// TCP flags, as in the header's 14th byte (RFC 9293 section 3.1).
pub mod flag {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Opens a connection.
    pub const SYN: u8 = 0x02;
    /// Ends it at once.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgment number counts.
    pub const ACK: u8 = 0x10;
}

/// The transport header, or what is there instead.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Transport {
    Tcp {
        source: u16,
        destination: u16,
        sequence: u32,
        flags: u8,
        options: Vec<u8>,
    },
    Udp {
        source: u16,
        destination: u16,
        no_checksum: bool,
    },
    /// Any other protocol: the payload follows the IP header.
    Other(u8),
}

/// A frame to be built. Start with [`Frame::tcp`], [`Frame::udp`] or [`Frame::other`], change what the test is about,
/// and [`Frame::build`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a frame is nothing before it is built"]
pub struct Frame {
    source_mac: [u8; 6],
    destination_mac: [u8; 6],
    vlans: Vec<u16>,
    source: IpAddr,
    destination: IpAddr,
    ttl: u8,
    tos: u8,
    identification: u16,
    dont_fragment: bool,
    /// Offset in units of eight bytes, and whether more follow.
    fragment: Option<(u16, bool)>,
    ip_options: Vec<u8>,
    extensions: Vec<(u8, Vec<u8>)>,
    transport: Transport,
    payload: Vec<u8>,
}

impl Frame {
    fn new(source: IpAddr, destination: IpAddr, transport: Transport) -> Self {
        assert_eq!(source.is_ipv4(), destination.is_ipv4(), "{source} and {destination} are of two families");
        Self {
            // From the range for documentation, RFC 7042 section 2.1.1.
            source_mac: [0x00, 0x00, 0x5e, 0x00, 0x53, 0x02],
            destination_mac: [0x00, 0x00, 0x5e, 0x00, 0x53, 0x01],
            vlans: Vec::new(),
            source,
            destination,
            ttl: 64,
            tos: 0,
            identification: 0x1234,
            dont_fragment: true,
            fragment: None,
            ip_options: Vec::new(),
            extensions: Vec::new(),
            transport,
            payload: Vec::new(),
        }
    }

    /// A TCP segment between two sockets of one family, with these [`flag`]s.
    pub fn tcp(source: impl Into<SocketAddr>, destination: impl Into<SocketAddr>, flags: u8) -> Self {
        let (from, to) = (source.into(), destination.into());
        let (source, destination) = (from.port(), to.port());
        Self::new(
            from.ip(),
            to.ip(),
            Transport::Tcp { source, destination, sequence: 0x1000_0001, flags, options: Vec::new() },
        )
    }

    /// A UDP datagram between two sockets of one family.
    pub fn udp(source: impl Into<SocketAddr>, destination: impl Into<SocketAddr>) -> Self {
        let (from, to) = (source.into(), destination.into());
        let (source, destination) = (from.port(), to.port());
        Self::new(from.ip(), to.ip(), Transport::Udp { source, destination, no_checksum: false })
    }

    /// A packet of another protocol (IANA's number); its payload is all that follows the IP header.
    pub fn other(source: IpAddr, destination: IpAddr, protocol: u8) -> Self {
        Self::new(source, destination, Transport::Other(protocol))
    }

    /// MAC addresses, source first.
    pub fn macs(mut self, source: [u8; 6], destination: [u8; 6]) -> Self {
        (self.source_mac, self.destination_mac) = (source, destination);
        self
    }

    /// VLAN ids, outermost first: one (802.1Q) or two (802.1ad, then 802.1Q).
    ///
    /// # Panics
    /// With more than two.
    pub fn vlans(mut self, ids: &[u16]) -> Self {
        assert!(ids.len() <= 2, "at most two VLAN tags: {ids:?}");
        self.vlans = ids.to_vec();
        self
    }

    /// TTL or hop limit; 64 unless set.
    pub const fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// The byte of DSCP and ECN (IPv4 TOS, IPv6 traffic class).
    pub const fn tos(mut self, tos: u8) -> Self {
        self.tos = tos;
        self
    }

    /// IPv4 identification.
    pub const fn identification(mut self, number: u16) -> Self {
        self.identification = number;
        self
    }

    /// IPv4 "don't fragment"; set unless changed.
    pub const fn dont_fragment(mut self, set: bool) -> Self {
        self.dont_fragment = set;
        self
    }

    /// Makes it an IPv4 fragment, or gives it an IPv6 fragment header: offset in units of eight bytes, and whether
    /// more follow. The transport header is written whatever the offset.
    pub const fn fragment(mut self, offset: u16, more: bool) -> Self {
        self.fragment = Some((offset, more));
        self.dont_fragment = false;
        self
    }

    /// IPv4 options, a multiple of four bytes, at most 40.
    pub fn ip_options(mut self, options: &[u8]) -> Self {
        self.ip_options = options.to_vec();
        self
    }

    /// Adds an IPv6 extension header: its protocol number and the bytes after its "next header" and length bytes,
    /// 6 + a multiple of 8 of them.
    ///
    /// # Panics
    /// With another number of bytes.
    pub fn extension(mut self, number: u8, rest: &[u8]) -> Self {
        assert!(rest.len() % 8 == 6, "an extension header is a multiple of 8 bytes, two of them written here");
        self.extensions.push((number, rest.to_vec()));
        self
    }

    /// TCP options, a multiple of four bytes, at most 40.
    ///
    /// # Panics
    /// If it is not TCP.
    pub fn tcp_options(mut self, bytes: &[u8]) -> Self {
        match &mut self.transport {
            Transport::Tcp { options, .. } => *options = bytes.to_vec(),
            other => panic!("TCP options on {other:?}"),
        }
        self
    }

    /// The TCP sequence number.
    ///
    /// # Panics
    /// If it is not TCP.
    pub fn sequence(mut self, number: u32) -> Self {
        match &mut self.transport {
            Transport::Tcp { sequence, .. } => *sequence = number,
            other => panic!("a sequence number on {other:?}"),
        }
        self
    }

    /// The TCP option "maximum segment size" (RFC 9293 section 3.7.1).
    ///
    /// # Panics
    /// If it is not TCP.
    pub fn mss(self, size: u16) -> Self {
        let [high, low] = size.to_be_bytes();
        self.tcp_options(&[2, 4, high, low])
    }

    /// UDP checksum zero: "none was computed" (RFC 768; forbidden in IPv6 but for some tunnels).
    ///
    /// # Panics
    /// If it is not UDP.
    pub fn no_udp_checksum(mut self) -> Self {
        match &mut self.transport {
            Transport::Udp { no_checksum, .. } => *no_checksum = true,
            other => panic!("a UDP checksum on {other:?}"),
        }
        self
    }

    /// Bytes after the transport header.
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// The frame's bytes, with lengths and checksums as they must be.
    ///
    /// # Panics
    /// If a part does not fit the frame, such as IPv4 options on IPv6: a mistake in the test.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let ether_type = if self.source.is_ipv4() { EtherType::IPV4 } else { EtherType::IPV6 };
        let mut frame = self.link(ether_type);
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => self.ipv4(source, destination, &mut frame),
            (IpAddr::V6(source), IpAddr::V6(destination)) => self.ipv6(source, destination, &mut frame),
            _ => unreachable!("checked when the frame was begun"),
        }
        frame
    }

    fn link(&self, inner: EtherType) -> Vec<u8> {
        let single = |id: u16, ether_type| {
            let tag = SingleVlanHeader {
                pcp: Default::default(),
                drop_eligible_indicator: false,
                vlan_id: VlanId::try_new(id).expect("a VLAN id"),
                ether_type,
            };
            tag.to_bytes().to_vec()
        };
        let (outer, tags) = match self.vlans[..] {
            [] => (inner, Vec::new()),
            [id] => (EtherType::VLAN_TAGGED_FRAME, single(id, inner)),
            [first, second] => {
                let tags = [single(first, EtherType::VLAN_TAGGED_FRAME), single(second, inner)].concat();
                (EtherType::PROVIDER_BRIDGING, tags)
            }
            _ => unreachable!("checked when they were given"),
        };
        let ethernet =
            Ethernet2Header { source: self.source_mac, destination: self.destination_mac, ether_type: outer };
        [ethernet.to_bytes().to_vec(), tags].concat()
    }

    fn ipv4(&self, source: Ipv4Addr, destination: Ipv4Addr, frame: &mut Vec<u8>) {
        assert!(self.extensions.is_empty(), "IPv6 extension headers on IPv4");
        let segment = self.segment(
            |tcp| tcp.calc_checksum_ipv4_raw(source.octets(), destination.octets(), &self.payload),
            |udp| udp.calc_checksum_ipv4_raw(source.octets(), destination.octets(), &self.payload),
        );
        let mut header = Ipv4Header::new(
            u16::try_from(segment.len()).expect("a packet's length"),
            self.ttl,
            IpNumber(self.protocol()),
            source.octets(),
            destination.octets(),
        )
        .expect("a packet's length");
        header.dscp = (self.tos >> 2).try_into().expect("six bits");
        header.ecn = (self.tos & 3).try_into().expect("two bits");
        header.identification = self.identification;
        header.dont_fragment = self.dont_fragment;
        if let Some((offset, more)) = self.fragment {
            header.fragment_offset = offset.try_into().expect("an offset of 13 bits");
            header.more_fragments = more;
        }
        header.options = Ipv4Options::try_from(&self.ip_options[..]).expect("options of 4 to 40 bytes");
        header.set_payload_len(segment.len()).expect("a packet's length");
        header.header_checksum = header.calc_header_checksum();
        frame.extend_from_slice(&header.to_bytes());
        frame.extend_from_slice(&segment);
    }

    fn ipv6(&self, source: Ipv6Addr, destination: Ipv6Addr, frame: &mut Vec<u8>) {
        assert!(self.ip_options.is_empty(), "IPv4 options on IPv6");
        let segment = self.segment(
            |tcp| tcp.calc_checksum_ipv6_raw(source.octets(), destination.octets(), &self.payload),
            |udp| udp.calc_checksum_ipv6_raw(source.octets(), destination.octets(), &self.payload),
        );
        let mut extensions = self.extensions.clone();
        if let Some((offset, more)) = self.fragment {
            // RFC 8200 section 4.5: offset, two reserved bits, M, identification.
            let [high, low] = ((offset << 3) | u16::from(more)).to_be_bytes();
            let [a, b] = self.identification.to_be_bytes();
            extensions.push((44, vec![high, low, 0, 0, a, b]));
        }
        let following = extensions.iter().skip(1).map(|(number, _)| *number).chain([self.protocol()]);
        let chain: Vec<u8> = extensions
            .iter()
            .zip(following)
            .flat_map(|((number, rest), next)| {
                // The fragment header's second byte is reserved; in others it is the length beyond the first 8 bytes.
                let length = if *number == 44 { 0 } else { rest.len() / 8 };
                [next, u8::try_from(length).expect("an extension's length")].into_iter().chain(rest.iter().copied())
            })
            .collect();
        let header = Ipv6Header {
            traffic_class: self.tos,
            flow_label: Default::default(),
            payload_length: u16::try_from(chain.len() + segment.len()).expect("a packet's length"),
            next_header: IpNumber(extensions.first().map_or_else(|| self.protocol(), |(number, _)| *number)),
            hop_limit: self.ttl,
            source: source.octets(),
            destination: destination.octets(),
        };
        frame.extend_from_slice(&header.to_bytes());
        frame.extend_from_slice(&chain);
        frame.extend_from_slice(&segment);
    }

    const fn protocol(&self) -> u8 {
        match self.transport {
            Transport::Tcp { .. } => IpNumber::TCP.0,
            Transport::Udp { .. } => IpNumber::UDP.0,
            Transport::Other(number) => number,
        }
    }

    /// Transport header and payload; the functions compute a checksum for the family.
    fn segment<E: std::fmt::Debug>(
        &self,
        tcp_checksum: impl FnOnce(&TcpHeader) -> Result<u16, E>,
        udp_checksum: impl FnOnce(&UdpHeader) -> Result<u16, E>,
    ) -> Vec<u8> {
        let mut segment = match &self.transport {
            Transport::Tcp { source, destination, sequence, flags, options } => {
                let mut header = TcpHeader::new(*source, *destination, *sequence, 65_000);
                header.acknowledgment_number = if flags & flag::ACK == 0 { 0 } else { 0x2000_0002 };
                header.fin = flags & flag::FIN != 0;
                header.syn = flags & flag::SYN != 0;
                header.rst = flags & flag::RST != 0;
                header.psh = flags & flag::PSH != 0;
                header.ack = flags & flag::ACK != 0;
                header.set_options_raw(options).expect("options of at most 40 bytes");
                header.checksum = tcp_checksum(&header).expect("a packet's length");
                header.to_bytes().to_vec()
            }
            Transport::Udp { source, destination, no_checksum } => {
                let length = u16::try_from(8 + self.payload.len()).expect("a packet's length");
                let mut header =
                    UdpHeader { source_port: *source, destination_port: *destination, length, checksum: 0 };
                if !no_checksum {
                    header.checksum = udp_checksum(&header).expect("a packet's length");
                }
                header.to_bytes().to_vec()
            }
            Transport::Other(_) => Vec::new(),
        };
        segment.extend_from_slice(&self.payload);
        segment
    }
}

#[cfg(test)]
mod tests;
