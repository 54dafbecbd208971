//! "Too big": a packet that does not fit its link is answered with ICMP fragmentation needed (RFC 792, RFC 1191) or ICMPv6
//! Packet Too Big (RFC 4443, section 3.2), in the same frame, back to where it came from. At a bounded rate; beyond it, and
//! where the frame cannot become an answer, the packet is dropped as a router would.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::{bpf_csum_diff, bpf_xdp_adjust_tail};
use burst_common::checksum::fold;
use burst_common::reason::Reason;

use crate::classify::Family;
use crate::guard::Guarded;
use crate::packet::Packet;
use crate::parse::full::{ICMP, ICMPV6};
use crate::parse::{Frame, IP4, IP6};
use crate::subprogram::subprograms;
use crate::{leave, maps};

/// Type, code, checksum, next MTU.
const HEADER: usize = 8;
/// What is quoted of the packet: RFC 1812, section 4.3.2.3, asks for as much as fits 576 bytes, RFC 4443, section 2.4 (c), for
/// as much as fits 1280. A multiple of four, which is what a checksum helper takes, and at most 512 a call.
const QUOTE4: usize = 512;
const QUOTE6: usize = 1280 - IP6 - HEADER;
/// One call's share of the IPv6 quote.
const PART6: usize = QUOTE6 / 4;
/// Answers per second and CPU, and how many may come at once.
const RATE: u64 = 1000;
const BURST: u64 = 50;
const SECOND: u64 = 1_000_000_000;

/// Answers a packet that is larger than `most`.
#[inline(always)]
pub fn too_big<A: Guarded>(packet: &Packet, frame: &Frame<A>, most: u32) -> Reason {
    // Nobody answers an ICMP error with another (RFC 1122, section 3.2.2; RFC 4443, section 2.4 (e)).
    if frame.is_error() || !may_answer() {
        return Reason::TooBig;
    }
    let ctx = packet.context();
    if answer::<A>(ctx.ctx, frame.l3 as u32, frame.ip_len, most) != 0 && leave::to_client(ctx.ingress_ifindex() as u32)
    {
        Reason::TooBigAnswered
    } else {
        Reason::TooBig
    }
}

/// Takes one from this CPU's budget.
#[inline(never)]
fn may_answer() -> bool {
    let Some(budget) = maps::answers() else { return false };
    let now = maps::now();
    // SAFETY: the row is this CPU's alone, and an XDP program is not preempted by another on its CPU.
    unsafe {
        let earned = now.wrapping_sub((*budget).filled) / (SECOND / RATE);
        if earned > 0 {
            (*budget).tokens = ((*budget).tokens + earned).min(BURST);
            (*budget).filled = now;
        }
        if (*budget).tokens == 0 {
            return false;
        }
        (*budget).tokens -= 1;
    }
    true
}

/// Cuts the frame behind the quote, and makes room for the answer's headers in front of it.
#[inline(always)]
fn shape(ctx: *mut xdp_md, l3: u32, ip_len: u32, quote: usize, headers: usize) -> Option<Packet> {
    let whole = Packet::of(ctx).full_len();
    let end = l3 + quote as u32;
    if ip_len < quote as u32 || whole < end {
        return None;
    }
    // SAFETY: `ctx` is the program's own context; packet pointers made before are not used after it.
    if whole > end && unsafe { bpf_xdp_adjust_tail(ctx, -((whole - end) as i32)) } != 0 {
        return None;
    }
    Packet::of(ctx).grow(headers as i32)
}

/// Moves the Ethernet header (tags included) to the new front, with the addresses swapped: the answer goes back.
#[inline(always)]
fn turn(packet: &Packet, l3: usize, headers: usize) -> Option<()> {
    let old = packet.at::<[u16; 7]>(headers)?;
    // SAFETY: `at` checked fourteen bytes.
    let [a, b, c, d, e, f, first] = unsafe { *old };
    let new = packet.at::<[u16; 7]>(0)?;
    // SAFETY: `at` checked fourteen bytes.
    unsafe { *new = [d, e, f, a, b, c, first] };
    // At most two tags of two half words each.
    for number in 0..4 {
        let offset = 14 + number * 2;
        if offset >= l3 {
            break;
        }
        let old = packet.at::<u16>(headers + offset)?;
        let new = packet.at::<u16>(offset)?;
        // SAFETY: `at` checked both.
        unsafe { *new = *old };
    }
    Some(())
}

/// The sum over `LEN` bytes of the packet.
#[inline(always)]
fn sum<const LEN: usize>(packet: &Packet, offset: usize, seed: u32) -> Option<u32> {
    let bytes = packet.at::<[u8; LEN]>(offset)?;
    // SAFETY: `at` checked `LEN` bytes, a multiple of four and at most 512; nothing is subtracted.
    let sum = unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, bytes.cast(), LEN as u32, seed) };
    u32::try_from(sum).ok()
}

