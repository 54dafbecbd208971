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
pub mod policies;
pub mod cases;
mod primitives;
mod timing;
mod wire;

mod report;
mod chart;

use std::path::{Path, PathBuf};

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
    /// The table of exact instruction counts.
    pub counts: Option<PathBuf>,
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
    let programs = read(&settings.programs)?;
    // On a thread of its own: it goes from namespace to namespace, and stays on one CPU.
    let mut lines = std::thread::scope(|scope| {
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
    if let Some(file) = &settings.counts {
        let text = String::from_utf8(read(file)?)?;
        lines.iter_mut().for_each(|line| line.instructions = counted(&text, &line.case));
    }
    print!("{}", report::table(&lines));
    if let Some(file) = &settings.json {
        report::json(&lines, file)?;
    }
    if let Some(file) = &settings.svg {
        chart::write(&lines, file)?;
    }
    Ok(())
}

/// Counts instructions instead of nanoseconds, and prints a line per case: for machines that take a nanosecond for each.
///
/// # Errors
/// As [`run`].
pub fn count(settings: &Settings) -> Result<()> {
    let programs = read(&settings.programs)?;
    let counts = std::thread::scope(|scope| {
        let count = || pin(settings.cpu).and_then(|_| timing::count(settings, &programs));
        let thread = std::thread::Builder::new().name("bench".to_owned()).spawn_scoped(scope, count)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    for (case, count) in counts {
        println!("insns: {case} {count}");
    }
    Ok(())
}

/// What the table says of a case; the number of its flows is no part of the name there.
fn counted(table: &str, case: &str) -> Option<u32> {
    let (name, _) = case.rsplit_once('/')?;
    let line = table.lines().find(|line| line.split_whitespace().next() == Some(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn read(file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("reading {}", file.display()))
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

#[cfg(test)]
mod tests {
    use super::counted;

    #[test]
    fn a_case_is_found_in_the_table_whatever_its_flows() {
        let table = "# dnat/4/v4 1\ndnat/4/v4    210\ndnat/4/v6  220\n";
        assert_eq!([counted(table, "dnat/4/v4/1"), counted(table, "dnat/4/v4/64k")], [Some(210); 2]);
        assert_eq!(counted(table, "wire/dnat"), None);
    }
}
