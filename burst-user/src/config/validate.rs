//! What the parts of a configuration mean together: names, capacities, ways; then the model.
//!
//! Rules are compared in [`rules`], endpoints and what comes back from them in [`endpoints`], modes and the links they go
//! over in [`tunnels`].

mod endpoints;
mod rules;
mod tunnels;

use std::collections::BTreeSet;
use std::net::IpAddr;

use burst_common::flow::UDP;
use burst_common::limits::{DEVICE_LINKS, MAX_CLASSES, MAX_ENDPOINTS, MAX_LINKS, MAX_RULES};

use super::diagnostics::{Diagnostic, Span};
use super::model::{self, Affinity, Config, Mode};
use super::raw::{Class, File, Link, Rule, Tier};
use super::read::{At, Sink, nearest};

/// Checks a file that was read without errors; `None` when it is refused, which was reported.
pub(super) fn validate(file: &File, sink: &Sink) -> Option<Config> {
    unique(sink, "link", file.links.iter().map(|link| &link.name));
    ways(file, sink);
    capacities(file, sink);
    for class in &file.classes {
        let tiers = class.burst.iter().flat_map(|burst| &burst.tiers);
        if let Some(udp) = class.burst.as_ref().and_then(|burst| burst.udp)
            && class.rules.iter().all(|rule| rule.proto != Some(UDP))
        {
            let message = format!("class `{}` has `udp`, and no rule of proto = \"udp\"", class.name.value);
            sink.push(Diagnostic::error(udp, message).help("remove `udp`, or add the rule"));
        }
        unique(sink, &format!("class `{}`: tier", class.name.value), tiers.clone().map(|tier| &tier.name));
        tiers.for_each(|tier| tier_links(&file.links, tier, sink));
    }
    rules::check(file, sink);
    endpoints::check(file, sink);
    tunnels::check(file, sink);
    if sink.failed() {
        return None;
    }
    let config = lower(file);
    // Enumerating translations is bounded only now: rules have ports, destinations are hosts, prefixes are few.
    endpoints::check_returns(file, &config, sink);
    Some(config)
}

/// Reports names that are given twice.
fn unique<'a>(sink: &Sink, what: &str, names: impl Iterator<Item = &'a At<String>>) {
    let mut seen: Vec<&At<String>> = Vec::new();
    for name in names {
        match seen.iter().find(|first| first.value == name.value) {
            Some(first) => {
                let error = Diagnostic::error(name.span, format!("{what} `{}` is there twice", name.value));
                sink.push(error.other(first.span, "first here").help("give each its own name"));
            }
            None => seen.push(name),
        }
    }
}

fn ways(file: &File, sink: &Sink) {
    let mut seen: Vec<&Link> = Vec::new();
    for link in &file.links {
        let name = &link.name.value;
        let on_device = |other: &&&Link| other.device.value == link.device.value;
        let Some(next_hop) = &link.next_hop else {
            // The return program of such a link and the program of a client or a next hop are of different kinds.
            let client = file.edge.client.iter().find(|client| client.value == link.device.value);
            let client = client.map(|client| ("the clients".to_owned(), client.span));
            let other = || file.links.iter().find(|other| on_device(&other) && other.name.value != *name);
            let other = || other().map(|other| (format!("link `{}`", other.name.value), other.device.span));
            if let Some((who, span)) = client.or_else(other) {
                let message =
                    format!("link `{name}` is via the kernel and shares device `{}` with {who}", link.device.value);
                let error = Diagnostic::error(link.device.span, message).other(span, "named here");
                sink.push(error.help("name a device of its own, such as the VPN's"));
            }
            continue;
        };
        let vlan = |link: &Link| link.vlan.as_ref().map_or(0, |vlan| vlan.value);
        let same = |other: &&&Link| {
            on_device(other)
                && vlan(other) == vlan(link)
                && other.next_hop.as_ref().is_some_and(|other| other.value == next_hop.value)
        };
        if let (Some(first), Some(other)) =
            (seen.iter().find(same), seen.iter().find(same).and_then(|l| l.next_hop.as_ref()))
        {
            let message = format!(
                "links `{}` and `{name}` are the same way: {} on `{}`",
                first.name.value, next_hop.value, link.device.value
            );
            let error = Diagnostic::error(next_hop.span, message).other(other.span, "first here");
            sink.push(error.help("remove one of them"));
            continue;
        }
        let vlans: BTreeSet<u16> = seen.iter().filter(on_device).map(|other| vlan(other)).collect();
        if vlans.len() == DEVICE_LINKS && !vlans.contains(&vlan(link)) {
            let message =
                format!("there are links on more than {DEVICE_LINKS} VLANs of device `{}`", link.device.value);
            let span = link.vlan.as_ref().map_or(link.device.span, |vlan| vlan.span);
            sink.push(Diagnostic::error(span, message).help("spread the links over several devices"));
        }
        seen.push(link);
    }
}