subprograms! {
    /// Makes the answer; 1 when the frame is one now.
    answer = answer4, answer6: make(l3, ip_len, most)
}

#[inline(always)]
fn make<A: Family>(ctx: *mut xdp_md, l3: u32, ip_len: u32, most: u32) -> u32 {
    let made = if A::FAMILY == 4 { try4(ctx, l3, ip_len, most) } else { try6(ctx, l3, ip_len, most) };
    u32::from(made.is_some())
}

#[inline(always)]
fn try4(ctx: *mut xdp_md, l3: u32, ip_len: u32, most: u32) -> Option<()> {
    const HEADERS: usize = IP4 + HEADER;
    let packet = shape(ctx, l3, ip_len, QUOTE4, HEADERS)?;
    let l3 = (l3 & 0x1f) as usize;
    turn(&packet, l3, HEADERS)?;
    let quoted = packet.at::<[u32; 5]>(l3 + HEADERS)?;
    // SAFETY: `at` checked twenty bytes.
    let (client, service) = unsafe { ((*quoted)[3], (*quoted)[4]) };
    let icmp = packet.at::<[u32; 2]>(l3 + IP4)?;
    // Destination unreachable, fragmentation needed; the next link's MTU in the lower half (RFC 1191, section 4).
    // SAFETY: `at` checked eight bytes.
    unsafe { *icmp = [0x0304_0000u32.to_be(), most.to_be()] };
    let total = sum::<{ HEADER + QUOTE4 - 8 }>(&packet, l3 + IP4, 0)?;
    let total = sum::<8>(&packet, l3 + IP4 + HEADER + QUOTE4 - 8, total)?;
    // SAFETY: `at` checked eight bytes; the second half word is the checksum.
    unsafe { *icmp.cast::<u16>().add(1) = fold(u64::from(total)) };
    let ip = packet.at::<[u32; 5]>(l3)?;
    let first = 0x4500_0000 | (HEADERS + QUOTE4) as u32;
    let (second, third) = (0x4000_u32, 64 << 24 | u32::from(ICMP) << 16);
    let words = u64::from(first) + u64::from(second) + u64::from(third);
    let addresses = u64::from(u32::from_be(service)) + u64::from(u32::from_be(client));
    let checksum = u32::from(fold(words + addresses));
    // SAFETY: `at` checked twenty bytes. From the service, because that is whom the client speaks to.
    unsafe { *ip = [first.to_be(), second.to_be(), (third | checksum).to_be(), service, client] };
    Some(())
}

#[inline(always)]
fn try6(ctx: *mut xdp_md, l3: u32, ip_len: u32, most: u32) -> Option<()> {
    const HEADERS: usize = IP6 + HEADER;
    let packet = shape(ctx, l3, ip_len, QUOTE6, HEADERS)?;
    let l3 = (l3 & 0x1f) as usize;
    turn(&packet, l3, HEADERS)?;
    let quoted = packet.at::<[u32; 10]>(l3 + HEADERS)?;
    // SAFETY: `at` checked forty bytes.
    let [_, _, a, b, c, d, e, f, g, h] = unsafe { *quoted };
    let icmp = packet.at::<[u32; 2]>(l3 + IP6)?;
    // Packet too big, code 0; the MTU (RFC 4443, section 3.2).
    // SAFETY: `at` checked eight bytes.
    unsafe { *icmp = [0x0200_0000u32.to_be(), most.to_be()] };
    let length = (HEADER + QUOTE6) as u32;
    let ip = packet.at::<[u32; 10]>(l3)?;
    let first = 6_u32 << 28;
    let second = length << 16 | u32::from(ICMPV6) << 8 | 64;
    // SAFETY: `at` checked forty bytes. From the service, as in IPv4.
    unsafe { *ip = [first.to_be(), second.to_be(), e, f, g, h, a, b, c, d] };
    // The pseudo-header (RFC 8200, section 8.1): the addresses, the length, the next header.
    let total = sum::<32>(&packet, l3 + 8, (length + u32::from(ICMPV6)).to_be())?;
    let total = sum::<HEADER>(&packet, l3 + IP6, total)?;
    let total = sum::<PART6>(&packet, l3 + HEADERS, total)?;
    let total = sum::<PART6>(&packet, l3 + HEADERS + PART6, total)?;
    let total = sum::<PART6>(&packet, l3 + HEADERS + 2 * PART6, total)?;
    let total = sum::<PART6>(&packet, l3 + HEADERS + 3 * PART6, total)?;
    // SAFETY: `at` checked eight bytes; the second half word is the checksum.
    unsafe { *icmp.cast::<u16>().add(1) = fold(u64::from(total)) };
    Some(())
}
