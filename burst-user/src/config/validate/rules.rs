//! Rules against rules: what a burst rule must name, and which rules no packet ever reaches.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use burst_common::flow::TCP;
use burst_common::limits::MAX_PREFIXES;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::config::diagnostics::Diagnostic;
use crate::config::model::Mode;
use crate::config::raw::{Class, File, Rule};
use crate::config::read::{At, Sink};

/// Checks all rules.
pub(super) fn check(file: &File, sink: &Sink) {
    for class in &file.classes {
        for (number, rule) in class.rules.iter().enumerate() {
            families(class, number, rule, sink);
            if class.burst.is_some() {
                complete(class, number, rule, sink);
            }
        }
    }
    reached(file, sink);
    prefixes(file, sink);
}

/// `rule 1 of class `promo``.
pub(super) fn name(class: &Class, number: usize) -> String {
    format!("rule {} of class `{}`", number + 1, class.name.value)
}

fn of_family(prefixes: &[At<IpNet>], v4: bool) -> impl Iterator<Item = IpNet> + '_ {
    prefixes.iter().map(|at| at.value).filter(move |prefix| prefix.addr().is_ipv4() == v4)
}

fn families(class: &Class, number: usize, rule: &Rule, sink: &Sink) {
    let has = |prefixes: &[At<IpNet>], v4| prefixes.is_empty() || of_family(prefixes, v4).next().is_some();
    if ![true, false].into_iter().any(|v4| has(&rule.dst, v4) && has(&rule.src, v4)) {
        let message = format!("{} matches nothing: dst and src are of different families", name(class, number));
        sink.push(Diagnostic::error(rule.span, message).help("name sources of the same family as the destinations"));
    }
}

/// A burst rule names its service: addresses, protocol and ports; for `dnat` each address is one host.
fn complete(class: &Class, number: usize, rule: &Rule, sink: &Sink) {
    let missing = |key: &str, help: &str| {
        let message = format!("{} has no `{key}`, and the class is a burst class", name(class, number));
        sink.push(Diagnostic::error(rule.span, message).help(help));
    };
    if rule.dst.is_empty() {
        missing("dst", "name the service's addresses, such as dst = [\"203.0.113.20/32\"]");
    }
    if rule.proto.is_none() {
        missing("proto", "add proto = \"tcp\" or proto = \"udp\"");
    }
    if rule.ports.is_empty() {
        missing("ports", "name the service's ports, such as ports = [80, 443]");
    }
    let dnat = class.burst.iter().flat_map(|burst| &burst.tiers).find(|tier| tier.mode == Mode::Dnat);
    let Some(tier) = dnat else { return };
    for dst in rule.dst.iter().filter(|dst| dst.prefix_len() != dst.max_prefix_len()) {
        let message =
            format!("`{}` is more than one address, and tier `{}` is of mode dnat", dst.value, tier.name.value);
        let error = Diagnostic::error(dst.span, message).other(tier.name.span, "rewrites the destination");
        sink.push(error.help("a reply could not be given back to the address it was asked of: name each address, such as \"203.0.113.20/32\""));
    }
}

/// One (destination, source, protocol, port range) of a rule.
struct Element {
    dst: IpNet,
    /// `None`: any.
    src: Option<IpNet>,
    proto: Option<u8>,
    ports: (u16, u16),
}

/// A packet of it, for messages.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let example: IpAddr =
            if self.dst.addr().is_ipv4() { [198, 51, 100, 1].into() } else { [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into() };
        let src = std::net::SocketAddr::new(self.src.map_or(example, |src| src.addr()), 40000);
        let dst = std::net::SocketAddr::new(self.dst.addr(), self.ports.0);
        write!(f, "{} {src} -> {dst}", proto_name(self.proto.unwrap_or(TCP)))
    }
}

/// `tcp` or `udp`.
pub(super) fn proto_name(proto: u8) -> &'static str {
    if proto == TCP { "tcp" } else { "udp" }
}

fn elements(rule: &Rule) -> Vec<Element> {
    let mut elements = Vec::new();
    let ports: Vec<_> =
        if rule.ports.is_empty() { vec![(1, u16::MAX)] } else { rule.ports.iter().map(|at| at.value).collect() };
    for dst in rule.dst.iter().map(|at| at.value) {
        let sources: Vec<_> = match rule.src.is_empty() {
            true => vec![None],
            false => of_family(&rule.src, dst.addr().is_ipv4()).map(Some).collect(),
        };
        for src in sources {
            elements.extend(ports.iter().map(|&ports| Element { dst, src, proto: rule.proto, ports }));
        }
    }
    elements
}

