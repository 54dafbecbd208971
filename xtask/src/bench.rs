//! `cargo xtask bench`: starts the benchmark. The benchmark itself is `tests/src/bin/bench.rs`.

use std::ffi::OsString;

use anyhow::Result;

use crate::build::{object, test_programs};
use crate::insns::table_file;
use crate::run::{cargo, require_root, run};
use crate::setup::{For, setup};

/// Options of `bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Passed on to the benchmark; `cargo xtask bench -- --help` lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Sets up, builds the object and the programs to compare it with, and runs the benchmark.
///
/// # Errors
/// [`crate::run::Needs`] without root; what did not build; or what the benchmark could not measure.
pub(crate) fn bench(args: &Args) -> Result<()> {
    require_root("bench")?;
    setup(For::Test)?;
    object()?;
    let programs = test_programs()?;
    let mut bench = cargo("run");
    bench.args(["--package", "burst-tests", "--bin", "bench", "--", "--programs"]).arg(programs);
    bench.arg("--counts").arg(table_file());
    run(bench.args(&args.arguments))
}
