//! The packet that is asked about, built.

use std::net::{IpAddr, SocketAddr};

use burst_common::flow::{Flow, TCP, UDP, addr4, addr6};
use burst_common::pin::PinKey;
use etherparse::{IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, Ipv6Extensions, Ipv6Header, PacketBuilder, VlanId};

use super::InspectError;

/// Transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Proto {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Proto {
    /// Its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => TCP,
            Self::Udp => UDP,
        }
    }

    /// Its name.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// What is asked: what becomes of such a packet?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Protocol.
    pub proto: Proto,
    /// Where it comes from.
    pub src: SocketAddr,
    /// Where it goes.
    pub dst: SocketAddr,
    /// Whether it opens its flow (TCP).
    pub syn: bool,
    /// VLAN id of the frame.
    pub vlan: Option<u16>,
    /// Bytes of payload.
    pub payload: usize,
}

/// Source of the frame: whoever the edge's neighbour is.
const NEIGHBOUR: [u8; 6] = [2, 0, 0, 0, 0, 4];
/// Number of the first byte and window: of no consequence.
const SEQUENCE: u32 = 1;
const WINDOW: u16 = 65_000;
/// TTL and hop limit, as most hosts begin.
const TTL: u8 = 64;

impl Question {
    /// The flow's key.
    ///
    /// # Errors
    /// When the addresses are of two families.
    pub fn key(&self) -> Result<PinKey, InspectError> {
        let (src_port, dst_port) = (self.src.port().to_be(), self.dst.port().to_be());
        let proto = self.proto.number();
        match (self.src, self.dst) {
            (SocketAddr::V4(from), SocketAddr::V4(to)) => {
                let (src, dst) = (addr4(*from.ip()), addr4(*to.ip()));
                Ok(PinKey::new(&Flow { src, dst, src_port, dst_port, proto, flags: 0 }))
            }
            (SocketAddr::V6(from), SocketAddr::V6(to)) => {
                let (src, dst) = (addr6(*from.ip()), addr6(*to.ip()));
                Ok(PinKey::new(&Flow { src, dst, src_port, dst_port, proto, flags: 0 }))
            }
            _ => Err(self.two_families()),
        }
    }

    fn two_families(&self) -> InspectError {
        let (src, dst) = (self.src, self.dst);
        InspectError::Usage(format!("--src {src} and --dst {dst} are of two address families: a packet has one"))
    }

    /// The frame, to the MAC address `to`.
    ///
    /// # Errors
    /// When the addresses are of two families, or the payload is longer than a packet.
    pub fn frame(&self, to: [u8; 6]) -> Result<Vec<u8>, InspectError> {
        let too_long = || InspectError::Usage(format!("--payload {}: longer than an IP packet can be", self.payload));
        let protocol = IpNumber(self.proto.number());
        let ip = match (self.src.ip(), self.dst.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let header = Ipv4Header::new(0, TTL, protocol, from.octets(), to.octets()).map_err(|_| too_long())?;
                IpHeaders::Ipv4(Ipv4Header { dont_fragment: true, ..header }, Ipv4Extensions::default())
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let (source, destination) = (from.octets(), to.octets());
                let header =
                    Ipv6Header { source, destination, hop_limit: TTL, next_header: protocol, ..Default::default() };
                IpHeaders::Ipv6(header, Ipv6Extensions::default())
            }
            _ => return Err(self.two_families()),
        };
        let ethernet = PacketBuilder::ethernet2(NEIGHBOUR, to);
        let ip = match self.vlan.map(VlanId::try_new).transpose() {
            Ok(Some(vlan)) => ethernet.single_vlan(vlan).ip(ip),
            Ok(None) => ethernet.ip(ip),
            Err(_) => return Err(InspectError::Usage("--vlan: an id is at most 4094".to_owned())),
        };
        let payload = vec![0; self.payload];
        let mut frame = Vec::new();
        match self.proto {
            Proto::Tcp => {
                let tcp = ip.tcp(self.src.port(), self.dst.port(), SEQUENCE, WINDOW);
                let tcp = if self.syn { tcp.syn() } else { tcp.ack(SEQUENCE) };
                tcp.write(&mut frame, &payload).map_err(|_| too_long())?;
            }
            Proto::Udp => {
                ip.udp(self.src.port(), self.dst.port()).write(&mut frame, &payload).map_err(|_| too_long())?
            }
        }
        Ok(frame)
    }
}
