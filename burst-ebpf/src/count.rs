//! Verdict → counters. Rows belong to one CPU each: plain additions, no atomics.

use burst_common::counter::Counter;
use burst_common::reason::{Note, Reason};
use burst_common::slot::EndpointId;

use crate::maps;

/// What is known of a packet when its verdict is counted.
pub struct Account {
    /// Class id; 0 for none.
    pub class: u32,
    /// Length of the frame in bytes.
    pub bytes: u32,
    /// Whether it opens a flow.
    pub opener: bool,
    /// Where it was placed.
    pub endpoint: EndpointId,
}

impl Account {
    /// A packet of no class.
    #[inline(always)]
    pub fn new(bytes: u32) -> Self {
        Self { class: 0, bytes, opener: false, endpoint: 0 }
    }
}

/// Counts a packet under its class and reason.
#[inline(always)]
pub fn verdict(account: &Account, reason: Reason) {
    add(maps::class_counter(account.class & 63, reason.number()), account);
}

/// Counts a packet to or from an endpoint.
#[inline(always)]
pub fn endpoint(endpoint: EndpointId, direction: usize, account: &Account) {
    add(maps::endpoint_counter(endpoint, direction), account);
}

/// Counts a packet on a link.
#[inline(always)]
pub fn link(link: u32, direction: usize, account: &Account) {
    add(maps::link_counter(link, direction), account);
}

/// Counts an occurrence that is no verdict.
#[inline(always)]
pub fn note(class: u32, note: Note) {
    if let Some(counter) = maps::class_counter(class & 63, note.number()) {
        // SAFETY: as in `add`.
        unsafe { (*counter).packets += 1 };
    }
}

#[inline(always)]
fn add(counter: Option<*mut Counter>, account: &Account) {
    if let Some(counter) = counter {
        // SAFETY: the row is this CPU's alone, and an XDP program is not preempted by another on its CPU.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += u64::from(account.bytes);
            if account.opener {
                (*counter).openers += 1;
            }
        }
    }
}
