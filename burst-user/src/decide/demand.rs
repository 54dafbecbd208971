//! Counts of openers → demand: a rate that follows a step within one tick and stands still under noise.
//!
//! Opening flows is at best a Poisson process: a tick that expects n of them sees n ± √n. An average follows that noise,
//! and a share that leaves fast and comes home slowly would ratchet along with it. So the estimate is not an average: it
//! stays exactly where it is until some recent window holds more, or fewer, openers than chance explains, and then
//! takes that window's mean. Short windows find large changes at once, long ones find small changes later.

use std::collections::VecDeque;
use std::time::Duration;

/// Deviations that chance is granted. At four ticks a second and six windows there are 10⁵ judgements in an hour;
/// Bernstein's bound exp(−z²/2) for 5.5 is 3 × 10⁻⁷.
const DEVIATIONS: f64 = 5.5;
/// Only windows at least this long (seconds) may lower the estimate of demand: fast up, slower down.
const LOWER: f64 = 2.0;
/// The same for the estimate of what stays local: capacity is learned from it, and needs to know a fall sooner.
const LOWER_LOCAL: f64 = 0.5;
/// The longest window (seconds).
const LONGEST: f64 = 32.0;
/// Seconds after a change at which the estimate, made from few openers, is replaced by the mean since.
const REFINE: [f64; 3] = [2.0, 8.0, LONGEST];
/// Ticks remembered, at most: `LONGEST` at ticks of 50 ms fits.
const TICKS: usize = 1024;
/// Span (seconds) of the plain mean.
const MEAN: f64 = 1.0;

/// The estimator.
#[derive(Clone, Debug)]
pub(super) struct Demand {
    /// The shortest window (seconds) that may lower the estimate.
    lower: f64,
    /// Span in seconds and count of recent ticks, oldest first, none from before the last change.
    ticks: VecDeque<(f64, f64)>,
    estimate: f64,
    mean: f64,
    rate: f64,
    /// Seconds since the last change.
    since: f64,
}

impl Demand {
    /// For all openers of a class.
    pub(super) fn all() -> Self {
        Self { lower: LOWER, ticks: VecDeque::new(), estimate: 0.0, mean: 0.0, rate: 0.0, since: 0.0 }
    }

    /// For those of them that stay local.
    pub(super) fn local() -> Self {
        Self { lower: LOWER_LOCAL, ..Self::all() }
    }

    /// Takes in the count of one tick.
    pub(super) fn update(&mut self, elapsed: Duration, count: u64) {
        let span = elapsed.as_secs_f64();
        if span <= 0.0 {
            return;
        }
        self.ticks.push_back((span, count as f64));
        if self.ticks.len() > TICKS {
            self.ticks.pop_front();
        }

        let before = self.since;
        self.since += span;
        let (mut time, mut number, mut ticks) = (0.0, 0.0, 0_usize);
        let (mut higher, mut lower) = ((self.estimate, 0), (self.estimate, 0));
        let mut rate = None;
        for &(span, count) in self.ticks.iter().rev() {
            time += span;
            number += count;
            ticks += 1;
            if rate.is_none() && time >= MEAN {
                rate = Some(number / time);
            }
            if ticks.is_power_of_two() || time >= LONGEST {
                let expected = self.estimate * time;
                let mean = number / time;
                if number > expected + above(expected) && mean > higher.0 {
                    higher = (mean, ticks);
                }
                let silent = number == 0.0 && time >= LONGEST;
                let few = number < expected - DEVIATIONS * expected.sqrt() || silent;
                if time >= self.lower && few && mean < lower.0 {
                    lower = (mean, ticks);
                }
            }
            if time >= LONGEST {
                break;
            }
        }
        self.mean = number / time;
        self.rate = rate.unwrap_or(self.mean);
        // Greater counts never lead to a smaller estimate: each value grows with the count, and they are combined so.
        let refined = REFINE.iter().any(|&at| before < at && self.since >= at).then_some(self.mean);
        let mut keep = ticks;
        if higher.1 > 0 {
            (self.estimate, keep) = (refined.map_or(higher.0, |mean| mean.max(higher.0)), higher.1);
        } else if lower.1 > 0 {
            (self.estimate, keep) = (refined.map_or(lower.0, |mean| mean.min(lower.0)), lower.1);
        } else if let Some(mean) = refined {
            self.estimate = mean;
        }
        if higher.1 + lower.1 > 0 {
            // What was before the change says nothing about what is now.
            (self.since, self.mean) = (0.0, self.estimate);
        }
        self.ticks.drain(..self.ticks.len() - keep);
    }

