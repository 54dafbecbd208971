//! Whether the routing tables have one way to the clients, and which: the router that replies can be sent to without a
//! lookup, and the destinations that take another way. Pure.

use std::fmt;
use std::net::IpAddr;

use burst_common::limits::GATEWAY_EXCEPTIONS;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::routes::{Route, Routing};

/// Exceptions may cover more than they must, since the routing table is asked about what they cover: two are made one of
/// at least so long a prefix when there are too many.
const WIDEST: [u8; 2] = [8, 16];

/// A way to the clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ToClients {
    /// The router.
    pub(super) gateway: IpAddr,
    /// Device it is a neighbour on.
    pub(super) oif: u32,
    /// Largest packet in bytes, where the route says so.
    pub(super) mtu: Option<u32>,
    /// Destinations that take another way.
    pub(super) except: Vec<IpNet>,
}

/// Why the routing table is asked for the way of each reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lookup {
    /// It changed, and is read anew.
    #[default]
    Reading,
    /// It cannot be read.
    Unread,
    /// There are policy rules, or a VRF.
    Rules,
    /// There are too many routes, or one that burst cannot read.
    Routes,
    /// There is no default route.
    NoDefault,
    /// There are several.
    SeveralDefaults,
    /// There is one that is no plain unicast route by one router: several ways, a nexthop object, by source, a dead device.
    NotPlain,
    /// Its destinations are neighbours.
    OnLink,
    /// It leaves by another device than the clients'.
    Elsewhere,
    /// Its device does not carry packets.
    Down,
    /// Its router has no MAC address yet, or does not answer.
    Unresolved,
    /// Too many destinations take another way.
    Exceptions,
}

impl Lookup {
    /// In a few words, for people.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Reading => "the routing table is being read",
            Self::Unread => "the routing table cannot be read",
            Self::Rules => "there are policy rules",
            Self::Routes => "there are too many routes",
            Self::NoDefault => "there is no default route",
            Self::SeveralDefaults => "there are several default routes",
            Self::NotPlain => "the default route has more than one plain way",
            Self::OnLink => "the default route names no router",
            Self::Elsewhere => "the default route leaves by no client device",
            Self::Down => "the default route's device is down",
            Self::Unresolved => "the router has no MAC address",
            Self::Exceptions => "too many destinations take another way",
        }
    }
}

impl fmt::Display for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.text())
    }
}

/// The one way to the clients, if the tables have no other.
pub(super) fn to_clients(routing: &Routing) -> Result<ToClients, Lookup> {
    if routing.ruled {
        return Err(Lookup::Rules);
    }
    if routing.more {
        return Err(Lookup::Routes);
    }
    let (default, others): (Vec<&Route>, Vec<&Route>) =
        routing.routes.iter().partition(|route| route.to.prefix_len() == 0);
    let default = match default[..] {
        [] => return Err(Lookup::NoDefault),
        [default] => default,
        _ => return Err(Lookup::SeveralDefaults),
    };
    let way = default.way.filter(|_| default.plain).ok_or(Lookup::NotPlain)?;
    let gateway = way.gateway.ok_or(Lookup::OnLink)?;
    let except = few(others.iter().map(|route| route.to).collect()).ok_or(Lookup::Exceptions)?;
    Ok(ToClients { gateway, oif: way.oif, mtu: way.mtu, except })
}

/// As few prefixes as there is room for, that cover all of `prefixes`; `None` when those would be too wide.
fn few(prefixes: Vec<IpNet>) -> Option<Vec<IpNet>> {
    let mut few = IpNet::aggregate(&prefixes);
    while few.len() > GATEWAY_EXCEPTIONS {
        // Neighbours in order have the longest prefix in common.
        few.sort_unstable();
        let narrowest = few.windows(2).filter_map(|pair| common(pair[0], pair[1])).max_by_key(IpNet::prefix_len)?;
        if narrowest.prefix_len() < WIDEST[usize::from(narrowest.addr().is_ipv6())] {
            return None;
        }
        few.retain(|prefix| !narrowest.contains(prefix));
        few.push(narrowest);
    }
    few.sort_unstable();
    Some(few)
}

