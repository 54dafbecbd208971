//! `cargo xtask build`: the BPF object and the burst binary.

use std::env;
use std::path::PathBuf;

use anyhow::Result;

use crate::bpf;
use crate::run::{cargo, root, run, say, target_dir};
use crate::setup::{For, setup};

/// The package of the programs that tests and benchmarks load beside burst's.
pub(crate) const TEST_PROGRAMS: &str = "burst-tests-ebpf";

/// Options of `build`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// With optimisations.
    #[arg(long)]
    release: bool,
}

/// Sets up and builds.
///
/// # Errors
/// What could not be set up, or did not compile.
pub(crate) fn build(args: &Args) -> Result<()> {
    setup(For::Build)?;
    binary(args.release).map(drop)
}

/// Builds the burst binary with its object and says where it is. The machine is set up.
///
/// # Errors
/// What did not compile.
pub(crate) fn binary(release: bool) -> Result<PathBuf> {
    object()?;
    let mut command = cargo("build");
    command.args(["--package", "burst-user", "--bin", "burst"]);
    if release {
        command.arg("--release");
    }
    run(&mut command)?;
    let binary = target_dir().join(if release { "release/burst" } else { "debug/burst" });
    say(format_args!("built {}", binary.display()));
    Ok(binary)
}

/// Builds burst's object, unless a finished one is to be embedded. burst-user's build script would build it too, but cargo
/// hides what a build script prints.
///
/// # Errors
/// What did not build.
pub(crate) fn object() -> Result<()> {
    if env::var_os(bpf::OBJECT_VAR).is_none() {
        bpf::build(root(), &bpf::toolchain()?, bpf::PROGRAM, env::consts::ARCH)?;
    }
    Ok(())
}

/// Builds the object of the programs that tests and benchmarks compare burst's with, and says where it is.
///
/// # Errors
/// What did not build.
pub(crate) fn test_programs() -> Result<PathBuf> {
    Ok(bpf::build(root(), &bpf::toolchain()?, TEST_PROGRAMS, env::consts::ARCH)?)
}
