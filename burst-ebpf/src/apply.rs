//! Rewrite → bytes.
//!
//! All bounds are checked before the first byte is written: a packet is changed wholly or not at all (`None`). Here: what
//! every packet needs. The quoted packet of an ICMP error is in `quoted`, the segment size in `mss`, outer headers in `outer`.

use burst_common::checksum::Delta;
use burst_common::flow::UDP;

use crate::classify::Family;
use crate::packet::Packet;
use crate::parse::{ETH, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Frame, IP4, TAG};
use crate::quoted;
use crate::rewrite::{Changed, Side};

/// 802.1Q, as the ethertype lies in the frame.
const ETHERTYPE_8021Q: u16 = 0x8100u16.to_be();

/// Writes the MAC addresses of an untagged frame.
#[inline(always)]
pub fn macs(packet: &Packet, macs: &[u32; 3]) -> Option<()> {
    let eth = packet.at::<[u32; 3]>(0)?;
    // SAFETY: `at` checked twelve bytes.
    unsafe { set_macs(eth, macs) };
    Some(())
}

/// Three loads and three stores. As a copy of an array it would be a call that copies byte by byte.
///
/// # Safety
/// `eth` was checked.
#[inline(always)]
unsafe fn set_macs(eth: *mut [u32; 3], macs: &[u32; 3]) {
    // SAFETY: a reference is valid for reads; volatile, so that they are not made into a copy. The caller checked `eth`.
    unsafe {
        let (a, b, c) = (
            core::ptr::read_volatile(&raw const macs[0]),
            core::ptr::read_volatile(&raw const macs[1]),
            core::ptr::read_volatile(&raw const macs[2]),
        );
        ((*eth)[0], (*eth)[1], (*eth)[2]) = (a, b, c);
    }
}

/// Writes a whole Ethernet header: MAC addresses, a tag if `vlan` (host byte order) is not 0, the ethertype of `family`.
#[inline(always)]
pub fn ethernet(packet: &Packet, macs: &[u32; 3], vlan: u16, family: u8) -> Option<()> {
    let ethertype = if family == 6 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 };
    if vlan == 0 {
        let header = packet.at::<[u16; ETH / 2]>(0)?;
        // SAFETY: `at` checked fourteen bytes: twelve of addresses, then half word 6.
        unsafe {
            set_macs(header.cast(), macs);
            (*header)[6] = ethertype;
        }
    } else {
        let header = packet.at::<[u16; (ETH + TAG) / 2]>(0)?;
        // SAFETY: `at` checked eighteen bytes; priority 0, as the tag control information has it in its upper bits.
        unsafe {
            set_macs(header.cast(), macs);
            (*header)[6] = ETHERTYPE_8021Q;
            (*header)[7] = vlan.to_be();
            (*header)[8] = ethertype;
        }
    }
    Some(())
}

/// Sends the packet one hop on: a TTL or hop limit less one.
#[inline(always)]
pub fn hop<A: Family>(packet: &Packet, frame: &Frame<A>) -> Option<()> {
    if A::FAMILY == 4 {
        let ip = packet.at::<[u16; IP4 / 2]>(frame.l3)?;
        let delta = decrement(packet, frame)?;
        // SAFETY: `at` checked twenty bytes; half word 5 is the checksum (RFC 791, section 3.1).
        unsafe { (*ip)[5] = delta.apply((*ip)[5]) };
    } else {
        decrement(packet, frame)?;
    }
    Some(())
}

/// Sends the packet one hop on under another address.
#[inline(always)]
pub fn hop_as<A: Family>(packet: &Packet, frame: &Frame<A>, changed: &Changed<A>) -> Option<()> {
    // Checked here, so that nothing is written if `address` would find the packet too short.
    if frame.is_error() || frame.flow.proto == UDP {
        packet.at::<u16>(frame.l4 + 6)?;
    } else {
        packet.at::<u16>(frame.l4 + 16)?;
    }
    let delta = decrement(packet, frame)?;
    address(packet, frame, changed, delta)
}

/// Changes the address only; the kernel goes on with the packet.
#[inline(always)]
pub fn rename<A: Family>(packet: &Packet, frame: &Frame<A>, changed: &Changed<A>) -> Option<()> {
    address(packet, frame, changed, Delta::NONE)
}

