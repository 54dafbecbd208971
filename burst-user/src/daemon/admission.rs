//! Decision → the surge guard's rows; and what it did → the log.

use std::collections::BTreeMap;
use std::time::Duration;

use burst_common::admission::Admission;
use burst_common::limits::OVERFLOW_ROWS;
use burst_common::reason::Note;
use burst_common::slot::{EndpointId, LOCAL};

use super::weights::of_family;
use crate::decide::ClassDecision;
use crate::kernel::{ClassCounters, Maps};
use crate::slots::{Candidate, assign, space};

/// A surge that nothing more is sent away by for so long is over.
const CALM: Duration = Duration::from_secs(5);

/// A class, as the guard knows it.
pub(super) struct Guarded<'a> {
    /// Id.
    pub(super) id: u8,
    /// Name.
    pub(super) name: &'a str,
    /// Its endpoints, weighted by what the overflow may send them.
    pub(super) overflow: Vec<Candidate>,
}

/// What the guard was told last, per class id, and what it did.
#[derive(Default)]
pub(super) struct Admissions {
    told: BTreeMap<u8, (u64, Vec<f64>)>,
    surges: BTreeMap<u8, Surge>,
}

/// What the guard and its like did, as far as it was told.
#[derive(Default)]
struct Surge {
    surged: u64,
    homed: u64,
    stranded: u64,
    /// When the last flow was sent away, and how many were since it began.
    on: Option<(Duration, u64)>,
}

impl Admissions {
    /// Publishes what was decided of a class, if it is something else than before.
    pub(super) fn publish(
        &mut self,
        maps: &Maps,
        seed: u64,
        class: &Guarded<'_>,
        decided: &ClassDecision,
        takes: impl Fn(EndpointId, u8) -> bool,
    ) {
        let interval = decided.admit.map_or(0, Admission::interval);
        let told = (interval, decided.overflow.clone());
        if self.told.get(&class.id) == Some(&told) {
            return;
        }
        // First where to, then how many: a limit without a place to go to is none.
        for family in [4, 6] {
            let able = of_family(0.0, &class.overflow, |id| takes(id, family));
            let rows = assign(space(seed, class.name, family), OVERFLOW_ROWS as u32, &able);
            let mut endpoints = [LOCAL; OVERFLOW_ROWS];
            endpoints.iter_mut().zip(rows).for_each(|(row, endpoint)| *row = endpoint);
            maps.set_overflow(class.id, family, &endpoints);
        }
        maps.set_admission(class.id, interval);
        self.told.insert(class.id, told);
    }

    /// Tells what the program did by itself since this was asked last.
    pub(super) fn tell(&mut self, now: Duration, counters: &ClassCounters, classes: &[(u8, &str)]) {
        for &(id, class) in classes {
            let count = |note: Note| counters.get(usize::from(id), note.number()).packets;
            let (surged, homed, stranded) = (count(Note::Surged), count(Note::Homed), count(Note::Stranded));
            // What a former daemon saw is no news.
            let first = !self.surges.contains_key(&id);
            let surge = self.surges.entry(id).or_default();
            let more = |count: u64, before: &mut u64| count.wrapping_sub(std::mem::replace(before, count));
            let (surged, homed, stranded) =
                (more(surged, &mut surge.surged), more(homed, &mut surge.homed), more(stranded, &mut surge.stranded));
            if first {
                continue;
            }
            if homed > 0 {
                tracing::warn!(class, slots = homed, "slots came home by themselves while nobody led");
            }
            if stranded > 0 {
                tracing::warn!(
                    class,
                    flows = stranded,
                    "new flows stayed local: no link leads to where they were meant for"
                );
            }
            match (&mut surge.on, surged) {
                (None, 0) => {}
                (None, flows) => {
                    tracing::warn!(class, flows, "surge: new flows beyond the local budget leave at once");
                    surge.on = Some((now, flows));
                }
                (Some((last, flows)), 1..) => (*last, *flows) = (now, *flows + surged),
                (Some((last, flows)), 0) if now.saturating_sub(*last) >= CALM => {
                    tracing::info!(class, flows, "surge is over");
                    surge.on = None;
                }
                (Some(_), 0) => {}
            }
        }
    }

    /// Whether a class's guard sent flows away not long ago.
    pub(super) fn surging(&self, id: u8) -> bool {
        self.surges.get(&id).is_some_and(|surge| surge.on.is_some())
    }
}
