//! What is said of a packet beyond its counters, by the entry `burst_reporting` alone: a row for `explain` and `replay`,
//! and a line in the log of traced instances.

use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::info;
use burst_common::flow::Flow;
use burst_common::reason::Reason;
use burst_common::report::Report;

use crate::classify::Family;
use crate::count::Account;
use crate::maps;
use crate::parse::Frame;

/// Tells what became of a packet.
#[inline(always)]
pub fn verdict<A: Family>(ctx: &XdpContext, frame: &Frame<A>, account: &Account, reason: Reason) {
    row(&frame.flow, account, reason);
    log(ctx, frame, account, reason);
}

/// Tells what became of a packet that was not understood.
#[inline(always)]
pub fn unread(account: &Account, reason: Reason) {
    if let Some(row) = maps::reported() {
        count(row, account, reason, 0);
    }
}

#[inline(always)]
fn row<A: Family>(flow: &Flow<A>, account: &Account, reason: Reason) {
    let Some(row) = maps::reported() else { return };
    count(row, account, reason, A::FAMILY);
    // SAFETY: as in `count`.
    unsafe {
        (*row).src = flow.src.wide();
        (*row).dst = flow.dst.wide();
        (*row).src_port = flow.src_port;
        (*row).dst_port = flow.dst_port;
        (*row).proto = flow.proto;
        (*row).flags = flow.flags;
    }
}

#[inline(always)]
fn count(row: *mut Report, account: &Account, reason: Reason, family: u8) {
    // SAFETY: the row lives as long as the program. An instance that is asked runs one packet at a
    // time; one that is traced may mix packets of several CPUs in a row that nobody reads.
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

/// Logs a packet of a class. The level is a load-time constant: off, the verifier removes all of this.
#[inline(always)]
fn log<A: Family>(ctx: &XdpContext, frame: &Frame<A>, account: &Account, reason: Reason) {
    if account.class == 0 {
        return;
    }
    let flow = &frame.flow;
    if A::FAMILY == 4 {
        let (src, dst) = (u32::from_be(flow.src.wide()[0]), u32::from_be(flow.dst.wide()[0]));
        info!(
            ctx,
            "class {} {:i}:{} > {:i}:{} endpoint {} reason {}",
            account.class,
            src,
            u16::from_be(flow.src_port),
            dst,
            u16::from_be(flow.dst_port),
            account.endpoint,
            reason.number() as u32
        );
    } else {
        let (src, dst): ([u8; 16], [u8; 16]) = (bytemuck::cast(flow.src.wide()), bytemuck::cast(flow.dst.wide()));
        info!(
            ctx,
            "class {} [{:i}]:{} > [{:i}]:{} endpoint {} reason {}",
            account.class,
            src,
            u16::from_be(flow.src_port),
            dst,
            u16::from_be(flow.dst_port),
            account.endpoint,
            reason.number() as u32
        );
    }
}
