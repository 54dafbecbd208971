//! The status for people: a pure function from what the API says to text of at most 100 columns, unless names are long.

mod health;
pub(super) mod table;

use crate::api::types::{
    Burst, Class, Endpoint, Gateway, Link, Mode, ReasonCount, Running, Share, Source, Status, Traffic,
};

use table::{Align, Table};

/// The whole status.
#[must_use]
pub fn render(status: &Status) -> String {
    let mode = match status.mode {
        Mode::Active => "active",
        Mode::Shadow => "shadow (nothing is shifted)",
    };
    let up = span(status.uptime_s);
    let mut out = format!("edge {} · {mode} · up {up} · burst {} · pid {}\n", status.edge, status.burst, status.pid);
    if !status.config.hash.is_empty() {
        let Running { file, hash, generation, loaded_s, .. } = &status.config;
        out += &format!("configuration {file} · {hash} · number {generation} · loaded {} ago\n", span(*loaded_s));
    }
    for warning in &status.warnings {
        out += &format!("warning: {warning}\n");
    }
    for class in &status.classes {
        out += &render_class(class);
    }
    if !status.links.is_empty() {
        out += "\n";
        out += &render_links(&status.links);
    }
    if !status.clients.is_empty() {
        let mut table = Table::new([("CLIENT DEVICE", Align::Left), ("STATE", Align::Left)]);
        for client in &status.clients {
            table.row([client.device.clone(), state(client.up, &client.why)]);
        }
        out += "\n";
        out += &table.render("");
    }
    for gateway in &status.gateways {
        out += &render_gateway(gateway);
    }
    if !status.other.is_empty() {
        out += "\npackets of no class\n";
        out += &render_reasons(&status.other);
    }
    out
}

fn render_class(class: &Class) -> String {
    let Some(burst) = &class.burst else {
        return format!("\nclass {} · kept on premises\n{}", class.name, render_reasons(&class.reasons));
    };
    let mut out =
        format!("\nclass {} · {} new flows/s · {}\n", class.name, count(burst.demand_fps), render_slots(burst));
    if let Some(order) = &burst.ordered {
        let (share, left) = (percent(order.offsite), span(order.remaining_s as f64));
        out += &format!("  override: {share} leave for another {left}, by uid {}: {}\n", order.uid, order.reason);
    }
    out += &format!("  decision: {}\n", burst.decision);
    out += &render_places(burst);
    if !burst.sources.is_empty() {
        out += &render_sources(&burst.sources);
    }
    out + &render_reasons(&class.reasons)
}

fn render_slots(burst: &Burst) -> String {
    let slots = burst.slots;
    if slots.transition == 0 && slots.pins == 0 {
        return format!("{} slots, all stable", slots.total);
    }
    let (transition, pinned) = (slots.transition, slots.pins);
    format!("{} slots, {transition} in transition, {pinned} keep pins · {} flows pinned", slots.total, burst.pins)
}

fn render_places(burst: &Burst) -> String {
    let mut table = Table::new([
        ("PLACE", Align::Left),
        ("WANTED", Align::Right),
        ("ACHIEVED", Align::Right),
        ("CAPACITY", Align::Right),
        ("OUT", Align::Right),
        ("IN", Align::Right),
        ("STATE", Align::Left),
    ]);
    let none = || "-".to_owned();
    let shares = |share: Share| (percent(share.wanted), share.achieved.map_or_else(none, percent));
    let per_second = |flows: f64| format!("{}/s", count(flows));
    let local = &burst.local;
    let (wanted, achieved) = shares(local.share);
    let load = local.load.map_or_else(|| "load unknown".to_owned(), |load| format!("load {load:.2}"));
    let load = format!("{load}, target {:.2}", local.target);
    let capacity = local.capacity_fps.map_or_else(none, per_second);
    table.row(["local".to_owned(), wanted, achieved, capacity, none(), none(), load]);
    for tier in &burst.tiers {
        let (wanted, achieved) = shares(tier.share);
        let sum = |rate: fn(&Endpoint) -> f64| bits(tier.endpoints.iter().map(rate).sum());
        let (out, back) = (sum(|endpoint| endpoint.out.rate_bps), sum(|endpoint| endpoint.back.rate_bps));
        let reachable = tier.endpoints.iter().filter(|endpoint| endpoint.reachable).count();
        let state = format!("{reachable} of {} reachable", tier.endpoints.len());
        table.row([tier.name.clone(), wanted, achieved, per_second(tier.capacity_fps), out, back, state]);
        for endpoint in &tier.endpoints {
            let (wanted, achieved) = shares(endpoint.share);
            let own = endpoint.name.strip_prefix(&tier.name).and_then(|rest| rest.strip_prefix('/'));
            let name = format!("  {}", own.unwrap_or(&endpoint.name));
            let (out, back) = (bits(endpoint.out.rate_bps), bits(endpoint.back.rate_bps));
            table.row([name, wanted, achieved, none(), out, back, health::state(endpoint)]);
            health::notes(endpoint).into_iter().for_each(|note| table.note(note));
        }
    }
    table.render("  ")
}

