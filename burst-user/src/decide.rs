//! Observation → Decision: how much of each class stays local, and where the rest goes.
//!
//! A state machine without IO, clock or randomness: time comes in as a parameter, the same inputs give the same
//! decisions. It holds the controller's memory (demand, capacity, share) and no maps, sources or slots.
//!
//! The way of one step, per class: counters → `demand` and local rate · readings → `load` · both → `capacity` ·
//! capacity and demand → wanted share → `share` (fast out, slow home) → `waterfall` over the tiers.

mod capacity;
mod decision;
mod demand;
mod load;
mod observation;
mod share;
mod waterfall;

#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::config::model::{Burst, Class, Config};

pub use decision::{ClassDecision, Decision, Limit};
pub use load::{Distrust, trust};
pub use observation::{ClassObservation, LinkState, Observation, Override, Reading};

use capacity::Capacity;
use demand::Demand;
use load::Load;
use share::{Share, Want};

/// Shares that differ by less are the same to the surge guard.
const GUARD_BAND: f64 = 1e-3;

/// The controller: all that is remembered between two decisions.
#[derive(Clone, Debug)]
pub struct Controller {
    /// In the order of the configuration; `None` for `keep` classes, about which there is nothing to decide.
    classes: Vec<Option<ClassState>>,
    /// Time of the last step.
    last: Option<Duration>,
}

/// What is remembered of a burst class.
#[derive(Clone, Debug)]
struct ClassState {
    policy: Burst,
    /// Indices into the observed links, per tier.
    tier_links: Vec<Vec<usize>>,
    /// `openers` and `openers_local` of the last observation.
    counters: Option<(u64, u64)>,
    demand: Demand,
    /// The same estimator on the openers that stayed local.
    local: Demand,
    load: Load,
    capacity: Capacity,
    share: Share,
}

impl Controller {
    /// A controller that has seen nothing: every class wholly local.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let state = |class: &Class| class.burst.as_ref().map(|burst| ClassState::new(burst, config));
        Self { classes: config.classes.iter().map(state).collect(), last: None }
    }

    /// Takes over what an earlier controller had reached, so that a restart moves no flow: the local share that the
    /// live slots have, and the capacity that was learned, if known (flows/s). Before the first step. The share
    /// comes home from there as it would have. Values that are no numbers are ignored.
    pub fn resume(&mut self, class: usize, local: f64, capacity: Option<f64>) {
        if let Some(Some(state)) = self.classes.get_mut(class) {
            state.share.resume(local, 1.0 - state.policy.max_offsite_share);
            state.capacity.resume(capacity);
        }
    }

    /// This controller with another configuration: what it learned of a class, and where its share is, stays with the class of
    /// the same name. `former` is the configuration that it has.
    #[must_use]
    pub fn with(&self, former: &Config, new: &Config) -> Self {
        let class = |class: &Class| {
            let mut state = ClassState::new(class.burst.as_ref()?, new);
            let place = former.classes.iter().position(|old| old.name == class.name);
            if let Some(Some(old)) = place.and_then(|place| self.classes.get(place)) {
                state.remember(old);
            }
            Some(state)
        };
        Self { classes: new.classes.iter().map(class).collect(), last: self.last }
    }

    /// One decision. `now` is monotonic time since any fixed start; a step back in time is taken as no time.
    ///
    /// A class that the observation leaves out is taken as one of which nothing was seen: no new counters, no
    /// readings, no endpoint reachable.
    pub fn step(&mut self, now: Duration, observation: &Observation) -> Decision {
        let now = now.max(self.last.unwrap_or_default());
        let elapsed = self.last.map_or(Duration::ZERO, |last| now - last);
        self.last = Some(now);
        let nothing = ClassObservation::default();
        let classes = self.classes.iter_mut().enumerate().map(|(index, class)| match class {
            None => ClassDecision::keep(),
            Some(state) => {
                let seen = observation.classes.get(index).unwrap_or(&nothing);
                state.step(now, elapsed, seen, &observation.links)
            }
        });
        Decision { classes: classes.collect() }
    }
}

/// The share of all new flows per endpoint, in the order of the tiers, when `offsite` of them leave and their number is not
/// known: tiers fill in order, so it is the first that takes them.
#[must_use]
pub fn spread(burst: &Burst, offsite: f64) -> Vec<f64> {
    let capacities: Vec<_> = burst.tiers.iter().map(|tier| tier.capacity).collect();
    let reachable: Vec<_> = burst.tiers.iter().map(|tier| vec![true; tier.endpoint_names().len()]).collect();
    waterfall::pour(offsite, 0.0, &capacities, &reachable).weights
}

impl ClassState {
    fn new(burst: &Burst, config: &Config) -> Self {
        let number = |name: &String| config.links.iter().position(|link| link.name == *name);
        Self {
            tier_links: burst.tiers.iter().map(|tier| tier.links.iter().filter_map(number).collect()).collect(),
            counters: None,
            demand: Demand::all(),
            local: Demand::local(),
            load: Load::default(),
            capacity: Capacity::new(&burst.local),
            share: Share::default(),
            policy: burst.clone(),
        }
    }

    /// Takes over what a state of the same class was at.
    fn remember(&mut self, old: &Self) {
        (self.counters, self.demand, self.local) = (old.counters, old.demand.clone(), old.local.clone());
        self.share = old.share.clone();
        if self.policy.local == old.policy.local {
            (self.load, self.capacity) = (old.load.clone(), old.capacity.clone());
        } else {
            self.capacity.resume(old.capacity.value());
        }
    }

