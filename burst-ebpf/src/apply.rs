//! Rewrite → bytes. The only file that writes to a packet.
//!
//! All bounds are checked before the first byte is written: a packet is changed wholly or not at all (`None`).

use burst_common::checksum::Delta;
use burst_common::flow::UDP;

use crate::classify::Family;
use crate::packet::Packet;
use crate::parse::{ETH, Frame, IP4, IP6};
use crate::rewrite::{Changed, Side};

/// Sends the packet one hop on: MACs, and a TTL or hop limit less one.
#[inline(always)]
pub fn hop<A: Family>(packet: &Packet, frame: &Frame<A>, macs: [u32; 3]) -> Option<()> {
    let eth = packet.at::<[u32; 3]>(0)?;
    if A::FAMILY == 4 {
        let delta = decrement(packet, frame)?;
        let ip = packet.at::<[u16; IP4 / 2]>(ETH)?;
        // SAFETY: `at` checked twenty bytes; half word 5 is the checksum (RFC 791, section 3.1).
        unsafe { (*ip)[5] = delta.apply((*ip)[5]) };
    } else {
        decrement(packet, frame)?;
    }
    // SAFETY: `at` checked twelve bytes.
    unsafe { *eth = macs };
    Some(())
}

/// Sends the packet one hop on under another address.
#[inline(always)]
pub fn hop_as<A: Family>(packet: &Packet, frame: &Frame<A>, macs: [u32; 3], changed: &Changed<A>) -> Option<()> {
    let eth = packet.at::<[u32; 3]>(0)?;
    // Checked here, so that nothing is written if `address` would find the packet too short.
    packet.at::<u8>(ETH + if A::FAMILY == 4 { IP4 } else { IP6 } + if frame.flow.proto == UDP { 7 } else { 17 })?;
    let delta = decrement(packet, frame)?;
    address(packet, frame, changed, delta)?;
    // SAFETY: `at` checked twelve bytes.
    unsafe { *eth = macs };
    Some(())
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
        let ip = packet.at::<[u16; IP4 / 2]>(ETH)?;
        // SAFETY: `at` checked twenty bytes; half word 4 is TTL and protocol.
        unsafe {
            let old = (*ip)[4];
            let new = u16::from_ne_bytes([frame.ttl - 1, frame.flow.proto]);
            (*ip)[4] = new;
            Some(Delta::NONE.word(old, new))
        }
    } else {
        let limit = packet.at::<u8>(ETH + 7)?;
        // SAFETY: `at` checked the byte (RFC 8200, section 3).
        unsafe { *limit = frame.ttl - 1 };
        Some(Delta::NONE)
    }
}

/// Writes address, port and the checksums over them. `header` is what else changed in an IPv4 header.
#[inline(always)]
fn address<A: Family>(packet: &Packet, frame: &Frame<A>, changed: &Changed<A>, header: Delta) -> Option<()> {
    let wide = changed.addr.wide();
    let transport = if A::FAMILY == 4 { ETH + IP4 } else { ETH + IP6 };
    let ports = packet.at::<[u16; 2]>(transport)?;
    let udp = frame.flow.proto == UDP;
    // RFC 768; RFC 9293, section 3.1.
    let checksum = if udp { packet.at::<u16>(transport + 6)? } else { packet.at::<u16>(transport + 16)? };
    if A::FAMILY == 4 {
        let ip = packet.at::<[u32; 5]>(ETH)?;
        // SAFETY: `at` checked twenty bytes; words 3 and 4 are the addresses, half word 5 the checksum.
        unsafe {
            (*ip)[if changed.side == Side::Source { 3 } else { 4 }] = wide[0];
            let sum = ip.cast::<u16>().add(5);
            *sum = header.join(changed.addr_delta).apply(*sum);
        }
    } else {
        let addr = packet.at::<[u32; 4]>(ETH + if changed.side == Side::Source { 8 } else { 24 })?;
        // SAFETY: `at` checked sixteen bytes.
        unsafe { *addr = wide };
    }
    // SAFETY: `at` checked both.
    unsafe {
        (*ports)[if changed.side == Side::Source { 0 } else { 1 }] = changed.port;
        *checksum = if udp { changed.delta.apply_udp(*checksum) } else { changed.delta.apply(*checksum) };
    }
    Some(())
}
