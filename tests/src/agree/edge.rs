//! An edge host on which the real program runs, one packet after the other: a namespace with devices, routes and
//! neighbours, the shared maps as the daemon lays them out, and instances loaded as the daemon loads them.
//!
//! Nothing is attached and no frame is on the wire. Where a redirect goes is seen from the device map, which then holds
//! only the device that it is expected to go to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, ensure};
use aya::maps::xdp::DevMapHash;
use aya::maps::{Map, MapData};
use aya::programs::{TestRun, TestRunOptions};
use burst::config::model::Config;
use burst::kernel::{self, Installation, Instance, Maps, Plan, Told};
use burst::object;
use burst::policy::compile::{Compiled, compile};
use burst::policy::ids::{Ids, Names};
use burst_common::flow::{addr4, wide};
use burst_common::gateway::{Except, Gateway};
use burst_common::limits::{MAX_CLASS_SLOTS, MAX_CLASSES};
use burst_common::link::VIA_KERNEL;
use burst_common::policy::{DeviceLink, ROLE_CLIENT, ROLE_LINK, Table, mac_word};
use burst_common::reason::Reason;
use burst_common::slot::{LOCAL, Slot};
use bytemuck::Zeroable;

use super::moment::next_hop_mac;
use crate::dir::RunDir;
use crate::golden::Outcome;
use crate::link::{End, mac_text, veth};
use crate::model::routes::{Routes, Way};
use crate::model::world::{Place, State, World};
use crate::netns::Namespace;
use crate::topology::{
    CLIENT_DEVICE, CLIENT_MAC, DIRECT_CONNECT_MAC, DX_DEVICE, EDGE_CLIENT_MAC, EDGE_DX, EDGE_DX_MAC, EDGE_ON_LINK,
    FIRST_CLIENT, Pair, SECOND_DIRECT_CONNECT, SECOND_DIRECT_CONNECT_MAC, SECOND_DX_DEVICE, SECOND_EDGE_DX,
    SECOND_EDGE_DX_MAC,
};

/// The clients' device.
pub const CLIENT0: &str = CLIENT_DEVICE;
/// The first line's device.
pub const DX0: &str = DX_DEVICE;
/// The second line's device.
pub const DX1: &str = SECOND_DX_DEVICE;

/// A device: its name, its MAC, the MAC behind it, the host's addresses on it, its MTU.
pub struct Port {
    /// Name.
    pub name: &'static str,
    /// MAC address.
    pub mac: [u8; 6],
    /// MAC address of the other end.
    pub far_mac: [u8; 6],
    /// The host's addresses.
    pub address: Pair,
    /// Largest IP packet.
    pub mtu: u16,
}

/// The host's devices.
pub const PORTS: [Port; 3] = [
    Port { name: CLIENT0, mac: EDGE_CLIENT_MAC, far_mac: CLIENT_MAC, address: EDGE_ON_LINK, mtu: 1500 },
    Port { name: DX0, mac: EDGE_DX_MAC, far_mac: DIRECT_CONNECT_MAC, address: EDGE_DX, mtu: 1500 },
    Port { name: DX1, mac: SECOND_EDGE_DX_MAC, far_mac: SECOND_DIRECT_CONNECT_MAC, address: SECOND_EDGE_DX, mtu: 1400 },
];

/// MAC of the clients' gateway.
const GATEWAY_MAC: [u8; 6] = [0x00, 0x00, 0x5e, 0x00, 0x53, 0x0f];
/// The clients' gateway: the way to everybody who is not named otherwise.
const GATEWAY: Pair = EDGE_ON_LINK.plus(1);
/// A router on the clients' side whose MAC address is not known.
const SILENT: Pair = EDGE_ON_LINK.plus(8);

