//! `cargo xtask agree`: the real program against the model, on packets and policies by chance.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use burst_tests::agree::{self, Settings};
use clap::Parser;

/// Gives the same packets to the real program and to the model, and compares verdicts and bytes.
#[derive(Parser)]
struct Arguments {
    /// How many packets.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    cases: usize,
    /// The run is a function of this number. Without it, the time of day decides.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Packets under one configuration.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    per_policy: usize,
    /// Where cases that differ are written.
    #[arg(long, value_name = "DIR", default_value = "tests/corpus/agree")]
    out: PathBuf,
    /// Replay the cases of a directory instead.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["cases", "seed"])]
    replay: Option<PathBuf>,
    /// End after so many cases that differ.
    #[arg(long, value_name = "N", default_value_t = 5)]
    most: usize,
}

fn main() -> Result<ExitCode> {
    let Arguments { cases, seed, per_policy, out, replay, most } = Arguments::parse();
    if let Some(directory) = replay {
        let (files, differing) = agree::replay(&directory)?;
        for (path, text) in &differing {
            println!("{}: {text}", path.display());
        }
        println!("{files} cases, {} differ", differing.len());
        return Ok(if differing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let by_time = || std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as u64);
    let seed = seed.unwrap_or_else(by_time);
    println!("seed {seed}");
    let begun = Instant::now();
    let mut shown = 0;
    let report = agree::run(&Settings { seed, cases, per_policy, out, most, lie: None }, |report| {
        if begun.elapsed().as_secs() / 10 > shown {
            shown = begun.elapsed().as_secs() / 10;
            eprintln!("{} packets, {} differ, {:.0?}", report.cases, report.differing.len(), begun.elapsed());
        }
    })?;
    print!("{}", report.table());
    println!("{} differ, {:.0?}, seed {seed}", report.differing.len(), begun.elapsed());
    for (path, text) in &report.differing {
        println!("\n{}: {text}", path.display());
    }
    let missing = report.missing();
    if !missing.is_empty() {
        println!("never due: {missing:?}");
    }
    let good = report.differing.is_empty() && (missing.is_empty() || cases < 10_000);
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
