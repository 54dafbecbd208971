//! A configuration as a generator makes it and a shrinker takes it apart, and its text.

use std::fmt::{self, Display, Write as _};
use std::net::IpAddr;

use ipnet::IpNet;

/// A configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Seed of the flow hash.
    pub seed: String,
    /// `mode = "shadow"`.
    pub shadow: bool,
    /// Devices of the clients.
    pub clients: Vec<&'static str>,
    /// Links.
    pub links: Vec<Link>,
    /// Classes.
    pub classes: Vec<Class>,
}

/// A link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Name.
    pub name: String,
    /// Device.
    pub device: &'static str,
    /// VLAN id; 0 is untagged.
    pub vlan: u16,
    /// Router; `None`: via the kernel.
    pub next_hop: Option<IpAddr>,
    /// MTU.
    pub mtu: u16,
    /// It stands in for others.
    pub fallback: bool,
    /// Sources of tunnels.
    pub source: Vec<IpAddr>,
}

/// A class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// Name.
    pub name: String,
    /// Rules.
    pub rules: Vec<Rule>,
    /// `None`: kept.
    pub burst: Option<Burst>,
}

/// A rule; what is empty is not named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Destinations.
    pub dst: Vec<IpNet>,
    /// Sources.
    pub src: Vec<IpNet>,
    /// `tcp` or `udp`.
    pub proto: Option<&'static str>,
    /// Ranges of ports.
    pub ports: Vec<(u16, u16)>,
}

/// What a burst class does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Burst {
    /// Affinity by client.
    pub by_client: bool,
    /// Slots.
    pub slots: u32,
    /// Tiers.
    pub tiers: Vec<Tier>,
}

/// A tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tier {
    /// Name.
    pub name: String,
    /// Mode, as written.
    pub mode: &'static str,
    /// Addresses.
    pub endpoints: Vec<IpAddr>,
    /// Renamed ports.
    pub ports: Vec<(u16, u16)>,
    /// UDP port of `gue`, if it is named.
    pub port: Option<u16>,
    /// Names of links.
    pub links: Vec<String>,
}

fn list<T: Display>(items: &[T]) -> String {
    let quoted: Vec<_> = items.iter().map(|item| format!("\"{item}\"")).collect();
    format!("[{}]", quoted.join(", "))
}

fn ports(ranges: &[(u16, u16)]) -> String {
    let range = |&(first, last): &(u16, u16)| match first == last {
        true => first.to_string(),
        false => format!("\"{first}-{last}\""),
    };
    format!("[{}]", ranges.iter().map(range).collect::<Vec<_>>().join(", "))
}

impl Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (!self.dst.is_empty()).then(|| format!("dst = {}", list(&self.dst))),
            (!self.src.is_empty()).then(|| format!("src = {}", list(&self.src))),
            self.proto.map(|proto| format!("proto = \"{proto}\"")),
            (!self.ports.is_empty()).then(|| format!("ports = {}", ports(&self.ports))),
        ];
        write!(f, "{{ {} }}", parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

/// The text, as an operator would write it.
impl Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = if self.shadow { "shadow" } else { "active" };
        writeln!(f, "version = 1\n\n[edge]\nname = \"edge-a1\"\nclient = {}", list(&self.clients))?;
        writeln!(f, "seed = \"{}\"\nmode = \"{mode}\"", self.seed)?;
        for link in &self.links {
            writeln!(f, "\n[[link]]\nname = \"{}\"\ndevice = \"{}\"", link.name, link.device)?;
            if link.vlan != 0 {
                writeln!(f, "vlan = {}", link.vlan)?;
            }
            match link.next_hop {
                Some(router) => writeln!(f, "next_hop = \"{router}\"")?,
                None => writeln!(f, "via = \"kernel\"")?,
            }
            writeln!(f, "mtu = {}", link.mtu)?;
            if link.fallback {
                writeln!(f, "fallback = true")?;
            }
            if !link.source.is_empty() {
                writeln!(f, "source = {}", list(&link.source))?;
            }
        }
        self.classes.iter().try_for_each(|class| class.write(f))
    }
}

impl Class {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n[class.{}]", self.name)?;
        if self.burst.is_none() {
            writeln!(f, "keep = true")?;
        }
        writeln!(f, "match = [")?;
        self.rules.iter().try_for_each(|rule| writeln!(f, "  {rule},"))?;
        writeln!(f, "]")?;
        let Some(burst) = &self.burst else { return Ok(()) };
        writeln!(f, "affinity = \"{}\"", if burst.by_client { "client" } else { "flow" })?;
        writeln!(f, "slots = {}\nwhen_full = \"local\"\nlocal = {{ capacity = \"1k flows/s\" }}", burst.slots)?;
        for tier in &burst.tiers {
            writeln!(f, "\n[[class.{}.tier]]\nname = \"{}\"\nmode = \"{}\"", self.name, tier.name, tier.mode)?;
            if !tier.endpoints.is_empty() {
                writeln!(f, "endpoints = {}", list(&tier.endpoints))?;
            }
            if !tier.ports.is_empty() {
                let mut pairs = String::new();
                for (n, (from, to)) in tier.ports.iter().enumerate() {
                    write!(pairs, "{}{from} = {to}", if n == 0 { "" } else { ", " })?;
                }
                writeln!(f, "ports = {{ {pairs} }}")?;
            }
            if let Some(port) = tier.port {
                writeln!(f, "port = {port}")?;
            }
            writeln!(f, "links = {}\ncapacity = \"1k flows/s\"", list(&tier.links))?;
        }
        Ok(())
    }
}
