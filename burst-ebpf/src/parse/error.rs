//! An ICMP or ICMPv6 error and the packet it is about (RFC 792; RFC 4443, section 3).

use burst_common::flow::{TCP, UDP};
use burst_common::reason::Reason;

use super::full::Found;
use super::{IP4, IP6, UDP_LEN};
use crate::classify::Family;
use crate::packet::Packet;

/// Type, code, checksum and a word that depends on the type, before the quoted packet.
const ICMP_HEADER: usize = 8;

/// Checks an error and finds the transport header it quotes. The error must go to whoever sent the quoted packet.
#[inline(always)]
pub fn error<A: Family>(packet: &Packet, found: &mut Found) -> Result<(), Reason> {
    let (payload, l4) = (found.payload(), found.l4());
    if payload > 0xffff || payload < ICMP_HEADER as u32 {
        return Err(Reason::BadLength);
    }
    let kind = packet.at::<[u8; ICMP_HEADER]>(l4).ok_or(Reason::Truncated)?;
    // SAFETY: `at` checked the header; the type is its first byte.
    let kind = unsafe { (*kind)[0] };
    let is_error = if A::FAMILY == 4 {
        // Destination unreachable, source quench, time exceeded, parameter problem.
        matches!(kind, 3 | 4 | 11 | 12)
    } else {
        // Destination unreachable, packet too big, time exceeded, parameter problem.
        matches!(kind, 1..=4)
    };
    if !is_error {
        return Err(Reason::Protocol);
    }
    let (proto, header) = if A::FAMILY == 4 { quoted4(packet, l4) } else { quoted6(packet, l4) }?;
    if !matches!(proto, TCP | UDP) {
        return Err(Reason::Protocol);
    }
    if payload < (ICMP_HEADER + header + UDP_LEN) as u32 {
        return Err(Reason::BadLength);
    }
    let quoted = l4 + ICMP_HEADER + header;
    packet.at::<[u8; UDP_LEN]>(quoted).ok_or(Reason::Truncated)?;
    let (_, to) = addresses::<A>(packet, found.l3()).ok_or(Reason::Truncated)?;
    let (from, _) = addresses::<A>(packet, l4 + ICMP_HEADER).ok_or(Reason::Truncated)?;
    if from != to {
        return Err(Reason::Protocol);
    }
    (found.quoted, found.proto) = (quoted as u32, proto.into());
    Ok(())
}

/// Destination of the packet that the error at `l4` quotes.
#[inline(always)]
pub fn destination<A: Family>(packet: &Packet, l4: usize) -> Option<A> {
    addresses::<A>(packet, l4 + ICMP_HEADER).map(|(_, destination)| destination)
}

/// Source and destination of the IP header at `l3`.
#[inline(always)]
fn addresses<A: Family>(packet: &Packet, l3: usize) -> Option<(A, A)> {
    if A::FAMILY == 4 {
        let pair = packet.at::<[u32; 2]>(l3 + 12)?;
        // SAFETY: `at` checked both words (RFC 791, section 3.1).
        let [source, destination] = unsafe { *pair };
        return Some((A::narrow([source, 0, 0, 0]), A::narrow([destination, 0, 0, 0])));
    }
    let pair = packet.at::<[u32; 8]>(l3 + 8)?;
    // SAFETY: `at` checked all eight words (RFC 8200, section 3).
    let [a, b, c, d, e, f, g, h] = unsafe { *pair };
    Some((A::narrow([a, b, c, d]), A::narrow([e, f, g, h])))
}

/// Protocol and header length of a quoted IPv4 packet.
#[inline(always)]
fn quoted4(packet: &Packet, l4: usize) -> Result<(u8, usize), Reason> {
    let header = packet.at::<[u8; IP4]>(l4 + ICMP_HEADER).ok_or(Reason::Truncated)?;
    // SAFETY: `at` checked all twenty bytes.
    let (version, offset, proto) = unsafe { ((*header)[0], *header.cast::<u16>().add(3), (*header)[9]) };
    let len = usize::from(version & 15) * 4;
    if version >> 4 != 4 || len < IP4 {
        return Err(Reason::BadLength);
    }
    // The fragment offset, without its flags: later fragments have no ports.
    if offset & 0x1fffu16.to_be() != 0 {
        return Err(Reason::Fragment);
    }
    Ok((proto, len))
}

/// Protocol and header length of a quoted IPv6 packet.
#[inline(always)]
fn quoted6(packet: &Packet, l4: usize) -> Result<(u8, usize), Reason> {
    let header = packet.at::<[u8; IP6]>(l4 + ICMP_HEADER).ok_or(Reason::Truncated)?;
    // SAFETY: `at` checked all forty bytes.
    let (version, proto) = unsafe { ((*header)[0] >> 4, (*header)[6]) };
    if version == 6 { Ok((proto, IP6)) } else { Err(Reason::BadLength) }
}
