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
    /// A usual IPv4 frame, with all headers held.
    V4(Packet),
    /// A usual IPv6 frame, likewise.
    V6(Packet),
    /// No usual frame.
    Other,
}

/// Reads the Ethernet header. A usual frame is as long as one with a TCP header, whatever it carries: one check for all headers.
#[inline(always)]
pub fn kind(packet: &Packet) -> Kind {
    let Some(shortest) = packet.hold(ETH + IP4 + TCP_MIN) else { return Kind::Other };
    let Some(eth) = shortest.at::<EthWords>(0) else { return Kind::Other };
    // SAFETY: `at` checked all fourteen bytes.
    let (to, ethertype) = unsafe { (destination(eth), (*eth)[6]) };
    if !is_for_us(to) {
        return Kind::Other;
    }
    match ethertype {
        ETHERTYPE_IPV4 => Kind::V4(shortest),
        ETHERTYPE_IPV6 => packet.hold(ETH + IP6 + TCP_MIN).map_or(Kind::Other, Kind::V6),
        _ => Kind::Other,
    }
}

/// What makes a frame of a [`kind`] a usual one.
#[derive(Clone, Copy)]
pub struct Checked {
    /// Length of the frame up to the end of the IP packet. All else is read of the packet where it is needed: a load costs less
    /// than to keep what was loaded.
    bytes: u32,
}

impl Checked {
    /// Length of the frame up to the end of the IP packet.
    #[inline(always)]
    pub fn bytes(self) -> u32 {
        self.bytes
    }
}

/// A family whose usual frames can be read. All headers are held by the packet.
pub trait Usual: Guarded {
    /// Checks a frame of which [`kind`] says that it may be usual; `None`: it is not.
    fn check(packet: &Packet) -> Option<Checked>;
    /// Reads the destination of a usual frame.
    fn destination_of(packet: &Packet) -> Option<Self>;
    /// Reads a usual frame.
    fn frame(packet: &Packet, usual: &Checked) -> Option<Frame<Self>>;
}

impl Usual for Addr4 {
    #[inline(always)]
    fn check(packet: &Packet) -> Option<Checked> {
        let header = packet.at::<Ip4Words>(ETH)?;
        let half = header.cast::<u16>();
        let bytes = header.cast::<u8>();
        // SAFETY: `at` checked all twenty bytes; ten half words, twenty bytes.
        let (version, ip_len, fragment, proto) =
            unsafe { (*bytes, u32::from(u16::from_be(*half.add(1))), *half.add(3), *bytes.add(9)) };
        if version != 0x45 || fragment & FRAGMENT != 0 {
            return None;
        }
        checked(packet, proto, ip_len, IP4)
    }

    #[inline(always)]
    fn destination_of(packet: &Packet) -> Option<Self> {
        let header = packet.at::<Ip4Words>(ETH)?;
        // SAFETY: `at` checked all twenty bytes.
        Some(unsafe { (*header)[4] })
    }

    #[inline(always)]
    fn frame(packet: &Packet, usual: &Checked) -> Option<Frame<Self>> {
        let header = packet.at::<Ip4Words>(ETH)?;
        let half = header.cast::<u16>();
        let bytes = header.cast::<u8>();
        // SAFETY: `at` checked all twenty bytes; ten half words, twenty bytes.
        let (tos, whole, ttl, src, dst) =
            unsafe { (*bytes.add(1), *half.add(3) & DONT_FRAGMENT != 0, *bytes.add(8), (*header)[3], (*header)[4]) };
        // SAFETY: as above.
        let proto = unsafe { *bytes.add(9) };
        framed(packet, usual, (src, dst, proto), (ttl, tos, whole), IP4)
    }
}

impl Usual for Addr6 {
    #[inline(always)]
    fn check(packet: &Packet) -> Option<Checked> {
        let header = packet.at::<Ip6Words>(ETH)?;
        let half = header.cast::<u16>();
        let bytes = header.cast::<u8>();
        // SAFETY: `at` checked all forty bytes.
        let (version, payload, proto) = unsafe { (*bytes >> 4, u32::from(u16::from_be(*half.add(2))), *bytes.add(6)) };
        if version != 6 {
            return None;
        }
        checked(packet, proto, payload + IP6 as u32, IP6)
    }

