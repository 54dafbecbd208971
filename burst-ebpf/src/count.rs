//! Verdict → counters. Rows belong to one CPU each: plain additions, no atomics.

use burst_common::counter::Counter;
use burst_common::reason::{Note, Reason};
use burst_common::slot::EndpointId;

use crate::maps;

/// What is known of a packet when its verdict is counted. What only reports read costs nothing where there are none.
pub struct Account {
    /// Class id; 0 for none.
    pub class: u32,
    /// Length of the frame in bytes.
    pub bytes: u32,
    /// Whether it opens a flow.
    pub opener: bool,
    /// Number of the rule that decided, plus one; 0 for none.
    pub rule: u32,
    /// Index of the slot that was asked, plus one; 0 for none.
    pub slot: u32,
    /// Where it was placed, or which endpoint answered.
    pub endpoint: EndpointId,
    /// Link id; 0 for none.
    pub link: u32,
    /// Device it is to leave by; 0 for none.
    pub device: u32,
}

impl Account {
    /// A packet of no class.
    #[inline(always)]
    pub fn new(bytes: u32) -> Self {
        Self { class: 0, bytes, opener: false, rule: 0, slot: 0, endpoint: 0, link: 0, device: 0 }
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
