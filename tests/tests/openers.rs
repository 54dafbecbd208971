//! New connections when there is no time to ask the daemon, or none to be asked: a wave before the next tick, and the time after the
//! daemon's end. And lines that are gone for less than `hold`.

use std::time::{Duration, Instant};

use anyhow::Result;
use burst_common::reason::Note;
use burst_common::slot::{LOCAL, State};
use burst_tests::client::{self, Page};
use burst_tests::daemon::{Daemon, Settings};
use burst_tests::load::{Held, HeldPlan, Load, Plan};
use burst_tests::poll;
use burst_tests::servers::{self, Limits, LocalSite, Nginx, Site};
use burst_tests::topology::{DX_DEVICE, Family, SHOP, Topology};

fn testbed() -> Result<(Topology, LocalSite, Nginx)> {
    let topology = Topology::new()?;
    let local = LocalSite::start(&topology, Limits::default())?;
    let cloud = servers::start_cloud(&topology)?;
    for namespace in [&topology.edge, &topology.direct_connect] {
        namespace.sysctl(&[("net/ipv6/conf/all/keep_addr_on_down", "1")])?;
    }
    Ok((topology, local, cloud))
}

fn hold(topology: &Topology) -> Result<Vec<Held>> {
    let hold = |family| Held::open(&topology.client, HeldPlan::of(topology, SHOP, family));
    Family::ALL.into_iter().map(hold).collect()
}

/// Where so many new connections are answered, each with a whole body.
fn places(topology: &Topology, count: usize) -> Result<Vec<Option<Site>>> {
    let one = |n: usize| {
        let family = Family::ALL[n % 2];
        let source = topology.clients(family).first().copied();
        Ok(client::download(&topology.client, source, SHOP.at(family))?.site)
    };
    (0..count).map(one).collect()
}

#[test]
fn a_wave_leaves_before_the_daemon_has_seen_it() -> Result<()> {
    let (topology, _local, _cloud) = testbed()?;
    // Of 40 new flows a second 35 stay: half way between the load that is aimed at and the limit. A tick is longer than the wave.
    let (rate, window, tick) = (35.0, 16.0, Duration::from_secs(4));
    let settings =
        Settings { capacity: "40 flows/s", edge: "tick = \"4s\"\nlease = { lasts = \"60s\" }", ..Settings::default() };
    let daemon = Daemon::start(&topology, &settings)?;
    let plan = Plan {
        service: SHOP.name.to_owned(),
        servers: Family::ALL.map(|family| SHOP.at(family)).to_vec(),
        clients: Family::ALL.into_iter().flat_map(|family| topology.clients(family)).collect(),
        page: Page::Small,
        rate: 5.0,
        requests: 4,
        pause: Duration::from_millis(100),
        patience: Duration::from_secs(10),
        most_open: 4000,
    };
    let load = Load::start(&topology.client, plan)?;
    // The first decision that is published is the second one; then right behind another.
    let ticks = |daemon: &Daemon<'_>| daemon.status().map(|status| status.uptime_s);
    std::thread::sleep(3 * tick);
    let at: f64 = ticks(&daemon)?;
    poll::until("a tick", 2 * tick, || Ok((ticks(&daemon)? > at).then_some(())))?;
    let quiet = load.snapshot();
    assert_eq!(quiet.connections(Site::Cloud), 0, "what fits stays");
    let begin = Instant::now();
    load.set_rate(350.0);
    std::thread::sleep(tick / 2);
    load.set_rate(0.0);
    let slots = daemon.slots()?;
    assert!(slots.iter().all(|slot| slot.current() == LOCAL), "the daemon has not moved yet");
    let marked = slots.iter().filter(|slot| slot.state() == State::Pins).count();
    let seen = load.finish()?.since(&quiet);
    // On a busy machine the last ones begin late; none after this.
    let took = begin.elapsed().as_secs_f64();
    let (local, cloud) = (seen.connections(Site::Local), seen.connections(Site::Cloud));
    println!("{took:.2} s at ten times the budget: {} stayed, {} left, {} slots ask for pins", local, cloud, marked);
    assert_eq!(seen.failed(), 0, "{:?}", seen.failures());
    // Connections that were begun before the wave may be answered in it.
    let most = rate * took + window + 1.0 + 5.0;
    assert!(local as f64 <= most, "{} of at most {most} stayed", local);
    assert!(local as f64 >= rate, "there was room for more: {local}");
    assert!(cloud > 300 && marked > 100, "{} left", cloud);
    Ok(())
}

