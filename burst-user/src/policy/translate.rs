//! What a reply can be known by: for `dnat`, every (service address, port) that becomes an (endpoint address, port); for
//! tunnels, the endpoint's address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::model::{Class, Mode, Tier};

/// Protocol number of every tunnel in the return table, `ipip` (RFC 2003) and `gue` alike: an endpoint's address says which
/// it is.
pub const TUNNEL: u8 = 4;

/// One service port as one endpoint serves it, or a tunnel. Ports in host byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Translation {
    /// Endpoint address.
    pub endpoint: IpAddr,
    /// Endpoint port; 0 of a tunnel.
    pub port: u16,
    /// Protocol number; [`TUNNEL`] of a tunnel.
    pub proto: u8,
    /// Service address, of the same family; unspecified of a tunnel, which carries those of the class.
    pub service: IpAddr,
    /// Service port; 0 of a tunnel.
    pub service_port: u16,
}

/// What a port becomes in a tier.
#[must_use]
pub fn renamed(tier: &Tier, port: u16) -> u16 {
    tier.ports.iter().find(|(from, _)| *from == port).map_or(port, |(_, to)| *to)
}

/// The translations of a tier, in the order of rules, destinations, ports, endpoints. Rules that differ in their
/// sources alone yield the same ones again. Tunnel tiers have one for each endpoint, `nexthop` tiers none.
pub fn translations<'a>(class: &'a Class, tier: &'a Tier) -> impl Iterator<Item = Translation> + 'a {
    let rules = class.rules.iter().filter(|_| tier.mode == Mode::Dnat);
    let services = rules.filter_map(|rule| rule.proto.map(|proto| (rule, proto))).flat_map(|(rule, proto)| {
        let ports = move || rule.ports.iter().flat_map(|&(first, last)| first..=last);
        rule.dst.iter().flat_map(move |dst| ports().map(move |port| (dst.addr(), port, proto)))
    });
    let tunnels = tier.endpoints.iter().filter(|_| tier.mode.tunnels()).map(|&endpoint| {
        let service = if endpoint.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        Translation { endpoint, port: 0, proto: TUNNEL, service, service_port: 0 }
    });
    let services = services.flat_map(|(service, service_port, proto)| {
        let port = renamed(tier, service_port);
        let endpoints = tier.endpoints.iter().filter(move |endpoint| endpoint.is_ipv4() == service.is_ipv4());
        endpoints.map(move |&endpoint| Translation { endpoint, port, proto, service, service_port })
    });
    services.chain(tunnels)
}

/// How many [`translations`] yields, without making them: a port range is as wide as the operator wrote it.
#[must_use]
pub fn count(class: &Class, tier: &Tier) -> u64 {
    match tier.mode {
        Mode::Nexthop => return 0,
        Mode::Gue | Mode::Ipip => return tier.endpoints.len() as u64,
        Mode::Dnat => {}
    }
    let endpoints = |v4: bool| tier.endpoints.iter().filter(|endpoint| endpoint.is_ipv4() == v4).count() as u64;
    let rule = |rule: &crate::config::model::Rule| {
        let ports: u64 = rule.ports.iter().map(|&(first, last)| u64::from(last - first) + 1).sum();
        let addresses: u64 = rule.dst.iter().map(|dst| endpoints(dst.addr().is_ipv4())).sum();
        ports * addresses
    };
    class.rules.iter().map(rule).sum()
}
