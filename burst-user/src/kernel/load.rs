//! One program instance: the object with its policy in frozen read-only data.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use aya::maps::lpm_trie::Key;
use aya::maps::{Array, LpmTrie, Map, MapData, MapError, ProgramArray};
use aya::programs::{Program, ProgramError, ProgramFd, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader};
use burst_common::policy::{Guard, Policy};

use super::error::{KernelError, Kind, PRIVILEGES, causes, errno, remedy, with_causes};
use super::layout::SHARED;
use super::steps::{self, Place, STEPS};
use super::sys;
use crate::policy::dimensions::Large;

/// A loaded program with its maps; not attached.
pub struct Instance {
    ebpf: Ebpf,
    entry: Entry,
    /// The maps that others share; `None`: it has its own.
    maps_dir: Option<PathBuf>,
    /// Where its second program is to be among those of all instances.
    step: u32,
    /// That place, once it is there, in maps that others share.
    place: Option<Place>,
}

/// A program, and the one it jumps to with what it does not decide at once.
#[derive(Clone, Copy)]
struct Entry {
    usual: &'static str,
    steps: &'static str,
}

/// The programs of instances that carry traffic.
const ENTRY: Entry = Entry { usual: "burst", steps: "burst_steps" };
/// The same programs, which report what became of each packet.
const REPORTING: Entry = Entry { usual: "burst_reporting", steps: "burst_steps_reporting" };
/// The devmap's program of link devices.
const SENTINEL: &str = "sentinel";

impl Instance {
    /// The XDP program.
    ///
    /// # Panics
    /// Never: `load` has checked that it is there.
    pub fn program(&mut self) -> &mut Xdp {
        self.ebpf
            .program_mut(self.entry.usual)
            .and_then(|program| program.try_into().ok())
            .expect("`load` found the program")
    }

    /// The descriptor of one of its maps.
    pub(super) fn map(&self, name: &str) -> Result<BorrowedFd<'_>, KernelError> {
        let data = self.ebpf.map(name).and_then(data);
        data.map(|data| data.fd().as_fd()).ok_or_else(|| missing(name))
    }

    /// Loads the entry and the program it jumps to, which is put where the entry looks for it.
    fn load_entry(&mut self) -> Result<(), KernelError> {
        let failed = |error: ProgramError| refused("loading the XDP program", &error);
        xdp(&mut self.ebpf, self.entry.usual)?.load().map_err(failed)?;
        let steps = xdp(&mut self.ebpf, self.entry.steps)?;
        steps.load().map_err(failed)?;
        let steps = steps.fd().map_err(failed)?.try_clone();
        let steps = steps.map_err(|error| KernelError::os("a handle of the program", &error))?;
        if let Some(maps_dir) = &self.maps_dir {
            self.place = Some(Place::take(maps_dir, self.step, &steps)?);
            return Ok(());
        }
        let refused = |error: MapError| refused("putting the second program into its place", &error);
        let map = self.ebpf.map_mut(STEPS).ok_or_else(|| missing(STEPS))?;
        ProgramArray::try_from(map).and_then(|mut map| map.set(self.step, &steps, 0)).map_err(refused)
    }

    /// Where its second program is among those of all instances, if it was loaded.
    pub(super) fn place(&mut self) -> Option<&mut Place> {
        self.place.as_mut()
    }

    /// Loads the devmap's program of a link device, and gives a handle of it.
    ///
    /// # Errors
    /// When the verifier or the kernel refuses, with the verifier's words.
    pub(super) fn sentinel(&mut self) -> Result<ProgramFd, KernelError> {
        let failed = |error: ProgramError| refused("loading the sentinel", &error);
        let program = xdp(&mut self.ebpf, SENTINEL)?;
        if program.fd().is_err() {
            program.load().map_err(failed)?;
        }
        let cloned = program.fd().map_err(failed)?.try_clone();
        cloned.map_err(|error| KernelError::os("a handle of the sentinel", &error))
    }

    /// Loads a program of traffic control.
    ///
    /// # Errors
    /// As [`Self::sentinel`].
    pub(super) fn classifier(&mut self, name: &str) -> Result<&mut SchedClassifier, KernelError> {
        let program: &mut SchedClassifier = find(&mut self.ebpf, name)?
            .try_into()
            .map_err(|error: ProgramError| refused(&format!("the program `{name}`"), &error))?;
        if program.fd().is_err() {
            program.load().map_err(|error| refused(&format!("loading the program `{name}`"), &error))?;
        }
        Ok(program)
    }

    /// The object, for its log map.
    pub fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }
}

/// What an instance is told: frozen before it sees a packet.
#[derive(Clone, Copy)]
pub struct Told<'a> {
    /// Its policy, with role, MAC address and links of its device.
    pub policy: &'a Policy,
    /// The rows of its maps, when the policy does not fit inline.
    pub large: Option<&'a Large>,
    /// What guard and sentinel consult.
    pub guard: &'a Guard,
    /// The rows of the guard's maps, when it does not fit inline.
    pub guard_large: Option<&'a Large>,
    /// Leave per-packet logging in the program.
    pub trace: bool,
}