fn render_sources(sources: &[Source]) -> String {
    let mut table = Table::new([
        ("LOAD SOURCE", Align::Left),
        ("VALUE", Align::Right),
        ("LIMIT", Align::Right),
        ("LOAD", Align::Right),
        ("AGE", Align::Right),
        ("STATE", Align::Left),
    ]);
    let none = || "-".to_owned();
    for source in sources {
        table.row([
            source.name.clone(),
            source.value.map_or_else(none, count),
            count(source.limit),
            source.value.map_or_else(none, |value| format!("{:.2}", value / source.limit)),
            source.age_s.map_or_else(none, |age| format!("{age:.1}s")),
            match (&source.error, &source.unused) {
                (Some(error), _) => error.clone(),
                (None, Some(why)) => format!("not used: {why}"),
                // The first read has not ended.
                (None, None) if source.value.is_none() => "no value yet".to_owned(),
                (None, None) => "ok".to_owned(),
            },
        ]);
    }
    table.render("  ")
}

fn render_reasons(reasons: &[ReasonCount]) -> String {
    if reasons.is_empty() {
        return "  no packets yet\n".to_owned();
    }
    let mut table = Table::new([
        ("REASON", Align::Left),
        ("PACKETS", Align::Right),
        ("BYTES", Align::Right),
        ("OPENERS", Align::Right),
    ]);
    for reason in reasons {
        let [packets, bytes, openers] = [reason.packets, reason.bytes, reason.openers].map(|number| number.to_string());
        table.row([reason.reason.clone(), packets, bytes, openers]);
    }
    table.render("  ")
}

fn render_links(links: &[Link]) -> String {
    let mut table = Table::new([
        ("LINK", Align::Left),
        ("DEVICE", Align::Left),
        ("OUT", Align::Right),
        ("IN", Align::Right),
        ("PACKETS OUT", Align::Right),
        ("PACKETS IN", Align::Right),
        ("STATE", Align::Left),
    ]);
    for link in links {
        let device = link.vlan.map_or_else(|| link.device.clone(), |vlan| format!("{} vlan {vlan}", link.device));
        let rate = |traffic: &Traffic| bits(traffic.rate_bps);
        let (out, back) = (link.out.packets.to_string(), link.back.packets.to_string());
        let state = state(link.up, &link.why);
        table.row([link.name.clone(), device, rate(&link.out), rate(&link.back), out, back, state]);
        let mac = link.mac.as_deref().unwrap_or("no MAC address");
        let mut note = match link.next_hop {
            Some(next_hop) => format!("  next hop {next_hop} ({mac}), mtu {}", link.mtu),
            None => format!("  the routing table picks the way, mtu {}", link.mtu),
        };
        if !link.source.is_empty() {
            let sources: Vec<_> = link.source.iter().map(ToString::to_string).collect();
            note += &format!(", tunnels from {}", sources.join(" and "));
        }
        if link.fallback {
            note += ", only while no other link is up";
        }
        table.note(note);
    }
    table.render("")
}

fn render_gateway(gateway: &Gateway) -> String {
    let Gateway { family, router, why } = gateway;
    match router {
        Some(router) => {
            let device =
                router.vlan.map_or_else(|| router.device.clone(), |vlan| format!("{} vlan {vlan}", router.device));
            let except = router.except.len();
            let (address, mac) = (router.address, &router.mac);
            format!("replies of IPv{family} go by {address} ({mac}) on {device}, but for {except} prefixes\n")
        }
        None => {
            let why = why.as_deref().unwrap_or("unknown");
            format!("replies of IPv{family}: the routing table is asked for each: {why}\n")
        }
    }
}

fn state(up: bool, why: &str) -> String {
    if up { "up".to_owned() } else { format!("DOWN: {why}") }
}

/// A share in percent, to a tenth.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// A number to three digits, with k, M, G or T.
pub(super) fn count(number: f64) -> String {
    scaled(number, "")
}

/// Bits per second.
pub(super) fn bits(number: f64) -> String {
    scaled(number, "bit/s")
}

pub(super) fn scaled(number: f64, unit: &str) -> String {
    let (mut number, mut prefix) = (number, "");
    for next in ["k", "M", "G", "T"] {
        // What would be rounded to 1000 is 1.00 of the next.
        if number < 999.5 {
            break;
        }
        (number, prefix) = (number / 1000.0, next);
    }
    let digits = match number {
        n if prefix.is_empty() && n == n.trunc() => 0,
        n if n < 9.995 => 2,
        n if n < 99.95 => 1,
        _ => 0,
    };
    let space = if unit.is_empty() { "" } else { " " };
    format!("{number:.digits$}{space}{prefix}{unit}")
}

/// A time in its two largest units.
pub(super) fn span(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    let (days, hours, minutes) = (seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60);
    let parts = [(days, "d"), (hours, "h"), (minutes, "m"), (seconds % 60, "s")];
    let Some(first) = parts.iter().position(|(number, _)| *number > 0) else { return "0s".to_owned() };
    let shown = parts[first..].iter().take(2).filter(|(number, _)| *number > 0);
    shown.map(|(number, unit)| format!("{number}{unit}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
