//! Configuration and ids → everything that is written before the program runs.

use burst_common::endpoint::{Endpoint, MODE_DNAT, MODE_GUE, MODE_IPIP, MODE_NEXTHOP, PortPair, link_table, overhead};
use burst_common::flow::wide;
use burst_common::hash;
use burst_common::limits::{ENDPOINT_LINKS, ENDPOINT_PORTS, MAX_CLASS_SLOTS, MAX_PREFIXES, MAX_RULES};
use burst_common::policy::{self, BY_CLIENT, Guard, KEEP, NEXTHOP, PER_PACKET, Policy, QUIC, ROOM_SHIFT, TAGGED};
use burst_common::returns::Return;
use burst_common::slot::{self, EndpointId};
use bytemuck::Zeroable;

use super::dimensions::{Large, Rows};
use super::ids::{Ids, endpoint_key};
use super::returns::{Full, ReturnTable};
use super::translate::translations;
use crate::config::model::{Affinity, Class, Config, Link, Mode, Rule, Sentinel, Tier, Udp};

/// A compiled configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Compiled {
    /// What the program is told. `role` is 0: the loader sets it for each device.
    pub policy: Policy,
    /// The rows of the maps, when the policy does not fit inline.
    pub large: Option<Large>,
    /// What guard and sentinel consult: the keep rules, compiled by themselves.
    pub guard: Guard,
    /// The rows of the guard's maps, when the keep rules do not fit inline.
    pub guard_large: Option<Large>,
    /// Rows of the return table that are in use, by number; all others are free.
    pub returns: Vec<(usize, Return)>,
    /// Endpoints, in the order of the file.
    pub endpoints: Vec<CompiledEndpoint>,
    /// What each bit of a rule bitmap stands for.
    pub rules: Vec<RuleName>,
}

/// An endpoint, ready for its table.
#[derive(Clone, Debug, PartialEq)]
pub struct CompiledEndpoint {
    /// Its id.
    pub id: EndpointId,
    /// `class/tier/address`, or `class/tier` for `nexthop`.
    pub name: String,
    /// Its row, with a `links` word of 0: it cannot be reached until links are published. Its `room` is what the
    /// configured MTUs leave; devices may leave less.
    pub row: Endpoint,
    /// Ids of the links it may use, in the order of the file, at most eight.
    pub links: Vec<u8>,
    /// Those of them that only stand in for the others.
    pub fallback: Vec<u8>,
}

impl CompiledEndpoint {
    /// The `links` word when only the links for which `up` holds can be used: those that stand in for others only where
    /// none of the others can.
    #[must_use]
    pub fn links_word(&self, up: impl Fn(u8) -> bool) -> u64 {
        let up: Vec<u8> = self.links.iter().copied().filter(|&link| up(link)).collect();
        let first: Vec<u8> = up.iter().copied().filter(|link| !self.fallback.contains(link)).collect();
        link_table(if first.is_empty() { &up } else { &first })
    }

    /// The row's `room` when a link carries IP packets of `mtu` bytes.
    #[must_use]
    pub fn room(&self, mtu: impl Fn(u8) -> u16) -> u16 {
        let least = self.links.iter().map(|&link| mtu(link)).min().unwrap_or(0);
        least.saturating_sub(overhead(self.row.mode, self.row.family))
    }

    /// Whether it can take packets of a family, 4 or 6: `dnat` keeps the family, all other modes carry both.
    #[must_use]
    pub fn takes(&self, family: u8) -> bool {
        self.row.mode != MODE_DNAT || self.row.family == family
    }
}

/// The rule behind a bit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleName {
    /// Class.
    pub class: String,
    /// Position among the class's rules, counted from 0.
    pub index: usize,
}

/// Why a configuration does not compile. A validated one fails only where ids are missing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// A name without an id.
    #[error("{kind} `{name}` has no id; the ids belong to another configuration")]
    NoId {
        /// "class", "link" or "endpoint".
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// More rules than bits.
    #[error("{rules} rules; at most {MAX_RULES} are possible")]
    TooManyRules {
        /// Rules of all classes.
        rules: usize,
    },
    /// More prefixes than a map holds.
    #[error("{prefixes} {dimension} prefixes; at most {MAX_PREFIXES} are possible")]
    TooManyPrefixes {
        /// Which ones.
        dimension: &'static str,
        /// How many.
        prefixes: usize,
    },
    /// A value that does not fit its row.
    #[error("class `{class}`: {what}")]
    OutOfRange {
        /// The class.
        class: String,
        /// What does not fit.
        what: &'static str,
    },
    /// The return table.
    #[error("class `{class}`: {source}")]
    Returns {
        /// The class whose row found no place.
        class: String,
        /// Why.
        source: Full,
    },
}

