//! Pinned maps are compared with the object's before they are touched: the loader adopts a pinned map without a look at
//! its layout, and a wrong value size would corrupt this process's memory.

use std::path::Path;

use aya::maps::MapInfo;
use aya_obj::Object;
use burst_common::counter::{CLASS_ROWS, ENDPOINT_ROWS, LINK_ROWS};

use super::error::{KernelError, Kind};

/// Maps that outlive a program instance and are pinned by name.
pub(super) const SHARED: [&str; 12] = [
    "SLOTS",
    "ENDPOINTS",
    "LINKS",
    "RETURNS",
    "CONTROL",
    "PINS",
    "DEVICES",
    "META",
    "NAMES_OF",
    "CLASS_COUNT",
    "ENDPOINT_COUNT",
    "LINK_COUNT",
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

/// Entries of a map whose size depends on the host; `None` for all others.
pub(super) fn entries_for(name: &str, cpus: usize) -> Option<u32> {
    let rows = match name {
        "CLASS_COUNT" => CLASS_ROWS,
        "ENDPOINT_COUNT" => ENDPOINT_ROWS,
        "LINK_COUNT" => LINK_ROWS,
        _ => return None,
    };
    Some((rows * cpus) as u32)
}

/// Compares what is pinned under `dir` with the object. Maps that are not there are no error: they will be made.
///
/// # Errors
/// When a map's layout differs, or it cannot be read.
pub(super) fn check(object: &[u8], dir: &Path, cpus: usize) -> Result<(), KernelError> {
    let object = Object::parse(object)
        .map_err(|error| KernelError::new(Kind::Other, format!("the built-in BPF object: {error}"), "rebuild burst"))?;
    for name in SHARED {
        let path = dir.join(name);
        if !path.try_exists().map_err(|error| KernelError::os(path.display(), &error))? {
            continue;
        }
        let map = object.maps.get(name).ok_or_else(|| {
            KernelError::new(Kind::Other, format!("the built-in BPF object has no map {name}"), "rebuild burst")
        })?;
        let kind = map.map_type();
        let devmap = kind == aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_DEVMAP_HASH as u32;
        let wanted = Layout {
            kind,
            key: map.key_size(),
            value: map.value_size(),
            entries: entries_for(name, cpus).unwrap_or(map.max_entries()),
            flags: map.map_flags() | if devmap { DEVMAP_FLAG } else { 0 },
        };
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
