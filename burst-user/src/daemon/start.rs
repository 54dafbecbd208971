//! The start: what the host must have, the pinned state, the compiled policy, the attachments. In this order, so that
//! nothing is touched while something is missing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use burst_common::hash;
use burst_common::meta::shape;

use super::error::Error;
use super::fits::{Ground, Placed, refusals};
use super::publish::Publisher;
use crate::config::model::{Affinity, Config, Link};
use crate::kernel::{self, Device, Installation, KernelError, Kind, Plan};
use crate::netlink::{self, Family, NetState, Watch, Why};
use crate::object;
use crate::policy::compile::compile;
use crate::policy::ids::{Ids, Names};

/// Starts to follow devices and neighbours, and checks that the host is fit.
pub(super) async fn follow_kernel(config: &Config) -> Result<Watch, Error> {
    let clients = &config.edge.client;
    let watch = netlink::watch(&config.links, clients, &targets(config)).await?;
    let state = watch.state().borrow().clone();
    for client in &state.clients {
        present(&client.name, client.ifindex, "edge.client")?;
    }
    for (link, state) in config.links.iter().zip(&state.links) {
        present(&link.device, state.ifindex, &format!("link `{}`", link.name))?;
        tagged(link, state.why)?;
        forwards(config, &link.device)?;
        if link.next_hop.is_none() {
            sends_on(config, link)?;
            accepts(&link.device)?;
        }
    }
    Ok(watch)
}

/// The endpoints that the kernel is to send packets to, by link.
fn targets(config: &Config) -> netlink::Targets {
    let tiers = || config.classes.iter().filter_map(|class| class.burst.as_ref()).flat_map(|burst| &burst.tiers);
    let of = |link: &Link| {
        let tiers = tiers().filter(|tier| tier.links.contains(&link.name));
        let mut targets: Vec<_> = tiers.flat_map(|tier| tier.endpoints.iter().copied()).collect();
        targets.sort_unstable();
        targets.dedup();
        (link.name.clone(), targets)
    };
    config.links.iter().filter(|link| link.next_hop.is_none()).map(of).collect()
}

/// What goes by a link of `via = "kernel"` is sent on by the kernel, which does that where forwarding is on for clients.
fn sends_on(config: &Config, link: &Link) -> Result<(), Error> {
    let Some(switch) = holds_back(config)? else { return Ok(()) };
    let message = format!("{switch} is 0: the kernel would send nothing by link `{}`", link.name);
    Err(Error::Kernel(KernelError::new(Kind::Device, message, format!("sysctl -w {switch}=1"))))
}

/// The switch, as sysctl names it, by which the kernel does not send on what clients send, of a family that a class uses.
fn holds_back(config: &Config) -> Result<Option<String>, netlink::Error> {
    let [v4, v6] = shifted(config);
    for client in &config.edge.client {
        if v4 && !netlink::sends_on(client, Family::V4)? {
            return Ok(Some(format!("net.ipv4.conf.{}.forwarding", client.replace('.', "/"))));
        }
        if v6 && !netlink::sends_on(client, Family::V6)? {
            return Ok(Some("net.ipv6.conf.all.forwarding".to_owned()));
        }
    }
    Ok(None)
}

/// Strict reverse path filtering hurts few replies, so that it is no reason not to start.
fn accepts(device: &str) -> Result<(), Error> {
    if netlink::checks_sources(device)? {
        tracing::warn!(
            device,
            "net.ipv4.conf.{}.rp_filter is 1: of replies, those are lost that the kernel has to fragment for their client; 2 lets \
             them through, where `all` is not 1 either",
            device.replace('.', "/")
        );
    }
    Ok(())
}

fn present(device: &str, ifindex: u32, what: &str) -> Result<(), KernelError> {
    if ifindex != 0 {
        return Ok(());
    }
    Err(KernelError::new(
        Kind::Device,
        format!("{what}: there is no device `{device}`"),
        "see `ip link` in this network namespace, and correct the name or bring the device up",
    ))
}

