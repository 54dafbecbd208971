//! One program instance: the object with its policy in frozen read-only data.

use std::path::Path;

use aya::maps::lpm_trie::Key;
use aya::maps::{Array, LpmTrie, MapData};
use aya::programs::{ProgramError, Xdp};
use aya::{Ebpf, EbpfLoader};
use burst_common::policy::Policy;

use super::error::{KernelError, Kind};
use super::layout::{self, SHARED};
use super::sys;
use crate::policy::dimensions::Large;

/// A loaded program with its maps; not attached.
pub struct Instance {
    ebpf: Ebpf,
}

impl Instance {
    /// The XDP program.
    ///
    /// # Panics
    /// Never: `load` has checked that it is there.
    pub fn program(&mut self) -> &mut Xdp {
        self.ebpf.program_mut("burst").and_then(|program| program.try_into().ok()).expect("`load` found the program")
    }

    /// The object, for its log map.
    pub fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }
}

/// Loads an instance with `policy` whose shared maps are those pinned in `maps_dir` (made there if absent). `trace`
/// leaves per-packet logging in the program.
///
/// # Errors
/// When the verifier or the kernel refuses, with the verifier's words.
pub fn load(
    object: &[u8],
    maps_dir: &Path,
    cpus: usize,
    policy: &Policy,
    large: Option<&Large>,
    trace: bool,
) -> Result<Instance, KernelError> {
    let level: u8 = if trace { 3 } else { 0 };
    let mut loader = EbpfLoader::new();
    loader.override_global("POLICY", bytemuck::bytes_of(policy), true);
    loader.override_global("AYA_LOG_LEVEL", &level, true);
    for name in SHARED {
        loader.map_pin_path(name, maps_dir.join(name));
        if let Some(entries) = layout::entries_for(name, cpus) {
            loader.map_max_entries(name, entries);
        }
    }
    for (name, rows) in tables(large) {
        loader.map_max_entries(name, rows.max(1) as u32);
    }
    let mut ebpf = loader.load(object).map_err(|error| refused("loading the BPF object", &error))?;
    if let Some(large) = large {
        fill(&mut ebpf, large).map_err(|error| refused("filling the policy maps", &error))?;
    }
    freeze(&mut ebpf)?;
    let program: &mut Xdp = ebpf
        .program_mut("burst")
        .ok_or_else(|| {
            KernelError::new(Kind::Other, "the built-in BPF object has no program `burst`", "rebuild burst")
        })?
        .try_into()
        .map_err(|error: ProgramError| refused("the program `burst`", &error))?;
    program.load().map_err(|error| refused("loading the XDP program", &error))?;
    Ok(Instance { ebpf })
}

/// The maps of large policies and the entries they need; one where the policy is matched inline.
fn tables(large: Option<&Large>) -> [(&'static str, usize); 5] {
    let rows = |pick: fn(&Large) -> usize| large.map_or(0, pick);
    [
        ("DST4", rows(|l| l.dst4.len())),
        ("SRC4", rows(|l| l.src4.len())),
        ("DST6", rows(|l| l.dst6.len())),
        ("SRC6", rows(|l| l.src6.len())),
        ("PORTS", if large.is_some() { 2 << 16 } else { 1 }),
    ]
}

fn fill(ebpf: &mut Ebpf, large: &Large) -> Result<(), aya::maps::MapError> {
    for (name, rows) in [("DST4", &large.dst4), ("SRC4", &large.src4)] {
        let mut trie: LpmTrie<&mut MapData, [u8; 4], [u32; 2]> = ebpf.map_mut(name).expect(name).try_into()?;
        for (prefix, rules) in rows {
            let key = Key::new(u32::from(prefix.prefix_len()), prefix.network().octets());
            trie.insert(&key, halves(*rules), 0)?;
        }
    }
    for (name, rows) in [("DST6", &large.dst6), ("SRC6", &large.src6)] {
        let mut trie: LpmTrie<&mut MapData, [u8; 16], [u32; 2]> = ebpf.map_mut(name).expect(name).try_into()?;
        for (prefix, rules) in rows {
            let key = Key::new(u32::from(prefix.prefix_len()), prefix.network().octets());
            trie.insert(&key, halves(*rules), 0)?;
        }
    }
    let mut ports: Array<&mut MapData, u64> = ebpf.map_mut("PORTS").expect("PORTS").try_into()?;
    for &(index, rules) in &large.ports {
        ports.set(index, rules, 0)?;
    }
    Ok(())
}

/// Rules as the trie keeps them.
const fn halves(rules: u64) -> [u32; 2] {
    [rules as u32, (rules >> 32) as u32]
}

/// Policy is immutable: its maps are frozen before the program sees a packet.
fn freeze(ebpf: &mut Ebpf) -> Result<(), KernelError> {
    use std::os::fd::AsFd;
    for (name, map) in ebpf.maps() {
        let data = match map {
            aya::maps::Map::LpmTrie(data) => data,
            aya::maps::Map::Array(data) if name == "PORTS" => data,
            _ => continue,
        };
        sys::freeze(data.fd().as_fd()).map_err(|error| KernelError::os(format!("freezing the map {name}"), &error))?;
    }
    Ok(())
}

/// A refusal by the kernel, with all that is known of it; a missing privilege is told apart.
fn refused(what: &str, error: &(dyn std::error::Error + 'static)) -> KernelError {
    let mut message = format!("{what}: {error}");
    let mut source = error.source();
    let mut errno = None;
    while let Some(inner) = source {
        message.push_str(&format!(": {inner}"));
        errno = errno.or_else(|| inner.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error));
        source = inner.source();
    }
    match errno {
        Some(libc::EPERM | libc::EACCES) if !message.contains("processed") => KernelError::new(
            Kind::Permission,
            message,
            "run as root, or with CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN and CAP_NET_RAW",
        ),
        _ => KernelError::new(
            Kind::Unsupported,
            message,
            "burst needs Linux 6.1 or newer with BTF (CONFIG_DEBUG_INFO_BTF)",
        ),
    }
}
