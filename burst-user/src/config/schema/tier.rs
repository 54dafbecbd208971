//! `[[class.NAME.tier]]`: a group of endpoints.

mod health;

use std::net::IpAddr;

use toml::de::DeValue;

use super::{leaf, not_acted_on, not_routed, special, units};
use crate::config::diagnostics::Diagnostic;
use crate::config::leaf::Leaf;
use crate::config::model::Mode;
use crate::config::raw::Tier;
use crate::config::read::{At, Table};
use crate::config::units::Complaint;

const MAX_PORTS: usize = burst_common::limits::ENDPOINT_PORTS;
const MAX_LINKS: usize = burst_common::limits::ENDPOINT_LINKS;
/// Where GUE is listened for, unless the file says otherwise (IANA, Service Name and Transport Protocol Port Number Registry).
const GUE_PORT: u16 = 6080;

/// Reads a tier.
pub(super) fn tier(mut table: Table<'_>) -> Option<Tier> {
    let name = table.req("name", "name = \"reserved\"", leaf::name);
    if let Some(name) = &name {
        table.what = format!("tier `{}`", name.value);
    }
    let modes = [Mode::Nexthop, Mode::Dnat, Mode::Gue, Mode::Ipip].map(|mode| (mode.word(), Some(mode)));
    let mode = table.req("mode", "mode = \"dnat\"", leaf::keyword(&modes));
    let (endpoints, ports) = match mode.as_ref().map(|at| at.value) {
        Some(Mode::Nexthop) => {
            for key in ["endpoints", "ports"] {
                let help = format!("remove `{key}`: packets keep their destination; or write mode = \"dnat\"");
                has_no(&mut table, Mode::Nexthop, key, help);
            }
            (Some(Vec::new()), Some(Vec::new()))
        }
        Some(Mode::Dnat) => (endpoints(&mut table), ports(&mut table)),
        Some(mode @ (Mode::Gue | Mode::Ipip)) => {
            let help = "remove `ports`: packets travel whole, to the service's own address and port";
            has_no(&mut table, mode, "ports", help.to_owned());
            (endpoints(&mut table), Some(Vec::new()))
        }
        None => {
            // Not to be reported as unknown: which keys there are depends on the mode.
            table.key("endpoints");
            table.key("ports");
            (None, None)
        }
    };
    let port = match &mode {
        Some(At { value: Mode::Gue, span }) => {
            let port = At { value: GUE_PORT, span: *span };
            if table.key("port").is_some() { table.opt("port", leaf::port).map(Some) } else { Some(Some(port)) }
        }
        Some(other) => {
            let help = if other.value == Mode::Dnat {
                "remove `port`; `ports` renames ports, such as ports = { 443 = 8443 }".to_owned()
            } else {
                "remove `port`: only `gue` sends to a port of its own".to_owned()
            };
            has_no(&mut table, other.value, "port", help);
            Some(None)
        }
        None => {
            table.key("port");
            Some(None)
        }
    };
    let links = table.demand("links", "links = [\"dx-1\"]").then(|| table.list("links", leaf::string)).flatten();
    if let Some(links) = &links {
        if links.is_empty() {
            let error = Diagnostic::error(links.span, format!("{} has no link", table.what));
            table.sink.push(error.help("name at least one link"));
        }
        if links.len() > MAX_LINKS {
            let error = Diagnostic::error(links.span, format!("{} has {} links", table.what, links.len()));
            table.sink.push(error.help(format!("name at most {MAX_LINKS}")));
        }
    }
    let capacity = table.req("capacity", "capacity = \"20k flows/s\"", leaf::text(units::rate));
    let health = health::read(&mut table, mode.as_ref().map(|at| at.value));
    if let Some(span) = price(&mut table) {
        not_acted_on(&table, span, "price", "cost is not accounted");
    }
    if let Some(span) = provision(&mut table) {
        not_acted_on(&table, span, "provision", "capacity is not asked for, the tier is taken to be there");
    }
    table.finish();
    Some(Tier {
        name: name?,
        mode: mode?,
        endpoints: endpoints?,
        ports: ports?,
        port: port?,
        links: links?,
        capacity: capacity?.value,
        health: health?,
    })
}