/// A link of a VLAN needs the VLAN device, which its next hop is a neighbour on, and a parent that leaves tags where they are.
fn tagged(link: &Link, why: Why) -> Result<(), KernelError> {
    let (name, device, vlan) = (&link.name, &link.device, link.vlan.unwrap_or(0));
    let refused = |what, fix| Err(KernelError::new(Kind::Device, format!("link `{name}`: {what}"), fix));
    match why {
        Why::NoVlanDevice => {
            let dotted = format!("{device}.{vlan}");
            // IFNAMSIZ, 16 bytes with the NUL.
            let upper = if dotted.len() < 16 { dotted } else { format!("vlan{vlan}") };
            refused(
                format!("there is no VLAN device with id {vlan} on `{device}`: its next hop could not be resolved"),
                format!("ip link add link {device} name {upper} type vlan id {vlan} && ip link set {upper} up"),
            )
        }
        Why::TagsStripped => refused(
            format!(
                "`{device}` takes the VLAN tags off what it receives (rx-vlan-offload): replies could not be told apart"
            ),
            format!("ethtool -K {device} rxvlan off"),
        ),
        _ => Ok(()),
    }
}

/// Replies from a link are routed to their clients: the kernel answers the lookup only where forwarding is on.
fn forwards(config: &Config, device: &str) -> Result<(), Error> {
    let Some(name) = not_forwarding(config, device)? else { return Ok(()) };
    Err(Error::Kernel(KernelError::new(
        Kind::Device,
        format!("net.{name}.conf.{device}.forwarding is 0: replies from the cloud could not be routed to clients"),
        // In sysctl's names a slash stands for a dot of the device's own.
        format!("sysctl -w net.{name}.conf.{}.forwarding=1", device.replace('.', "/")),
    )))
}

/// Whether any class shifts IPv4, and IPv6.
pub(super) fn shifted(config: &Config) -> [bool; 2] {
    let rules = config.classes.iter().filter(|class| class.burst.is_some()).flat_map(|class| &class.rules);
    let prefixes: Vec<_> = rules.flat_map(|rule| &rule.dst).collect();
    [true, false].map(|v4| prefixes.iter().any(|net| net.addr().is_ipv4() == v4))
}

