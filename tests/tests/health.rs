//! Health on live flows: a line that is silently dead behind its router, a server of the cloud that dies and returns, and
//! probes that fail all at once. What breaks, and what does not.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use burst::api::types::{Endpoint, EndpointHealth, HealthState, Path};
use burst_common::meta::endpoint_name;
use burst_common::slot::LOCAL;
use burst_tests::client;
use burst_tests::daemon::{Daemon, PATIENCE, Settings};
use burst_tests::dir::RunDir;
use burst_tests::load::{Held, HeldPlan};
use burst_tests::netns::Namespace;
use burst_tests::poll;
use burst_tests::servers::{self, Limits, LocalSite, Nginx, Site};
use burst_tests::sniffer::Sniffer;
use burst_tests::topology::{
    CLOUD_PORT, DX_DEVICE, FIRST_ENDPOINT, Family, Options, SECOND_DIRECT_CONNECT, SECOND_TO_EDGE, SHOP, TO_EDGE,
    Topology,
};

/// Four times a second; thrice makes a fall.
const HTTP: &str = r#"{ http = ":8080/", every = "250ms", timeout = "250ms", fall = 3, rise = 2, dead_after = "20s" }"#;
const TCP: &str = r#"{ tcp = ":8099", every = "250ms", timeout = "250ms", fall = 3, rise = 2, dead_after = "2s" }"#;

fn with(health: &'static str) -> Settings {
    Settings { health: Some(health), ..Settings::default() }
}

fn hold(topology: &Topology, family: Family) -> Result<Held> {
    Held::open(&topology.client, HeldPlan::of(topology, SHOP, family))
}

fn hold_both(topology: &Topology) -> Result<Vec<Held>> {
    Family::ALL.into_iter().map(|family| hold(topology, family)).collect()
}

/// New connections to the shop, so many of each family: where they are answered.
fn places(topology: &Topology, each: usize) -> Result<BTreeSet<Site>> {
    let mut sites = BTreeSet::new();
    for family in Family::ALL {
        for source in topology.clients(family).into_iter().take(each) {
            sites.extend(client::download(&topology.client, Some(source), SHOP.at(family))?.site);
        }
    }
    Ok(sites)
}

fn endpoints(daemon: &Daemon<'_>) -> Result<Vec<Endpoint>> {
    Ok(daemon.shop()?.into_iter().flat_map(|burst| burst.tiers).flat_map(|tier| tier.endpoints).collect())
}

fn healths(daemon: &Daemon<'_>) -> Result<Vec<EndpointHealth>> {
    endpoints(daemon)?.into_iter().map(|endpoint| endpoint.health.context("an endpoint is not probed")).collect()
}

/// Waits until something holds for what is known of the endpoints' health, and says how long that took.
fn until(daemon: &Daemon<'_>, what: &str, holds: impl Fn(&[EndpointHealth]) -> bool) -> Result<Duration> {
    let start = Instant::now();
    let waited = poll::until(what, PATIENCE, || Ok(holds(&healths(daemon)?).then_some(())));
    waited.with_context(|| format!("{:#?}\n{}", healths(daemon), daemon.process.log().unwrap_or_default()))?;
    Ok(start.elapsed())
}

fn all(state: HealthState) -> impl Fn(&[EndpointHealth]) -> bool {
    move |all| all.iter().all(|health| health.state == state)
}

fn all_probed(daemon: &Daemon<'_>) -> Result<()> {
    until(daemon, "every path to be probed and well", |all| {
        all.iter().flat_map(|health| &health.paths).all(|path| path.probed && path.up && path.latency_s.is_some())
    })
    .map(drop)
}

/// What comes to the router from EDGE by the first line goes nowhere from now on; ARP and ND are answered as before.
fn silence(router: &Namespace, what: &str) -> Result<()> {
    for family in ["-4", "-6"] {
        router.exec("ip", &[family, "rule", what, "iif", TO_EDGE, "pref", "10", "blackhole"])?;
    }
    Ok(())
}

