//! The routing tables and policy rules of a family: read at one time and no further than is useful, and followed.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::FutureExt;
use ipnet::IpNet;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteType, RouteVia,
};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use tokio::sync::watch::Sender;
use tokio::time::{sleep, timeout};

use super::client::DEADLINE;
use super::gateway::{Lookup, ToClients, to_clients};
use super::raw::{News, dump};
use super::sysctl::Family;

/// A dump during which something changed is incomplete and asked for again, so many times.
const DUMPS: usize = 4;

/// Tables that are looked at without rules of anybody's own (include/uapi/linux/rtnetlink.h).
pub(super) const DEFAULT: u32 = 253;
/// See [`DEFAULT`].
pub(super) const MAIN: u32 = 254;
/// See [`DEFAULT`].
pub(super) const LOCAL: u32 = 255;

/// A route of one of the three tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// Destinations.
    pub(super) to: IpNet,
    /// Whether it holds for all sources and all types of service.
    pub(super) plain: bool,
    /// `Some`: a unicast route with one way, known by itself.
    pub(super) way: Option<Way>,
}

/// The way of a unicast route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// Next router; `None`: the destination is a neighbour.
    pub(super) gateway: Option<IpAddr>,
    /// Device.
    pub(super) oif: u32,
    /// Largest packet in bytes, where the route says so.
    pub(super) mtu: Option<u32>,
}

/// What the routing of a family is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Routing {
    /// The routes of the three tables.
    pub(super) routes: Vec<Route>,
    /// Whether there are more than were read, or one that could not be read.
    pub(super) more: bool,
    /// Whether the rules are those that the kernel comes with.
    pub(super) ruled: bool,
}

/// Reads rules and routes.
///
/// # Errors
/// The kernel's.
pub(super) async fn read(family: Family) -> io::Result<Routing> {
    let mut rules = RuleMessage::default();
    rules.header.family = address_family(family);
    let mut routes = RouteMessage::default();
    routes.header.address_family = address_family(family);
    for _ in 0..DUMPS {
        let (ruled, rules_whole) = match dump(RouteNetlinkMessage::GetRule(rules.clone())).await {
            Ok((found, whole)) => {
                let rule = |message: &RouteNetlinkMessage| match message {
                    RouteNetlinkMessage::NewRule(rule) => rule_of(rule),
                    _ => None,
                };
                let own = found.messages.iter().map(rule).collect::<Vec<_>>() == defaults(family);
                (found.more || !own, whole)
            }
            // A kernel without policy routing (CONFIG_IP_MULTIPLE_TABLES).
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => (false, true),
            Err(error) => return Err(error),
        };
        if ruled {
            // Whatever the tables say.
            return Ok(Routing { ruled, ..Routing::default() });
        }
        let (found, routes_whole) = dump(RouteNetlinkMessage::GetRoute(routes.clone())).await?;
        if rules_whole && routes_whole {
            let route = |message: &RouteNetlinkMessage| match message {
                RouteNetlinkMessage::NewRoute(route) => route_of(route),
                _ => None,
            };
            return Ok(Routing { routes: found.messages.iter().filter_map(route).collect(), more: found.more, ruled });
        }
    }
    // They change without end: that will be announced, and read again.
    Ok(Routing { more: true, ..Routing::default() })
}

const fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

/// Priority and table of a rule for every packet; `None` of any other.
fn rule_of(rule: &RuleMessage) -> Option<(u32, u32)> {
    let header = &rule.header;
    let (mut priority, mut table) = (0, u32::from(header.table));
    for attribute in &rule.attributes {
        match attribute {
            RuleAttribute::Priority(number) => priority = *number,
            RuleAttribute::Table(number) => table = *number,
            // Who made it, and that it suppresses nothing.
            RuleAttribute::Protocol(_) | RuleAttribute::SuppressPrefixLen(u32::MAX) => {}
            _ => return None,
        }
    }
    let all = header.src_len == 0 && header.dst_len == 0 && header.tos == 0 && header.flags.is_empty();
    (all && header.action == RuleAction::ToTable).then_some((priority, table))
}

/// The rules that the kernel comes with (net/ipv4/fib_rules.c, net/ipv6/fib6_rules.c), as a dump lists them.
fn defaults(family: Family) -> Vec<Option<(u32, u32)>> {
    let mut rules = vec![Some((0, LOCAL)), Some((32766, MAIN))];
    if family == Family::V4 {
        rules.push(Some((32767, DEFAULT)));
    }
    rules
}

