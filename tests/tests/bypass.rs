//! `burst bypass`: everything passes within a second, with a daemon, without one, and beside one that does not answer; what
//! breaks are the connections in the cloud, and nothing else. Afterwards new connections leave again, and those that were
//! opened meanwhile stay.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use burst_tests::daemon::{self, Daemon, PATIENCE, Said, Settings, pin_dir};
use burst_tests::load::{Held, HeldPlan};
use burst_tests::poll;
use burst_tests::servers::{self, Limits, LocalSite, Nginx, Site};
use burst_tests::topology::{Family, PAYMENT, SHOP, Service, Topology};

/// The longest that `burst bypass` may take.
const AT_MOST: Duration = Duration::from_secs(1);

fn testbed() -> Result<(Topology, LocalSite, Nginx)> {
    let topology = Topology::new()?;
    let local = LocalSite::start(&topology, Limits::default())?;
    let cloud = servers::start_cloud(&topology)?;
    Ok((topology, local, cloud))
}

fn hold(topology: &Topology, service: Service, site: Site) -> Result<Vec<Held>> {
    let open = |family: Family| -> Result<Held> {
        let plan = HeldPlan { connections: 4, ..HeldPlan::of(topology, service, family) };
        let held = Held::open(&topology.client, plan)?;
        ensure!(held.lines().iter().all(|line| line.site == Some(site)), "not at {site:?}: {:?}", held.lines());
        Ok(held)
    };
    Family::ALL.into_iter().map(open).collect()
}

fn exchange(held: &[Held]) -> Result<()> {
    held.iter().try_for_each(Held::exchange)
}

/// Every one of them breaks.
fn break_all(held: Vec<Held>) -> Result<()> {
    poll::until("connections in the cloud to break", PATIENCE, || {
        let broken = held.iter().all(|held| held.lines().iter().all(|line| line.broken.is_some()));
        Ok(broken.then_some(()))
    })
}

/// Runs it, prints how long it took, and holds that against the promise.
fn bypass(topology: &Topology, what: &str, arguments: &[&str]) -> Result<Said> {
    let pins = pin_dir(topology);
    let begun = Instant::now();
    let pins = ["--pin-dir", pins.to_str().context("a path")?];
    let said = daemon::command(topology, &[&["bypass"], arguments, &pins].concat())?;
    let took = begun.elapsed();
    println!("bypass {} {what}: {took:?}", arguments.join(" "));
    assert!(took < AT_MOST, "{what}: {took:?}");
    Ok(said)
}

fn done(said: &Said, on: bool, by: &str) -> Result<serde_json::Value> {
    ensure!(said.code == 0, "{said:?}");
    let done: serde_json::Value = serde_json::from_str(&said.out).with_context(|| format!("{said:?}"))?;
    assert_eq!((done["bypass"].as_bool(), done["by"].as_str()), (Some(on), Some(by)), "{said:?}");
    Ok(done)
}

