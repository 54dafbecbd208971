//! Local rate and load → capacity: the new flows per second that would make a local load of 1.
//!
//! Capacity is rate ÷ load, but load follows rate by the time that flows live and metrics take, so right after a change
//! the two do not belong together. Therefore not one ratio is learned but an interval: the least and the most that
//! the rates of the last seconds allow. A capacity inside it contradicts nothing and stays; one above it comes down
//! fast, one below it goes up slowly. While overloaded it only comes down, and not while the load already falls:
//! flows that were admitted before are still being served, and cutting again for them would cut too deep.
//!
//! What others (payment) put on the backends is inside the load, so the ratio leaves room for them.

use std::collections::VecDeque;
use std::time::Duration;

use super::load::Loaded;
use crate::config::model::Local;

/// Seconds of local rates that may have made the present load, for the lower end of the interval.
const RISE_WINDOW: f64 = 5.0;
/// The same for the upper end: shorter, since too high a capacity hurts.
const FALL_WINDOW: f64 = 2.0;
/// Seconds of loads that must agree before a capacity moves on account of a load that is not alarming: load is noise too.
const LOAD_WINDOW: f64 = 10.0;
/// History needed before a first capacity is learned (seconds).
const FIRST: f64 = 2.0;
/// Local flows per second below which a ratio is noise.
const LEAST_RATE: f64 = 4.0;
/// Load below which a ratio is noise.
const LEAST_LOAD: f64 = 0.02;
/// Time constants (seconds): down while above target, down below target, up.
const DOWN: f64 = 2.0;
const EASE: f64 = 30.0;
const UP: f64 = 10.0;
/// A capacity this near to the interval is inside it.
const NEAR: f64 = 0.03;
/// A load below this fraction of its recent maximum is falling.
const FALLING: f64 = 0.95;
/// Below this fraction of the target there is room to try a little more where no ratio can be had.
const ROOM: f64 = 0.9;

/// The estimator.
#[derive(Clone, Debug)]
pub(super) struct Capacity {
    target: f64,
    home_rate: f64,
    /// The configured capacity: never exceeded, and not lowered as long as the load is under its target.
    configured: Option<f64>,
    value: Option<f64>,
    /// Recent ticks, oldest first.
    recent: VecDeque<Tick>,
}

/// What one tick showed.
#[derive(Clone, Copy, Debug)]
struct Tick {
    at: Duration,
    /// Local flows per second.
    rate: f64,
    load: Loaded,
}

impl Capacity {
    pub(super) fn new(local: &Local) -> Self {
        let (target, home_rate, configured) = (local.target, local.home_rate, local.capacity);
        Self { target, home_rate, configured, value: configured, recent: VecDeque::new() }
    }

    /// Takes over what was learned before.
    pub(super) fn resume(&mut self, learned: Option<f64>) {
        if let Some(learned) = learned.filter(|value| value.is_finite() && *value > 0.0) {
            self.value = Some(self.configured.map_or(learned, |most| learned.min(most)));
        }
    }

    /// Flows per second, finite and above zero; `None` while unknown.
    pub(super) fn value(&self) -> Option<f64> {
        self.value
    }

    /// Takes in one tick: the local rate and the demand (flows/s) and the load, `None` when there is none to trust.
    pub(super) fn update(&mut self, now: Duration, elapsed: Duration, rate: f64, demand: f64, load: Option<Loaded>) {
        if elapsed.is_zero() {
            // The first step has no rate yet, and a zero would stand in the window for one.
            return;
        }
        let Some(load) = load else {
            // Rates without loads beside them teach nothing.
            self.recent.clear();
            return;
        };
        self.recent.push_back(Tick { at: now, rate, load });
        let oldest = now.saturating_sub(Duration::from_secs_f64(LOAD_WINDOW) + load.age);
        while self.recent.front().is_some_and(|tick| tick.at < oldest) {
            self.recent.pop_front();
        }
        let mood = Mood::of(load, self.target);
        if let Some(bounds) = self.bounds(now, load, mood) {
            self.learn(elapsed.as_secs_f64(), mood, bounds);
        }
        if mood == Mood::Room {
            self.probe(elapsed.as_secs_f64(), rate, demand);
        }
    }

