//! The local share over time: out at once, home slowly.

use std::time::Duration;

use super::decision::Limit;
use crate::config::model::Local;

/// A share lower by less than this is not worth moving flows for (five slots of 1024).
const OUT_BAND: f64 = 0.005;
/// Nor one that is lower by less than this part of itself: where demand is large, small shares are many flows.
const OUT_PART: f64 = 0.02;
/// On the way home a change by this part of the share, and by this at least, is never too small, whatever the dead
/// band: a small local share of a large demand could else not grow at all.
const HOME_PART: f64 = 0.1;
const HOME_LEAST: f64 = 0.001;
/// How often a share is lowered by feedback alone: load must have time to follow.
const FEEDBACK: Duration = Duration::from_secs(1);

/// What the share should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Want {
    /// By demand and capacity.
    Ideal(f64),
    /// By an operator.
    Override(f64),
    /// The load is not known. What demand and the last known capacity ask for, if there is one.
    Stale(Option<f64>),
}

/// The share and its timers.
#[derive(Clone, Debug)]
pub(super) struct Share {
    value: f64,
    /// When no more than this share was needed last.
    needed: Duration,
    /// On the way home.
    homing: bool,
    /// Since when the load is not known.
    stale: Option<Duration>,
    /// Time since feedback lowered the share.
    fed: Duration,
}

impl Default for Share {
    fn default() -> Self {
        Self { value: 1.0, needed: Duration::ZERO, homing: false, stale: None, fed: FEEDBACK }
    }
}

impl Share {
    /// Starts from a share that is in force already.
    pub(super) fn resume(&mut self, local: f64, floor: f64) {
        if !local.is_nan() {
            self.value = local.clamp(floor.clamp(0.0, 1.0), 1.0);
        }
    }

    /// The share to aim at when only the load is known: in proportion to how far it is above the target.
    pub(super) fn feedback(&mut self, elapsed: Duration, target: f64, load: f64) -> f64 {
        self.fed = self.fed.saturating_add(elapsed);
        if load <= target {
            1.0
        } else if self.fed < FEEDBACK {
            self.value
        } else {
            self.fed = Duration::ZERO;
            self.value * target / load
        }
    }

    /// Moves the share towards what is wanted, as far as it may go now. `floor` is the least local share there may be.
    pub(super) fn step(
        &mut self,
        now: Duration,
        elapsed: Duration,
        local: &Local,
        floor: f64,
        want: Want,
        limits: &mut Vec<Limit>,
    ) -> f64 {
        let pace = local.home_rate * elapsed.as_secs_f64();
        let bounded = |share: f64, limits: &mut Vec<Limit>| {
            if share < floor {
                limits.push(Limit::MaxOffsiteShare);
            }
            share.clamp(floor.clamp(0.0, 1.0), 1.0)
        };
        if !matches!(want, Want::Stale(_)) {
            self.stale = None;
        }
        match want {
            Want::Override(share) => {
                limits.push(Limit::Override);
                self.rest(now, bounded(share, limits));
            }
            Want::Stale(ideal) => {
                let since = *self.stale.get_or_insert(now);
                if now - since < local.hold {
                    limits.push(Limit::StaleHold);
                    let least = bounded(ideal.unwrap_or(1.0).min(self.value), limits);
                    self.rest(now, if self.outward(least) { least } else { self.value });
                } else {
                    limits.push(Limit::StaleFallback);
                    let goal = bounded(local.fallback, limits);
                    self.rest(now, self.value + (goal - self.value).clamp(-pace, pace));
                }
            }
            Want::Ideal(ideal) => self.follow(now, pace, local, bounded(ideal, limits), limits),
        }
        self.value
    }

    fn follow(&mut self, now: Duration, pace: f64, local: &Local, ideal: f64, limits: &mut Vec<Limit>) {
        if self.outward(ideal) {
            self.rest(now, ideal);
            return;
        }
        // The last step home is made even where it is smaller than the dead band: nothing stays outside for nothing.
        let band = local.dead_band.min(self.value * HOME_PART + HOME_LEAST);
        let worthwhile = ideal >= self.value + band || (ideal >= 1.0 && self.value < 1.0);
        if !(worthwhile || self.homing && ideal > self.value) {
            if ideal > self.value {
                limits.push(Limit::DeadBand);
            }
            self.rest(now, self.value);
        } else if now.saturating_sub(self.needed) < local.stabilize {
            limits.push(Limit::Stabilizing);
        } else {
            self.value = (self.value + pace).min(ideal);
            self.homing = self.value < ideal;
            if self.homing {
                limits.push(Limit::HomeRate);
            }
        }
    }

    /// Whether `share` is lower by enough to move flows for.
    fn outward(&self, share: f64) -> bool {
        share < self.value - OUT_BAND.min(self.value * OUT_PART)
    }

    /// Stays at `share`, which is needed now.
    fn rest(&mut self, now: Duration, share: f64) {
        (self.value, self.needed, self.homing) = (share, now, false);
    }
}
