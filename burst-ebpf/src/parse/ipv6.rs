//! An IPv6 header and its extension headers (RFC 8200, sections 3 and 4).

use burst_common::flow::{TCP, UDP};
use burst_common::reason::Reason;

use super::IP6;
use super::full::{Found, ICMPV6, Read, holds};
use crate::classify::Family;
use crate::packet::Packet;

/// Extension headers walked.
const MAX_EXTENSIONS: usize = 6;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
/// IPv4 and IPv6 inside IPv6 (RFC 2473).
const IPIP: u8 = 4;
const IPV6: u8 = 41;

/// An IPv6 header as words of the frame.
type Words = [u32; IP6 / 4];

/// Checks the header and walks its extension headers; says where the transport header is, and of what protocol.
#[inline(always)]
pub fn ipv6(packet: &Packet, found: &mut Found) -> Result<(), Reason> {
    let l3 = found.l3();
    let header = packet.at::<Words>(l3).ok_or(Reason::Truncated)?;
    let bytes = header.cast::<u8>();
    // SAFETY: `at` checked all forty bytes.
    let (version, payload, next) =
        unsafe { (*bytes >> 4, u32::from(u16::from_be(*header.cast::<u16>().add(2))), *bytes.add(6)) };
    let ip_len = payload + IP6 as u32;
    // No payload: a jumbogram (RFC 2675) or nothing.
    if version != 6 || payload == 0 || !holds(packet, l3, ip_len) {
        return Err(Reason::BadLength);
    }
    let (proto, len) = extensions(packet, l3, next, ip_len)?;
    (found.l4, found.ip_len, found.proto) = ((l3 + len) as u32, ip_len, proto.into());
    Ok(())
}

/// Walks the extension headers; the transport protocol, and its offset behind the IPv6 header's start.
#[inline(always)]
fn extensions(packet: &Packet, l3: usize, mut next: u8, ip_len: u32) -> Result<(u8, usize), Reason> {
    let mut at = IP6;
    for number in 0..=MAX_EXTENSIONS {
        match next {
            TCP | UDP | ICMPV6 | IPIP | IPV6 => return Ok((next, at)),
            HOP_BY_HOP if number == 0 => {}
            ROUTING | FRAGMENT | DESTINATION => {}
            AUTHENTICATION => return Err(Reason::Authenticated),
            HOP_BY_HOP | 135 | 139 | 140 | 253 | 254 => return Err(Reason::Extension),
            _ => return Err(Reason::Protocol),
        }
        if number == MAX_EXTENSIONS || at > 0x1ff {
            break;
        }
        let extension = packet.at::<[u8; 8]>(l3 + at).ok_or(Reason::Truncated)?;
        // SAFETY: `at` checked eight bytes, the shortest extension header.
        let (following, length, third, fourth) =
            unsafe { ((*extension)[0], (*extension)[1], (*extension)[2], (*extension)[3]) };
        match next {
            // Offset and the M flag (RFC 8200, section 4.5); without either it is whole (RFC 6946).
            FRAGMENT if third != 0 || fourth & 0xf9 != 0 => return Err(Reason::Fragment),
            FRAGMENT => at += 8,
            // Segments left (RFC 8200, section 4.4).
            ROUTING if fourth != 0 => return Err(Reason::SourceRoute),
            // In units of eight bytes, the first not counted.
            _ => at += (usize::from(length) + 1) * 8,
        }
        if at > ip_len as usize {
            return Err(Reason::BadLength);
        }
        next = following;
    }
    Err(Reason::Extension)
}

/// Reads a header that was checked.
#[inline(always)]
pub fn read<A: Family>(packet: &Packet, l3: usize) -> Option<Read<A>> {
    let header = packet.at::<Words>(l3)?;
    // SAFETY: `at` checked all forty bytes.
    unsafe {
        let [first, second, a, b, c, d, e, f, g, h] = *header;
        let (tos, second) = ((u32::from_be(first) >> 20) as u8, u32::from_be(second));
        let (src, dst) = (A::narrow([a, b, c, d]), A::narrow([e, f, g, h]));
        Some(Read { src, dst, ttl: second as u8, tos, whole: true, ip_len: (second >> 16) + IP6 as u32 })
    }
}
