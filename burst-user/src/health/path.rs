//! One endpoint over one link: up or down by what its probes found in a row.

use std::time::Duration;

use super::outcome::{Outcome, Report, Says};
use crate::config::model::Health;

/// A path that falls again and again has to rise longer and longer: twice as long with every fall, and this often doubled
/// at most.
const DOUBLINGS: u32 = 4;
/// For each of these spells that a path was up, one fall is forgotten; and it lasts at least so many probes.
const CALM: Duration = Duration::from_secs(60);
const CALM_PROBES: u32 = 30;

/// Whether probes speak for a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Voice {
    /// Nothing was reported yet: it counts as up.
    Waiting,
    /// They do.
    Probed,
    /// They cannot be sent through the link: it counts as up while the link is. Why, and what to do.
    Unprobed(String),
}

/// A path.
#[derive(Clone, Debug)]
pub(super) struct Path {
    /// Whether the link carries packets of the endpoint.
    pub(super) link: bool,
    pub(super) voice: Voice,
    /// By probes; what is not probed is not taken down.
    pub(super) up: bool,
    /// When `up` changed.
    pub(super) since: Duration,
    /// When the failures began that it has not risen from.
    pub(super) failing: Option<Duration>,
    /// Answers in a row that the endpoint is there but not well make it ill; until it was well often enough in a row.
    pub(super) ill: bool,
    /// When the last probe ended, and how.
    pub(super) last: Option<(Duration, Outcome)>,
    /// When a probe was carried last.
    pub(super) heard: Option<Duration>,
    /// In a row: carried, not carried, of these with the endpoint itself saying so; well, unwell.
    carried: u32,
    failed: u32,
    gone: u32,
    well: u32,
    unwell: u32,
    /// Falls that were not forgotten.
    falls: u32,
}

impl Path {
    /// Up, or to be proven well first.
    pub(super) fn new(now: Duration, up: bool) -> Self {
        Self {
            link: false,
            voice: Voice::Waiting,
            up,
            since: now,
            failing: None,
            ill: !up,
            last: None,
            heard: None,
            carried: 0,
            failed: 0,
            gone: 0,
            well: 0,
            unwell: 0,
            falls: 0,
        }
    }

    /// The link began or ceased to carry. What was counted in a row is counted anew; what it was found to be stays.
    pub(super) fn set_link(&mut self, now: Duration, link: bool) {
        if self.link != link {
            self.link = link;
            self.break_rows(now);
        }
    }

    fn break_rows(&mut self, now: Duration) {
        (self.carried, self.failed, self.gone, self.well, self.unwell) = (0, 0, 0, 0, 0);
        self.failing = (!self.up).then_some(now);
    }

    /// Takes note of a report.
    pub(super) fn report(&mut self, now: Duration, report: Report, check: &Health) {
        let outcome = match report {
            Report::Probed(outcome) => outcome,
            Report::Unprobed(why) => {
                // What is not known is not held against it.
                self.break_rows(now);
                self.voice = Voice::Unprobed(why);
                return;
            }
        };
        self.voice = Voice::Probed;
        self.last = Some((now, outcome));
        match outcome.says() {
            Says::Well => self.carry(now, true, check),
            Says::Unwell => self.carry(now, false, check),
            Says::Silent => self.fail(now, false, check),
            Says::Gone => self.fail(now, true, check),
        }
    }

    fn carry(&mut self, now: Duration, well: bool, check: &Health) {
        (self.failed, self.gone, self.heard) = (0, 0, Some(now));
        self.carried = self.carried.saturating_add(1);
        if well {
            (self.well, self.unwell) = (self.well.saturating_add(1), 0);
            self.ill &= self.well < check.rise;
        } else {
            (self.well, self.unwell) = (0, self.unwell.saturating_add(1));
            self.ill |= self.unwell >= check.fall;
        }
        if !self.up && self.carried >= self.needed(check) {
            (self.up, self.since) = (true, now);
        }
        if self.up {
            self.failing = None;
        }
    }

    fn fail(&mut self, now: Duration, gone: bool, check: &Health) {
        (self.carried, self.well) = (0, 0);
        self.failed = self.failed.saturating_add(1);
        self.gone = if gone { self.gone.saturating_add(1) } else { 0 };
        self.failing.get_or_insert(now);
        if self.up && self.failed >= check.fall {
            let calm = CALM.max(check.every * CALM_PROBES);
            let forgotten = now.saturating_sub(self.since).as_millis() / calm.as_millis();
            let forgotten = u32::try_from(forgotten).unwrap_or(u32::MAX);
            self.falls = (self.falls.saturating_sub(forgotten) + 1).min(DOUBLINGS + 1);
            (self.up, self.since) = (false, now);
        }
    }

    /// Probes in a row that have to be carried before a path that is down is up.
    pub(super) fn needed(&self, check: &Health) -> u32 {
        check.rise << self.falls.saturating_sub(1).min(DOUBLINGS)
    }

    /// Whether the endpoint itself said, often enough in a row, that nobody is there.
    pub(super) fn is_gone(&self, check: &Health) -> bool {
        self.voice == Voice::Probed && self.gone >= check.fall
    }

    /// Whether it was, in the last probe, the endpoint itself that said so.
    pub(super) fn says_gone(&self) -> bool {
        self.gone > 0
    }

    /// The endpoint died: whatever is known of this path is of its former life.
    pub(super) fn bury(&mut self, now: Duration) {
        if self.up {
            (self.up, self.since) = (false, now);
        }
        (self.carried, self.well, self.ill) = (0, 0, true);
        self.failing.get_or_insert(now);
    }

    /// Whether packets are not to take it while the endpoint can be reached over another.
    pub(super) fn is_shut(&self) -> bool {
        self.voice == Voice::Probed && !self.up
    }

    /// As it is, in words.
    pub(super) fn why(&self) -> String {
        match (&self.voice, self.last) {
            (Voice::Unprobed(why), _) => format!("not probed: {why}"),
            (Voice::Waiting, _) | (_, None) => "not probed yet".to_owned(),
            (Voice::Probed, Some((_, outcome))) if self.failed > 1 => format!("{outcome}, {} times", self.failed),
            (Voice::Probed, Some((_, outcome))) => outcome.to_string(),
        }
    }
}
