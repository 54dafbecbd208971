//! What is pinned, read and copied: the state behind a pin directory, and the policy of the programs that run. Nothing here
//! writes to anything that is pinned: every map is opened for reading alone.

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use aya::maps::{MapData, MapError, MapInfo};
use aya::programs::{ProgramError, ProgramInfo, loaded_programs};
use aya_obj::Object;
use burst_common::meta::{Meta, Name};
use burst_common::policy::{Guard, Policy, Rules};
use bytemuck::Pod;
use ipnet::{Ipv4Net, Ipv6Net};

use super::alone::Alone;
use super::error::{KernelError, Kind, errno, remedy, with_causes};
use super::layout::{self, SHARED};
use super::load::{GUARD_MAPS, Names, POLICY_MAPS};
use super::mapped::Mapped;
use super::{attach, bpffs, maps, sys};
use crate::policy::dimensions::Large;

/// Shared maps that say nothing of where a packet goes: what an instance may redirect to it is told by others, names are
/// userspace's, events are the owner's, and programs know their own. Counters are left out by what they are.
const NOT_COPIED: [&str; 6] = ["DEVICES", "STEPS", "PLACES", "META", "NAMES_OF", "EVENTS"];

/// The state in a pin directory.
pub struct Pinned {
    pin_dir: PathBuf,
}

/// A program that is attached to a device.
#[derive(Clone, Debug)]
pub struct Running {
    /// Device.
    pub device: String,
    /// Its index; 0 when it is gone.
    pub ifindex: u32,
    /// What the program was told.
    pub policy: Policy,
    /// The rows of its maps, when the policy does not fit inline.
    pub large: Option<Large>,
    /// Its guard.
    pub guard: Guard,
    /// The rows of the guard's maps, likewise.
    pub guard_large: Option<Large>,
}

impl Pinned {
    /// Opens the state in `pin_dir`; `None` when none is there.
    ///
    /// # Errors
    /// When a privilege is missing, or what is pinned does not fit this version.
    pub fn open(object: &[u8], pin_dir: &Path) -> Result<Option<Self>, KernelError> {
        let os = |error: std::io::Error| KernelError::os(pin_dir.display(), &error);
        if bpffs::is_bpffs(pin_dir).map_err(os)? != Some(true) {
            return Ok(None);
        }
        let maps_dir = bpffs::maps_dir(pin_dir);
        if !maps_dir.join("META").try_exists().map_err(os)? {
            return Ok(None);
        }
        let cpus = super::cpus()?;
        layout::check(object, &maps_dir, cpus)?;
        let pinned = Self { pin_dir: pin_dir.to_owned() };
        let meta = pinned.array::<Meta>("META", 1)?[0];
        // All zero: a daemon is just making it.
        if meta == bytemuck::Zeroable::zeroed() {
            return Ok(None);
        }
        maps::fits(&meta, cpus, pin_dir)?;
        Ok(Some(pinned))
    }

    /// The names behind the ids.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn names(&self) -> Result<Vec<Name>, KernelError> {
        self.array("NAMES_OF", burst_common::meta::NAMES)
    }

    /// The programs that are attached, by device.
    ///
    /// # Errors
    /// When the kernel refuses (programs are found by their ids, for which it wants CAP_SYS_ADMIN), or a program is of
    /// another build of burst.
    pub fn running(&self, object: &[u8]) -> Result<Vec<Running>, KernelError> {
        let constants = Constants::of(object)?;
        let mut running = Vec::new();
        for pin in attach::pinned(&self.pin_dir)?.into_iter().filter(|pin| pin.hook == attach::Hook::Xdp) {
            let os = |error: std::io::Error| KernelError::os(pin.path.display(), &error);
            let link = sys::open_pin(&pin.path).map_err(os)?;
            let ifindex = sys::link_ifindex(link.as_fd()).map_err(os)?;
            let id = sys::link_program(link.as_fd()).map_err(os)?;
            running.push(Program::find(id)?.running(&constants, pin.device, ifindex)?);
        }
        Ok(running)
    }

    /// Copies what decides over packets into the maps of an instance of its own: slots, endpoints, links, returns, pins,
    /// control and whatever else is shared, as it is at this moment.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn copy_into(&self, alone: &Alone) -> Result<(), KernelError> {
        for shared in SHARED.iter().filter(|shared| !shared.is_per_cpu() && !NOT_COPIED.contains(&shared.name)) {
            let from = self.open_map(shared.name)?;
            copy(from.as_fd(), alone.instance().map(shared.name)?, shared.name)?;
        }
        Ok(())
    }

    fn open_map(&self, name: &str) -> Result<OwnedFd, KernelError> {
        let path = bpffs::maps_dir(&self.pin_dir).join(name);
        sys::open_pin_to_read(&path).map_err(|error| KernelError::os(path.display(), &error))
    }

    fn array<T: Pod>(&self, name: &str, rows: usize) -> Result<Vec<T>, KernelError> {
        let map = self.open_map(name)?;
        let entries = sys::read_all(map.as_fd()).map_err(|error| KernelError::os(format!("the map {name}"), &error))?;
        let read: Vec<T> = entries.iter().map(|(_, value)| bytemuck::pod_read_unaligned(value)).collect();
        if read.len() != rows {
            return Err(KernelError::new(
                Kind::State,
                format!("the pinned map {name} has {} rows, not {rows}", read.len()),
                "",
            ));
        }
        Ok(read)
    }
}

