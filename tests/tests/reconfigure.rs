//! Another configuration while the daemon runs, under real traffic: connections are held, and asked on all the time, across
//! many reloads, across one that fails midway and one that nobody confirms. None may break, and payment never leaves. What is
//! wrong or does not fit changes nothing.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use burst::api::change::Plan;
use burst_tests::daemon::{self, Daemon, PATIENCE, Said, Settings, program_on, status};
use burst_tests::foreign;
use burst_tests::load::{Held, HeldPlan};
use burst_tests::poll;
use burst_tests::servers::{self, Limits, LocalSite, Nginx, Site};
use burst_tests::topology::{
    CLIENT_DEVICE, DX_DEVICE, FIRST_ENDPOINT, Family, Options, PAYMENT, SECOND_DX_DEVICE, SHOP, Service, Topology,
};

fn testbed(second_line: bool) -> Result<(Topology, LocalSite, Nginx)> {
    let topology = Topology::with(Options { second_line, endpoints: 2, ..Options::default() })?;
    let local = LocalSite::start(&topology, Limits::default())?;
    let cloud = servers::start_cloud(&topology)?;
    Ok((topology, local, cloud))
}

fn hold(topology: &Topology, service: Service, sites: &[Site]) -> Result<Vec<Held>> {
    let open = |family: Family| -> Result<Held> {
        let plan = HeldPlan { connections: 4, ..HeldPlan::of(topology, service, family) };
        let held = Held::open(&topology.client, plan)?;
        let placed = |site: Option<Site>| site.is_some_and(|site| sites.contains(&site));
        ensure!(held.lines().iter().all(|line| placed(line.site)), "not at {sites:?}: {:?}", held.lines());
        Ok(held)
    };
    Family::ALL.into_iter().map(open).collect()
}

fn exchange(held: &[Held]) -> Result<()> {
    held.iter().try_for_each(Held::exchange)
}

/// Checks that none broke, and says how many there were.
fn finish(held: Vec<Held>) -> Result<usize> {
    held.into_iter().map(|held| Ok(held.finish()?.len())).sum()
}

/// Puts the file there, and says what `burst` says to it.
fn with(topology: &Topology, config: &str, arguments: &[&str]) -> Result<Said> {
    topology.dir.write("burst.toml", config)?;
    daemon::command(topology, arguments)
}

fn done(said: &Said) -> Result<()> {
    ensure!(said.code == 0, "{said:?}");
    Ok(())
}

/// What `burst plan` says of the file; its exit code must go with that.
fn plan(topology: &Topology, config: &str) -> Result<Plan> {
    let said = with(topology, config, &["plan", "--json"])?;
    let plan: Plan = serde_json::from_str(&said.out).with_context(|| format!("{said:?}"))?;
    assert_eq!(said.code, if plan.refused.is_empty() { 0 } else { 9 }, "{said:?}");
    Ok(plan)
}

fn replaced(text: &str, from: &str, to: &str) -> Result<String> {
    ensure!(text.contains(from), "{from:?} is not in {text}");
    Ok(text.replacen(from, to, 1))
}

/// Keeps some more.
fn keeping_more(text: &str) -> Result<String> {
    replaced(
        text,
        "keep  = true\nmatch = [",
        "keep  = true\nmatch = [{ dst = [\"203.0.113.99/32\"], proto = \"tcp\" }, ",
    )
}

/// Without the second endpoint of each family.
fn fewer_endpoints(text: &str) -> Result<String> {
    let second = FIRST_ENDPOINT.plus(1);
    let text = replaced(text, &format!(", \"{}\"", second.of(Family::V4)), "")?;
    replaced(&text, &format!(", \"{}\"", second.of(Family::V6)), "")
}