    fn learn(&mut self, span: f64, mood: Mood, bounds: Bounds) {
        let over = mood >= Mood::Over;
        let Some(value) = self.value else {
            // Above the target any bound is better than none; below it, only a rate that was steady.
            self.value = if over { bounds.most } else { bounds.least };
            return;
        };
        let toward = |goal: f64, constant: f64| {
            let next = value + (goal - value) * span / (constant + span);
            if (next / goal - 1.0).abs() < NEAR { goal } else { next }
        };
        if let Some(most) = bounds.most
            && value > most * (1.0 + NEAR)
        {
            if over && bounds.falling || !over && self.configured.is_some() {
                return;
            }
            self.value = Some(match mood {
                Mood::Hot => most,
                Mood::Warm | Mood::Over => toward(most, DOWN),
                Mood::Fine | Mood::Room => toward(most, EASE),
            });
        } else if let Some(least) = bounds.least
            && value < least * (1.0 - NEAR)
            && mood < Mood::Hot
        {
            let next = toward(least, UP);
            self.value = Some(self.configured.map_or(next, |most| next.min(most)));
        }
    }

    /// Where so few flows stay that no ratio can be had, and the load has room, a little more is tried: as much as may
    /// come home in this time.
    fn probe(&mut self, span: f64, rate: f64, demand: f64) {
        if let Some(value) = self.value
            && rate < LEAST_RATE
            && value * self.target < demand
        {
            let next = (value + self.home_rate * demand * span / self.target).min(demand / self.target);
            self.value = Some(self.configured.map_or(next, |most| next.min(most)));
        }
    }

    /// What the rates and loads of the recent past allow; `None` while there is too little to judge by.
    fn bounds(&self, now: Duration, load: Loaded, mood: Mood) -> Option<Bounds> {
        let (mut least, mut most, mut span) = (f64::INFINITY, 0.0_f64, 0.0_f64);
        let (mut low, mut high, mut peak) = (f64::INFINITY, 0.0_f64, 0.0_f64);
        for tick in &self.recent {
            let before = (now - tick.at).as_secs_f64();
            span = span.max(before);
            low = low.min(tick.load.smooth);
            high = high.max(tick.load.smooth);
            if before <= FALL_WINDOW {
                peak = peak.max(tick.load.value);
                most = most.max(tick.rate);
            }
            // The load is `age` old: rates after that have not made it, so they do not count for the lower end. They do
            // for the upper one, which is meant to be generous: a tick's rate may be in a load read within that tick.
            let before = before - load.age.as_secs_f64();
            if (0.0..=RISE_WINDOW).contains(&before) {
                least = least.min(tick.rate);
            }
        }
        let (judged, against) = match mood {
            Mood::Hot => (load.value, load.value),
            Mood::Warm => (load.smooth, high),
            Mood::Over | Mood::Fine | Mood::Room => (low, high),
        };
        let ratio = |rate: f64, load: f64| {
            (rate.is_finite() && rate >= LEAST_RATE && load >= LEAST_LOAD).then_some(rate / load)
        };
        let falling = load.value < peak * FALLING;
        (span >= FIRST).then(|| Bounds { least: ratio(least, against), most: ratio(most, judged), falling })
    }
}

/// How the load stands to its target, from calm to alarming.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mood {
    /// Well under the target.
    Room,
    /// Under the target.
    Fine,
    /// Over the target.
    Over,
    /// Over the target by more than half of what is left to the limit: not waited on.
    Warm,
    /// At the limit or over it, by the latest reading alone.
    Hot,
}

impl Mood {
    fn of(load: Loaded, target: f64) -> Self {
        match load {
            Loaded { value, .. } if value >= 1.0 => Self::Hot,
            Loaded { smooth, .. } if smooth > f64::midpoint(target, 1.0) => Self::Warm,
            Loaded { smooth, .. } if smooth > target => Self::Over,
            Loaded { smooth, .. } if smooth < target * ROOM => Self::Room,
            _ => Self::Fine,
        }
    }
}

