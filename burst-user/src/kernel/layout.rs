//! The object's maps are compared with this program's types, and pinned maps with both, before they are touched: the
//! loader adopts a pinned map without a look at its layout, and a wrong value size would corrupt this process's memory.

use std::path::Path;

use aya::maps::MapInfo;
use aya_obj::Object;
use aya_obj::generated::bpf_devmap_val;
use burst_common::admission::Admission;
use burst_common::counter::Counts;
use burst_common::gateway::{Gateway, Vlan};
use burst_common::limits::{
    EVENT_BYTES, MAX_CLASSES, MAX_INSTANCES, MAX_LINKS, MAX_PINS, MAX_REPEATS, MAX_RETURNS, MAX_SLOTS, MAX_VLANS,
};
use burst_common::meta::{Meta, NAMES, Name};
use burst_common::pin::{Pin, PinKey};
use burst_common::repeat::Repeat;
use burst_common::returns::Return;
use burst_common::slot::Slot;
use burst_common::tables::Tables;

use super::error::{KernelError, Kind};

/// A map as this program reads and writes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shared {
    /// Name in the object, and of the pin.
    pub(super) name: &'static str,
    /// Bytes of a key.
    key: u32,
    /// Bytes of a value.
    value: u32,
    /// Entries; of one CPU where `per_cpu`.
    entries: u32,
    /// Whether every possible CPU has rows of its own.
    per_cpu: bool,
}

const fn map<K, V>(name: &'static str, entries: usize) -> Shared {
    Shared { name, key: size_of::<K>() as u32, value: size_of::<V>() as u32, entries: entries as u32, per_cpu: false }
}

/// Maps that outlive a program instance and are pinned by name.
pub(super) const SHARED: [Shared; 15] = [
    map::<u32, Slot>("SLOTS", MAX_SLOTS),
    map::<u32, Tables>("TABLES", 1),
    map::<u32, Return>("RETURNS", MAX_RETURNS),
    map::<u32, Gateway>("GATEWAYS", 2),
    map::<u32, Vlan>("VLANS", MAX_VLANS),
    map::<PinKey, Pin>("PINS", MAX_PINS),
    map::<u32, Repeat>("REPEATS", MAX_REPEATS),
    map::<u32, Admission>("ADMISSION", MAX_CLASSES),
    map::<u32, bpf_devmap_val>("DEVICES", MAX_LINKS),
    map::<u32, u32>("STEPS", MAX_INSTANCES),
    map::<u32, u32>("PLACES", MAX_INSTANCES),
    map::<u32, Meta>("META", 1),
    map::<u32, Name>("NAMES_OF", NAMES),
    Shared { name: "EVENTS", key: 0, value: 0, entries: EVENT_BYTES as u32, per_cpu: false },
    Shared { per_cpu: true, ..map::<u32, Counts>("COUNTS", 1) },
];

/// Maps of one instance alone, never pinned: what it reports, policy, read-only data and the log.
const OWN: [&str; 18] = [
    "REPORT",
    "DST4",
    "SRC4",
    "DST6",
    "SRC6",
    "PORTS",
    "KEEP_DST4",
    "KEEP_SRC4",
    "KEEP_DST6",
    "KEEP_SRC6",
    "KEEP_PORTS",
    "ANSWERS",
    "FOUND",
    "WAY",
    "AYA_LOGS",
    ".rodata",
    ".data.rows",
    ".bss",
];

/// Set by the kernel on every device map (kernel/bpf/devmap.c, `__dev_map_alloc_node`): programs cannot write it.
const DEVMAP_FLAG: u32 = aya_obj::generated::BPF_F_RDONLY_PROG;

/// What matters of a map's layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    kind: u32,
    key: u32,
    value: u32,
    entries: u32,
    flags: u32,
}

impl Shared {
    /// Whether every possible CPU has rows of its own.
    pub(super) const fn is_per_cpu(&self) -> bool {
        self.per_cpu
    }

    /// Entries where they depend on the host; `None` for all other maps.
    pub(super) fn entries_for(&self, cpus: usize) -> Option<u32> {
        self.per_cpu.then(|| self.entries * cpus as u32)
    }
}