#[test]
fn connections_are_held_across_many_reloads_and_payment_stays() -> Result<()> {
    let (topology, _local, cloud) = testbed(false)?;
    let all = daemon::config(&topology, &Settings::default());
    let (more, fewer) = (keeping_more(&all)?, fewer_endpoints(&all)?);
    let mut daemon = Daemon::start(&topology, &Settings::default())?;
    let mut held = hold(&topology, PAYMENT, &[Site::Local])?;
    held.extend(hold(&topology, SHOP, &[Site::Local])?);
    daemon.shift(100.0)?;
    held.extend(hold(&topology, SHOP, &[Site::Cloud])?);
    daemon.shift(50.0)?;
    held.extend(hold(&topology, SHOP, &[Site::Local, Site::Cloud])?);
    let programs = [CLIENT_DEVICE, DX_DEVICE].map(|device| program_on(&topology, device));

    let of = plan(&topology, &fewer)?;
    let names: Vec<_> = of.changes.iter().map(|change| (change.what.as_str(), change.name.as_str())).collect();
    let second = FIRST_ENDPOINT.plus(1);
    let removed = Family::ALL.map(|family| format!("{}/reserved/{}", SHOP.name, second.of(family)));
    assert_eq!(names, removed.each_ref().map(|name| ("endpoint", name.as_str())), "{of:?}");
    assert!(of.breaks.is_empty(), "{of:?}");
    for (device, before) in [CLIENT_DEVICE, DX_DEVICE].into_iter().zip(programs) {
        assert_eq!(program_on(&topology, device)?, before?, "a plan changes nothing");
    }
    assert_eq!(status(&topology)?.config.generation, 1);

    let (mut reloads, mut took) = (0, Vec::new());
    for round in 0..2 {
        for text in [&more, &all, &fewer, &all] {
            topology.dir.write("burst.toml", text)?;
            let begun = Instant::now();
            done(&daemon::command(&topology, &["reload"])?)?;
            took.push(begun.elapsed());
            reloads += 1;
            exchange(&held)?;
            let now = status(&topology)?;
            assert_eq!(now.config.generation, reloads + 1);
            let tier = &now.classes.iter().find_map(|class| class.burst.as_ref()).context("a class")?.tiers[0];
            assert_eq!(tier.endpoints.len(), if text == &fewer { 2 } else { 4 });
        }
        if round == 1 {
            // Orders, and with them shares, stay.
            held.extend(hold(&topology, SHOP, &[Site::Local, Site::Cloud])?);
            let shop = daemon.shop()?;
            assert_eq!(shop[0].ordered.as_ref().map(|order| order.offsite), Some(0.5), "{shop:?}");
        }
    }
    daemon.until("half of the slots to send offsite", |shop| {
        shop.iter().all(|shop| (0.4..0.6).contains(&(1.0 - shop.local.share.wanted)))
    })?;
    // Beyond the idle timeout of the shop: what is pinned is not forgotten.
    daemon.settle()?;
    std::thread::sleep(Settings::default().idle_timeout);
    exchange(&held)?;
    assert_eq!(cloud.counts(PAYMENT.name)?.requests, 0, "payment never left");
    assert_eq!(daemon.reasons(PAYMENT.name)?.keys().collect::<Vec<_>>(), ["keep"]);
    took.sort();
    println!("{reloads} reloads, each {:?} to {:?}, median {:?}", took[0], took[took.len() - 1], took[took.len() / 2]);
    println!("{} connections were held, 0 broke", finish(held)?);
    daemon.stop()
}

