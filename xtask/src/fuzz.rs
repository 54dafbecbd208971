//! `cargo xtask fuzz TARGET`: libFuzzer over one of the targets of `fuzz/`, on stable Rust.
//!
//! The coverage that libFuzzer needs is an LLVM pass that any rustc can be told to run; no nightly toolchain, no
//! cargo-fuzz. What is found is written below `target/fuzz`; what is worth keeping goes to `fuzz/corpus` by hand.

use std::ffi::OsString;
use std::fs;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::bpf;
use crate::run::{cargo, root, run, say, target_dir};
use crate::setup::{For, setup};

/// Options of `fuzz`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What is fuzzed.
    target: Target,
    /// How long.
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u64,
    /// Passed on to libFuzzer.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// A program of `fuzz/targets`.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Target {
    /// Captures, pcap and pcapng.
    Capture,
    /// Configurations.
    Config,
    /// Answers of HAProxy's stats socket.
    Haproxy,
    /// Prometheus and OpenMetrics texts.
    Metrics,
}

/// Edges are counted, comparisons are told to libFuzzer.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Builds a target and runs it.
///
/// # Errors
/// What did not build; or what the target could not stand, which is left below `target/fuzz`.
pub(crate) fn fuzz(args: &Args) -> Result<()> {
    setup(For::Build)?;
    let name = args.target.to_possible_value().context("every target has a name")?.get_name().to_owned();
    // Without coverage in build scripts and macros: those run while this is built.
    let triple = host()?;
    let object = bpf::build(root(), &bpf::toolchain()?, bpf::PROGRAM, std::env::consts::ARCH)?;
    let target = target_dir().join("fuzz");
    let mut build = cargo("build");
    build.args(["--release", "--manifest-path", "fuzz/Cargo.toml", "--bin", &name, "--target", &triple]);
    build.env("CARGO_TARGET_DIR", &target).env("RUSTFLAGS", FLAGS).env(bpf::OBJECT_VAR, object);
    run(&mut build)?;

    let (corpus, found) = (target.join("corpus").join(&name), target.join("found").join(&name));
    for directory in [&corpus, &found] {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    let mut fuzz = std::process::Command::new(target.join(&triple).join("release").join(&name));
    fuzz.current_dir(root()).arg(format!("-max_total_time={}", args.seconds));
    fuzz.arg(format!("-artifact_prefix={}/", found.display())).args(["-timeout=10", "-rss_limit_mb=2048"]);
    let dictionary = root().join("fuzz/dictionaries").join(&name);
    if dictionary.is_file() {
        fuzz.arg(format!("-dict={}", dictionary.display()));
    }
    fuzz.args(&args.arguments).arg(&corpus).arg(root().join("fuzz/corpus").join(&name));
    run(&mut fuzz).with_context(|| format!("what it could not stand is in {}", found.display()))?;
    say(format_args!("fuzz: {name} stood {} s", args.seconds));
    Ok(())
}

/// The triple of this machine.
fn host() -> Result<String> {
    let output = std::process::Command::new("rustc").arg("-vV").output().context("cannot run rustc")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    line.map(str::to_owned).context("rustc does not say what it builds for")
}
