//! Bytes → Flow: Ethernet, IPv4 without options or IPv6 without extension headers, TCP or UDP. Everything else is an
//! `Err` with its reason, and passes.

use burst_common::flow::{Addr4, Addr6, Flow, TCP, UDP};
use burst_common::policy::constant;
use burst_common::reason::Reason;

use crate::maps;
use crate::packet::Packet;

/// Length of an Ethernet header (IEEE 802.3).
pub const ETH: usize = 14;
/// Length of an IPv4 header without options (RFC 791).
pub const IP4: usize = 20;
/// Length of an IPv6 header (RFC 8200).
pub const IP6: usize = 40;
/// Shortest TCP header (RFC 9293).
const TCP_MIN: usize = 20;
/// A UDP header (RFC 768).
const UDP_LEN: usize = 8;

const ETHERTYPE_IPV4: u16 = 0x0800u16.to_be();
const ETHERTYPE_IPV6: u16 = 0x86ddu16.to_be();
const ETHERTYPE_8021Q: u16 = 0x8100u16.to_be();
const ETHERTYPE_8021AD: u16 = 0x88a8u16.to_be();

/// More-fragments flag and fragment offset (RFC 791, section 3.1).
const FRAGMENT: u16 = 0x3fffu16.to_be();

/// Don't-fragment flag (RFC 791, section 3.1).
const DONT_FRAGMENT: u16 = 0x4000u16.to_be();

/// Destination MAC, source MAC, ethertype as words.
type EthWords = [u16; 7];
/// An IPv4 header as words of the frame.
type Ip4Words = [u32; 5];
/// An IPv6 header as words of the frame.
type Ip6Words = [u64; 5];

/// What was read of a frame.
pub struct Frame<A> {
    /// The flow it belongs to.
    pub flow: Flow<A>,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Whether nobody on the way may fragment it: IPv6, or IPv4 with DF.
    pub whole: bool,
    /// Length of the IP packet.
    pub ip_len: u32,
    /// Length of the frame, Ethernet header included, padding not.
    pub bytes: u32,
}

/// A frame of either family.
pub enum Parsed {
    /// IPv4.
    V4(Frame<Addr4>),
    /// IPv6.
    V6(Frame<Addr6>),
}

/// Reads a frame.
#[inline(always)]
pub fn parse(packet: &Packet) -> Result<Parsed, Reason> {
    let eth = packet.at::<EthWords>(0).ok_or(Reason::Truncated)?;
    // SAFETY: `at` checked all fourteen bytes.
    let (to, ethertype) = unsafe { (u64::from(*eth.cast::<u32>()) | u64::from((*eth)[2]) << 32, (*eth)[6]) };
    // The lowest bit of the first byte marks a group address (IEEE 802, section 8.2).
    if to.to_le() & 1 != 0 {
        return Err(Reason::Group);
    }
    let mac = constant(&maps::policy().mac);
    if mac != 0 && mac != to {
        return Err(Reason::OtherHost);
    }
    match ethertype {
        ETHERTYPE_IPV4 => ipv4(packet).map(Parsed::V4),
        ETHERTYPE_IPV6 => ipv6(packet).map(Parsed::V6),
        ETHERTYPE_8021Q | ETHERTYPE_8021AD => Err(Reason::Tagged),
        _ => Err(Reason::NotIp),
    }
}

#[inline(always)]
fn ipv4(packet: &Packet) -> Result<Frame<Addr4>, Reason> {
    let header = packet.at::<Ip4Words>(ETH).ok_or(Reason::Truncated)?;
    let half = header.cast::<u16>();
    // SAFETY: `at` checked all twenty bytes; ten half words, twenty bytes.
    let (version, ip_len, fragment, ttl, proto, src, dst) = unsafe {
        let bytes = header.cast::<u8>();
        (
            *bytes,
            u32::from(u16::from_be(*half.add(1))),
            *half.add(3),
            *bytes.add(8),
            *bytes.add(9),
            (*header)[3],
            (*header)[4],
        )
    };
    if version != 0x45 {
        return Err(if version >> 4 == 4 && version & 15 > 5 { Reason::Options } else { Reason::BadLength });
    }
    if fragment & FRAGMENT != 0 {
        return Err(Reason::Fragment);
    }
    let transport = transport(packet, ETH + IP4, proto, ip_len, IP4)?;
    let flow =
        Flow { src, dst, src_port: transport.src_port, dst_port: transport.dst_port, proto, flags: transport.flags };
    Ok(Frame { flow, ttl, whole: fragment & DONT_FRAGMENT != 0, ip_len, bytes: ip_len + ETH as u32 })
}

#[inline(always)]
fn ipv6(packet: &Packet) -> Result<Frame<Addr6>, Reason> {
    let header = packet.at::<Ip6Words>(ETH).ok_or(Reason::Truncated)?;
    // SAFETY: `at` checked all forty bytes.
    let (version, payload, proto, ttl, src, dst) = unsafe {
        let bytes = header.cast::<u8>();
        let payload = u16::from_be(*header.cast::<u16>().add(2));
        (*bytes >> 4, payload, *bytes.add(6), *bytes.add(7), [(*header)[1], (*header)[2]], [(*header)[3], (*header)[4]])
    };
    if version != 6 {
        return Err(Reason::BadLength);
    }
    match proto {
        // Hop-by-hop, routing, destination options, AH, mobility, HIP, shim6 (IANA "IPv6 Extension Header Types").
        0 | 43 | 60 | 51 | 135 | 139 | 140 => return Err(Reason::Extension),
        44 => return Err(Reason::Fragment),
        _ => {}
    }
    let ip_len = u32::from(payload) + IP6 as u32;
    let transport = transport(packet, ETH + IP6, proto, ip_len, IP6)?;
    let flow =
        Flow { src, dst, src_port: transport.src_port, dst_port: transport.dst_port, proto, flags: transport.flags };
    Ok(Frame { flow, ttl, whole: true, ip_len, bytes: ip_len + ETH as u32 })
}

struct Transport {
    src_port: u16,
    dst_port: u16,
    flags: u8,
}

/// Reads ports and flags at `offset`, and holds the IP length against the frame and the headers.
#[inline(always)]
fn transport(packet: &Packet, offset: usize, proto: u8, ip_len: u32, header: usize) -> Result<Transport, Reason> {
    let (flags, min) = match proto {
        TCP => {
            let tcp = packet.at::<[u8; TCP_MIN]>(offset).ok_or(Reason::Truncated)?;
            // SAFETY: `at` checked all twenty bytes; the flags are the fourteenth (RFC 9293, section 3.1).
            (unsafe { (*tcp)[13] }, TCP_MIN)
        }
        UDP => (0, UDP_LEN),
        _ => return Err(Reason::Protocol),
    };
    let ports = packet.at::<[u16; UDP_LEN / 2]>(offset).ok_or(Reason::Truncated)?;
    // SAFETY: `at` checked eight bytes.
    let (src_port, dst_port) = unsafe { ((*ports)[0], (*ports)[1]) };
    if ip_len < (header + min) as u32 {
        return Err(Reason::BadLength);
    }
    let promised = ip_len + ETH as u32;
    // A short linear part is normal for a frame with fragments (jumbo frames); only then is the full length asked for.
    if promised > packet.linear_len() && promised > packet.full_len() {
        return Err(Reason::BadLength);
    }
    Ok(Transport { src_port, dst_port, flags })
}