/// The family, as sysctl names it, that a class uses and a device does not forward.
fn not_forwarding(config: &Config, device: &str) -> Result<Option<&'static str>, netlink::Error> {
    for ((family, name), used) in [(Family::V4, "ipv4"), (Family::V6, "ipv6")].into_iter().zip(shifted(config)) {
        if used && !netlink::forwarding(device, family)? {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// The state of the links as it matters: one whose device forwards no more is down, for its replies would be lost, and so is
/// one that the kernel sends nothing by. The kernel tells nobody, so it is read each time.
pub(super) fn with_forwarding(config: &Config, net: &NetState) -> NetState {
    let mut net = net.clone();
    for (link, state) in config.links.iter().zip(&mut net.links).filter(|(_, state)| state.up) {
        // What cannot be read is taken as it was.
        if let Ok(Some(_)) = not_forwarding(config, &link.device) {
            (state.up, state.why) = (false, Why::ForwardingOff);
        } else if link.next_hop.is_none() && matches!(holds_back(config), Ok(Some(_))) {
            (state.up, state.why) = (false, Why::ClientForwardingOff);
        }
    }
    net
}

/// What to install for a configuration.
pub(super) fn plan<'a>(config: &'a Config, object: &'static [u8]) -> Plan<'a> {
    let edge = &config.edge;
    Plan { object, pin_dir: &edge.pin_dir, mode: edge.xdp, trace: edge.trace }
}

/// Opens or makes the pinned state, brings policy, links and endpoints up to date, and attaches.
pub(super) fn open(config: &Arc<Config>, net: &NetState) -> Result<Publisher, Error> {
    let plan = plan(config, object::get()?);
    let installation = kernel::install(&plan, hash::seed(&config.edge.seed))?;
    take_over(config, net, installation, (None, Duration::ZERO))
}

/// The same in place of a publisher of this process, which must not be used any more unless this fails.
pub(super) fn reopen(
    config: &Arc<Config>,
    net: &NetState,
    former: &Publisher,
    now: Duration,
) -> Result<Publisher, Error> {
    let plan = plan(config, object::get()?);
    let installation = kernel::reinstall(&plan, hash::seed(&config.edge.seed), former.installation())?;
    take_over(config, net, installation, (Some(former), now))
}

/// The state that was opened, for a configuration: held against each other, brought up to date, and attached.
fn take_over(
    config: &Arc<Config>,
    net: &NetState,
    mut installation: Installation,
    (former, now): (Option<&Publisher>, Duration),
) -> Result<Publisher, Error> {
    let names = Names::new(installation.maps.names()?);
    let ids = Ids::assign(config, &names)?;
    let compiled = compile(config, &ids)?;
    let mut placed = Placed::default();
    if installation.adopted {
        placed = Placed::read(&names, &installation.maps)?;
        let ground = Ground { names: &names, placed: &placed, maps: &installation.maps };
        // All before anything is written: what is refused leaves everything as it is.
        if let Some(refusal) = refusals(config, &ids, &compiled, &ground)?.into_iter().next() {
            return Err(refusal.into());
        }
    }
    let shapes = config.classes.iter().filter_map(|class| {
        let burst = class.burst.as_ref()?;
        let shape = shape(burst.slots, burst.affinity == Affinity::Client);
        Some((ids.classes[&class.name], class.name.as_str(), shape))
    });
    installation.maps.set_shapes(&shapes.collect::<Vec<_>>())?;
    // Names before ids are used: whoever finds the maps must be able to read them.
    installation.maps.set_names(&ids.writes)?;
    let adopted = installation.adopted;
    let mut publisher = Publisher::new(config, object::get()?, installation, compiled, &ids, now)?;
    match former {
        Some(former) => publisher.remember(former),
        None => publisher.look_after(&names, &placed),
    }
    publisher.follow_links(now, net);
    let begun = super::clock();
    let attached = match former {
        None => publisher.attach(net)?,
        Some(former) => publisher.attach_in_place_of(former, net)?,
    };
    tracing::info!(devices = attached.len(), took = ?(super::clock() - begun), "loaded and attached");
    for attachment in attached {
        tracing::info!(device = attachment.device, how = ?attachment.attached, adopted, "attached");
    }
    Ok(publisher)
}

/// The devices to attach to, and what they are.
pub(crate) fn devices(config: &Config, ids: &BTreeMap<String, u8>, net: &NetState) -> Vec<Device> {
    let mut devices: BTreeMap<String, Device> = BTreeMap::new();
    let clients = net.clients.iter().map(|client| (&client.name, client.ifindex, client.mac, None));
    let links = config.links.iter().zip(&net.links);
    let links = links.map(|(link, state)| {
        let way = ids.get(&link.name).map(|&id| (id, link.vlan.unwrap_or(0)));
        (&link.device, state.ifindex, state.mac, way)
    });
    for (name, ifindex, mac, link) in clients.chain(links) {
        let device = devices.entry(name.clone()).or_insert_with(|| Device {
            name: name.clone(),
            ifindex,
            mac,
            other_macs: false,
            client: false,
            links: Vec::new(),
            via_kernel: false,
        });
        match link {
            Some(way) => device.links.push(way),
            None => device.client = true,
        }
    }
    for link in config.links.iter().filter(|link| link.next_hop.is_none()) {
        if let Some(device) = devices.get_mut(&link.device) {
            device.via_kernel = true;
        }
    }
    // A device that is gone for now is attached to when it comes back.
    let mut devices: Vec<_> = devices.into_values().filter(|device| device.ifindex != 0).collect();
    for device in &mut devices {
        let tagged =
            config.links.iter().zip(&net.links).filter(|(link, _)| link.device == device.name && link.vlan.is_some());
        let tagged = tagged.map(|(_, state)| state.device_mac);
        let vlans = net.vlans.iter().filter(|vlan| vlan.vlan.parent == device.ifindex).map(|vlan| vlan.mac);
        // A VLAN device with an address of its own: frames for it are not for others.
        device.other_macs = tagged.chain(vlans).any(|mac| ![device.mac, [0; 6]].contains(&mac));
    }
    devices
}

/// Tells the service manager, if there is one, that the daemon is up.
pub(super) fn ready() {
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::warn!(%error, "the service manager was not told that burst is up");
    }
}
