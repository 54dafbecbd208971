//! The second programs of all instances: what an entry jumps to with packets that it does not decide at once.
//!
//! They are in one map, pinned with the others: a map of programs that nobody outside of programs holds is emptied by the
//! kernel (kernel/bpf/arraymap.c, `prog_array_map_clear`), and must not be when the daemon goes. An instance knows its place in it
//! from its read-only data. Whoever attaches loads the instances of all devices anew, so that what is not among the new
//! ones' is nobody's once they are attached.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::Path;

use aya::maps::{Map, MapData, MapError, ProgramArray};
use burst_common::limits::MAX_INSTANCES;
use rustix::thread::{MembarrierCommand, membarrier};

use super::error::{KernelError, Kind};
use super::sys;

/// The map.
pub(super) const MAP: &str = "STEPS";

/// A place that no program is in.
///
/// # Errors
/// When there is none, or the map cannot be read.
pub(super) fn free(maps_dir: &Path) -> Result<u32, KernelError> {
    let Some(map) = open(maps_dir)? else { return Ok(0) };
    for place in 0..MAX_INSTANCES as u32 {
        if !is_taken(&map, place)? {
            return Ok(place);
        }
    }
    Err(KernelError::new(
        Kind::State,
        format!("all {MAX_INSTANCES} places for program instances are taken"),
        "a defect of burst: report it; `burst detach` and a new start help (placed flows are lost)",
    ))
}

/// Takes the programs out of these places.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn clear(maps_dir: &Path, places: &BTreeSet<u32>) -> Result<(), KernelError> {
    let Some(map) = open(maps_dir)? else { return Ok(()) };
    take_out(map, places)
}

/// Takes the programs out of all places but these, once no packet is on its way to them.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn clear_others(maps_dir: &Path, used: &BTreeSet<u32>) -> Result<(), KernelError> {
    let Some(map) = open(maps_dir)? else { return Ok(()) };
    let mut others = BTreeSet::new();
    for place in (0..MAX_INSTANCES as u32).filter(|place| !used.contains(place)) {
        if is_taken(&map, place)? {
            others.insert(place);
        }
    }
    if others.is_empty() {
        return Ok(());
    }
    // Packets in the programs that were just replaced may still jump. This call returns when every CPU has left what it was in
    // (membarrier(2): it is `synchronize_rcu`); a kernel that cannot (nohz_full) gets time instead.
    if membarrier(MembarrierCommand::Global).is_err() {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    take_out(map, &others)
}

fn open(maps_dir: &Path) -> Result<Option<MapData>, KernelError> {
    let pin = maps_dir.join(MAP);
    if !pin.try_exists().map_err(|error| KernelError::os(pin.display(), &error))? {
        return Ok(None);
    }
    MapData::from_pin(&pin).map(Some).map_err(|error| refused(&error))
}

fn is_taken(map: &MapData, place: u32) -> Result<bool, KernelError> {
    let found = sys::read(map.fd().as_fd(), &place.to_ne_bytes());
    found.map(|id| id.is_some()).map_err(|error| KernelError::os(format!("reading the map {MAP}"), &error))
}

fn take_out(map: MapData, places: &BTreeSet<u32>) -> Result<(), KernelError> {
    let mut map = Map::ProgramArray(map);
    let mut array = ProgramArray::try_from(&mut map).map_err(|error| refused(&error))?;
    for &place in places {
        array.clear_index(&place).map_err(|error| refused(&error))?;
    }
    Ok(())
}

fn refused(error: &MapError) -> KernelError {
    KernelError::new(Kind::Other, format!("the map {MAP}: {error}"), "")
}