#[test]
fn bypass_breaks_what_is_in_the_cloud_and_nothing_else_and_ends_without_breaking_anything() -> Result<()> {
    let (topology, _local, _cloud) = testbed()?;
    let mut daemon = Daemon::start(&topology, &Settings::default())?;
    let payment = hold(&topology, PAYMENT, Site::Local)?;
    let mut stay = vec![hold(&topology, SHOP, Site::Local)?];
    daemon.shift(100.0)?;
    let leave = hold(&topology, SHOP, Site::Cloud)?;

    // Status is of the last round.
    daemon.until("all openers to be counted", |_| daemon.openers("shifted").is_ok_and(|count| count == 8))?;
    // Without a terminal nobody can be asked.
    let said = bypass(&topology, "without a terminal", &["on"])?;
    assert_eq!(said.code, 15, "{said:?}");
    assert!(said.err.contains("say --yes") && said.err.contains("8192 of 8192 slots send offsite"), "{said:?}");
    assert!(!daemon.status()?.bypass);
    exchange(&leave)?;

    let done_on = done(&bypass(&topology, "with a daemon", &["on", "--yes", "--json"])?, true, "daemon")?;
    assert_eq!(done_on["placed"][0]["opened"].as_u64(), Some(8), "as many as are held: {done_on}");
    break_all(leave)?;
    exchange(&payment)?;
    exchange(&stay[0])?;
    stay.push(hold(&topology, SHOP, Site::Local)?);
    // The daemon counts on, and the bypass stays: longer than two epochs.
    std::thread::sleep(Duration::from_millis(2300));
    let status = daemon.status()?;
    assert!(status.bypass && status.warnings.iter().any(|warning| warning.starts_with("bypass is on")), "{status:?}");
    stay.push(hold(&topology, SHOP, Site::Local)?);
    let again = done(&bypass(&topology, "again", &["on", "--yes", "--json"])?, true, "daemon")?;
    assert_eq!(again["was"].as_bool(), Some(true));

    done(&bypass(&topology, "with a daemon", &["off", "--json"])?, false, "daemon")?;
    daemon.until("flows to leave again", |shop| shop.iter().all(|shop| shop.slots.offsite == shop.slots.total))?;
    let leave = hold(&topology, SHOP, Site::Cloud)?;
    stay.iter().try_for_each(|held| exchange(held))?;
    daemon.settle()?;
    stay.iter().try_for_each(|held| exchange(held))?;
    exchange(&leave)?;
    exchange(&payment)?;
    assert!(daemon.process.log()?.contains("bypass is on: everything passes"), "{}", daemon.process.log()?);

    // Beside a daemon that hangs; it finds out when it goes on, and does not undo it.
    let pid = daemon.process.pid().to_string();
    topology.edge.exec("kill", &["-STOP", &pid])?;
    let said = bypass(&topology, "beside a daemon that hangs", &["on", "--yes", "--json"]);
    topology.edge.exec("kill", &["-CONT", &pid])?;
    done(&said?, true, "pinned word")?;
    break_all(leave)?;
    std::thread::sleep(Duration::from_millis(1300));
    assert!(daemon.status()?.bypass);
    done(&bypass(&topology, "with a daemon", &["off", "--json"])?, false, "daemon")?;
    daemon.until("flows to leave again", |shop| shop.iter().all(|shop| shop.slots.offsite == shop.slots.total))?;
    for held in stay.into_iter().chain([payment]).flatten() {
        held.finish()?;
    }
    daemon.stop()
}

#[test]
fn without_a_daemon_bypass_works_by_what_is_pinned() -> Result<()> {
    let (topology, _local, _cloud) = testbed()?;
    let nothing = bypass(&topology, "with nothing pinned", &["on", "--yes"])?;
    assert_eq!(nothing.code, 7, "{nothing:?}");
    let mut daemon = Daemon::start(&topology, &Settings::default())?;
    let payment = hold(&topology, PAYMENT, Site::Local)?;
    let mut stay = vec![hold(&topology, SHOP, Site::Local)?];
    daemon.shift(100.0)?;
    let leave = hold(&topology, SHOP, Site::Cloud)?;
    daemon.kill()?;
    exchange(&leave)?;

    let on = done(&bypass(&topology, "with a killed daemon", &["on", "--yes", "--json"])?, true, "pinned word")?;
    assert_eq!(on["placed"][0]["opened"].as_u64(), Some(8), "{on}");
    break_all(leave)?;
    exchange(&payment)?;
    exchange(&stay[0])?;
    stay.push(hold(&topology, SHOP, Site::Local)?);

    done(&bypass(&topology, "with a killed daemon", &["off", "--json"])?, false, "pinned word")?;
    let leave = hold(&topology, SHOP, Site::Cloud)?;
    stay.iter().try_for_each(|held| exchange(held))?;

    // On again, and a daemon starts meanwhile: it takes the bypass over as it is.
    done(&bypass(&topology, "with a killed daemon", &["on", "--yes", "--json"])?, true, "pinned word")?;
    break_all(leave)?;
    daemon.start_again()?;
    assert!(daemon.status()?.bypass);
    stay.push(hold(&topology, SHOP, Site::Local)?);
    done(&bypass(&topology, "with the next daemon", &["off", "--json"])?, false, "daemon")?;
    daemon.shift(100.0)?;
    daemon.until("flows to leave again", |shop| shop.iter().all(|shop| shop.slots.offsite == shop.slots.total))?;
    let leave = hold(&topology, SHOP, Site::Cloud)?;
    daemon.settle()?;
    exchange(&leave)?;
    for held in stay.into_iter().chain([payment]).flatten() {
        held.exchange()?;
        held.finish()?;
    }
    daemon.stop()
}
