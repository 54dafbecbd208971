//! Reply → bytes, in a socket buffer whose checksum may be complete, partial or none: the kernel's helpers keep account of
//! that, if they are told what a change does to the sum over the whole packet.
//!
//! What may fail comes first: room for an Ethernet header, and a header that is the program's own to write. After that a packet is
//! changed wholly.

use aya_ebpf::bindings::{
    __sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM, bpf_redir_neigh,
    bpf_redir_neigh__bindgen_ty_1,
};
use aya_ebpf::helpers::generated::{
    bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_redirect_neigh, bpf_skb_change_head, bpf_skb_pull_data,
    bpf_skb_store_bytes,
};
use burst_common::checksum::Delta;
use burst_common::flow::{SYN, TCP, UDP};
use burst_common::policy::constant;
use burst_common::reason::Reason;
use burst_common::returns::Return;
use bytemuck::Pod;

use super::quoted;
use super::read::Reply;
use super::{AF_INET, ETH};
use crate::bytes::{Skb, Source};
use crate::maps;
use crate::walk::{IP4, IP6, Walk};

/// The next hop.
pub struct Hop {
    /// Device.
    pub ifindex: u32,
    /// Address family of the next hop.
    pub family: u32,
    /// Its address, IPv4 in the first word.
    pub next: [u32; 4],
}

impl Hop {
    /// No next hop.
    #[inline(always)]
    pub fn nowhere() -> Self {
        Self { ifindex: 0, family: 0, next: [0; 4] }
    }
}

/// Gives a reply its service's address and port, takes one off its TTL (which is above 1), and sends it to the next hop.
#[inline(never)]
pub fn send<A: Walk>(skb: *mut __sk_buff, reply: &Reply<A>, row: &Return, hop: &Hop) -> Result<(), Reason> {
    own(skb, reply)?;
    let mut shift = 0;
    if constant(&maps::policy().mac) == 0 {
        // The kernel writes an Ethernet header only over one.
        // SAFETY: the program's own context.
        if unsafe { bpf_skb_change_head(skb, ETH, 0) } != 0 {
            return Err(Reason::NoHeadroom);
        }
        shift = ETH;
    }
    write(skb, reply, row, shift);
    age(skb, reply, shift);
    let next = if hop.family == AF_INET.into() {
        bpf_redir_neigh__bindgen_ty_1 { ipv6_nh: [hop.next[0], 0, 0, 0] }
    } else {
        bpf_redir_neigh__bindgen_ty_1 { ipv6_nh: hop.next }
    };
    let mut to = bpf_redir_neigh { nh_family: hop.family, __bindgen_anon_1: next };
    // SAFETY: the structure is the program's own, and as long as is said. It fails for no device or family there is.
    unsafe { bpf_redirect_neigh(hop.ifindex, &mut to, size_of::<bpf_redir_neigh>() as i32, 0) };
    Ok(())
}

/// Gives a reply its service's address and port; the kernel goes on with it.
#[inline(never)]
pub fn rename<A: Walk>(skb: *mut __sk_buff, reply: &Reply<A>, row: &Return) -> Result<(), Reason> {
    own(skb, reply)?;
    write(skb, reply, row, 0);
    Ok(())
}

/// Makes the headers the program's own to write.
#[inline(always)]
fn own<A: Walk>(skb: *mut __sk_buff, reply: &Reply<A>) -> Result<(), Reason> {
    // As far as the checksum of a quoted TCP segment.
    let end = if reply.is_error() { reply.quoted + 18 } else { reply.l4 + reply.header };
    let end = if end < reply.end() { end } else { reply.end() };
    // SAFETY: the program's own context.
    if unsafe { bpf_skb_pull_data(skb, end) } == 0 { Ok(()) } else { Err(Reason::Truncated) }
}

