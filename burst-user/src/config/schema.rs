//! The keys of a configuration file: which there are, of what type, and which this version does not act on yet.
//!
//! Holds the top level, `[edge]` and `[[link]]`; `[class.NAME]` is in [`class`], its tiers in [`tier`], its load sources
//! in [`load`]. Nothing here compares one part of the file with another.

mod class;
mod load;
mod tier;

use std::net::IpAddr;
use std::time::Duration;

use toml::de::DeValue;

use super::diagnostics::{Diagnostic, Span};
use super::leaf::{self, Leaf};
use super::model::{self, OnExit, Sentinel, XdpMode};
use super::raw::{Edge, File, Link};
use super::read::{At, Table};
use super::units::{self, Complaint};

/// Reads a whole file; `None` when something needed is missing or wrong, which was reported.
pub(super) fn file(mut top: Table<'_>) -> Option<File> {
    top.req("version", "version = 1", version);
    let edge = top.demand("edge", "[edge]").then(|| top.sub("edge", "the edge")).flatten().and_then(edge);
    let links = top.demand("link", "[[link]]").then(|| top.subs("link", "the link")).flatten();
    let links = links.map(|links| links.value.into_iter().map(link).collect::<Vec<_>>());
    let classes = top.demand("class", "[class.promo]").then(|| top.sub("class", "`class`")).flatten().map(class::all);
    top.finish();
    Some(File { edge: edge?, links: links?.into_iter().collect::<Option<_>>()?, classes: classes?? })
}

fn version(value: &DeValue<'_>) -> Leaf<()> {
    let version = leaf::integer(0, i64::MAX)(value)?;
    if version == 1 { Ok(()) } else { Err(Complaint::new(format!("{version} is unknown to this burst"), "write 1")) }
}

/// Says that something is read and checked, and nothing is done with it.
fn not_acted_on(table: &Table<'_>, span: Span, key: &str, so: &str) {
    let message = format!("this version does not act on `{key}`: {so}");
    table.sink.push(Diagnostic::warning(span, message));
}

fn edge(mut table: Table<'_>) -> Option<Edge> {
    let name = table.req("name", "name = \"edge-a1\"", leaf::name);
    let client = table.demand("client", "client = [\"eth0\"]").then(|| table.list("client", leaf::device)).flatten();
    if let Some(client) = &client {
        if client.is_empty() {
            let error = Diagnostic::error(client.span, "client: names no device");
            table.sink.push(error.help("name the devices that client traffic arrives on, such as [\"eth0\"]"));
        }
        for (n, device) in client.iter().enumerate() {
            if let Some(first) = client[..n].iter().find(|first| first.value == device.value) {
                let error = Diagnostic::error(device.span, format!("client: `{}` is named twice", device.value));
                table.sink.push(error.other(first.span, "first here").help("name it once"));
            }
        }
    }
    let seed = table.req("seed", "seed = \"one-string-for-all-edges\"", leaf::words);
    let shadow = table.opt("mode", leaf::keyword(&[("active", Some(false)), ("shadow", Some(true))]));
    let sentinel = [("report", Some(Sentinel::Report)), ("enforce", Some(Sentinel::Enforce))];
    let sentinel = table.opt("sentinel", leaf::keyword(&sentinel));
    let pin_dir = table.opt("pin_dir", leaf::path);
    let state_dir = table.opt("state_dir", leaf::path);
    if let Some(state_dir) = &state_dir {
        not_acted_on(&table, state_dir.span, "state_dir", "nothing is kept outside the kernel yet");
    }
    let socket = table.opt("socket", leaf::socket);
    let on_exit =
        table.opt("on_exit", leaf::keyword(&[("leave", Some(OnExit::Leave)), ("detach", Some(OnExit::Detach))]));
    let xdp =
        table.opt("xdp", leaf::keyword(&[("native", Some(XdpMode::Native)), ("generic", Some(XdpMode::Generic))]));
    let tick = table.opt("tick", leaf::duration(Duration::from_millis(50), Duration::from_secs(10)));
    let trace = table.opt("trace", leaf::boolean);
    let lease = lease(&mut table, tick.as_ref().map_or(Duration::from_millis(250), |at| at.value));
    table.finish();
    let client = client?.value;
    Some(Edge {
        edge: model::Edge {
            name: name?.value,
            client: client.iter().map(|device| device.value.clone()).collect(),
            seed: seed?.value,
            shadow: shadow.is_some_and(|at| at.value),
            pin_dir: pin_dir.map_or_else(|| "/run/burst/bpf".into(), |at| at.value),
            state_dir: state_dir.map_or_else(|| "/var/lib/burst".into(), |at| at.value),
            socket: socket.map_or_else(|| "/run/burst/burst.sock".into(), |at| at.value),
            on_exit: on_exit.map_or(OnExit::Leave, |at| at.value),
            xdp: xdp.map_or(XdpMode::Native, |at| at.value),
            lease,
            tick: tick.map_or(Duration::from_millis(250), |at| at.value),
            trace: trace.is_some_and(|at| at.value),
            sentinel: sentinel.map_or(Sentinel::Report, |at| at.value),
        },
        client,
    })
}

/// `lease` of the edge. What is wrong was reported.
fn lease(edge: &mut Table<'_>, tick: Duration) -> model::Lease {
    const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
    let second = Duration::from_secs(1);
    let least = 4 * tick;
    let mut lease = model::Lease { lasts: least.max(5 * second), hold: 900 * second, home: 600 * second };
    let Some(mut table) = edge.sub("lease", "`lease`") else { return lease };
    if let Some(lasts) = table.opt("lasts", leaf::duration(second, 3600 * second)) {
        if lasts.value < least {
            let message = format!("lasts: {:?} is less than four ticks of {tick:?}", lasts.value);
            let error = Diagnostic::error(lasts.span, message);
            table
                .sink
                .push(error.help("a daemon that is a little late would lose it: make it longer, or `tick` shorter"));
        }
        lease.lasts = lasts.value;
    }
    lease.hold = table.opt("hold", leaf::duration(Duration::ZERO, WEEK)).map_or(lease.hold, |at| at.value);
    lease.home = table.opt("home", leaf::duration(second, WEEK)).map_or(lease.home, |at| at.value);
    table.finish();
    lease
}