    /// Flows per second, held against noise.
    pub(super) fn estimate(&self) -> f64 {
        self.estimate
    }

    /// Flows per second, the mean since the last change: nearer to the truth than the estimate, but never at rest.
    pub(super) fn mean(&self) -> f64 {
        self.mean
    }

    /// Flows per second, the plain mean over about a second.
    pub(super) fn rate(&self) -> f64 {
        self.rate
    }
}

/// What chance may add to an expected count: Bernstein's inequality, t² = z² (λ + t/3), solved for t.
fn above(expected: f64) -> f64 {
    let square = DEVIATIONS * DEVIATIONS;
    square / 6.0 + (square * square / 36.0 + square * expected).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(250);

    /// Poisson counts from a fixed stream, by Knuth's product method in steps small enough for f64.
    fn poisson(state: &mut u64, mean: f64) -> u64 {
        let (mut left, mut count) = (mean, 0);
        while left > 0.0 {
            let (part, mut product) = (left.min(16.0), 1.0);
            left -= part;
            loop {
                *state = burst_common::hash::pair(*state, 1);
                product *= (*state >> 11) as f64 / (1u64 << 53) as f64;
                if product <= (-part).exp() {
                    break;
                }
                count += 1;
            }
        }
        count
    }

    #[test]
    fn a_tenfold_step_is_known_after_one_tick() {
        let mut demand = Demand::all();
        for _ in 0..80 {
            demand.update(TICK, 100);
        }
        assert_eq!(demand.estimate(), 400.0);
        demand.update(TICK, 1000);
        assert_eq!(demand.estimate(), 4000.0);
        demand.update(TICK, 1000);
        assert_eq!(demand.estimate(), 4000.0, "what was before the step does not pull it down");
    }

    #[test]
    fn a_fall_is_believed_within_two_seconds_and_not_at_once() {
        let mut demand = Demand::all();
        for _ in 0..80 {
            demand.update(TICK, 1000);
        }
        demand.update(TICK, 100);
        assert!(demand.estimate() > 3000.0, "{}", demand.estimate());
        for _ in 0..8 {
            demand.update(TICK, 100);
        }
        assert!(demand.estimate() < 420.0, "{}", demand.estimate());
    }

    #[test]
    fn poisson_noise_for_an_hour_changes_it_rarely_and_ever_less() {
        for mean in [2.0, 25.0, 1000.0] {
            let (mut demand, mut state, mut changes) = (Demand::all(), 7, [0; 2]);
            for tick in 0..14_400 {
                let before = demand.estimate();
                demand.update(TICK, poisson(&mut state, mean));
                changes[usize::from(tick >= 400)] += usize::from(demand.estimate() != before);
                let rate = mean * 4.0;
                // A window of 32 s knows the rate to 5.5 deviations; one tick of 25 may be a fifth off in the beginning.
                let slack = 2.5 * DEVIATIONS / (rate * LONGEST).sqrt();
                assert!(tick < 400 || (demand.estimate() / rate - 1.0).abs() < slack, "{mean}: {}", demand.estimate());
            }
            assert!(changes[0] >= 1 && changes[1] <= 3, "{mean}: {changes:?}");
        }
    }

    #[test]
    fn silence_ends_in_zero() {
        let mut demand = Demand::all();
        for _ in 0..80 {
            demand.update(TICK, 1);
        }
        assert!(demand.estimate() > 2.0);
        for _ in 0..400 {
            demand.update(TICK, 0);
        }
        assert_eq!((demand.estimate(), demand.rate()), (0.0, 0.0));
    }
}
