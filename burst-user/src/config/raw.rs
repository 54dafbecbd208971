//! A configuration as it was read: typed, each value with its place, nothing yet compared with anything else.

use std::net::IpAddr;

use ipnet::IpNet;

use super::diagnostics::Span;
use super::model;
use super::read::At;

/// A whole file.
pub(super) struct File {
    pub(super) edge: Edge,
    pub(super) links: Vec<Link>,
    pub(super) classes: Vec<Class>,
}

/// `[edge]`.
pub(super) struct Edge {
    /// Everything; `client` is checked against links.
    pub(super) edge: model::Edge,
    /// The client devices, with their places.
    pub(super) client: Vec<At<String>>,
}

/// `[[link]]`.
pub(super) struct Link {
    pub(super) name: At<String>,
    pub(super) device: At<String>,
    pub(super) vlan: Option<At<u16>>,
    /// `None`: `via = "kernel"`.
    pub(super) next_hop: Option<At<IpAddr>>,
    /// Where none is written, its place is the name's.
    pub(super) mtu: At<u16>,
    pub(super) fallback: bool,
    /// At most one of each family.
    pub(super) source: Vec<At<IpAddr>>,
    pub(super) out_bps: Option<u64>,
    pub(super) in_bps: Option<u64>,
}

/// `[class.NAME]`.
pub(super) struct Class {
    pub(super) name: At<String>,
    pub(super) rules: Vec<Rule>,
    /// `None` for keep classes.
    pub(super) burst: Option<Burst>,
}

/// An element of `match`.
pub(super) struct Rule {
    pub(super) span: Span,
    pub(super) dst: Vec<At<IpNet>>,
    pub(super) src: Vec<At<IpNet>>,
    pub(super) proto: Option<u8>,
    pub(super) ports: Vec<At<(u16, u16)>>,
}

/// What a burst class has beyond its rules.
pub(super) struct Burst {
    /// Everything but the tiers.
    pub(super) burst: model::Burst,
    /// Whether `affinity` was written; else it depends on the protocols.
    pub(super) affinity: Option<model::Affinity>,
    /// Where `udp` was written, if it was.
    pub(super) udp: Option<Span>,
    pub(super) tiers: Vec<Tier>,
}

/// `[[class.NAME.tier]]`.
pub(super) struct Tier {
    pub(super) name: At<String>,
    pub(super) mode: At<model::Mode>,
    pub(super) endpoints: Vec<At<IpAddr>>,
    /// (service port, endpoint port).
    pub(super) ports: Vec<(At<u16>, At<u16>)>,
    /// UDP port of `gue`; where none is written, its place is the mode's. `None` for other modes.
    pub(super) port: Option<At<u16>>,
    pub(super) links: At<Vec<At<String>>>,
    pub(super) capacity: f64,
    pub(super) health: Option<model::Health>,
}
