//! burst in the testbed: its configuration for the reference topology, its life (start, kill, stop, start again), and
//! what can be asked of it, always by its own command line; and what it has left on the host.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use aya::maps::MapData;
use burst::api::types::{Burst, Class, Status};
use burst::kernel::Mapped;
use burst_common::limits::MAX_SLOTS;
use burst_common::slot::Slot;

use crate::host;
use crate::poll;
use crate::process::Process;
use crate::topology::{
    CLIENT_DEVICE, CLOUD_PORT, DIRECT_CONNECT, DX_DEVICE, EDGE_DX, FIRST_ENDPOINT, Family, PAYMENT,
    SECOND_DIRECT_CONNECT, SECOND_DX_DEVICE, SHOP, Topology,
};

/// How long burst may take for anything it is asked, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How the shop's packets go to the cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// One class of both families, `dnat` to every endpoint.
    Dnat,
    /// One class of both families, `nexthop`. The cloud must own the shop's addresses.
    Nexthop,
    /// A class for each family: IPv4 by `nexthop`, IPv6 by `dnat`, in one policy.
    Mixed,
    /// One class of both families, in a tunnel to the first endpoint of a family. The cloud must own the shop's addresses.
    Tunnel(Tunnel, Family),
}

/// A kind of tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tunnel {
    /// Generic UDP Encapsulation.
    Gue,
    /// IP in IP.
    Ipip,
}

/// By which links they go there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lines {
    /// Next hops: `dx-1`, and `dx-2` where there is a second line.
    NextHops,
    /// `vpn` alone, which the routing table picks the way of, by this device.
    Kernel(&'static str),
    /// `dx-1`, and `vpn` by this device where `dx-1` is down.
    Fallback(&'static str),
}

/// What differs from test to test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How packets go to the cloud.
    pub way: Way,
    /// By which links.
    pub lines: Lines,
    /// `mtu` of the links; that of the lines unless given.
    pub link_mtu: Option<u16>,
    /// `vlan` of the first link.
    pub vlan: Option<u16>,
    /// `mode = "shadow"`.
    pub shadow: bool,
    /// `trace`.
    pub trace: bool,
    /// `sentinel = "enforce"`.
    pub enforce: bool,
    /// `on_exit = "detach"`.
    pub detach_on_exit: bool,
    /// `health` of the shop's tier.
    pub health: Option<&'static str>,
    /// `idle_timeout` of the shop.
    pub idle_timeout: Duration,
    /// How long demand must be small before flows come home.
    pub stabilize: Duration,
    /// New flows that the premises take.
    pub capacity: &'static str,
    /// More lines of `[edge]`.
    pub edge: &'static str,
    /// More lines of the shop's class.
    pub class: &'static str,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            way: Way::Dnat,
            lines: Lines::NextHops,
            link_mtu: None,
            vlan: None,
            shadow: false,
            trace: false,
            enforce: false,
            detach_on_exit: false,
            health: None,
            idle_timeout: Duration::from_secs(2),
            // Longer than any test: what an operator does not order does not happen.
            stabilize: Duration::from_secs(600),
            capacity: "100k flows/s",
            edge: "",
            class: "",
        }
    }
}

