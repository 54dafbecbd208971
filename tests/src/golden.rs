//! Golden packets: one frame through the real program by `BPF_PROG_TEST_RUN`, held against a [`Row`] that says what is
//! to come of it — the verdict, every byte, and every counter that moves, with no other moving.
//!
//! A [`Bed`] is an edge host in small: a namespace with real devices, routes and neighbours, the pinned maps of the
//! daemon's own kernel side, and program instances loaded as the daemon loads them. Nothing is attached and no frame
//! is on the wire: where a redirect goes is seen from the device map, which then holds that device alone.

pub mod counters;
pub mod bare;
pub mod kernel_return;
pub mod layers;
pub mod row;
pub mod sentinel;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, ensure};
use aya::maps::xdp::DevMapHash;
use aya::maps::{Map, MapData};
use aya::programs::{TestRun, TestRunOptions};
use burst::config::model::XdpMode;
use burst::kernel::{self, Installation, Instance, Keep, Maps, Plan, Told};
use burst::policy::compile::{Compiled, compile};
use burst::policy::ids::{Ids, Names};
use burst::{config, object};
use burst_common::flow::{Flow, addr4, addr6};
use burst_common::gateway::Vlan;
use burst_common::limits::MAX_CLASS_SLOTS;
use burst_common::link::{Link, VIA_KERNEL};
use burst_common::pin::{Pin, PinKey};
use burst_common::policy::{DeviceLink, ROLE_LINK, Table};
use burst_common::slot::Slot;

use crate::dir::RunDir;
use crate::link::{End, mac_text, veth};
use crate::netns::Namespace;
use crate::packet::diff::diff;
use crate::topology::{
    CLIENT_DEVICE, CLIENT_MAC, DIRECT_CONNECT_MAC, DX_DEVICE, EDGE_CLIENT_MAC, EDGE_DX, EDGE_DX_MAC, EDGE_ON_LINK,
    FIRST_CLIENT, Family, SECOND_DIRECT_CONNECT_MAC, SECOND_DX_DEVICE, SECOND_EDGE_DX, SECOND_EDGE_DX_MAC,
};
use counters::{Counters, Snapshot};
pub use row::{Leg, Row, Verdict};

/// Where a frame enters, and what the instance there was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Device.
    pub device: &'static str,
    /// `ROLE_CLIENT`, `ROLE_LINK` or both.
    pub role: u32,
    /// Id of the only untagged link of the device; 0 when it has several, [`TAGGED_ONLY`] when it has none. Those on VLANs
    /// are told from the configuration.
    pub link: u32,
}

/// All links of a device are on VLANs: what [`Entry::link`] says then.
pub const TAGGED_ONLY: u32 = u32::MAX;

/// What came of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The program's answer, a number of `enum xdp_action`.
    pub action: u32,
    /// The frame as it goes on.
    pub frame: Vec<u8>,
}

/// An edge host in small. Links are up and slots local until a test says otherwise.
pub struct Bed {
    instances: BTreeMap<Entry, Instance>,
    counters: Counters,
    installation: Installation,
    /// The device map; the kernel takes only indices of the namespace that the caller is in.
    devices: DevMapHash<MapData>,
    /// What it holds.
    reachable: BTreeSet<u32>,
    indices: BTreeMap<&'static str, u32>,
    /// Links on VLANs: device, VLAN id, link id.
    tagged: Vec<(String, u16, u8)>,
    compiled: Compiled,
    ids: Ids,
    /// Whether openers are remembered from one row to the next.
    remembers: bool,
    pin_dir: PathBuf,
    edge: Namespace,
    far: Namespace,
    _dir: RunDir,
}

/// EDGE's devices: name, MAC, MAC behind it, EDGE's addresses.
const DEVICES: [(&str, [u8; 6], [u8; 6], crate::topology::Pair); 3] = [
    (CLIENT_DEVICE, EDGE_CLIENT_MAC, CLIENT_MAC, EDGE_ON_LINK),
    (DX_DEVICE, EDGE_DX_MAC, DIRECT_CONNECT_MAC, EDGE_DX),
    (SECOND_DX_DEVICE, SECOND_EDGE_DX_MAC, SECOND_DIRECT_CONNECT_MAC, SECOND_EDGE_DX),
];