#[test]
fn when_the_daemon_is_gone_for_long_new_flows_come_home_and_placed_ones_stay() -> Result<()> {
    let (topology, _local, _cloud) = testbed()?;
    let settings = Settings {
        edge: "lease = { lasts = \"2s\", hold = \"2s\", home = \"2s\" }",
        idle_timeout: Duration::from_secs(10),
        ..Settings::default()
    };
    let mut daemon = Daemon::start(&topology, &settings)?;
    daemon.shift(100.0)?;
    let held = hold(&topology)?;
    daemon.kill()?;
    let killed = Instant::now();
    assert!(
        places(&topology, 6)?.iter().all(|site| *site == Some(Site::Cloud)),
        "leased and held, flows go where they went"
    );
    assert!(killed.elapsed() < Duration::from_secs(4), "that took too long to tell");
    std::thread::sleep(Duration::from_secs(7).saturating_sub(killed.elapsed()));
    assert!(places(&topology, 12)?.iter().all(|site| *site == Some(Site::Local)), "home");
    held.iter().try_for_each(Held::exchange)?;
    daemon.start_again()?;
    let homed = Note::Homed.text();
    let count =
        daemon.class(SHOP.name)?.reasons.iter().find(|count| count.reason == homed).map_or(0, |count| count.packets);
    println!("{count} slots came home by themselves");
    held.iter().try_for_each(Held::exchange)?;
    daemon.shift(100.0)?;
    assert!(places(&topology, 6)?.iter().all(|site| *site == Some(Site::Cloud)), "somebody leads again");
    held.iter().try_for_each(Held::exchange)?;
    held.into_iter().try_for_each(|held| held.finish().map(drop))
}

#[test]
fn a_line_that_is_gone_for_less_than_hold_breaks_nothing() -> Result<()> {
    let (topology, _local, _cloud) = testbed()?;
    let daemon = Daemon::start(&topology, &Settings::default())?;
    daemon.shift(100.0)?;
    let away = hold(&topology)?;
    topology.edge.ip(&format!("link set {DX_DEVICE} down"))?;
    daemon.until("the line to be gone", |shop| {
        shop.iter().flat_map(|burst| &burst.tiers).flat_map(|tier| &tier.endpoints).all(|end| !end.reachable)
    })?;
    let home = hold(&topology)?;
    assert!(places(&topology, 6)?.iter().all(|site| *site == Some(Site::Local)), "new flows stay");
    std::thread::sleep(Duration::from_secs(3));
    let waits = daemon.reasons(SHOP.name)?.get("held").map_or(0, |count| count.0);
    assert!(waits > 0, "packets of flows that are away are dropped");
    topology.edge.ip(&format!("link set {DX_DEVICE} up"))?;
    daemon.until("the line to be back", |shop| {
        shop.iter().flat_map(|burst| &burst.tiers).flat_map(|tier| &tier.endpoints).all(|end| end.reachable)
    })?;
    away.iter().try_for_each(Held::exchange)?;
    home.iter().try_for_each(Held::exchange)?;
    println!("{waits} packets waited; {} connections away and {} at home went on", away.len() * 6, home.len() * 6);
    away.into_iter().chain(home).try_for_each(|held| held.finish().map(drop))
}
