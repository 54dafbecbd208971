//! One reading of all pins: which are over, and which slots still need theirs.

use burst_common::pin::{Pin, PinKey};
use burst_common::slot::EndpointId;

use super::table::Table;

/// A point in the order of publications and sweeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(u64);

impl Mark {
    /// The mark after this one.
    pub(super) const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// What a reading of all pins showed.
#[derive(Clone, Debug, Default)]
pub struct Sweep {
    mark: Mark,
    /// One bit per slot of the map.
    elsewhere: Vec<u64>,
    /// Pins to delete: their flows are over, their endpoint is dead, or their class is gone.
    pub expired: Vec<PinKey>,
    /// Pins that stay.
    pub live: usize,
}

impl Sweep {
    /// When its reading began.
    #[must_use]
    pub fn mark(&self) -> Mark {
        self.mark
    }

    /// Whether a pin of the slot with this index names another endpoint than the slot's current one.
    #[must_use]
    pub fn elsewhere(&self, index: u32) -> bool {
        self.elsewhere.get(index as usize / 64).is_some_and(|word| word & (1 << (index % 64)) != 0)
    }

    fn set(&mut self, index: u32) {
        let word = index as usize / 64;
        if self.elsewhere.len() <= word {
            self.elsewhere.resize(word + 1, 0);
        }
        self.elsewhere[word] |= 1 << (index % 64);
    }
}

impl Table {
    /// Judges pins that were read after [`Table::begin_sweep`] gave `mark`. `epoch` is the controller's epoch (seconds);
    /// `dead` says whether an endpoint is.
    #[must_use]
    pub fn sweep(
        &self,
        mark: Mark,
        epoch: u32,
        pins: impl IntoIterator<Item = (PinKey, Pin)>,
        dead: &dyn Fn(EndpointId) -> bool,
    ) -> Sweep {
        let mut sweep = Sweep { mark, ..Sweep::default() };
        for (key, pin) in pins {
            match self.locate(pin.class, &key) {
                Some((index, slot, idle)) if !dead(pin.endpoint) && unseen(epoch, pin.epoch) <= ceil(idle) => {
                    sweep.live += 1;
                    if pin.endpoint != slot.current() {
                        sweep.set(index);
                    }
                }
                found => {
                    // It is there until it is removed, which may take more than one sweep: until then its flow, if it is one of the same name,
                    // must find that the slot asks.
                    if let Some((index, slot, _)) = found
                        && pin.endpoint != slot.current()
                    {
                        sweep.set(index);
                    }
                    sweep.expired.push(key);
                }
            }
        }
        sweep
    }
}

/// Epochs since a pin was seen. One that is ahead of the controller was seen just now: epochs are written by the
/// controller, but a pin may have been written since it was asked.
fn unseen(epoch: u32, seen: u32) -> u32 {
    let ago = epoch.wrapping_sub(seen);
    if ago > u32::MAX / 2 { 0 } else { ago }
}

/// Whole seconds, rounded up. A pin of epoch e was seen at any time within it, so it must be *more* than this old.
fn ceil(idle: std::time::Duration) -> u32 {
    let seconds = idle.as_secs() + u64::from(idle.subsec_nanos() > 0);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}
