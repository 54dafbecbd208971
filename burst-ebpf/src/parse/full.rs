//! What is not a usual frame: tags, and the way to the IP header. Then [`ipv4`] and [`ipv6`] find the transport header, and
//! [`error`] the one that an ICMP error quotes. Every refusal has its reason, and passes.
//!
//! This stage finds *where* things are, and keeps that in memory of its own ([`maps::place_found`]); what is there is read from
//! the packet by the stage after it. So the verifier meets that stage once, with offsets it knows nothing of but their
//! bounds, and not once for each way to them; and each is a subprogram with a stack of its own.
//!
//! [`ipv4`]: super::ipv4
//! [`ipv6`]: super::ipv6
//! [`error`]: super::error

use aya_ebpf::bindings::xdp_md;
use burst_common::flow::{Addr4, Addr6, TCP, UDP};
use burst_common::policy::constant;
use burst_common::reason::Reason;

use super::{
    ETH, ETHERTYPE_IPV4, ETHERTYPE_IPV6, EthWords, Frame, Offsets, TAG, TCP_MIN, UDP_LEN, destination, error, ipv4,
    ipv6,
};
use crate::classify::Family;
use crate::maps;
use crate::packet::Packet;

const ETHERTYPE_8021Q: u16 = 0x8100u16.to_be();
const ETHERTYPE_8021AD: u16 = 0x88a8u16.to_be();
/// VLAN id in the tag control information (IEEE 802.1Q, section 9.6).
const VID: u16 = 0x0fff;

/// ICMP (RFC 792).
pub const ICMP: u8 = 1;
/// ICMPv6 (RFC 4443).
pub const ICMPV6: u8 = 58;

/// Where the headers of an IP packet are. Offsets count from the start of the frame.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Found {
    /// Offset of the IP header.
    pub l3: u32,
    /// Offset of the transport header, of an ICMP error the ICMP header.
    pub l4: u32,
    /// Of an ICMP error: the offset of the transport header it quotes; else 0.
    pub quoted: u32,
    /// Length of the IP packet.
    pub ip_len: u32,
    /// VLAN id of the frame, host byte order; 0: none, or a tag for priority alone.
    pub vlan: u32,
    /// Transport protocol; of an ICMP error, that of the packet it quotes.
    pub proto: u32,
    /// 4 or 6.
    pub family: u32,
    /// Of a packet inside a tunnel: the endpoint that sent it; else 0.
    pub endpoint: u32,
    /// Of a packet inside a tunnel: the DSCP and ECN of the outer header.
    pub outer_tos: u32,
    /// Of a packet inside a tunnel: the most bytes it can have.
    pub most: u32,
}

impl Found {
    /// Nothing found yet.
    const NOTHING: Self =
        Self { l3: 0, l4: 0, quoted: 0, ip_len: 0, vlan: 0, proto: 0, family: 0, endpoint: 0, outer_tos: 0, most: 0 };
}

/// Frames are shorter than this where headers can be; the verifier wants a bound.
const MOST: u32 = 0x3ff;

impl Found {
    /// Offset of the IP header.
    #[inline(always)]
    pub fn l3(&self) -> usize {
        (self.l3 & MOST) as usize
    }

    /// Offset of the transport header.
    #[inline(always)]
    pub fn l4(&self) -> usize {
        (self.l4 & MOST) as usize
    }

    /// Bytes from the transport header to the end of the packet.
    #[inline(always)]
    pub fn payload(&self) -> u32 {
        self.ip_len.wrapping_sub(self.l4.wrapping_sub(self.l3))
    }
}

/// Finds the headers of the frame's outermost IP packet.
// SAFETY (no_mangle): no other symbol of the object has this name.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn find_packet(ctx: *mut xdp_md) -> u32 {
    let packet = Packet::of(ctx);
    answer(maps::found().ok_or(Reason::Unready).and_then(|found| {
        let (ethertype, l3, vlan) = ether(&packet)?;
        let family = match ethertype {
            ETHERTYPE_IPV4 => 4,
            ETHERTYPE_IPV6 => 6,
            _ => return Err(Reason::NotIp),
        };
        // SAFETY: the row is this CPU's alone, and an XDP program is not preempted by another on its CPU.
        unsafe { *found = Found { l3: l3 as u32, vlan: vlan.into(), family, ..Found::NOTHING } };
        Ok(())
    }))
}

/// Finds what follows the IP header at [`Found::l3`].
// SAFETY (no_mangle): no other symbol of the object has this name.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn find_transport(ctx: *mut xdp_md) -> u32 {
    let packet = Packet::of(ctx);
    answer(maps::found().ok_or(Reason::Unready).and_then(|found| {
        // SAFETY: as in `find`.
        let found = unsafe { &mut *found };
        if found.family == 4 { ipv4::ipv4(&packet, found) } else { ipv6::ipv6(&packet, found) }
    }))
}

/// Checks the transport header, and finds the one that an ICMP error quotes.
// SAFETY (no_mangle): no other symbol of the object has this name.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn check_transport(ctx: *mut xdp_md) -> u32 {
    let packet = Packet::of(ctx);
    answer(maps::found().ok_or(Reason::Unready).and_then(|found| {
        // SAFETY: as in `find`.
        let found = unsafe { &mut *found };
        match (found.proto as u8, found.family) {
            (TCP | UDP, _) => {}
            (ICMP, 4) => return error::error::<Addr4>(&packet, found),
            (ICMPV6, 6) => return error::error::<Addr6>(&packet, found),
            _ => return Err(Reason::Protocol),
        }
        let tcp = found.proto as u8 == TCP;
        let least = if tcp { TCP_MIN } else { UDP_LEN };
        if found.payload() > 0xffff || found.payload() < least as u32 {
            return Err(Reason::BadLength);
        }
        packet.at::<[u8; UDP_LEN]>(found.l4()).ok_or(Reason::Truncated)?;
        if tcp {
            packet.at::<[u8; TCP_MIN]>(found.l4()).ok_or(Reason::Truncated)?;
        }
        super::transport(&packet, found.proto as u8, found.payload(), found.l4()).ok_or(Reason::BadLength)?;
        Ok(())
    }))
}

