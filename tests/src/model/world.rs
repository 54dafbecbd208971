//! What a packet's fate depends on: the configuration, and the state of an edge host at that moment.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use burst::config::model::{Burst, Class, Config, Rule, Tier};

use super::hash::{self, Flow};
use super::routes::Routes;

/// An edge host and its moment.
#[derive(Clone, Debug)]
pub struct World {
    /// As the operator wrote it.
    pub config: Config,
    /// Devices that burst is attached to.
    pub devices: Vec<Device>,
    /// Links, in the order of the configuration.
    pub lines: Vec<Line>,
    /// Slots that are not local: (class, IPv6, slot) → where its flows go. All are stable.
    pub slots: BTreeMap<(usize, bool, u32), Place>,
    /// `burst bypass on`.
    pub bypass: bool,
    /// The way to the clients' gateway is cached: nothing depends on that, and that is the point.
    pub cached: bool,
    /// What the kernel would do with a packet.
    pub routes: Routes,
}

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Name.
    pub name: &'static str,
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Client traffic arrives on it.
    pub client: bool,
}

/// Whether a link can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It can.
    Up,
    /// Its row says that it is down, and endpoints still name it.
    Down,
    /// Down, and no endpoint names it any more.
    Out,
}

/// A link as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Device; of a VLAN, the parent.
    pub device: &'static str,
    /// 802.1Q VLAN id; 0 is untagged.
    pub vlan: u16,
    /// MAC addresses of the next hop and of the device.
    pub macs: [[u8; 6]; 2],
    /// Largest IP packet.
    pub mtu: u16,
    /// Whether it can be used.
    pub state: State,
    /// The routing table decides where its packets go.
    pub via_kernel: bool,
    /// Used only where no other link of an endpoint can be.
    pub fallback: bool,
    /// Source of IPv4 tunnels.
    pub source4: Option<Ipv4Addr>,
    /// Source of IPv6 tunnels.
    pub source6: Option<Ipv6Addr>,
}

/// Where the flows of a slot go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// To an endpoint: tier and address by their numbers; the second is 0 for `nexthop`.
    Endpoint(usize, usize),
    /// To an endpoint that is not there.
    Nowhere,
}

/// What a rule decides on: the addresses as they are, and protocol and destination port if there are any.
#[derive(Clone, Copy, Debug)]
pub struct Tuple {
    /// Source.
    pub source: IpAddr,
    /// Destination.
    pub destination: IpAddr,
    /// Protocol number.
    pub protocol: u8,
    /// Destination port.
    pub port: u16,
}

impl From<&Flow> for Tuple {
    fn from(flow: &Flow) -> Self {
        Self {
            source: flow.source.ip(),
            destination: flow.destination.ip(),
            protocol: flow.protocol,
            port: flow.destination.port(),
        }
    }
}

/// Whether a rule matches; a dimension that it does not name matches all.
pub fn matches(rule: &Rule, tuple: &Tuple) -> bool {
    let within = |prefixes: &[ipnet::IpNet], address| prefixes.iter().any(|prefix| prefix.contains(&address));
    (rule.dst.is_empty() || within(&rule.dst, tuple.destination))
        && (rule.src.is_empty() || within(&rule.src, tuple.source))
        && rule.proto.is_none_or(|protocol| protocol == tuple.protocol)
        && (rule.ports.is_empty() || rule.ports.iter().any(|&(first, last)| (first..=last).contains(&tuple.port)))
}

/// A burst class.
#[derive(Clone, Copy, Debug)]
pub struct Shift<'a> {
    /// Its number in the configuration.
    pub number: usize,
    /// The class.
    pub class: &'a Class,
    /// What it does.
    pub burst: &'a Burst,
}

/// What the first rule that matches says.
#[derive(Clone, Copy, Debug)]
pub enum Decision<'a> {
    /// No rule matches.
    Nobody,
    /// Payment.
    Keep,
    /// A burst class.
    Burst(Shift<'a>),
}

/// Where a flow goes.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The tier of the endpoint.
    pub tier: &'a Tier,
    /// Its address; `None` for `nexthop`.
    pub address: Option<IpAddr>,
}

impl World {
    /// The decision on a tuple: rules of keep classes come first, then the file's order.
    pub fn decide(&self, tuple: &Tuple) -> Decision<'_> {
        let matching = |class: &Class| class.rules.iter().any(|rule| matches(rule, tuple));
        if self.config.classes.iter().any(|class| class.burst.is_none() && matching(class)) {
            return Decision::Keep;
        }
        for (number, class) in self.config.classes.iter().enumerate() {
            if let Some(burst) = class.burst.as_ref().filter(|_| matching(class)) {
                return Decision::Burst(Shift { number, class, burst });
            }
        }
        Decision::Nobody
    }

    /// The hash of a flow.
    pub fn hash(&self, flow: &Flow) -> u64 {
        hash::flow(hash::seed(&self.config.edge.seed), flow)
    }

    /// The slot of a flow in its class and family.
    pub fn slot(&self, shift: &Shift<'_>, flow: &Flow) -> u32 {
        let hash = match shift.burst.affinity {
            burst::config::model::Affinity::Flow => self.hash(flow),
            burst::config::model::Affinity::Client => {
                hash::client(hash::seed(&self.config.edge.seed), flow.source.ip())
            }
        };
        (hash % u64::from(shift.burst.slots)) as u32
    }

    /// Where the flow's slot sends it.
    pub fn place(&self, shift: &Shift<'_>, flow: &Flow) -> Option<Place> {
        self.slots.get(&(shift.number, flow.source.is_ipv6(), self.slot(shift, flow))).copied()
    }

    /// The device of a name.
    pub fn device(&self, name: &str) -> &Device {
        self.devices.iter().find(|device| device.name == name).expect("a device of this host")
    }

    /// The links on a device with this VLAN. What comes by a link of `via = "kernel"` is another program's.
    pub fn lines_on<'a>(&'a self, device: &'a str, vlan: u16) -> impl Iterator<Item = &'a Line> {
        self.lines.iter().filter(move |line| !line.via_kernel && line.device == device && line.vlan == vlan)
    }

    /// The link of a tier that a flow with this hash takes, up or down; `None` when there is none.
    ///
    /// An endpoint has eight places for its links, filled with them in turn; the highest bits of the hash choose the
    /// place.
    pub fn line(&self, tier: &Tier, hash: u64) -> Option<&Line> {
        let named = |name: &String| {
            let number = self.config.links.iter().position(|link| link.name == *name).expect("a link of the file");
            &self.lines[number]
        };
        let mut known: Vec<&Line> = tier.links.iter().map(named).filter(|line| line.state != State::Out).collect();
        if known.iter().any(|line| !line.fallback) {
            known.retain(|line| !line.fallback);
        }
        let place = (hash >> 48) % 8;
        known.get(place as usize % known.len().max(1)).copied()
    }
}