/// Routes beside those of devices and addresses: prefixes of both families, and what they do.
const ROUTES: [([&str; 2], Route); 5] = [
    (["0.0.0.0/0", "::/0"], Route::Via(GATEWAY, CLIENT0)),
    (["198.18.0.0/16", "2001:db8:98::/48"], Route::Via(SILENT, CLIENT0)),
    (["198.19.0.0/16", "2001:db8:99::/48"], Route::Via(SECOND_DIRECT_CONNECT, DX1)),
    (["192.0.2.64/26", "2001:db8:dead::/48"], Route::Refused("unreachable")),
    (["192.0.2.32/27", "2001:db8:beef::/48"], Route::Refused("blackhole")),
];

#[derive(Clone, Copy)]
enum Route {
    Via(Pair, &'static str),
    Refused(&'static str),
}

/// Neighbours: address, device, MAC.
const NEIGHBOURS: [(Pair, &str, [u8; 6]); 4] = [
    (FIRST_CLIENT, CLIENT0, CLIENT_MAC),
    (FIRST_CLIENT.plus(1), CLIENT0, [0x00, 0x00, 0x5e, 0x00, 0x53, 0x0b]),
    (GATEWAY, CLIENT0, GATEWAY_MAC),
    (SECOND_DIRECT_CONNECT, DX1, SECOND_DIRECT_CONNECT_MAC),
];

/// What of the routing table is not the gateway's, as the daemon tells the program: no more than eight prefixes, wider
/// than the routes where they must be.
const EXCEPT: [[&str; 8]; 2] = [
    [
        "198.51.100.0/24",
        "198.18.0.0/15",
        "192.0.2.32/27",
        "192.0.2.64/26",
        "10.64.0.0/15",
        "127.0.0.0/8",
        "224.0.0.0/4",
        "255.255.255.255/32",
    ],
    [
        "2001:db8:51::/64",
        "2001:db8:98::/47",
        "2001:db8:dead::/48",
        "2001:db8:beef::/48",
        "fd00:64::/47",
        "fe80::/10",
        "ff00::/8",
        "::1/128",
    ],
];

fn both(pair: Pair) -> [IpAddr; 2] {
    [pair.v4.into(), pair.v6.into()]
}

/// The routing table that [`Edge::new`] makes, in the model's words: what it sets, and what the kernel adds.
#[must_use]
pub fn routes() -> Routes {
    let prefix = |text: &str| text.parse().expect("a prefix");
    let mut routes = Routes::default();
    for port in &PORTS {
        routes.mtu.insert(port.name, port.mtu);
        let [four, six] = both(port.address);
        routes.routes.extend([(four.into(), Way::Here), (six.into(), Way::Here)]);
        let [net4, net6] = [ipnet::IpNet::new(four, 24), ipnet::IpNet::new(six, 64)].map(|net| net.expect("a net"));
        routes.routes.extend([(net4.trunc(), Way::On(port.name)), (net6.trunc(), Way::On(port.name))]);
        // Directed broadcast (RFC 919), and the routers' anycast address (RFC 4291, section 2.6.1).
        routes.routes.extend([(net4.broadcast().into(), Way::Here), (net6.network().into(), Way::Here)]);
        // The device's link-local address, made from its MAC address (RFC 4291, appendix A).
        let [a, b, c, d, e, f] = port.mac.map(u16::from);
        let local = [0xfe80, 0, 0, 0, (a ^ 2) << 8 | b, c << 8 | 0xff, 0xfe00 | d, e << 8 | f];
        routes.routes.push((IpAddr::from(local).into(), Way::Here));
    }
    for ([four, six], route) in ROUTES {
        for (text, v6) in [(four, false), (six, true)] {
            let way = match route {
                Route::Via(router, device) => Way::Via(both(router)[usize::from(v6)], device),
                Route::Refused(_) => Way::Refused,
            };
            routes.routes.push((prefix(text), way));
        }
    }
    routes.routes.extend([
        (prefix("127.0.0.0/8"), Way::Here),
        (prefix("::1/128"), Way::Here),
        // A router forwards nothing to link-local addresses (RFC 4291, section 2.5.6).
        (prefix("fe80::/10"), Way::Here),
        (prefix("ff00::/8"), Way::Here),
    ]);
    for (address, device, mac) in NEIGHBOURS {
        routes.neighbours.extend(both(address).map(|address| ((address, device), mac)));
    }
    routes
}

/// An edge host. Make it, and use it on a thread inside its namespace ([`Edge::inside`]).
pub struct Edge {
    host: Host,
    edge: Namespace,
    _far: Namespace,
    _dir: RunDir,
}

/// What [`Edge::inside`] works with.
pub struct Host {
    installation: Installation,
    /// The device map; the kernel takes only indices of the namespace that the caller is in.
    devices: DevMapHash<MapData>,
    /// What it holds.
    reachable: BTreeSet<u32>,
    indices: BTreeMap<&'static str, u32>,
    pin_dir: PathBuf,
    cpus: usize,
    current: Option<Current>,
}

/// A configuration, compiled, and its instances: one per device, loaded when it is first needed.
struct Current {
    compiled: Compiled,
    ids: Ids,
    instances: BTreeMap<&'static str, Instance>,
}

impl Edge {
    /// Makes the host.
    ///
    /// # Errors
    /// When the kernel refuses anything.
    pub fn new() -> Result<Self> {
        let dir = RunDir::new()?;
        let edge = Namespace::new("edge")?;
        let far = Namespace::new("far")?;
        edge.sysctl(&[("net/ipv4/ip_forward", "1"), ("net/ipv6/conf/all/forwarding", "1")])?;
        let mut indices = BTreeMap::new();
        for Port { name, mac, far_mac, address, mtu } in PORTS {
            let ends = [(&edge, mac), (&far, far_mac)].map(|(namespace, mac)| End { namespace, device: name, mac });
            veth(ends[0], ends[1], mtu)?;
            edge.ip(&format!(
                "addr add {}/24 dev {name} broadcast +\naddr add {}/64 dev {name}",
                address.v4, address.v6
            ))?;
            indices.insert(name, edge.ifindex(name)?);
        }
        let mut script = String::new();
        for ([four, six], route) in ROUTES {
            for (prefix, v6) in [(four, 0), (six, 1)] {
                script += &match route {
                    Route::Via(router, device) => format!("route add {prefix} via {} dev {device}\n", both(router)[v6]),
                    Route::Refused(word) => format!("route add {word} {prefix}\n"),
                };
            }
        }
        for (address, device, mac) in NEIGHBOURS {
            for address in both(address) {
                script += &format!("neighbour replace {address} lladdr {} dev {device} nud permanent\n", mac_text(mac));
            }
        }
        edge.ip(&script)?;
        let pin_dir = dir.subdir("bpf")?;
        let plan = Plan {
            object: object::get()?,
            pin_dir: &pin_dir,
            mode: burst::config::model::XdpMode::Native,
            trace: false,
        };
        let installation = kernel::install(&plan, 0)?;
        ensure!(!installation.adopted, "{} was not new", pin_dir.display());
        let devices = MapData::from_pin(pin_dir.join("maps/DEVICES")).context("opening DEVICES")?;
        let host = Host {
            installation,
            devices: DevMapHash::try_from(Map::DevMapHash(devices))?,
            reachable: BTreeSet::new(),
            indices,
            pin_dir,
            cpus: aya::util::nr_cpus().map_err(|(path, error)| anyhow!("{path}: {error}"))?,
            current: None,
        };
        Ok(Self { host, edge, _far: far, _dir: dir })
    }

    /// Runs `work` with the host, on a thread inside its namespace.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or those of `work`.
    pub fn inside<T: Send>(&mut self, work: impl FnOnce(&mut Host) -> Result<T> + Send) -> Result<T> {
        let host = &mut self.host;
        self.edge.run(|| work(host))?
    }
}

impl Host {
    fn maps(&self) -> &Maps {
        &self.installation.maps
    }

    /// Takes back what the last configuration left in the maps, and compiles another. Slots are local, links down.
    ///
    /// # Errors
    /// When it does not compile.
    pub fn configure(&mut self, config: &Config) -> Result<()> {
        if let Some(Current { compiled, ids, .. }) = self.current.take() {
            compiled.returns.iter().for_each(|(row, _)| self.maps().set_return(*row, &Zeroable::zeroed()));
            compiled.endpoints.iter().for_each(|endpoint| self.maps().set_endpoint(endpoint.id, &Zeroable::zeroed()));
            ids.links.values().for_each(|&link| self.maps().set_link(link, &Zeroable::zeroed()));
            for &class in ids.classes.values() {
                let base = compiled.policy.classes[usize::from(class)].base4 as usize;
                (base..base + 2 * MAX_CLASS_SLOTS).for_each(|slot| self.maps().set_slot(slot, Slot::stable(LOCAL)));
            }
        }
        let ids = Ids::assign(config, &Names::default())?;
        let compiled = compile(config, &ids)?;
        compiled.returns.iter().for_each(|(row, entry)| self.maps().set_return(*row, entry));
        self.current = Some(Current { compiled, ids, instances: BTreeMap::new() });
        Ok(())
    }

    /// Writes the state of the moment, as the daemon would. The world is that of the configuration.
    ///
    /// # Panics
    /// When nothing was configured.
    pub fn publish(&mut self, world: &World) {
        let Current { compiled, ids, .. } = self.current.as_ref().expect("a configuration");
        let maps = &self.installation.maps;
        maps.set_control(world.bypass, 0);
        for (family, except) in [4, 6].into_iter().zip(EXCEPT) {
            let row = gateway(self.indices[CLIENT0], except);
            maps.set_gateway(family, world.cached.then_some(&row));
        }
        let mut out = BTreeSet::new();
        for (number, (link, line)) in world.config.links.iter().zip(&world.lines).enumerate() {
            let id = ids.links[&link.name];
            let mut row = burst_common::link::Link::zeroed();
            row.mtu = line.mtu;
            if line.via_kernel {
                row.flags = VIA_KERNEL;
            } else {
                row.macs = burst_common::link::Link::macs(next_hop_mac(number), self::mac(line.device));
                row.vlan = line.vlan;
                row.source4 = line.source4.map_or(0, addr4);
                row.source6 = line.source6.map_or([0; 4], |address| wide(address.into()));
            }
            row.ifindex = if line.state == State::Up { self.indices[line.device] } else { 0 };
            maps.set_link(id, &row);
            if line.state == State::Out {
                out.insert(id);
            }
        }
        for endpoint in &compiled.endpoints {
            let mut row = endpoint.row;
            row.links = endpoint.links_word(|link| !out.contains(&link));
            maps.set_endpoint(endpoint.id, &row);
        }
        for (number, class) in world.config.classes.iter().enumerate() {
            let Some(burst) = &class.burst else { continue };
            let row = compiled.policy.classes[usize::from(ids.classes[&class.name])];
            for (v6, base) in [(false, row.base4), (true, row.base6)] {
                for slot in 0..burst.slots {
                    let endpoint = match world.slots.get(&(number, v6, slot)) {
                        None => LOCAL,
                        Some(Place::Nowhere) => 4095,
                        Some(&Place::Endpoint(tier, address)) => {
                            let tier = &burst.tiers[tier];
                            ids.endpoints[&format!("{}/{}", class.name, tier.endpoint_names()[address])]
                        }
                    };
                    maps.set_slot((base + slot) as usize, Slot::stable(endpoint));
                }
            }
        }
    }

    /// The reasons that the program counted so far, and how often each, over all classes.
    #[must_use]
    pub fn reasons(&self) -> Vec<(Reason, u64)> {
        let counters = self.maps().class_counters();
        let of = |reason: Reason| (0..MAX_CLASSES).map(|class| counters.get(class, reason.number()).packets).sum();
        Reason::ALL.iter().map(|&reason| (reason, of(reason))).collect()
    }

    /// Runs a frame through the instance of a device, while the device map holds these devices only.
    ///
    /// # Errors
    /// When the instance cannot be loaded or the kernel refuses the run.
    ///
    /// # Panics
    /// When nothing was configured.
    pub fn run(&mut self, world: &World, device: &'static str, frame: &[u8], devices: &[&str]) -> Result<Outcome> {
        let wanted: BTreeSet<u32> = devices.iter().map(|device| self.indices[device]).collect();
        for &gone in self.reachable.difference(&wanted) {
            self.devices.remove(gone)?;
        }
        for &new in wanted.difference(&self.reachable) {
            self.devices.insert(new, new, None, 0)?;
        }
        self.reachable = wanted;
        let current = self.current.as_mut().expect("a configuration");
        if !current.instances.contains_key(device) {
            let instance = load(world, device, current, &self.pin_dir, self.cpus)?;
            current.instances.insert(device, instance);
        }
        let instance = current.instances.get_mut(device).context("it was just loaded")?;
        // struct xdp_md (include/uapi/linux/bpf.h): data, data_end, data_meta, ingress_ifindex, rx_queue_index,
        // egress_ifindex.
        let context: Vec<u8> = [0, u32::try_from(frame.len())?, 0, self.indices[device], 0, 0]
            .iter()
            .flat_map(|word: &u32| word.to_ne_bytes())
            .collect();
        // Longer than the frame, and no byte of it zero: a frame that grew, or was not written, shows.
        let mut out = vec![0xa5; frame.len() + 256];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::new()
        };
        let result = instance.program().test_run(options)?;
        out.truncate(result.data_size_out as usize);
        Ok(Outcome { action: result.return_value, frame: out })
    }
}

/// The row of the clients' gateway in a family.
fn gateway(ifindex: u32, except: [&str; 8]) -> Gateway {
    let prefix = |text: &str| {
        let prefix: ipnet::IpNet = text.parse().expect("a prefix");
        Except { addr: wide(prefix.network()), mask: wide(prefix.netmask()) }
    };
    let mtu = PORTS[0].mtu;
    let macs = burst_common::link::Link::macs(GATEWAY_MAC, PORTS[0].mac);
    Gateway { macs, ifindex, mtu, exceptions: 8, except: except.map(prefix), ..Gateway::zeroed() }
}

/// MAC address of a device.
fn mac(device: &str) -> [u8; 6] {
    PORTS.iter().find(|port| port.name == device).expect("a device of this host").mac
}

/// Loads the instance of a device.
fn load(world: &World, device: &str, current: &Current, pin_dir: &std::path::Path, cpus: usize) -> Result<Instance> {
    let Current { compiled, ids, .. } = current;
    let mut policy = compiled.policy;
    policy.mac = mac_word(mac(device));
    let mut rows: Vec<DeviceLink> = Vec::new();
    for (link, line) in world.config.links.iter().zip(&world.lines) {
        if line.device != device || line.via_kernel {
            continue;
        }
        match rows.iter_mut().find(|row| row.vlan == u32::from(line.vlan)) {
            Some(row) => row.link = 0,
            None => rows.push(DeviceLink { vlan: line.vlan.into(), link: ids.links[&link.name].into() }),
        }
    }
    let client = if world.device(device).client { ROLE_CLIENT } else { 0 };
    policy.role = client | if rows.is_empty() { 0 } else { ROLE_LINK };
    policy.links = Table::new(0, &rows).map_err(|_| anyhow!("too many VLANs on {device}"))?;
    let told = Told {
        policy: &policy,
        large: compiled.large.as_ref(),
        guard: &compiled.guard,
        guard_large: compiled.guard_large.as_ref(),
        trace: false,
    };
    kernel::load(object::get()?, &pin_dir.join("maps"), cpus, &told).map_err(|refused| {
        // The verifier's words may be megabytes; the last of them say why.
        let text = refused.to_string();
        let lines: Vec<&str> = text.lines().collect();
        anyhow!("loading the instance of {device}:\n{}", lines[lines.len().saturating_sub(20)..].join("\n"))
    })
}
