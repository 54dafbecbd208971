//! An IPv4 header and its options (RFC 791, section 3.1).

use burst_common::reason::Reason;

use super::full::{Found, Read, holds};
use super::{DONT_FRAGMENT, FRAGMENT, IP4, Ip4Words};
use crate::classify::Family;
use crate::packet::Packet;

/// Options looked at; a header has room for more only if they are padding.
const MAX_OPTIONS: usize = 10;

/// End of the list.
const EOL: u8 = 0;
/// No operation: the one option without a length.
const NOP: u8 = 1;
/// Loose source route.
const LSRR: u8 = 131;
/// Strict source route.
const SSRR: u8 = 137;

/// Checks the header and its options; says where the transport header is, and of what protocol.
#[inline(always)]
pub fn ipv4(packet: &Packet, found: &mut Found) -> Result<(), Reason> {
    let l3 = found.l3();
    let header = packet.at::<Ip4Words>(l3).ok_or(Reason::Truncated)?;
    let half = header.cast::<u16>();
    let bytes = header.cast::<u8>();
    // SAFETY: `at` checked all twenty bytes; ten half words, twenty bytes.
    let (version, ip_len, fragment, proto) =
        unsafe { (*bytes, u32::from(u16::from_be(*half.add(1))), *half.add(3), *bytes.add(9)) };
    let len = usize::from(version & 15) * 4;
    if version >> 4 != 4 || len < IP4 || (ip_len as usize) < len || !holds(packet, l3, ip_len) {
        return Err(Reason::BadLength);
    }
    if fragment & FRAGMENT != 0 {
        return Err(Reason::Fragment);
    }
    if len > IP4 {
        options(packet, l3, len)?;
    }
    (found.l4, found.ip_len, found.proto) = ((l3 + len) as u32, ip_len, proto.into());
    Ok(())
}

/// Walks the options of a header of `len` bytes: what is well formed and names no route is understood.
#[inline(always)]
fn options(packet: &Packet, l3: usize, len: usize) -> Result<(), Reason> {
    let mut at = IP4;
    for _ in 0..MAX_OPTIONS {
        if at >= len {
            return Ok(());
        }
        // A transport header follows: there are always two bytes.
        let option = packet.at::<[u8; 2]>(l3 + at).ok_or(Reason::Truncated)?;
        // SAFETY: `at` checked both bytes.
        let [kind, length] = unsafe { *option };
        match kind {
            EOL => return Ok(()),
            NOP => at += 1,
            LSRR | SSRR => return Err(Reason::SourceRoute),
            _ => {
                let length = usize::from(length);
                if length < 2 || at + length > len {
                    return Err(Reason::Options);
                }
                at += length;
            }
        }
    }
    if at >= len { Ok(()) } else { Err(Reason::Options) }
}

/// Reads a header that was checked.
#[inline(always)]
pub fn read<A: Family>(packet: &Packet, l3: usize) -> Option<Read<A>> {
    let header = packet.at::<Ip4Words>(l3)?;
    let bytes = header.cast::<u8>();
    // SAFETY: `at` checked all twenty bytes.
    unsafe {
        let whole = *header.cast::<u16>().add(3) & DONT_FRAGMENT != 0;
        let (src, dst) = (A::narrow([(*header)[3], 0, 0, 0]), A::narrow([(*header)[4], 0, 0, 0]));
        let ip_len = u32::from(u16::from_be(*header.cast::<u16>().add(1)));
        Some(Read { src, dst, ttl: *bytes.add(8), tos: *bytes.add(1), whole, ip_len })
    }
}
