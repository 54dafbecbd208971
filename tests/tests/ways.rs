//! The way to the clients: what the daemon publishes of it, follows of it, and leaves behind.

use std::net::IpAddr;
use std::os::fd::AsFd;

use anyhow::{Context, Result, ensure};
use aya::maps::MapData;
use burst::api::types::Gateway;
use burst::kernel::Mapped;
use burst_common::flow::wide;
use burst_common::gateway;
use burst_common::link::Link;
use burst_tests::daemon::{Daemon, PATIENCE, Settings, pin_dir};
use burst_tests::link::mac_text;
use burst_tests::poll;
use burst_tests::topology::{
    CLIENT_DEVICE, CLIENT_MAC, Clients, EDGE_CLIENT_MAC, EDGE_INSIDE, EDGE_OUTSIDE, FIRST_CLIENT, FIRST_ENDPOINT,
    Family, GATEWAY, LOCAL, Options, SHOP, Topology,
};

const fn number(family: Family) -> u8 {
    match family {
        Family::V4 => 4,
        Family::V6 => 6,
    }
}

/// The row as the program sees it.
fn row(topology: &Topology, family: Family) -> Result<gateway::Gateway> {
    let map = MapData::from_pin(pin_dir(topology).join("maps/GATEWAYS")).context("the pinned gateways")?;
    let rows: Mapped<gateway::Gateway> = Mapped::new(map.fd().as_fd(), 2).context("mapping the gateways")?;
    Ok(rows.read(gateway::Gateway::row(number(family)) as usize))
}

fn said(daemon: &Daemon<'_>, family: Family) -> Result<Gateway> {
    let gateways = daemon.status()?.gateways;
    let found = gateways.into_iter().find(|gateway| gateway.family == number(family));
    found.with_context(|| format!("status says nothing of {family:?}"))
}

/// Waits until status says this of the way.
fn until(daemon: &Daemon<'_>, family: Family, what: &str, wanted: impl Fn(&Gateway) -> bool) -> Result<()> {
    let waited = poll::until(what, PATIENCE, || Ok(wanted(&said(daemon, family)?).then_some(())));
    waited.with_context(|| format!("{:#?}", said(daemon, family)))
}

/// The router's row, with all that the routing table sends elsewhere.
fn is_published(topology: &Topology, family: Family) -> Result<()> {
    let row = row(topology, family)?;
    ensure!(row.macs == Link::macs(CLIENT_MAC, EDGE_CLIENT_MAC), "{row:?}");
    ensure!((row.ifindex, row.vlan, row.mtu) == (topology.edge.ifindex(CLIENT_DEVICE)?, 0, 1500), "{row:?}");
    let excepts = |address: IpAddr| row.excepts(wide(address));
    for other in [EDGE_OUTSIDE, GATEWAY, EDGE_INSIDE, LOCAL, SHOP.address, FIRST_ENDPOINT] {
        ensure!(excepts(other.of(family)), "{} takes another way: {row:?}", other.of(family));
    }
    ensure!(!excepts(FIRST_CLIENT.of(family)), "{row:?}");
    Ok(())
}

#[test]
fn replies_take_one_way_while_the_routing_table_has_one_and_a_daemon_follows_it() -> Result<()> {
    let topology = Topology::new()?;
    let mut daemon = Daemon::start(&topology, &Settings::default())?;
    for family in Family::ALL {
        until(&daemon, family, "the router", |way| way.router.is_some())?;
        let router = said(&daemon, family)?.router.context("just there")?;
        assert_eq!((router.address, router.mac), (GATEWAY.of(family), mac_text(CLIENT_MAC)));
        assert_eq!((router.device.as_str(), router.vlan, router.mtu), (CLIENT_DEVICE, None, 1500));
        is_published(&topology, family)?;

        let (option, from) = (format!("-{}", number(family)), LOCAL.of(family).to_string());
        let rule = |what| topology.edge.exec("ip", &[&option, "rule", what, "from", &from, "lookup", "100"]);
        rule("add")?;
        until(&daemon, family, "the rule", |way| way.why.as_deref() == Some("there are policy rules"))?;
        assert_eq!(row(&topology, family)?.ifindex, 0, "the program asks the routing table");
        rule("del")?;
        until(&daemon, family, "no rule", |way| way.router.is_some())?;
        is_published(&topology, family)?;
    }
    daemon.stop()?;
    for family in Family::ALL {
        assert_eq!(row(&topology, family)?.ifindex, 0, "nobody follows the routing table any more");
    }
    daemon.start_again()?;
    for family in Family::ALL {
        until(&daemon, family, "the router", |way| way.router.is_some())?;
        is_published(&topology, family)?;
    }
    Ok(())
}

#[test]
fn neighbours_on_the_edges_own_net_are_asked_for_one_by_one() -> Result<()> {
    let topology = Topology::with(Options { clients: Clients::OnLink, ..Options::default() })?;
    let daemon = Daemon::start(&topology, &Settings::default())?;
    for family in Family::ALL {
        until(&daemon, family, "the reason", |way| way.why.as_deref() == Some("there is no default route"))?;
        assert_eq!(row(&topology, family)?.ifindex, 0);
    }
    Ok(())
}
