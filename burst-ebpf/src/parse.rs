//! Bytes → Flow.
//!
//! [`usual`] reads what nearly every packet is, with constant offsets: an untagged frame, IPv4 without options or IPv6
//! without extension headers, TCP or UDP, all of it in the linear part. Everything else is [`full`]'s: tags, options,
//! extension headers, ICMP errors, jumbo frames, and the reasons of what is not understood.

pub mod full;
mod ipv4;
mod ipv6;
mod error;

use burst_common::flow::{Addr4, Addr6, Flow, TCP, UDP};
use burst_common::policy::constant;

use crate::guard::Guarded;
use crate::maps;
use crate::packet::Packet;
use crate::tunnel;

/// Length of an Ethernet header (IEEE 802.3).
pub const ETH: usize = 14;
/// Length of a VLAN tag (IEEE 802.1Q).
pub const TAG: usize = 4;
/// Length of an IPv4 header without options (RFC 791).
pub const IP4: usize = 20;
/// Length of an IPv6 header (RFC 8200).
pub const IP6: usize = 40;
/// Shortest TCP header (RFC 9293).
pub const TCP_MIN: usize = 20;
/// A UDP header (RFC 768), and of every other transport as much as an ICMP error is sure to quote (RFC 792).
pub const UDP_LEN: usize = 8;

/// IPv4, as the ethertype lies in the frame.
pub const ETHERTYPE_IPV4: u16 = 0x0800u16.to_be();
/// IPv6, likewise.
pub const ETHERTYPE_IPV6: u16 = 0x86ddu16.to_be();

/// More-fragments flag and fragment offset (RFC 791, section 3.1).
const FRAGMENT: u16 = 0x3fffu16.to_be();
/// Don't-fragment flag (RFC 791, section 3.1).
const DONT_FRAGMENT: u16 = 0x4000u16.to_be();

/// Destination MAC, source MAC, ethertype as words.
type EthWords = [u16; 7];
/// An IPv4 header without options as words of the frame.
type Ip4Words = [u32; 5];
/// An IPv6 header as words of the frame.
type Ip6Words = [u64; 5];

/// What was read of a frame.
#[derive(Clone, Copy)]
pub struct Frame<A> {
    /// The flow it belongs to. Of an ICMP error: the flow of the packet it is about, in the direction of the error.
    pub flow: Flow<A>,
    /// The sender as the IP header names it: of an ICMP error some router, else the flow's source.
    pub from: A,
    /// TTL or hop limit.
    pub ttl: u8,
    /// DSCP and ECN (IPv4 TOS, IPv6 traffic class).
    pub tos: u8,
    /// Whether nobody on the way may fragment it: IPv6, or IPv4 with DF.
    pub whole: bool,
    /// Length of the IP packet.
    pub ip_len: u32,
    /// Offset of the IP header.
    pub l3: usize,
    /// Offset of the transport header, of an ICMP error the ICMP header.
    pub l4: usize,
    /// VLAN id of the outermost tag, host byte order; 0: none.
    pub vlan: u16,
    /// Of an ICMP error: the offset of the transport header it quotes; else 0.
    pub quoted: usize,
    /// Whether it is a usual frame: untagged, and its headers where they are in nearly every packet.
    pub usual: bool,
}

/// Where the headers of a frame are, in one word: what a subprogram is given, which then reads the frame anew. Its stack is
/// its own, and nothing of the caller's frame has to lie in memory.
#[derive(Clone, Copy)]
pub struct Offsets(u32);

impl Offsets {
    /// As [`Frame`] has them, each below 1024; `proto` is the flow's.
    #[inline(always)]
    pub const fn new(l3: usize, l4: usize, quoted: usize, proto: u8) -> Self {
        Self(l3 as u32 | (l4 as u32) << 10 | (quoted as u32) << 20 | ((proto == UDP) as u32) << 30)
    }

    /// From the word that [`Offsets::word`] gave.
    #[inline(always)]
    pub const fn from_word(word: u32) -> Self {
        Self(word)
    }

    /// As one word.
    #[inline(always)]
    pub const fn word(self) -> u32 {
        self.0
    }