/// The configuration for a topology.
#[must_use]
pub fn config(topology: &Topology, settings: &Settings) -> String {
    let mtu = settings.link_mtu.unwrap_or(topology.options.dx_mtu);
    let dir = |name: &str| topology.dir.file(name).display().to_string();
    let mut text = format!(
        r#"version = 1

[edge]
name      = "edge-under-test"
client    = ["{CLIENT_DEVICE}"]
seed      = "one-string-for-all-edges"
mode      = "{mode}"
pin_dir   = "{pins}"
socket    = "{socket}"
on_exit   = "{on_exit}"
trace     = {trace}
sentinel  = "{sentinel}"
{more}
"#,
        more = settings.edge,
        mode = if settings.shadow { "shadow" } else { "active" },
        pins = dir("pins"),
        socket = dir("burst.sock"),
        on_exit = if settings.detach_on_exit { "detach" } else { "leave" },
        trace = settings.trace,
        sentinel = if settings.enforce { "enforce" } else { "report" },
    );
    for (name, device, way) in links(topology, settings) {
        text += &format!(
            "
[[link]]
name     = \"{name}\"
device   = \"{device}\"
{way}
mtu      = {mtu}
"
        );
    }
    text += &format!(
        "\n[class.{}]\nkeep  = true\nmatch = [{{ dst = [\"{}/32\", \"{}/128\"], proto = \"tcp\", ports = [{}] }}]\n",
        PAYMENT.name, PAYMENT.address.v4, PAYMENT.address.v6, PAYMENT.port,
    );
    for class in classes(settings.way) {
        text += &shop(topology, settings, &class);
    }
    text
}

/// Name and device of each link, and what it goes by.
fn links(topology: &Topology, settings: &Settings) -> Vec<(&'static str, &'static str, String)> {
    let mut by = format!("next_hop = \"{}\"", DIRECT_CONNECT.v4);
    if let Some(vlan) = settings.vlan {
        by += &format!("\nvlan     = {vlan}");
    }
    if let Way::Tunnel(..) = settings.way {
        by += &format!("\nsource   = [\"{}\", \"{}\"]", EDGE_DX.v4, EDGE_DX.v6);
    }
    let first = ("dx-1", DX_DEVICE, by);
    // By its IPv6 address: neighbours of both families are equals, too.
    let second = ("dx-2", SECOND_DX_DEVICE, format!("next_hop = \"{}\"", SECOND_DIRECT_CONNECT.v6));
    let vpn = |device, rest: &str| ("vpn", device, format!("via      = \"kernel\"{rest}"));
    match settings.lines {
        Lines::NextHops if topology.options.second_line => vec![first, second],
        Lines::NextHops => vec![first],
        Lines::Kernel(device) => vec![vpn(device, "")],
        Lines::Fallback(device) => vec![first, vpn(device, "\nfallback = true")],
    }
}

/// A class of the shop.
struct ShopClass {
    name: String,
    families: &'static [Family],
    way: Way,
}

fn classes(way: Way) -> Vec<ShopClass> {
    let class = |suffix: &str, families, way| ShopClass { name: format!("{}{suffix}", SHOP.name), families, way };
    match way {
        Way::Dnat | Way::Nexthop | Way::Tunnel(..) => vec![class("", &Family::ALL, way)],
        Way::Mixed => vec![class("-4", &[Family::V4], Way::Nexthop), class("-6", &[Family::V6], Way::Dnat)],
    }
}

fn shop(topology: &Topology, settings: &Settings, class: &ShopClass) -> String {
    let quoted = |all: Vec<String>| all.join(", ");
    let prefix = |family: &Family| match family {
        Family::V4 => format!("\"{}/32\"", SHOP.address.v4),
        Family::V6 => format!("\"{}/128\"", SHOP.address.v6),
    };
    let way = match class.way {
        Way::Nexthop => "mode      = \"nexthop\"".to_owned(),
        Way::Tunnel(tunnel, outer) => {
            let mode = if tunnel == Tunnel::Gue { "gue" } else { "ipip" };
            format!("mode      = \"{mode}\"\nendpoints = [\"{}\"]", FIRST_ENDPOINT.of(outer))
        }
        Way::Dnat | Way::Mixed => {
            let endpoints = class.families.iter().flat_map(|&family| topology.endpoints(family));
            let endpoints = quoted(endpoints.map(|address| format!("\"{address}\"")).collect());
            format!("mode      = \"dnat\"\nendpoints = [{endpoints}]\nports     = {{ {} = {CLOUD_PORT} }}", SHOP.port)
        }
    };
    format!(
        r#"
[class.{name}]
match        = [{{ dst = [{dst}], proto = "tcp", ports = [{port}] }}]
idle_timeout = "{idle}ms"
when_full    = "local"
{more}

[class.{name}.local]
capacity  = "{capacity}"
stabilize = "{stabilize}ms"
home_rate = "100%/s"

[[class.{name}.tier]]
name      = "reserved"
{way}
links     = [{links}]
capacity  = "100k flows/s"
{health}
"#,
        name = class.name,
        more = settings.class,
        capacity = settings.capacity,
        dst = quoted(class.families.iter().map(prefix).collect()),
        port = SHOP.port,
        health = settings.health.map_or_else(String::new, |health| format!("health    = {health}")),
        idle = settings.idle_timeout.as_millis(),
        stabilize = settings.stabilize.as_millis(),
        links = quoted(links(topology, settings).iter().map(|(name, ..)| format!("\"{name}\"")).collect()),
    )
}