impl Bed {
    /// Makes the host of a configuration whose devices are those of the topology. The first client has a neighbour
    /// entry (`CLIENT_MAC`), its successors have none.
    ///
    /// # Errors
    /// When the configuration is refused or the kernel refuses anything.
    pub fn new(config: &str) -> Result<Self> {
        let dir = RunDir::new()?;
        let edge = Namespace::new("edge")?;
        let far = Namespace::new("far")?;
        edge.sysctl(&[("net/ipv4/ip_forward", "1"), ("net/ipv6/conf/all/forwarding", "1")])?;
        let mut indices = BTreeMap::new();
        for (device, mac, far_mac, address) in DEVICES {
            veth(End { namespace: &edge, device, mac }, End { namespace: &far, device, mac: far_mac }, 1500)?;
            edge.ip(&format!("addr add {}/24 dev {device}\naddr add {}/64 dev {device}", address.v4, address.v6))?;
            indices.insert(device, edge.ifindex(device)?);
        }
        let config = config::parse(config, "golden.toml").map_err(|refused| anyhow!("{refused}"))?.config;
        let ids = Ids::assign(&config, &Names::default())?;
        let compiled = compile(&config, &ids)?;
        let pin_dir = dir.subdir("bpf")?;
        let plan = Plan { object: object::get()?, pin_dir: &pin_dir, mode: config.edge.xdp, trace: false };
        let installation = kernel::install(&plan, compiled.policy.seed)?;
        ensure!(!installation.adopted, "{} was not new", pin_dir.display());
        let devices = MapData::from_pin(pin_dir.join("maps/DEVICES")).context("opening DEVICES")?;
        let mut bed = Self {
            instances: BTreeMap::new(),
            counters: Counters::open(&pin_dir.join("maps"), cpus()?)?,
            installation,
            devices: DevMapHash::try_from(Map::DevMapHash(devices))?,
            reachable: BTreeSet::new(),
            indices,
            tagged: Vec::new(),
            compiled,
            ids,
            remembers: false,
            pin_dir,
            edge,
            far,
            _dir: dir,
        };
        for family in Family::ALL {
            bed.neighbour(FIRST_CLIENT.of(family), CLIENT_DEVICE, CLIENT_MAC)?;
        }
        for (row, entry) in &bed.compiled.returns {
            bed.maps().set_return(*row, entry);
        }
        for link in &config.links {
            bed.link_up(link)?;
        }
        Ok(bed)
    }

    fn link_up(&mut self, link: &config::model::Link) -> Result<()> {
        let (device, mac, next_hop, _) =
            DEVICES.into_iter().find(|row| row.0 == link.device).with_context(|| format!("no {} here", link.device))?;
        let mut row = Link { ifindex: self.indices[device], mtu: link.mtu, ..bytemuck::Zeroable::zeroed() };
        if link.next_hop.is_none() {
            row.flags = VIA_KERNEL;
        } else {
            row.macs = Link::macs(next_hop, mac);
            row.vlan = link.vlan.unwrap_or(0);
            row.source4 = link.source4.map_or(0, addr4);
            row.source6 = link.source6.map_or([0; 4], |source| bytemuck::cast(source.octets()));
        }
        let id = self.link(&link.name);
        self.maps().set_link(id, &row);
        self.tagged.extend(link.vlan.map(|vlan| (link.device.clone(), vlan, id)));
        for endpoint in &self.compiled.endpoints {
            let mut row = endpoint.row;
            row.links = endpoint.links_word(|_| true);
            self.maps().set_endpoint(endpoint.id, &row);
        }
        Ok(())
    }

    /// The maps, as the daemon writes them.
    #[must_use]
    pub fn maps(&self) -> &Maps {
        &self.installation.maps
    }

    /// The directory of the pins.
    #[must_use]
    pub fn pin_dir(&self) -> &std::path::Path {
        &self.pin_dir
    }

    /// EDGE, for its routes and neighbours.
    #[must_use]
    pub fn edge(&self) -> &Namespace {
        &self.edge
    }

    /// What is behind EDGE's devices, each under the same name.
    #[must_use]
    pub fn far(&self) -> &Namespace {
        &self.far
    }

    /// Attaches instances with a policy to the clients' device and the first line, or puts them in the place of those that
    /// are there, as the daemon does.
    ///
    /// # Errors
    /// When an instance is refused.
    pub fn attach(&mut self, compiled: &Compiled) -> Result<()> {
        self.attach_by(compiled, None)
    }

    /// The same in place of another policy's programs; `both` is what the two keep.
    ///
    /// # Errors
    /// As [`Self::attach`].
    pub fn attach_in_place(&mut self, compiled: &Compiled, both: &Keep) -> Result<()> {
        self.attach_by(compiled, Some(both))
    }

