//! Endpoints against services, links, keep rules and one another: what cannot be reached, reversed or told apart.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use burst_common::limits::MAX_RETURNS;

use super::rules::{self, example_client, proto_name};
use super::tiers;
use crate::config::diagnostics::{Diagnostic, Span};
use crate::config::model::{self, Config, Mode};
use crate::config::raw::{Class, File, Rule, Tier};
use crate::config::read::{At, Sink};
use crate::policy::returns::ReturnTable;
use crate::policy::translate::{TUNNEL, Translation, count, translations};

/// Checks each tier of its own.
pub(super) fn check(file: &File, sink: &Sink) {
    for class in &file.classes {
        let Some(burst) = &class.burst else { continue };
        let mut seen: Vec<(&Tier, &At<IpAddr>)> = Vec::new();
        for tier in &burst.tiers {
            for endpoint in &tier.endpoints {
                match seen.iter().find(|(_, first)| first.value == endpoint.value) {
                    Some((_, first)) => {
                        let message =
                            format!("endpoint {} is named twice in class `{}`", endpoint.value, class.name.value);
                        let error = Diagnostic::error(endpoint.span, message).other(first.span, "first here");
                        sink.push(error.help("name it once: replies from it could not be told apart"));
                    }
                    None => seen.push((tier, endpoint)),
                }
                if !tier.mode.value.tunnels() {
                    family(class, endpoint, sink);
                }
                collisions(file, endpoint, sink);
            }
            renames(file, class, tier, sink);
        }
        unserved(class, &burst.tiers, sink);
    }
}

fn word(v4: bool) -> &'static str {
    if v4 { "IPv4" } else { "IPv6" }
}

fn serves(class: &Class, v4: bool) -> bool {
    class.rules.iter().flat_map(|rule| &rule.dst).any(|dst| dst.addr().is_ipv4() == v4)
}

fn family(class: &Class, endpoint: &At<IpAddr>, sink: &Sink) {
    let v4 = endpoint.is_ipv4();
    // A rule without dst was reported; its families are unknown.
    if !serves(class, v4) && class.rules.iter().all(|rule| !rule.dst.is_empty()) {
        let message = format!(
            "endpoint {} is {}, and class `{}` has no {} destination",
            endpoint.value,
            word(v4),
            class.name.value,
            word(v4)
        );
        sink.push(Diagnostic::error(endpoint.span, message).help(format!(
            "dnat keeps the family: name an {} endpoint, or add an {} `dst`",
            word(!v4),
            word(v4)
        )));
    }
}

/// A family that no tier can take never leaves: harmless, but hardly meant.
fn unserved(class: &Class, tiers: &[Tier], sink: &Sink) {
    for v4 in [true, false] {
        let takes = |tier: &Tier| {
            // Layer 2 and tunnels carry both.
            tier.mode.value != Mode::Dnat || tier.endpoints.iter().any(|endpoint| endpoint.is_ipv4() == v4)
        };
        if serves(class, v4) && !tiers.iter().any(takes) {
            let message = format!(
                "{} flows of class `{}` always stay local: no tier has an {} endpoint",
                word(v4),
                class.name.value,
                word(v4)
            );
            sink.push(Diagnostic::warning(class.name.span, message).help(format!(
                "add an {} endpoint, or remove the {} destinations",
                word(v4),
                word(v4)
            )));
        }
    }
}

/// An endpoint is neither a service, nor a router, nor inside what is kept.
fn collisions(file: &File, endpoint: &At<IpAddr>, sink: &Sink) {
    let address = endpoint.value;
    for class in &file.classes {
        for (number, rule) in class.rules.iter().enumerate() {
            let Some(dst) = rule.dst.iter().find(|dst| dst.contains(&address)) else { continue };
            let rule = rules::name(class, number);
            let error = if class.burst.is_some() {
                let message = format!("endpoint {address} is itself a destination of {rule}");
                Diagnostic::error(endpoint.span, message)
                    .help("a rewritten packet would match again: name the cloud host's own address")
            } else {
                let message = format!("endpoint {address} lies in a destination of {rule}, which is kept");
                Diagnostic::error(endpoint.span, message)
                    .help("a packet rewritten to it would look like one that must stay: name another address")
            };
            sink.push(error.other(dst.span, "this destination"));
        }
    }
    for class in file.classes.iter().filter(|class| class.burst.is_none()) {
        for (number, rule) in class.rules.iter().enumerate() {
            let Some(src) = rule.src.iter().find(|src| src.value.contains(&address)) else { continue };
            let message =
                format!("endpoint {address} lies in a source of {}, which is kept", rules::name(class, number));
            let error = Diagnostic::error(endpoint.span, message).other(src.span, "this source");
            sink.push(error.help("its replies would match, and what is kept is never rewritten: name another address"));
        }
    }
    for link in &file.links {
        if let Some(next_hop) = link.next_hop.as_ref().filter(|next_hop| next_hop.value == address) {
            let message = format!("endpoint {address} is the next hop of link `{}`", link.name.value);
            let error = Diagnostic::error(endpoint.span, message).other(next_hop.span, "the router");
            sink.push(error.help("name the cloud host's own address"));
        }
    }
}