/// Copies a map of the same layout.
fn copy(from: BorrowedFd<'_>, into: BorrowedFd<'_>, name: &str) -> Result<(), KernelError> {
    let failed = |error: std::io::Error| KernelError::os(format!("copying the map {name}"), &error);
    // Not mapped into memory: the kernel maps nothing shared of what is open for reading alone (mm/mmap.c, `do_mmap`).
    let entries = sys::read_all(from).map_err(failed)?;
    let shape = sys::map_shape(into).map_err(failed)?;
    if !(shape.kind == aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_ARRAY as u32 && shape.mapped) {
        return sys::write_all(into, &entries).map_err(failed);
    }
    // Rows of an array are a multiple of eight bytes apart, and so long are all of burst's that are mapped.
    let words = Mapped::<u64>::new(into, shape.entries * shape.value_size / 8).map_err(failed)?;
    let all = entries.iter().flat_map(|(_, value)| value.chunks_exact(8));
    all.enumerate().for_each(|(n, word)| words.write(n, &bytemuck::pod_read_unaligned(word)));
    Ok(())
}

/// A program in the kernel, and its maps by name.
struct Program {
    maps: Vec<(String, MapData)>,
}

impl Program {
    fn find(id: u32) -> Result<Self, KernelError> {
        let refused = |error: &ProgramError| by_id(&format!("the program {id}"), error);
        let info: ProgramInfo = loaded_programs()
            .find(|info| info.as_ref().map_or(true, |info| info.id() == id))
            .ok_or_else(|| KernelError::new(Kind::State, format!("the program {id} is gone"), "try again"))?
            .map_err(|error| refused(&error))?;
        let ids = info.map_ids().map_err(|error| refused(&error))?.unwrap_or_default();
        let map = |id: u32| -> Result<_, MapError> {
            let name = MapInfo::from_id(id)?.name_as_str().unwrap_or_default().to_owned();
            Ok((name, MapData::from_id(id)?))
        };
        let maps = ids.into_iter().map(|id| map(id).map_err(|error| by_id(&format!("the map {id}"), &error)));
        Ok(Self { maps: maps.collect::<Result<_, _>>()? })
    }

