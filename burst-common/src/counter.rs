//! Counters: per-CPU rows in memory-mapped arrays, indexed CPU × id, so that userspace reads them without a syscall and
//! no packet ever waits for another CPU.

use bytemuck::{Pod, Zeroable};

use crate::limits::{MAX_CLASSES, MAX_ENDPOINTS, MAX_LINKS, MAX_REASONS};
use crate::proof::layout;

/// One counter row. Only its own CPU writes it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Zeroable, Pod)]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Bytes of those packets, from the Ethernet header to the end of the IP packet, as they arrived; of packets that are
    /// not understood, the linear part.
    pub bytes: u64,
    /// Those of the packets that opened a flow.
    pub openers: u64,
}
layout!(Counter, size = 24, packets @ 0, bytes @ 8, openers @ 16);

/// Class × reason rows per CPU.
pub const CLASS_ROWS: usize = MAX_CLASSES * MAX_REASONS;
/// Endpoint × direction rows per CPU.
pub const ENDPOINT_ROWS: usize = MAX_ENDPOINTS * 2;
/// Link × direction rows per CPU.
pub const LINK_ROWS: usize = MAX_LINKS * 2;
/// All rows of one CPU.
pub const ROWS: usize = CLASS_ROWS + ENDPOINT_ROWS + LINK_ROWS;

/// From the edge to the cloud.
pub const OUT: usize = 0;
/// From the cloud to the edge.
pub const IN: usize = 1;

/// The counters of one CPU: one element of the map, so that the program looks up once for all that it counts of a packet.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Counts(pub [Counter; ROWS]);
const _: () = assert!(size_of::<Counts>() == ROWS * size_of::<Counter>() && size_of::<Counts>().is_multiple_of(8));

/// Row of a class and reason, among those of one CPU.
#[inline(always)]
#[must_use]
pub const fn class_row(class: usize, reason: usize) -> usize {
    class * MAX_REASONS + reason
}

/// Row of an endpoint and direction ([`OUT`], [`IN`]), among those of one CPU.
#[inline(always)]
#[must_use]
pub const fn endpoint_row(endpoint: usize, direction: usize) -> usize {
    CLASS_ROWS + endpoint * 2 + direction
}

/// Row of a link and direction ([`OUT`], [`IN`]), among those of one CPU.
#[inline(always)]
#[must_use]
pub const fn link_row(link: usize, direction: usize) -> usize {
    CLASS_ROWS + ENDPOINT_ROWS + link * 2 + direction
}
