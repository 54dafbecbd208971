//! What is to leave leaves, what is to stay stays: whole bodies in both directions, over IPv4 and IPv6, in every mode,
//! with the servers, the client and a witness on the Direct Connect line to say where each request went.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use burst_tests::body::BIG;
use burst_tests::client::{self, Page};
use burst_tests::daemon::{Daemon, Settings, Way};
use burst_tests::load::{Load, Plan};
use burst_tests::servers::{self, Limits, LocalSite, Nginx, Site};
use burst_tests::sniffer::{Flow, Flows, Sniffer};
use burst_tests::topology::{CLOUD_PORT, Clients, Family, Options, PAYMENT, SHOP, Service, TO_EDGE, Topology};

/// Whether a flow on the Direct Connect line has to do with payment: by address, or by a port that no other service has.
fn is_payment(flow: &Flow) -> bool {
    let payment = |at: SocketAddr| {
        at.port() == PAYMENT.port || Family::ALL.iter().any(|&family| at.ip() == PAYMENT.address.of(family))
    };
    payment(flow.source) || payment(flow.destination)
}

/// Packets on the line that are the shop's, of a family and a direction.
fn shop_packets(topology: &Topology, flows: &Flows, family: Family, nexthop: bool, incoming: bool) -> u64 {
    let ours = |at: SocketAddr| {
        if nexthop {
            at == SHOP.at(family)
        } else {
            topology.endpoints(family).contains(&at.ip()) && at.port() == CLOUD_PORT
        }
    };
    let of = |flow: &Flow| flow.incoming == incoming && ours(if incoming { flow.destination } else { flow.source });
    flows.iter().filter(|(flow, _)| of(flow)).map(|(_, packets)| packets).sum()
}

/// Moves a whole body each way and says where both went.
fn both_ways(topology: &Topology, service: Service, family: Family, client: usize) -> Result<Site> {
    let source = topology.clients(family).get(client).copied();
    let down = client::download(&topology.client, source, service.at(family))?;
    let up = client::upload(&topology.client, source, service.at(family))?;
    for transfer in [&down, &up] {
        assert_eq!(transfer.service.as_deref(), Some(service.name), "{family:?}");
        assert_eq!(transfer.length, BIG, "{service:?} {family:?}");
    }
    assert_eq!(down.site, up.site, "{service:?} {family:?}");
    Ok(down.site.expect("every answer names its site"))
}

/// Requests that the cloud answered, once there are so many.
fn cloud_answered(cloud: &Nginx, service: Service, at_least: u64) -> Result<u64> {
    Ok(cloud.counts_of(service.name, at_least)?.requests)
}

/// The row of these tests: all local, then the shop in the cloud, then all local again; payment local throughout.
fn leaves_and_comes_home(way: Way, clients: Clients) -> Result<()> {
    let topology = Topology::with(Options { clients, shop_in_cloud: way != Way::Dnat, ..Options::default() })?;
    let _local = LocalSite::start(&topology, Limits::default())?;
    let cloud = servers::start_cloud(&topology)?;
    let witness = Sniffer::start(&topology.direct_connect, TO_EDGE)?;
    let daemon = Daemon::start(&topology, &Settings { way, ..Settings::default() })?;
    let places = |client, expected| -> Result<()> {
        for family in Family::ALL {
            assert_eq!(both_ways(&topology, PAYMENT, family, client)?, Site::Local, "{family:?}");
            assert_eq!(both_ways(&topology, SHOP, family, client)?, expected, "{family:?}");
        }
        Ok(())
    };

    daemon.shift(0.0)?;
    places(0, Site::Local)?;
    assert_eq!(cloud_answered(&cloud, SHOP, 0)?, 0);
    let nexthop = |family| way == Way::Nexthop || way == Way::Mixed && family == Family::V4;
    for family in Family::ALL {
        assert_eq!(shop_packets(&topology, &witness.flows(), family, nexthop(family), true), 0, "{family:?}");
    }

    daemon.shift(100.0)?;
    places(1, Site::Cloud)?;
    // A GET, then PUT, GET and DELETE, in each family.
    assert_eq!(cloud_answered(&cloud, SHOP, 8)?, 8);

    daemon.shift(0.0)?;
    places(2, Site::Local)?;
    assert_eq!((cloud_answered(&cloud, SHOP, 8)?, cloud_answered(&cloud, PAYMENT, 0)?), (8, 0));

    let flows = witness.finish()?;
    let leaked: Vec<_> = flows.keys().filter(|flow| is_payment(flow)).collect();
    assert!(leaked.is_empty(), "payment on the Direct Connect line: {leaked:?}");
    for family in Family::ALL {
        for incoming in [true, false] {
            let packets = shop_packets(&topology, &flows, family, nexthop(family), incoming);
            assert!(packets > 50, "{family:?}, incoming {incoming}: {packets} packets of 2 MiB");
        }
    }
    Ok(())
}

