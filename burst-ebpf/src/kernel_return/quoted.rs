//! An ICMP error → the same error for the client: the packet it quotes gets the address and port that the client sent it to
//! (RFC 5508, section 4), and every checksum over them is right again.

use aya_ebpf::bindings::__sk_buff;
use burst_common::checksum::Delta;
use burst_common::flow::UDP;
use burst_common::returns::Return;

use super::read::{ICMP_HEADER, Reply};
use super::write::{store, sum};
use crate::bytes::{Skb, Source};
use crate::walk::Walk;

/// Writes into the quoted packet and the ICMP checksum. The quoted packet travelled the other way: its destination changes. The
/// sum over the whole message stays what it was, by its checksum.
#[inline(always)]
pub fn rename<A: Walk>(skb: *mut __sk_buff, reply: &Reply<A>, row: &Return, shift: u32) {
    let (icmp, quoted) = (reply.l4 + shift, reply.quoted + shift);
    let inner = icmp + ICMP_HEADER;
    let address = Delta::NONE.address(reply.flow.src.wide(), row.service);
    let both = address.word(reply.flow.src_port, row.service_port);
    let mut all = both;
    if A::FAMILY == 4 {
        store(skb, inner + 16, &row.service[0], 0);
        all = all.join(checksum(skb, inner + 10, address, false));
    } else {
        store(skb, inner + 24, &row.service, 0);
    }
    store(skb, quoted + 2, &row.service_port, 0);
    let udp = reply.flow.proto == UDP;
    let at = if udp { 6 } else { 16 };
    // A router need not quote more than eight bytes of the segment (RFC 792): its checksum may not be there.
    if reply.quoted + at + 2 <= reply.end() {
        all = all.join(checksum(skb, quoted + at, both, udp));
    }
    sum(skb, icmp + 2, all, 0);
}

/// Brings a checksum inside the quoted packet up to date. Returns what that does to a sum over it.
#[inline(always)]
fn checksum(skb: *mut __sk_buff, at: u32, delta: Delta, udp: bool) -> Delta {
    let mut old = 0u16;
    if !Skb::read(skb, at, &mut old) {
        return Delta::NONE;
    }
    let new = if udp { delta.apply_udp(old) } else { delta.apply(old) };
    store(skb, at, &new, 0);
    Delta::NONE.word(old, new)
}