    /// Of the IP header.
    #[inline(always)]
    pub const fn l3(self) -> usize {
        (self.0 & 0x3ff) as usize
    }

    /// Of the transport header.
    #[inline(always)]
    pub const fn l4(self) -> usize {
        (self.0 >> 10 & 0x3ff) as usize
    }

    /// Of the transport header that an ICMP error quotes; else 0.
    #[inline(always)]
    pub const fn quoted(self) -> usize {
        (self.0 >> 20 & 0x3ff) as usize
    }

    /// The same after the head moved, so that the IP header is at `l3`.
    #[inline(always)]
    pub const fn moved(self, l3: usize) -> Self {
        let quoted = if self.quoted() == 0 { 0 } else { self.quoted() - self.l3() + l3 };
        Self::new(l3, self.l4() - self.l3() + l3, quoted, self.proto())
    }

    /// The flow's protocol.
    #[inline(always)]
    pub const fn proto(self) -> u8 {
        if self.0 >> 30 & 1 != 0 { UDP } else { TCP }
    }
}

impl<A> Frame<A> {
    /// Where its headers are.
    #[inline(always)]
    pub fn offsets(&self) -> Offsets {
        Offsets::new(self.l3, self.l4, self.quoted, self.flow.proto)
    }

    /// Length of the frame up to the end of the IP packet: padding is not in it.
    #[inline(always)]
    pub fn bytes(&self) -> u32 {
        self.ip_len + self.l3 as u32
    }

    /// Whether this is an ICMP error.
    #[inline(always)]
    pub fn is_error(&self) -> bool {
        self.quoted != 0
    }
}

/// What a frame may be, by its Ethernet header.
pub enum Kind {
    /// A usual IPv4 frame.
    V4,
    /// A usual IPv6 frame.
    V6,
    /// No usual frame.
    Other,
}

/// Reads the Ethernet header.
#[inline(always)]
pub fn kind(packet: &Packet) -> Kind {
    let Some(eth) = packet.at::<EthWords>(0) else { return Kind::Other };
    // SAFETY: `at` checked all fourteen bytes.
    let (to, ethertype) = unsafe { (destination(eth), (*eth)[6]) };
    match ethertype {
        _ if !is_for_us(to) => Kind::Other,
        ETHERTYPE_IPV4 => Kind::V4,
        ETHERTYPE_IPV6 => Kind::V6,
        _ => Kind::Other,
    }
}

/// A family whose usual frames can be read.
pub trait Usual: Guarded {
    /// Reads a frame of which [`kind`] says that it may be usual; `None`: it is not.
    fn usual(packet: &Packet) -> Option<Frame<Self>>;
}

impl Usual for Addr4 {
    #[inline(always)]
    fn usual(packet: &Packet) -> Option<Frame<Self>> {
        usual4(packet)
    }
}

impl Usual for Addr6 {
    #[inline(always)]
    fn usual(packet: &Packet) -> Option<Frame<Self>> {
        usual6(packet)
    }
}

/// The destination MAC address as the policy has it.
///
/// # Safety
/// The pointer was checked.
#[inline(always)]
unsafe fn destination(eth: *mut EthWords) -> u64 {
    // SAFETY: the caller checked it.
    unsafe { u64::from(*eth.cast::<u32>()) | u64::from((*eth)[2]) << 32 }
}

/// Whether the frame is addressed to this device alone.
#[inline(always)]
fn is_for_us(to: u64) -> bool {
    let mac = constant(&maps::policy().mac);
    // The lowest bit of the first byte marks a group address (IEEE 802, section 8.2).
    if mac != 0 { mac == to } else { to.to_le() & 1 == 0 }
}

#[inline(always)]
fn usual4(packet: &Packet) -> Option<Frame<Addr4>> {
    let header = packet.at::<Ip4Words>(ETH)?;
    let half = header.cast::<u16>();
    let bytes = header.cast::<u8>();
    // SAFETY: `at` checked all twenty bytes; ten half words, twenty bytes.
    let (version, tos, ip_len, fragment, ttl, proto, src, dst) = unsafe {
        let ip_len = u32::from(u16::from_be(*half.add(1)));
        (*bytes, *bytes.add(1), ip_len, *half.add(3), *bytes.add(8), *bytes.add(9), (*header)[3], (*header)[4])
    };
    if version != 0x45 || fragment & FRAGMENT != 0 {
        return None;
    }
    let transport = usual_transport(packet, proto, ip_len, IP4)?;
    let flow = transport.flow(src, dst, proto);
    let whole = fragment & DONT_FRAGMENT != 0;
    Some(Frame { flow, from: src, ttl, tos, whole, ip_len, l3: ETH, l4: ETH + IP4, vlan: 0, quoted: 0, usual: true })
}

