//! How fast the testbed itself is on this machine, without burst: to tell what of a demo's numbers is burst's.
//! `cargo run --release -p burst-tests --example testbed_speed`, as root.

use std::time::{Duration, Instant};

use anyhow::Result;
use burst_tests::client::{self, Page};
use burst_tests::load::{Load, Plan};
use burst_tests::process::Process;
use burst_tests::servers::{Limits, LocalSite, start_cloud};
use burst_tests::topology::{Family, SHOP, Topology};

fn main() -> Result<()> {
    let start = Instant::now();
    let topology = Topology::new()?;
    println!("topology up: {:.0?}", start.elapsed());
    let start = Instant::now();
    let local = LocalSite::start(&topology, Limits::default())?;
    let cloud = start_cloud(&topology)?;
    println!("three servers up: {:.0?}", start.elapsed());

    for family in Family::ALL {
        let down = client::download(&topology.client, None, SHOP.at(family))?;
        let up = client::upload(&topology.client, None, SHOP.at(family))?;
        println!("{family:?}: 1 MiB down {:.1?}, up {:.1?}", down.took, up.took);
    }
    for (requests, rate) in [(1, 500.0), (1, 1000.0), (1, 2000.0), (1, 4000.0), (10, 500.0), (10, 1000.0)] {
        let plan = Plan {
            service: SHOP.name.to_owned(),
            servers: Family::ALL.map(|family| SHOP.at(family)).to_vec(),
            clients: Family::ALL.into_iter().flat_map(|family| topology.clients(family)).collect(),
            page: Page::Small,
            rate,
            requests,
            pause: Duration::from_millis(100),
            patience: Duration::from_secs(10),
            most_open: 4_000,
        };
        let load = Load::start(&topology.client, plan)?;
        std::thread::sleep(Duration::from_secs(2));
        let before = load.snapshot();
        std::thread::sleep(Duration::from_secs(3));
        let moved = load.snapshot().since(&before);
        println!(
            "{rate} connections/s of {requests} requests: started {}/s, finished {}/s, answered {}/s, open {}, \
             p50 {:?}, p99 {:?}, failed {:?}",
            moved.started / 3,
            moved.finished / 3,
            moved.answered() / 3,
            moved.open,
            moved.latency.quantile(0.5).unwrap_or_default(),
            moved.latency.quantile(0.99).unwrap_or_default(),
            moved.failures(),
        );
        println!("  cpu so far: {}", cpu(&[&local.haproxy.process, &local.nginx.process])?);
        let all = load.finish()?;
        if all.failed() > 0 {
            println!("  failures: {:?}", all.texts);
        }
    }
    let start = Instant::now();
    drop((local, cloud));
    println!("servers down: {:.0?}", start.elapsed());
    let start = Instant::now();
    drop(topology);
    println!("topology down: {:.0?}", start.elapsed());
    Ok(())
}

/// Clock ticks (10 ms) of user and system time that processes used, from proc_pid_stat(5), fields 14 and 15.
fn cpu(processes: &[&Process]) -> Result<String> {
    let mut text = String::new();
    for process in processes {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.pid()))?;
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11);
        let (user, system) = (fields.next().unwrap_or("?"), fields.next().unwrap_or("?"));
        text += &format!("pid {} user {user} system {system} ticks; ", process.pid());
    }
    Ok(text)
}
