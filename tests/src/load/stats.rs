//! What a load generator counts, in atomics that can be read while it runs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::client::{Failure, Kind};
use crate::servers::Site;

/// Buckets of the latency histogram: eight for each power of two of microseconds, up to 2^32 µs (71 minutes).
const BUCKETS: usize = 8 * 32;

/// Texts of failures that are kept: the first ones say most.
const TEXTS: usize = 8;

/// Counters of one load.
#[derive(Debug)]
pub(super) struct Stats {
    pub(super) started: AtomicU64,
    pub(super) finished: AtomicU64,
    pub(super) open: AtomicU64,
    connections: [AtomicU64; 2],
    requests: [AtomicU64; 2],
    failures: [AtomicU64; Kind::ALL.len()],
    latency: [AtomicU64; BUCKETS],
    texts: Mutex<Vec<String>>,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            started: AtomicU64::new(0),
            finished: AtomicU64::new(0),
            open: AtomicU64::new(0),
            connections: Default::default(),
            requests: Default::default(),
            failures: Default::default(),
            latency: std::array::from_fn(|_| AtomicU64::new(0)),
            texts: Mutex::default(),
        }
    }
}

const fn side(site: Site) -> usize {
    match site {
        Site::Local => 0,
        Site::Cloud => 1,
    }
}

impl Stats {
    /// A connection's first answer: it says where the connection was placed.
    pub(super) fn placed(&self, site: Site) {
        self.connections[side(site)].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn answered(&self, site: Site, took: Duration) {
        self.requests[side(site)].fetch_add(1, Ordering::Relaxed);
        self.latency[bucket(took)].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn failed(&self, failure: &Failure) {
        self.failures[failure.kind as usize].fetch_add(1, Ordering::Relaxed);
        let mut texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        if texts.len() < TEXTS {
            texts.push(failure.to_string());
        }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Snapshot {
            started: read(&self.started),
            finished: read(&self.finished),
            open: read(&self.open),
            connections: self.connections.each_ref().map(read),
            requests: self.requests.each_ref().map(read),
            failures: self.failures.each_ref().map(read),
            latency: Latency { buckets: self.latency.each_ref().map(read) },
            texts: self.texts.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

/// Counters at one moment, or ([`Snapshot::since`]) what they moved by between two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Connections begun.
    pub started: u64,
    /// Connections over, well or not.
    pub finished: u64,
    /// Connections open at the later moment.
    pub open: u64,
    connections: [u64; 2],
    requests: [u64; 2],
    failures: [u64; Kind::ALL.len()],
    /// Time from sending a request to the last byte of its answer.
    pub latency: Latency,
    /// The first failures since the start, in words.
    pub texts: Vec<String>,
}

impl Snapshot {
    /// Connections whose first answer came from a site.
    #[must_use]
    pub const fn connections(&self, site: Site) -> u64 {
        self.connections[side(site)]
    }

    /// Requests answered completely and correctly by a site.
    #[must_use]
    pub const fn requests(&self, site: Site) -> u64 {
        self.requests[side(site)]
    }

    /// Connections placed on either site.
    #[must_use]
    pub const fn placed(&self) -> u64 {
        self.connections[0] + self.connections[1]
    }

    /// Requests answered completely and correctly.
    #[must_use]
    pub const fn answered(&self) -> u64 {
        self.requests[0] + self.requests[1]
    }

    /// Failures: connections that could not be made, requests that were not answered, connections not started.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failures.iter().sum()
    }

    /// Failures by kind, those that happened.
    #[must_use]
    pub fn failures(&self) -> Vec<(Kind, u64)> {
        let all = Kind::ALL.into_iter().zip(self.failures);
        all.filter(|(_, number)| *number > 0).collect()
    }

    /// Share of the placed connections that went to the cloud, 0–1; 0 when there were none.
    #[must_use]
    pub fn offsite_share(&self) -> f64 {
        let placed = self.placed();
        if placed == 0 { 0.0 } else { self.connections(Site::Cloud) as f64 / placed as f64 }
    }

    /// What moved since an earlier snapshot of the same load.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            started: self.started - earlier.started,
            finished: self.finished - earlier.finished,
            open: self.open,
            connections: minus(&self.connections, &earlier.connections),
            requests: minus(&self.requests, &earlier.requests),
            failures: minus(&self.failures, &earlier.failures),
            latency: Latency { buckets: minus(&self.latency.buckets, &earlier.latency.buckets) },
            texts: self.texts.clone(),
        }
    }
}

fn minus<const N: usize>(later: &[u64; N], earlier: &[u64; N]) -> [u64; N] {
    std::array::from_fn(|index| later[index] - earlier[index])
}

/// A histogram of times, each exact to one eighth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latency {
    buckets: [u64; BUCKETS],
}

impl Latency {
    /// The time that a share `quantile` (0–1) of all did not exceed, rounded up to its bucket's upper end; `None` when
    /// there were none.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        let total: u64 = self.buckets.iter().sum();
        // At least one, so that the quantile 0 is the smallest of what there is.
        let wanted = ((total as f64 * quantile).ceil() as u64).max(1);
        let mut seen = 0;
        let index = self.buckets.iter().position(|number| {
            seen += number;
            seen >= wanted
        })?;
        Some(Duration::from_micros(upper_end(index)))
    }
}

/// Below 8 µs one bucket for each; above, the three bits after the leading one.
fn bucket(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).min(u64::from(u32::MAX));
    if micros < 8 {
        return micros as usize;
    }
    let power = micros.ilog2();
    let eighth = (micros >> (power - 3)) & 7;
    (power as usize - 2) * 8 + eighth as usize
}

/// The largest number of microseconds that falls into a bucket.
fn upper_end(index: usize) -> u64 {
    if index < 8 {
        return index as u64;
    }
    let power = index / 8 + 2;
    ((8 + index as u64 % 8 + 1) << (power - 3)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_lies_in_its_bucket_and_no_bucket_is_wider_than_an_eighth() {
        let mut last = 0;
        for micros in (0..10_000).chain((4..32).flat_map(|power| [(1 << power) - 1, 1 << power, (1 << power) + 1])) {
            let index = bucket(Duration::from_micros(micros));
            let upper = upper_end(index);
            assert!(micros <= upper && upper <= micros + micros / 8, "{micros} µs: bucket {index} ends at {upper}");
            assert!(index == 0 || upper_end(index - 1) < micros, "{micros} µs: bucket {index} begins above it");
            last = last.max(index);
        }
        assert!(last < BUCKETS && bucket(Duration::MAX) < BUCKETS);
    }

    #[test]
    fn quantiles_count_from_below() {
        let stats = Stats::default();
        assert_eq!(stats.snapshot().latency.quantile(0.5), None);
        for micros in [1, 2, 3, 4, 5, 6, 7, 1000, 1000, 100_000] {
            stats.answered(Site::Local, Duration::from_micros(micros));
        }
        let snapshot = stats.snapshot();
        let micros = |quantile| snapshot.latency.quantile(quantile).map(|time| time.as_micros());
        assert_eq!(micros(0.0), Some(1));
        assert_eq!(micros(0.5), Some(5));
        assert_eq!(micros(0.9), Some(1023));
        assert!(micros(1.0).is_some_and(|time| (100_000..112_500).contains(&time)));
        assert_eq!(snapshot.since(&snapshot).latency.quantile(0.5), None, "nothing moved");
    }
}
