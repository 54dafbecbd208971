//! The egress sentinel: the last of three layers that keep payment here. It stops a packet that a keep rule names on its way
//! to a link, whoever sent it, and says so.
//!
//! Three programs, one check. [`sentinel`] is the devmap's program of every link device (`DevMapHash::insert` with its
//! descriptor): it sees each frame that XDP redirects out of that device. [`sentinel_probe`] is the same for test runs, which
//! devmap programs are not given; it is never attached. [`sentinel_tc`] is attached to the egress of every link device, first
//! of its tcx programs (before Linux 6.6: first of its clsact filters): it sees what the kernel sends there, and on a link of
//! `via = "kernel"` what the kernel sends on for burst. Each is loaded with the policy of its device: `links`, `mac`, `role`.
//!
//! [`usual`] lets through, with constant offsets, what nearly every frame is. The rest is looked at header by header by
//! [`deep`]. Only what is found there costs more: [`link`] tells whether the frame is for a link at all.
//!
//! What a frame carries is seen as far as it can be read: inside IPIP and GUE, one level, and inside ICMP errors. A `dnat` frame
//! carries the endpoint's address: there, rules that name clients are all that the sentinel can know it by.

mod deep;
mod link;
mod usual;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_md};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use burst_common::event::{Event, SENTINEL_REPORTED, SENTINEL_STOPPED, SENTINEL_STOPPED_OWN};
use burst_common::flow::Flow;
use burst_common::forget::forget;
use burst_common::policy::constant;
use burst_common::reason::Note;
use burst_common::returns::{ReturnKey, proto};

use self::deep::deep;
use self::link::{is_via_kernel, link};
use crate::bytes::{Skb, Xdp};
use crate::guard::Guarded;
use crate::packet::Packet;
use crate::{count, maps, reply};

/// Every frame that XDP redirects out of a link device.
#[xdp(frags, map = "devmap")]
#[inline(always)]
pub fn sentinel(ctx: XdpContext) -> u32 {
    if usual::is_free(&Packet::of(ctx.ctx)) {
        return XDP_PASS;
    }
    // SAFETY: the program's own context; of a devmap program it has this field.
    own(ctx.ctx, unsafe { (*ctx.ctx).egress_ifindex })
}

/// The same for test runs, on the way into the device instead.
#[xdp(frags)]
#[inline(always)]
pub fn sentinel_probe(ctx: XdpContext) -> u32 {
    if usual::is_free(&Packet::of(ctx.ctx)) {
        return XDP_PASS;
    }
    own(ctx.ctx, ctx.ingress_ifindex() as u32)
}

/// Every packet that the kernel sends out of a link device.
#[classifier]
#[inline(always)]
pub fn sentinel_tc(ctx: TcContext) -> i32 {
    if others(ctx.skb.skb) { TC_ACT_SHOT } else { TC_ACT_UNSPEC }
}

/// A frame on its way out, as far as it is no packet. No options: what those do not hold is not written, and the verifier
/// refuses to see it copied.
struct Leaving {
    /// The first eight bytes; zero where there is no Ethernet header.
    to: u64,
    /// Index of the device, which is positive; with [`OWN`] where XDP sends it, which here is burst itself. (In one word: what stands on
    /// the stack from here to the deepest function is as much as Linux 6.1 takes.)
    ifindex: u32,
    /// Tag control information that the kernel keeps beside the frame, the outermost tag's; [`NONE`] without. Then the VLAN
    /// id, 0 for an untagged frame.
    vlan: u64,
    /// The ethertype of a packet without an Ethernet header; [`NONE`] where there is one.
    bare: u32,
}

/// In [`Leaving::ifindex`]: burst sends it.
const OWN: u32 = 1 << 31;

/// No such thing.
const NONE: u32 = u32::MAX;

/// The flow that a keep rule names, in whole words: the verifier compares those best. Their values are hidden from it, so that
/// it sees no difference between a flow that was found and none.
struct Found {
    src: [u64; 2],
    dst: [u64; 2],
    /// Source port, destination port, protocol, family, from the lowest bits on; ports as in the packet.
    rest: u64,
}

