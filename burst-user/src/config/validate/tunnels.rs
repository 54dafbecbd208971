//! Modes against the links they go over: what a tunnel needs of a link, how much room it leaves, and which modes cannot
//! tell their replies from clients there.

use std::net::IpAddr;

use burst_common::endpoint::{MODE_GUE, MODE_IPIP, overhead};
use burst_common::flow::UDP;

use super::rules;
use super::tiers;
use crate::config::diagnostics::Diagnostic;
use crate::config::model::Mode;
use crate::config::raw::{Class, File, Link, Tier};
use crate::config::read::{At, Sink};

/// The least that an IPv6 link carries (RFC 8200, section 5).
const IPV6_LEAST: u16 = 1280;

/// Checks every tier, and the sources that tunnels come from.
pub(super) fn check(file: &File, sink: &Sink) {
    for source in file.links.iter().flat_map(|link| &link.source) {
        collisions(file, source, sink);
    }
    for (class, tier) in tiers(file) {
        // Names that no link has were reported.
        let links =
            tier.links.iter().filter_map(|at| Some((at, file.links.iter().find(|link| link.name.value == at.value)?)));
        for (place, link) in links {
            match tier.mode.value {
                Mode::Dnat => {}
                Mode::Nexthop => kernel(
                    tier,
                    place,
                    link,
                    "the packet keeps its destination, so that the routing table would send it to the premises",
                    sink,
                ),
                Mode::Gue | Mode::Ipip => {
                    kernel(
                        tier,
                        place,
                        link,
                        "the routing table would choose the source of its tunnels, and their way back is not known",
                        sink,
                    );
                    sources(tier, place, link, sink);
                    room(class, tier, place, link, sink);
                }
            }
        }
        match tier.mode.value {
            Mode::Nexthop => apart(file, tier, sink),
            Mode::Gue => disguise(file, tier, sink),
            Mode::Dnat | Mode::Ipip => {}
        }
    }
}

/// Only `dnat` goes over a link that the routing table picks.
fn kernel(tier: &Tier, place: &At<String>, link: &Link, why: &str, sink: &Sink) {
    if link.next_hop.is_none() {
        let (tier, mode, link) = (&tier.name.value, tier.mode.value.word(), &link.name.value);
        let message = format!("tier `{tier}` is of mode {mode}, and link `{link}` is via the kernel: {why}");
        sink.push(
            Diagnostic::error(place.span, message).help("name a link with a `next_hop`, or write mode = \"dnat\""),
        );
    }
}

fn family(v4: bool) -> &'static str {
    if v4 { "IPv4" } else { "IPv6" }
}

/// A tunnel comes from an address of its link, of its outer family.
fn sources(tier: &Tier, place: &At<String>, link: &Link, sink: &Sink) {
    if link.next_hop.is_none() {
        return;
    }
    for v4 in [true, false] {
        let Some(endpoint) = tier.endpoints.iter().find(|endpoint| endpoint.is_ipv4() == v4) else { continue };
        if link.source.iter().any(|source| source.is_ipv4() == v4) {
            continue;
        }
        let message = format!(
            "tier `{}` tunnels to {}, and link `{}` has no {} `source`",
            tier.name.value,
            endpoint.value,
            link.name.value,
            family(v4)
        );
        let example = if v4 { "10.64.0.2" } else { "2001:db8:64::2" };
        let error = Diagnostic::error(place.span, message).other(link.name.span, "this link");
        sink.push(error.help(format!(
            "add a line such as source = [\"{example}\"] to the link: an address of this host that the endpoint has a route to"
        )));
    }
}

/// What a tunnel leaves of a link's MTU must be enough for the packets of the class.
fn room(class: &Class, tier: &Tier, place: &At<String>, link: &Link, sink: &Sink) {
    let v6 = class.rules.iter().flat_map(|rule| &rule.dst).any(|dst| dst.addr().is_ipv6());
    let mode = if tier.mode.value == Mode::Gue { MODE_GUE } else { MODE_IPIP };
    let added = |endpoint: &At<IpAddr>| overhead(mode, if endpoint.is_ipv4() { 4 } else { 6 });
    let Some(added) = tier.endpoints.iter().map(added).max().filter(|_| v6) else { return };
    let room = link.mtu.value.saturating_sub(added);
    if room < IPV6_LEAST {
        let message = format!(
            "class `{}` has IPv6 destinations, and tunnels of tier `{}` leave {room} bytes of link `{}`",
            class.name.value, tier.name.value, link.name.value
        );
        let error = Diagnostic::error(place.span, message).other(link.mtu.span, format!("mtu {}", link.mtu.value));
        sink.push(error.help(format!(
            "IPv6 needs {IPV6_LEAST} (RFC 8200, section 5): the link must carry {}, or write another mode",
            IPV6_LEAST + added
        )));
    }
}

