//! Verdict → counters. Rows belong to one CPU each: plain additions, no atomics.

use burst_common::counter::{Counter, class_row, endpoint_row, link_row};
use burst_common::limits::{MAX_CLASSES, MAX_ENDPOINTS, MAX_LINKS, MAX_REASONS};
use burst_common::reason::{Note, Reason};
use burst_common::slot::{EndpointId, LOCAL};

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

/// Counts a packet: under its class and reason, and where it passed an endpoint or a link, there.
#[inline(always)]
pub fn verdict(account: &Account, reason: Reason) {
    let Some(counts) = maps::counts() else { return };
    add(counts, class_row(account.class as usize & (MAX_CLASSES - 1), reason.number() & (MAX_REASONS - 1)), account);
    let Some(direction) = reason.direction() else { return };
    if account.endpoint != LOCAL {
        add(counts, endpoint_row(account.endpoint as usize & (MAX_ENDPOINTS - 1), direction), account);
    }
    if account.link != 0 {
        add(counts, link_row(account.link as usize & (MAX_LINKS - 1), direction), account);
    }
}

/// Counts an occurrence that is no verdict.
#[inline(always)]
pub fn note(class: u32, note: Note) {
    let Some(counts) = maps::counts() else { return };
    // SAFETY: as in `add`.
    unsafe { (*counts.add(class_row(class as usize & (MAX_CLASSES - 1), note.number()))).packets += 1 };
}

#[inline(always)]
fn add(counts: *mut Counter, row: usize, account: &Account) {
    // SAFETY: the rows are this CPU's alone, and an XDP program is not preempted by another on its CPU. `row` is below `ROWS`: each
    // part of it was masked.
    unsafe {
        let counter = counts.add(row);
        (*counter).packets += 1;
        (*counter).bytes += u64::from(account.bytes);
        if account.opener {
            (*counter).openers += 1;
        }
    }
}