impl Found {
    #[inline(always)]
    fn nothing() -> Self {
        Self { src: [forget(0), forget(0)], dst: [forget(0), forget(0)], rest: forget(0) }
    }

    #[inline(always)]
    fn write<A: Guarded>(&mut self, flow: &Flow<A>) {
        let (src, dst): ([u64; 2], [u64; 2]) = (bytemuck::cast(flow.src.wide()), bytemuck::cast(flow.dst.wide()));
        (self.src, self.dst) = (src.map(forget), dst.map(forget));
        let ports = u64::from(flow.src_port) | u64::from(flow.dst_port) << 16;
        self.rest = forget(ports | u64::from(flow.proto) << 32 | u64::from(A::FAMILY) << 40);
    }
}

/// What burst itself is about to send.
#[inline(never)]
fn own(ctx: *mut xdp_md, ifindex: u32) -> u32 {
    let mut leaving = Leaving { to: 0, ifindex: ifindex | OWN, vlan: NONE.into(), bare: NONE };
    let mut found = Found::nothing();
    if deep::<Xdp>(ctx, &mut leaving, &mut found) && trip(&leaving, &found) { XDP_DROP } else { XDP_PASS }
}

/// What the kernel sends.
#[inline(always)]
fn others(skb: *mut __sk_buff) -> bool {
    // SAFETY: fields of the program's own context.
    let mut leaving = unsafe {
        let vlan = if (*skb).vlan_present == 0 { NONE.into() } else { u64::from((*skb).vlan_tci) };
        // A device without a MAC address has no Ethernet header.
        let bare = if constant(&maps::policy().mac) == 0 { (*skb).protocol } else { NONE };
        Leaving { to: 0, ifindex: (*skb).ifindex, vlan, bare }
    };
    let mut found = Found::nothing();
    deep::<Skb>(skb, &mut leaving, &mut found) && trip(&leaving, &found)
}

/// Decides over a frame that carries what a keep rule names. If it is for a link, it is counted and reported, and stopped
/// (`true`) unless the kernel sends it and may.
#[inline(never)]
fn trip(leaving: &Leaving, found: &Found) -> bool {
    let Some(link) = link(leaving.vlan as u16, leaving.to) else { return false };
    let event = Event {
        src: bytemuck::cast(found.src),
        dst: bytemuck::cast(found.dst),
        src_port: found.rest as u16,
        dst_port: (found.rest >> 16) as u16,
        proto: (found.rest >> 32) as u8,
        family: (found.rest >> 40) as u8,
        kind: 0,
        pad: 0,
        ifindex: leaving.ifindex & !OWN,
        link,
        stamp: maps::now(),
    };
    let kind = if leaving.ifindex & OWN != 0 || is_own(&event) {
        SENTINEL_STOPPED_OWN
    } else if enforces() {
        SENTINEL_STOPPED
    } else {
        SENTINEL_REPORTED
    };
    count::note(0, if kind == SENTINEL_REPORTED { Note::SentinelReported } else { Note::SentinelStopped });
    maps::report(&Event { kind, ..event });
    kind != SENTINEL_REPORTED
}

/// Whether a packet that the kernel sends was rewritten by burst: nobody else has business with an endpoint of `dnat`, under
/// its address and port, on a link that the kernel routes.
#[inline(always)]
fn is_own(event: &Event) -> bool {
    let key = ReturnKey { address: event.dst, port: event.dst_port, proto: proto(event.family, event.proto) };
    is_via_kernel(event.link) && reply::find(&key).is_some()
}

/// Whether the kernel's packets are stopped, too. Nothing is, where burst was told to touch nothing.
#[inline(always)]
fn enforces() -> bool {
    let bypass = maps::control().is_none_or(|control| control.bypass != 0);
    constant(&maps::guard().enforce) != 0 && constant(&maps::policy().shadow) == 0 && !bypass
}