/// What a command of burst's said and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Exit code; -1 where a signal ended it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

/// Runs a command of burst's in EDGE to its end.
///
/// # Errors
/// When there is no binary or it cannot be started.
pub fn command(topology: &Topology, arguments: &[&str]) -> Result<Said> {
    let mut command = topology.edge.command(host::burst_binary()?);
    command.arg("--socket").arg(topology.dir.file("burst.sock")).args(arguments);
    Ok(command.output().context("running burst")?.into())
}

/// Starts burst with a configuration that it must refuse, by `command` (with `run -c FILE` added), and waits for its end.
///
/// # Errors
/// When it has not ended by itself within [`PATIENCE`].
pub fn refusal(topology: &Topology, mut command: Command, config: &str) -> Result<Said> {
    let file = topology.dir.write("refused.toml", config)?;
    command.arg("run").arg("-c").arg(file);
    let log = topology.dir.file("refused.log");
    if log.exists() {
        std::fs::remove_file(&log).context("removing an older log")?;
    }
    let mut process = Process::spawn("refused", command, &topology.dir)?;
    let status = process.wait(PATIENCE).with_context(|| format!("it wrote: {}", process.log().unwrap_or_default()))?;
    Ok(Said { code: status.code().unwrap_or(-1), out: String::new(), err: process.log()? })
}

/// burst on EDGE. Dropping it stops it.
#[derive(Debug)]
pub struct Daemon<'a> {
    /// Where it is.
    pub topology: &'a Topology,
    /// Its process.
    pub process: Process,
    config: PathBuf,
    classes: Vec<String>,
}

impl<'a> Daemon<'a> {
    /// Starts burst and waits until it answers and all its links are up.
    ///
    /// # Errors
    /// When it ends or is not there within [`PATIENCE`], with its log.
    pub fn start(topology: &'a Topology, settings: &Settings) -> Result<Self> {
        let file = topology.dir.write("burst.toml", config(topology, settings))?;
        let mut daemon = Self {
            topology,
            process: spawn(topology, &file)?,
            config: file,
            classes: classes(settings.way).into_iter().map(|class| class.name).collect(),
        };
        daemon.wait_ready()?;
        Ok(daemon)
    }

    /// Starts it again after its end, with the same configuration.
    ///
    /// # Errors
    /// As [`Self::start`], and when it still runs.
    pub fn start_again(&mut self) -> Result<()> {
        ensure!(self.process.ended()?.is_some(), "burst still runs");
        self.process = spawn(self.topology, &self.config)?;
        self.wait_ready()
    }

    /// Ends it and starts it again with these settings, which must have the same classes.
    ///
    /// # Errors
    /// As [`Self::stop`] and [`Self::start_again`].
    pub fn restart_with(&mut self, settings: &Settings) -> Result<()> {
        self.topology.dir.write("burst.toml", config(self.topology, settings))?;
        self.stop()?;
        self.start_again()
    }

