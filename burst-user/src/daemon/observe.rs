//! Counters, readings and link states → an observation; and the rates that `status` shows.

use std::collections::VecDeque;
use std::time::Duration;

use burst_common::counter::{Counter, IN, OUT};
use burst_common::limits::MAX_REASONS;
use burst_common::reason::Reason;
use tokio::time::Instant;

use super::health::Health;
use super::publish::Publisher;
use crate::config::model::Config;
use crate::decide::{ClassObservation, LinkState, Observation, Override};
use crate::kernel::ClassCounters;
use crate::netlink::NetState;
use crate::observe::Sources;

/// Rates in `status` are over at least this time.
const WINDOW: Duration = Duration::from_secs(1);

/// All counters at one time.
pub(super) struct Snapshot {
    at: Duration,
    classes: ClassCounters,
    /// Per class of the configuration and endpoint: out, in.
    pub(super) endpoints: Vec<Vec<[Counter; 2]>>,
    /// Per link of the configuration: out, in.
    pub(super) links: Vec<[Counter; 2]>,
}

/// The counters now and a while ago.
#[derive(Default)]
pub(super) struct Meter {
    history: VecDeque<Snapshot>,
}

impl Meter {
    /// Reads all counters.
    pub(super) fn read(&mut self, now: Duration, publisher: &Publisher) {
        let maps = publisher.maps();
        let endpoints = (0..publisher.classes())
            .map(|class| {
                let (_, ids) = publisher.ids(class);
                ids.iter().map(|&id| [maps.endpoint_counter(id, OUT), maps.endpoint_counter(id, IN)]).collect()
            })
            .collect();
        let links = publisher.link_ids().map(|id| [maps.link_counter(id, OUT), maps.link_counter(id, IN)]).collect();
        self.history.push_back(Snapshot { at: now, classes: maps.class_counters(), endpoints, links });
        // The oldest that is kept is the youngest that is at least a window old.
        while self.history.get(1).is_some_and(|next| now.saturating_sub(next.at) >= WINDOW) {
            self.history.pop_front();
        }
    }

    /// The latest counters.
    pub(super) fn now(&self) -> Option<&Snapshot> {
        self.history.back()
    }

    /// The counters a window ago, and seconds since then.
    pub(super) fn before(&self) -> Option<(&Snapshot, f64)> {
        let (first, last) = (self.history.front()?, self.history.back()?);
        let seconds = last.at.saturating_sub(first.at).as_secs_f64();
        (seconds > 0.0).then_some((first, seconds))
    }
}

impl Snapshot {
    /// Rows of a class id, by reason or note.
    pub(super) fn class(&self, id: usize) -> &[Counter] {
        self.classes.class(id)
    }

    /// Flows a class opened: all, and those that stayed local.
    pub(super) fn openers(&self, id: usize) -> (u64, u64) {
        let rows = self.classes.class(id);
        let all: u64 = rows[..MAX_REASONS].iter().map(|row| row.openers).sum();
        let gone = [Reason::Shifted, Reason::ShiftedKernel, Reason::TooBig, Reason::TooBigAnswered, Reason::Held];
        let gone = gone.map(|reason| rows[reason.number()].openers).iter().sum::<u64>();
        (all, all.saturating_sub(gone))
    }
}

/// What the controller is told.
pub(super) fn observation(
    config: &Config,
    meter: &Meter,
    publisher: &Publisher,
    (sources, health): (&Sources, &Health),
    (now, net): (Instant, &NetState),
    forced: &dyn Fn(usize) -> Option<Override>,
) -> Observation {
    let class = |index: usize| {
        let (id, endpoints) = publisher.ids(index);
        let (openers, openers_local) = meter.now().map_or((0, 0), |snapshot| snapshot.openers(usize::from(id)));
        ClassObservation {
            openers,
            openers_local,
            readings: sources.readings(index, now),
            reachable: (0..)
                .zip(endpoints)
                .map(|(place, &endpoint)| publisher.reachable(endpoint) && health.accepts(index, place))
                .collect(),
            forced: forced(index),
        }
    };
    Observation {
        classes: (0..config.classes.len()).map(class).collect(),
        links: net.links.iter().map(|link| LinkState { up: link.up }).collect(),
    }
}