#[inline(always)]
fn usual6(packet: &Packet) -> Option<Frame<Addr6>> {
    let header = packet.at::<Ip6Words>(ETH)?;
    let half = header.cast::<u16>();
    let bytes = header.cast::<u8>();
    // SAFETY: `at` checked all forty bytes.
    let (first, payload, proto, ttl, src, dst) = unsafe {
        let addresses = *header;
        let payload = u32::from(u16::from_be(*half.add(2)));
        let (src, dst) = ([addresses[1], addresses[2]], [addresses[3], addresses[4]]);
        (u16::from_be(*half), payload, *bytes.add(6), *bytes.add(7), src, dst)
    };
    if first >> 12 != 6 {
        return None;
    }
    let ip_len = payload + IP6 as u32;
    let transport = usual_transport(packet, proto, ip_len, IP6)?;
    let (flow, tos) = (transport.flow(src, dst, proto), (first >> 4) as u8);
    Some(Frame {
        flow,
        from: src,
        ttl,
        tos,
        whole: true,
        ip_len,
        l3: ETH,
        l4: ETH + IP6,
        vlan: 0,
        quoted: 0,
        usual: true,
    })
}

/// Ports and flags.
pub(crate) struct Transport {
    src_port: u16,
    dst_port: u16,
    flags: u8,
}

impl Transport {
    #[inline(always)]
    fn flow<A>(&self, src: A, dst: A, proto: u8) -> Flow<A> {
        Flow { src, dst, src_port: self.src_port, dst_port: self.dst_port, proto, flags: self.flags }
    }
}

/// Reads ports and flags behind a header of `header` bytes; `None` too where the linear part does not hold the whole packet.
#[inline(always)]
fn usual_transport(packet: &Packet, proto: u8, ip_len: u32, header: usize) -> Option<Transport> {
    if ip_len + ETH as u32 > packet.linear_len() {
        return None;
    }
    // From a link, it may be a tunnel (GUE): told where tunnels are opened.
    if proto == UDP && tunnel::may_come_in_udp() {
        return None;
    }
    transport(packet, proto, ip_len.wrapping_sub(header as u32), ETH + header)
}

/// Reads ports and flags at `l4`, where `len` bytes of the IP packet are left, and holds the lengths in the header against
/// that. `None`: they contradict it, the header is not there, or it is neither TCP nor UDP.
#[inline(always)]
pub(crate) fn transport(packet: &Packet, proto: u8, len: u32, l4: usize) -> Option<Transport> {
    // A length below the IP header's wrapped around.
    if len > 0xffff {
        return None;
    }
    match proto {
        TCP => {
            let tcp = packet.at::<[u16; TCP_MIN / 2]>(l4)?;
            // SAFETY: `at` checked all twenty bytes. Data offset and flags are bytes 12 and 13 (RFC 9293, section 3.1).
            let (src_port, dst_port, word) = unsafe { ((*tcp)[0], (*tcp)[1], u16::from_be((*tcp)[6])) };
            let header = u32::from(word >> 12) * 4;
            if header < TCP_MIN as u32 || header > len {
                return None;
            }
            Some(Transport { src_port, dst_port, flags: word as u8 })
        }
        UDP => {
            let udp = packet.at::<[u16; UDP_LEN / 2]>(l4)?;
            // SAFETY: `at` checked all eight bytes.
            let (src_port, dst_port, udp_len) = unsafe { ((*udp)[0], (*udp)[1], u32::from(u16::from_be((*udp)[2]))) };
            if udp_len < UDP_LEN as u32 || udp_len > len {
                return None;
            }
            Some(Transport { src_port, dst_port, flags: 0 })
        }
        _ => None,
    }
}
