//! The validated configuration: what the rest of the program works with. Every value here was checked; nothing here
//! refers to the text it came from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

/// A whole configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// This host.
    pub edge: Edge,
    /// Ways to the cloud, in the order of the file. Names are unique.
    pub links: Vec<Link>,
    /// Classes, in the order of the file: at least one. Names are unique.
    pub classes: Vec<Class>,
}

/// This host.
#[derive(Clone, Debug, PartialEq)]
pub struct Edge {
    /// Name of this edge host.
    pub name: String,
    /// Devices that client traffic arrives on; at least one, no doubles.
    pub client: Vec<String>,
    /// Seed of the flow hash, the same on every edge host.
    pub seed: String,
    /// `mode = "shadow"`: decide and count, shift nothing.
    pub shadow: bool,
    /// Directory of the pins, absolute, on a bpffs of burst's own. Default `/run/burst/bpf`.
    pub pin_dir: PathBuf,
    /// Directory of state that outlives a reboot. Default `/var/lib/burst`.
    pub state_dir: PathBuf,
    /// The API's Unix socket. Default `/run/burst/burst.sock`.
    pub socket: PathBuf,
    /// What SIGTERM does: leave traffic running (the default) or detach.
    pub on_exit: OnExit,
    /// How the program is attached: native (the default) or generic, never the one for the other.
    pub xdp: XdpMode,
    /// What becomes of new flows when no daemon leads any more.
    pub lease: Lease,
    /// How often the controller decides. Default 250 ms; 50 ms to 10 s.
    pub tick: Duration,
    /// Log each packet of a class that comes from a client, through aya-log. Default false.
    pub trace: bool,
    /// What is done with a kept tuple that the kernel itself sends to a link. Default report.
    pub sentinel: Sentinel,
}

/// What becomes of new flows when no daemon leads any more: none of them meets the flows that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// How long the daemon's word counts after it was given. Default 5 s; 1 s to 1 h, and no less than four ticks.
    pub lasts: Duration,
    /// How long after that new flows go where they went. Default 15 min; up to 7 days.
    pub hold: Duration,
    /// In what time after that all of them come home, slot by slot. Default 10 min; 1 s to 7 days.
    pub home: Duration,
}

/// What is done with a kept tuple that the kernel itself sends to a link. What burst sends is always stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sentinel {
    /// It is reported and goes on.
    Report,
    /// It is reported and dropped.
    Enforce,
}

/// What SIGTERM does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExit {
    /// The pinned program, links and maps stay; traffic does not notice.
    Leave,
    /// As `burst detach`.
    Detach,
}

/// How the program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the stack: slow, for tests of drivers that cannot do better.
    Generic,
}

/// One way to the cloud.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// Name.
    pub name: String,
    /// Device the next hop is behind; of a VLAN, the parent. Without a next hop, the device the routing table sends by.
    pub device: String,
    /// 802.1Q VLAN id, 1–4094. Only with a next hop.
    pub vlan: Option<u16>,
    /// Address of the Direct Connect router on `device`; `None` for `via = "kernel"`: the routing table picks the way.
    pub next_hop: Option<IpAddr>,
    /// Largest IP packet in bytes, 1280–9216. Default 1500.
    pub mtu: u16,
    /// Used only where no other link of an endpoint is up. Default false.
    pub fallback: bool,
    /// Source of IPv4 tunnels over it. Only with a next hop.
    pub source4: Option<Ipv4Addr>,
    /// Source of IPv6 tunnels over it. Only with a next hop.
    pub source6: Option<Ipv6Addr>,
    /// Bits per second towards the cloud; `None` when not given.
    pub out_bps: Option<u64>,
    /// Bits per second from the cloud; `None` when not given.
    pub in_bps: Option<u64>,
}

/// A named set of rules with a policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Class {
    /// Name.
    pub name: String,
    /// What its packets match: at least one rule.
    pub rules: Vec<Rule>,
    /// `None` for `keep` classes.
    pub burst: Option<Burst>,
}

