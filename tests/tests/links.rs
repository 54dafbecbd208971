//! Lines go down and come back, routers change their address, devices vanish and are made anew: what that does to new
//! flows, to held ones, and to what `status` says.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use burst_tests::client;
use burst_tests::daemon::{Daemon, PATIENCE, Settings, program_on};
use burst_tests::foreign;
use burst_tests::link::{End, mac_text, veth};
use burst_tests::load::{Held, HeldPlan};
use burst_tests::netns::Namespace;
use burst_tests::poll;
use burst_tests::servers::{self, Limits, LocalSite, Nginx, Site};
use burst_tests::sniffer::Sniffer;
use burst_tests::topology::{
    CLIENT_DEVICE, CLIENT_MAC, DIRECT_CONNECT, DIRECT_CONNECT_MAC, DX_DEVICE, EDGE_CLIENT_MAC, EDGE_DX, EDGE_DX_MAC,
    EDGE_OUTSIDE, Family, GATEWAY, Options, PAYMENT, Pair, SECOND_TO_EDGE, SHOP, TO_EDGE, Topology,
};

/// Another MAC address from the range for documentation.
const OTHER_MAC: [u8; 6] = [0x00, 0x00, 0x5e, 0x00, 0x53, 0x99];

fn testbed(options: Options) -> Result<(Topology, LocalSite, Nginx)> {
    let topology = Topology::with(options)?;
    let local = LocalSite::start(&topology, Limits::default())?;
    let cloud = servers::start_cloud(&topology)?;
    // A device that is set down would lose its IPv6 addresses.
    for namespace in [&topology.edge, &topology.direct_connect] {
        namespace.sysctl(&[("net/ipv6/conf/all/keep_addr_on_down", "1")])?;
    }
    Ok((topology, local, cloud))
}

/// Where a new connection to the shop is answered, with a whole body.
fn place(topology: &Topology, family: Family) -> Result<Option<Site>> {
    let source = topology.clients(family).first().copied();
    let site = client::download(&topology.client, source, SHOP.at(family))?.site;
    let stays = client::upload(&topology.client, source, PAYMENT.at(family))?.site;
    assert_eq!(stays, Some(Site::Local), "payment, {family:?}");
    Ok(site)
}

fn all_at(topology: &Topology, site: Site) -> Result<()> {
    for family in Family::ALL {
        assert_eq!(place(topology, family)?, Some(site), "{family:?}");
    }
    Ok(())
}

fn hold(topology: &Topology, family: Family) -> Result<Held> {
    Held::open(&topology.client, HeldPlan::of(topology, SHOP, family))
}

fn hold_both(topology: &Topology) -> Result<Vec<Held>> {
    Family::ALL.into_iter().map(|family| hold(topology, family)).collect()
}

fn exchange(held: &[Held]) -> Result<()> {
    held.iter().try_for_each(Held::exchange)
}

/// Waits until all endpoints are (or are not) reachable, and says how long that took.
fn until_reachable(daemon: &Daemon<'_>, wanted: bool) -> Result<Duration> {
    let start = Instant::now();
    daemon.until(&format!("reachable = {wanted}"), |shop| {
        shop.iter().flat_map(|burst| &burst.tiers).flat_map(|tier| &tier.endpoints).all(|end| end.reachable == wanted)
    })?;
    Ok(start.elapsed())
}

fn routes(namespace: &Namespace, via: Pair, nets: [&str; 2]) -> Result<()> {
    let [v4, v6] = nets;
    namespace.ip(&format!("route replace {v4} via {}\nroute replace {v6} via {}", via.v4, via.v6))
}

fn owns(namespace: &Namespace, device: &str, address: Pair) -> Result<()> {
    let Pair { v4, v6 } = address;
    namespace.ip(&format!("address replace {v4}/30 dev {device}\naddress replace {v6}/64 dev {device} nodad"))
}

/// The router's routes to the clients, which a device that was set down or made anew has lost.
fn routes_to_clients(topology: &Topology) -> Result<()> {
    routes(&topology.direct_connect, EDGE_DX, ["198.51.100.0/24", "2001:db8:51::/64"])
}

#[test]
fn a_line_that_goes_down_is_unreachable_at_once_and_new_flows_stay_until_it_is_back() -> Result<()> {
    let (topology, _local, _cloud) = testbed(Options::default())?;
    let daemon = Daemon::start(&topology, &Settings::default())?;
    let local = hold_both(&topology)?;
    daemon.shift(100.0)?;
    all_at(&topology, Site::Cloud)?;
    for (what, namespace, device) in
        [("set down here", &topology.edge, DX_DEVICE), ("set down at the router", &topology.direct_connect, TO_EDGE)]
    {
        namespace.ip(&format!("link set {device} down"))?;
        let took = until_reachable(&daemon, false)?;
        let link = daemon.status()?.links.remove(0);
        println!("{what}: unreachable in status after {took:?} ({})", link.why);
        assert!(!link.up);
        all_at(&topology, Site::Local)?;
        exchange(&local)?;
        namespace.ip(&format!("link set {device} up"))?;
        routes_to_clients(&topology)?;
        let took = until_reachable(&daemon, true)?;
        println!("{what}: reachable again {took:?} after it was set up");
        daemon.until("the shop to leave again", |shop| shop.iter().all(|burst| burst.local.share.wanted == 0.0))?;
        all_at(&topology, Site::Cloud)?;
    }
    exchange(&local)?;
    local.into_iter().try_for_each(|held| held.finish().map(drop))
}

