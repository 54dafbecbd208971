//! Looking changes nothing: in mode `shadow` everything is decided and counted, and everything stays.

use std::net::SocketAddr;

use anyhow::Result;
use burst_tests::body::BIG;
use burst_tests::client;
use burst_tests::daemon::{self, Daemon, Settings};
use burst_tests::load::{Held, HeldPlan};
use burst_tests::servers::{self, Limits, LocalSite, Site};
use burst_tests::sniffer::Sniffer;
use burst_tests::topology::{CLIENT_DEVICE, Family, PAYMENT, SHOP, Service, TO_EDGE, Topology};

/// TCP, as in the header.
const TCP: u8 = 6;

fn both_ways(topology: &Topology, service: Service, family: Family) -> Result<[Option<Site>; 2]> {
    let source = topology.clients(family).first().copied();
    let moved = [
        client::download(&topology.client, source, service.at(family))?,
        client::upload(&topology.client, source, service.at(family))?,
    ];
    assert!(moved.iter().all(|transfer| transfer.length == BIG));
    Ok(moved.map(|transfer| transfer.site))
}

#[test]
fn in_shadow_mode_everything_is_counted_and_nothing_leaves() -> Result<()> {
    let topology = Topology::new()?;
    let _local = LocalSite::start(&topology, Limits::default())?;
    let cloud = servers::start_cloud(&topology)?;
    let witness = Sniffer::start(&topology.direct_connect, TO_EDGE)?;
    let mut daemon = Daemon::start(&topology, &Settings { shadow: true, ..Settings::default() })?;
    assert_eq!(daemon.status()?.mode, burst::api::types::Mode::Shadow);
    daemon.shift(100.0)?;
    for family in Family::ALL {
        for service in [PAYMENT, SHOP] {
            assert_eq!(both_ways(&topology, service, family)?, [Some(Site::Local); 2], "{service:?} {family:?}");
        }
    }
    assert_eq!((cloud.counts(SHOP.name)?.requests, cloud.counts(PAYMENT.name)?.requests), (0, 0));
    // A download and an upload, a connection each, in each family.
    daemon.until("four openers", |_| daemon.openers("shadow").is_ok_and(|count| count == 4))?;
    assert_eq!((daemon.openers("local")?, daemon.openers("shifted")?), (0, 0));
    let payment = daemon.reasons(PAYMENT.name)?;
    assert_eq!(payment.keys().collect::<Vec<_>>(), ["keep"]);
    let (out, _) = daemon.shop()?[0].tiers[0]
        .endpoints
        .iter()
        .fold((0, 0), |(out, back), endpoint| (out + endpoint.out.packets, back + endpoint.back.packets));
    assert_eq!(out, 0);
    let of_clients = |at: SocketAddr| {
        topology.clients(Family::V4).contains(&at.ip()) || topology.clients(Family::V6).contains(&at.ip())
    };
    let seen = witness.finish()?;
    let strangers: Vec<_> = seen
        .keys()
        .filter(|flow| flow.protocol == TCP || of_clients(flow.source) || of_clients(flow.destination))
        .collect();
    assert!(strangers.is_empty(), "on the Direct Connect line: {strangers:?}");

    // In earnest: what came while it was only looked at is on premises, whatever the slots said, and stays there.
    let held = Family::ALL.map(|family| hold(&topology, family));
    daemon.stop()?;
    let before = daemon::program_on(&topology, CLIENT_DEVICE)?;
    let daemon = Daemon::start(&topology, &Settings::default())?;
    assert_ne!(daemon::program_on(&topology, CLIENT_DEVICE)?, before);
    for (share, site) in [(0.0, Site::Local), (100.0, Site::Cloud)] {
        daemon.shift(share)?;
        for family in Family::ALL {
            assert_eq!(both_ways(&topology, SHOP, family)?, [Some(site); 2], "{family:?}");
            assert_eq!(both_ways(&topology, PAYMENT, family)?, [Some(Site::Local); 2], "{family:?}");
        }
    }
    daemon.settle()?;
    for held in held {
        let held = held?;
        held.exchange()?;
        held.finish()?;
    }
    Ok(())
}

/// Connections to the shop, asked on all the time; each must stay with the site that it was first answered by.
fn hold(topology: &Topology, family: Family) -> Result<Held> {
    Held::open(&topology.client, HeldPlan::of(topology, SHOP, family))
}
