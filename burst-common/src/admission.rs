//! The surge guard: how many new flows of a class the premises take, enforced where they arrive.
//!
//! The generic cell rate algorithm (ITU-T I.371, "virtual scheduling"): one word per class, the time at which the next flow would
//! be due if flows came evenly. A flow that comes more than the allowance too early finds no room.

use bytemuck::{Pod, Zeroable};

use crate::limits::OVERFLOW_ROWS;
use crate::proof::layout;
use crate::slot::EndpointId;

/// The window of the local budget, in nanoseconds: so much of it may come at once.
pub const WINDOW: u64 = 10_000_000;
/// New flows that may come at once however small the budget is: at 85 % of it, evenly distributed chance brings more than these in
/// one of some 300 cases only (the tail of an M/D/1 queue, exp(-2 (1 - r) n / r)).
pub const AT_ONCE: u64 = 16;
/// [`Admission::interval`] of a class of which the premises take nothing.
pub const NONE: u64 = u64::MAX;

/// A class's row.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Zeroable, Pod)]
pub struct Admission {
    /// Nanoseconds between two new flows at the full local rate. 0: no limit; [`NONE`]: no flow.
    pub interval: u64,
    /// How much too early a flow may be, in nanoseconds: [`Admission::allowance_of`].
    pub allowance: u64,
    /// When the next flow is due, nanoseconds of `CLOCK_MONOTONIC`. The program's own.
    pub due: u64,
    /// Zero.
    pub pad: u64,
    /// Where new flows go for which there is no room, by family (IPv4 first) and slot; [`crate::slot::LOCAL`] where they cannot go
    /// anywhere.
    pub overflow: [[EndpointId; OVERFLOW_ROWS]; 2],
}
layout!(Admission, size = 32 + 4 * OVERFLOW_ROWS, interval @ 0, allowance @ 8, due @ 16, pad @ 24, overflow @ 32);

impl Admission {
    /// The rows of the overflow, as words of four endpoints each.
    pub const OVERFLOW_OFFSET: usize = core::mem::offset_of!(Self, overflow);

    /// When the flow after this one is due, if there is room for this one: `due` is what stands there, `now` the time.
    #[inline(always)]
    #[must_use]
    pub const fn admit(interval: u64, allowance: u64, due: u64, now: u64) -> Option<u64> {
        if interval == NONE {
            return None;
        }
        let early = due.saturating_sub(now);
        // Later than any flow is due at this rate: what stands there is of a former, smaller one.
        let at = if early > allowance.saturating_add(interval) { now } else { now + early };
        if at - now > allowance { None } else { Some(at.saturating_add(interval)) }
    }

    /// The allowance of an interval.
    #[must_use]
    pub const fn allowance_of(interval: u64) -> u64 {
        let some = interval.saturating_mul(AT_ONCE);
        if some > WINDOW { some } else { WINDOW }
    }

    /// The interval of a rate of new flows per second; not a number and below zero count as none at all.
    #[must_use]
    pub fn interval(rate: f64) -> u64 {
        // Casts saturate: beyond one flow a nanosecond there is one, and hardly any is one in centuries.
        if rate > 0.0 { ((1e9 / rate) as u64).clamp(1, NONE - 1) } else { NONE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of the flows that come at these times there is room for.
    fn admitted(rate: f64, times: impl Iterator<Item = u64>) -> usize {
        let (interval, mut due) = (Admission::interval(rate), 0);
        let (allowance, mut count) = (Admission::allowance_of(interval), 0);
        for now in times {
            if let Some(next) = Admission::admit(interval, allowance, due, now) {
                due = next;
                count += 1;
            }
        }
        count
    }

    #[test]
    fn a_step_puts_one_windows_worth_above_the_budget_and_no_more() {
        // A second at 50,000/s of which 5,000/s are wanted; the clock moves in steps of 1 ns, 4 ms and 10 ms.
        for tick in [1, 4_000_000, 10_000_000] {
            let times = (0..50_000_u64).map(|n| 5_000_000_000 + n * 20_000 / tick * tick);
            let count = admitted(5_000.0, times);
            assert!((4_950..=5_000 + 50 + 1).contains(&count), "{count} with a clock of {tick} ns");
        }
    }

    #[test]
    fn what_comes_at_less_than_the_rate_always_finds_room() {
        for tick in [1, 4_000_000, 10_000_000] {
            let times = (0..900_u64).map(|n| 5_000_000_000 + n * 1_111_111 / tick * tick);
            assert_eq!(admitted(1_000.0, times), 900, "with a clock of {tick} ns");
        }
        assert_eq!(admitted(0.5, [1_000_000_000, 3_000_000_000].into_iter()), 2, "one every two seconds");
    }

    #[test]
    fn no_rate_is_no_flow_and_none_is_saved_up() {
        for rate in [0.0, -1.0, f64::NAN] {
            assert_eq!(admitted(rate, 0..100), 0);
        }
        assert_eq!(admitted(f64::INFINITY, 0..100), 100);
        // An hour of silence is worth one window.
        let times = std::iter::once(0).chain(std::iter::repeat_n(3_600_000_000_000, 1_000));
        assert_eq!(admitted(5_000.0, times), 1 + 50 + 1);
    }

    #[test]
    fn a_higher_rate_counts_at_once() {
        let now = 1_000_000_000;
        let due = Admission::admit(Admission::interval(0.001), WINDOW, 0, now).expect("the first");
        let interval = Admission::interval(100.0);
        let next = Admission::admit(interval, Admission::allowance_of(interval), due, now);
        assert_eq!(next, Some(now + interval));
    }
}
