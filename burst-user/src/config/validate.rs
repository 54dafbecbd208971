//! What the parts of a configuration mean together: names, capacities, ways; then the model.
//!
//! Rules are compared in [`rules`], endpoints and what comes back from them in [`endpoints`].

mod endpoints;
mod rules;

use std::collections::BTreeSet;

use burst_common::flow::UDP;
use burst_common::limits::{MAX_CLASSES, MAX_ENDPOINTS, MAX_LINKS, MAX_RULES};

use super::diagnostics::{Diagnostic, Span};
use super::model::{self, Affinity, Config};
use super::raw::{Class, File, Link, Rule, Tier, Way};
use super::read::{At, Sink, nearest};

/// Checks a file that was read without errors; `None` when it is refused, which was reported.
pub(super) fn validate(file: &File, sink: &Sink) -> Option<Config> {
    unique(sink, "link", file.links.iter().map(|link| &link.name));
    ways(file, sink);
    capacities(file, sink);
    for class in &file.classes {
        let tiers = class.burst.iter().flat_map(|burst| &burst.tiers);
        unique(sink, &format!("class `{}`: tier", class.name.value), tiers.clone().map(|tier| &tier.name));
        tiers.for_each(|tier| tier_links(&file.links, tier, sink));
    }
    rules::check(file, sink);
    endpoints::check(file, sink);
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

/// Links that can be used, with what is needed to use them.
fn usable(file: &File) -> impl Iterator<Item = (&Link, &Way)> {
    file.links.iter().filter_map(|link| link.way.as_ref().map(|way| (link, way)))
}

fn ways(file: &File, sink: &Sink) {
    let mut seen: Vec<(&Link, &Way)> = Vec::new();
    for (link, way) in usable(file) {
        let name = &link.name.value;
        if let Some(client) =
            file.edge.client.iter().find(|client| client.value == way.device.value && way.vlan.is_none())
        {
            let message =
                format!("link `{name}` and the clients share device `{}` without a VLAN between them", client.value);
            let error = Diagnostic::error(way.device.span, message).other(client.span, "the clients' device");
            sink.push(error.help("this version tells them apart by device: give the link another one"));
        }
        let same = |other: &Way| {
            other.device.value == way.device.value
                && other.vlan == way.vlan
                && other.next_hop.value == way.next_hop.value
        };
        match seen.iter().find(|(_, other)| same(other)) {
            Some((first, other)) => {
                let message = format!(
                    "links `{}` and `{name}` are the same way: {} on `{}`",
                    first.name.value, way.next_hop.value, way.device.value
                );
                let error = Diagnostic::error(way.next_hop.span, message).other(other.next_hop.span, "first here");
                sink.push(error.help("remove one of them"));
            }
            None => seen.push((link, way)),
        }
    }
    if let (0, Some(first)) = (seen.len(), file.links.first()) {
        let error = Diagnostic::error(first.name.span, "no link is left that this version can use");
        sink.push(error.help("add a link with a `device` and a `next_hop`"));
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
    let unusable = |name: &At<String>| links.iter().any(|link| link.name.value == name.value && link.way.is_none());
    if !tier.links.is_empty() && tier.links.iter().all(unusable) {
        let error = Diagnostic::error(tier.links.span, format!("tier `{name}`: every link it names is left out"));
        sink.push(error.help("name a link with a `next_hop`"));
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
    over(Box::new(usable(file).map(|(link, _)| link.name.span)), MAX_LINKS - 1, "links");
    let lines = usable(file).map(|(_, way)| way.device.span);
    over(
        Box::new(file.edge.client.iter().map(|device| device.span).chain(lines)),
        MAX_LINKS,
        "client devices and links",
    );
    let endpoints = tiers(file).flat_map(|(_, tier)| match tier.mode {
        model::Mode::Nexthop => vec![tier.name.span],
        model::Mode::Dnat => tier.endpoints.iter().map(|at| at.span).collect(),
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
    let link = |(link, way): (&Link, &Way)| model::Link {
        name: link.name.value.clone(),
        device: way.device.value.clone(),
        vlan: way.vlan,
        next_hop: way.next_hop.value,
        mtu: way.mtu,
        out_bps: way.out_bps,
        in_bps: way.in_bps,
    };
    let links: Vec<_> = usable(file).map(link).collect();
    let names: BTreeSet<&str> = links.iter().map(|link| link.name.as_str()).collect();
    let tier = |tier: &Tier| model::Tier {
        name: tier.name.value.clone(),
        mode: tier.mode,
        endpoints: tier.endpoints.iter().map(|at| at.value).collect(),
        ports: tier.ports.iter().map(|(from, to)| (from.value, to.value)).collect(),
        links: tier.links.iter().map(|at| at.value.clone()).filter(|name| names.contains(name.as_str())).collect(),
        capacity: tier.capacity,
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