#[test]
fn a_device_that_forwards_no_more_keeps_new_flows_home() -> Result<()> {
    let (topology, _local, _cloud) = testbed(Options::default())?;
    let daemon = Daemon::start(&topology, &Settings::default())?;
    daemon.shift(100.0)?;
    all_at(&topology, Site::Cloud)?;
    for version in ["ipv4", "ipv6"] {
        let key = format!("net/{version}/conf/{DX_DEVICE}/forwarding");
        topology.edge.sysctl(&[(&key, "0")])?;
        until_reachable(&daemon, false)?;
        assert_eq!(daemon.status()?.links.remove(0).why, "forwarding is off on the device (sysctl)");
        all_at(&topology, Site::Local)?;
        topology.edge.sysctl(&[(&key, "1")])?;
        until_reachable(&daemon, true)?;
        daemon.until("the shop to leave again", |shop| shop.iter().all(|burst| burst.local.share.wanted == 0.0))?;
        all_at(&topology, Site::Cloud)?;
    }
    Ok(())
}

#[test]
fn a_lost_line_moves_packets_and_breaks_no_connection_where_there_is_another() -> Result<()> {
    let (topology, _local, _cloud) = testbed(Options { second_line: true, ..Options::default() })?;
    let daemon = Daemon::start(&topology, &Settings::default())?;
    daemon.shift(100.0)?;
    let held = hold_both(&topology)?;
    assert!(held.iter().flat_map(Held::lines).all(|line| line.site == Some(Site::Cloud)));
    exchange(&held)?;
    let second = Sniffer::start(&topology.direct_connect, SECOND_TO_EDGE)?;
    topology.edge.ip(&format!("link set {DX_DEVICE} down"))?;
    poll::until("the first line to be down in status", PATIENCE, || Ok((!daemon.status()?.links[0].up).then_some(())))?;
    assert!(daemon.status()?.links[1].up);
    exchange(&held)?;
    all_at(&topology, Site::Cloud)?;
    let all: Vec<IpAddr> = Family::ALL.into_iter().flat_map(|family| topology.endpoints(family)).collect();
    let over: u64 = second
        .flows()
        .iter()
        .filter(|(flow, _)| flow.incoming && all.contains(&flow.destination.ip()))
        .map(|(_, packets)| packets)
        .sum();
    assert!(over > 20, "{over} packets went out over the second line");
    topology.edge.ip(&format!("link set {DX_DEVICE} up"))?;
    poll::until("the first line to be up in status", PATIENCE, || Ok(daemon.status()?.links[0].up.then_some(())))?;
    exchange(&held)?;
    held.into_iter().try_for_each(|held| held.finish().map(drop))?;
    // It ends when nothing passes any more.
    second.finish().map(drop)
}

/// Gives the router another MAC address and waits until it is the one in use.
fn change_router(topology: &Topology, daemon: &Daemon<'_>) -> Result<Duration> {
    assert_eq!(daemon.status()?.links[0].mac, Some(mac_text(DIRECT_CONNECT_MAC)));
    topology.direct_connect.ip(&format!("link set {TO_EDGE} address {}", mac_text(OTHER_MAC)))?;
    let start = Instant::now();
    poll::until("the router's new address in status", PATIENCE, || {
        let link = daemon.status()?.links.remove(0);
        Ok((link.up && link.mac == Some(mac_text(OTHER_MAC))).then_some(()))
    })?;
    Ok(start.elapsed())
}

#[test]
fn a_router_that_announces_another_mac_address_keeps_its_connections() -> Result<()> {
    let (topology, _local, _cloud) = testbed(Options::default())?;
    topology.direct_connect.sysctl(&[
        (&format!("net/ipv4/conf/{TO_EDGE}/arp_notify"), "1"),
        (&format!("net/ipv6/conf/{TO_EDGE}/ndisc_notify"), "1"),
    ])?;
    let daemon = Daemon::start(&topology, &Settings::default())?;
    daemon.shift(100.0)?;
    let held = hold_both(&topology)?;
    println!("announced: in use after {:?}", change_router(&topology, &daemon)?);
    exchange(&held)?;
    all_at(&topology, Site::Cloud)?;
    held.into_iter().try_for_each(|held| held.finish().map(drop))
}

