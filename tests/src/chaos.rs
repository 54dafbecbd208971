//! Faults by chance under real traffic: shares change all the time, the daemon is killed, restarted, replaced and reloaded, lines
//! and routers come and go, SYNs flood in; and no connection may break, no payment leave, no packet miss the program.
//! Which fault comes when is in [`schedule`], what is done in `faults`, traffic and verdict in [`oracle`].

pub mod schedule;
pub mod faults;
pub mod oracle;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::servers::{self, Limits, LocalSite};
use crate::topology::{Options, Topology};

use faults::{Done, Faults};
use oracle::{Account, Traffic};

/// Steps that are shown after a failure.
const SHOWN: usize = 400;
/// Lines of the daemon's log that are shown after a failure.
const LINES: usize = 600;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The schedule is a function of it.
    pub seed: u64,
    /// How long faults come.
    pub length: Duration,
    /// Halfway, everything passes for a while, with a payment connection past the program: what breaks must be seen.
    pub sabotage: bool,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was done.
    pub done: Done,
    /// What became of the traffic.
    pub account: Account,
    /// What else went wrong: a step, or the daemon.
    pub trouble: Option<String>,
    /// The last steps with their times, and the daemon's log; empty after a good run.
    pub story: String,
}

impl Report {
    /// Whether nothing went wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.account.is_good() && self.trouble.is_none()
    }

    /// All of it, for people.
    #[must_use]
    pub fn text(&self, settings: &Settings) -> String {
        let Done { shares, unheard, kills, upgrades, reloads, refused, lines, flood } = self.done;
        let mut text = self.story.clone();
        text += &format!(
            "seed {}, {:?} of faults: {shares} changes of share ({unheard} unheard), {kills} kills, {upgrades} upgrades, {reloads} reloads \
             ({refused} wrong files refused), {lines} line events, {flood} SYNs of floods\n{}\n",
            settings.seed, settings.length, self.account
        );
        if let Some(trouble) = &self.trouble {
            text += &format!("{trouble}\n");
        }
        text
    }
}

/// Runs the schedule of a seed; ends early when something broke.
///
/// # Errors
/// When the testbed or burst itself does not start.
pub fn run(settings: &Settings) -> Result<Report> {
    let topology = Topology::with(Options { second_line: true, ..Options::default() })?;
    let _local = LocalSite::start(&topology, Limits::default())?;
    let cloud = servers::start_cloud(&topology)?;
    let mut faults = Faults::new(&topology)?;
    let mut traffic = Traffic::watch(&topology)?;
    // Some are at home and some in the cloud when it begins.
    traffic.hold(&topology, "opened at home")?;
    faults.share(100)?;
    traffic.hold(&topology, "opened at 100 %")?;
    traffic.load(&topology)?;

    let mut trouble = None;
    if let Err(error) = go(settings, &mut faults, &mut traffic) {
        trouble = Some(format!("{error:#}"));
    }
    let account = traffic.finish(&cloud).context("ending the traffic")?;
    let done = faults.done;
    let mut report = Report { done, account, trouble, story: String::new() };
    if !report.is_good() {
        report.story = story(&faults);
    }
    Ok(report)
}

/// Goes through the schedule, and then waits until all is calm and every connection was asked on once more.
fn go(settings: &Settings, faults: &mut Faults<'_>, traffic: &mut Traffic) -> Result<()> {
    let begun = faults.begin();
    let unbroken = |traffic: &Traffic| -> Result<()> {
        let broken = traffic.broken();
        anyhow::ensure!(broken.is_empty(), "{} broke by {:.3?}", broken.len(), begun.elapsed());
        Ok(())
    };
    let events = schedule::schedule(settings.seed, settings.length);
    let sabotaged = settings.sabotage.then_some(events.len() / 2);
    for (number, event) in events.into_iter().enumerate() {
        if sabotaged == Some(number) {
            faults.sabotage().context("sabotage")?;
        }
        std::thread::sleep((begun + event.at).saturating_duration_since(Instant::now()));
        faults.act(event.step)?;
        faults.check()?;
        let stalls = traffic.stalls().into_iter().map(|text| (begun.elapsed(), format!("    {text}")));
        faults.past.extend(stalls);
        unbroken(traffic)?;
    }
    std::thread::sleep((begun + settings.length).saturating_duration_since(Instant::now()));
    let took = faults.calm().context("after the last fault")?;
    faults.past.push((begun.elapsed(), format!("calm, transitions were over after {took:.1?}")));
    traffic.exchange().context("after the last fault")?;
    unbroken(traffic)
}

fn story(faults: &Faults<'_>) -> String {
    let mut text = String::new();
    for (at, what) in faults.past.iter().skip(faults.past.len().saturating_sub(SHOWN)) {
        text += &format!("{:>9.3} s  {what}\n", at.as_secs_f64());
    }
    let log = faults.log();
    let lines: Vec<_> = log.lines().collect();
    text += "--- burst wrote, in the end:\n";
    for line in lines.iter().skip(lines.len().saturating_sub(LINES)) {
        text += line;
        text += "\n";
    }
    text + "---\n"
}