/// A packet from a service's address that comes from a client must not be taken for a reply by `nexthop`, which knows a
/// reply by nothing else.
fn apart(file: &File, tier: &Tier, sink: &Sink) {
    for link in file.links.iter().filter(|link| link.vlan.is_none()) {
        let Some(client) = file.edge.client.iter().find(|client| client.value == link.device.value) else { continue };
        let message = format!(
            "tier `{}` is of mode nexthop, and link `{}` shares device `{}` with the clients without a VLAN between them",
            tier.name.value, link.name.value, client.value
        );
        let error = Diagnostic::error(tier.mode.span, message).other(link.device.span, "the clients' device, too");
        sink.push(error.help(
            "a reply could not be told from a client that forges a service's address: give the link a device or a VLAN of its own, \
             or write another mode",
        ));
    }
}

/// The outer packet of `gue` must not look like one that is kept on every address.
fn disguise(file: &File, tier: &Tier, sink: &Sink) {
    let Some(port) = &tier.port else { return };
    let named = |link: &&Link| tier.links.iter().any(|at| at.value == link.name.value);
    let sources: Vec<_> = file.links.iter().filter(named).flat_map(|link| &link.source).collect();
    for kept in file.classes.iter().filter(|class| class.burst.is_none()) {
        for (number, rule) in kept.rules.iter().enumerate() {
            let from = rule.src.is_empty()
                || rule.src.iter().any(|src| sources.iter().any(|source| src.contains(&source.value)));
            let to = rule.ports.is_empty() || rule.ports.iter().any(|ports| (ports.0..=ports.1).contains(&port.value));
            if rule.dst.is_empty() && from && to && rule.proto == Some(UDP) {
                let message = format!(
                    "a tunnel of tier `{}` to udp port {} would match {}, which is kept",
                    tier.name.value,
                    port.value,
                    rules::name(kept, number)
                );
                let error = Diagnostic::error(port.span, message).other(rule.span, "kept on every address");
                sink.push(error.help("write another `port`, or give the kept rule a `dst`"));
            }
        }
    }
}

/// What comes back to a tunnel's source must not look like a client's packet to a service, nor what leaves it like one
/// that is kept.
fn collisions(file: &File, source: &At<IpAddr>, sink: &Sink) {
    let address = source.value;
    for class in &file.classes {
        for (number, rule) in class.rules.iter().enumerate() {
            let name = rules::name(class, number);
            if let Some(dst) = rule.dst.iter().find(|dst| dst.contains(&address)) {
                let message = format!("tunnel source {address} lies in a destination of {name}");
                let error = Diagnostic::error(source.span, message).other(dst.span, "this destination");
                sink.push(error.help(
                    "what comes back could not be told from the clients' packets: name another address of this host",
                ));
            }
            if let Some(src) = rule.src.iter().find(|src| class.burst.is_none() && src.contains(&address)) {
                let message = format!("tunnel source {address} lies in a source of {name}, which is kept");
                let error = Diagnostic::error(source.span, message).other(src.span, "this source");
                sink.push(
                    error.help("its tunnels would look like packets that must stay: name another address of this host"),
                );
            }
        }
    }
    for endpoint in tiers(file).flat_map(|(_, tier)| &tier.endpoints).filter(|endpoint| endpoint.value == address) {
        let message = format!("tunnel source {address} is itself an endpoint");
        let error = Diagnostic::error(source.span, message).other(endpoint.span, "this endpoint");
        sink.push(error.help("name an address of this host"));
    }
    for next_hop in file.links.iter().filter_map(|link| link.next_hop.as_ref()).filter(|hop| hop.value == address) {
        let message = format!("tunnel source {address} is itself a next hop");
        let error = Diagnostic::error(source.span, message).other(next_hop.span, "the router");
        sink.push(error.help("name an address of this host"));
    }
}
