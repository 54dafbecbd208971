//! A placed flow stays placed: connections are held, and asked on all the time, across changes of the share in both
//! directions, across the death and the return of the daemon, and across its orderly end. None may break, none may be
//! answered by another site than before, and every byte is compared.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use burst_common::slot::State;
use burst_tests::client::Page;
use burst_tests::daemon::{Daemon, PATIENCE, Settings, remains};
use burst_tests::load::{Held, HeldPlan};
use burst_tests::poll;
use burst_tests::servers::{self, Limits, LocalSite, Nginx, Site};
use burst_tests::sniffer::Sniffer;
use burst_tests::topology::{Family, SHOP, TO_EDGE, Topology};

/// Connections of each group and family.
const EACH: usize = 6;

/// The testbed of these tests: everything but burst.
fn testbed() -> Result<(Topology, LocalSite, Nginx)> {
    let topology = Topology::new()?;
    let local = LocalSite::start(&topology, Limits::default())?;
    let cloud = servers::start_cloud(&topology)?;
    Ok((topology, local, cloud))
}

fn hold(topology: &Topology, family: Family, page: Page, connections: usize) -> Result<Held> {
    let (pause, patience) = match page {
        Page::Small => (Duration::from_millis(50), Duration::from_secs(10)),
        Page::Big => (Duration::from_millis(300), Duration::from_secs(20)),
        Page::Stream => (Duration::ZERO, Duration::from_secs(300)),
    };
    let plan = HeldPlan { connections, page, pause, patience, ..HeldPlan::of(topology, SHOP, family) };
    Held::open(&topology.client, plan)
}

/// Connections that were opened at one time, of both families: some that ask small pages, one that asks whole bodies.
struct Group {
    held: Vec<Held>,
}

impl Group {
    fn open(topology: &Topology) -> Result<Self> {
        let mut held = Vec::new();
        for family in Family::ALL {
            held.push(hold(topology, family, Page::Small, EACH)?);
        }
        // By turns, so that the machine is not busy with comparing bytes.
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let family = Family::ALL[NEXT.fetch_add(1, Ordering::Relaxed) % 2];
        held.push(hold(topology, family, Page::Big, 1)?);
        Ok(Self { held })
    }

    /// Each connection carries data in both directions now, and none broke.
    fn exchange(&self) -> Result<()> {
        self.held.iter().try_for_each(Held::exchange)
    }

    /// The sites that answer; held connections fail by themselves when theirs changes.
    fn sites(&self) -> BTreeSet<Site> {
        self.held.iter().flat_map(Held::lines).filter_map(|line| line.site).collect()
    }

    fn finish(self) -> Result<usize> {
        self.held.into_iter().map(|held| Ok(held.finish()?.len())).sum()
    }
}

fn exchange(groups: &[Group]) -> Result<()> {
    groups.iter().try_for_each(Group::exchange)
}

fn finish(groups: Vec<Group>) -> Result<usize> {
    groups.into_iter().map(Group::finish).sum()
}

const LOCAL: [Site; 1] = [Site::Local];
const CLOUD: [Site; 1] = [Site::Cloud];
const BOTH: [Site; 2] = [Site::Local, Site::Cloud];

#[test]
fn held_connections_outlive_every_change_of_share_within_and_beyond_the_idle_timeout() -> Result<()> {
    let (topology, _local, _cloud) = testbed()?;
    let daemon = Daemon::start(&topology, &Settings::default())?;
    let mut groups = Vec::new();
    // Each change comes while the one before is still in transition.
    for (share, sites) in [(0.0, &LOCAL[..]), (100.0, &CLOUD), (0.0, &LOCAL), (50.0, &BOTH)] {
        daemon.shift(share)?;
        let group = Group::open(&topology)?;
        assert_eq!(group.sites(), sites.iter().copied().collect(), "at {share} %");
        groups.push(group);
        exchange(&groups)?;
    }
    daemon.settle()?;
    exchange(&groups)?;
    // And now each after the one before is over.
    for (share, sites) in [(100.0, &CLOUD[..]), (0.0, &LOCAL), (50.0, &BOTH)] {
        daemon.shift(share)?;
        exchange(&groups)?;
        let group = Group::open(&topology)?;
        assert_eq!(group.sites(), sites.iter().copied().collect(), "at {share} %");
        groups.push(group);
        daemon.settle()?;
        exchange(&groups)?;
    }
    assert!(daemon.shop()?.iter().all(|shop| shop.pins > 0), "flows that are not where their slot is are remembered");
    println!("{} connections were held, 0 broke", finish(groups)?);
    // When all are over, nothing is remembered, and slots alone answer again.
    daemon.until("all pins to go", |shop| shop.iter().all(|shop| shop.pins == 0 && shop.slots.pins == 0))?;
    assert!(daemon.slots()?.iter().all(|slot| slot.state() == State::Stable));
    Ok(())
}

