//! Netlink on real devices: a veth pair between two network namespaces of each test's own. Needs root and `ip`.
//!
//! The edge is one namespace, the Direct Connect router the other; whatever happens, they vanish with the test.

#![expect(clippy::disallowed_methods, reason = "the tests time how soon the kernel's events are seen")]

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::{Duration, Instant};

#[path = "netlink/ways.rs"]
mod ways;

use burst::config::model::Link;
use burst::netlink::{
    Error, Family, LinkState, NetState, Netlink, Owner, Resolution, Targets, Watch, Why, forwarding, watch,
};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use tokio::sync::watch::Receiver;

const EDGE_MAC: [u8; 6] = [0x02, 0, 0, 0, 0x0e, 0x01];
const ROUTER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0x0d, 0x01];
const OTHER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0x0d, 0x02];
const ROUTER: &str = "10.64.0.1";
const ROUTER6: &str = "2001:db8:64::1";
/// Longer than anything a test waits for: probes of a silent neighbour take three seconds (net.ipv4.neigh: mcast_solicit
/// × retrans_time).
const PATIENCE: Duration = Duration::from_secs(15);
/// A change is seen by its event, not by the next round (1 s) or the next reading of everything (30 s).
const AT_ONCE: Duration = Duration::from_millis(300);

/// A network namespace; gone when dropped.
struct Namespace(File);

impl Namespace {
    fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "the netlink tests make network namespaces: run them as root");
        let file = std::thread::spawn(|| {
            // SAFETY: only this thread, which ends right away, gets a new network namespace; no file table is unshared.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.expect("a new network namespace");
            File::open("/proc/thread-self/ns/net").expect("the namespace's file")
        });
        Self(file.join().expect("a thread in the new namespace"))
    }

    /// Runs in the namespace, on a thread of its own.
    fn enter<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                use std::os::fd::AsFd;
                move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("enter the namespace");
                act()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs `ip` in the namespace and gives its output.
    fn ip(&self, arguments: &str) -> String {
        self.enter(|| {
            let output = Command::new("ip").args(arguments.split_whitespace()).output().expect("the ip command");
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "ip {arguments}: {errors}");
            String::from_utf8(output.stdout).expect("text")
        })
    }

    fn sysctl(&self, path: &str, value: &str) {
        self.enter(|| std::fs::write(format!("/proc/sys/net/{path}"), value).expect(path));
    }

    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

/// Edge and router, joined by `eth1` on both sides.
struct Line {
    edge: Namespace,
    router: Namespace,
}

impl Line {
    fn new() -> Self {
        let (edge, router) = (Namespace::new(), Namespace::new());
        // The indexes differ: of a device whose peer has its own index the kernel believes that it has no peer, and
        // tells of its carrier once a second at most (linkwatch_urgent_event in net/core/link_watch.c).
        edge.ip(&format!(
            "link add eth1 index 77 address {} type veth peer name eth1 netns {}",
            mac(EDGE_MAC),
            router.path()
        ));
        router.ip(&format!("link set eth1 address {}", mac(ROUTER_MAC)));
        // Addresses are usable at once, and a neighbour's new MAC address is believed at once.
        edge.sysctl("ipv6/conf/eth1/accept_dad", "0");
        router.sysctl("ipv6/conf/eth1/accept_dad", "0");
        edge.sysctl("ipv4/neigh/eth1/locktime", "0");
        edge.ip("addr add 10.64.0.2/24 dev eth1");
        router.ip("addr add 10.64.0.1/24 dev eth1");
        edge.ip("addr add 2001:db8:64::2/64 dev eth1");
        router.ip("addr add 2001:db8:64::1/64 dev eth1");
        edge.ip("link set eth1 up");
        router.ip("link set eth1 up");
        Self { edge, router }
    }

    /// Runs on the edge, in a tokio runtime.
    fn on_edge<T: Send>(&self, act: impl AsyncFnOnce() -> T + Send) -> T {
        self.edge.enter(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(act())
        })
    }
}

fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

