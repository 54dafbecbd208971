//! Two configurations → what differs, and what of it breaks connections that are placed. Pure: what is placed comes in as an
//! argument, and what cannot be loaded at all is for [`super::fits`] to say.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::api::change::{Change, How, Refusal};
use crate::config::model::{
    Burst, Class, Config, Edge, Health, Lease, Link, LoadKind, Local, OnExit, Probe, Rule, Sentinel, Tier, Udp,
    WhenFull, XdpMode,
};
use crate::policy::ids::endpoint_key;

/// Prefixes and ports that are listed; the rest is counted.
const LISTED: usize = 4;

/// What a configuration consists of, in the order in which it is told: number and name of the kind, name, and what is said.
type Items = BTreeMap<(u8, &'static str, String), String>;

/// What differs.
pub(super) fn changes(former: &Config, new: &Config) -> Vec<Change> {
    let (former, new) = (items(former), items(new));
    let keys: BTreeSet<_> = former.keys().chain(new.keys()).collect();
    let change = |key: &(u8, &'static str, String)| {
        let (how, text) = match (former.get(key), new.get(key)) {
            (Some(before), Some(after)) if before == after => return None,
            (Some(before), Some(after)) => (How::Changed, format!("{before} → {after}")),
            (Some(before), None) => (How::Removed, before.clone()),
            (None, after) => (How::Added, after.cloned().unwrap_or_default()),
        };
        Some(Change { how, what: key.1.to_owned(), name: key.2.clone(), text })
    };
    keys.into_iter().filter_map(change).collect()
}

/// What a running daemon cannot change.
pub(super) fn fixed(former: &Config, new: &Config) -> Vec<Refusal> {
    let mut found = Vec::new();
    let mut refuse = |key: &str, why: &str, fix: &str| {
        found.push(Refusal { message: format!("`edge.{key}` differs: {why}"), fix: fix.to_owned() });
    };
    let (former, new) = (&former.edge, &new.edge);
    let restart = "restore it, or restart the daemon";
    if former.seed != new.seed {
        let fix = "restore it; or drain, `burst detach` and start anew";
        refuse("seed", "every flow would fall into another slot", fix);
    }
    if former.xdp != new.xdp {
        refuse("xdp", "a link keeps its mode", "restore it; or drain, `burst detach` and start anew");
    }
    if former.pin_dir != new.pin_dir {
        refuse("pin_dir", "what is pinned stays where it is", "restore it; or drain, `burst detach` and start anew");
    }
    if former.socket != new.socket {
        refuse("socket", "the daemon keeps its socket while it runs", restart);
    }
    found
}

/// What breaks among the flows of classes for which `placed` holds, and at endpoints (`class/tier/address`) for which `at` does.
pub(super) fn breaks(
    former: &Config,
    new: &Config,
    placed: &dyn Fn(&str) -> bool,
    at: &dyn Fn(&str) -> bool,
) -> Vec<String> {
    let mut found = Vec::new();
    let away = || former.classes.iter().filter(|class| class.burst.is_some() && placed(&class.name));
    let known =
        |class: &Class, rule: &Rule| former.classes.iter().any(|old| same(old, class) && old.rules.contains(rule));
    for class in &new.classes {
        for rule in class.rules.iter().filter(|rule| !known(class, rule)) {
            for other in away().filter(|other| !same(other, class)) {
                if !other.rules.iter().any(|theirs| overlap(theirs, rule)) {
                    continue;
                }
                let (name, rule, other) = (&class.name, rule_text(rule), &other.name);
                found.push(match class.burst {
                    None => format!("rule of {name} ({rule}): flows of {other} that it keeps from now on break if they are in the cloud"),
                    Some(_) => format!("rule of {name} ({rule}): flows of {other} that it takes over break if they are in the cloud"),
                });
            }
        }
    }
    for class in away() {
        let now = new.classes.iter().find(|new| same(new, class));
        for rule in now.into_iter().flat_map(|now| &now.rules).filter(|rule| !class.rules.contains(rule)) {
            let rule = rule_text(rule);
            found.push(format!("rule of {} ({rule}) comes: connections it matches that are local now break as far as their slots send offsite", class.name));
        }
        let Some(now) = new.classes.iter().find(|new| same(new, class)) else { continue };
        let alone = |class: &Class| class.burst.as_ref().is_some_and(|burst| burst.udp == Udp::PerPacket);
        if alone(now) && !alone(class) {
            found.push(format!("udp of {} becomes per-packet: its UDP flows are not remembered any more", class.name));
        }
        for rule in class.rules.iter().filter(|rule| !now.rules.contains(rule)) {
            let rule = rule_text(rule);
            found.push(format!(
                "rule of {} ({rule}) goes: its flows that no other rule matches break if they are in the cloud",
                class.name
            ));
        }
    }
    found.extend(cut_off(former, new, at));
    found
}

/// Endpoints that go, with the devices that their replies come by.
fn cut_off(former: &Config, new: &Config, at: &dyn Fn(&str) -> bool) -> Vec<String> {
    let device = |config: &Config, name: &String| -> Option<String> {
        config.links.iter().find(|link| link.name == *name).map(|link| link.device.clone())
    };
    let mut found = Vec::new();
    for class in &former.classes {
        for tier in class.burst.iter().flat_map(|burst| &burst.tiers) {
            let reached = |name: &String| {
                let device = device(former, name);
                new.links.iter().any(|link| Some(&link.device) == device.as_ref())
            };
            if tier.links.iter().all(reached) {
                continue;
            }
            let kept = new.classes.iter().any(|now| {
                now.name == class.name && now.burst.iter().flat_map(|b| &b.tiers).any(|t| t.name == tier.name)
            });
            let names = tier.endpoint_names().into_iter().map(|name| endpoint_key(&class.name, &name));
            let lost: Vec<_> = names.filter(|name| !kept && at(name)).collect();
            if !lost.is_empty() {
                found.push(format!(
                    "a device of the links of {} loses its program: flows at {} by it break",
                    tier.name,
                    lost.join(", ")
                ));
            }
        }
    }
    found
}

/// Whether a class is the same to its flows: one that turns `keep` is not.
fn same(one: &Class, other: &Class) -> bool {
    one.name == other.name && one.burst.is_some() == other.burst.is_some()
}

/// Whether a packet can match both.
fn overlap(one: &Rule, other: &Rule) -> bool {
    let nets = |one: &[IpNet], other: &[IpNet]| {
        one.is_empty() || other.is_empty() || one.iter().any(|a| other.iter().any(|b| a.contains(b) || b.contains(a)))
    };
    let protos = one.proto.is_none() || other.proto.is_none() || one.proto == other.proto;
    let ports = one.ports.is_empty()
        || other.ports.is_empty()
        || one.ports.iter().any(|a| other.ports.iter().any(|b| a.0 <= b.1 && b.0 <= a.1));
    protos && ports && nets(&one.dst, &other.dst) && nets(&one.src, &other.src)
}

fn items(config: &Config) -> Items {
    let mut items = Items::new();
    // By all their fields, here and below: one that is not told does not compile.
    let Edge { name, client, seed, shadow, pin_dir, state_dir, socket, on_exit, xdp, lease, tick, trace, sentinel } =
        &config.edge;
    let Lease { lasts, hold, home } = lease;
    for (name, text) in [
        ("name", name.clone()),
        ("client", client.join(", ")),
        ("seed", seed.clone()),
        ("mode", if *shadow { "shadow" } else { "active" }.to_owned()),
        ("pin_dir", pin_dir.display().to_string()),
        ("state_dir", state_dir.display().to_string()),
        ("socket", socket.display().to_string()),
        ("on_exit", if *on_exit == OnExit::Leave { "leave" } else { "detach" }.to_owned()),
        ("xdp", if *xdp == XdpMode::Native { "native" } else { "generic" }.to_owned()),
        ("lease", format!("lasts {lasts:?}, hold {hold:?}, home {home:?}")),
        ("tick", format!("{tick:?}")),
        ("trace", trace.to_string()),
        ("sentinel", if *sentinel == Sentinel::Report { "report" } else { "enforce" }.to_owned()),
    ] {
        items.insert((0, "edge", name.to_owned()), text);
    }
    for link in &config.links {
        items.insert((1, "link", link.name.clone()), link_text(link));
    }
    for class in &config.classes {
        let text = class.burst.as_ref().map_or("kept".to_owned(), burst_text);
        items.insert((2, "class", class.name.clone()), text);
        for rule in &class.rules {
            items.insert((3, "rule", format!("{}: {}", class.name, rule_whole(rule))), String::new());
        }
        let Some(burst) = &class.burst else { continue };
        for tier in &burst.tiers {
            let name = format!("{}/{}", class.name, tier.name);
            items.insert((4, "tier", name), tier_text(tier));
            if tier.mode.tunnels() || !tier.endpoints.is_empty() {
                for name in tier.endpoint_names() {
                    items.insert((5, "endpoint", endpoint_key(&class.name, &name)), String::new());
                }
            }
        }
        for source in &burst.local.load {
            let name = format!("{}: {}", class.name, load_name(&source.kind));
            let text = format!("limit {}, timeout {:?}, every {:?}", source.limit, source.timeout, source.every);
            items.insert((6, "load", name), text);
        }
    }
    items
}

fn link_text(link: &Link) -> String {
    let Link { name: _, device, vlan, next_hop, mtu, fallback, source4, source6, out_bps, in_bps } = link;
    let mut text = format!("device {device}");
    text += &vlan.map(|vlan| format!(", vlan {vlan}")).unwrap_or_default();
    text += &next_hop.map_or(", via the kernel".to_owned(), |next_hop| format!(", next hop {next_hop}"));
    text += &format!(", mtu {mtu}");
    text += if *fallback { ", fallback" } else { "" };
    text += &source4.map(|source| format!(", source {source}")).unwrap_or_default();
    text += &source6.map(|source| format!(", source {source}")).unwrap_or_default();
    for (name, bps) in [("out", out_bps), ("in", in_bps)] {
        text += &bps.map(|bps| format!(", {bps} bit/s {name}")).unwrap_or_default();
    }
    text
}

fn burst_text(burst: &Burst) -> String {
    let Burst { affinity, idle_timeout, hold, udp, when_full, max_offsite_share, slots, local, tiers } = burst;
    let Local { target, capacity, load: _, home_rate, stabilize, dead_band, hold: stale, fallback } = local;
    let (WhenFull::Local, affinity) = (when_full, format!("{affinity:?}").to_lowercase());
    let udp = match udp {
        Udp::Sticky => "sticky",
        Udp::Quic => "quic",
        Udp::PerPacket => "per-packet",
    };
    let capacity = capacity.map_or("learned".to_owned(), |capacity| format!("{capacity} flows/s"));
    let tiers = tiers.iter().map(|tier| tier.name.as_str()).collect::<Vec<_>>().join(", ");
    format!(
        "affinity {affinity}, {slots} slots, idle_timeout {idle_timeout:?}, hold {hold:?}, udp {udp}, at most {max_offsite_share} \
         offsite, local: target {target}, capacity {capacity}, home_rate {home_rate}, stabilize {stabilize:?}, dead_band \
         {dead_band}, hold {stale:?}, fallback {fallback}, tiers {tiers}"
    )
}

fn tier_text(tier: &Tier) -> String {
    let Tier { name: _, mode, endpoints: _, ports, port, links, capacity, health } = tier;
    let ports: Vec<_> = ports.iter().map(|(from, to)| format!("{from} = {to}")).collect();
    let mut text = format!("mode {}", mode.word());
    text += &port.map(|port| format!(", port {port}")).unwrap_or_default();
    text += &if ports.is_empty() { String::new() } else { format!(", ports {}", ports.join(", ")) };
    text += &format!(", links {}, capacity {capacity} flows/s", links.join(", "));
    text + &health.as_ref().map_or(String::new(), |health| format!(", health {}", health_text(health)))
}

fn health_text(health: &Health) -> String {
    let Health { probe, every, timeout, fall, rise, dead_after } = health;
    let probe = match probe {
        Probe::Tcp { port } => format!("tcp :{port}"),
        Probe::Http { port, path } => format!("http :{port}{path}"),
    };
    format!("{probe}, every {every:?}, timeout {timeout:?}, fall {fall}, rise {rise}, dead_after {dead_after:?}")
}

fn load_name(kind: &LoadKind) -> String {
    match kind {
        LoadKind::Metrics { url, metric, labels, combine, rate } => {
            let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
            format!(
                "{combine:?} of {metric}{{{}}} at {url}{}",
                labels.join(","),
                if *rate { ", as a rate" } else { "" }
            )
        }
        LoadKind::Haproxy { socket, proxy, server, field } => {
            format!("{field} of {proxy}/{server} at {}", socket.display())
        }
    }
}

/// A rule as it is told.
fn rule_text(rule: &Rule) -> String {
    rule_by(rule, LISTED)
}

/// A rule by all that it says.
fn rule_whole(rule: &Rule) -> String {
    rule_by(rule, usize::MAX)
}

fn rule_by(rule: &Rule, most: usize) -> String {
    let list = |all: Vec<String>| {
        let rest = all.len().saturating_sub(most);
        let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
        all.into_iter().take(most).collect::<Vec<_>>().join(" ") + &more
    };
    let nets = |nets: &[IpNet]| list(nets.iter().map(ToString::to_string).collect());
    let mut parts = Vec::new();
    for (name, prefixes) in [("dst", &rule.dst), ("src", &rule.src)] {
        if !prefixes.is_empty() {
            parts.push(format!("{name} {}", nets(prefixes)));
        }
    }
    parts.extend(rule.proto.map(|proto| match proto {
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        other => format!("protocol {other}"),
    }));
    if !rule.ports.is_empty() {
        let range =
            |&(first, last): &(u16, u16)| if first == last { first.to_string() } else { format!("{first}-{last}") };
        parts.push(format!("ports {}", list(rule.ports.iter().map(range).collect())));
    }
    if parts.is_empty() { "everything".to_owned() } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(keep: &str, promo: &str, rest: &str) -> Config {
        let text = format!(
            r#"
            version = 1
            edge = {{ name = "a", client = ["eth0"], seed = "s" }}
            link = [
              {{ name = "dx-1", device = "eth1", next_hop = "10.64.0.1" }},
              {{ name = "dx-2", device = "eth2", next_hop = "10.64.1.1" }},
            ]
            [class.payment]
            keep = true
            match = [{{ dst = ["203.0.113.10"], proto = "tcp", ports = [443] }}, {keep}]
            [class.promo]
            match = [{{ dst = ["203.0.113.20"], proto = "tcp", ports = [443] }}, {promo}]
            when_full = "local"
            local = {{ capacity = "1k flows/s" }}
            [[class.promo.tier]]
            name = "reserved"
            mode = "dnat"
            endpoints = ["10.20.0.10"]
            links = ["dx-1"]
            capacity = "1k flows/s"
            {rest}
            "#
        );
        crate::config::parse(&text, "test").unwrap_or_else(|refused| panic!("{refused}")).config
    }

    const SECOND: &str = r#"
            [[class.promo.tier]]
            name = "second"
            mode = "dnat"
            endpoints = ["10.20.0.11"]
            links = ["dx-2"]
            capacity = "1k flows/s"
    "#;

    fn told(former: &Config, new: &Config) -> Vec<String> {
        let sign = |how| match how {
            How::Added => '+',
            How::Removed => '-',
            How::Changed => '~',
        };
        let line = |change: Change| format!("{}{} {}", sign(change.how), change.what, change.name);
        changes(former, new).into_iter().map(line).collect()
    }

    #[test]
    fn every_change_is_told_once_and_nothing_else() {
        let base = config("", "", "");
        assert_eq!(told(&base, &base), [""; 0]);
        let rule = r#"{ src = ["192.0.2.0/24"] }"#;
        assert_eq!(told(&base, &config(rule, "", "")), ["+rule payment: src 192.0.2.0/24"]);
        assert_eq!(told(&config(rule, "", ""), &base), ["-rule payment: src 192.0.2.0/24"]);
        let more = config("", "", SECOND);
        let added = ["~class promo", "+tier promo/second", "+endpoint promo/second/10.20.0.11"];
        assert_eq!(told(&base, &more), added);
        let mut other = base.clone();
        other.edge.tick *= 2;
        other.links[1].mtu = 9000;
        assert_eq!(told(&base, &other), ["~edge tick", "~link dx-2"]);
        let mut held = base.clone();
        held.edge.lease.home *= 2;
        held.classes[1].burst.as_mut().unwrap().hold *= 2;
        assert_eq!(told(&base, &held), ["~edge lease", "~class promo"]);
        let checked = r#"health = { tcp = ":8080" }"#;
        assert_eq!(told(&base, &config("", "", checked)), ["~tier promo/reserved"]);
        assert!(changes(&base, &other)[0].text.contains("250ms → 500ms"), "{:?}", changes(&base, &other));
    }

    #[test]
    fn what_breaks_is_said_only_where_something_is_placed() {
        let base = config("", "", SECOND);
        let here = r#"{ dst = ["203.0.113.0/24"], src = ["192.0.2.0/24"], proto = "tcp", ports = ["400-500"] }"#;
        let elsewhere = r#"{ dst = ["203.0.113.0/24"], proto = "udp", ports = [443] }"#;
        let other = r#"{ dst = ["203.0.113.20"], proto = "tcp", ports = [80] }"#;
        let mut kept = base.clone();
        kept.classes[1].burst = None;
        let mut alone = base.clone();
        alone.classes[1].burst.as_mut().unwrap().udp = Udp::PerPacket;
        let mut unplugged = config("", "", "");
        unplugged.links.pop();
        for (former, new, said) in [
            (
                &base,
                &config(here, "", SECOND),
                Some(
                    "rule of payment (dst 203.0.113.0/24, src 192.0.2.0/24, tcp, ports 400-500): flows of promo that it keeps",
                ),
            ),
            (&base, &config(elsewhere, "", SECOND), None),
            (&base, &config("", other, SECOND), Some("rule of promo (dst 203.0.113.20/32, tcp, ports 80) comes")),
            (&config("", other, SECOND), &base, Some("rule of promo (dst 203.0.113.20/32, tcp, ports 80) goes")),
            (&base, &kept, Some("flows of promo that it keeps")),
            (&base, &alone, Some("udp of promo becomes per-packet")),
            (&alone, &base, None),
            // Its line stays: what is placed there is served on.
            (&base, &config("", "", ""), None),
            (
                &base,
                &unplugged,
                Some("a device of the links of second loses its program: flows at promo/second/10.20.0.11"),
            ),
        ] {
            let found = breaks(former, new, &|_| true, &|_| true);
            assert_eq!(found.len(), usize::from(said.is_some()), "{said:?}: {found:?}");
            assert!(said.is_none_or(|said| found[0].contains(said)), "{said:?}: {found:?}");
            assert_eq!(breaks(former, new, &|_| false, &|_| false), [""; 0], "{said:?}");
        }
    }

    #[test]
    fn what_a_running_daemon_cannot_change_is_refused() {
        let base = config("", "", "");
        assert_eq!(fixed(&base, &base), []);
        let mut other = base.clone();
        (other.edge.seed, other.edge.xdp) = ("t".into(), XdpMode::Generic);
        (other.edge.socket, other.edge.pin_dir) = ("/run/other".into(), "/run/pins".into());
        assert_eq!(fixed(&base, &other).len(), 4, "{:?}", fixed(&base, &other));
    }
}