/// Without a route by the second line its paths are not probed, and burst says which routes would do: those do. Nor are those
/// whose answers this host would drop.
fn what_is_missing_for_probes_is_named(topology: &Topology, daemon: &Daemon<'_>) -> Result<()> {
    topology.edge.ip(&format!("route delete 10.20.0.0/24 via {}", SECOND_DIRECT_CONNECT.v4))?;
    let unprobed = |all: &[EndpointHealth]| -> Vec<String> {
        let paths = all.iter().flat_map(|health| &health.paths).filter(|path| !path.probed);
        paths.inspect(|path| assert!(path.up && path.link == "dx-2", "{path:?}")).map(|path| path.why.clone()).collect()
    };
    until(daemon, "paths of IPv4 not to be probed", |all| unprobed(all).len() == 2)?;
    assert!(healths(daemon)?.iter().all(|health| health.state == HealthState::Healthy));
    for why in unprobed(&healths(daemon)?) {
        let command = why.split('`').nth(1).context("no command is named")?;
        println!("not probed; named: {command}");
        let words: Vec<_> = command.split(' ').skip(1).collect();
        topology.edge.exec("ip", &words)?;
    }
    all_probed(daemon)?;
    // Where answers would be dropped by this host, silence says nothing: IPv4 is routed by the second line now.
    let strict = format!("net/ipv4/conf/{DX_DEVICE}/rp_filter");
    topology.edge.sysctl(&[(&strict, "1")])?;
    until(daemon, "paths that are filtered not to be probed", |all| {
        let told = |path: &&Path| !path.probed && path.up && path.why.contains("rp_filter=2");
        all.iter().flat_map(|health| &health.paths).filter(told).count() == 2
    })?;
    topology.edge.sysctl(&[(&strict, "0")])?;
    all_probed(daemon)
}

#[test]
fn a_line_that_is_silently_dead_behind_its_router_loses_its_packets_to_the_other_and_no_connection_breaks() -> Result<()>
{
    let topology = Topology::with(Options { second_line: true, ..Options::default() })?;
    let _local = LocalSite::start(&topology, Limits::default())?;
    let _cloud = servers::start_cloud(&topology)?;
    let daemon = Daemon::start(&topology, &with(HTTP))?;
    all_probed(&daemon)?;
    what_is_missing_for_probes_is_named(&topology, &daemon)?;
    daemon.shift(100.0)?;
    let held = hold_both(&topology)?;
    assert!(held.iter().flat_map(Held::lines).all(|line| line.site == Some(Site::Cloud)));
    held.iter().try_for_each(Held::exchange)?;

    silence(&topology.direct_connect, "add")?;
    let took = until(&daemon, "the first line's paths to be down", |all| {
        all.iter().all(|health| health.paths.iter().all(|path| path.up == (path.link == "dx-2")))
    })?;
    println!("silently dead: paths down in status after {took:?}");
    assert!(took < Duration::from_secs(4), "three probes, each 250 ms");
    let status = daemon.status()?;
    assert!(status.links.iter().all(|link| link.up), "the lines themselves are up");
    assert!(endpoints(&daemon)?.iter().all(|endpoint| endpoint.reachable && endpoint.links == ["dx-2"]));
    assert!(status.warnings.iter().any(|text| text.contains("is not used over dx-1")), "{:?}", status.warnings);

    let (first, second) =
        (Sniffer::start(&topology.direct_connect, TO_EDGE)?, Sniffer::start(&topology.direct_connect, SECOND_TO_EDGE)?);
    held.iter().try_for_each(Held::exchange)?;
    assert_eq!(places(&topology, 3)?, BTreeSet::from([Site::Cloud]));
    let clients: Vec<_> = Family::ALL.into_iter().flat_map(|family| topology.clients(family)).collect();
    let of_clients = |sniffer: &Sniffer| -> u64 {
        let flows = sniffer.flows();
        let ours = flows.iter().filter(|(flow, _)| flow.incoming && clients.contains(&flow.source.ip()));
        ours.map(|(_, packets)| packets).sum()
    };
    assert_eq!(of_clients(&first), 0, "packets of clients on the dead line");
    assert!(of_clients(&second) > 20);

    silence(&topology.direct_connect, "del")?;
    let took = until(&daemon, "all paths to be up", |all| all.iter().flat_map(|one| &one.paths).all(|path| path.up))?;
    println!("alive again: paths up in status after {took:?}");
    poll::until("both lines to be in use", PATIENCE, || {
        Ok(endpoints(&daemon)?.iter().all(|endpoint| endpoint.links == ["dx-1", "dx-2"]).then_some(()))
    })?;
    held.iter().try_for_each(Held::exchange)?;
    held.into_iter().try_for_each(|held| held.finish().map(drop))?;
    first.finish()?;
    second.finish().map(drop)
}

