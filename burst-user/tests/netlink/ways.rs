//! The way to the clients as the routing tables have it, and links of other kinds than one next hop on a device.

use std::time::Instant;

use burst::config::model::Link;
use burst::netlink::{Gateway, Lookup, NetState, Netlink, Owner, Router, Targets, Watch, Why, watch};
use tokio::sync::watch::Receiver;

use super::{AT_ONCE, EDGE_MAC, Line, OTHER_MAC, PATIENCE, ROUTER, ROUTER_MAC, ROUTER6, address, link, mac};

/// Routes of a family in the words of `ip`, as replies to clients would take them.
struct Family {
    index: usize,
    ip: &'static str,
    router: &'static str,
    /// Another router, which is not there.
    absent: &'static str,
    own: &'static str,
    more_specific: &'static str,
    rule: &'static str,
}

const FAMILIES: [Family; 2] = [
    Family {
        index: 0,
        ip: "-4",
        router: ROUTER,
        absent: "10.64.0.9",
        own: "10.64.0.0/24",
        more_specific: "203.0.113.0/24",
        rule: "from 192.0.2.1 lookup 100",
    },
    Family {
        index: 1,
        ip: "-6",
        router: ROUTER6,
        absent: "2001:db8:64::9",
        own: "2001:db8:64::/64",
        more_specific: "2001:db8:113::/64",
        rule: "from 2001:db8::1 lookup 100",
    },
];

async fn follow() -> (Watch, Receiver<NetState>) {
    let watch = watch(&[], &["eth1".to_owned()], &Targets::new()).await.expect("watch starts");
    let state = watch.state();
    (watch, state)
}

/// Waits until the way is as wanted, and gives every way that was said on the road there, the last included.
async fn until(
    state: &mut Receiver<NetState>,
    family: &Family,
    what: &str,
    wanted: impl Fn(&Gateway) -> bool,
) -> Vec<Gateway> {
    let mut said = Vec::new();
    let walk = async {
        loop {
            let gateway = state.borrow_and_update().gateways[family.index].clone();
            let there = wanted(&gateway);
            if said.last() != Some(&gateway) {
                said.push(gateway);
            }
            if there {
                return;
            }
            state.changed().await.expect("the watch runs");
        }
    };
    if tokio::time::timeout(PATIENCE, walk).await.is_err() {
        panic!("{what}: not within {PATIENCE:?}; said {said:#?}");
    }
    said
}

fn cached(gateway: &Gateway) -> Option<&Router> {
    match gateway {
        Gateway::Cached(router) => Some(router),
        Gateway::Lookup(_) => None,
    }
}

fn excepts(gateway: &Gateway, prefix: &str) -> bool {
    cached(gateway).is_some_and(|router| router.except.contains(&prefix.parse().expect("a prefix")))
}

