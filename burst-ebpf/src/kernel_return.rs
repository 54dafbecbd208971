//! The return side of links that the kernel routes (`via = "kernel"`): an endpoint's answer gets its service's address and port
//! back, and goes to its client.
//!
//! [`burst_return`] is attached to the ingress of every such device on which no XDP instance sees what comes from the link,
//! first of its tcx programs (before Linux 6.6: first of its clsact filters), with the policy of that device. It does for socket
//! buffers what `reply` does for frames, by the same rules, for `dnat` alone: no other mode goes over such links. The packet is
//! sent on by the program and not by the kernel's forwarding, which would drop it as martian where the service's address is
//! this host's own.
//!
//! Counted per socket buffer: segments that the kernel has merged are one packet.

mod quoted;
mod read;
mod write;

use aya_ebpf::bindings::{
    __sk_buff, BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_NOT_FWDED,
    BPF_FIB_LKUP_RET_SUCCESS, TC_ACT_REDIRECT, TC_ACT_SHOT, TC_ACT_UNSPEC, bpf_fib_lookup as FibLookup,
};
use aya_ebpf::helpers::generated::bpf_fib_lookup;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use burst_common::flow::{Addr4, Addr6};
use burst_common::policy::constant;
use burst_common::reason::{Action, Reason};
use burst_common::returns::{Return, ReturnKey, proto};

use self::read::{Reply, read};
use self::write::{Hop, rename, send};
use crate::classify::kept;
use crate::count::{self, Account};
use crate::walk::Walk;
use crate::{guard, maps, reply};

const ETHERTYPE_IPV4: u32 = 0x0800u16.to_be() as u32;
const ETHERTYPE_IPV6: u32 = 0x86ddu16.to_be() as u32;
/// Length of an Ethernet header (IEEE 802.3).
const ETH: u32 = 14;

/// Address families of the FIB lookup (include/linux/socket.h).
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// How a packet was addressed on the link (include/uapi/linux/if_packet.h).
const PACKET_HOST: u32 = 0;
const PACKET_OTHERHOST: u32 = 3;

/// Every packet that comes from a link which the kernel routes.
#[classifier]
#[inline(always)]
pub fn burst_return(ctx: TcContext) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: a field of the program's own context.
    let mut account = Account::new(unsafe { (*skb).len });
    let reason = judge(skb, &mut account);
    count::verdict(&account, reason);
    match reason.action() {
        Action::Pass => TC_ACT_UNSPEC,
        Action::Drop => TC_ACT_SHOT,
        Action::Redirect => TC_ACT_REDIRECT,
    }
}

#[inline(always)]
fn judge(skb: *mut __sk_buff, account: &mut Account) -> Reason {
    let policy = maps::policy();
    // A device without a MAC address has no Ethernet header.
    let l3 = if constant(&policy.mac) == 0 { 0 } else { ETH };
    // SAFETY: fields of the program's own context.
    let (kind, tag, ethertype) = unsafe {
        ((*skb).pkt_type, if (*skb).vlan_present == 0 { 0 } else { (*skb).vlan_tci as u16 & 0x0fff }, (*skb).protocol)
    };
    match kind {
        PACKET_HOST => {}
        PACKET_OTHERHOST => return Reason::OtherHost,
        _ => return Reason::Group,
    }
    let Some(link) = policy.link(tag) else { return Reason::NotReturn };
    account.link = link;
    let answer = match ethertype {
        ETHERTYPE_IPV4 => send_home::<Addr4>(skb, l3, account),
        ETHERTYPE_IPV6 => send_home::<Addr6>(skb, l3, account),
        _ => Err(Reason::NotIp),
    };
    match answer {
        Ok(reason) | Err(reason) => reason,
    }
}

