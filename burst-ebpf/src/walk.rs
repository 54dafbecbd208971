//! IP header → where the transport header is, for those that must look at everything: the sentinel, and the return side of
//! links the kernel routes. It goes on where `parse` would refuse, and says what it passed by.

use burst_common::flow::{Addr4, Addr6, Flow};
use burst_common::forget::forget;
use burst_common::reason::Reason;

use crate::bytes::Source;
use crate::guard::Guarded;

/// IPv4 inside IP (RFC 2003).
pub const IPIP: u8 = 4;
/// IPv6 inside IP (RFC 4213).
pub const IPV6: u8 = 41;
/// ICMP (RFC 792).
pub const ICMP: u8 = 1;
/// ICMPv6 (RFC 4443).
pub const ICMPV6: u8 = 58;

/// An IPv4 header without options (RFC 791), an IPv6 header (RFC 8200).
pub const IP4: u32 = 20;
/// An IPv6 header (RFC 8200).
pub const IP6: u32 = 40;

/// Extension headers walked.
const MAX_EXTENSIONS: u32 = 8;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
const MOBILITY: u8 = 135;
const HIP: u8 = 139;
const SHIM6: u8 = 140;

/// The first of several fragments.
pub const FIRST_FRAGMENT: u64 = 1;
/// An authentication header covers it (RFC 4302).
pub const AUTHENTICATED: u64 = 2;
/// Its sender chose a route that is not over.
pub const ROUTED: u64 = 4;
/// An extension header that is not understood, though its length is.
pub const STRANGE: u64 = 8;

/// What an IP header and its extensions say.
pub struct Ip<A> {
    /// Addresses and transport protocol; the ports are not read.
    pub flow: Flow<A>,
    /// Length of the packet as its header has it.
    pub len: u32,
    /// Offset of the transport header.
    pub l4: u32,
    /// What was passed by that burst does not forward: [`FIRST_FRAGMENT`], [`AUTHENTICATED`], [`ROUTED`], [`STRANGE`]. Hidden
    /// from the verifier, which would follow every combination.
    pub odd: u64,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Whether nobody may fragment it: IPv6, or IPv4 with DF.
    pub whole: bool,
}

impl<A: Walk> Ip<A> {
    /// Nothing known yet.
    #[inline(always)]
    pub fn new() -> Self {
        let flow = Flow { src: A::NONE, dst: A::NONE, src_port: 0, dst_port: 0, proto: 0, flags: 0 };
        Self { flow, len: 0, l4: 0, odd: forget(0), ttl: 0, whole: true }
    }
}

/// An address family whose headers can be walked.
pub trait Walk: Guarded {
    /// No address.
    const NONE: Self;
    /// ICMP of this family.
    const ICMP: u8;

    /// Walks the headers at `at` to the transport header. `Err`: its place is not known, or it is not there; addresses are
    /// known. [`Reason::NotIp`]: what is there is no header of this family, and nothing is known.
    fn walk<S: Source>(ctx: *mut S::Context, at: u32, ip: &mut Ip<Self>) -> Result<(), Reason>;

    /// Whether an ICMP type is an error about another packet.
    fn is_error(kind: u8) -> bool;
}

impl Walk for Addr4 {
    const NONE: Self = 0;
    const ICMP: u8 = ICMP;