#[test]
fn one_default_route_by_one_router_is_the_way_to_the_clients() {
    for family in &FAMILIES {
        let line = Line::new();
        let ip = |arguments: &str| line.edge.ip(&format!("{} {arguments}", family.ip));
        line.on_edge(async || {
            let (_watch, mut state) = follow().await;
            let none =
                until(&mut state, family, "no route", |gateway| *gateway == Gateway::Lookup(Lookup::NoDefault)).await;
            assert_eq!(none.len(), 1, "known at the start: {none:?}");

            ip(&format!("route add default via {}", family.router));
            let said = until(&mut state, family, "a default route", |gateway| cached(gateway).is_some()).await;
            let router = cached(said.last().expect("said")).expect("cached").clone();
            assert_eq!((router.address, router.mac, router.device_mac), (address(family.router), ROUTER_MAC, EDGE_MAC));
            assert_eq!((router.device.as_str(), router.vlan, router.mtu), ("eth1", 0, 1500));
            assert!(router.except.contains(&family.own.parse().expect("a prefix")), "{:?}", router.except);
            let netlink = Netlink::open().expect("netlink");
            let entry = async |of: &str| netlink.neighbour(router.ifindex, address(of)).await.expect("asked");
            let kept = entry(family.router).await.expect("an entry");
            assert!(kept.managed && matches!(kept.owner, Owner::Added | Owner::Marked), "{kept:?}");

            // A change takes the way out first.
            ip(&format!("route add {} via {}", family.more_specific, family.absent));
            let excepted = |gateway: &Gateway| excepts(gateway, family.more_specific);
            let said = until(&mut state, family, "a more specific route", excepted).await;
            assert!(said.contains(&Gateway::Lookup(Lookup::Reading)), "{said:?}");
            ip(&format!("route del {}", family.more_specific));
            until(&mut state, family, "no more", |gateway| cached(gateway).is_some() && !excepted(gateway)).await;

            for (what, more, why) in [
                ("a rule", format!("rule add {}", family.rule), Lookup::Rules),
                (
                    "a second default",
                    format!("route add default via {} metric 9000", family.absent),
                    Lookup::SeveralDefaults,
                ),
                ("a dead end for all", "route add blackhole default metric 9001".to_owned(), Lookup::SeveralDefaults),
            ] {
                ip(&more);
                until(&mut state, family, what, |gateway| *gateway == Gateway::Lookup(why)).await;
                ip(&more.replace(" add ", " del "));
                until(&mut state, family, what, |gateway| cached(gateway).is_some()).await;
            }

            ip(&format!("route replace default via {} mtu 1400", family.router));
            until(&mut state, family, "a route's mtu", |gateway| cached(gateway).is_some_and(|way| way.mtu == 1400))
                .await;

            // Another router, which does not answer; the former one is let go of.
            ip(&format!("route replace default via {}", family.absent));
            until(&mut state, family, "another router", |gateway| *gateway == Gateway::Lookup(Lookup::Unresolved))
                .await;
            let begun = Instant::now();
            while entry(family.router).await.is_some_and(|entry| entry.is_ours()) {
                assert!(begun.elapsed() < PATIENCE, "the former router is still kept");
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            ip(&format!("route replace default via {}", family.router));
            until(&mut state, family, "the router again", |gateway| cached(gateway).is_some()).await;

            line.router.ip("link set eth1 down");
            let down = |gateway: &Gateway| {
                matches!(gateway, Gateway::Lookup(Lookup::Down | Lookup::NotPlain | Lookup::NoDefault))
            };
            let begun = Instant::now();
            until(&mut state, family, "no carrier", down).await;
            assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
        });
    }
}

#[test]
fn a_router_that_changes_its_address_is_followed() {
    let line = Line::new();
    line.router.sysctl("ipv4/conf/eth1/arp_notify", "1");
    line.edge.ip(&format!("route add default via {ROUTER}"));
    line.on_edge(async || {
        let (_watch, mut state) = follow().await;
        let by = |mac: [u8; 6]| move |gateway: &Gateway| cached(gateway).is_some_and(|way| way.mac == mac);
        until(&mut state, &FAMILIES[0], "resolved", by(ROUTER_MAC)).await;
        line.router.ip(&format!("link set eth1 address {}", mac(OTHER_MAC)));
        until(&mut state, &FAMILIES[0], "another MAC address", by(OTHER_MAC)).await;
    });
}

#[test]
fn a_default_route_that_leaves_elsewhere_is_not_the_way() {
    let line = Line::new();
    line.edge.ip(&format!("route add default via {ROUTER}"));
    line.on_edge(async || {
        let watch = watch(&[], &["eth9".to_owned()], &Targets::new()).await.expect("watch starts");
        assert_eq!(watch.state().borrow().gateways[0], Gateway::Lookup(Lookup::Elsewhere));
        let netlink = Netlink::open().expect("netlink");
        let eth1 = netlink.device("eth1").await.expect("eth1").ifindex;
        let entry = netlink.neighbour(eth1, address(ROUTER)).await.expect("asked");
        assert!(entry.is_none_or(|entry| !entry.is_ours()), "not burst's to keep");
    });
}

/// Waits until the only link says so.
async fn until_why(state: &mut Receiver<NetState>, why: Why) {
    let waiting = async { drop(state.wait_for(|state| state.links[0].why == why).await.expect("the watch runs")) };
    if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
        panic!("not {why:?} within {PATIENCE:?}: {:?}", state.borrow().links[0]);
    }
}

