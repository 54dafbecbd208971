//! What is over: pins whose flows have ended, transitions in which every live flow was seen, and lookups that no pin needs.

use std::collections::HashMap;
use std::time::Duration;

use burst_common::pin::{Pin, PinKey};
use burst_common::reason::Note;
use burst_common::slot::LOCAL;

use super::Publisher;
use crate::slots::Sweep;

/// How often pins are read, while there are any to look after.
const SWEEP: Duration = Duration::from_secs(2);
/// Pins removed by one sweep: two system calls each, in the loop that also follows links (16,384 took 50 to 58 ms, unoptimised).
const REMOVALS: usize = 4096;
/// The epoch of pins: one per second.
const EPOCH: Duration = Duration::from_secs(1);

impl Publisher {
    /// Counts the epoch, sweeps pins and ends transitions that are over.
    pub(in crate::daemon) fn maintain(&mut self, now: Duration) {
        // By one at most, however long this daemon was stopped or slow: a pin that was hit meanwhile has the epoch that
        // was published then, and must not look old. To age too slowly only keeps pins longer.
        if now.saturating_sub(self.epoch.1) >= EPOCH {
            self.epoch = (self.epoch.0.wrapping_add(1), now);
            self.installation.maps.set_epoch(self.epoch.0);
        }
        self.reconcile(now);
        let busy = (0..self.classes.len()).any(|class| self.summaries(class).any(|s| s.moving + s.pinned > 0));
        let some = !self.pins.is_empty();
        let due = self.swept.is_none_or(|at| now.saturating_sub(at) >= SWEEP);
        let sweep = if due && (busy || some || self.swept.is_none()) { self.sweep(now) } else { None };
        // Asked after the sweep, which takes time: a refusal meanwhile must count before a transition ends.
        let refused = self.refused();
        let writes = self.table.tick(now, &|class| refused.contains(&class), sweep.as_ref());
        self.store(now, &writes);
        let classes = self.config.classes.iter().zip(&self.classes);
        let classes: Vec<_> = classes.map(|(class, (id, _))| (*id, class.name.as_str())).collect();
        self.admissions.tell(now, &self.installation.maps.class_counters(), &classes);
    }

    /// Classes that a pin was refused to since this was asked last.
    fn refused(&mut self) -> Vec<u16> {
        let counters = self.installation.maps.class_counters();
        let mut refused = Vec::new();
        for ((id, _), before) in self.classes.iter().zip(&mut self.refused) {
            let count = counters.get(usize::from(*id), Note::PinRefused.number()).packets;
            if count > *before {
                refused.push(u16::from(*id));
            }
            *before = count;
        }
        refused
    }

    /// Reads all pins, and removes those whose flows are over.
    fn sweep(&mut self, now: Duration) -> Option<Sweep> {
        self.swept = Some(now);
        let mark = self.table.begin_sweep();
        let pins = match self.installation.maps.pins.read() {
            Ok(pins) => pins,
            Err(error) => {
                tracing::error!(%error, "the pins could not be read; no slot becomes stable until they are");
                return None;
            }
        };
        self.pins.clear();
        for (_, pin) in &pins {
            let (all, offsite) = self.pins.entry(pin.class).or_default();
            *all += 1;
            *offsite += u64::from(pin.endpoint != LOCAL);
        }
        self.graves.visit(now, &pins);
        let sweep = self.table.sweep(mark, self.epoch.0, pins.iter().copied(), &|id| self.graves.holds(id));
        let former: HashMap<PinKey, Pin> = pins.into_iter().collect();
        // One that was hit since it was read is left to the next sweep, as are those beyond the bound.
        for key in sweep.expired.iter().take(REMOVALS) {
            let pins = &mut self.installation.maps.pins;
            let still = |found: &Pin| *found == former[key];
            let removed = match pins.get(key) {
                Ok(Some(found)) if still(&found) => pins.remove(key),
                Ok(_) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = removed {
                tracing::error!(%error, "a pin could not be removed");
            }
        }
        Some(sweep)
    }
}