/// The longest prefix that covers both.
fn common(a: IpNet, b: IpNet) -> Option<IpNet> {
    match (a, b) {
        (IpNet::V4(a), IpNet::V4(b)) => {
            let same = (a.network().to_bits() ^ b.network().to_bits()).leading_zeros() as u8;
            let length = same.min(a.prefix_len()).min(b.prefix_len());
            Ipv4Net::new(a.network(), length).ok().map(|net| IpNet::V4(net.trunc()))
        }
        (IpNet::V6(a), IpNet::V6(b)) => {
            let same = (a.network().to_bits() ^ b.network().to_bits()).leading_zeros() as u8;
            let length = same.min(a.prefix_len()).min(b.prefix_len());
            Ipv6Net::new(a.network(), length).ok().map(|net| IpNet::V6(net.trunc()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::routes::Way;
    use proptest::prelude::*;

    const CLIENTS: u32 = 2;

    fn route(to: &str, gateway: Option<&str>) -> Route {
        let way = Way { gateway: gateway.map(|ip| ip.parse().unwrap()), oif: CLIENTS, mtu: None };
        Route { to: to.parse().unwrap(), plain: true, way: Some(way) }
    }

    /// What the kernel makes of an edge with three devices and a route to the premises and one to the cloud.
    fn routes() -> Vec<Route> {
        let own = |to| Route { way: None, ..route(to, None) };
        vec![
            route("0.0.0.0/0", Some("192.0.2.2")),
            route("10.1.0.0/30", None),
            route("10.20.0.0/24", Some("10.64.0.1")),
            route("10.64.0.0/30", None),
            route("192.0.2.0/30", None),
            route("203.0.113.0/24", Some("10.1.0.2")),
            own("10.1.0.1/32"),
            own("10.1.0.3/32"),
            own("10.64.0.2/32"),
            own("127.0.0.0/8"),
            own("127.0.0.1/32"),
            own("192.0.2.1/32"),
        ]
    }

    fn routing(routes: Vec<Route>) -> Routing {
        Routing { routes, ..Routing::default() }
    }

    fn except(routes: Vec<Route>) -> Result<Vec<String>, Lookup> {
        to_clients(&routing(routes)).map(|way| way.except.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_default_route_by_one_router_is_the_way_and_all_else_is_excepted() {
        let way = to_clients(&routing(routes())).unwrap();
        assert_eq!((way.gateway, way.oif, way.mtu), ("192.0.2.2".parse().unwrap(), CLIENTS, None));
        let said: Vec<_> = way.except.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            ["10.1.0.0/30", "10.20.0.0/24", "10.64.0.0/30", "127.0.0.0/8", "192.0.2.0/30", "203.0.113.0/24"]
        );
    }

    #[test]
    fn whatever_makes_the_table_more_than_that_is_named() {
        let with = |more: Route| routing([routes(), vec![more]].concat());
        let without = || routing(routes().split_off(1));
        let changed = |change: fn(&mut Route)| {
            let mut routes = routes();
            change(&mut routes[0]);
            routing(routes)
        };
        for (routing, why) in [
            (without(), Lookup::NoDefault),
            (with(route("0.0.0.0/0", Some("192.0.2.9"))), Lookup::SeveralDefaults),
            (with(Route { way: None, ..route("0.0.0.0/0", None) }), Lookup::SeveralDefaults),
            (changed(|default| default.way = None), Lookup::NotPlain),
            (changed(|default| default.plain = false), Lookup::NotPlain),
            (changed(|default| default.way.as_mut().unwrap().gateway = None), Lookup::OnLink),
            (Routing { ruled: true, ..routing(routes()) }, Lookup::Rules),
            (Routing { more: true, ..routing(routes()) }, Lookup::Routes),
            (Routing::default(), Lookup::NoDefault),
        ] {
            assert_eq!(to_clients(&routing), Err(why), "{routing:?}");
        }
    }

    #[test]
    fn exceptions_are_merged_where_they_are_close_and_no_wider_than_is_good() {
        let more = |all: &[&str]| [routes(), all.iter().map(|to| route(to, None)).collect()].concat();
        let eight = ["100.64.0.0/10", "172.16.0.0/12"];
        let full = [
            "10.1.0.0/30",
            "10.20.0.0/24",
            "10.64.0.0/30",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "172.16.0.0/12",
            "192.0.2.0/30",
            "203.0.113.0/24",
        ];
        assert_eq!(except(more(&eight)).unwrap(), full, "as many as there is room for, each as it is");
        // A ninth: 10.1 and 10.20 have eleven bits in common, more than any other two.
        let nine = except(more(&["100.64.0.0/10", "172.16.0.0/12", "169.254.0.0/16"])).unwrap();
        assert_eq!(nine.len(), 8);
        assert!(nine.contains(&"10.0.0.0/11".to_owned()), "{nine:?}");
        let far: Vec<String> = (0..8).map(|n| format!("{}.0.0.0/9", 16 * n + 17)).collect();
        assert_eq!(except(more(&far.iter().map(String::as_str).collect::<Vec<_>>())), Err(Lookup::Exceptions));
        // Many that are one.
        let hosts: Vec<String> = (0..=255).map(|n| format!("198.51.100.{n}/32")).collect();
        let merged = except(more(&hosts.iter().map(String::as_str).collect::<Vec<_>>())).unwrap();
        assert!(merged.contains(&"198.51.100.0/24".to_owned()), "{merged:?}");
    }

    proptest! {
        #[test]
        fn no_exception_is_lost(prefixes in prop::collection::vec((any::<u32>(), 1..=32u8), 0..40), six in any::<bool>()) {
            let prefix = |&(bits, length): &(u32, u8)| if six {
                IpNet::V6(Ipv6Net::new((u128::from(bits) << 96).into(), length).unwrap().trunc())
            } else {
                IpNet::V4(Ipv4Net::new(bits.into(), length).unwrap().trunc())
            };
            let prefixes: Vec<IpNet> = prefixes.iter().map(prefix).collect();
            if let Some(few) = few(prefixes.clone()) {
                prop_assert!(few.len() <= GATEWAY_EXCEPTIONS);
                for prefix in &prefixes {
                    prop_assert!(few.iter().any(|cover| cover.contains(prefix)), "{prefix} by {few:?}");
                }
            }
        }
    }
}
