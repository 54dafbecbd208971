//! `cargo xtask agree`: the real program against a naive model of it. The run itself is `tests/src/bin/agree.rs`.

use std::ffi::OsString;

use anyhow::Result;

use crate::run::{cargo, require_root, run};
use crate::setup::{For, setup};

/// Options of `agree`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many packets.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    cases: usize,
    /// The run is a function of this number. Without it, the time of day decides.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Passed on to the run; `cargo xtask agree -- --help` lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Sets up, builds optimised, and runs.
///
/// # Errors
/// [`crate::run::Needs`] without root; what did not build; or a packet on which they differ.
pub(crate) fn agree(args: &Args) -> Result<()> {
    require_root("agree")?;
    setup(For::Test)?;
    let mut agree = cargo("run");
    agree
        .args(["--release", "--package", "burst-tests", "--bin", "agree", "--", "--cases"])
        .arg(args.cases.to_string());
    agree.args(args.seed.map(|seed| format!("--seed={seed}")));
    run(agree.args(&args.arguments))
}