/// Loads an instance whose shared maps are those pinned in `maps_dir` (made there if absent).
///
/// # Errors
/// When the verifier or the kernel refuses, with the verifier's words.
pub fn load(object: &[u8], maps_dir: &Path, cpus: usize, told: &Told<'_>) -> Result<Instance, KernelError> {
    let step = steps::free(maps_dir)?;
    let mut instance = make(object, Some(maps_dir), cpus, told, (entry(told), step))?;
    instance.load_entry()?;
    Ok(instance)
}

const fn entry(told: &Told<'_>) -> Entry {
    if told.trace { REPORTING } else { ENTRY }
}

/// As [`load`], without any program yet.
///
/// # Errors
/// As [`load`].
pub(super) fn prepare(object: &[u8], maps_dir: &Path, cpus: usize, told: &Told<'_>) -> Result<Instance, KernelError> {
    make(object, Some(maps_dir), cpus, told, (entry(told), 0))
}

/// Loads an instance with maps of its own, which nobody else knows, and which reports of each packet.
///
/// # Errors
/// As [`load`].
pub(super) fn load_alone(object: &[u8], cpus: usize, told: &Told<'_>) -> Result<Instance, KernelError> {
    let mut instance = make(object, None, cpus, told, (REPORTING, 0))?;
    instance.load_entry()?;
    Ok(instance)
}

fn make(
    object: &[u8],
    maps_dir: Option<&Path>,
    cpus: usize,
    told: &Told<'_>,
    (entry, step): (Entry, u32),
) -> Result<Instance, KernelError> {
    let level: u8 = if told.trace { 3 } else { 0 };
    let mut loader = EbpfLoader::new();
    loader.override_global("POLICY", bytemuck::bytes_of(told.policy), true);
    loader.override_global("GUARD", bytemuck::bytes_of(told.guard), true);
    let rows = [told.policy.dims, told.guard.dims];
    loader.override_global("ROWS", bytemuck::bytes_of(&rows), true);
    loader.override_global("AYA_LOG_LEVEL", &level, true);
    loader.override_global("STEP", &step, true);
    for shared in &SHARED {
        if let Some(maps_dir) = maps_dir {
            loader.map_pin_path(shared.name, maps_dir.join(shared.name));
        }
        if let Some(entries) = shared.entries_for(cpus) {
            loader.map_max_entries(shared.name, entries);
        }
    }
    for (names, large) in [(POLICY_MAPS, told.large), (GUARD_MAPS, told.guard_large)] {
        for (name, rows) in tables(names, large) {
            loader.map_max_entries(name, rows.max(1) as u32);
        }
    }
    let mut ebpf = loader.load(object).map_err(|error| refused("loading the BPF object", &error))?;
    for (names, large) in [(POLICY_MAPS, told.large), (GUARD_MAPS, told.guard_large)] {
        if let Some(large) = large {
            fill(&mut ebpf, names, large).map_err(|error| refused("filling the policy maps", &error))?;
        }
    }
    freeze(&mut ebpf)?;
    Ok(Instance { ebpf, entry, maps_dir: maps_dir.map(Path::to_owned), step, place: None })
}

fn missing(map: &str) -> KernelError {
    KernelError::new(
        Kind::Other,
        format!("the built-in BPF object has no map {map} of a kind that is known"),
        "rebuild burst, program and object together",
    )
}

fn find<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Program, KernelError> {
    ebpf.program_mut(name).ok_or_else(|| {
        KernelError::new(Kind::Other, format!("the built-in BPF object has no program `{name}`"), "rebuild burst")
    })
}

fn xdp<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, KernelError> {
    find(ebpf, name)?.try_into().map_err(|error: ProgramError| refused(&format!("the program `{name}`"), &error))
}