#[test]
fn what_is_wrong_or_does_not_fit_changes_nothing() -> Result<()> {
    let (topology, _local, _cloud) = testbed(true)?;
    let whole = daemon::config(&topology, &Settings::default());
    // Without the second line.
    let (start, end) =
        (whole.find("\n[[link]]\nname     = \"dx-2\"").context("dx-2")?, whole.find("\n[class").context("a class")?);
    let text = replaced(&format!("{}{}", &whole[..start], &whole[end..]), ", \"dx-2\"", "")?;
    let mut daemon = Daemon::start(&topology, &Settings::default())?;
    daemon.shift(100.0)?;
    let mut held = hold(&topology, PAYMENT, &[Site::Local])?;
    held.extend(hold(&topology, SHOP, &[Site::Cloud])?);
    done(&with(&topology, &text, &["reload"])?)?;
    exchange(&held)?;
    let before = status(&topology)?.config;
    let programs = || [CLIENT_DEVICE, DX_DEVICE].map(|device| program_on(&topology, device).ok().flatten());
    let running = programs();

    let file = topology.dir.file("burst.toml").display().to_string();
    for (from, to, code, what) in [
        ("mtu ", "mtv ", 3, file.as_str()),
        ("version = 1", "version = [", 3, file.as_str()),
        ("one-string", "another-string", 9, "`edge.seed` differs"),
        ("mode      = \"active\"", "mode      = \"shadow\"", 9, "`edge.mode` is \"shadow\" now"),
        ("= 8080", "= 8081", 9, "`ports` differ"),
        ("[class.promotion]", "[class.renamed]\nslots = 4096", 9, "class `promotion` is not in the configuration"),
        ("when_full    = \"local\"", "when_full    = \"local\"\nslots = 64", 9, "`slots` or `affinity` differ"),
        ("burst.sock", "other.sock", 9, "`edge.socket` differs"),
    ] {
        let mut bad = text.clone();
        if from.starts_with("[class") {
            bad = bad.replace("class.promotion", "class.renamed");
        } else if from == "= 8080" {
            let port = burst_tests::topology::CLOUD_PORT;
            bad = replaced(&bad, &format!("= {port} }}"), "= 8099 }")?;
        } else {
            bad = replaced(&bad, from, to)?;
        }
        let said = with(&topology, &bad, &["reload"])?;
        assert_eq!(said.code, code, "{from}: {said:?}");
        assert!(said.err.contains(what), "{from}: {said:?}");
        let planned = daemon::command(
            &topology,
            &["plan", "-c", &file, "--socket", &topology.dir.file("burst.sock").display().to_string()],
        )?;
        assert_eq!(planned.code, code, "{from}: {planned:?}");
        assert!(planned.err.contains(what) || planned.out.contains(what), "{from}: {planned:?}");
        let now = status(&topology)?.config;
        assert_eq!((&now.hash, now.generation), (&before.hash, before.generation), "{from}");
        assert_eq!(programs(), running, "{from}");
    }
    exchange(&held)?;
    // By SIGHUP nobody is there to be told: it is in the status.
    topology.edge.exec("kill", &["-HUP", &daemon.process.pid().to_string()])?;
    poll::until("the refusal to be in the status", PATIENCE, || {
        let told = status(&topology)?
            .warnings
            .iter()
            .any(|warning| warning.starts_with("not reloaded, by SIGHUP: `edge.socket`"));
        Ok(told.then_some(()))
    })?;
    // A keep rule over the shop is possible, and said to break.
    let kept = replaced(
        &text,
        "keep  = true\nmatch = [",
        &format!("keep  = true\nmatch = [{{ dst = [\"{}/32\"], src = [\"192.0.2.77/32\"] }}, ", SHOP.address.v4),
    )?;
    let of = plan(&topology, &kept)?;
    assert!(of.breaks.len() == 1 && of.breaks[0].contains("flows of promotion that it keeps"), "{of:?}");

    // Midway: the first device has its new program when the second refuses.
    let guest = foreign::pass(&topology.edge, SECOND_DX_DEVICE)?;
    let said = with(&topology, &whole, &["reload"])?;
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains(SECOND_DX_DEVICE) && said.err.contains("the former configuration runs"), "{said:?}");
    assert_eq!(status(&topology)?.config.hash, before.hash);
    exchange(&held)?;
    held.extend(hold(&topology, SHOP, &[Site::Cloud])?);
    drop(guest);
    done(&with(&topology, &whole, &["reload"])?)?;
    assert!(program_on(&topology, SECOND_DX_DEVICE)?.is_some());
    exchange(&held)?;
    topology.edge.exec("kill", &["-HUP", &daemon.process.pid().to_string()])?;
    poll::until("SIGHUP to reload", PATIENCE, || {
        Ok((status(&topology)?.config.generation == before.generation + 2).then_some(()))
    })?;
    exchange(&held)?;

    // Flows at endpoints that are configured no more follow their links: a line that goes down moves them, too.
    done(&with(&topology, &fewer_endpoints(&whole)?, &["reload"])?)?;
    exchange(&held)?;
    for namespace in [&topology.edge, &topology.direct_connect] {
        // A device that is set down would lose its IPv6 addresses.
        namespace.sysctl(&[("net/ipv6/conf/all/keep_addr_on_down", "1")])?;
    }
    topology.edge.ip(&format!("link set {DX_DEVICE} down"))?;
    poll::until("the first line to be down in status", PATIENCE, || {
        Ok((!status(&topology)?.links[0].up).then_some(()))
    })?;
    exchange(&held)?;
    println!("{} connections were held, 0 broke", finish(held)?);
    daemon.stop()
}

