//! `cargo xtask demo`: starts the demonstration. The demonstration itself is `tests/src/bin/demo.rs`.

use std::ffi::OsString;

use anyhow::Result;

use crate::build::binary;
use crate::run::{cargo, require_root, run};
use crate::setup::{For, setup};

/// Options of `demo`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Passed on to the demonstration; `cargo xtask demo -- --help` lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Sets up, builds optimised binaries, and runs the demonstration.
///
/// # Errors
/// [`crate::run::Needs`] without root; what did not build; or the demonstration's verdict.
pub(crate) fn demo(args: &Args) -> Result<()> {
    require_root("demo")?;
    setup(For::Test)?;
    let burst = binary(true)?;
    let mut demo = cargo("run");
    demo.args(["--release", "--package", "burst-tests", "--bin", "demo", "--", "--burst"]).arg(burst);
    run(demo.args(&args.arguments))
}
