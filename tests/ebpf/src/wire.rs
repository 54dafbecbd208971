//! Frames on a wire: sent, redirected by a program that does nothing else, counted and dropped where they arrive.

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_TX};
use aya_ebpf::btf_maps::{Array, DevMapHash};
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;

/// Where [`redirect`] sends every frame, under key 0.
#[btf_map]
static TO: DevMapHash<1> = DevMapHash::new();

/// Frames that arrived. One CPU counts: the benchmark is pinned to it.
#[btf_map]
static ARRIVED: Array<u64, 1> = Array::new();

/// Sends the frame back where it came from: behind `replay`, a packet generator.
#[xdp(frags)]
pub fn send(_ctx: XdpContext) -> u32 {
    XDP_TX
}

/// A redirect through a device map, and nothing else.
#[xdp(frags)]
pub fn redirect(_ctx: XdpContext) -> u32 {
    TO.redirect(0, 0).unwrap_or(XDP_ABORTED)
}

/// Counts and drops a frame.
#[xdp(frags)]
pub fn arrive(_ctx: XdpContext) -> u32 {
    if let Some(arrived) = ARRIVED.get_ptr_mut(0) {
        // SAFETY: an array element lives as long as the program, and one CPU alone counts.
        unsafe { *arrived += 1 };
    }
    XDP_DROP
}