#[test]
fn a_router_that_silently_changes_its_mac_address_is_found_again() -> Result<()> {
    let (topology, _local, _cloud) = testbed(Options::default())?;
    // How soon the kernel doubts an address is the host's affair: 15 to 45 s unless set otherwise.
    topology.edge.sysctl(&[(&format!("net/ipv4/neigh/{DX_DEVICE}/base_reachable_time_ms"), "1000")])?;
    let daemon = Daemon::start(&topology, &Settings::default())?;
    daemon.shift(100.0)?;
    all_at(&topology, Site::Cloud)?;
    println!("silent: in use after {:?}", change_router(&topology, &daemon)?);
    daemon.until("the shop to leave", |shop| shop.iter().all(|burst| burst.local.share.wanted == 0.0))?;
    all_at(&topology, Site::Cloud)
}

/// Makes the client side's link anew, under `name` on EDGE.
fn new_client_link(topology: &Topology, name: &str) -> Result<()> {
    let client = End { namespace: &topology.client, device: TO_EDGE, mac: CLIENT_MAC };
    veth(End { namespace: &topology.edge, device: name, mac: EDGE_CLIENT_MAC }, client, 1500)
}

fn address_client_link(topology: &Topology) -> Result<()> {
    owns(&topology.edge, CLIENT_DEVICE, EDGE_OUTSIDE)?;
    owns(&topology.client, TO_EDGE, GATEWAY)?;
    routes(&topology.edge, GATEWAY, ["0.0.0.0/0", "::/0"])?;
    routes(&topology.client, EDGE_OUTSIDE, ["0.0.0.0/0", "::/0"])
}

#[test]
fn a_client_device_that_is_made_anew_is_attached_to_again() -> Result<()> {
    let (topology, _local, _cloud) = testbed(Options::default())?;
    let daemon = Daemon::start(&topology, &Settings::default())?;
    daemon.shift(100.0)?;
    all_at(&topology, Site::Cloud)?;
    topology.edge.ip(&format!("link delete {CLIENT_DEVICE}"))?;
    poll::until("the device to be gone in status", PATIENCE, || Ok((!daemon.status()?.clients[0].up).then_some(())))?;
    new_client_link(&topology, CLIENT_DEVICE)?;
    let start = Instant::now();
    poll::until("a program on the new device", PATIENCE, || program_on(&topology, CLIENT_DEVICE))?;
    println!("attached {:?} after the device was there", start.elapsed());
    address_client_link(&topology)?;
    all_at(&topology, Site::Cloud)?;
    daemon.shift(0.0)?;
    all_at(&topology, Site::Local)
}

#[test]
fn a_line_whose_device_is_made_anew_is_used_again() -> Result<()> {
    let (topology, _local, _cloud) = testbed(Options::default())?;
    let daemon = Daemon::start(&topology, &Settings::default())?;
    daemon.shift(100.0)?;
    all_at(&topology, Site::Cloud)?;
    topology.edge.ip(&format!("link delete {DX_DEVICE}"))?;
    until_reachable(&daemon, false)?;
    all_at(&topology, Site::Local)?;
    let router = End { namespace: &topology.direct_connect, device: TO_EDGE, mac: DIRECT_CONNECT_MAC };
    veth(End { namespace: &topology.edge, device: DX_DEVICE, mac: EDGE_DX_MAC }, router, 1500)?;
    owns(&topology.edge, DX_DEVICE, EDGE_DX)?;
    owns(&topology.direct_connect, TO_EDGE, DIRECT_CONNECT)?;
    routes_to_clients(&topology)?;
    println!("reachable {:?} after the device was there", until_reachable(&daemon, true)?);
    daemon.until("the shop to leave again", |shop| shop.iter().all(|burst| burst.local.share.wanted == 0.0))?;
    all_at(&topology, Site::Cloud)
}

#[test]
fn a_device_that_comes_back_with_a_foreign_program_is_left_alone_until_that_is_gone() -> Result<()> {
    let (topology, _local, _cloud) = testbed(Options::default())?;
    let mut daemon = Daemon::start(&topology, &Settings::default())?;
    daemon.shift(100.0)?;
    topology.edge.ip(&format!("link delete {CLIENT_DEVICE}"))?;
    // Under another name first, so that the foreign program is there before burst looks.
    new_client_link(&topology, "other0")?;
    let foreign = foreign::pass(&topology.edge, "other0")?;
    let theirs = program_on(&topology, "other0")?;
    topology
        .edge
        .ip(&format!("link set other0 down\nlink set other0 name {CLIENT_DEVICE}\nlink set {CLIENT_DEVICE} up"))?;
    address_client_link(&topology)?;
    poll::until("a warning in status", PATIENCE, || {
        assert!(daemon.process.ended()?.is_none(), "the daemon ended:\n{}", daemon.process.log()?);
        let warnings = daemon.status()?.warnings;
        Ok(warnings.iter().any(|text| text.contains("an XDP program that is not burst's")).then_some(()))
    })?;
    assert_eq!(program_on(&topology, CLIENT_DEVICE)?, theirs);
    all_at(&topology, Site::Local)?;
    drop(foreign);
    poll::until("a program on the device", PATIENCE, || program_on(&topology, CLIENT_DEVICE))?;
    all_at(&topology, Site::Cloud)?;
    assert_eq!(daemon.status()?.warnings, Vec::<String>::new());
    Ok(())
}