/// Names that rows of the pinned names map have, by endpoint id.
fn names(daemon: &Daemon<'_>) -> Result<Vec<(u16, String)>> {
    let rows = daemon.names()?;
    Ok((1..64).filter_map(|id| Some((id, rows[endpoint_name(usize::from(id))].clone()?))).collect())
}

/// Endpoints that slots name.
fn named(daemon: &Daemon<'_>) -> Result<BTreeSet<u16>> {
    let slots = daemon.slots()?;
    Ok(slots.iter().flat_map(|slot| [slot.current(), slot.previous()]).filter(|id| *id != LOCAL).collect())
}

/// Whether a name is of the endpoint with this number, of either family, in this life.
fn is_of(name: &str, number: u8) -> bool {
    Family::ALL.iter().any(|&family| name.ends_with(&format!("/{}", FIRST_ENDPOINT.plus(number).of(family))))
}

#[test]
fn an_endpoint_that_dies_gives_its_flows_away_and_comes_back_as_another() -> Result<()> {
    let topology = Topology::new()?;
    let _local = LocalSite::start(&topology, Limits::default())?;
    let dirs = [RunDir::new()?, RunDir::new()?, RunDir::new()?];
    let mut first = servers::start_endpoint(&topology, &dirs[0], 0)?;
    let second = servers::start_endpoint(&topology, &dirs[1], 1)?;
    let mut daemon = Daemon::start(&topology, &with(HTTP))?;
    all_probed(&daemon)?;
    daemon.shift(100.0)?;
    // Flows that were local before the shift are over.
    daemon.settle()?;
    assert_eq!(places(&topology, 12)?, BTreeSet::from([Site::Cloud]));
    for server in [&first, &second] {
        assert!(server.counts(SHOP.name)?.connections > 0);
    }
    let before = names(&daemon)?;
    let ids = |names: &[(u16, String)], number| -> BTreeSet<u16> {
        names.iter().filter(|(_, name)| is_of(name, number)).map(|(id, _)| *id).collect()
    };
    let old = ids(&before, 0);
    assert_eq!(old.len(), 2, "one of each family: {before:?}");
    assert!(named(&daemon)?.is_superset(&old));

    first.process.kill()?;
    let dead = |all: &[EndpointHealth]| all.iter().filter(|health| health.state == HealthState::Dead).count();
    let took = until(&daemon, "both its addresses to be dead", |all| dead(all) == 2)?;
    println!("killed: dead in status after {took:?}");
    // Every one of them, at once.
    assert_eq!(places(&topology, 16)?, BTreeSet::from([Site::Cloud]));
    assert!(named(&daemon)?.is_disjoint(&old), "no slot names who is dead");
    let after = names(&daemon)?;
    let new = ids(&after, 0);
    assert!(new.len() == 2 && new.is_disjoint(&old), "{before:?} {after:?}");
    assert_eq!(ids(&after, 1), ids(&before, 1), "who lives keeps its id");
    let warnings = daemon.status()?.warnings;
    assert!(warnings.iter().any(|text| text.contains("is dead: connection refused")), "{warnings:?}");

    // All of these are with the second.
    let held = hold_both(&topology)?;
    held.iter().try_for_each(Held::exchange)?;
    // A new daemon knows the endpoint by its new id, and does not try it with flows.
    daemon.kill()?;
    daemon.start_again()?;
    daemon.shift(100.0)?;
    assert_eq!(places(&topology, 16)?, BTreeSet::from([Site::Cloud]));
    let unproven = |health: &&EndpointHealth| health.state == HealthState::Unproven;
    let times = |why: &str| why.strip_prefix("connection refused, ")?.strip_suffix(" times")?.parse::<u32>().ok();
    let tried =
        |health: &EndpointHealth| health.paths.iter().any(|path| times(&path.why).is_some_and(|times| times > 4));
    until(&daemon, "both its addresses to be refused again and again", |all| {
        all.iter().filter(|one| tried(one)).count() == 2
    })?;
    assert_eq!(healths(&daemon)?.iter().filter(unproven).count(), 2);
    assert_eq!(ids(&names(&daemon)?, 0), new);
    assert!(named(&daemon)?.is_disjoint(&new));
    held.iter().try_for_each(Held::exchange)?;

    first = servers::start_endpoint(&topology, &dirs[2], 0)?;
    let took = until(&daemon, "all to be healthy", all(HealthState::Healthy))?;
    println!("back: healthy in status after {took:?}");
    poll::until("slots to name it by its new ids", PATIENCE, || Ok(named(&daemon)?.is_superset(&new).then_some(())))?;
    assert!(named(&daemon)?.is_disjoint(&old));
    assert_eq!(places(&topology, 16)?, BTreeSet::from([Site::Cloud]));
    assert!(first.counts(SHOP.name)?.connections > 0, "it takes new flows");
    held.iter().try_for_each(Held::exchange)?;
    held.into_iter().try_for_each(|held| held.finish().map(drop))
}