/// What a subprogram returns: 0, or one more than the number of a reason.
#[inline(always)]
pub fn answer(result: Result<(), Reason>) -> u32 {
    match result {
        Ok(()) => 0,
        Err(reason) => reason.number() as u32 + 1,
    }
}

/// Reads the Ethernet header and at most two tags: the ethertype of what follows, its offset, the outermost VLAN id.
#[inline(always)]
fn ether(packet: &Packet) -> Result<(u16, usize, u16), Reason> {
    let eth = packet.at::<EthWords>(0).ok_or(Reason::Truncated)?;
    // SAFETY: `at` checked all fourteen bytes.
    let (to, mut ethertype) = unsafe { (destination(eth), (*eth)[6]) };
    // The lowest bit of the first byte marks a group address (IEEE 802, section 8.2).
    if to.to_le() & 1 != 0 {
        return Err(Reason::Group);
    }
    let mac = constant(&maps::policy().mac);
    if mac != 0 && mac != to {
        return Err(Reason::OtherHost);
    }
    let (mut l3, mut vlan) = (ETH, 0);
    for _ in 0..2 {
        if !is_tag(ethertype) {
            break;
        }
        let tag = packet.at::<[u16; 2]>(l3).ok_or(Reason::Truncated)?;
        // SAFETY: `at` checked both words: tag control information, and the ethertype that follows.
        let (control, next) = unsafe { ((*tag)[0], (*tag)[1]) };
        if l3 == ETH {
            vlan = u16::from_be(control) & VID;
        }
        ethertype = next;
        l3 += TAG;
    }
    if is_tag(ethertype) {
        return Err(Reason::Tagged);
    }
    Ok((ethertype, l3, vlan))
}

#[inline(always)]
fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, ETHERTYPE_8021Q | ETHERTYPE_8021AD)
}

/// Holds the length that a header promises against the frame. A short linear part is normal for a frame with fragments
/// (jumbo frames); only then is the full length asked for.
#[inline(always)]
pub(super) fn holds(packet: &Packet, l3: usize, ip_len: u32) -> bool {
    let promised = l3 as u32 + ip_len;
    promised <= packet.linear_len() || promised <= packet.full_len()
}

/// Reads the packet whose headers were found and checked.
#[inline(always)]
pub fn frame<A: Family>(packet: &Packet) -> Option<Frame<A>> {
    // SAFETY: as in `find`.
    let found = unsafe { *maps::found()? };
    let at = Offsets::new(found.l3(), found.l4(), (found.quoted & MOST) as usize, found.proto as u8);
    let mut frame = again::<A>(packet, at)?;
    frame.vlan = found.vlan as u16;
    Some(frame)
}

/// Reads a frame that was checked before; its VLAN is not looked for.
#[inline(always)]
pub fn again<A: Family>(packet: &Packet, at: Offsets) -> Option<Frame<A>> {
    let (l3, l4, quoted) = (at.l3(), at.l4(), at.quoted());
    let mut frame = header::<A>(packet, l3)?;
    (frame.l4, frame.quoted) = (l4, quoted);
    let flow = &mut frame.flow;
    flow.proto = at.proto();
    if quoted != 0 {
        // An error travels against the packet it is about.
        flow.src = error::destination::<A>(packet, l4)?;
        let ports = packet.at::<[u16; 2]>(quoted)?;
        // SAFETY: `at` checked both.
        (flow.dst_port, flow.src_port) = unsafe { ((*ports)[0], (*ports)[1]) };
        return Some(frame);
    }
    let ports = packet.at::<[u16; 2]>(l4)?;
    // SAFETY: `at` checked both.
    (flow.src_port, flow.dst_port) = unsafe { ((*ports)[0], (*ports)[1]) };
    if flow.proto == TCP {
        let flags = packet.at::<[u8; 2]>(l4 + 12)?;
        // SAFETY: `at` checked both bytes: data offset, and flags (RFC 9293, section 3.1).
        flow.flags = unsafe { (*flags)[1] };
    }
    Some(frame)
}

/// What an IP header says.
pub(super) struct Read<A> {
    pub(super) src: A,
    pub(super) dst: A,
    pub(super) ttl: u8,
    pub(super) tos: u8,
    pub(super) whole: bool,
    pub(super) ip_len: u32,
}

/// Reads an IP header.
#[inline(always)]
pub fn header<A: Family>(packet: &Packet, l3: usize) -> Option<Frame<A>> {
    let Read { src, dst, ttl, tos, whole, ip_len } =
        if A::FAMILY == 4 { ipv4::read::<A>(packet, l3)? } else { ipv6::read::<A>(packet, l3)? };
    let flow = burst_common::flow::Flow { src, dst, src_port: 0, dst_port: 0, proto: 0, flags: 0 };
    Some(Frame { flow, from: src, ttl, tos, whole, ip_len, l3, l4: 0, vlan: 0, quoted: 0 })
}