/// Decides over a packet. A subprogram for each family: neither needs the stack of the other.
#[inline(never)]
fn send_home<A: Walk>(skb: *mut __sk_buff, l3: u32, account: &mut Account) -> Result<Reason, Reason> {
    let mut reply = Reply::<A>::new();
    read(skb, l3, &mut reply)?;
    account.bytes = l3 + reply.ip_len;
    let row = whose(&reply, account)?;
    if maps::control().ok_or(Reason::Unready)?.bypass != 0 {
        return Err(Reason::Bypass);
    }
    let mut hop = Hop::nowhere();
    let way = ask(skb, &reply, row, &mut hop);
    if let Err(stays @ (Reason::ToHost | Reason::NoRoute)) = way {
        // The answer to a probe, or nothing the kernel would forward: nothing of it changes, and it is no class's.
        account.class = 0;
        return Err(stays);
    }
    if reply.ttl <= 1 {
        return Err(Reason::TtlExpired);
    }
    match way {
        Ok(()) => send(skb, &reply, row, &hop)?,
        // Where the kernel answers "too big", it must answer the endpoint, which knows the packet as it came.
        Err(reason @ Reason::ReturnTooBig) if reply.whole => return Err(reason),
        Err(reason) => {
            // The kernel goes on with it, under the address the client knows.
            rename(skb, &reply, row)?;
            return Err(reason);
        }
    }
    Ok(Reason::ReturnedKernel)
}

/// Finds out whose answer it is.
#[inline(always)]
fn whose<A: Walk>(reply: &Reply<A>, account: &mut Account) -> Result<&'static Return, Reason> {
    let flow = &reply.flow;
    let key = ReturnKey { address: flow.src.wide(), port: flow.src_port, proto: proto(A::FAMILY, flow.proto) };
    let (_, row) = reply::find(&key).ok_or(Reason::NotReturn)?;
    // An endpoint must not speak to payment, least of all under the name of a service on premises.
    if kept(maps::policy(), flow) || guard::keeps_from(flow) {
        return Err(Reason::NotReturn);
    }
    (account.class, account.endpoint) = (row.class.into(), row.endpoint);
    Ok(row)
}

/// Asks the routing table for the way to the client. A neighbour that is not known yet is the kernel's to resolve: it holds the
/// packet back meanwhile.
#[inline(never)]
fn ask<A: Walk>(skb: *mut __sk_buff, reply: &Reply<A>, row: &Return, hop: &mut Hop) -> Result<(), Reason> {
    let flow = &reply.flow;
    // SAFETY: all-zero is a valid value of this plain C structure.
    let mut fib: FibLookup = unsafe { core::mem::zeroed() };
    fib.family = if A::FAMILY == 4 { AF_INET } else { AF_INET6 };
    fib.l4_protocol = flow.proto;
    fib.sport = row.service_port;
    fib.dport = flow.dst_port;
    fib.__bindgen_anon_1.tot_len = reply.segment as u16;
    // SAFETY: a field of the program's own context.
    fib.ifindex = unsafe { (*skb).ifindex };
    if A::FAMILY == 4 {
        fib.__bindgen_anon_3.ipv4_src = row.service[0];
        fib.__bindgen_anon_4.ipv4_dst = flow.dst.wide()[0];
    } else {
        fib.__bindgen_anon_3.ipv6_src = row.service;
        fib.__bindgen_anon_4.ipv6_dst = flow.dst.wide();
    }
    // SAFETY: context and structure are the program's own; the size is the structure's.
    let result = unsafe { bpf_fib_lookup(skb.cast(), &mut fib, size_of::<FibLookup>() as i32, 0) };
    match u32::try_from(result) {
        Ok(BPF_FIB_LKUP_RET_SUCCESS | BPF_FIB_LKUP_RET_NO_NEIGH) => {}
        Ok(BPF_FIB_LKUP_RET_FRAG_NEEDED) => return Err(Reason::ReturnTooBig),
        Ok(BPF_FIB_LKUP_RET_NOT_FWDED) => return Err(Reason::ToHost),
        // Unreachable, blackhole, prohibited, or forwarding is off on this device.
        _ => return Err(Reason::NoRoute),
    }
    // The destination was replaced by the next hop, whose family may be another (RFC 5549).
    // SAFETY: the union is four plain words, all of them written.
    let next = unsafe { fib.__bindgen_anon_4.ipv6_dst };
    *hop = Hop { ifindex: fib.ifindex, family: fib.family.into(), next };
    Ok(())
}