#[test]
fn where_all_probes_are_refused_at_once_nothing_that_is_placed_moves() -> Result<()> {
    let topology = Topology::new()?;
    let _local = LocalSite::start(&topology, Limits::default())?;
    let _cloud = servers::start_cloud(&topology)?;
    let dirs = [RunDir::new()?, RunDir::new()?];
    let mut probed: Nginx = servers::start_probed(&topology, &dirs[0])?;
    let daemon = Daemon::start(&topology, &with(TCP))?;
    all_probed(&daemon)?;
    daemon.shift(100.0)?;
    daemon.settle()?;
    let held = hold_both(&topology)?;
    let before = named(&daemon)?;
    ensure!(before.len() == 4, "all four endpoints are named: {before:?}");

    probed.process.kill()?;
    let took = until(&daemon, "all to be suspect", all(HealthState::Suspect))?;
    println!("all refused: suspect in status after {took:?}");
    // Longer than it takes to be dead, by refusals and by silence.
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        held.iter().try_for_each(Held::exchange)?;
        assert!(all(HealthState::Suspect)(&healths(&daemon)?));
    }
    let warnings = daemon.status()?.warnings;
    assert!(warnings.iter().any(|text| text.contains("4 of 4 endpoints fail at once")), "{warnings:?}");
    assert!(daemon.process.log()?.contains("the prober is suspected"));
    assert_eq!(places(&topology, 3)?, BTreeSet::from([Site::Local]), "new flows");
    assert!(endpoints(&daemon)?.iter().all(|endpoint| endpoint.reachable), "{CLOUD_PORT} is still reached");

    probed = servers::start_probed(&topology, &dirs[1])?;
    self::until(&daemon, "all to be healthy", all(HealthState::Healthy))?;
    // Of both families: the first endpoint that is well takes the shop's flows of its own.
    poll::until("all endpoints to have their part again", PATIENCE, || {
        Ok(endpoints(&daemon)?.iter().all(|endpoint| endpoint.share.wanted > 0.2).then_some(()))
    })?;
    assert_eq!(places(&topology, 3)?, BTreeSet::from([Site::Cloud]));
    let warnings = daemon.status()?.warnings;
    assert!(!warnings.iter().any(|text| text.contains("fail at once")), "{warnings:?}");
    held.iter().try_for_each(Held::exchange)?;
    held.into_iter().try_for_each(|held| held.finish().map(drop))?;
    drop(probed);
    Ok(())
}
