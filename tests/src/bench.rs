//! The benchmark: what a packet costs in burst's program, in what burst's program is made of, and on a wire beside what an
//! administrator would do without burst.
//!
//! `BPF_PROG_TEST_RUN` with `repeat` restores nothing between two runs, so that only the first run sees the packet that
//! was meant. Here a program stands in front that restores it (`replay`); its own cost is measured with a program that
//! does nothing behind it, right before and after each measurement, and subtracted. Cases take turns in shuffled rounds on
//! one CPU, and each is held against its golden row: verdict, bytes, length, and every counter, which must advance by
//! exactly the number of runs. [`cases`] says what is measured.

mod statistics;

mod replay;
pub mod cases;
mod primitives;
mod timing;
mod wire;

mod report;
mod chart;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

pub use report::Line;

/// Seed of the order of the rounds: any number but 0.
const SEED: u64 = 0x6275_7273_7421;

/// What to measure, how well, and where the results go.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The object of the programs to compare with.
    pub programs: PathBuf,
    /// Cases with this in their name only.
    pub only: String,
    /// How often each case is measured.
    pub rounds: usize,
    /// The CPU; the last that is allowed where there is none named.
    pub cpu: Option<usize>,
    /// Results as JSON.
    pub json: Option<PathBuf>,
    /// Results as a picture.
    pub svg: Option<PathBuf>,
}

/// Measures, prints, and writes what is to be written.
///
/// # Errors
/// When a bed cannot be made, a case is not what it should be, or a file cannot be written.
pub fn run(settings: &Settings) -> Result<()> {
    let programs =
        std::fs::read(&settings.programs).with_context(|| format!("reading {}", settings.programs.display()))?;
    // On a thread of its own: it goes from namespace to namespace, and stays on one CPU.
    let lines = std::thread::scope(|scope| {
        let measure = || -> Result<Vec<Line>> {
            let cpu = pin(settings.cpu)?;
            eprintln!("bench: on CPU {cpu}, {} rounds", settings.rounds);
            let mut lines = timing::measure(settings, &programs)?;
            lines.extend(wire::measure(settings, &programs, cpu)?);
            Ok(lines)
        };
        let thread = std::thread::Builder::new().name("bench".to_owned()).spawn_scoped(scope, measure)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    ensure!(!lines.is_empty(), "no case has {:?} in its name", settings.only);
    print!("{}", report::table(&lines));
    if let Some(file) = &settings.json {
        report::json(&lines, file)?;
    }
    if let Some(file) = &settings.svg {
        chart::write(&lines, file)?;
    }
    Ok(())
}

/// Keeps this thread on one CPU.
fn pin(wanted: Option<usize>) -> Result<usize> {
    let allowed = sched_getaffinity(None).context("reading the allowed CPUs")?;
    let mut all = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu));
    let cpu = match wanted {
        Some(cpu) => all.find(|&other| other == cpu).with_context(|| format!("CPU {cpu} is not allowed here"))?,
        None => all.next_back().context("no CPU is allowed")?,
    };
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).with_context(|| format!("staying on CPU {cpu}"))?;
    Ok(cpu)
}