/// Writes address and port, and every checksum over them. The headers have moved by `shift`.
#[inline(always)]
fn write<A: Walk>(skb: *mut __sk_buff, reply: &Reply<A>, row: &Return, shift: u32) {
    let (l3, l4) = (reply.l3 + shift, reply.l4 + shift);
    // The sender of an error may be a router: it is the service as well, as the client knows no other.
    let own = Delta::NONE.address(reply.from.wide(), row.service);
    if A::FAMILY == 4 {
        // The sum over a header stays what it was: its own checksum sees to that.
        store(skb, l3 + 12, &row.service[0], 0);
        header_sum(skb, l3 + 10, own);
    } else {
        store(skb, l3 + 8, &row.service, BPF_F_RECOMPUTE_CSUM.into());
    }
    if reply.is_error() {
        if A::FAMILY == 6 {
            // The pseudo-header of ICMPv6 has the outer addresses (RFC 4443, section 2.3).
            sum(skb, l4 + 2, own, BPF_F_PSEUDO_HDR.into());
        }
        quoted::rename(skb, reply, row, shift);
        return;
    }
    let udp = reply.flow.proto == UDP;
    // RFC 768; RFC 9293, section 3.1.
    let (checksum, zero) = if udp { (l4 + 6, u64::from(BPF_F_MARK_MANGLED_0)) } else { (l4 + 16, 0) };
    let mut present = 1u16;
    if udp {
        Skb::read(skb, checksum, &mut present);
    }
    if present == 0 {
        // A datagram without a checksum gets none, and nothing makes up for the change.
        store(skb, l4, &row.service_port, BPF_F_RECOMPUTE_CSUM.into());
        return;
    }
    store(skb, l4, &row.service_port, 0);
    sum(skb, checksum, own, zero | u64::from(BPF_F_PSEUDO_HDR));
    sum(skb, checksum, Delta::NONE.word(reply.flow.src_port, row.service_port), zero);
    if reply.flow.proto == TCP && reply.flow.flags & SYN != 0 {
        clamp(skb, reply, row, shift);
    }
}

/// Takes one off the TTL or hop limit.
#[inline(always)]
fn age<A: Walk>(skb: *mut __sk_buff, reply: &Reply<A>, shift: u32) {
    let (l3, ttl) = (reply.l3 + shift, reply.ttl - 1);
    if A::FAMILY == 4 {
        // TTL and protocol are one word of the sum.
        let word = |ttl| u16::from_ne_bytes([ttl, 0]);
        store(skb, l3 + 8, &ttl, 0);
        header_sum(skb, l3 + 10, Delta::NONE.word(word(reply.ttl), word(ttl)));
    } else {
        store(skb, l3 + 7, &ttl, BPF_F_RECOMPUTE_CSUM.into());
    }
}

/// Lowers the segment size that a SYN offers to what fits the smallest link of its endpoint (RFC 9293, section 3.7.1).
#[inline(always)]
fn clamp<A: Walk>(skb: *mut __sk_buff, reply: &Reply<A>, row: &Return, shift: u32) {
    const EOL: u8 = 0;
    const NOP: u8 = 1;
    const MSS: u8 = 2;
    const TCP_MIN: u32 = 20;
    let headers = TCP_MIN + if A::FAMILY == 4 { IP4 } else { IP6 };
    let room = maps::endpoint(row.endpoint).map_or(0, |endpoint| u32::from(endpoint.room));
    let l4 = reply.l4 + shift;
    let mut at = TCP_MIN;
    for _ in 0..10 {
        let mut option = [0u8; 4];
        if room <= headers || at + 4 > reply.header || !Skb::read(skb, l4 + at, &mut option) {
            return;
        }
        let [kind, length, high, low] = option;
        match (kind, length) {
            (EOL, _) => return,
            (NOP, _) => at += 1,
            (_, 0 | 1) => return,
            (MSS, 4) => {
                if u32::from(u16::from_be_bytes([high, low])) <= room - headers {
                    return;
                }
                let new = ((room - headers) as u16).to_be_bytes();
                // Words of the checksum begin at even offsets: at an odd one, the value's halves belong to two of them.
                let delta = if at & 1 == 0 {
                    Delta::NONE.word(u16::from_ne_bytes([high, low]), u16::from_ne_bytes(new))
                } else {
                    Delta::NONE.word(u16::from_ne_bytes([low, high]), u16::from_ne_bytes([new[1], new[0]]))
                };
                store(skb, l4 + at + 2, &new, 0);
                sum(skb, l4 + 16, delta, 0);
                return;
            }
            _ => at += u32::from(length),
        }
    }
}

/// Writes bytes. With [`BPF_F_RECOMPUTE_CSUM`], no checksum of the packet makes up for the change.
#[inline(always)]
pub(super) fn store<T: Pod>(skb: *mut __sk_buff, at: u32, value: &T, flags: u64) {
    // SAFETY: the program's own context; `value` is valid for a read of its size. `own` made sure that it cannot fail.
    unsafe { bpf_skb_store_bytes(skb, at, core::ptr::from_ref(value).cast(), size_of::<T>() as u32, flags) };
}

/// Updates the checksum of an IPv4 header.
#[inline(always)]
fn header_sum(skb: *mut __sk_buff, at: u32, delta: Delta) {
    // SAFETY: as above.
    unsafe { bpf_l3_csum_replace(skb, at, 0, delta.wsum().into(), 0) };
}

/// Updates a transport checksum. With [`BPF_F_PSEUDO_HDR`], the change is one of addresses.
#[inline(always)]
pub(super) fn sum(skb: *mut __sk_buff, at: u32, delta: Delta, flags: u64) {
    // SAFETY: as above.
    unsafe { bpf_l4_csum_replace(skb, at, 0, delta.wsum().into(), flags) };
}