/// A match rule; an empty dimension matches all.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Destination prefixes, host bits zero.
    pub dst: Vec<IpNet>,
    /// Source prefixes, host bits zero.
    pub src: Vec<IpNet>,
    /// IP protocol (TCP 6, UDP 17); `None` matches all.
    pub proto: Option<u8>,
    /// Destination ports, inclusive ranges, host byte order. Only with `proto`. Empty: all.
    pub ports: Vec<(u16, u16)>,
}

/// What a burst class does.
#[derive(Clone, Debug, PartialEq)]
pub struct Burst {
    /// What selects the slot. Default by flow; by client when a rule is of UDP.
    pub affinity: Affinity,
    /// A flow unseen for so long is over. Default 120 s; 1 s to 24 h.
    pub idle_timeout: Duration,
    /// How long packets of flows are held (dropped, so that their senders try again) whose endpoint no link leads to. After that
    /// they go on to the local stack, which resets them. Default 15 s; up to 10 min.
    pub hold: Duration,
    /// Which UDP packets open flows. Default sticky.
    pub udp: Udp,
    /// What becomes of flows that fit nowhere. No default.
    pub when_full: WhenFull,
    /// Largest share of new flows that may leave, 0–1. Default 1.
    pub max_offsite_share: f64,
    /// Slots per address family, a power of two, 64–4096. Default 4096.
    pub slots: u32,
    /// The premises.
    pub local: Local,
    /// Tiers, in the order in which they fill. At least one.
    pub tiers: Vec<Tier>,
}

/// Which UDP packets of a class open flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Udp {
    /// None: a flow stays where its slot had it, until nothing is heard of it for `idle_timeout`.
    Sticky,
    /// QUIC Initials, of version 1 and 2.
    Quic,
    /// Each is a flow by itself.
    PerPacket,
}

/// What selects a flow's slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Affinity {
    /// Its 5-tuple.
    Flow,
    /// Its source address.
    Client,
}

/// What becomes of new flows that fit nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// They stay local.
    Local,
}

/// The local side of a class.
#[derive(Clone, Debug, PartialEq)]
pub struct Local {
    /// Load to aim at, as a fraction of the limit: above 0, at most 1. Default 0.75.
    pub target: f64,
    /// New flows per second that make a load of 1; `None`: learned from the load sources.
    pub capacity: Option<f64>,
    /// Where the load is read. May be empty when `capacity` is given.
    pub load: Vec<LoadSource>,
    /// How fast flows come home, as a share of all new flows per second. Default 0.05; above 0, at most 1.
    pub home_rate: f64,
    /// How long the demand must have been lower before flows come home. Default 10 s.
    pub stabilize: Duration,
    /// Changes of the share smaller than this are not made on the way home. Default 0.02; 0–0.5.
    pub dead_band: f64,
    /// How long the last share is held when every load source is stale; with a configured `capacity` demand alone
    /// decides then. Default 60 s.
    pub hold: Duration,
    /// Local share to go to after `hold`, at `home_rate`. Default 1.
    pub fallback: f64,
}

/// One source of local load.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadSource {
    /// What is read.
    pub kind: LoadKind,
    /// Value that is a load of 1. Above 0.
    pub limit: f64,
    /// Deadline of one read. Default 200 ms.
    pub timeout: Duration,
    /// Pause between reads. Default 250 ms.
    pub every: Duration,
}