fn link(mut table: Table<'_>) -> Option<Link> {
    let name = table.req("name", "name = \"dx-1\"", leaf::name);
    if let Some(name) = &name {
        table.what = format!("link `{}`", name.value);
    }
    let device = table.req("device", "device = \"eth1\"", leaf::device);
    let vlan = table.opt("vlan", leaf::integer(1, 4094));
    // 1280: the least an IPv6 link carries (RFC 8200, section 5). 9216: what jumbo frames of common switches carry.
    let mtu = table.opt("mtu", leaf::integer(1280, 9216));
    let via = table.opt("via", leaf::keyword(&[("kernel", Some(()))]));
    let fallback = table.opt("fallback", leaf::boolean);
    let (out_bps, in_bps) = match table.sub("bandwidth", "`bandwidth`") {
        Some(mut bandwidth) => {
            let both =
                (bandwidth.opt("out", leaf::text(units::bandwidth)), bandwidth.opt("in", leaf::text(units::bandwidth)));
            if let Some(span) = both.0.as_ref().map(|at| at.span).or(both.1.as_ref().map(|at| at.span)) {
                not_acted_on(&bandwidth, span, "bandwidth", "no share is bounded by what a link carries");
            }
            bandwidth.finish();
            (both.0.map(|at| at.value), both.1.map(|at| at.value))
        }
        None => (None, None),
    };
    let kernel = via.is_some();
    let next_hop = if kernel {
        for (key, why) in [
            ("next_hop", "the routing table knows it"),
            ("vlan", "name the VLAN device itself as `device`"),
            ("source", "tunnels are not sent over such a link"),
        ] {
            if let Some(span) = table.key(key) {
                let error = Diagnostic::error(span, format!("{} has `{key}` and `via = \"kernel\"`", table.what));
                table.sink.push(error.help(format!("remove one of them: {why}")));
            }
        }
        None
    } else {
        table.req("next_hop", "next_hop = \"10.64.0.1\"", next_hop)
    };
    let source = if kernel { Some(Vec::new()) } else { source(&mut table) };
    table.finish();
    let name = name?;
    let mtu = mtu.map_or(At { value: 1500, span: name.span }, |at| At { value: at.value as u16, span: at.span });
    Some(Link {
        name,
        device: device?,
        vlan: vlan.filter(|_| !kernel).map(|at| At { value: at.value as u16, span: at.span }),
        next_hop: if kernel { None } else { Some(next_hop?) },
        mtu,
        fallback: fallback.is_some_and(|at| at.value),
        source: source?,
        out_bps,
        in_bps,
    })
}

/// `source`: the addresses that tunnels come from, one of a family at most.
fn source(table: &mut Table<'_>) -> Option<Vec<At<IpAddr>>> {
    if table.key("source").is_none() {
        return Some(Vec::new());
    }
    let list = table.list("source", tunnel_source)?;
    if list.is_empty() {
        let error = Diagnostic::error(list.span, "source: an empty list is no address");
        table.sink.push(error.help("leave `source` out, or name an address of this host"));
    }
    for (n, source) in list.iter().enumerate() {
        if let Some(first) = list[..n].iter().find(|first| first.is_ipv4() == source.is_ipv4()) {
            let family = if source.is_ipv4() { "IPv4" } else { "IPv6" };
            let error = Diagnostic::error(source.span, format!("source: a second {family} address, {}", source.value));
            table.sink.push(error.other(first.span, "the first").help("name one address of each family at most"));
        }
    }
    Some(list.value)
}

/// An address that tunnels come from: one host's, and not of one line alone.
fn tunnel_source(value: &DeValue<'_>) -> Leaf<IpAddr> {
    let address = leaf::text(units::address)(value)?;
    match not_routed(address).or_else(|| special(address)) {
        Some(what) => Err(Complaint::new(
            format!("`{address}` is {what}, and no tunnel could come back to it"),
            "write an address of this host that the cloud has a route to, such as \"10.64.0.2\"",
        )),
        None => Ok(address),
    }
}

/// The address of a router: one host's.
fn next_hop(value: &DeValue<'_>) -> Leaf<IpAddr> {
    let address = leaf::text(units::address)(value)?;
    match special(address) {
        Some(what) => Err(Complaint::new(
            format!("`{address}` is {what}, not the address of a router"),
            "write the address of the Direct Connect router, such as \"10.64.0.1\"",
        )),
        None => Ok(address),
    }
}

/// What keeps an address from being one host's on another machine.
fn special(address: IpAddr) -> Option<&'static str> {
    match address {
        _ if address.is_unspecified() => Some("the unspecified address"),
        _ if address.is_multicast() => Some("a multicast address"),
        _ if address.is_loopback() => Some("a loopback address"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("the broadcast address"),
        IpAddr::V4(v4) if v4.octets()[0] == 0 => Some("of 0.0.0.0/8, which names no other host"),
        // Where the return table keeps IPv4 addresses; IETF reserves it (RFC 4291, section 2.4).
        IpAddr::V6(v6) if v6.octets()[0] == 0 => Some("of ::/8, which is reserved"),
        _ => None,
    }
}

/// What keeps an address from being reached from beyond the line it is on.
fn not_routed(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("a link-local address"),
        _ => None,
    }
}
