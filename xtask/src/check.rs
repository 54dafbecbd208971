//! `cargo xtask check`: everything that judges the code without running it.

use std::env;

use anyhow::{Context, Result, bail};

use crate::build::TEST_PROGRAMS;
use crate::run::{cargo, root, run, say};
use crate::setup::{For, setup};
use crate::{bpf, tidy};

/// Judges the whole workspace in one respect.
type Judge = fn() -> Result<()>;

/// Sets up, then: format, house rules, lints for the host and for BPF, documentation. Each judge is heard, whatever the
/// others say.
///
/// # Errors
/// What could not be set up; else the judges that are not content, after each has said why.
pub(crate) fn check() -> Result<()> {
    setup(For::Check)?;
    let judges: [(&str, Judge); 5] = [
        ("format", format),
        ("house rules", rules),
        ("clippy, host", clippy_host),
        ("clippy, BPF", clippy_bpf),
        ("documentation", documentation),
    ];
    let mut failed = Vec::new();
    for (name, judge) in judges {
        say(format_args!("check: {name}"));
        if let Err(error) = judge() {
            say(format_args!("check: {name}: {error:#}"));
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("check failed: {}", failed.join("; "));
    }
    say("check: all well");
    Ok(())
}

fn format() -> Result<()> {
    run(cargo("fmt").args(["--all", "--check"])).context("`cargo fmt --all` repairs this")
}

fn rules() -> Result<()> {
    let findings = tidy::tidy(root())?;
    for finding in &findings {
        eprintln!("{finding}");
    }
    if !findings.is_empty() {
        bail!("broken in {} places; see above", findings.len());
    }
    Ok(())
}

fn clippy_host() -> Result<()> {
    run(cargo("clippy").args(["--workspace", "--all-targets", "--locked", "--keep-going", "--", "--deny", "warnings"]))
}

fn clippy_bpf() -> Result<()> {
    let mut clippy = bpf::command(root(), &bpf::toolchain()?, "cargo-clippy", "clippy", env::consts::ARCH);
    run(clippy.args(["--package", bpf::PROGRAM, "--package", TEST_PROGRAMS, "--", "--deny", "warnings"]))
}

fn documentation() -> Result<()> {
    run(cargo("doc").args(["--workspace", "--no-deps", "--locked"]).env("RUSTDOCFLAGS", "--deny warnings"))
}