    fn attach_by(&mut self, compiled: &Compiled, both: Option<&Keep>) -> Result<()> {
        let device = |name: &str, mac, links: &[(u8, u16)]| kernel::Device {
            name: name.to_owned(),
            ifindex: self.indices[name],
            mac,
            client: links.is_empty(),
            links: links.to_vec(),
            other_macs: false,
            via_kernel: false,
        };
        let devices = [device(DX_DEVICE, EDGE_DX_MAC, &[(1, 0)]), device(CLIENT_DEVICE, EDGE_CLIENT_MAC, &[])];
        let plan = Plan { object: object::get()?, pin_dir: &self.pin_dir, mode: XdpMode::Native, trace: false };
        let installation = &mut self.installation;
        self.edge.run(|| match both {
            None => installation.attach(&plan, compiled, &devices),
            Some(both) => installation.attach_in_place(&plan, compiled, &devices, both),
        })??;
        Ok(())
    }

    /// How many second programs of instances there are.
    ///
    /// # Errors
    /// When their map cannot be read.
    pub fn second_programs(&self) -> Result<usize> {
        let map = self.pin_dir.join("maps/STEPS").display().to_string();
        let text = self.edge.exec("bpftool", &["-j", "map", "dump", "pinned", &map])?;
        let rows: Vec<serde_json::Value> = serde_json::from_str(&text)?;
        // Of an empty place it says that there is an error.
        Ok(rows.iter().filter(|row| row["value"].is_array()).count())
    }

    /// Takes the program off the clients' device behind burst's back.
    ///
    /// # Errors
    /// When none was attached.
    pub fn detach_client(&self) -> Result<()> {
        std::fs::remove_file(self.pin_dir.join("links").join(CLIENT_DEVICE)).context("unpinning")
    }

    /// The policy and tables of the configuration.
    #[must_use]
    pub fn compiled(&self) -> &Compiled {
        &self.compiled
    }

