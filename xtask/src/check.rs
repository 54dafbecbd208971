//! `cargo xtask check`: everything that judges the code without running it.

use std::env;

use anyhow::{Context, Result, bail};

use crate::run::{cargo, root, run, say};
use crate::setup::{For, setup};
use crate::{bpf, tidy};

/// Sets up, then: format, house rules, lints for the host and for BPF, documentation.
///
/// # Errors
/// The first judge that is not content.
pub(crate) fn check() -> Result<()> {
    setup(For::Check)?;

    say("check: format");
    run(cargo("fmt").args(["--all", "--check"])).context("run `cargo fmt --all`")?;

    say("check: house rules");
    let findings = tidy::tidy(root())?;
    for finding in &findings {
        eprintln!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} house rules broken; see above", findings.len());
    }

    say("check: clippy, host");
    run(cargo("clippy").args(["--workspace", "--all-targets", "--locked", "--", "--deny", "warnings"]))?;

    say("check: clippy, BPF");
    let toolchain = bpf::toolchain()?;
    let mut clippy = bpf::command(root(), &toolchain, "cargo-clippy", "clippy", env::consts::ARCH);
    run(clippy.args(["--", "--deny", "warnings"]))?;

    say("check: documentation");
    run(cargo("doc").args(["--workspace", "--no-deps", "--locked"]).env("RUSTDOCFLAGS", "--deny warnings"))?;
    Ok(())
}
