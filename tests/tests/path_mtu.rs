//! Path MTU discovery works through burst. Both ends offer full segments, and somewhere on the way less fits: only the
//! ICMP errors, whose quoted packets burst translates, tell the sender. Whole bodies, both directions, both families; the
//! errors are seen where they are made and where they arrive, so that no test passes without them.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use burst_tests::body::BIG;
use burst_tests::client::{self, Connection, PATIENCE, Page, Transfer};
use burst_tests::daemon::{Daemon, Settings, Way};
use burst_tests::narrow::{self, Evidence, TooBig};
use burst_tests::servers::{self, Nginx, Site};
use burst_tests::topology::{
    CLIENT_DEVICE, CLOUD_DEVICE, CLOUD_PORT, DIRECT_CONNECT, Family, Options, SHOP, TO_EDGE, Topology,
};

/// What fits the narrow part of a way, in bytes of IP packet: above IPv6's least (1280), below everything else here.
const NARROW: u16 = 1400;

fn testbed(way: Way) -> Result<(Topology, Nginx)> {
    let topology = Topology::with(Options { shop_in_cloud: way == Way::Nexthop, ..Options::default() })?;
    let cloud = servers::start_cloud(&topology)?;
    Ok((topology, cloud))
}

fn started<'a>(topology: &'a Topology, way: Way) -> Result<Daemon<'a>> {
    let daemon = Daemon::start(topology, &Settings { way, ..Settings::default() })?;
    daemon.shift(100.0)?;
    daemon.settle()?;
    Ok(daemon)
}

fn whole(transfer: &Transfer) -> Result<()> {
    ensure!(transfer.site == Some(Site::Cloud), "it stayed: {transfer:?}");
    ensure!(transfer.length == BIG, "{transfer:?}");
    Ok(())
}

/// Where the cloud answers, as the cloud sees it.
fn endpoint(topology: &Topology, way: Way, at: SocketAddr) -> bool {
    let family = if at.is_ipv4() { Family::V4 } else { Family::V6 };
    match way {
        Way::Nexthop => at == SHOP.at(family),
        _ => topology.endpoints(family).contains(&at.ip()) && at.port() == CLOUD_PORT,
    }
}

/// The errors of a family that passed in one direction, which must be some, all of them about packets that are too large for
/// what they say.
fn errors(evidence: &Evidence, family: Family, incoming: bool) -> Vec<TooBig> {
    let of = |error: &&TooBig| error.incoming == incoming && error.to.is_ipv4() == (family == Family::V4);
    let errors: Vec<_> = evidence.errors.iter().filter(of).copied().collect();
    assert!(!errors.is_empty(), "no error, {family:?}, incoming {incoming}: {evidence:?}");
    for error in &errors {
        assert_eq!(error.mtu, NARROW, "{error:?}");
        assert!(error.length > usize::from(NARROW), "{error:?}");
    }
    errors
}

/// Nobody offered less than what fits an Ethernet.
fn assert_full_segments(evidence: &Evidence) {
    assert!(evidence.offers.len() >= 2, "a SYN and a SYN-ACK of each family: {evidence:?}");
    for offer in &evidence.offers {
        let headers = if offer.source.is_ipv4() { 40 } else { 60 };
        assert_eq!(offer.mss, 1500 - headers, "{offer:?}");
    }
}

/// Nothing of TCP, and no error, was left to the kernel on its way back: by `nexthop` the kernel would send it on, too.
fn assert_all_returned(daemon: &Daemon<'_>) -> Result<()> {
    let seen = daemon.status()?.uptime_s;
    // The last counters are read with the next tick.
    daemon.until("a tick", |_| daemon.status().is_ok_and(|status| status.uptime_s > seen + 0.6))?;
    let left = daemon.status()?.other.into_iter().find(|row| row.reason == "not-return");
    assert_eq!(left.map_or(0, |row| row.packets), 0, "packets from the line that burst did not take for its own");
    Ok(())
}

/// The client sends, and the router beyond the line answers.
fn uploads(way: Way) -> Result<()> {
    let (topology, _cloud) = testbed(way)?;
    narrow::way_into_cloud(&topology, NARROW)?;
    let daemon = started(&topology, way)?;
    let client = narrow::watch(&topology.client, TO_EDGE)?;
    let router = narrow::watch(&topology.direct_connect, TO_EDGE)?;
    for family in Family::ALL {
        let source = topology.clients(family)[0];
        whole(&client::upload(&topology.client, Some(source), SHOP.at(family))?)?;
    }
    assert_all_returned(&daemon)?;
    let (client, router) = (narrow::evidence(client)?, narrow::evidence(router)?);
    for family in Family::ALL {
        let source = topology.clients(family)[0];
        let sent = errors(&router, family, false);
        for error in &sent {
            assert_eq!((error.to, error.source.ip()), (source, source), "{error:?}");
            assert!(endpoint(&topology, way, error.destination), "the router knows the endpoint alone: {error:?}");
        }
        let arrived = errors(&client, family, true);
        for error in &arrived {
            // By `dnat` even the error's sender becomes the service; by `nexthop` nothing changes.
            let from: IpAddr = if way == Way::Nexthop { DIRECT_CONNECT } else { SHOP.address }.of(family);
            assert_eq!((error.from, error.to, error.source.ip()), (from, source, source), "{error:?}");
            assert_eq!(error.destination, SHOP.at(family), "the client knows the service alone: {error:?}");
        }
        assert_eq!(arrived.len(), sent.len(), "{family:?}");
    }
    assert_full_segments(&client);
    assert_full_segments(&router);
    Ok(())
}

#[test]
fn by_dnat_an_upload_finds_the_mtu_behind_the_router_of_the_line() -> Result<()> {
    uploads(Way::Dnat)
}

