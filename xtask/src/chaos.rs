//! `cargo xtask chaos`: faults by chance under real traffic. The run itself is `tests/src/bin/chaos.rs`.

use std::ffi::OsString;

use anyhow::Result;

use crate::build::binary;
use crate::run::{cargo, require_root, run};
use crate::setup::{For, setup};

/// Options of `chaos`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long faults come, in minutes.
    #[arg(long, value_name = "N", conflicts_with = "seconds")]
    minutes: Option<u64>,
    /// How long faults come, in seconds. 60 unless given.
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// The schedule of faults is a function of this number. Without it, the time of day decides.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Passed on to the run; `cargo xtask chaos -- --help` lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Sets up, builds with overflow checks and debug assertions, for both find defects, and runs.
///
/// # Errors
/// [`crate::run::Needs`] without root; what did not build; or what broke.
pub(crate) fn chaos(args: &Args) -> Result<()> {
    require_root("chaos")?;
    setup(For::Test)?;
    let burst = binary(false)?;
    let mut chaos = cargo("run");
    chaos.args(["--package", "burst-tests", "--bin", "chaos", "--"]).env("BURST_BINARY", burst);
    chaos.args(args.minutes.map(|minutes| format!("--minutes={minutes}")));
    chaos.args(args.seconds.map(|seconds| format!("--seconds={seconds}")));
    chaos.args(args.seed.map(|seed| format!("--seed={seed}")));
    run(chaos.args(&args.arguments))
}