/// Compares the object with what this program reads and writes, and what is pinned under `dir` with both. Maps that are
/// not there are no error: they will be made.
///
/// # Errors
/// When a map's layout differs, or it cannot be read.
pub(super) fn check(object: &[u8], dir: &Path, cpus: usize) -> Result<(), KernelError> {
    let object = Object::parse(object).map_err(|error| defect(error.to_string()))?;
    strangers(&object)?;
    for shared in SHARED {
        let wanted = of_object(&object, &shared)?;
        let wanted = Layout { entries: shared.entries_for(cpus).unwrap_or(wanted.entries), ..wanted };
        let path = dir.join(shared.name);
        if !path.try_exists().map_err(|error| KernelError::os(path.display(), &error))? {
            continue;
        }
        let found = read(&path)?;
        if found != wanted {
            return Err(KernelError::new(
                Kind::State,
                format!(
                    "the pinned map {} has another layout: {found:?}, this version needs {wanted:?}",
                    path.display()
                ),
                format!(
                    "it was made by another version of burst or on other hardware: run that version, or `burst detach \
                     --pin-dir {}` and start anew (placed flows are lost)",
                    dir.parent().unwrap_or(dir).display()
                ),
            ));
        }
    }
    Ok(())
}

/// Every map of the object is one that is known here: a new one is either checked and pinned, or of one instance alone.
fn strangers(object: &Object) -> Result<(), KernelError> {
    let known = |name: &str| OWN.contains(&name) || SHARED.iter().any(|shared| shared.name == name);
    match object.maps.keys().find(|name| !known(name)) {
        Some(name) => Err(defect(format!("it has a map {name} that this program does not know"))),
        None => Ok(()),
    }
}

/// A map's layout in the object, which must be what this program's types say.
fn of_object(object: &Object, shared: &Shared) -> Result<Layout, KernelError> {
    let map = object.maps.get(shared.name).ok_or_else(|| defect(format!("it has no map {}", shared.name)))?;
    let sizes = (map.key_size(), map.value_size(), map.max_entries());
    if sizes != (shared.key, shared.value, shared.entries) {
        return Err(defect(format!("its map {} has (key, value, entries) {sizes:?}, not {shared:?}", shared.name)));
    }
    let kind = map.map_type();
    let devmap = kind == aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_DEVMAP_HASH as u32;
    Ok(Layout {
        kind,
        key: shared.key,
        value: shared.value,
        entries: shared.entries,
        flags: map.map_flags() | if devmap { DEVMAP_FLAG } else { 0 },
    })
}

fn defect(what: String) -> KernelError {
    KernelError::new(
        Kind::Other,
        format!("the built-in BPF object: {what}"),
        "rebuild burst, program and object together",
    )
}

fn read(path: &Path) -> Result<Layout, KernelError> {
    let info = MapInfo::from_pin(path).map_err(|error| {
        KernelError::new(
            Kind::State,
            format!("{} is not a map: {error}", path.display()),
            "something else wrote into burst's pin directory: remove it, or choose another `pin_dir`",
        )
    })?;
    let kind = info.map_type().map_err(|error| {
        KernelError::new(Kind::State, format!("{}: {error}", path.display()), "choose another `pin_dir`")
    })? as u32;
    Ok(Layout {
        kind,
        key: info.key_size(),
        value: info.value_size(),
        entries: info.max_entries(),
        flags: info.map_flags(),
    })
}

#[cfg(all(test, not(burst_no_object)))]
mod tests {
    use super::*;

    fn object() -> Object {
        Object::parse(crate::object::get().expect("built with its object")).expect("an object")
    }

    fn agrees(object: &Object) -> Result<(), KernelError> {
        strangers(object)?;
        SHARED.iter().try_for_each(|shared| of_object(object, shared).map(drop))
    }

    #[test]
    fn the_object_has_the_maps_of_this_program_and_no_others() {
        agrees(&object()).expect("the object that was built with this program");
        let refused = |change: fn(&mut Object), said: &str| {
            let mut object = object();
            change(&mut object);
            let error = agrees(&object).expect_err(said);
            assert!(error.message.contains(said), "{error}");
        };
        refused(
            |object| {
                let map = object.maps["META"].clone();
                object.maps.insert("NEW".into(), map);
            },
            "a map NEW",
        );
        refused(|object| drop(object.maps.remove("SLOTS")), "no map SLOTS");
        refused(
            |object| object.maps.get_mut("SLOTS").expect("SLOTS").set_value_size(4),
            "SLOTS has (key, value, entries)",
        );
        refused(
            |object| object.maps.get_mut("PINS").expect("PINS").set_max_entries(9),
            "PINS has (key, value, entries)",
        );
    }
}