/// A renamed port is one the class has, and does not turn a packet into one that a keep rule without `dst` means.
fn renames(file: &File, class: &Class, tier: &Tier, sink: &Sink) {
    let named = |rule: &Rule, port: u16| rule.ports.iter().any(|ports| (ports.0..=ports.1).contains(&port));
    for (from, to) in &tier.ports {
        let of: Vec<_> = class.rules.iter().filter(|rule| named(rule, from.value)).collect();
        if of.is_empty() && class.rules.iter().all(|rule| !rule.ports.is_empty()) {
            let message = format!(
                "tier `{}` renames port {}, which no rule of class `{}` names",
                tier.name.value, from.value, class.name.value
            );
            sink.push(Diagnostic::error(from.span, message).help("remove it, or add the port to `match`"));
        }
        if from.value == to.value {
            continue;
        }
        for kept in file.classes.iter().filter(|class| class.burst.is_none()) {
            for (number, rule) in kept.rules.iter().enumerate() {
                let proto = of
                    .iter()
                    .find(|burst| rule.proto.is_some() && burst.proto == rule.proto)
                    .and_then(|burst| burst.proto);
                let Some(proto) = proto.filter(|_| rule.dst.is_empty() && named(rule, to.value)) else { continue };
                let message = format!(
                    "a packet rewritten to {} port {} would match {}, which is kept",
                    proto_name(proto),
                    to.value,
                    rules::name(kept, number)
                );
                let error = Diagnostic::error(to.span, message).other(rule.span, "kept on every address");
                sink.push(error.help("rename to another port, or give the kept rule a `dst`"));
            }
        }
    }
}

/// Whose an (endpoint, port, protocol) is.
struct Owner<'a> {
    class: &'a model::Class,
    translation: Translation,
    place: Span,
}

/// Checks that every reply can be given back to exactly one service, and that the return table has room.
pub(super) fn check_returns(file: &File, config: &Config, sink: &Sink) {
    let modelled = config
        .classes
        .iter()
        .flat_map(|class| class.burst.iter().flat_map(move |burst| burst.tiers.iter().map(move |tier| (class, tier))));
    let mut owners: BTreeMap<(IpAddr, u16, u8), Owner<'_>> = BTreeMap::new();
    let mut reported = BTreeSet::new();
    let mut table = ReturnTable::default();
    let mut total = 0;
    for ((_, raw), (class, tier)) in tiers(file).zip(modelled) {
        total += count(class, tier);
        let too_many = |sink: &Sink| {
            let message = format!(
                "class `{}`, tier `{}`: the return table has no room for its services × ports × endpoints",
                class.name, tier.name
            );
            let help = format!(
                "{total} rows are asked for up to here, of at most {MAX_RETURNS}, and fewer when they fall together: name fewer ports or endpoints"
            );
            sink.push(Diagnostic::error(raw.name.span, message).help(help));
        };
        if total > MAX_RETURNS as u64 {
            return too_many(sink);
        }
        for translation in translations(class, tier) {
            let place =
                raw.endpoints.iter().find(|at| at.value == translation.endpoint).map_or(raw.name.span, |at| at.span);
            let key = (translation.endpoint, translation.port, translation.proto);
            match owners.get(&key) {
                Some(owner) if owner.class.name == class.name && owner.translation == translation => {}
                Some(owner) => {
                    if reported.insert((place, owner.place)) {
                        conflict(owner, &Owner { class, translation, place }, sink);
                    }
                }
                None => {
                    owners.insert(key, Owner { class, translation, place });
                    if table.insert(&translation, 1, 1).is_err() {
                        return too_many(sink);
                    }
                }
            }
        }
    }
}

fn conflict(first: &Owner<'_>, second: &Owner<'_>, sink: &Sink) {
    if second.translation.proto == TUNNEL {
        let (address, a, b) = (second.translation.endpoint, &first.class.name, &second.class.name);
        let message = format!("endpoint {address} is the far end of tunnels of two classes: `{a}` and `{b}`");
        let error = Diagnostic::error(second.place, message).other(first.place, "the first");
        sink.push(
            error.help("a packet that comes back could not be told apart: give each class its own endpoint address"),
        );
        return;
    }
    let proto = proto_name(second.translation.proto);
    let service = |owner: &Owner<'_>| SocketAddr::new(owner.translation.service, owner.translation.service_port);
    let (one, other) = (service(first), service(second));
    let (a, b) = (&first.class.name, &second.class.name);
    let endpoint = SocketAddr::new(second.translation.endpoint, second.translation.port);
    let reply = format!("a reply {proto} {endpoint} -> {}", example_client(second.translation.endpoint));
    let (message, help) = if one == other {
        (
            format!("endpoint {proto} {endpoint} stands for service {one} in two classes: `{a}` and `{b}`"),
            format!("{reply} could not be told apart: give each class its own endpoint address or port"),
        )
    } else {
        (
            format!(
                "endpoint {proto} {endpoint} stands for two services: {one} of class `{a}` and {other} of class `{b}`"
            ),
            format!("{reply} could not be told apart: give each service its own endpoint address or port"),
        )
    };
    let error = Diagnostic::error(second.place, message).help(help);
    sink.push(if first.place == second.place { error } else { error.other(first.place, "stands for the first here") });
}