/// A route of the three tables.
fn route_of(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    let (mut table, mut to, mut gateway, mut oif, mut mtu) = (u32::from(header.table), None, None, None, None);
    let mut simple = header.kind == RouteType::Unicast;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Destination(address) => to = ip(address),
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::Via(RouteVia::Inet(address)) => gateway = Some(IpAddr::V4(*address)),
            RouteAttribute::Via(RouteVia::Inet6(address)) => gateway = Some(IpAddr::V6(*address)),
            RouteAttribute::Oif(ifindex) => oif = Some(*ifindex),
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            // Several ways; one that is made elsewhere and changes without this route; one through a tunnel of its own.
            RouteAttribute::MultiPath(_)
            | RouteAttribute::NhId(_)
            | RouteAttribute::Encap(_)
            | RouteAttribute::EncapType(_)
            | RouteAttribute::Via(_) => simple = false,
            _ => {}
        }
    }
    let asked = [DEFAULT, MAIN, LOCAL].contains(&table) && !header.flags.contains(RouteFlags::Cloned);
    let unspecified = match header.address_family {
        AddressFamily::Inet => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let to = IpNet::new(to.unwrap_or(unspecified), header.destination_prefix_length).ok().filter(|_| asked)?;
    let dead = header.flags.intersects(RouteFlags::Dead | RouteFlags::Linkdown | RouteFlags::Unresolved);
    let way = oif.filter(|_| simple && !dead).map(|oif| Way { gateway, oif, mtu });
    Some(Route { to: to.trunc(), plain: header.source_prefix_length == 0 && header.tos == 0, way })
}