fn link(next_hop: &str) -> Link {
    Link {
        name: "dx-1".into(),
        device: "eth1".into(),
        vlan: None,
        next_hop: Some(address(next_hop)),
        mtu: 8500,
        fallback: false,
        source4: None,
        source6: None,
        out_bps: None,
        in_bps: None,
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

async fn start(next_hop: &str) -> (Watch, Receiver<NetState>) {
    let watch =
        watch(&[link(next_hop)], &["eth1".to_owned(), "eth9".to_owned()], &Targets::new()).await.expect("watch starts");
    let state = watch.state();
    (watch, state)
}

/// Waits until the link is as wanted, and says how long that took.
async fn until(
    state: &mut Receiver<NetState>,
    what: &str,
    wanted: impl Fn(&LinkState) -> bool,
) -> (LinkState, Duration) {
    let begun = Instant::now();
    let waiting =
        async { state.wait_for(|state| wanted(&state.links[0])).await.expect("the watch runs").links[0].clone() };
    match tokio::time::timeout(PATIENCE, waiting).await {
        Ok(link) => (link, begun.elapsed()),
        Err(_) => panic!("{what}: not within {PATIENCE:?}; it is {:?}", state.borrow().links[0]),
    }
}

#[test]
fn a_device_is_described_by_name() {
    let line = Line::new();
    line.edge.ip("link set eth1 mtu 9000");
    line.on_edge(async || {
        let netlink = Netlink::open().expect("netlink");
        let device = netlink.device("eth1").await.expect("eth1");
        assert_eq!(
            (device.mac, device.mtu, device.up, device.carrier, device.vlan),
            (Some(EDGE_MAC), 9000, true, true, None)
        );
        let addresses: Vec<_> =
            netlink.addresses(device.ifindex).await.expect("addresses").iter().map(ToString::to_string).collect();
        assert!(addresses.contains(&"10.64.0.2/24".to_owned()), "{addresses:?}");
        assert!(addresses.contains(&"2001:db8:64::2/64".to_owned()), "{addresses:?}");
        for name in ["eth7", "", "a-name-that-is-longer-than-a-device"] {
            let error = netlink.device(name).await.expect_err("no such device");
            assert!(matches!(&error, Error::NoDevice { name: named } if named == name), "{error:?}");
        }
        let message = netlink.device("eth7").await.expect_err("no such device").to_string();
        assert_eq!(
            message,
            "device \"eth7\" does not exist in this network namespace; `ip -br link` lists those that do"
        );
    });
}

#[test]
fn forwarding_is_read_in_the_namespace_of_the_reader() {
    let line = Line::new();
    line.edge.sysctl("ipv4/conf/eth1/forwarding", "1");
    line.router.sysctl("ipv4/conf/eth1/forwarding", "0");
    line.router.sysctl("ipv6/conf/eth1/forwarding", "1");
    let read = |namespace: &Namespace| {
        namespace.enter(|| [Family::V4, Family::V6].map(|family| forwarding("eth1", family).expect("a switch")))
    };
    assert_eq!((read(&line.edge), read(&line.router)), ([true, false], [false, true]));
    let error = line.edge.enter(|| forwarding("eth7", Family::V4)).expect_err("no such device").to_string();
    assert!(error.starts_with("cannot read /proc/sys/net/ipv4/conf/eth7/forwarding: "), "{error}");
}

#[test]
fn a_next_hop_is_resolved_and_kept() {
    for next_hop in [ROUTER, ROUTER6] {
        let line = Line::new();
        line.on_edge(async || {
            let (_watch, mut state) = start(next_hop).await;
            let (link, _) = until(&mut state, next_hop, |link| link.up).await;
            assert_eq!((link.device_mac, link.next_hop_mac, link.why), (EDGE_MAC, Some(ROUTER_MAC), Why::Up));
            assert_eq!(link.mtu, 1500, "the device allows less than the configuration");
            let netlink = Netlink::open().expect("netlink");
            let entry = netlink.neighbour(link.ifindex, address(next_hop)).await.expect("asked").expect("an entry");
            assert_eq!((entry.managed, entry.owner, entry.resolution), (true, Owner::Added, Resolution::Resolved));
            let clients = state.borrow().clients.clone();
            assert_eq!((clients[0].up, clients[0].ifindex, clients[0].mac), (true, link.ifindex, EDGE_MAC));
            assert_eq!((clients[1].up, clients[1].ifindex, clients[1].why), (false, 0, Why::NoDevice));
        });
    }
}

#[test]
fn a_lost_carrier_is_seen_at_once_and_its_return_brings_the_link_back() {
    let line = Line::new();
    line.on_edge(async || {
        let (_watch, mut state) = start(ROUTER).await;
        until(&mut state, "resolved", |link| link.up).await;
        line.router.ip("link set eth1 down");
        let (link, took) = until(&mut state, "carrier lost", |link| !link.up).await;
        assert_eq!(link.why, Why::NoCarrier);
        assert!(took < AT_ONCE, "{took:?}");
        assert!(!state.borrow().clients[0].up);
        line.router.ip("link set eth1 up");
        let (link, _) = until(&mut state, "carrier back", |link| link.up).await;
        assert_eq!(link.next_hop_mac, Some(ROUTER_MAC));
        line.edge.ip("link set eth1 down");
        let (_, took) = until(&mut state, "set down", |link| link.why == Why::DeviceDown).await;
        assert!(took < AT_ONCE, "{took:?}");
    });
}

#[test]
fn a_new_mac_of_the_next_hop_is_seen_at_once() {
    let line = Line::new();
    // The router announces its new address (gratuitous ARP), as a pair of routers does at a takeover.
    line.router.sysctl("ipv4/conf/eth1/arp_notify", "1");
    line.on_edge(async || {
        let (_watch, mut state) = start(ROUTER).await;
        until(&mut state, "resolved", |link| link.next_hop_mac == Some(ROUTER_MAC)).await;
        line.router.ip(&format!("link set eth1 address {}", mac(OTHER_MAC)));
        let (link, took) = until(&mut state, "new address", |link| link.next_hop_mac == Some(OTHER_MAC)).await;
        assert!(link.up && took < AT_ONCE, "{took:?}");
    });
}

#[test]
fn a_next_hop_that_does_not_answer_is_down_until_it_does() {
    let line = Line::new();
    line.router.ip("addr del 10.64.0.1/24 dev eth1");
    line.on_edge(async || {
        let (_watch, mut state) = start(ROUTER).await;
        assert_eq!(state.borrow().links[0].why, Why::Resolving);
        until(&mut state, "no answer", |link| link.why == Why::NoAnswer).await;
        line.router.ip("addr add 10.64.0.1/24 dev eth1");
        let (link, took) = until(&mut state, "answer", |link| link.up).await;
        assert_eq!(link.next_hop_mac, Some(ROUTER_MAC));
        assert!(took < Duration::from_secs(4), "asked for every second, not every fifth: {took:?}");
    });
}

#[test]
fn a_deleted_device_is_gone_at_once_and_its_successor_is_another() {
    let line = Line::new();
    line.on_edge(async || {
        let (_watch, mut state) = start(ROUTER).await;
        let (old, _) = until(&mut state, "resolved", |link| link.up).await;
        line.edge.ip("link del eth1");
        let (gone, took) = until(&mut state, "deleted", |link| link.why == Why::NoDevice).await;
        assert_eq!((gone.ifindex, gone.next_hop_mac), (0, None));
        assert!(took < AT_ONCE, "{took:?}");
        assert_eq!(state.borrow().clients[0].ifindex, 0);
        line.edge.ip(&format!(
            "link add eth1 index {} type veth peer name eth1 netns {}",
            old.ifindex + 10,
            line.router.path()
        ));
        let (new, took) = until(&mut state, "made anew", |link| link.ifindex != 0).await;
        assert_eq!((new.ifindex, new.why), (old.ifindex + 10, Why::DeviceDown));
        assert!(took < AT_ONCE, "{took:?}");
    });
}

#[test]
fn the_mtu_is_followed() {
    let line = Line::new();
    line.on_edge(async || {
        let (_watch, mut state) = start(ROUTER).await;
        line.edge.ip("link set eth1 mtu 9000");
        until(&mut state, "larger than configured", |link| link.mtu == 8500).await;
        line.edge.ip("link set eth1 mtu 1400");
        let (_, took) = until(&mut state, "smaller than configured", |link| link.mtu == 1400).await;
        assert!(took < AT_ONCE, "{took:?}");
    });
}

#[test]
fn a_permanent_entry_is_used_and_never_touched() {
    let line = Line::new();
    line.edge.ip(&format!("neigh add {ROUTER} lladdr {} dev eth1 nud permanent", mac(OTHER_MAC)));
    let before = line.edge.ip("neigh show");
    line.on_edge(async || {
        let (_watch, mut state) = start(ROUTER).await;
        let (link, _) = until(&mut state, "resolved", |link| link.up).await;
        assert_eq!(link.next_hop_mac, Some(OTHER_MAC));
        // Two rounds, in which it could be touched.
        tokio::time::sleep(Duration::from_millis(2200)).await;
        assert_eq!(Netlink::open().expect("netlink").release_neighbours().await.expect("released"), 0);
    });
    let after = line.edge.ip("neigh show");
    let of_router =
        |text: &str| text.lines().filter(|line| line.starts_with(ROUTER)).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(of_router(&after), of_router(&before));
    assert_eq!(of_router(&after).len(), 1, "{after}");
}

#[test]
fn release_removes_what_was_added_and_nothing_else() {
    let line = Line::new();
    line.edge.ip(&format!("neigh add 10.64.0.77 lladdr {} dev eth1 nud permanent", mac(OTHER_MAC)));
    line.edge.ip(&format!("neigh add 10.64.0.78 lladdr {} dev eth1 nud stale", mac(OTHER_MAC)));
    line.edge.ip("neigh add 10.64.0.79 dev eth1 managed");
    line.on_edge(async || {
        let (watch, mut state) = start(ROUTER).await;
        let (link, _) = until(&mut state, "resolved", |link| link.up).await;
        drop(watch);
        // Another process than the one that added it, as far as memory goes.
        let netlink = Netlink::open().expect("netlink");
        assert_eq!(netlink.release_neighbours().await.expect("released"), 1);
        assert_eq!(netlink.neighbour(link.ifindex, address(ROUTER)).await.expect("asked"), None);
        assert_eq!(netlink.release_neighbours().await.expect("released"), 0);
    });
    let left = line.edge.ip("neigh show");
    for (entry, state) in [("10.64.0.77", "PERMANENT"), ("10.64.0.78", "STALE"), ("10.64.0.79", "managed")] {
        assert!(left.lines().any(|line| line.starts_with(entry) && line.contains(state)), "{entry}: {left}");
    }
    assert!(!left.contains(ROUTER), "{left}");
}

#[test]
fn a_cached_entry_is_marked_and_given_back_to_the_cache() {
    let line = Line::new();
    line.edge.ip(&format!("neigh add {ROUTER} lladdr {} dev eth1 nud reachable", mac(ROUTER_MAC)));
    line.on_edge(async || {
        let (watch, mut state) = start(ROUTER).await;
        let (link, _) = until(&mut state, "known from the start", |link| link.up).await;
        let netlink = Netlink::open().expect("netlink");
        let entry = async || netlink.neighbour(link.ifindex, address(ROUTER)).await.expect("asked").expect("an entry");
        let begun = Instant::now();
        while !entry().await.managed {
            assert!(begun.elapsed() < PATIENCE, "never managed");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!((entry().await.owner, entry().await.mac), (Owner::Marked, Some(ROUTER_MAC)));
        drop(watch);
        assert_eq!(netlink.release_neighbours().await.expect("released"), 1);
        let entry = entry().await;
        assert_eq!((entry.managed, entry.owner, entry.mac), (false, Owner::Cache, Some(ROUTER_MAC)));
    });
}

#[test]
fn an_entry_that_somebody_flushes_is_resolved_anew() {
    let line = Line::new();
    line.on_edge(async || {
        let (_watch, mut state) = start(ROUTER).await;
        until(&mut state, "resolved", |link| link.up).await;
        line.edge.ip(&format!("neigh del {ROUTER} dev eth1"));
        until(&mut state, "flushed", |link| !link.up).await;
        let (_, took) = until(&mut state, "resolved again", |link| link.up).await;
        assert!(took < Duration::from_secs(4), "{took:?}");
    });
}

/// Messages that netlink sockets of the namespace lost.
fn events_lost() -> u64 {
    let sockets = std::fs::read_to_string("/proc/thread-self/net/netlink").expect("the list of netlink sockets");
    // sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode
    sockets.lines().skip(1).filter_map(|line| line.split_whitespace().nth(8)?.parse::<u64>().ok()).sum()
}

#[test]
fn lost_events_are_made_up_for() {
    let line = Line::new();
    line.on_edge(async || {
        let (_watch, mut state) = start(ROUTER).await;
        until(&mut state, "resolved", |link| link.up).await;
        // This thread's runtime does not read while a storm of events overruns the socket.
        let storm: String = (0..16_000)
            .map(|n| {
                let mac = mac(if n / 200 % 2 == 0 { OTHER_MAC } else { ROUTER_MAC });
                format!("neigh replace 10.64.0.{} lladdr {mac} dev eth1 nud permanent\n", 3 + n % 200)
            })
            .collect();
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), storm).expect("written");
        line.edge.ip(&format!("-batch {}", file.path().display()));
        line.router.ip("link set eth1 down");
        assert!(line.edge.enter(events_lost) > 0, "the storm was too weak for this machine: nothing was lost");
        let (link, _) = until(&mut state, "down after a storm", |link| !link.up).await;
        assert_eq!(link.why, Why::NoCarrier);
    });
}
