//! Which instance is asked: one with copies of the live maps, or one made from a configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burst_common::link::Link;
use burst_common::policy::{Policy, ROLE_CLIENT, Table};

use super::made;
use super::specimen::{InspectError, Source, Specimen};
use super::tables::Tables;
use crate::config::model::Config;
use crate::kernel::{Alone, KernelError, Kind, Pinned, Running, Told};
use crate::object;
use crate::policy::compile::compile;
use crate::policy::ids::{Ids, Names};

/// Where pins are unless a configuration or the command line says otherwise.
const PIN_DIR: &str = "/run/burst/bpf";

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// A configuration and its file.
    pub config: Option<(&'a Path, &'a Config)>,
    /// The directory of the pins.
    pub pin_dir: Option<&'a Path>,
    /// The device that packets arrive on.
    pub device: Option<&'a str>,
    /// Whether frames to any MAC address are taken for the edge's: captures come from anywhere.
    pub any_mac: bool,
    /// Classes, and the share of their new flows that leaves (0–1).
    pub offsite: &'a [(String, f64)],
    /// Links, and the MAC addresses of their next hops.
    pub neighbours: &'a [(String, [u8; 6])],
}

/// Opens an instance.
///
/// With a configuration and without state in the pin directory it is made from the configuration; so it is when the programs
/// that run were told something else than the configuration says: the file is what is asked about. Otherwise it has copies
/// of the live maps. The calling thread may be in another network namespace afterwards.
///
/// # Errors
/// When there is neither, a name is not known, a privilege is missing, or the kernel refuses.
pub fn open(request: &Request<'_>) -> Result<Specimen, InspectError> {
    let object = object::get()?;
    let pin_dir = match (request.pin_dir, request.config) {
        (Some(pin_dir), _) => pin_dir.to_owned(),
        (None, Some((_, config))) => config.edge.pin_dir.clone(),
        (None, None) => PathBuf::from(PIN_DIR),
    };
    let mut specimen = match (live(object, &pin_dir, request), request.config) {
        (Ok(Found::Live(specimen)), _) => *specimen,
        (Ok(Found::Other(why)), Some(config)) => made::make(object, config, why, request)?,
        (Ok(Found::Other(Some(why))), None) => {
            return Err(KernelError::new(Kind::State, why, "name a configuration with -c FILE").into());
        }
        (Ok(Found::Other(None)), None) => return Err(InspectError::Nothing { pin_dir }),
        // State of another version or build says nothing of a configuration that is named.
        (Err(InspectError::Kernel(error)), Some(config)) if error.kind == Kind::State => {
            made::make(object, config, Some(error.message), request)?
        }
        (Err(error), _) => return Err(error),
    };
    for (name, share) in request.offsite {
        let Some((_, config)) = request.config else {
            let what = "--offsite needs the configuration, which names the tiers in their order: -c FILE";
            return Err(InspectError::Usage(what.to_owned()));
        };
        made::offsite(config, name, *share, &specimen.tables.names, &specimen.alone.maps)?;
    }
    for (name, mac) in request.neighbours {
        neighbour(&mut specimen, name, *mac)?;
    }
    Ok(specimen)
}

/// What was found in the pin directory.
enum Found {
    Live(Box<Specimen>),
    /// Nothing that can be asked, and why if there is something.
    Other(Option<String>),
}