#[test]
fn what_nobody_confirms_goes_back_by_itself() -> Result<()> {
    let (topology, _local, _cloud) = testbed(false)?;
    let all = daemon::config(&topology, &Settings::default());
    let fewer = fewer_endpoints(&all)?;
    let mut daemon = Daemon::start(&topology, &Settings::default())?;
    daemon.shift(100.0)?;
    let held = hold(&topology, SHOP, &[Site::Cloud])?;
    let former = status(&topology)?.config.hash;

    done(&with(&topology, &fewer, &["reload", "--confirm", "5s"])?)?;
    let now = status(&topology)?;
    let pending = now.config.pending.clone().context("it waits to be confirmed")?;
    assert!(pending.remaining_s <= 5 && pending.former == former && now.config.hash != former, "{now:?}");
    assert!(now.warnings.iter().any(|warning| warning.starts_with("the configuration is not confirmed")), "{now:?}");
    let said = daemon::command(&topology, &["reload"])?;
    assert!(said.code == 8 && said.err.contains("waits to be confirmed"), "{said:?}");
    exchange(&held)?;
    let back = poll::until("burst to go back", PATIENCE, || {
        Ok(Some(status(&topology)?.config).filter(|config| config.hash == former))
    })?;
    assert!(
        back.pending.is_none() && back.trouble.is_some_and(|trouble| trouble.contains("was not confirmed in time"))
    );
    exchange(&held)?;
    let said = daemon::command(&topology, &["confirm"])?;
    assert!(said.code == 8 && said.err.contains("no reload waits to be confirmed"), "{said:?}");

    done(&with(&topology, &fewer, &["reload", "--confirm", "2s"])?)?;
    done(&daemon::command(&topology, &["confirm"])?)?;
    std::thread::sleep(Duration::from_millis(2600));
    let now = status(&topology)?.config;
    assert!(now.hash != former && now.pending.is_none() && now.trouble.is_none(), "{now:?}");
    exchange(&held)?;
    println!("{} connections were held, 0 broke", finish(held)?);
    daemon.stop()
}

#[test]
fn flows_at_endpoints_that_are_configured_no_more_follow_their_lines_after_a_restart_too() -> Result<()> {
    let (topology, _local, _cloud) = testbed(true)?;
    for namespace in [&topology.edge, &topology.direct_connect] {
        // A device that is set down would lose its IPv6 addresses.
        namespace.sysctl(&[("net/ipv6/conf/all/keep_addr_on_down", "1")])?;
    }
    // Longer than TCP waits between two attempts here.
    let settings = Settings { idle_timeout: Duration::from_secs(20), ..Settings::default() };
    let mut daemon = Daemon::start(&topology, &settings)?;
    daemon.shift(100.0)?;
    let held = hold(&topology, SHOP, &[Site::Cloud])?;
    let lines = |state: &str| {
        [DX_DEVICE, SECOND_DX_DEVICE]
            .iter()
            .try_for_each(|device| topology.edge.ip(&format!("link set {device} {state}")))
    };
    let up = |count: usize| {
        poll::until("lines in status", PATIENCE, || {
            Ok((status(&topology)?.links.iter().filter(|link| link.up).count() == count).then_some(()))
        })
    };
    lines("down")?;
    up(0)?;
    daemon.kill()?;
    lines("up")?;
    topology.dir.write("burst.toml", fewer_endpoints(&daemon::config(&topology, &settings))?)?;
    daemon.start_again()?;
    exchange(&held)?;
    // And it is followed from there on.
    topology.edge.ip(&format!("link set {DX_DEVICE} down"))?;
    up(1)?;
    exchange(&held)?;
    println!("{} connections were held, 0 broke", finish(held)?);
    daemon.stop()
}