#[test]
fn a_device_that_takes_tags_off_carries_no_link_of_a_vlan() {
    let line = Line::new();
    let offload = |state: &str| {
        let change = |line: &Line| {
            line.edge.enter(|| std::process::Command::new("ethtool").args(["-K", "eth1", "rxvlan", state]).status())
        };
        assert!(change(&line).expect("ethtool").success());
    };
    offload("on");
    line.on_edge(async || {
        let tagged = Link { vlan: Some(101), ..link(ROUTER) };
        let watch = watch(&[tagged], &["eth1".to_owned()], &Targets::new()).await.expect("watch starts");
        let mut state = watch.state();
        until_why(&mut state, Why::TagsStripped).await;
        offload("off");
        until_why(&mut state, Why::NoVlanDevice).await;
        offload("on");
        until_why(&mut state, Why::TagsStripped).await;
    });
}

#[test]
fn a_link_that_the_routing_table_picks_is_up_with_its_device_and_a_route() {
    let line = Line::new();
    line.on_edge(async || {
        let vpn = Link { next_hop: None, mtu: 1400, ..link(ROUTER) };
        let ends = ["10.20.0.10", "fd00:20::10"].map(address);
        let targets = Targets::from([(vpn.name.clone(), ends.to_vec())]);
        let watch = watch(&[vpn], &[], &targets).await.expect("watch starts");
        let mut state = watch.state();
        assert_eq!(state.borrow().links[0].why, Why::NotRouted, "known at the start");
        line.edge.ip(&format!("route add 10.20.0.0/24 via {ROUTER}"));
        until_why(&mut state, Why::Up).await;
        let up = state.borrow().links[0].clone();
        assert_eq!((up.up, up.mtu, up.next_hop_mac), (true, 1400, None));
        assert_eq!(up.elsewhere, ends[1..]);
        line.edge.ip(&format!("route add fd00:20::/64 via {ROUTER6}"));
        let reached = |state: &NetState| state.links[0].elsewhere.is_empty();
        let reaches = async |state: &mut Receiver<NetState>| {
            let waited = tokio::time::timeout(PATIENCE, state.wait_for(reached)).await;
            drop(waited.expect("both ends are reached").expect("the watch runs"));
        };
        reaches(&mut state).await;
        for (kind, net) in
            [("unreachable", "10.20.0.10/32"), ("blackhole", "10.20.0.10/32"), ("prohibit", "10.20.0.10/32")]
        {
            line.edge.ip(&format!("route add {kind} {net}"));
            let waited =
                tokio::time::timeout(PATIENCE, state.wait_for(|state| state.links[0].elsewhere == ends[..1])).await;
            drop(waited.expect(kind).expect("the watch runs"));
            line.edge.ip(&format!("route del {kind} {net}"));
            reaches(&mut state).await;
        }
        line.edge.ip("link set eth1 down");
        until_why(&mut state, Why::DeviceDown).await;
        line.edge.ip("link set eth1 up");
        // The routes went with it.
        until_why(&mut state, Why::NotRouted).await;
        line.edge.ip(&format!("route add 10.20.0.0/24 via {ROUTER}"));
        until_why(&mut state, Why::Up).await;
        let entries = line.edge.ip("neigh show");
        assert!(!entries.contains("proto"), "nothing is resolved for it: {entries}");
    });
}

#[test]
fn a_link_local_next_hop_is_looked_for_on_its_own_device() {
    let line = Line::new();
    line.edge.ip("link add eth2 type veth peer name eth3");
    line.edge.ip("link set eth2 up");
    line.router.ip("addr add fe80::1/64 dev eth1 nodad");
    line.on_edge(async || {
        let links = [link("fe80::1"), Link { name: "dx-2".into(), device: "eth2".into(), ..link("fe80::1") }];
        let watch = watch(&links, &[], &Targets::new()).await.expect("watch starts");
        let mut state = watch.state();
        until_why(&mut state, Why::Up).await;
        let both = state.borrow().links.clone();
        assert_eq!(
            (both[0].next_hop_mac, both[1].up),
            (Some(ROUTER_MAC), false),
            "the same address elsewhere is another router"
        );
    });
}
