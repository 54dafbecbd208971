//! `cargo xtask chaos`: faults by chance under real traffic.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use burst_tests::chaos::{self, Settings};
use clap::Parser;

/// Runs faults by chance under real traffic: no connection may break, no payment may leave, no packet may miss the program.
#[derive(Parser)]
struct Arguments {
    /// How long faults come, in minutes.
    #[arg(long, value_name = "N", conflicts_with = "seconds")]
    minutes: Option<u64>,
    /// How long faults come, in seconds. 60 unless given.
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// The schedule of faults is a function of this number. Without it, the time of day decides.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
}

fn main() -> Result<ExitCode> {
    let Arguments { minutes, seconds, seed } = Arguments::parse();
    let by_time = || std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as u64);
    let length = Duration::from_secs(minutes.map_or_else(|| seconds.unwrap_or(60), |minutes| minutes * 60));
    let settings = Settings { seed: seed.unwrap_or_else(by_time), length, sabotage: false };
    println!("seed {}, {length:?}", settings.seed);
    let report = chaos::run(&settings)?;
    print!("{}", report.text(&settings));
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
