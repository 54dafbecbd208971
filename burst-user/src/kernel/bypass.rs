//! `burst bypass` without a daemon: the pinned control word, and what is placed offsite. What is pinned is held against this
//! version before anything is written.
//!
//! The word is the only thing that anybody but the holder of the pin directory's lock writes, and only by compare-and-swap.

use std::path::{Path, PathBuf};

use burst_common::limits::MAX_CLASSES;
use burst_common::reason::Reason;
use burst_common::slot::{LOCAL, Slot, State, base};

use super::bpffs::{self, maps_dir};
use super::error::KernelError;
use super::maps::Maps;
use super::pinned::Pinned;
use crate::policy::ids::Names;

/// What is pinned, to set the bypass in.
pub struct Bypass {
    maps: Maps,
    pin_dir: PathBuf,
}

/// What is known of the flows of a class that are offsite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Name of the class.
    pub class: String,
    /// Flows that are remembered one by one as offsite; those among them that ended a short while ago included.
    pub pinned: u64,
    /// Slots of both families that name an endpoint, for new flows or for older ones.
    pub slots_offsite: u32,
    /// Slots of both families.
    pub slots: u32,
    /// Flows that were opened offsite since the maps were made.
    pub opened: u64,
}

impl Bypass {
    /// Opens what is pinned in `pin_dir`; `None` when nothing is there.
    ///
    /// # Errors
    /// When a privilege is missing, or what is pinned does not fit this version.
    pub fn open(object: &[u8], pin_dir: &Path) -> Result<Option<Self>, KernelError> {
        if Pinned::open(object, pin_dir)?.is_none() {
            return Ok(None);
        }
        let maps = Maps::open(&maps_dir(pin_dir), super::cpus()?)?;
        Ok(Some(Self { maps, pin_dir: pin_dir.to_owned() }))
    }

    /// Whether it is on.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.maps.control().bypass != 0
    }

    /// Turns it on: one word. Whether it was on before.
    #[must_use = "it may have been on"]
    pub fn on(&self) -> bool {
        self.maps.set_bypass(true)
    }

    /// Ends it; whether it was on. Every flow that lives now is local: pins are removed, and slots that send new flows offsite
    /// keep the older ones here, by a transition that the next daemon ends.
    ///
    /// # Errors
    /// When a daemon holds the pin directory: slots and pins are its own to change. When the kernel refuses.
    pub fn off(&mut self) -> Result<bool, KernelError> {
        let _lock = bpffs::lock(&self.pin_dir)?;
        if !self.is_on() {
            return Ok(false);
        }
        self.maps.pins.clear()?;
        for index in 0..burst_common::limits::MAX_SLOTS {
            let slot = self.maps.slot(index);
            if let Some(home) = from_home(slot) {
                self.maps.set_slot(index, home);
            }
        }
        Ok(self.maps.set_bypass(false))
    }

    /// What is known of flows that are offsite, of each class that can have any.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn standing(&self) -> Result<Vec<Standing>, KernelError> {
        let names = Names::new(self.maps.names()?);
        let pins = self.maps.pins.read().map_err(|error| KernelError::os("reading the pins", &error))?;
        let counters = self.maps.class_counters();
        let mut found = Vec::new();
        for id in 1..MAX_CLASSES as u8 {
            let (Some(name), slots) = (names.class(id), self.maps.slots_of(id)?) else { continue };
            if slots == 0 {
                continue;
            }
            let words = [4, 6].into_iter().flat_map(|family| (0..slots).map(move |n| base(id, family) + n));
            let offsite = words.map(|index| self.maps.slot(index as usize)).filter(|slot| names_an_endpoint(*slot));
            let opened = [Reason::Shifted, Reason::ShiftedKernel];
            found.push(Standing {
                class: name.to_owned(),
                pinned: pins.iter().filter(|(_, pin)| pin.class == u16::from(id) && pin.endpoint != LOCAL).count()
                    as u64,
                slots_offsite: offsite.count() as u32,
                slots: slots * 2,
                opened: opened.iter().map(|reason| counters.get(usize::from(id), reason.number()).openers).sum(),
            });
        }
        Ok(found)
    }
}

/// Whether flows of a slot may be offsite that are written down nowhere.
fn names_an_endpoint(slot: Slot) -> bool {
    slot.current() != LOCAL || slot.state() == State::Transition && slot.previous() != LOCAL
}

/// The word by which a slot sends new flows where it did, and all that live stay here; `None` where it says so already.
fn from_home(slot: Slot) -> Option<Slot> {
    let next = slot.generation().wrapping_add(1);
    let state = if slot.current() == LOCAL { State::Stable } else { State::Transition };
    let wanted = Slot::new(slot.current(), LOCAL, state, next);
    let same = (slot.current(), slot.previous(), slot.state()) == (wanted.current(), LOCAL, state);
    (!same).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lives_when_bypass_ends_is_local_and_new_flows_leave_as_before() {
        let slot = |current, previous, state| Slot::new(current, previous, state, 7);
        for (before, after, offsite) in [
            (slot(0, 0, State::Stable), None, false),
            (slot(0, 0, State::Pins), Some((0, State::Stable)), false),
            (slot(0, 5, State::Transition), Some((0, State::Stable)), true),
            (slot(5, 5, State::Stable), Some((5, State::Transition)), true),
            (slot(5, 5, State::Pins), Some((5, State::Transition)), true),
            (slot(5, 6, State::Transition), Some((5, State::Transition)), true),
            (slot(5, 0, State::Transition), None, true),
        ] {
            let found = from_home(before);
            assert_eq!(found.map(|slot| (slot.current(), slot.state())), after, "{before:?}");
            assert!(found.is_none_or(|slot| slot.previous() == LOCAL && slot.generation() == 8), "{before:?}");
            assert_eq!(names_an_endpoint(before), offsite, "{before:?}");
        }
    }
}
