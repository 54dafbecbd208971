//! The way out of burst: the only place that prepares a redirect. A packet for a link passes the guard first.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use burst_common::event::{Event, GUARD};
use burst_common::reason::Reason;

use crate::guard::{self, Guarded};
use crate::maps;
use crate::packet::Packet;
use crate::parse::{Frame, Offsets, full};
use crate::subprogram::subprograms;

/// Lets a packet leave for a link by a device. Nothing of it is written yet.
#[inline(always)]
pub fn to_link<A: Guarded>(packet: &Packet, frame: &Frame<A>, ifindex: u32) -> Result<(), Reason> {
    may_leave(packet, frame)?;
    if maps::redirect(ifindex) { Ok(()) } else { Err(Reason::NoLink) }
}

/// The same without a word: where it may not leave, `None`, and the way step by step says why.
#[inline(always)]
pub fn to_link_if_free<A: Guarded>(frame: &Frame<A>, ifindex: u32) -> Option<()> {
    (!guard::keeps(&frame.flow) && maps::redirect(ifindex)).then_some(())
}

/// The guard alone, for a packet that the kernel sends on.
#[inline(always)]
pub fn may_leave<A: Guarded>(packet: &Packet, frame: &Frame<A>) -> Result<(), Reason> {
    if guard::keeps(&frame.flow) {
        report::<A>(packet.context().ctx, frame.offsets().word());
        return Err(Reason::Guard);
    }
    Ok(())
}

/// Lets a packet leave for a client by a device; `false` if that is not a device of burst's.
#[inline(always)]
pub fn to_client(ifindex: u32) -> bool {
    maps::redirect(ifindex)
}

subprograms! {
    /// Tells of a packet that was about to leave and must not. Never happens; so it may read the packet anew.
    report = report_guard4, report_guard6: tell(offsets)
}

#[inline(always)]
fn tell<A: Guarded>(ctx: *mut xdp_md, offsets: u32) -> u32 {
    let Some(frame) = full::again::<A>(&Packet::of(ctx), Offsets::from_word(offsets)) else { return 0 };
    let flow = &frame.flow;
    maps::report(&Event {
        src: flow.src.wide(),
        dst: flow.dst.wide(),
        src_port: flow.src_port,
        dst_port: flow.dst_port,
        proto: flow.proto,
        family: A::FAMILY,
        kind: GUARD,
        pad: 0,
        ifindex: XdpContext::new(ctx).ingress_ifindex() as u32,
        link: 0,
        stamp: maps::now(),
    });
    1
}
