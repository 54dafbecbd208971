//! `cargo xtask test`: host tests, then the root tests of `burst-tests`. A run that tests nothing fails.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::beside;
use crate::build::{binary, test_programs};
use crate::run::{cargo, require_root, say, words};
use crate::setup::{For, setup};

/// Options of `test`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// One half of the tests.
    #[arg(long)]
    only: Option<Half>,
    /// Passed on to `cargo test`: a filter, or after `--` options of the test programs.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// A half of the tests.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Half {
    /// Logic, command line, netlink and load sources; the last two need root and the servers that `setup` installs.
    Host,
    /// Golden packets, namespaces, life cycle; as root.
    Root,
}

/// Sets up, builds, and runs the tests. The root tests find the burst binary under test in `BURST_BINARY`, and the
/// programs to compare burst's with in `BURST_TEST_PROGRAMS`.
///
/// # Errors
/// [`crate::run::Needs`] without root; what did not build; a failed test; or that no test ran.
pub(crate) fn test(args: &Args) -> Result<()> {
    let mut passed = 0;
    if args.only != Some(Half::Host) {
        require_root("test")?;
        setup(For::Test)?;
    }
    if args.only != Some(Half::Root) {
        say("test: host");
        passed += half(cargo("test").args(["--workspace", "--exclude", "burst-tests"]).args(&args.arguments))?;
        require_some(passed, args, "host")?;
    }
    if args.only != Some(Half::Host) {
        let (burst, programs) = (binary(false)?, test_programs()?);
        say("test: root");
        let environment = [("BURST_BINARY", burst.into()), ("BURST_TEST_PROGRAMS", programs.into())];
        let root = beside::run("burst-tests", &args.arguments, &environment)?;
        require_some(root, args, "root")?;
        passed += root;
    }
    if passed == 0 {
        bail!("no test ran: nothing matches the arguments");
    }
    say(format_args!("test: {passed} passed"));
    Ok(())
}

/// A half that was not narrowed by arguments must have run something.
fn require_some(passed: usize, args: &Args, half: &str) -> Result<()> {
    if passed == 0 && args.arguments.is_empty() {
        bail!("no {half} test ran");
    }
    Ok(())
}

/// Runs one `cargo test`, shows its output, and counts the tests that passed.
fn half(command: &mut Command) -> Result<usize> {
    let shown = words(command);
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot run {shown}"))?;
    let output = child.stdout.take().context("the output of cargo test is not piped")?;
    let mut passed = 0;
    let mut lines = BufReader::new(output);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        std::io::stdout().write_all(&line)?;
        passed += passed_in(&String::from_utf8_lossy(&line));
        line.clear();
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("{shown} failed ({status})");
    }
    Ok(passed)
}

/// The number of passed tests in a summary line of the test harness; 0 in every other line.
pub(crate) fn passed_in(line: &str) -> usize {
    line.strip_prefix("test result: ok. ")
        .and_then(|rest| rest.split_once(" passed;"))
        .and_then(|(count, _)| count.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::passed_in;

    #[test]
    fn only_summary_lines_count() {
        let summary = "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.02s";
        assert_eq!(passed_in(summary), 12);
        assert_eq!(passed_in("test result: ok. 0 passed; 0 failed; 0 ignored"), 0);
        assert_eq!(passed_in("test result: FAILED. 3 passed; 1 failed;"), 0);
        assert_eq!(passed_in("test takes_12 passed; ... ok"), 0);
    }
}
