//! The second programs of all instances: what an entry jumps to with packets that it does not decide at once.
//!
//! They are in one map, `STEPS`, pinned with the others: a map of programs that nobody outside of programs holds is emptied by
//! the kernel (kernel/bpf/arraymap.c, `prog_array_map_clear`), and must not be when the daemon goes. An instance knows its place
//! in it from its read-only data. Beside it, `PLACES` says for which device a place is taken; that is written before the
//! instance is attached, so that whoever comes after a crash knows which places one device has.
//!
//! An instance that is dropped and was not attached gives its place back. The places of instances that were replaced are
//! cleared by [`settle`], whether all went well or not.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use aya::maps::{Array, Map, MapData, MapError, ProgramArray};
use aya::programs::ProgramFd;
use burst_common::limits::MAX_INSTANCES;
use rustix::thread::{MembarrierCommand, membarrier};

use super::error::{KernelError, Kind};
use super::sys;

/// The map of programs.
pub(super) const STEPS: &str = "STEPS";
/// Whose each place is: the index of a device.
const PLACES: &str = "PLACES";

/// A place that an instance has, until it is dropped; after [`Place::keep`], for good.
pub(super) struct Place {
    number: u32,
    maps_dir: PathBuf,
    kept: bool,
}

impl Place {
    /// Puts a program into a free place; `number` is what [`free`] said.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn take(maps_dir: &Path, number: u32, program: &ProgramFd) -> Result<Self, KernelError> {
        with(maps_dir, |array| array.set(number, program, 0))?;
        Ok(Self { number, maps_dir: maps_dir.to_owned(), kept: false })
    }

    /// Its number.
    pub(super) const fn number(&self) -> u32 {
        self.number
    }

    /// Says for which device it is taken: before the instance is attached to that. It is not given back any more.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn keep(&mut self, ifindex: u32) -> Result<(), KernelError> {
        let mut places = owners(&self.maps_dir)?;
        let mut places: Array<&mut MapData, u32> =
            Array::try_from(&mut places).map_err(|error| refused(PLACES, &error))?;
        places.set(self.number, ifindex, 0).map_err(|error| refused(PLACES, &error))?;
        self.kept = true;
        Ok(())
    }

    /// Whether it stays taken.
    pub(super) const fn is_kept(&self) -> bool {
        self.kept
    }

    /// It is given back after all: what it was kept for was not done.
    pub(super) const fn give_back(&mut self) {
        self.kept = false;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        if let Err(error) = with(&self.maps_dir, |array| array.clear_index(&self.number)) {
            tracing::error!(place = self.number, %error, "a program keeps its place");
        }
    }
}

/// A place that no program is in.
///
/// # Errors
/// When there is none, or the map cannot be read.
pub(super) fn free(maps_dir: &Path) -> Result<u32, KernelError> {
    let map = open(maps_dir, STEPS)?;
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

/// Clears the places of instances that run no more, once no packet is on its way to them. `attached`: by device, the place
/// of the instance that it has now. `standing`: devices that keep what they have, whatever that is.
///
/// # Errors
/// When the maps cannot be read. Places that cannot be cleared are told to the log.
pub(super) fn settle(
    maps_dir: &Path,
    attached: &BTreeMap<u32, u32>,
    standing: &BTreeSet<u32>,
) -> Result<(), KernelError> {
    let map = open(maps_dir, STEPS)?;
    let mut owners = owners(maps_dir)?;
    let owners: Array<&mut MapData, u32> = Array::try_from(&mut owners).map_err(|error| refused(PLACES, &error))?;
    let mut former = Vec::new();
    for place in 0..MAX_INSTANCES as u32 {
        let owner = owners.get(&place, 0).map_err(|error| refused(PLACES, &error))?;
        let runs = match attached.get(&owner) {
            Some(current) => *current == place,
            None => standing.contains(&owner),
        };
        if !runs && is_taken(&map, place)? {
            former.push(place);
        }
    }
    if former.is_empty() {
        return Ok(());
    }
    // Packets in the programs that were just replaced may still jump. This call returns when every CPU has left what it was in
    // (membarrier(2): it is `synchronize_rcu`); a kernel that cannot (nohz_full) gets time instead.
    if membarrier(MembarrierCommand::Global).is_err() {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    for place in former {
        if let Err(error) = with(maps_dir, |array| array.clear_index(&place)) {
            tracing::error!(place, %error, "a program that runs no more keeps its place");
        }
    }
    Ok(())
}

fn open(maps_dir: &Path, name: &str) -> Result<MapData, KernelError> {
    MapData::from_pin(maps_dir.join(name)).map_err(|error| refused(name, &error))
}

fn owners(maps_dir: &Path) -> Result<Map, KernelError> {
    open(maps_dir, PLACES).map(Map::Array)
}

fn is_taken(map: &MapData, place: u32) -> Result<bool, KernelError> {
    let found = sys::read(map.fd().as_fd(), &place.to_ne_bytes());
    found.map(|id| id.is_some()).map_err(|error| KernelError::os(format!("reading the map {STEPS}"), &error))
}

fn with(
    maps_dir: &Path,
    work: impl FnOnce(&mut ProgramArray<&mut MapData>) -> Result<(), MapError>,
) -> Result<(), KernelError> {
    let mut map = Map::ProgramArray(open(maps_dir, STEPS)?);
    ProgramArray::try_from(&mut map).and_then(|mut array| work(&mut array)).map_err(|error| refused(STEPS, &error))
}

fn refused(map: &str, error: &MapError) -> KernelError {
    KernelError::new(Kind::Other, format!("the map {map}: {error}"), "")
}