    #[inline(always)]
    fn destination_of(packet: &Packet) -> Option<Self> {
        let header = packet.at::<Ip6Words>(ETH)?;
        // SAFETY: `at` checked all forty bytes.
        Some(unsafe { [(*header)[3], (*header)[4]] })
    }

    #[inline(always)]
    fn frame(packet: &Packet, usual: &Checked) -> Option<Frame<Self>> {
        let header = packet.at::<Ip6Words>(ETH)?;
        // SAFETY: `at` checked all forty bytes.
        let (first, ttl, src, dst) = unsafe {
            let words = header;
            let first = u16::from_be(*header.cast::<u16>());
            (first, *header.cast::<u8>().add(7), [(*words)[1], (*words)[2]], [(*words)[3], (*words)[4]])
        };
        // SAFETY: as above.
        let proto = unsafe { *header.cast::<u8>().add(6) };
        framed(packet, usual, (src, dst, proto), (ttl, (first >> 4) as u8, true), IP6)
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

/// Holds the lengths that the headers promise against the linear part, and against each other.
#[inline(always)]
fn checked(packet: &Packet, proto: u8, ip_len: u32, header: usize) -> Option<Checked> {
    if ip_len + ETH as u32 > packet.linear_len() {
        return None;
    }
    // From a link, it may be a tunnel (GUE): told where tunnels are opened.
    if proto == UDP && tunnel::may_come_in_udp() {
        return None;
    }
    transport(packet, proto, ip_len.wrapping_sub(header as u32), ETH + header)?;
    Some(Checked { bytes: ip_len + ETH as u32 })
}

/// Reads a frame whose IP header of `header` bytes says the rest.
#[inline(always)]
fn framed<A>(
    packet: &Packet,
    usual: &Checked,
    (src, dst, proto): (A, A, u8),
    (ttl, tos, whole): (u8, u8, bool),
    header: usize,
) -> Option<Frame<A>>
where
    A: Copy,
{
    let l4 = ETH + header;
    let ports = packet.at::<[u16; TCP_MIN / 2]>(l4)?;
    // SAFETY: `at` checked twenty bytes; flags are byte 13 of a TCP header (RFC 9293, section 3.1).
    let (src_port, dst_port, flags) = unsafe { ((*ports)[0], (*ports)[1], *ports.cast::<u8>().add(13)) };
    let flags = if proto == TCP { flags } else { 0 };
    let flow = Flow { src, dst, src_port, dst_port, proto, flags };
    Some(Frame { flow, from: src, ttl, tos, whole, ip_len: usual.bytes - ETH as u32, l3: ETH, l4, vlan: 0, quoted: 0 })
}

/// Holds the lengths in a TCP or UDP header at `l4` against the `len` bytes of the IP packet that are left there. `None`: they
/// contradict it, the header is not there, or it is neither.
#[inline(always)]
pub(crate) fn transport(packet: &Packet, proto: u8, len: u32, l4: usize) -> Option<()> {
    // A length below the IP header's wrapped around.
    if len > 0xffff {
        return None;
    }
    match proto {
        TCP => {
            let tcp = packet.at::<[u8; TCP_MIN]>(l4)?;
            // SAFETY: `at` checked all twenty bytes. The data offset, in words, is the upper half of byte 12 (RFC 9293, section 3.1).
            let header = u32::from(unsafe { (*tcp)[12] } >> 2 & 0x3c);
            (header >= TCP_MIN as u32 && header <= len).then_some(())
        }
        UDP => {
            let udp = packet.at::<[u16; UDP_LEN / 2]>(l4)?;
            // SAFETY: `at` checked all eight bytes.
            let udp_len = u32::from(u16::from_be(unsafe { (*udp)[2] }));
            (udp_len >= UDP_LEN as u32 && udp_len <= len).then_some(())
        }
        _ => None,
    }
}