/// Compiles a validated configuration.
///
/// # Errors
/// When `ids` were not assigned for `config`, or when `config` was not validated and exceeds a capacity.
pub fn compile(config: &Config, ids: &Ids) -> Result<Compiled, CompileError> {
    let mut policy = Policy::zeroed();
    policy.seed = hash::seed(&config.edge.seed);
    policy.shadow = u32::from(config.edge.shadow);

    let numbered = numbered(config);
    if numbered.len() > MAX_RULES {
        return Err(CompileError::TooManyRules { rules: numbered.len() });
    }
    for (number, (class, ..)) in numbered.iter().enumerate() {
        policy.rule_class[number] = class_id(class, ids)?;
        if class.burst.is_none() {
            policy.keep |= 1 << number;
        }
    }
    let rows = Rows::new(numbered.iter().map(|(_, _, rule)| *rule));
    check_size(&rows)?;
    let large = match rows.inline() {
        Ok(dims) => {
            policy.dims = dims;
            None
        }
        Err(_) => {
            policy.dims = rows.any_only();
            policy.large = 1;
            Some(rows.large())
        }
    };

    let (mut guard, guard_large) =
        guard(numbered.iter().filter(|(class, ..)| class.burst.is_none()).map(|(_, _, rule)| *rule));

    guard.enforce = u32::from(config.edge.sentinel == Sentinel::Enforce);

    let mut endpoints = Vec::new();
    let mut returns = ReturnTable::default();
    for class in &config.classes {
        let id = class_id(class, ids)?;
        policy.classes[usize::from(id)] = class_row(class, id, &config.links)?;
        for tier in class.burst.iter().flat_map(|burst| &burst.tiers) {
            endpoints.extend(tier_rows(class, id, tier, &config.links, ids)?);
            for translation in translations(class, tier) {
                let endpoint =
                    endpoint_id(&endpoint_key(&class.name, &format!("{}/{}", tier.name, translation.endpoint)), ids)?;
                let full = |source| CompileError::Returns { class: class.name.clone(), source };
                returns.insert(&translation, id, endpoint).map_err(full)?;
            }
        }
    }
    let rules =
        numbered.iter().map(|(class, index, _)| RuleName { class: class.name.clone(), index: *index }).collect();
    for endpoint in &endpoints {
        policy.modes |= 1 << endpoint.row.mode;
    }
    if config.links.iter().any(|link| link.vlan.is_some()) {
        policy.modes |= TAGGED;
    }
    Ok(Compiled { policy, large, guard, guard_large, returns: returns.into_rows(), endpoints, rules })
}

/// The keep rules, compiled by themselves; at most 64.
#[must_use]
pub fn guard<'a>(keep: impl IntoIterator<Item = &'a Rule>) -> (Guard, Option<Large>) {
    let rows = Rows::new(keep);
    match rows.inline() {
        Ok(dims) => (Guard { dims, ..Guard::zeroed() }, None),
        Err(_) => (Guard { large: 1, dims: rows.any_only(), ..Guard::zeroed() }, Some(rows.large())),
    }
}