    #[inline(always)]
    fn walk<S: Source>(ctx: *mut S::Context, at: u32, ip: &mut Ip<Self>) -> Result<(), Reason> {
        let mut header = [0u32; IP4 as usize / 4];
        if !S::read(ctx, at, &mut header) {
            return Err(Reason::NotIp);
        }
        let bytes: [u8; IP4 as usize] = bytemuck::cast(header);
        let half: [u16; IP4 as usize / 2] = bytemuck::cast(header);
        if bytes[0] >> 4 != 4 {
            return Err(Reason::NotIp);
        }
        let len = u32::from(bytes[0] & 15) * 4;
        (ip.flow.src, ip.flow.dst, ip.flow.proto) = (header[3], header[4], bytes[9]);
        (ip.len, ip.ttl, ip.l4) = (u32::from(u16::from_be(half[1])), bytes[8], at + len);
        // Flags and offset (RFC 791, section 3.1).
        let fragment = u16::from_be(half[3]);
        ip.whole = fragment & 0x4000 != 0;
        if len < IP4 {
            return Err(Reason::BadLength);
        }
        if fragment & 0x1fff != 0 {
            return Err(Reason::Fragment);
        }
        if fragment & 0x2000 != 0 {
            ip.odd |= forget(FIRST_FRAGMENT);
        }
        // RFC 4302, section 2: next header, length in words less two.
        if ip.flow.proto == AUTHENTICATION {
            let mut extension = [0u8; 4];
            if !S::read(ctx, ip.l4, &mut extension) {
                return Err(Reason::Authenticated);
            }
            ip.odd |= forget(AUTHENTICATED);
            ip.flow.proto = extension[0];
            ip.l4 += (u32::from(extension[1]) + 2) * 4;
        }
        Ok(())
    }

    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        // Destination unreachable, source quench, time exceeded, parameter problem (RFC 792).
        matches!(kind, 3 | 4 | 11 | 12)
    }
}

impl Walk for Addr6 {
    const NONE: Self = [0; 2];
    const ICMP: u8 = ICMPV6;

    #[inline(always)]
    fn walk<S: Source>(ctx: *mut S::Context, at: u32, ip: &mut Ip<Self>) -> Result<(), Reason> {
        let mut header = [0u64; IP6 as usize / 8];
        if !S::read(ctx, at, &mut header) {
            return Err(Reason::NotIp);
        }
        let first: [u8; 8] = bytemuck::cast(header[0]);
        if first[0] >> 4 != 6 {
            return Err(Reason::NotIp);
        }
        (ip.flow.src, ip.flow.dst, ip.flow.proto) = ([header[1], header[2]], [header[3], header[4]], first[6]);
        let payload = u16::from_be_bytes([first[4], first[5]]);
        (ip.len, ip.ttl, ip.l4) = (u32::from(payload) + IP6, first[7], at + IP6);
        for number in 0..=MAX_EXTENSIONS {
            let next = ip.flow.proto;
            match next {
                HOP_BY_HOP if number == 0 => {}
                ROUTING | FRAGMENT | DESTINATION => {}
                AUTHENTICATION => ip.odd |= forget(AUTHENTICATED),
                HOP_BY_HOP | MOBILITY | HIP | SHIM6 => ip.odd |= forget(STRANGE),
                _ => return Ok(()),
            }
            let mut extension = [0u8; 4];
            if number == MAX_EXTENSIONS || !S::read(ctx, ip.l4, &mut extension) {
                break;
            }
            let [following, length, third, fourth] = extension;
            ip.l4 += match next {
                // Offset and the M flag (RFC 8200, section 4.5); without either it is whole (RFC 6946).
                FRAGMENT => {
                    if third != 0 || fourth & 0xf8 != 0 {
                        ip.flow.proto = following;
                        return Err(Reason::Fragment);
                    }
                    if fourth & 1 != 0 {
                        ip.odd |= forget(FIRST_FRAGMENT);
                    }
                    8
                }
                AUTHENTICATION => (u32::from(length) + 2) * 4,
                _ => (u32::from(length) + 1) * 8,
            };
            // Segments left (RFC 8200, section 4.4).
            if next == ROUTING && fourth != 0 {
                ip.odd |= forget(ROUTED);
            }
            // Else the verifier of Linux 6.1 would follow every combination of lengths.
            ip.l4 = forget(ip.l4.into()) as u32;
            ip.flow.proto = forget(following.into()) as u8;
        }
        Err(Reason::Extension)
    }

    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        // Destination unreachable, packet too big, time exceeded, parameter problem (RFC 4443, section 3).
        matches!(kind, 1..=4)
    }
}