/// The capacities (flows/s) that the recent past allows; an end is `None` where its rate is noise.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    least: Option<f64>,
    most: Option<f64>,
    /// The load is on its way down.
    falling: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(capacity: Option<f64>) -> Local {
        let (hold, stabilize) = (Duration::from_secs(60), Duration::from_secs(10));
        Local { target: 0.75, capacity, load: vec![], home_rate: 0.05, stabilize, dead_band: 0.02, hold, fallback: 1.0 }
    }

    /// Runs `seconds` of ticks and gives the capacity after each.
    fn run(capacity: &mut Capacity, from: f64, seconds: f64, rate: f64, load: f64) -> Vec<Option<f64>> {
        (0..(seconds * 4.0) as u32)
            .map(|tick| {
                let now = Duration::from_secs_f64(from + f64::from(tick + 1) / 4.0);
                let load = Loaded { value: load, smooth: load, age: Duration::from_millis(100) };
                capacity.update(now, Duration::from_millis(250), rate, rate, Some(load));
                capacity.value()
            })
            .collect()
    }

    #[test]
    fn it_is_rate_over_load_once_both_mean_something() {
        let mut capacity = Capacity::new(&local(None));
        let values = run(&mut capacity, 0.0, 3.0, 200.0, 0.25);
        assert_eq!((values[0], values[7], *values.last().unwrap()), (None, None, Some(800.0)));
        for (rate, load) in [(3.0, 0.25), (200.0, 0.01), (0.0, 0.3)] {
            let mut capacity = Capacity::new(&local(None));
            assert_eq!(run(&mut capacity, 0.0, 20.0, rate, load).pop(), Some(None), "{rate}/s at {load}");
        }
    }

    #[test]
    fn a_load_that_has_not_followed_its_rate_yet_teaches_nothing() {
        let mut capacity = Capacity::new(&local(None));
        run(&mut capacity, 0.0, 10.0, 200.0, 0.25);
        // Tenfold rate, the same old load: 2000 / 0.25 would be 8000.
        let values = run(&mut capacity, 10.0, 3.0, 2000.0, 0.25);
        assert!(values.iter().all(|value| *value == Some(800.0)), "{values:?}");
    }

    #[test]
    fn overload_lowers_it_at_once_and_never_raises_it() {
        let mut capacity = Capacity::new(&local(None));
        run(&mut capacity, 0.0, 10.0, 200.0, 0.25);
        let values = run(&mut capacity, 10.0, 1.0, 200.0, 2.0);
        assert_eq!(values[0], Some(100.0));
        let values = run(&mut capacity, 11.0, 20.0, 900.0, 1.5);
        assert!(values.iter().all(|value| *value == Some(100.0)), "{values:?}");
    }

    #[test]
    fn while_the_load_falls_it_is_not_cut_again() {
        let mut capacity = Capacity::new(&local(None));
        run(&mut capacity, 0.0, 10.0, 200.0, 0.25);
        run(&mut capacity, 10.0, 1.0, 200.0, 2.0);
        for second in 0..6 {
            let load = 2.0 * 0.85_f64.powi(second + 1);
            let values = run(&mut capacity, 11.0 + f64::from(second), 1.0, 10.0, load);
            assert!(values.iter().all(|value| *value == Some(100.0)), "{load}: {values:?}");
        }
    }

    #[test]
    fn it_rises_slowly_to_what_was_shown_and_then_stands_still() {
        let mut capacity = Capacity::new(&local(None));
        capacity.resume(Some(400.0));
        let values = run(&mut capacity, 0.0, 120.0, 200.0, 0.25);
        let after = |seconds: usize| values[seconds * 4 - 1].unwrap();
        assert!((420.0..500.0).contains(&after(3)), "{}", after(3));
        assert_eq!((after(100), after(120)), (800.0, 800.0));
    }

    #[test]
    fn a_configured_capacity_is_lowered_above_the_target_only_and_never_exceeded() {
        let mut capacity = Capacity::new(&local(Some(1000.0)));
        assert_eq!(run(&mut capacity, 0.0, 20.0, 100.0, 0.5).pop(), Some(Some(1000.0)), "an idle load is no proof");
        assert!(run(&mut capacity, 20.0, 20.0, 400.0, 0.9).pop().unwrap().unwrap() < 500.0);
        assert_eq!(run(&mut capacity, 40.0, 200.0, 700.0, 0.3).pop(), Some(Some(1000.0)));
    }

    #[test]
    fn nothing_local_and_room_again_tries_a_little_more() {
        let mut capacity = Capacity::new(&local(None));
        capacity.resume(Some(1.0));
        let now = Duration::from_secs(1);
        let load = |value| Some(Loaded { value, smooth: value, age: Duration::ZERO });
        capacity.update(now, Duration::from_secs(1), 0.0, 1000.0, load(0.7));
        assert_eq!(capacity.value(), Some(1.0), "no room");
        capacity.update(now, Duration::from_secs(1), 0.0, 1000.0, load(0.1));
        let share = 0.75 * capacity.value().unwrap() / 1000.0;
        assert!((0.049..0.052).contains(&share), "{share}");
    }
}