/// Reports a key that a mode has no use for.
fn has_no(table: &mut Table<'_>, mode: Mode, key: &'static str, help: String) {
    if let Some(span) = table.key(key) {
        let error = Diagnostic::error(span, format!("{} is of mode {} and has `{key}`", table.what, mode.word()));
        table.sink.push(error.help(help));
    }
}

fn endpoints(table: &mut Table<'_>) -> Option<Vec<At<IpAddr>>> {
    let there = table.demand("endpoints", "endpoints = [\"10.20.0.10\"]");
    let list = there.then(|| table.list("endpoints", endpoint)).flatten()?;
    if list.is_empty() {
        let error = Diagnostic::error(list.span, format!("{} has no endpoint", table.what));
        table.sink.push(error.help("name at least one address, or remove the tier"));
    }
    Some(list.value)
}

fn endpoint(value: &DeValue<'_>) -> Leaf<IpAddr> {
    let address = leaf::text(units::address)(value)?;
    match not_routed(address).or_else(|| special(address)) {
        Some(what) => Err(Complaint::new(
            format!("`{address}` is {what}, not the address of an endpoint"),
            "write the address of a cloud host, such as \"10.20.0.10\"",
        )),
        None => Ok(address),
    }
}

fn ports(table: &mut Table<'_>) -> Option<Vec<(At<u16>, At<u16>)>> {
    let Some(map) = table.sub("ports", "`ports`") else {
        return table.key("ports").is_none().then(Vec::new);
    };
    let mut list = Vec::new();
    let mut failed = false;
    for (key, value) in map.entries() {
        let from = units::port(key.value);
        let to = leaf::port(value.get_ref());
        for (span, complaint) in [(key.span, from.as_ref().err()), (value.span().into(), to.as_ref().err())] {
            if let Some(complaint) = complaint {
                failed = true;
                map.sink.push(Diagnostic::error(span, format!("ports: {}", complaint.message)).help(&complaint.help));
            }
        }
        if let (Ok(from), Ok(to)) = (from, to) {
            list.push((At { value: from, span: key.span }, At { value: to, span: value.span().into() }));
        }
    }
    if list.len() > MAX_PORTS {
        let message = format!("{} renames {} ports", table.what, list.len());
        table.sink.push(
            Diagnostic::error(map.span, message)
                .help(format!("rename at most {MAX_PORTS}; ports left out are preserved")),
        );
    }
    (!failed).then_some(list)
}

/// `price`: checked, not acted on.
fn price(table: &mut Table<'_>) -> Option<crate::config::diagnostics::Span> {
    let mut price = table.sub("price", "`price`")?;
    price.opt("per_hour", leaf::amount);
    price.opt("per_gb", leaf::amount);
    price.req("currency", "currency = \"USD\"", |value| {
        let text = leaf::string(value)?;
        if text.len() == 3 && text.bytes().all(|b| b.is_ascii_uppercase()) {
            return Ok(());
        }
        Err(Complaint::new(
            format!("`{}` is not a currency", text.escape_debug()),
            "write its three letters (ISO 4217), such as \"USD\"",
        ))
    });
    let span = price.span;
    price.finish();
    Some(span)
}

/// `provision`: checked, not acted on.
fn provision(table: &mut Table<'_>) -> Option<crate::config::diagnostics::Span> {
    let mut provision = table.sub("provision", "`provision`")?;
    if provision.key("webhook").is_some() {
        provision.opt("webhook", leaf::url(&["http", "https"]));
    } else if provision.demand("command", "command = [\"/etc/burst/scale\"]") {
        let command = provision.list("command", leaf::string);
        if let Some(command) = command.filter(|command| command.is_empty()) {
            provision.sink.push(
                Diagnostic::error(command.span, "command: names no program")
                    .help("write the program and its arguments"),
            );
        }
    }
    provision.key("command");
    let span = provision.span;
    provision.finish();
    Some(span)
}
