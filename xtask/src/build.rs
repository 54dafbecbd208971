//! `cargo xtask build`: the BPF object and the burst binary.

use std::env;
use std::path::PathBuf;

use anyhow::Result;

use crate::bpf;
use crate::run::{cargo, root, run, say, target_dir};
use crate::setup::{For, setup};

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
    // First by itself: burst-user's build script would build it too, but cargo hides what a build script prints.
    if env::var_os(bpf::OBJECT_VAR).is_none() {
        bpf::build(root(), &bpf::toolchain()?, env::consts::ARCH)?;
    }
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