    fn wait_ready(&mut self) -> Result<()> {
        let topology = self.topology;
        let pid = self.process.pid();
        self.process.wait_ready("answering, all links up", PATIENCE, || {
            let ready = |status: &Status| status.pid == pid && status.links.iter().all(|link| link.up);
            Ok(status(topology).ok().filter(ready).map(drop))
        })
    }

    /// Ends it with SIGTERM.
    ///
    /// # Errors
    /// When it does not end with exit code 0, with its log.
    pub fn stop(&mut self) -> Result<()> {
        let status: ExitStatus = self.process.stop()?;
        ensure!(status.success(), "burst ended with {status}:\n{}", self.process.log()?);
        Ok(())
    }

    /// Ends it with SIGKILL.
    ///
    /// # Errors
    /// When it does not end.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill().map(drop)
    }

    /// `burst status --json`.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn status(&self) -> Result<Status> {
        status(self.topology)
    }

    /// A class of the status.
    ///
    /// # Errors
    /// As [`Self::status`], and when there is no such class.
    pub fn class(&self, name: &str) -> Result<Class> {
        let found = self.status()?.classes.into_iter().find(|class| class.name == name);
        found.with_context(|| format!("status has no class {name}"))
    }

    /// The shop's classes, as far as they are shifted.
    ///
    /// # Errors
    /// As [`Self::class`].
    pub fn shop(&self) -> Result<Vec<Burst>> {
        let burst = |name: &String| self.class(name)?.burst.with_context(|| format!("{name} is a keep class"));
        self.classes.iter().map(burst).collect()
    }

    /// Orders a share of the shop's new flows offsite, and waits until it is in force.
    ///
    /// # Errors
    /// When burst refuses, or does not follow within [`PATIENCE`].
    pub fn shift(&self, percent: f64) -> Result<()> {
        for class in &self.classes {
            let offsite = format!("{percent}%");
            let order = ["override", class, "--offsite", &offsite, "--for", "5m", "--reason", "a test of the testbed"];
            let said = command(self.topology, &order)?;
            ensure!(said.code == 0, "burst override: {}", said.err);
        }
        self.until(&format!("{percent} % of the shop's flows to leave"), |shop| {
            shop.iter().all(|burst| (burst.local.share.wanted - (1.0 - percent / 100.0)).abs() < 1e-9)
        })
    }

    /// Waits until every transition of the shop's slots is over.
    ///
    /// # Errors
    /// When they are not within [`PATIENCE`].
    pub fn settle(&self) -> Result<()> {
        self.until("transitions to end", |shop| shop.iter().all(|burst| burst.slots.transition == 0))
    }

    /// Waits until something holds for the shop.
    ///
    /// # Errors
    /// When it does not within [`PATIENCE`], with the status.
    pub fn until(&self, what: &str, mut holds: impl FnMut(&[Burst]) -> bool) -> Result<()> {
        let waited = poll::until(what, PATIENCE, || {
            let held = holds(&self.shop()?);
            if !held {
                // Each question is a process, and the machine has other things to do.
                std::thread::sleep(Duration::from_millis(30));
            }
            Ok(held.then_some(()))
        });
        waited.with_context(|| format!("the shop is {:#?}", self.shop()))
    }

    /// Packets and openers of a class by reason.
    ///
    /// # Errors
    /// As [`Self::class`].
    pub fn reasons(&self, class: &str) -> Result<BTreeMap<String, (u64, u64)>> {
        let reasons = self.class(class)?.reasons.into_iter();
        Ok(reasons.map(|row| (row.reason, (row.packets, row.openers))).collect())
    }

    /// Openers of all the shop's classes with a reason, since the maps were made.
    ///
    /// # Errors
    /// As [`Self::class`].
    pub fn openers(&self, reason: &str) -> Result<u64> {
        self.classes.iter().map(|class| Ok(self.reasons(class)?.get(reason).map_or(0, |row| row.1))).sum()
    }

    /// Every word of the slot table, as it is pinned. Works without the daemon.
    ///
    /// # Errors
    /// When it is not there.
    pub fn slots(&self) -> Result<Vec<Slot>> {
        let map = MapData::from_pin(pin_dir(self.topology).join("maps/SLOTS")).context("the pinned slots")?;
        let mapped: Mapped<Slot> = Mapped::new(map.fd().as_fd(), MAX_SLOTS).context("mapping the slots")?;
        Ok((0..MAX_SLOTS).map(|row| mapped.read(row)).collect())
    }

    /// Everything the pinned names map holds, free rows included. Works without the daemon.
    ///
    /// # Errors
    /// When it is not there.
    pub fn names(&self) -> Result<Vec<Option<String>>> {
        let map = MapData::from_pin(pin_dir(self.topology).join("maps/NAMES_OF")).context("the pinned names")?;
        let map = aya::maps::Map::Array(map);
        let array: aya::maps::Array<&MapData, [u8; size_of::<burst_common::meta::Name>()]> = (&map).try_into()?;
        let text = |row| -> Result<Option<String>> {
            let name: burst_common::meta::Name = bytemuck::cast(array.get(&row, 0)?);
            Ok(name.text().map(str::to_owned))
        };
        (0..burst_common::meta::NAMES as u32).map(text).collect()
    }
}

