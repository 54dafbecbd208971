//! Rules against rules: what a burst rule must name, and which rules no packet ever reaches.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use burst_common::flow::{TCP, UDP};
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
    if rule.proto == Some(UDP) {
        let message = format!("class `{}`: this version counts no UDP packet as the start of a flow", class.name.value);
        let help = "its UDP flows leave only by `burst override`, and those that are seen while a slot changes stay where they \
                    are";
        sink.push(Diagnostic::warning(rule.span, message).help(help));
    }
    let dnat = class.burst.iter().flat_map(|burst| &burst.tiers).find(|tier| tier.mode.value == Mode::Dnat);
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
        let example = example_client(self.dst.addr());
        let src = self.src.map_or(example, |src| SocketAddr::new(src.addr(), example.port()));
        let dst = SocketAddr::new(self.dst.addr(), self.ports.0);
        write!(f, "{} {src} -> {dst}", proto_name(self.proto.unwrap_or(TCP)))
    }
}

/// A client of the family of `peer`, from documentation ranges (RFC 5737, RFC 3849).
pub(super) fn example_client(peer: IpAddr) -> SocketAddr {
    let address: IpAddr =
        if peer.is_ipv4() { [198, 51, 100, 1].into() } else { [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into() };
    SocketAddr::new(address, 40000)
}

/// `tcp` or `udp`.
pub(super) fn proto_name(proto: u8) -> &'static str {
    if proto == TCP { "tcp" } else { "udp" }
}

fn elements(rule: &Rule) -> impl Iterator<Item = Element> + '_ {
    let all = rule.ports.is_empty().then_some((1, u16::MAX));
    let ports = move || rule.ports.iter().map(|at| at.value).chain(all);
    rule.dst.iter().map(|at| at.value).flat_map(move |dst| {
        let any = rule.src.is_empty().then_some(None);
        let sources = of_family(&rule.src, dst.addr().is_ipv4()).map(Some).chain(any);
        sources.flat_map(move |src| ports().map(move |ports| Element { dst, src, proto: rule.proto, ports }))
    })
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
    // Keep rules, then burst rules in the order of the file: as the packet path numbers them.
    let mut covers: Vec<Cover<'_>> = of(true).collect();
    let keeps = covers.len();
    for cover in of(false) {
        let (class, rule) = (cover.class, cover.rule);
        // The last cover that is needed and the one that takes the first element; `None`: a packet comes through.
        let others = |n: usize| n < keeps || covers[n].class.name.value != class.name.value;
        let holder = |element| (0..covers.len()).find(|&n| others(n) && covers[n].holds(&element));
        let holders = elements(rule).map(holder).try_fold((0, None), |(last, first), holder| {
            let holder = holder?;
            Some((last.max(holder), first.or(Some(holder))))
        });
        if let (Some((last, Some(first))), Some(example)) = (holders, elements(rule).next()) {
            let (this, holder) = (name(class, cover.number), &covers[if last < keeps { first } else { last }]);
            let that = name(holder.class, holder.number);
            let error = if last < keeps {
                Diagnostic::error(rule.span, format!("{this} lies wholly inside {that}, which is kept"))
                    .other(holder.rule.span, "kept")
                    .help(format!("a packet such as {example} always stays local: take it out of one of the two rules"))
            } else {
                Diagnostic::error(rule.span, format!("{this} is never reached: {that} stands before it"))
                    .other(holder.rule.span, "takes its packets")
                    .help(format!("a packet such as {example} is taken before: take it out of one of the two rules"))
            };
            sink.push(error);
        }
        covers.push(cover);
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