    fn map(&self, name: &str) -> Option<BorrowedFd<'_>> {
        self.maps.iter().find(|(has, _)| has == name).map(|(_, data)| data.fd().as_fd())
    }

    fn running(&self, constants: &Constants, device: String, ifindex: u32) -> Result<Running, KernelError> {
        let other = || {
            KernelError::new(
                Kind::State,
                format!("the program on {device} is of another build of burst than this one"),
                "ask with the binary that the daemon runs, or restart the daemon with this one",
            )
        };
        let data = self.map(".rodata").ok_or_else(other)?;
        let data = sys::read(data, &0u32.to_ne_bytes())
            .map_err(|error| KernelError::os("the program's read-only data", &error))?
            .ok_or_else(other)?;
        let (policy, guard) = constants.read(&data).ok_or_else(other)?;
        let large = if policy.large != 0 { Some(self.large(POLICY_MAPS)?) } else { None };
        let guard_large = if guard.large != 0 { Some(self.large(GUARD_MAPS)?) } else { None };
        Ok(Running { device, ifindex, policy, large, guard, guard_large })
    }

    fn large(&self, [dst4, src4, dst6, src6, ports]: Names) -> Result<Large, KernelError> {
        let entries = |name: &str| {
            let map = self.map(name).ok_or_else(|| {
                KernelError::new(Kind::State, format!("the running program has no map {name}"), "restart the daemon")
            })?;
            sys::read_all(map).map_err(|error| KernelError::os(format!("the map {name}"), &error))
        };
        // struct bpf_lpm_trie_key_u8: the length of the prefix, then the address.
        let four = |name: &str| -> Result<Vec<(Ipv4Net, Rules)>, KernelError> {
            let row = |(key, rules): (&[u8], &[u8])| {
                let address: [u8; 4] = bytemuck::pod_read_unaligned(&key[4..]);
                Ipv4Net::new(address.into(), key[0]).ok().map(|net| (net, bytemuck::pod_read_unaligned(rules)))
            };
            let mut rows: Vec<_> = entries(name)?.iter().filter_map(row).collect();
            rows.sort_unstable();
            Ok(rows)
        };
        let six = |name: &str| -> Result<Vec<(Ipv6Net, Rules)>, KernelError> {
            let row = |(key, rules): (&[u8], &[u8])| {
                let address: [u8; 16] = bytemuck::pod_read_unaligned(&key[4..]);
                Ipv6Net::new(address.into(), key[0]).ok().map(|net| (net, bytemuck::pod_read_unaligned(rules)))
            };
            let mut rows: Vec<_> = entries(name)?.iter().filter_map(row).collect();
            rows.sort_unstable();
            Ok(rows)
        };
        let ports = entries(ports)?;
        let ports = ports.iter().map(|(key, rules)| {
            (bytemuck::pod_read_unaligned::<u32>(key), bytemuck::pod_read_unaligned::<Rules>(rules))
        });
        Ok(Large {
            dst4: four(dst4)?,
            src4: four(src4)?,
            dst6: six(dst6)?,
            src6: six(src6)?,
            ports: ports.filter(|(_, rules)| *rules != 0).collect(),
        })
    }
}

/// Why something could not be had by its id.
fn by_id(what: &str, error: &(dyn std::error::Error + 'static)) -> KernelError {
    let message = format!("{what}: {}", with_causes(error));
    match errno(error) {
        Some(libc::EPERM | libc::EACCES) => KernelError::new(
            Kind::Permission,
            message,
            "the kernel gives programs by their ids only with CAP_SYS_ADMIN: run as root",
        ),
        errno => KernelError::new(Kind::Other, message, remedy(errno)),
    }
}

/// Where the object has its constants, and what it was built with.
struct Constants {
    /// Its read-only data.
    built: Vec<u8>,
    policy: Range<usize>,
    guard: Range<usize>,
    level: Range<usize>,
    step: Range<usize>,
}

impl Constants {
    /// Finds them: by what the loader's own code changes, because it does not say where it does.
    fn of(object: &[u8]) -> Result<Self, KernelError> {
        let defect = |what: String| {
            KernelError::new(
                Kind::Other,
                format!("the built-in BPF object: {what}"),
                "rebuild burst, program and object together",
            )
        };
        let mut object = Object::parse(object).map_err(|error| defect(error.to_string()))?;
        let data = |object: &Object| {
            let map = object.maps.get(".rodata").ok_or_else(|| defect("it has no read-only data".to_owned()))?;
            Ok(map.data().to_vec())
        };
        let built = data(&object)?;
        let mut place = |name: &str, size: usize| {
            let mut patch = |byte: u8| {
                let value = vec![byte; size];
                let patched = object.patch_map_data([(name, (&value[..], true))].into());
                patched.map_err(|error| defect(error.to_string()))?;
                data(&object)
            };
            let (ones, zeros) = (patch(0xff)?, patch(0)?);
            let start = ones.iter().zip(&zeros).position(|(a, b)| a != b);
            let start = start.ok_or_else(|| defect(format!("{name} is not in its read-only data")))?;
            Ok(start..start + size)
        };
        Ok(Self {
            policy: place("POLICY", size_of::<Policy>())?,
            guard: place("GUARD", size_of::<Guard>())?,
            level: place("AYA_LOG_LEVEL", 1)?,
            step: place("STEP", size_of::<u32>())?,
            built,
        })
    }

    /// Policy and guard of a program by its read-only data; `None` when that is not of this object.
    fn read(&self, data: &[u8]) -> Option<(Policy, Guard)> {
        // All that the loader did not replace is as it was built.
        let replaced =
            |at: usize| [&self.policy, &self.guard, &self.level, &self.step].iter().any(|place| place.contains(&at));
        let same = |(at, (built, found)): (usize, (&u8, &u8))| built == found || replaced(at);
        if self.built.len() != data.len() || !self.built.iter().zip(data).enumerate().all(same) {
            return None;
        }
        let policy = bytemuck::pod_read_unaligned(&data[self.policy.clone()]);
        Some((policy, bytemuck::pod_read_unaligned(&data[self.guard.clone()])))
    }
}
