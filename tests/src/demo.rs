//! The demonstration: a promotion rises tenfold and falls again while payment goes on; burst shifts what does not fit,
//! and brings it home. It drives and measures; the verdict is in `verdict`, the numbers of the plan in `plan`.

mod plan;
mod verdict;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::load::{Load, Snapshot};
use crate::process::Process;
use crate::servers::{self, Limits, LocalSite, Nginx, Site};
use crate::sniffer::Sniffer;
use crate::svg::{Point, Timeline};
use crate::topology::{TO_EDGE, Topology};

use plan::{PHASES, TARGET};

/// What to run, and where to put the timeline.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The burst binary.
    pub burst: PathBuf,
    /// Directory of the timeline.
    pub out: PathBuf,
}

/// One second of the run.
struct Second {
    phase: &'static str,
    payment: Snapshot,
    promotion: Snapshot,
    status: Value,
    /// What the servers said right after `status` was asked.
    counts: verdict::Counts,
}

/// Runs the demonstration; `true` when every promise it checks was kept.
///
/// # Errors
/// When the testbed or burst itself does not start.
pub fn run(settings: &Settings) -> Result<bool> {
    let begun = Instant::now();
    println!("setting up: client – edge – local – Direct Connect router – cloud");
    let topology = Topology::new()?;
    let local = LocalSite::start(&topology, Limits::default())?;
    let cloud = servers::start_cloud(&topology)?;
    let witness = Sniffer::start(&topology.direct_connect, TO_EDGE)?;
    let config = topology.dir.write("burst.toml", plan::config(&topology, &local))?;
    let mut command = topology.edge.command(&settings.burst);
    command.arg("run").arg("-c").arg(&config);
    let mut burst = Process::spawn("burst", command, &topology.dir)?;
    let first = burst.wait_ready("answering", Duration::from_secs(10), || Ok(status(&topology, settings).ok()))?;
    println!("burst runs on the edge host; payment {}/s, promotion {}/s", plan::PAYMENT_RATE, PHASES[0].rate);

    let (seconds, finished) = drive(&topology, settings, &first, &local, &cloud)?;
    let last = status(&topology, settings).context("asking burst after the run")?;
    let resident = burst.resident()?;
    burst.stop().context("stopping burst")?;
    let seen = witness.finish()?;
    let timeline = timeline(&seconds);
    let picture = settings.out.join("timeline.svg");
    timeline.write(&picture)?;

    let took = begun.elapsed();
    let evidence =
        verdict::Evidence { seconds: &seconds, finished: &finished, last: &last, flows: &seen, resident, took };
    let counts = verdict::Counts::read(&local, &cloud)?;
    let kept = verdict::print(&evidence, &counts);
    let log = settings.out.join("burst.log");
    std::fs::write(&log, burst.log()?).with_context(|| format!("writing {}", log.display()))?;
    println!("timeline: {}   burst's log: {}", picture.display(), log.display());
    drop::<(LocalSite, Nginx)>((local, cloud));
    Ok(kept)
}

/// The loads' counters when every connection was over.
struct Finished {
    payment: Snapshot,
    promotion: Snapshot,
}

/// Drives the loads through the phases, a line per second.
fn drive(
    topology: &Topology,
    settings: &Settings,
    first: &Value,
    local: &LocalSite,
    cloud: &Nginx,
) -> Result<(Vec<Second>, Finished)> {
    let payment = Load::start(&topology.client, plan::payment(topology))?;
    let promotion = Load::start(&topology.client, plan::promotion(topology))?;
    let mut seconds = vec![Second {
        phase: PHASES[0].name,
        payment: payment.snapshot(),
        promotion: promotion.snapshot(),
        status: first.clone(),
        counts: verdict::Counts::read(local, cloud)?,
    }];
    println!("            ------ payment ------   ----- promotion -----");
    println!("  s  phase    local/s   offsite/s     local/s   offsite/s   load   errors");
    let start = Instant::now();
    let mut tick = 0;
    for phase in &PHASES {
        promotion.set_rate(phase.rate);
        for _ in 0..phase.seconds {
            tick += 1;
            // Seconds are counted from the start, so that printing does not make them longer.
            std::thread::sleep((start + Duration::from_secs(tick)).saturating_duration_since(Instant::now()));
            let now = Second {
                phase: phase.name,
                payment: payment.snapshot(),
                promotion: promotion.snapshot(),
                status: status(topology, settings)?,
                counts: verdict::Counts::read(local, cloud)?,
            };
            line(tick, &seconds[seconds.len() - 1], &now);
            seconds.push(now);
        }
    }
    let promotion = promotion.finish()?;
    let payment = payment.finish()?;
    Ok((seconds, Finished { payment, promotion }))
}

fn line(tick: u64, before: &Second, now: &Second) {
    let payment = now.payment.since(&before.payment);
    let promotion = now.promotion.since(&before.promotion);
    println!(
        "{tick:>3}  {:<8} {:>7} {:>11} {:>11} {:>11}   {:>4}   {:>6}",
        now.phase,
        payment.connections(Site::Local),
        payment.connections(Site::Cloud),
        promotion.connections(Site::Local),
        promotion.connections(Site::Cloud),
        plan::load(&now.status).map_or_else(|| "–".to_owned(), |load| format!("{load:.2}")),
        now.payment.failed() + now.promotion.failed(),
    );
}

/// `burst status --json`, as an operator would ask for it.
fn status(topology: &Topology, settings: &Settings) -> Result<Value> {
    let mut command = topology.edge.command(&settings.burst);
    command.arg("--socket").arg(plan::socket(topology)).args(["status", "--json"]);
    let output = command.output().context("running burst status")?;
    anyhow::ensure!(output.status.success(), "burst status: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("burst status --json")
}

fn timeline(seconds: &[Second]) -> Timeline {
    let mut marks = Vec::new();
    let mut points = Vec::new();
    for (at, pair) in seconds.windows(2).enumerate() {
        let (before, now) = (&pair[0], &pair[1]);
        if before.phase != now.phase {
            marks.push((at as f64, now.phase.to_owned()));
        }
        let payment = now.payment.since(&before.payment);
        let promotion = now.promotion.since(&before.promotion);
        points.push(Point {
            at: (at + 1) as f64,
            payment_local: payment.connections(Site::Local) as f64,
            payment_offsite: payment.connections(Site::Cloud) as f64,
            promotion_local: promotion.connections(Site::Local) as f64,
            promotion_offsite: promotion.connections(Site::Cloud) as f64,
            load: plan::load(&now.status).unwrap_or(0.0),
        });
    }
    Timeline {
        title: "A promotion through burst: what does not fit leaves, payment stays".to_owned(),
        unit: "new connections/s".to_owned(),
        target: TARGET,
        marks,
        points,
    }
}