/// A rule that may take packets from another, its prefixes and ports merged.
struct Cover<'a> {
    class: &'a Class,
    number: usize,
    rule: &'a Rule,
    dst: Vec<IpNet>,
    src: Vec<IpNet>,
    ports: Vec<(u16, u16)>,
}

impl<'a> Cover<'a> {
    fn new(class: &'a Class, number: usize) -> Self {
        let rule = &class.rules[number];
        let merged = |prefixes: &[At<IpNet>]| IpNet::aggregate(&prefixes.iter().map(|at| at.value).collect());
        let mut ranges: Vec<_> = rule.ports.iter().map(|at| at.value).collect();
        ranges.sort_unstable();
        let mut ports: Vec<(u16, u16)> = Vec::new();
        for (first, last) in ranges {
            match ports.last_mut() {
                Some(open) if u32::from(first) <= u32::from(open.1) + 1 => open.1 = open.1.max(last),
                _ => ports.push((first, last)),
            }
        }
        Self { class, number, rule, dst: merged(&rule.dst), src: merged(&rule.src), ports }
    }

    /// Whether it takes every packet of `element`.
    fn holds(&self, element: &Element) -> bool {
        let all = |v4: bool| if v4 { IpNet::V4(Ipv4Net::default()) } else { IpNet::V6(Ipv6Net::default()) };
        let src = element.src.unwrap_or_else(|| all(element.dst.addr().is_ipv4()));
        let prefix = |cover: &[IpNet], of: IpNet| cover.is_empty() || cover.iter().any(|cover| cover.contains(&of));
        let (first, last) = element.ports;
        prefix(&self.dst, element.dst)
            && prefix(&self.src, src)
            && (self.rule.proto.is_none() || self.rule.proto == element.proto)
            && (self.ports.is_empty() || self.ports.iter().any(|open| open.0 <= first && last <= open.1))
    }
}

/// Reports burst rules whose every packet an earlier rule takes: a keep rule, or one of another class before it.
fn reached(file: &File, sink: &Sink) {
    let of = |keep: bool| {
        let classes = file.classes.iter().filter(move |class| class.burst.is_none() == keep);
        classes.flat_map(|class| (0..class.rules.len()).map(|number| Cover::new(class, number)))
    };
    let keep: Vec<_> = of(true).collect();
    let mut earlier: Vec<Cover<'_>> = Vec::new();
    for cover in of(false) {
        let (class, rule) = (cover.class, cover.rule);
        let elements = elements(rule);
        let holder = |covers: &[Cover<'_>]| {
            let holders: Option<Vec<usize>> =
                elements.iter().map(|element| covers.iter().position(|cover| cover.holds(element))).collect();
            holders.and_then(|holders| holders.first().copied())
        };
        let others: Vec<_> = earlier
            .iter()
            .filter(|other| other.class.name.value != class.name.value)
            .map(|other| Cover::new(other.class, other.number))
            .collect();
        if let Some(holder) = holder(&keep).map(|n| &keep[n]) {
            let message = format!(
                "{} lies wholly inside {}, which is kept",
                name(class, cover.number),
                name(holder.class, holder.number)
            );
            let error = Diagnostic::error(rule.span, message).other(holder.rule.span, "kept");
            sink.push(error.help(format!(
                "a packet such as {} always stays local: take it out of one of the two rules",
                elements[0]
            )));
        } else if let Some(holder) = holder(&others).map(|n| &others[n]) {
            let message = format!(
                "{} is never reached: {} stands before it",
                name(class, cover.number),
                name(holder.class, holder.number)
            );
            let error = Diagnostic::error(rule.span, message).other(holder.rule.span, "takes its packets");
            sink.push(
                error.help(format!(
                    "a packet such as {} matches both: take it out of one of the two rules",
                    elements[0]
                )),
            );
        }
        earlier.push(cover);
    }
}

/// No dimension may have more prefixes than a map has rows.
fn prefixes(file: &File, sink: &Sink) {
    let dimension = |key: &str, v4: bool, of: fn(&Rule) -> &Vec<At<IpNet>>| {
        let mut distinct = BTreeSet::new();
        let all = file.classes.iter().flat_map(|class| &class.rules).flat_map(of);
        for prefix in all.filter(|prefix| prefix.addr().is_ipv4() == v4) {
            if distinct.insert(prefix.value) && distinct.len() > MAX_PREFIXES {
                let family = if v4 { "IPv4" } else { "IPv6" };
                let error = Diagnostic::error(
                    prefix.span,
                    format!("there are more than {MAX_PREFIXES} {family} prefixes in `{key}`"),
                );
                sink.push(error.help("name shorter prefixes that cover several of these"));
                return;
            }
        }
    };
    for v4 in [true, false] {
        dimension("dst", v4, |rule| &rule.dst);
        dimension("src", v4, |rule| &rule.src);
    }
}