/// Names of the maps of one large set of rules: IPv4 destinations and sources, IPv6 likewise, ports.
pub(super) type Names = [&'static str; 5];
/// The tables' rows, in memory of the program that it does not write.
const ROWS: &str = ".data.rows";
/// Those of the policy.
pub(super) const POLICY_MAPS: Names = ["DST4", "SRC4", "DST6", "SRC6", "PORTS"];
/// Those of the guard.
pub(super) const GUARD_MAPS: Names = ["KEEP_DST4", "KEEP_SRC4", "KEEP_DST6", "KEEP_SRC6", "KEEP_PORTS"];

/// The maps and the entries they need; one where the rules are matched inline.
fn tables([dst4, src4, dst6, src6, ports]: Names, large: Option<&Large>) -> [(&'static str, usize); 5] {
    let rows = |pick: fn(&Large) -> usize| large.map_or(0, pick);
    [
        (dst4, rows(|l| l.dst4.len())),
        (src4, rows(|l| l.src4.len())),
        (dst6, rows(|l| l.dst6.len())),
        (src6, rows(|l| l.src6.len())),
        (ports, if large.is_some() { 2 << 16 } else { 1 }),
    ]
}

fn fill(ebpf: &mut Ebpf, [dst4, src4, dst6, src6, ports]: Names, large: &Large) -> Result<(), aya::maps::MapError> {
    for (name, rows) in [(dst4, &large.dst4), (src4, &large.src4)] {
        let mut trie: LpmTrie<&mut MapData, [u8; 4], [u32; 2]> = ebpf.map_mut(name).expect(name).try_into()?;
        for (prefix, rules) in rows {
            let key = Key::new(u32::from(prefix.prefix_len()), prefix.network().octets());
            trie.insert(&key, halves(*rules), 0)?;
        }
    }
    for (name, rows) in [(dst6, &large.dst6), (src6, &large.src6)] {
        let mut trie: LpmTrie<&mut MapData, [u8; 16], [u32; 2]> = ebpf.map_mut(name).expect(name).try_into()?;
        for (prefix, rules) in rows {
            let key = Key::new(u32::from(prefix.prefix_len()), prefix.network().octets());
            trie.insert(&key, halves(*rules), 0)?;
        }
    }
    let mut bitmaps: Array<&mut MapData, u64> = ebpf.map_mut(ports).expect(ports).try_into()?;
    for &(index, rules) in &large.ports {
        bitmaps.set(index, rules, 0)?;
    }
    Ok(())
}

/// Rules as the trie keeps them.
const fn halves(rules: u64) -> [u32; 2] {
    [rules as u32, (rules >> 32) as u32]
}

/// What is behind a map of the kinds that burst has and userspace reads.
fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data) | Map::HashMap(data) | Map::LpmTrie(data) | Map::DevMapHash(data) => Some(data),
        _ => None,
    }
}

/// Policy is immutable: its maps are frozen before the program sees a packet.
fn freeze(ebpf: &mut Ebpf) -> Result<(), KernelError> {
    for (name, map) in ebpf.maps() {
        let data = match map {
            Map::LpmTrie(data) => data,
            Map::Array(data) if [POLICY_MAPS[4], GUARD_MAPS[4], ROWS].contains(&name) => data,
            _ => continue,
        };
        sys::freeze(data.fd().as_fd()).map_err(|error| KernelError::os(format!("freezing the map {name}"), &error))?;
    }
    Ok(())
}

/// A refusal by the kernel, with all that is known of it; the verifier's and a missing privilege are told apart.
fn refused(what: &str, error: &(dyn std::error::Error + 'static)) -> KernelError {
    let message = format!("{what}: {}", with_causes(error));
    let log = causes(error).find_map(|cause| match cause.downcast_ref() {
        Some(ProgramError::LoadError { verifier_log, .. }) => Some(verifier_log.to_string()),
        _ => None,
    });
    // The verifier refuses with EACCES or EPERM too, but with its reasons; a lack of privilege has none.
    if log.is_some_and(|log| !log.trim().is_empty()) {
        return KernelError::new(
            Kind::Unsupported,
            message,
            "a defect: this build of burst and this kernel do not go together; report it with this text, `uname -r` and \
             `burst --version`, and run another version of either meanwhile",
        );
    }
    match errno(error) {
        Some(libc::EPERM | libc::EACCES) => KernelError::new(Kind::Permission, message, PRIVILEGES),
        errno @ Some(libc::ENOMEM | libc::EMFILE | libc::ENFILE) => {
            KernelError::new(Kind::Other, message, remedy(errno))
        }
        _ => KernelError::new(
            Kind::Unsupported,
            message,
            "burst needs Linux 6.1 or newer with BTF (CONFIG_DEBUG_INFO_BTF)",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_refusal_is_a_defect_and_a_missing_privilege_is_none() {
        let refusal = |errno, log: &str| {
            let io_error = std::io::Error::from_raw_os_error(errno);
            let verifier_log = aya_obj::VerifierLog::new(log.to_owned());
            refused("loading", &ProgramError::LoadError { io_error, verifier_log })
        };
        for (errno, log, kind, fix) in [
            (libc::EACCES, "R1 invalid mem access 'scalar'", Kind::Unsupported, "a defect"),
            (libc::EPERM, "R1 leaks addr", Kind::Unsupported, "a defect"),
            (libc::EPERM, "", Kind::Permission, "run as root"),
            (libc::ENOMEM, "", Kind::Other, "memory"),
            (libc::EINVAL, "", Kind::Unsupported, "Linux 6.1"),
        ] {
            let error = refusal(errno, log);
            assert_eq!(error.kind, kind, "{error}");
            assert!(error.fix.contains(fix), "{error}");
            let said = std::io::Error::from_raw_os_error(errno).to_string();
            assert_eq!(error.message.matches(&said).count(), 1, "{error}");
        }
    }
}