#[test]
fn by_nexthop_an_upload_finds_the_mtu_behind_the_router_of_the_line() -> Result<()> {
    uploads(Way::Nexthop)
}

/// The cloud sends, and a router of the clients' answers.
fn downloads(way: Way) -> Result<()> {
    let (topology, _cloud) = testbed(way)?;
    let homes = narrow::clients_behind_a_router(&topology, NARROW)?;
    let _daemon = started(&topology, way)?;
    let gateway = narrow::watch(&topology.client, TO_EDGE)?;
    let cloud = narrow::watch(&topology.cloud, CLOUD_DEVICE)?;
    for family in Family::ALL {
        let source = topology.clients(family)[0];
        whole(&client::download(&homes, Some(source), SHOP.at(family))?)?;
    }
    let (gateway, cloud) = (narrow::evidence(gateway)?, narrow::evidence(cloud)?);
    for family in Family::ALL {
        let client = topology.clients(family)[0];
        let sent = errors(&gateway, family, false);
        for error in &sent {
            assert_eq!((error.to, error.destination.ip()), (SHOP.address.of(family), client), "{error:?}");
            assert_eq!(error.source, SHOP.at(family), "the router knows the service alone: {error:?}");
        }
        let arrived = errors(&cloud, family, true);
        for error in &arrived {
            assert!(endpoint(&topology, way, error.source), "the cloud knows the endpoint alone: {error:?}");
            assert_eq!((error.to, error.destination.ip()), (error.source.ip(), client), "{error:?}");
            assert_eq!(error.from, sent[0].from, "who says so stays who it is: {error:?}");
        }
        assert_eq!(arrived.len(), sent.len(), "{family:?}");
    }
    assert_full_segments(&gateway);
    assert_full_segments(&cloud);
    Ok(())
}

#[test]
fn by_dnat_a_download_finds_the_mtu_behind_the_clients_router() -> Result<()> {
    downloads(Way::Dnat)
}

#[test]
fn by_nexthop_a_download_finds_the_mtu_behind_the_clients_router() -> Result<()> {
    downloads(Way::Nexthop)
}

/// Of a new connection burst lowers the segment size to what fits the link, and nothing is too big. A connection that is older
/// than the link's smaller MTU has agreed on more: there burst itself answers.
fn answers(way: Way) -> Result<()> {
    let (topology, _cloud) = testbed(way)?;
    let settings = Settings { way, ..Settings::default() };
    let smaller = Settings { link_mtu: Some(NARROW), ..settings };
    let mut daemon = started(&topology, way)?;
    let client = narrow::watch(&topology.client, TO_EDGE)?;
    let router = narrow::watch(&topology.direct_connect, TO_EDGE)?;
    for family in Family::ALL {
        let source = topology.clients(family)[0];
        daemon.restart_with(&settings)?;
        let before = answered(&daemon)?;
        let transfer = client::run(&topology.client, async {
            let mut connection = Connection::open(Some(source), SHOP.at(family), PATIENCE).await?;
            connection.get(Page::Small, false, PATIENCE).await?;
            daemon.restart_with(&smaller)?;
            client::upload_over(&mut connection).await
        })?;
        whole(&transfer.with_context(|| format!("{family:?}"))?)?;
        // The last counters are read with the next tick.
        daemon.until("burst to have answered", |_| answered(&daemon).is_ok_and(|after| after > before))?;
    }
    let (client, router) = (narrow::evidence(client)?, narrow::evidence(router)?);
    for family in Family::ALL {
        let (service, source) = (SHOP.at(family), topology.clients(family)[0]);
        for error in errors(&client, family, true) {
            assert_eq!((error.from, error.to, error.source.ip()), (service.ip(), source, source), "{error:?}");
            assert_eq!(error.destination, service, "{error:?}");
        }
    }
    assert_eq!(router.errors, [], "the line carries everything");
    assert_full_segments(&client);
    Ok(())
}

fn answered(daemon: &Daemon<'_>) -> Result<u64> {
    Ok(daemon.reasons(SHOP.name)?.get("too-big-answered").map_or(0, |row| row.0))
}

#[test]
fn by_dnat_a_connection_older_than_the_links_mtu_is_told_by_burst() -> Result<()> {
    answers(Way::Dnat)
}

#[test]
fn by_nexthop_a_connection_older_than_the_links_mtu_is_told_by_burst() -> Result<()> {
    answers(Way::Nexthop)
}

/// The cloud sends what the edge's own client device does not take. burst leaves the packet to the kernel as it came, and the
/// kernel's answer goes to the endpoint. (By `nexthop` it would go to the service's address, which is on premises.)
#[test]
fn by_dnat_a_download_finds_the_mtu_of_the_edges_own_device() -> Result<()> {
    let (topology, _cloud) = testbed(Way::Dnat)?;
    topology.edge.ip(&format!("link set {CLIENT_DEVICE} mtu {NARROW}"))?;
    let _daemon = started(&topology, Way::Dnat)?;
    let cloud = narrow::watch(&topology.cloud, CLOUD_DEVICE)?;
    for family in Family::ALL {
        let source = topology.clients(family)[0];
        whole(&client::download(&topology.client, Some(source), SHOP.at(family))?)?;
    }
    let cloud = narrow::evidence(cloud)?;
    for family in Family::ALL {
        let client = topology.clients(family)[0];
        for error in errors(&cloud, family, true) {
            assert!(endpoint(&topology, Way::Dnat, error.source), "the cloud knows the endpoint alone: {error:?}");
            assert_eq!((error.to, error.destination.ip()), (error.source.ip(), client), "{error:?}");
        }
    }
    assert_full_segments(&cloud);
    Ok(())
}