#[test]
fn by_dnat_the_shop_leaves_and_payment_stays_for_clients_behind_a_gateway() -> Result<()> {
    leaves_and_comes_home(Way::Dnat, Clients::BehindGateway)
}

#[test]
fn by_dnat_the_shop_leaves_and_payment_stays_for_clients_on_the_link() -> Result<()> {
    leaves_and_comes_home(Way::Dnat, Clients::OnLink)
}

#[test]
fn by_nexthop_the_shop_leaves_and_payment_stays_for_clients_behind_a_gateway() -> Result<()> {
    leaves_and_comes_home(Way::Nexthop, Clients::BehindGateway)
}

#[test]
fn by_nexthop_the_shop_leaves_and_payment_stays_for_clients_on_the_link() -> Result<()> {
    leaves_and_comes_home(Way::Nexthop, Clients::OnLink)
}

#[test]
fn with_a_mode_per_family_in_one_policy_the_shop_leaves_and_payment_stays() -> Result<()> {
    leaves_and_comes_home(Way::Mixed, Clients::BehindGateway)
}

/// Loads of both services, both families.
fn plan(topology: &Topology, service: Service, rate: f64) -> Plan {
    Plan {
        service: service.name.to_owned(),
        servers: Family::ALL.map(|family| service.at(family)).to_vec(),
        clients: Family::ALL.into_iter().flat_map(|family| topology.clients(family)).collect(),
        page: Page::Small,
        rate,
        requests: 2,
        pause: Duration::from_millis(20),
        patience: Duration::from_secs(10),
        most_open: 10_000,
    }
}

#[test]
fn status_counts_what_haproxy_and_nginx_count() -> Result<()> {
    let topology = Topology::new()?;
    let local = LocalSite::start(&topology, Limits::default())?;
    let cloud = servers::start_cloud(&topology)?;
    let daemon = Daemon::start(&topology, &Settings::default())?;
    daemon.shift(50.0)?;
    let payment = Load::start(&topology.client, plan(&topology, PAYMENT, 100.0))?;
    let promotion = Load::start(&topology.client, plan(&topology, SHOP, 400.0))?;
    std::thread::sleep(Duration::from_secs(3));
    let (payment, promotion) = (payment.finish()?, promotion.finish()?);
    assert_eq!((payment.failed(), promotion.failed()), (0, 0), "{:?} {:?}", payment.texts, promotion.texts);
    assert_eq!(payment.connections(Site::Cloud), 0);
    let share = promotion.offsite_share();
    assert!((0.4..=0.6).contains(&share), "half of the connections leave: {share}");

    // The last counters are read with the next tick.
    let started = promotion.started;
    daemon.until("all openers to be counted", |_| {
        daemon.openers("local").and_then(|local| Ok(local + daemon.openers("shifted")?)).is_ok_and(|all| all >= started)
    })?;
    let accepted = |service: Service| -> Result<u64> {
        Ok(local.haproxy.stat(service.name, "FRONTEND")?.number("stot").expect("a counter"))
    };
    let kept = daemon.reasons(PAYMENT.name)?.get("keep").map_or(0, |row| row.1);
    for (what, counted, served) in [
        ("payment, HAProxy", kept, accepted(PAYMENT)?),
        ("shop on premises, HAProxy", daemon.openers("local")?, accepted(SHOP)?),
        ("shop in the cloud, nginx", daemon.openers("shifted")?, cloud.counts(SHOP.name)?.connections),
    ] {
        let off = counted.abs_diff(served) as f64 / served as f64;
        println!("{what}: burst counted {counted}, the server {served}");
        assert!(served > 100 && off <= 0.01, "{what}: burst counted {counted}, the server {served}");
    }
    println!("resident memory of the daemon: {:.1} MB", daemon.process.resident()? as f64 / 1e6);
    Ok(())
}
