//! An instance made from a configuration: stand-in devices, links up, endpoints healthy. And slots filled by hand.

use std::collections::BTreeMap;
use std::path::Path;

use burst_common::policy::Policy;
use burst_common::slot::{LOCAL, Slot, base};

use super::open::Request;
use super::scratch;
use super::specimen::{InspectError, Source, Specimen};
use super::tables::Tables;
use crate::config::model::Config;
use crate::daemon::{devices, endpoint_row, gateway_row, link_row, of_family};
use crate::decide::spread;
use crate::kernel::{Alone, Hook, Maps, Told};
use crate::netlink::{ClientState, Gateway, LinkState, NetState, Router, Why};
use crate::policy::compile::{Compiled, compile};
use crate::policy::ids::{Ids, Names, endpoint_key};
use crate::slots::{Candidate, assign, key, space};

/// Makes an instance, for the first client device when none is named. The calling thread is in another network namespace
/// afterwards.
pub(super) fn make(
    object: &[u8],
    (file, config): (&Path, &Config),
    why: Option<String>,
    request: &Request<'_>,
) -> Result<Specimen, InspectError> {
    let mut names: Vec<&str> = Vec::new();
    let all = config.edge.client.iter().chain(config.links.iter().map(|link| &link.device));
    for name in all {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let device = request.device.unwrap_or(&config.edge.client[0]);
    if !names.contains(&device) {
        return Err(InspectError::Unknown {
            option: "--in",
            kind: "device",
            name: device.to_owned(),
            known: names.iter().map(|name| (*name).to_owned()).collect(),
        });
    }
    let mut known = Names::default();
    let ids = Ids::assign(config, &known)?;
    let compiled = compile(config, &ids)?;
    known.apply(&ids.writes);
    let indices = scratch::enter(&names)?;
    let net = up(config, &indices);
    let devices = devices(config, &ids.links, &net);
    let own = devices.iter().find(|own| own.name == device).cloned();
    let own = own.ok_or_else(|| InspectError::Usage(format!("--in {device}: burst does not attach to this device")))?;
    if !own.hooks().contains(&Hook::Xdp) {
        let what = format!("--in {device}: what comes by a link of `via = \"kernel\"` goes through another program");
        return Err(InspectError::Usage(what));
    }
    let policy = own.policy(&compiled)?;
    let policy = Policy { mac: if request.any_mac { 0 } else { policy.mac }, ..policy };
    let told = Told {
        policy: &policy,
        large: compiled.large.as_ref(),
        guard: &compiled.guard,
        guard_large: compiled.guard_large.as_ref(),
        trace: false,
    };
    let mut alone = Alone::load(object, &told)?;
    fill(config, &compiled, &ids, &net, &alone.maps);
    for index in indices.values() {
        alone.maps.add_device(*index)?;
    }
    Ok(Specimen {
        alone,
        tables: Tables { policy, large: compiled.large, names: known },
        source: Source::Configuration { file: file.to_owned(), why },
        device: device.to_owned(),
        ifindex: own.ifindex,
        devices: indices.into_iter().map(|(name, index)| (index, name)).collect(),
    })
}

/// What the kernel would say of devices and neighbours if all was well.
fn up(config: &Config, indices: &BTreeMap<String, u32>) -> NetState {
    let index = |device: &str| indices.get(device).copied().unwrap_or(0);
    let link = |link: &crate::config::model::Link| LinkState {
        name: link.name.clone(),
        device: link.device.clone(),
        ifindex: index(&link.device),
        neighbour_ifindex: index(&link.device),
        mac: scratch::DEVICE,
        device_mac: scratch::DEVICE,
        next_hop_mac: link.next_hop.map(|_| scratch::NEXT_HOP),
        up: true,
        why: Why::Up,
        mtu: link.mtu,
        elsewhere: Vec::new(),
    };
    let client = |name: &String| ClientState {
        name: name.clone(),
        ifindex: index(name),
        mac: scratch::DEVICE,
        mtu: u32::from(u16::MAX),
        up: true,
        why: Why::Up,
        strips_tags: false,
    };
    let clients = &config.edge.client[0];
    let router = |address| {
        Gateway::Cached(Box::new(Router {
            address,
            mac: scratch::CLIENTS,
            device: clients.clone(),
            ifindex: index(clients),
            device_mac: scratch::DEVICE,
            vlan: 0,
            mtu: u16::MAX,
            except: Vec::new(),
        }))
    };
    NetState {
        links: config.links.iter().map(link).collect(),
        clients: config.edge.client.iter().map(client).collect(),
        vlans: Vec::new(),
        gateways: scratch::GATEWAYS.map(router),
    }
}

fn fill(config: &Config, compiled: &Compiled, ids: &Ids, net: &NetState, maps: &Maps) {
    for (row, entry) in &compiled.returns {
        maps.set_return(*row, entry);
    }
    for (link, state) in config.links.iter().zip(&net.links) {
        if let (Some(&id), Some(row)) = (ids.links.get(&link.name), link_row(link, state)) {
            maps.set_link(id, &row);
        }
    }
    for (family, gateway) in [4, 6].into_iter().zip(&net.gateways) {
        maps.set_gateway(family, gateway_row(gateway).as_ref());
    }
    let mtu = |id| {
        let link = config.links.iter().find(|link| ids.links.get(&link.name) == Some(&id));
        link.map_or(u16::MAX, |link| link.mtu)
    };
    for endpoint in &compiled.endpoints {
        maps.set_endpoint(endpoint.id, &endpoint_row(endpoint, |_| true, mtu));
    }
}

/// Sends `offsite` of a class's new flows away, as the controller would fill the slots; none is in transition.
pub(super) fn offsite(
    config: &Config,
    name: &str,
    offsite: f64,
    names: &Names,
    maps: &Maps,
) -> Result<(), InspectError> {
    let burst: Vec<_> = config.classes.iter().filter(|class| class.burst.is_some()).collect();
    let class = burst.iter().find(|class| class.name == name);
    let Some((class, Some(burst))) = class.map(|class| (class, &class.burst)) else {
        return Err(InspectError::Unknown {
            option: "--offsite",
            kind: "class that may leave",
            name: name.to_owned(),
            known: burst.iter().map(|class| class.name.clone()).collect(),
        });
    };
    let ids = Ids::assign(config, names)?;
    let compiled = compile(config, &ids)?;
    let seed = compiled.policy.seed;
    let in_class = burst.tiers.iter().flat_map(|tier| tier.endpoint_names());
    let candidates: Vec<_> = in_class
        .zip(spread(burst, offsite))
        .filter_map(|(endpoint, weight)| {
            let id = *ids.endpoints.get(&endpoint_key(&class.name, &endpoint))?;
            Some(Candidate { id, key: key(&endpoint), weight })
        })
        .collect();
    let takes = |id, family: u8| {
        let row = compiled.endpoints.iter().find(|endpoint| endpoint.id == id);
        row.is_none_or(|endpoint| [0, family].contains(&endpoint.row.family))
    };
    let id = ids.classes[&class.name];
    for family in [4, 6] {
        let able = of_family(1.0 - offsite, &candidates, |id| takes(id, family));
        let slots = assign(space(seed, &class.name, family), burst.slots, &able);
        for (number, endpoint) in (0..).zip(slots) {
            debug_assert!(endpoint == LOCAL || takes(endpoint, family));
            maps.set_slot(base(id, family) as usize + number, Slot::stable(endpoint));
        }
    }
    Ok(())
}