    fn step(
        &mut self,
        now: Duration,
        elapsed: Duration,
        seen: &ClassObservation,
        links: &[LinkState],
    ) -> ClassDecision {
        let mut limits = Vec::new();
        self.count(elapsed, seen);
        let demand = self.demand.estimate();
        let load = self.load.update(elapsed, &seen.readings, &self.policy.local.load);
        self.capacity.update(now, elapsed, self.local.mean(), demand, load);
        if load.is_some_and(|load| load.value >= 1.0) {
            limits.push(Limit::Overloaded);
        }

        let floor = 1.0 - self.policy.max_offsite_share;
        let want = self.want(now, elapsed, seen, demand, load, &mut limits);
        let wanted = self.share.step(now, elapsed, &self.policy.local, floor, want, &mut limits);

        let capacities: Vec<_> = self.policy.tiers.iter().map(|tier| tier.capacity).collect();
        let reachable = self.reachable(seen, links);
        let poured = waterfall::pour(1.0 - wanted, demand, &capacities, &reachable);
        limits.extend(&poured.limits);
        let decided = (poured.tiers.iter().sum::<f64>(), limits.contains(&Limit::Override));
        let (admit, overflow) = self.guard(&decided, demand, &capacities, &reachable);
        let mut decision = ClassDecision {
            admit,
            overflow,
            wanted,
            local: (wanted + poured.left).min(1.0),
            weights: poured.weights,
            tiers: poured.tiers,
            demand,
            rate: self.demand.rate(),
            local_rate: self.local.rate(),
            load: load.map(|load| load.value),
            capacity: self.capacity.value(),
            limits,
            reason: String::new(),
        };
        decision.explain(self.policy.local.target, self.policy.tiers.iter().map(|tier| tier.name.as_str()));
        decision
    }

    /// Takes in the counters. One that went down belongs to a program that started anew: it is the new beginning.
    fn count(&mut self, elapsed: Duration, seen: &ClassObservation) {
        let counters = (seen.openers, seen.openers_local);
        if elapsed.is_zero() && self.counters.is_some() {
            // No time, no rate: these openers are counted with the next step.
            return;
        }
        if let Some(before) = self.counters.replace(counters)
            && let (Some(openers), Some(local)) = (counters.0.checked_sub(before.0), counters.1.checked_sub(before.1))
        {
            self.demand.update(elapsed, openers);
            self.local.update(elapsed, local);
        }
    }

    /// What the share should be, before the rules of moving it.
    fn want(
        &mut self,
        now: Duration,
        elapsed: Duration,
        seen: &ClassObservation,
        demand: f64,
        load: Option<load::Loaded>,
        limits: &mut Vec<Limit>,
    ) -> Want {
        if let Some(forced) = &seen.forced
            && now < forced.until
            && !forced.offsite.is_nan()
        {
            return Want::Override(1.0 - forced.offsite.clamp(0.0, 1.0));
        }
        let local = &self.policy.local;
        let fits = self.capacity.value().map(|capacity| {
            let room = local.target * capacity;
            if demand > room { room / demand } else { 1.0 }
        });
        match (load, fits) {
            (None, fits) if local.capacity.is_none() => Want::Stale(fits),
            (_, Some(fits)) => Want::Ideal(fits),
            (Some(load), None) => {
                limits.push(Limit::CapacityUnknown);
                Want::Ideal(self.share.feedback(elapsed, local.target, load.smooth.max(load.value)))
            }
            // No capacity and no load: a configured capacity is always a value.
            (None, None) => Want::Stale(None),
        }
    }

    /// What the surge guard is told: how many new flows per second the premises take, and where it sends more of them. Between the load
    /// that is aimed at and the limit there is room for chance; the guard stops what would go beyond half of it. Nothing where an
    /// operator set the share, where no more may leave, or where nobody could take it.
    fn guard(
        &self,
        &(offsite, ordered): &(f64, bool),
        demand: f64,
        capacities: &[f64],
        reachable: &[Vec<bool>],
    ) -> (Option<f64>, Vec<f64>) {
        let most = self.policy.max_offsite_share;
        let nowhere = vec![0.0; reachable.iter().map(Vec::len).sum()];
        let Some(capacity) = self.capacity.value().filter(|_| !ordered && offsite < most - GUARD_BAND) else {
            return (None, nowhere);
        };
        let overflow = waterfall::pour(most, demand, capacities, reachable).weights;
        if overflow.iter().sum::<f64>() <= offsite + GUARD_BAND {
            return (None, nowhere);
        }
        (Some(capacity * f64::midpoint(self.policy.local.target, 1.0)), overflow)
    }

    /// Which endpoints can take flows: those with a usable link, of tiers with a link that is up.
    fn reachable(&self, seen: &ClassObservation, links: &[LinkState]) -> Vec<Vec<bool>> {
        let mut seen = seen.reachable.iter().copied();
        let tiers = self.policy.tiers.iter().zip(&self.tier_links);
        tiers
            .map(|(tier, numbers)| {
                let up = numbers.iter().any(|&number| links.get(number).is_some_and(|link| link.up));
                (0..tier.endpoint_names().len()).map(|_| seen.next().unwrap_or(false) && up).collect()
            })
            .collect()
    }
}
