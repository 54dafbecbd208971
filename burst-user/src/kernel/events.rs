//! The ring of events, read by the daemon alone.

use std::path::Path;

use aya::maps::{Map, MapData, RingBuf};
use burst_common::event::Event;

use super::bpffs::maps_dir;
use super::error::{KernelError, Kind, with_causes};

/// The events that no daemon has read yet.
pub struct Events {
    ring: RingBuf<MapData>,
}

impl Events {
    /// Opens the ring pinned in `pin_dir`. Its layout must have been checked.
    pub(super) fn open(pin_dir: &Path) -> Result<Self, KernelError> {
        let failed = |error: &(dyn std::error::Error + 'static)| {
            let message = format!("the pinned ring of events: {}", with_causes(error));
            KernelError::new(Kind::State, message, "the pin directory is incomplete: `burst detach` and start anew")
        };
        let data = MapData::from_pin(maps_dir(pin_dir).join("EVENTS")).map_err(|error| failed(&error))?;
        let ring = RingBuf::try_from(Map::RingBuf(data)).map_err(|error| failed(&error))?;
        Ok(Self { ring })
    }
}

/// The next event, if there is one now. What is not of an event's size is none of this version's, and passed over.
impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        while let Some(item) = self.ring.next() {
            if let Ok(bytes) = <[u8; size_of::<Event>()]>::try_from(&*item) {
                return Some(bytemuck::cast(bytes));
            }
        }
        None
    }
}
