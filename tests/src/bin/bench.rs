//! `cargo xtask bench`: what a packet costs, against its budget.

use std::path::PathBuf;

use anyhow::Result;
use burst_tests::bench::{self, Settings};
use clap::Parser;

/// Measures what a packet costs in burst's program, in nanoseconds over a program that does nothing.
#[derive(Parser)]
#[command(name = "cargo xtask bench")]
struct Arguments {
    /// The object of the programs to compare with.
    #[arg(long, value_name = "FILE")]
    programs: PathBuf,
    /// The table of `cargo xtask insns`, for the column `insns` of the JSON.
    #[arg(long, value_name = "FILE")]
    counts: Option<PathBuf>,
    /// Only cases with this in their name.
    #[arg(long, value_name = "SUBSTRING", default_value = "")]
    only: String,
    /// How often each case is measured.
    #[arg(long, value_name = "NUMBER", default_value_t = 41, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Five rounds, to see whether it works.
    #[arg(long, conflicts_with = "rounds")]
    quick: bool,
    /// The CPU to measure on; the last one unless set.
    #[arg(long, value_name = "NUMBER")]
    cpu: Option<usize>,
    /// Writes the results as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Prints instructions instead: for a machine that takes a nanosecond for each (`cargo xtask insns`).
    #[arg(long)]
    count: bool,
    /// Draws the results.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

fn main() -> Result<()> {
    let Arguments { programs, counts, only, rounds, quick, cpu, json, count, svg } = Arguments::parse();
    let rounds = if quick { 5 } else { usize::from(rounds) };
    let settings = Settings { programs, counts, only, rounds, cpu, json, svg };
    if count { bench::count(&settings) } else { bench::run(&settings) }
}