/// What two configurations keep, together, with `enforce` as the second says; `None` when these are more rules than bits.
#[must_use]
pub fn guard_of_both(former: &Config, new: &Config) -> Option<(Guard, Option<Large>)> {
    let keep =
        |config| numbered(config).into_iter().filter(|(class, ..)| class.burst.is_none()).map(|(_, _, rule)| rule);
    let mut rules: Vec<&Rule> = keep(new).collect();
    for rule in keep(former) {
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    let (guard, large) = (rules.len() <= MAX_RULES).then(|| guard(rules))?;
    Some((Guard { enforce: u32::from(new.edge.sentinel == Sentinel::Enforce), ..guard }, large))
}

/// All rules in the order of their bits: those of keep classes first, else as in the file.
#[must_use]
pub fn numbered(config: &Config) -> Vec<(&Class, usize, &Rule)> {
    let of = |keep: bool| {
        let classes = config.classes.iter().filter(move |class| class.burst.is_none() == keep);
        classes.flat_map(|class| class.rules.iter().enumerate().map(move |(index, rule)| (class, index, rule)))
    };
    of(true).chain(of(false)).collect()
}

fn class_id(class: &Class, ids: &Ids) -> Result<u8, CompileError> {
    ids.classes.get(&class.name).copied().ok_or_else(|| CompileError::NoId { kind: "class", name: class.name.clone() })
}

fn endpoint_id(name: &str, ids: &Ids) -> Result<EndpointId, CompileError> {
    ids.endpoints.get(name).copied().ok_or_else(|| CompileError::NoId { kind: "endpoint", name: name.to_owned() })
}

fn check_size(rows: &Rows) -> Result<(), CompileError> {
    let sizes = [
        ("IPv4 destination", rows.dst4.rows.len()),
        ("IPv4 source", rows.src4.rows.len()),
        ("IPv6 destination", rows.dst6.rows.len()),
        ("IPv6 source", rows.src6.rows.len()),
    ];
    match sizes.into_iter().find(|(_, prefixes)| *prefixes > MAX_PREFIXES) {
        Some((dimension, prefixes)) => Err(CompileError::TooManyPrefixes { dimension, prefixes }),
        None => Ok(()),
    }
}

/// What the packet path is told of a class.
fn class_row(class: &Class, id: u8, links: &[Link]) -> Result<policy::Class, CompileError> {
    let row = policy::Class { base4: slot::base(id, 4), base6: slot::base(id, 6), mask: 0, flags: KEEP };
    let Some(burst) = &class.burst else { return Ok(row) };
    if !burst.slots.is_power_of_two() || burst.slots as usize > MAX_CLASS_SLOTS {
        return Err(CompileError::OutOfRange {
            class: class.name.clone(),
            what: "`slots` is not a power of two, or too large",
        });
    }
    let by_client = if burst.affinity == Affinity::Client { BY_CLIENT } else { 0 };
    let udp = match burst.udp {
        Udp::Sticky => 0,
        Udp::Quic => QUIC,
        Udp::PerPacket => PER_PACKET,
    };
    let nexthop = if burst.tiers.iter().any(|tier| tier.mode == Mode::Nexthop) { NEXTHOP } else { 0 };
    // The smallest way of its `nexthop` tiers, whose replies name no endpoint.
    let named = burst.tiers.iter().filter(|tier| tier.mode == Mode::Nexthop).flat_map(|tier| &tier.links);
    let room = named.filter_map(|name| links.iter().find(|link| link.name == *name)).map(|link| link.mtu).min();
    let room = u32::from(room.unwrap_or(0)) << ROOM_SHIFT;
    Ok(policy::Class { mask: burst.slots - 1, flags: by_client | udp | nexthop | room, ..row })
}

fn tier_rows(
    class: &Class,
    id: u8,
    tier: &Tier,
    all: &[Link],
    ids: &Ids,
) -> Result<Vec<CompiledEndpoint>, CompileError> {
    let out_of_range = |what| CompileError::OutOfRange { class: class.name.clone(), what };
    let link = |name: &String| {
        let missing = || CompileError::NoId { kind: "link", name: name.clone() };
        let id = ids.links.get(name).copied().ok_or_else(missing)?;
        Ok((id, all.iter().find(|link| link.name == *name).ok_or_else(missing)?))
    };
    let named = tier.links.iter().map(link).collect::<Result<Vec<(u8, &Link)>, _>>()?;
    let links: Vec<u8> = named.iter().map(|(id, _)| *id).collect();
    let fallback: Vec<u8> = named.iter().filter(|(_, link)| link.fallback).map(|(id, _)| *id).collect();
    let mtu = |id| named.iter().find(|(named, _)| *named == id).map_or(0, |(_, link)| link.mtu);
    if links.len() > ENDPOINT_LINKS {
        return Err(out_of_range("a tier names more than eight links"));
    }
    if tier.ports.len() > ENDPOINT_PORTS {
        return Err(out_of_range("a tier renames more than eight ports"));
    }
    let mut row = Endpoint::zeroed();
    row.class = id;
    row.mode = match tier.mode {
        Mode::Nexthop => MODE_NEXTHOP,
        Mode::Dnat => MODE_DNAT,
        Mode::Gue => MODE_GUE,
        Mode::Ipip => MODE_IPIP,
    };
    row.tunnel_port = tier.port.map_or(0, u16::to_be);
    for (pair, &(from, to)) in row.ports.iter_mut().zip(&tier.ports) {
        *pair = PortPair { from: from.to_be(), to: to.to_be() };
    }
    let addresses: Vec<_> = match tier.mode {
        Mode::Nexthop => vec![None],
        Mode::Dnat | Mode::Gue | Mode::Ipip => tier.endpoints.iter().copied().map(Some).collect(),
    };
    let endpoint = |(name, address): (String, Option<std::net::IpAddr>)| {
        let mut row = row;
        if let Some(address) = address {
            row.address = wide(address);
            row.family = if address.is_ipv4() { 4 } else { 6 };
            row.overhead = overhead(row.mode, row.family) as u8;
        }
        let name = endpoint_key(&class.name, &name);
        let (links, fallback) = (links.clone(), fallback.clone());
        let mut endpoint = CompiledEndpoint { id: endpoint_id(&name, ids)?, name, row, links, fallback };
        endpoint.row.room = endpoint.room(mtu);
        Ok(endpoint)
    };
    tier.endpoint_names().into_iter().zip(addresses).map(endpoint).collect()
}
