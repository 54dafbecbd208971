//! What the program reports one by one, through a ring buffer: occurrences that should never be, or seldom.

use bytemuck::{Pod, Zeroable};

use crate::proof::layout;

/// The guard stopped a packet of a keep class on its way out: it passed to the kernel untouched. A defect of burst.
pub const GUARD: u8 = 1;
/// The sentinel dropped a keep tuple that burst itself was about to send to a link. A defect of burst.
pub const SENTINEL_STOPPED_OWN: u8 = 2;
/// The sentinel saw a keep tuple that the kernel sent to a link, and let it go (`sentinel = "report"`).
pub const SENTINEL_REPORTED: u8 = 3;
/// The sentinel dropped a keep tuple that the kernel sent to a link (`sentinel = "enforce"`).
pub const SENTINEL_STOPPED: u8 = 4;

/// One event.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Zeroable, Pod)]
pub struct Event {
    /// Source address as in the packet, IPv4 in the first word; of the innermost packet that was kept.
    pub src: [u32; 4],
    /// Destination address, likewise.
    pub dst: [u32; 4],
    /// Source port, network byte order.
    pub src_port: u16,
    /// Destination port, network byte order.
    pub dst_port: u16,
    /// Protocol number.
    pub proto: u8,
    /// Family: 4 or 6.
    pub family: u8,
    /// [`GUARD`], [`SENTINEL_STOPPED_OWN`], [`SENTINEL_REPORTED`], [`SENTINEL_STOPPED`].
    pub kind: u8,
    /// Zero.
    pub pad: u8,
    /// Device: the packet's way in for the guard, its way out for the sentinel.
    pub ifindex: u32,
    /// Link id, 0 when none is known.
    pub link: u32,
    /// Nanoseconds since boot, without suspensions, as of the last timer tick (`bpf_ktime_get_coarse_ns`).
    pub stamp: u64,
}
layout!(
    Event, size = 56,
    src @ 0, dst @ 16, src_port @ 32, dst_port @ 34, proto @ 36, family @ 37, kind @ 38, pad @ 39, ifindex @ 40,
    link @ 44, stamp @ 48,
);