fn tier_links(links: &[Link], tier: &Tier, sink: &Sink) {
    let name = &tier.name.value;
    let known = || links.iter().map(|link| link.name.value.as_str());
    for (n, link) in tier.links.iter().enumerate() {
        if !known().any(|name| name == link.value) {
            let help = match nearest(&link.value, known()) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("links are: {}", known().collect::<Vec<_>>().join(", ")),
            };
            sink.push(
                Diagnostic::error(
                    link.span,
                    format!("tier `{name}`: there is no link `{}`", link.value.escape_debug()),
                )
                .help(help),
            );
        } else if let Some(first) = tier.links[..n].iter().find(|first| first.value == link.value) {
            let error = Diagnostic::error(link.span, format!("tier `{name}`: link `{}` is named twice", link.value));
            sink.push(error.other(first.span, "first here").help("name it once"));
        }
    }
}

fn capacities(file: &File, sink: &Sink) {
    let over = |mut spans: Box<dyn Iterator<Item = Span> + '_>, max: usize, what: &str| {
        if let Some(span) = spans.nth(max) {
            let error = Diagnostic::error(span, format!("there are more than {max} {what}"));
            sink.push(error.help(format!("{max} are possible; this is the first too many")));
        }
    };
    over(Box::new(file.classes.iter().map(|class| class.name.span)), MAX_CLASSES - 1, "classes");
    over(
        Box::new(file.classes.iter().flat_map(|class| class.rules.iter().map(|rule| rule.span))),
        MAX_RULES,
        "match rules",
    );
    over(Box::new(file.links.iter().map(|link| link.name.span)), MAX_LINKS - 2, "links");
    if file.links.len() < MAX_LINKS - 1 {
        // The device map is as large as the link table; too many links were complained of above.
        let lines = file.links.iter().map(|link| link.device.span);
        let devices = file.edge.client.iter().map(|device| device.span).chain(lines);
        over(Box::new(devices), MAX_LINKS, "client devices and links");
    }
    let endpoints = tiers(file).flat_map(|(_, tier)| match tier.mode.value {
        Mode::Nexthop => vec![tier.name.span],
        Mode::Dnat | Mode::Gue | Mode::Ipip => tier.endpoints.iter().map(|at| at.span).collect(),
    });
    over(Box::new(endpoints), MAX_ENDPOINTS - 1, "endpoints");
}

/// All tiers, each with its class.
fn tiers(file: &File) -> impl Iterator<Item = (&Class, &Tier)> {
    file.classes
        .iter()
        .flat_map(|class| class.burst.iter().flat_map(move |burst| burst.tiers.iter().map(move |tier| (class, tier))))
}

/// The model of a file that was checked.
fn lower(file: &File) -> Config {
    let link = |link: &Link| model::Link {
        name: link.name.value.clone(),
        device: link.device.value.clone(),
        vlan: link.vlan.as_ref().map(|at| at.value),
        next_hop: link.next_hop.as_ref().map(|at| at.value),
        mtu: link.mtu.value,
        fallback: link.fallback,
        source4: link.source.iter().find_map(|at| match at.value {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(_) => None,
        }),
        source6: link.source.iter().find_map(|at| match at.value {
            IpAddr::V6(v6) => Some(v6),
            IpAddr::V4(_) => None,
        }),
        out_bps: link.out_bps,
        in_bps: link.in_bps,
    };
    let links = file.links.iter().map(link).collect();
    let tier = |tier: &Tier| model::Tier {
        name: tier.name.value.clone(),
        mode: tier.mode.value,
        endpoints: tier.endpoints.iter().map(|at| at.value).collect(),
        ports: tier.ports.iter().map(|(from, to)| (from.value, to.value)).collect(),
        port: tier.port.as_ref().map(|at| at.value),
        links: tier.links.iter().map(|at| at.value.clone()).collect(),
        capacity: tier.capacity,
        health: tier.health.clone(),
    };
    let class = |class: &Class| model::Class {
        name: class.name.value.clone(),
        rules: class.rules.iter().map(lower_rule).collect(),
        burst: class.burst.as_ref().map(|burst| model::Burst {
            // A QUIC connection may change its port and address half; its client's address changes least.
            affinity: burst.affinity.unwrap_or_else(|| match class.rules.iter().any(|rule| rule.proto == Some(UDP)) {
                true => Affinity::Client,
                false => Affinity::Flow,
            }),
            tiers: burst.tiers.iter().map(tier).collect(),
            ..burst.burst.clone()
        }),
    };
    let classes = file.classes.iter().map(class).collect();
    Config { edge: file.edge.edge.clone(), links, classes }
}

fn lower_rule(rule: &Rule) -> model::Rule {
    model::Rule {
        dst: rule.dst.iter().map(|at| at.value).collect(),
        src: rule.src.iter().map(|at| at.value).collect(),
        proto: rule.proto,
        ports: rule.ports.iter().map(|at| at.value).collect(),
    }
}