/// The router of a route with one way; `None`: what it leads to is a neighbour.
pub(super) fn gateway(message: &RouteMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        RouteAttribute::Via(RouteVia::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Via(RouteVia::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

/// How long news must have been still before everything is read anew.
const QUIET: Duration = Duration::from_millis(50);
/// How long after a failure it is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How often everything is read anew, in case news were lost without the kernel saying so.
const RESYNC: Duration = Duration::from_secs(30);

/// What the routing of each family, IPv4 and IPv6, comes to.
pub(super) type Ways = [Result<ToClients, Lookup>; 2];

/// Follows the routing of both families, for ever: says at once that it changed, and what it is when it has been read.
pub(super) async fn follow(ways: Sender<Ways>) {
    loop {
        let error = match News::subscribe() {
            Ok(news) => follow_news(news, &ways).await,
            Err(error) => error,
        };
        tracing::warn!(%error, "the routing tables cannot be followed; trying again");
        set(&ways, [true; 2], &Err(Lookup::Unread));
        sleep(RETRY).await;
    }
}

fn set(ways: &Sender<Ways>, families: [bool; 2], to: &Result<ToClients, Lookup>) {
    ways.send_if_modified(|ways| {
        let mut changed = false;
        for (way, _) in ways.iter_mut().zip(families).filter(|(way, family)| *family && **way != *to) {
            way.clone_from(to);
            changed = true;
        }
        changed
    });
}

/// Follows news until they end.
async fn follow_news(mut news: News, ways: &Sender<Ways>) -> io::Error {
    let (mut due, mut wait) = ([true; 2], Duration::ZERO);
    loop {
        tokio::select! {
            biased;
            heard = news.next() => match heard {
                Ok(heard) => {
                    set(ways, heard, &Err(Lookup::Reading));
                    for (due, heard) in due.iter_mut().zip(heard) {
                        *due |= heard;
                    }
                    wait = QUIET;
                }
                Err(error) => return error,
            },
            () = sleep(if due.contains(&true) { wait } else { RESYNC }) => {
                let again = if due.contains(&true) { due } else { [true; 2] };
                let mut found = [const { None }; 2];
                for (index, family) in [Family::V4, Family::V6].into_iter().enumerate().filter(|(index, _)| again[*index]) {
                    found[index] = Some(timeout(DEADLINE, read(family)).await.unwrap_or_else(|late| Err(late.into())));
                }
                // What was heard meanwhile may be newer than what was read.
                let mut newer = [false; 2];
                while let Some(heard) = news.next().now_or_never() {
                    match heard {
                        Ok(heard) => newer = [newer[0] || heard[0], newer[1] || heard[1]],
                        Err(error) => return error,
                    }
                }
                (due, wait) = (newer, QUIET);
                for (index, found) in found.into_iter().enumerate() {
                    let one = [index == 0, index == 1];
                    match found {
                        _ if newer[index] => set(ways, one, &Err(Lookup::Reading)),
                        Some(Ok(routing)) => set(ways, one, &to_clients(&routing)),
                        Some(Err(error)) => {
                            tracing::warn!(%error, "a routing table cannot be read; trying again");
                            set(ways, one, &Err(Lookup::Unread));
                            (due[index], wait) = (true, RETRY);
                        }
                        None => {}
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtnetlink::packet_route::route::RouteNextHop;
    use rtnetlink::packet_route::rule::RuleHeader;

    fn message(to: Option<&str>, attributes: &[RouteAttribute]) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.table = MAIN as u8;
        message.header.kind = RouteType::Unicast;
        if let Some(to) = to {
            let to: IpNet = to.parse().unwrap();
            message.header.destination_prefix_length = to.prefix_len();
            message.attributes.push(RouteAttribute::Destination(to.addr().into()));
        }
        message.attributes.extend_from_slice(attributes);
        message
    }

    fn gateway() -> Vec<RouteAttribute> {
        let gateway: IpAddr = "192.0.2.2".parse().unwrap();
        vec![RouteAttribute::Gateway(gateway.into()), RouteAttribute::Oif(7)]
    }

    #[test]
    fn a_default_route_by_a_gateway_has_a_way() {
        let way = Way { gateway: "192.0.2.2".parse().ok(), oif: 7, mtu: None };
        let expected = Route { to: "0.0.0.0/0".parse().unwrap(), plain: true, way: Some(way) };
        assert_eq!(route_of(&message(None, &gateway())), Some(expected.clone()));
        let mtu = RouteAttribute::Metrics(vec![RouteMetric::Advmss(1), RouteMetric::Mtu(1400)]);
        let route = route_of(&message(None, &[gateway(), vec![mtu]].concat())).unwrap();
        assert_eq!(route.way, Some(Way { mtu: Some(1400), ..way }));
        let via = RouteAttribute::Via(RouteVia::Inet6("fe80::1".parse().unwrap()));
        let route = route_of(&message(None, &[via, RouteAttribute::Oif(7)])).unwrap();
        assert_eq!(route.way.unwrap().gateway, "fe80::1".parse().ok(), "IPv4 by an IPv6 router (RFC 8950)");
        let on_link = route_of(&message(Some("198.51.100.0/24"), &[RouteAttribute::Oif(7)])).unwrap();
        assert_eq!((on_link.to.to_string(), on_link.way.unwrap().gateway), ("198.51.100.0/24".to_owned(), None));
    }

    #[test]
    fn what_is_more_than_one_plain_way_has_none() {
        for (what, attribute) in [
            ("several ways", RouteAttribute::MultiPath(vec![RouteNextHop::default()])),
            ("a way made elsewhere", RouteAttribute::NhId(1)),
            ("a way through a tunnel", RouteAttribute::EncapType(1.into())),
        ] {
            let route = route_of(&message(None, &[gateway(), vec![attribute]].concat())).unwrap();
            assert_eq!((route.way, route.plain), (None, true), "{what}");
        }
        for flag in [RouteFlags::Dead, RouteFlags::Linkdown] {
            let mut dead = message(None, &gateway());
            dead.header.flags = flag;
            assert_eq!(route_of(&dead).unwrap().way, None, "{flag:?}");
        }
        for kind in [RouteType::BlackHole, RouteType::Local, RouteType::Throw] {
            let mut other = message(Some("203.0.113.0/24"), &[]);
            other.header.kind = kind;
            let route = route_of(&other).unwrap();
            assert_eq!((route.to.to_string(), route.way), ("203.0.113.0/24".to_owned(), None), "{kind:?}");
        }
        let (mut sourced, mut marked) = (message(None, &gateway()), message(None, &gateway()));
        (sourced.header.source_prefix_length, marked.header.tos) = (64, 0x10);
        assert!(!route_of(&sourced).unwrap().plain && !route_of(&marked).unwrap().plain);
    }

    #[test]
    fn tables_that_are_not_asked_are_left_out() {
        let mut other = message(None, &gateway());
        other.header.table = 100;
        assert_eq!(route_of(&other), None);
        let far = [gateway(), vec![RouteAttribute::Table(1000)]].concat();
        assert_eq!(route_of(&message(None, &far)), None, "the attribute counts, not the byte");
        let mut cloned = message(Some("198.51.100.7/32"), &gateway());
        cloned.header.flags = RouteFlags::Cloned;
        assert_eq!(route_of(&cloned), None);
    }

    #[test]
    fn only_the_kernels_own_rules_are_none() {
        let rule = |priority: u32, table: u32, more: &[RuleAttribute]| {
            let mut rule = RuleMessage::default();
            rule.header = RuleHeader { table: table as u8, action: RuleAction::ToTable, ..RuleHeader::default() };
            rule.attributes = vec![
                RuleAttribute::Table(table),
                RuleAttribute::SuppressPrefixLen(u32::MAX),
                RuleAttribute::Priority(priority),
            ];
            rule.attributes.extend_from_slice(more);
            rule_of(&rule)
        };
        let own = vec![rule(0, LOCAL, &[]), rule(32766, MAIN, &[])];
        assert_eq!(own, defaults(Family::V6));
        assert_eq!([own, vec![rule(32767, DEFAULT, &[])]].concat(), defaults(Family::V4));
        for other in [
            RuleAttribute::FwMark(1),
            RuleAttribute::Iifname("eth1".into()),
            RuleAttribute::Source([192, 0, 2, 1].into()),
            RuleAttribute::SuppressPrefixLen(0),
        ] {
            assert_eq!(rule(100, MAIN, std::slice::from_ref(&other)), None, "{other:?}");
        }
    }
}