fn spawn(topology: &Topology, config: &Path) -> Result<Process> {
    let mut command = topology.edge.command(host::burst_binary()?);
    command.arg("run").arg("-c").arg(config);
    Process::spawn("burst", command, &topology.dir)
}

/// `burst status --json` in a topology.
///
/// # Errors
/// When no daemon answers.
pub fn status(topology: &Topology) -> Result<Status> {
    let said = command(topology, &["status", "--json"])?;
    ensure!(said.code == 0, "burst status: {}", said.err);
    serde_json::from_str(&said.out).context("burst status --json")
}

/// Where burst's pins are in a topology.
#[must_use]
pub fn pin_dir(topology: &Topology) -> PathBuf {
    topology.dir.file("pins")
}

/// Id of the XDP program on a device of EDGE; `None` when there is none.
///
/// # Errors
/// When there is no such device.
pub fn program_on(topology: &Topology, device: &str) -> Result<Option<u64>> {
    let text = topology.edge.exec("ip", &["-json", "link", "show", "dev", device])?;
    let links: serde_json::Value = serde_json::from_str(&text).context("ip -json link")?;
    let xdp = &links[0]["xdp"];
    match xdp.is_null() {
        true => Ok(None),
        false => xdp["prog"]["id"].as_u64().map(Some).ok_or_else(|| anyhow!("ip link says {xdp}")),
    }
}

/// What of burst's is on EDGE: programs on devices, its pin directory, a mount beneath the testbed's directory,
/// neighbour entries that it added or marked. Empty on a host that burst never ran on.
///
/// # Errors
/// When EDGE cannot be asked.
pub fn remains(topology: &Topology) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let text = topology.edge.exec("ip", &["-json", "link", "show"])?;
    let links: serde_json::Value = serde_json::from_str(&text).context("ip -json link")?;
    for link in links.as_array().into_iter().flatten().filter(|link| !link["xdp"].is_null()) {
        found.push(format!("an XDP program on {}", link["ifname"]));
    }
    let pins = pin_dir(topology);
    if pins.exists() {
        found.push(format!("{}", pins.display()));
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").context("reading /proc/self/mountinfo")?;
    let own = pins.display().to_string();
    found.extend(mounts.lines().filter(|line| line.contains(&own)).map(|line| format!("a mount: {line}")));
    let neighbours = topology.edge.exec("ip", &["neigh", "show"])?;
    let ours = |line: &&str| line.contains("managed") || line.contains("proto 181") || line.contains("proto 182");
    found.extend(neighbours.lines().filter(ours).map(|line| format!("a neighbour: {line}")));
    Ok(found)
}
