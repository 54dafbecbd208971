//! What is said of a packet beyond its counters, by the entry `burst_reporting` alone: a row for `explain` and `replay`,
//! and a line in the log of traced instances.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::info;
use burst_common::flow::Flow;
use burst_common::reason::Reason;

use crate::classify::Family;
use crate::count::Account;
use crate::maps;

/// Tells which flow a packet is of, before anything of it changes.
#[inline(always)]
pub fn flow<A: Family>(flow: &Flow<A>) {
    let Some(row) = maps::reported() else { return };
    // SAFETY: the row lives as long as the program. An instance that is asked runs one packet at a time; one that is traced may
    // mix packets of several CPUs in a row that nobody but its own log line reads.
    unsafe {
        (*row).src = flow.src.wide();
        (*row).dst = flow.dst.wide();
        (*row).src_port = flow.src_port;
        (*row).dst_port = flow.dst_port;
        (*row).proto = flow.proto;
        (*row).flags = flow.flags;
    }
}

/// Tells what became of a packet whose flow was told.
#[inline(always)]
pub fn verdict<A: Family>(ctx: &XdpContext, account: &Account, reason: Reason) {
    count(account, reason, A::FAMILY);
    // The level is a load-time constant: off, the verifier removes all of this.
    if account.class != 0 {
        if A::FAMILY == 4 { log4(ctx.ctx) } else { log6(ctx.ctx) }
    }
}

/// Tells what became of a packet that was not understood.
#[inline(always)]
pub fn unread(account: &Account, reason: Reason) {
    count(account, reason, 0);
}

#[inline(always)]
fn count(account: &Account, reason: Reason, family: u8) {
    let Some(row) = maps::reported() else { return };
    // SAFETY: as in `flow`.
    unsafe {
        (*row).packets += 1;
        (*row).bytes = account.bytes;
        (*row).class = account.class;
        (*row).rule = account.rule;
        (*row).slot = account.slot;
        (*row).link = account.link;
        (*row).device = account.device;
        (*row).endpoint = account.endpoint;
        (*row).reason = reason.number() as u8;
        (*row).family = family;
        (*row).opener = u8::from(account.opener);
    }
}

/// Logs the packet that was told last.
#[inline(never)]
fn log4(ctx: *mut xdp_md) {
    let Some(row) = maps::reported() else { return };
    // SAFETY: as in `flow`.
    let row = unsafe { &*row };
    info!(
        &XdpContext::new(ctx),
        "class {} {:i}:{} > {:i}:{} endpoint {} reason {}",
        row.class,
        u32::from_be(row.src[0]),
        u16::from_be(row.src_port),
        u32::from_be(row.dst[0]),
        u16::from_be(row.dst_port),
        row.endpoint,
        u32::from(row.reason)
    );
}

/// Likewise, of IPv6.
#[inline(never)]
fn log6(ctx: *mut xdp_md) {
    let Some(row) = maps::reported() else { return };
    // SAFETY: as in `flow`.
    let row = unsafe { &*row };
    let (src, dst): ([u8; 16], [u8; 16]) = (bytemuck::cast(row.src), bytemuck::cast(row.dst));
    info!(
        &XdpContext::new(ctx),
        "class {} [{:i}]:{} > [{:i}]:{} endpoint {} reason {}",
        row.class,
        src,
        u16::from_be(row.src_port),
        dst,
        u16::from_be(row.dst_port),
        row.endpoint,
        u32::from(row.reason)
    );
}