/// What a load source reads.
#[derive(Clone, Debug, PartialEq)]
pub enum LoadKind {
    /// A Prometheus or OpenMetrics text endpoint, scraped directly.
    Metrics {
        /// `http://HOST:PORT/PATH`.
        url: String,
        /// Name of the sample.
        metric: String,
        /// Labels a sample must have, with these values.
        labels: Vec<(String, String)>,
        /// How several samples become one value. Default their sum.
        combine: Combine,
        /// The metric is a counter: its rate per second is the value.
        rate: bool,
    },
    /// HAProxy's stats socket (`show stat`).
    Haproxy {
        /// Path of the socket.
        socket: PathBuf,
        /// `pxname` of the rows.
        proxy: String,
        /// `svname` of the rows: `BACKEND`, `FRONTEND` or a server. Default `BACKEND`.
        server: String,
        /// Column, such as `scur`, `qcur`, `rate`.
        field: String,
    },
}

/// How several samples become one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Combine {
    /// Their sum.
    Sum,
    /// The largest.
    Max,
    /// Their mean.
    Avg,
}

/// A group of endpoints with a capacity.
#[derive(Clone, Debug, PartialEq)]
pub struct Tier {
    /// Name, unique in its class.
    pub name: String,
    /// How a packet is rewritten.
    pub mode: Mode,
    /// Addresses; empty for `nexthop`, at least one otherwise. Of tunnels, where the outer packet goes.
    pub endpoints: Vec<IpAddr>,
    /// (service port, endpoint port); unnamed ports are preserved. At most eight, only for `dnat`.
    pub ports: Vec<(u16, u16)>,
    /// UDP port that `gue` sends to; `None` for other modes. Default 6080.
    pub port: Option<u16>,
    /// Names of its links: one to eight, each once.
    pub links: Vec<String>,
    /// New flows per second that the whole tier can take.
    pub capacity: f64,
    /// How its endpoints are probed; `None`: they are not, and count as healthy while a link is up. Not for `nexthop`.
    pub health: Option<Health>,
}

/// How the endpoints of a tier are probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// What is asked of them.
    pub probe: Probe,
    /// From one probe of an endpoint over a link to the next. Default 1 s; 100 ms to 1 h.
    pub every: Duration,
    /// Deadline of a probe, at most `every`. Default 500 ms, or `every` where that is less.
    pub timeout: Duration,
    /// Failures in a row that count. Default 3; 1 to 100.
    pub fall: u32,
    /// Successes in a row that count. Default 2; 1 to 100.
    pub rise: u32,
    /// An endpoint that was silent over all its links for so long is dead. Default 30 s; 1 s to 24 h.
    pub dead_after: Duration,
}

/// What a probe asks of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// That it accepts a connection.
    Tcp {
        /// Its port.
        port: u16,
    },
    /// That it answers a GET with a status from 200 to 399.
    Http {
        /// Its port.
        port: u16,
        /// Path and query, from the slash on.
        path: String,
    },
}

impl Probe {
    /// Port that is connected to.
    #[must_use]
    pub const fn port(&self) -> u16 {
        match self {
            Self::Tcp { port } | Self::Http { port, .. } => *port,
        }
    }
}

/// How a packet is rewritten on its way to a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Layer 2 only.
    Nexthop,
    /// Destination address and port.
    Dnat,
    /// Inside UDP, by Generic UDP Encapsulation.
    Gue,
    /// Inside another IP packet.
    Ipip,
}

impl Mode {
    /// Whether a packet travels whole inside another one.
    #[must_use]
    pub const fn tunnels(self) -> bool {
        matches!(self, Self::Gue | Self::Ipip)
    }

    /// As it is written.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Nexthop => "nexthop",
            Self::Dnat => "dnat",
            Self::Gue => "gue",
            Self::Ipip => "ipip",
        }
    }
}

impl Tier {
    /// Names of its endpoints within the class: `tier/address`, or just `tier` for `nexthop`.
    #[must_use]
    pub fn endpoint_names(&self) -> Vec<String> {
        match self.mode {
            Mode::Nexthop => vec![self.name.clone()],
            Mode::Dnat | Mode::Gue | Mode::Ipip => {
                self.endpoints.iter().map(|address| format!("{}/{address}", self.name)).collect()
            }
        }
    }
}
