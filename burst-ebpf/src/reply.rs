//! A packet from a link: if it is the answer of an endpoint, its source becomes the service again and it goes to its
//! client. Never shifted again.

use aya_ebpf::bindings::{
    BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_NOT_FWDED, BPF_FIB_LKUP_RET_SUCCESS,
    bpf_fib_lookup as FibLookup,
};
use aya_ebpf::helpers::generated::bpf_fib_lookup;
use aya_ebpf::programs::XdpContext;
use burst_common::counter::IN;
use burst_common::limits::RETURN_PROBES;
use burst_common::link::Link;
use burst_common::policy::{NEXTHOP, constant};
use burst_common::reason::Reason;
use burst_common::returns::{Return, ReturnKey, proto};
use burst_common::slot::{EndpointId, LOCAL};

use crate::classify::{Family, classify, kept};
use crate::count::{self, Account};
use crate::packet::Packet;
use crate::parse::Frame;
use crate::rewrite::{self, Changed};
use crate::{apply, maps};

/// Address families of the FIB lookup (include/linux/socket.h).
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Decides over a packet from a link. [`Reason::NotReturn`]: it is not an endpoint's answer, and was not touched.
#[inline(always)]
pub fn reply<A: Family>(ctx: &XdpContext, packet: &Packet, frame: &Frame<A>, account: &mut Account) -> Reason {
    match send_home(ctx, packet, frame, account) {
        Ok(reason) | Err(reason) => reason,
    }
}

#[inline(always)]
fn send_home<A: Family>(
    ctx: &XdpContext,
    packet: &Packet,
    frame: &Frame<A>,
    account: &mut Account,
) -> Result<Reason, Reason> {
    let policy = maps::policy();
    let flow = &frame.flow;
    let (changed, endpoint) =
        match find(&ReturnKey { address: flow.src.wide(), port: flow.src_port, proto: proto(A::FAMILY, flow.proto) }) {
            Some(row) => {
                // An endpoint must not speak to payment, least of all under the name of a service on premises.
                if kept(policy, flow) {
                    return Err(Reason::NotReturn);
                }
                account.class = u32::from(row.class);
                (rewrite::homeward(flow, A::narrow(row.service), row.service_port), row.endpoint)
            }
            None => {
                // Layer 2 forwarding keeps the service's address: the reply is the mirror image of a packet of the class.
                let matched = classify(policy, &flow.reversed()).ok_or(Reason::NotReturn)?;
                let flags = constant(&policy.classes[matched.class as usize].flags);
                if matched.keep || flags & NEXTHOP == 0 {
                    return Err(Reason::NotReturn);
                }
                account.class = matched.class;
                // Its own address again: one way through the rest, and the same bytes.
                (rewrite::homeward(flow, flow.src, flow.src_port), LOCAL)
            }
        };
    if maps::control().ok_or(Reason::Unready)?.bypass != 0 {
        return Err(Reason::Bypass);
    }
    // SAFETY: all-zero is a valid value of this plain C structure.
    let mut fib: FibLookup = unsafe { core::mem::zeroed() };
    let reason = route(ctx, frame, &changed, &mut fib);
    account.link = policy.link(0).unwrap_or(0);
    (account.endpoint, account.device) = (endpoint, fib.ifindex);
    if let Err(stays @ (Reason::ToHost | Reason::NoRoute)) = reason {
        // The answer to a probe, or nothing the kernel would forward: nothing of it changes, and it is no class's.
        account.class = 0;
        return Err(stays);
    }
    if frame.ttl <= 1 {
        return Err(Reason::TtlExpired);
    }
    if let Err(reason) = reason {
        // Where the kernel answers "too big", it must answer the endpoint, which knows the packet as it came.
        if matches!(reason, Reason::ReturnTooBig) && frame.whole {
            return Err(reason);
        }
        // Else it goes on with it, under the address the client knows.
        return kernel(packet, frame, &changed, reason);
    }
    if !maps::redirect(fib.ifindex) {
        return kernel(packet, frame, &changed, Reason::ReturnElsewhere);
    }
    apply::hop_as(packet, frame, Link::macs(fib.dmac, fib.smac), &changed).ok_or(Reason::Truncated)?;
    count_in(account.link, endpoint, account);
    Ok(Reason::Returned)
}

/// Rewrites the source only, and leaves the rest of the way to the kernel.
#[inline(always)]
fn kernel<A: Family>(
    packet: &Packet,
    frame: &Frame<A>,
    changed: &Changed<A>,
    reason: Reason,
) -> Result<Reason, Reason> {
    apply::rename(packet, frame, changed).ok_or(Reason::Truncated)?;
    Err(reason)
}

/// Looks a reply up in the return table.
#[inline(always)]
fn find(key: &ReturnKey) -> Option<&'static Return> {
    let mut row = key.first();
    for _ in 0..RETURN_PROBES {
        let entry = maps::returns(row as u32)?;
        if entry.proto == 0 {
            return None;
        }
        if entry.answers(key) {
            return Some(entry);
        }
        row = ReturnKey::next(row);
    }
    None
}

/// Asks the routing table for the way to the client.
#[inline(always)]
fn route<A: Family>(
    ctx: &XdpContext,
    frame: &Frame<A>,
    changed: &Changed<A>,
    fib: &mut FibLookup,
) -> Result<(), Reason> {
    let flow = &frame.flow;
    fib.family = if A::FAMILY == 4 { AF_INET } else { AF_INET6 };
    fib.l4_protocol = flow.proto;
    fib.sport = changed.port;
    fib.dport = flow.dst_port;
    fib.__bindgen_anon_1.tot_len = frame.ip_len as u16;
    fib.ifindex = ctx.ingress_ifindex() as u32;
    if A::FAMILY == 4 {
        fib.__bindgen_anon_3.ipv4_src = changed.addr.wide()[0];
        fib.__bindgen_anon_4.ipv4_dst = flow.dst.wide()[0];
    } else {
        fib.__bindgen_anon_3.ipv6_src = changed.addr.wide();
        fib.__bindgen_anon_4.ipv6_dst = flow.dst.wide();
    }
    // SAFETY: context and structure are the program's own; the size is the structure's.
    let result = unsafe { bpf_fib_lookup(ctx.ctx.cast(), fib, size_of::<FibLookup>() as i32, 0) };
    match u32::try_from(result) {
        Ok(BPF_FIB_LKUP_RET_SUCCESS) => Ok(()),
        Ok(BPF_FIB_LKUP_RET_NO_NEIGH) => Err(Reason::NoNeighbour),
        Ok(BPF_FIB_LKUP_RET_FRAG_NEEDED) => Err(Reason::ReturnTooBig),
        Ok(BPF_FIB_LKUP_RET_NOT_FWDED) => Err(Reason::ToHost),
        // Unreachable, blackhole, prohibited, or forwarding is off on this device.
        _ => Err(Reason::NoRoute),
    }
}

#[inline(always)]
fn count_in(link: u32, endpoint: EndpointId, account: &Account) {
    if endpoint != LOCAL {
        count::endpoint(endpoint, IN, account);
    }
    if link != 0 {
        count::link(link, IN, account);
    }
}