fn live(object: &[u8], pin_dir: &Path, request: &Request<'_>) -> Result<Found, InspectError> {
    let Some(pinned) = Pinned::open(object, pin_dir)? else { return Ok(Found::Other(None)) };
    let names = Names::new(pinned.names()?);
    let running = pinned.running(object)?;
    let Some(first) = running.first() else {
        let why = format!("there is state in {}, but no program is attached", pin_dir.display());
        return Ok(Found::Other(Some(why)));
    };
    if let Some((file, config)) = request.config
        && !runs(config, first, &names)?
    {
        let why = format!("what runs was told something else than {} says", file.display());
        return Ok(Found::Other(Some(why)));
    }
    let known = || running.iter().map(|program| program.device.clone()).collect();
    let by_config = request.config.map(|(_, config)| config.edge.client[0].as_str());
    let own = match request.device.or(by_config) {
        Some(device) => running.iter().find(|program| program.device == device).ok_or_else(|| {
            InspectError::Unknown { option: "--in", kind: "device", name: device.to_owned(), known: known() }
        })?,
        None => running.iter().find(|program| program.policy.role & ROLE_CLIENT != 0).unwrap_or(first),
    };
    let devices = here(&running)?;
    if !devices.contains_key(&own.ifindex) {
        let message = format!("the device {} is gone", own.device);
        return Err(KernelError::new(Kind::Device, message, "bring it back, or ask about another with --in").into());
    }
    let mac = if request.any_mac { 0 } else { own.policy.mac };
    let policy = Policy { mac, ..own.policy };
    let told = Told {
        policy: &policy,
        large: own.large.as_ref(),
        guard: &own.guard,
        guard_large: own.guard_large.as_ref(),
        trace: false,
    };
    let mut alone = Alone::load(object, &told)?;
    pinned.copy_into(&alone)?;
    for index in devices.keys() {
        alone.maps.add_device(*index)?;
    }
    Ok(Found::Live(Box::new(Specimen {
        alone,
        tables: Tables { policy, large: own.large.clone(), names },
        source: Source::Live { pin_dir: pin_dir.to_owned() },
        device: own.device.clone(),
        ifindex: own.ifindex,
        devices,
    })))
}

/// Whether a program was told what a configuration says.
fn runs(config: &Config, program: &Running, names: &Names) -> Result<bool, InspectError> {
    let ids = Ids::assign(config, names)?;
    if !ids.writes.is_empty() {
        return Ok(false);
    }
    let compiled = compile(config, &ids)?;
    // What differs from device to device.
    let links = Table::new(0, &[]).unwrap_or(compiled.policy.links);
    let common = |policy: &Policy| Policy { role: 0, mac: 0, links, ..*policy };
    Ok(common(&program.policy) == common(&compiled.policy)
        && program.large == compiled.large
        && program.guard == compiled.guard
        && program.guard_large == compiled.guard_large)
}

/// The devices of the programs, which must be those of this network namespace.
fn here(running: &[Running]) -> Result<BTreeMap<u32, String>, KernelError> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)
        .map_err(|error| KernelError::os("a socket", &error.into()))?;
    let mut devices = BTreeMap::new();
    for program in running.iter().filter(|program| program.ifindex != 0) {
        let name = rustix::net::netdevice::index_to_name(&socket, program.ifindex);
        if name.ok().as_deref() != Some(&program.device) {
            return Err(KernelError::new(
                Kind::Device,
                format!("device {} of the running program is {} elsewhere, not here", program.ifindex, program.device),
                "ask in the network namespace that the daemon runs in",
            ));
        }
        devices.insert(program.ifindex, program.device.clone());
    }
    Ok(devices)
}

fn neighbour(specimen: &mut Specimen, name: &str, mac: [u8; 6]) -> Result<(), InspectError> {
    let names = &specimen.tables.names;
    let links = || (1..=u8::MAX).filter_map(|id| Some((id, names.link(id)?)));
    let Some((id, _)) = links().find(|(_, link)| *link == name) else {
        let known = links().map(|(_, link)| link.to_owned()).collect();
        return Err(InspectError::Unknown { option: "--neighbour", kind: "link", name: name.to_owned(), known });
    };
    let row = specimen.alone.maps.link(id);
    if row.flags & burst_common::link::VIA_KERNEL != 0 {
        let what = format!("--neighbour {name}: the routing table picks the way of this link, it has no next hop");
        return Err(InspectError::Usage(what));
    }
    let device: [u8; 12] = bytemuck::cast(row.macs);
    let source: [u8; 6] = std::array::from_fn(|n| device[6 + n]);
    specimen.alone.maps.set_link(id, &Link { macs: Link::macs(mac, source), ..row });
    Ok(())
}