    /// What the routing table takes for a VLAN device: `device` (any, in its place), on the device `parent` with this tag.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn vlan_device(&mut self, device: &str, parent: &str, vlan: u16) -> Result<()> {
        let row = Vlan { parent: self.indices[parent], vlan: vlan.into() };
        Ok(self.installation.maps.set_vlans(&[(self.indices[device], row)])?)
    }

    /// A permanent neighbour of EDGE.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn neighbour(&self, address: std::net::IpAddr, device: &str, mac: [u8; 6]) -> Result<()> {
        self.edge.ip(&format!("neighbour replace {address} lladdr {} dev {device} nud permanent", mac_text(mac)))
    }

    /// Index of a device of EDGE.
    #[must_use]
    pub fn ifindex(&self, device: &str) -> u32 {
        self.indices[device]
    }

    /// Id of a class.
    #[must_use]
    pub fn class(&self, name: &str) -> usize {
        usize::from(self.ids.classes[name])
    }

    /// Id of a link.
    #[must_use]
    pub fn link(&self, name: &str) -> u8 {
        self.ids.links[name]
    }

    /// Id of an endpoint: `class/tier/address`, or `class/tier` of a `nexthop` tier.
    #[must_use]
    pub fn endpoint(&self, name: &str) -> u16 {
        self.ids.endpoints[name]
    }

    /// The slot that userspace takes a flow to be in, from the configured seed and affinity.
    #[must_use]
    pub fn slot_of(&self, class: &str, key: &PinKey) -> usize {
        let row = self.compiled.policy.classes[self.class(class)];
        let by_client = row.flags & burst_common::policy::BY_CLIENT != 0;
        let base = if key.family() == 4 { row.base4 } else { row.base6 };
        base as usize + (key.hash(self.compiled.policy.seed, by_client) as u32 & row.mask) as usize
    }

    /// Sets all slots of a class, in both families.
    pub fn fill(&self, class: &str, slot: Slot) {
        let base = self.compiled.policy.classes[self.class(class)].base4 as usize;
        (base..base + 2 * MAX_CLASS_SLOTS).for_each(|index| self.maps().set_slot(index, slot));
    }

    /// All pins, in no order.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn pins(&self) -> Result<Vec<(PinKey, Pin)>> {
        Ok(self.maps().pins.read()?)
    }

    /// Writes a pin.
    ///
    /// # Errors
    /// When the table is full.
    pub fn pin(&mut self, key: &PinKey, pin: Pin) -> Result<()> {
        Ok(self.installation.maps.pins.insert(key, &pin)?)
    }

    /// Removes a pin.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn unpin(&mut self, key: &PinKey) -> Result<()> {
        Ok(self.installation.maps.pins.remove(key)?)
    }

    /// Removes all pins.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn unpin_all(&mut self) -> Result<()> {
        for (key, _) in self.pins()? {
            self.unpin(&key)?;
        }
        Ok(())
    }

    /// Whether openers are remembered from one row to the next; until this is said, they are not.
    pub fn remember_openers(&mut self, remembers: bool) {
        self.maps().forget_openers();
        self.remembers = remembers;
    }

    /// Runs a frame through the instance of an entry, while the device map holds these devices only.
    ///
    /// # Errors
    /// When the instance cannot be loaded or the kernel refuses the run.
    pub fn run(&mut self, entry: Entry, frame: &[u8], devices: &[&str]) -> Result<Outcome> {
        self.run_split(entry, frame, frame.len(), devices)
    }

    /// As [`Bed::run`], with only the first `linear` bytes in the frame's linear part (Linux 6.18 and newer, unless all
    /// are), the rest in fragments.
    ///
    /// # Errors
    /// As [`Bed::run`].
    pub fn run_split(&mut self, entry: Entry, frame: &[u8], linear: usize, devices: &[&str]) -> Result<Outcome> {
        let context = self.context(entry, linear)?;
        self.reach(devices)?;
        self.instance(entry)?;
        let instance = self.instances.get_mut(&entry).context("it was just loaded")?;
        // Longer than the frame, and no byte of it zero: a frame that grew, or was not written, shows.
        let mut out = vec![0xa5; frame.len() + 256];
        let result = self.edge.run(|| {
            instance.program().test_run(TestRunOptions {
                data_in: Some(frame),
                data_out: Some(&mut out),
                ctx_in: Some(&context),
                ..TestRunOptions::new()
            })
        })??;
        out.truncate(result.data_size_out as usize);
        Ok(Outcome { action: result.return_value, frame: out })
    }

    /// The instance of an entry, loaded as the daemon loads it.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn instance(&mut self, entry: Entry) -> Result<&mut Instance> {
        if !self.instances.contains_key(&entry) {
            let mut policy = self.compiled.policy;
            policy.role = entry.role;
            if entry.role & ROLE_LINK != 0 {
                let untagged = (entry.link != TAGGED_ONLY).then_some(DeviceLink { vlan: 0, link: entry.link });
                let here = self.tagged.iter().filter(|(device, ..)| device == entry.device);
                let tagged = here.map(|&(_, vlan, id)| DeviceLink { vlan: vlan.into(), link: id.into() });
                let rows: Vec<_> = untagged.into_iter().chain(tagged).collect();
                policy.links = Table::new(0, &rows).map_err(|_| anyhow!("more links than fit a device"))?;
            }
            let own = DEVICES.iter().find(|(device, ..)| *device == entry.device);
            policy.mac = own.map_or(0, |(_, mac, ..)| burst_common::policy::mac_word(*mac));
            let (maps_dir, cpus) = (self.pin_dir.join("maps"), cpus()?);
            let told = Told {
                policy: &policy,
                large: self.compiled.large.as_ref(),
                guard: &self.compiled.guard,
                guard_large: self.compiled.guard_large.as_ref(),
                trace: false,
            };
            self.instances.insert(entry, kernel::load(object::get()?, &maps_dir, cpus, &told)?);
        }
        self.instances.get_mut(&entry).context("it was just loaded")
    }

    /// Makes the device map hold these devices and no others.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn reach(&mut self, devices: &[&str]) -> Result<()> {
        let wanted: BTreeSet<u32> = devices.iter().map(|device| self.indices[device]).collect();
        self.edge.run(|| -> Result<_> {
            for &gone in self.reachable.difference(&wanted) {
                self.devices.remove(gone)?;
            }
            for &new in wanted.difference(&self.reachable) {
                self.devices.insert(new, new, None, 0)?;
            }
            Ok(())
        })??;
        self.reachable = wanted;
        Ok(())
    }

    /// The context of a frame that arrives at an entry, with `linear` bytes in its linear part: struct xdp_md
    /// (include/uapi/linux/bpf.h), which is data, data_end, data_meta, ingress_ifindex, rx_queue_index and egress_ifindex.
    ///
    /// # Errors
    /// When the length is none.
    pub fn context(&self, entry: Entry, linear: usize) -> Result<Vec<u8>> {
        let words = [0, u32::try_from(linear)?, 0, self.indices[entry.device], 0, 0];
        Ok(words.iter().flat_map(|word: &u32| word.to_ne_bytes()).collect())
    }

    /// The counters of the packet path.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Instructions the verifier looked at, and bytes of the translated program, of an entry's instance.
    ///
    /// # Errors
    /// When it was not loaded, or the kernel does not say.
    pub fn verified(&mut self, entry: Entry) -> Result<(Option<u32>, Option<u32>)> {
        let info = self.instances.get_mut(&entry).context("not loaded")?.program().info()?;
        Ok((info.verified_instruction_count(), info.size_translated()))
    }

    /// Runs a row and holds what came of it against what was to come.
    ///
    /// # Errors
    /// When the run itself fails.
    ///
    /// # Panics
    /// When verdict, bytes or counters differ, with the row's name and the differences.
    #[track_caller]
    pub fn check(&mut self, entry: Entry, row: &Row) -> Result<()> {
        // What is to pass could leave by any device; what is to leave finds only the device it is to leave by.
        let devices = match row.verdict {
            Verdict::Redirect(device) => vec![device],
            Verdict::Pass | Verdict::Drop => DEVICES.iter().map(|row| row.0).collect(),
        };
        self.check_with(entry, row, &devices)
    }

    /// As [`Bed::check`], with a device map of the test's choice.
    ///
    /// # Errors
    /// As [`Bed::check`].
    ///
    /// # Panics
    /// As [`Bed::check`].
    #[track_caller]
    pub fn check_with(&mut self, entry: Entry, row: &Row, devices: &[&str]) -> Result<()> {
        let before = self.counters.read();
        let outcome = self.run(entry, &row.frame, devices).with_context(|| row.name.clone())?;
        self.judge(row, &outcome, &before);
        Ok(())
    }

    /// Runs a row whose frame lies in fragments behind its first `linear` bytes; `false` when this kernel cannot make
    /// such frames (before 6.18).
    ///
    /// # Errors
    /// As [`Bed::check`].
    ///
    /// # Panics
    /// As [`Bed::check`].
    #[track_caller]
    pub fn check_split(&mut self, entry: Entry, row: &Row, linear: usize, devices: &[&str]) -> Result<bool> {
        let before = self.counters.read();
        match self.run_split(entry, &row.frame, linear, devices) {
            Ok(outcome) => self.judge(row, &outcome, &before),
            Err(error) if errno(&error) == Some(libc::EINVAL) => return Ok(false),
            Err(error) => return Err(error.context(row.name.clone())),
        }
        Ok(true)
    }

    /// Holds what came of a row's frame against what was to come.
    ///
    /// # Panics
    /// As [`Bed::check`].
    #[track_caller]
    pub fn judge(&self, row: &Row, outcome: &Outcome, before: &Snapshot) {
        let moved = self.counters.moved(before, &self.counters.read());
        let mut wrong = Vec::new();
        if outcome.action != row.verdict.number() {
            wrong.push(format!("the verdict is {}, not {:?}", outcome.action, row.verdict));
        }
        if moved != row.moved {
            wrong.push(format!("counters that moved\n  expected {:?}\n  found    {moved:?}", row.moved));
        }
        wrong.extend(diff(&row.out, &outcome.frame));
        // The next row may be the same opener, and is to be a new one.
        if !self.remembers && row.moved.values().any(|counter| counter.openers > 0) {
            self.maps().forget_openers();
        }
        assert!(wrong.is_empty(), "{}:\n{}", row.name, wrong.join("\n"));
    }
}

/// The flow between two sockets, as pins and slots know it.
///
/// # Panics
/// When they are of two families: a mistake in the test.
#[must_use]
pub fn key(source: SocketAddr, destination: SocketAddr, proto: u8) -> PinKey {
    let (src_port, dst_port) = (source.port().to_be(), destination.port().to_be());
    match (source, destination) {
        (SocketAddr::V4(from), SocketAddr::V4(to)) => {
            let (src, dst) = (addr4(*from.ip()), addr4(*to.ip()));
            PinKey::new(&Flow { src, dst, src_port, dst_port, proto, flags: 0 })
        }
        (SocketAddr::V6(from), SocketAddr::V6(to)) => {
            let (src, dst) = (addr6(*from.ip()), addr6(*to.ip()));
            PinKey::new(&Flow { src, dst, src_port, dst_port, proto, flags: 0 })
        }
        _ => panic!("{source} and {destination} are of two families"),
    }
}

fn cpus() -> Result<usize> {
    aya::util::nr_cpus().map_err(|(path, error)| anyhow!("{path}: {error}"))
}

fn errno(error: &anyhow::Error) -> Option<i32> {
    error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>()?.raw_os_error())
}