#[test]
fn answers_that_are_on_their_way_for_long_go_on_across_changes_of_share() -> Result<()> {
    let (topology, _local, _cloud) = testbed()?;
    let daemon = Daemon::start(&topology, &Settings::default())?;
    let witness = Sniffer::start(&topology.client, TO_EDGE)?;
    let mut streams = Vec::new();
    for share in [0.0, 100.0] {
        daemon.shift(share)?;
        for family in Family::ALL {
            streams.push(hold(&topology, family, Page::Stream, 2)?);
        }
    }
    let flowing = || -> Result<()> {
        let lines: Vec<SocketAddr> = streams.iter().flat_map(Held::lines).filter_map(|line| line.local).collect();
        assert_eq!(lines.len(), 8);
        let arrived = |to: SocketAddr| -> u64 {
            let flows = witness.flows();
            flows.iter().filter(|(flow, _)| flow.destination == to).map(|(_, packets)| packets).sum()
        };
        let before: Vec<_> = lines.iter().map(|line| arrived(*line)).collect();
        poll::until("every stream to flow", PATIENCE, || {
            streams.iter().try_for_each(Held::check)?;
            Ok(lines.iter().zip(&before).all(|(line, before)| arrived(*line) > before + 4).then_some(()))
        })
    };
    flowing()?;
    for share in [0.0, 100.0, 50.0] {
        daemon.shift(share)?;
        flowing()?;
        daemon.settle()?;
        flowing()?;
    }
    for stream in streams {
        stream.finish()?;
    }
    witness.finish()?;
    Ok(())
}

#[test]
fn a_killed_daemon_changes_no_flow_and_the_next_takes_over_what_it_left() -> Result<()> {
    let (topology, _local, _cloud) = testbed()?;
    let mut daemon = Daemon::start(&topology, &Settings::default())?;
    let mut groups = Vec::new();
    for share in [0.0, 100.0, 50.0] {
        daemon.shift(share)?;
        groups.push(Group::open(&topology)?);
    }
    daemon.settle()?;
    exchange(&groups)?;
    let (slots, names) = (daemon.slots()?, daemon.names()?);

    daemon.kill()?;
    exchange(&groups)?;
    let orphans = Group::open(&topology)?;
    assert_eq!(orphans.sites(), BOTH.into(), "new flows go where the slots say");
    groups.push(orphans);

    let start = Instant::now();
    daemon.start_again()?;
    println!("ready {:?} after it was started again", start.elapsed());
    exchange(&groups)?;
    let moved = daemon.slots()?.iter().zip(&slots).filter(|(now, then)| now.current() != then.current()).count();
    assert_eq!(moved, 0, "slots that send new flows elsewhere than before");
    assert_eq!(daemon.names()?, names);
    assert!(daemon.process.log()?.contains("adopted=true"));
    assert!(daemon.shop()?.iter().all(|shop| shop.pins > 0), "pins were adopted");
    // Longer than a flow may be idle: nothing of what was adopted was forgotten.
    std::thread::sleep(2 * Settings::default().idle_timeout);
    daemon.settle()?;
    exchange(&groups)?;
    println!("{} connections were held, 0 broke", finish(groups)?);
    Ok(())
}

#[test]
fn a_daemon_killed_in_the_middle_of_a_transition_breaks_no_flow() -> Result<()> {
    let (topology, _local, _cloud) = testbed()?;
    // Long enough that the daemon dies before the transition ends.
    let mut daemon =
        Daemon::start(&topology, &Settings { idle_timeout: Duration::from_secs(4), ..Settings::default() })?;
    let mut groups = vec![Group::open(&topology)?];
    daemon.shift(100.0)?;
    groups.push(Group::open(&topology)?);
    daemon.kill()?;
    let moving =
        || -> Result<usize> { Ok(daemon.slots()?.iter().filter(|slot| slot.state() == State::Transition).count()) };
    assert!(moving()? > 0, "the transition is not over");
    exchange(&groups)?;
    groups.push(Group::open(&topology)?);
    assert_eq!(groups[2].sites(), CLOUD.into());
    daemon.start_again()?;
    exchange(&groups)?;
    daemon.settle()?;
    exchange(&groups)?;
    assert_eq!(groups[0].sites(), LOCAL.into());
    println!("{} connections were held, 0 broke", finish(groups)?);
    Ok(())
}

#[test]
fn a_daemon_that_ends_in_order_leaves_the_traffic_as_it_is() -> Result<()> {
    let (topology, _local, _cloud) = testbed()?;
    let mut daemon = Daemon::start(&topology, &Settings::default())?;
    let mut groups = vec![Group::open(&topology)?];
    daemon.shift(100.0)?;
    groups.push(Group::open(&topology)?);
    daemon.stop()?;
    for _ in 0..2 {
        // While no daemon runs, old flows go on and new ones leave.
        exchange(&groups)?;
        let group = Group::open(&topology)?;
        assert_eq!(group.sites(), CLOUD.into());
        groups.push(group);
        std::thread::sleep(Settings::default().idle_timeout);
    }
    assert!(!remains(&topology)?.is_empty());
    daemon.start_again()?;
    exchange(&groups)?;
    daemon.settle()?;
    daemon.shift(0.0)?;
    daemon.settle()?;
    exchange(&groups)?;
    println!("{} connections were held, 0 broke", finish(groups)?);
    Ok(())
}

#[test]
fn a_daemon_that_is_to_detach_leaves_the_host_as_it_was() -> Result<()> {
    let (topology, _local, _cloud) = testbed()?;
    assert_eq!(remains(&topology)?, Vec::<String>::new());
    let mut daemon = Daemon::start(&topology, &Settings { detach_on_exit: true, ..Settings::default() })?;
    let group = Group::open(&topology)?;
    daemon.shift(100.0)?;
    let kinds = remains(&topology)?;
    for kind in ["an XDP program on \"client0\"", "an XDP program on \"dx0\"", "a mount", "a neighbour"] {
        assert!(kinds.iter().any(|one| one.starts_with(kind)), "{kind} in {kinds:#?}");
    }
    daemon.stop()?;
    assert_eq!(remains(&topology)?, Vec::<String>::new());
    // What was local is local, with or without burst; and so is what comes now.
    group.exchange()?;
    let after = Group::open(&topology)?;
    assert_eq!(after.sites(), LOCAL.into());
    finish(vec![group, after])?;
    Ok(())
}