/// Takes one off the TTL (which is above 1) or the hop limit. Returns what that does to the IPv4 header checksum.
#[inline(always)]
fn decrement<A: Family>(packet: &Packet, frame: &Frame<A>) -> Option<Delta> {
    if A::FAMILY == 4 {
        let ttl = packet.at::<[u8; 2]>(frame.l3 + 8)?;
        // SAFETY: `at` checked both bytes: TTL, and protocol (RFC 791, section 3.1).
        unsafe { (*ttl)[0] = frame.ttl - 1 };
        // The half word of both is less by one in its first byte, whatever it was.
        Some(Delta::NONE.word(0x0100u16.to_be(), 0))
    } else {
        let limit = packet.at::<[u8; 2]>(frame.l3 + 6)?;
        // SAFETY: `at` checked both bytes: next header, and hop limit (RFC 8200, section 3).
        unsafe { (*limit)[1] = frame.ttl - 1 };
        Some(Delta::NONE)
    }
}

/// Writes address, port and the checksums over them. `header` is what else changed in an IPv4 header.
#[inline(always)]
fn address<A: Family>(packet: &Packet, frame: &Frame<A>, changed: &Changed<A>, header: Delta) -> Option<()> {
    if frame.is_error() {
        quoted::rename(packet, frame, changed)?;
        // The sender of an error may be any router: its own address is replaced, whatever it is.
        let from = if changed.side == Side::Source { frame.from } else { changed.old };
        let delta = Delta::NONE.address(from.wide(), changed.addr.wide());
        return ip_address(packet, frame, changed, header.join(delta));
    }
    let ports = packet.at::<[u16; 2]>(frame.l4)?;
    let udp = frame.flow.proto == UDP;
    // RFC 768; RFC 9293, section 3.1.
    let checksum = if udp { packet.at::<u16>(frame.l4 + 6)? } else { packet.at::<u16>(frame.l4 + 16)? };
    ip_address(packet, frame, changed, header.join(changed.addr_delta))?;
    // SAFETY: `at` checked both.
    unsafe {
        (*ports)[if changed.side == Side::Source { 0 } else { 1 }] = changed.port;
        *checksum = if udp { changed.delta.apply_udp(*checksum) } else { changed.delta.apply(*checksum) };
    }
    Some(())
}

/// Writes an address into the IP header. `header` is what all changes do to an IPv4 header's checksum.
#[inline(always)]
fn ip_address<A: Family>(packet: &Packet, frame: &Frame<A>, changed: &Changed<A>, header: Delta) -> Option<()> {
    let wide = changed.addr.wide();
    if A::FAMILY == 4 {
        let ip = packet.at::<[u32; 5]>(frame.l3)?;
        // SAFETY: `at` checked twenty bytes; words 3 and 4 are the addresses, half word 5 the checksum.
        unsafe {
            (*ip)[if changed.side == Side::Source { 3 } else { 4 }] = wide[0];
            let sum = ip.cast::<u16>().add(5);
            *sum = header.apply(*sum);
        }
    } else {
        let addr = packet.at::<[u32; 4]>(frame.l3 + if changed.side == Side::Source { 8 } else { 24 })?;
        // SAFETY: `at` checked sixteen bytes.
        unsafe { *addr = wide };
    }
    Some(())
}

/// Marks the packet as having met congestion (RFC 3168): both bits of ECN are set, which were not both zero.
#[inline(always)]
pub fn congested<A: Family>(packet: &Packet, frame: &Frame<A>) -> Option<()> {
    let half = packet.at::<[u16; 6]>(frame.l3)?;
    // SAFETY: `at` checked twelve bytes: the first half word has IPv4's TOS in its second byte (RFC 791, section 3.1), IPv6's
    // traffic class in its middle eight bits (RFC 8200, section 3); the sixth is IPv4's checksum.
    unsafe {
        let old = (*half)[0];
        if A::FAMILY == 4 {
            let new = old | 0x0003u16.to_be();
            (*half)[0] = new;
            (*half)[5] = Delta::NONE.word(old, new).apply((*half)[5]);
        } else {
            (*half)[0] = old | 0x0030u16.to_be();
        }
    }
    Some(())
}
