//! The root tests, three programs at a time: most of their time they wait for what happens in namespaces of their own.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::run::{cargo, say};
use crate::test::passed_in;

/// Programs at a time. Each runs its tests in as many threads as there are processors.
const AT_ONCE: usize = 3;

/// Those that take longest, as measured: begun first, so that none of them is waited for alone.
const LONG: [&str; 8] = ["chaos", "golden", "schedules", "kernel_links", "held", "reload", "path_mtu", "explain"];

/// Builds the test programs of a package and runs them; gives the number of tests that passed. The first that fails is the last that is
/// begun. `narrow` are arguments of each program.
///
/// # Errors
/// What did not build; or which program failed: its output is shown.
pub(crate) fn run(package: &str, narrow: &[OsString], environment: &[(&str, OsString)]) -> Result<usize> {
    let programs = programs(package)?;
    let left = Mutex::new(programs.into_iter().collect::<VecDeque<_>>());
    let (passed, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(program) = next(&left, &failed) {
                    match one(package, &program, narrow, environment) {
                        Ok(count) => drop(passed.fetch_add(count, Ordering::Relaxed)),
                        Err(error) => locked(&failed).push(error),
                    }
                }
            });
        }
    });
    let failed = std::mem::take(&mut *locked(&failed));
    match failed.into_iter().next() {
        Some(error) => Err(error),
        None => Ok(passed.into_inner()),
    }
}

/// A program, by what cargo calls it.
#[derive(Debug, PartialEq)]
struct Program {
    /// `--test`, `--lib` or `--bin`.
    kind: &'static str,
    name: String,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn next(left: &Mutex<VecDeque<Program>>, failed: &Mutex<Vec<anyhow::Error>>) -> Option<Program> {
    if !locked(failed).is_empty() {
        return None;
    }
    locked(left).pop_front()
}

/// Builds the programs.
fn programs(package: &str) -> Result<Vec<Program>> {
    let mut build = cargo("test");
    build.args(["--package", package, "--no-run", "--message-format", "json-render-diagnostics"]);
    let output = build.stderr(Stdio::inherit()).output().context("cannot run cargo test --no-run")?;
    if !output.status.success() {
        bail!("the tests of {package} do not build ({})", output.status);
    }
    let mut programs: Vec<_> = String::from_utf8_lossy(&output.stdout).lines().filter_map(program).collect();
    programs.sort_by_key(|program| LONG.iter().position(|name| *name == program.name).unwrap_or(LONG.len()));
    if programs.is_empty() {
        bail!("{package} has no test programs");
    }
    Ok(programs)
}

/// The program that a message of cargo's tells of.
fn program(line: &str) -> Option<Program> {
    let message: Value = serde_json::from_str(line).ok()?;
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true || message["executable"].is_null()
    {
        return None;
    }
    let kind = match message["target"]["kind"][0].as_str()? {
        "test" => "--test",
        "lib" => "--lib",
        "bin" => "--bin",
        _ => return None,
    };
    Some(Program { kind, name: message["target"]["name"].as_str()?.to_owned() })
}

/// Runs a program to its end, and shows what it said then.
fn one(package: &str, program: &Program, narrow: &[OsString], environment: &[(&str, OsString)]) -> Result<usize> {
    let Program { kind, name } = program;
    let mut command: Command = cargo("test");
    command.args(["--quiet", "--package", package, kind]);
    if *kind != "--lib" {
        command.arg(name);
    }
    command.args(narrow).envs(environment.iter().map(|(key, value)| (key, value)));
    let begun = std::time::Instant::now();
    let output = command.output().with_context(|| format!("cannot run the tests {name}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let passed = text.lines().map(passed_in).sum();
    say(format_args!("test: {name}: {passed} passed in {:.0} s", begun.elapsed().as_secs_f64()));
    // Who asks for some of them wants to read what they say.
    if !narrow.is_empty() || !output.status.success() {
        std::io::stdout().lock().write_all(&output.stdout)?;
    }
    if !output.status.success() {
        std::io::stderr().lock().write_all(&output.stderr)?;
        bail!("the tests {name} failed ({})", output.status);
    }
    Ok(passed)
}

#[cfg(test)]
mod tests {
    use super::{Program, program};

    #[test]
    fn only_test_programs_are_found() {
        let line = |kind: &str, test: bool, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","target":{{"kind":["{kind}"],"name":"golden"}},"profile":{{"test":{test}}},"executable":{executable}}}"#
            )
        };
        let golden = |kind| Some(Program { kind, name: "golden".to_owned() });
        assert_eq!(program(&line("test", true, "\"/x\"")), golden("--test"));
        assert_eq!(program(&line("lib", true, "\"/x\"")), golden("--lib"));
        assert_eq!(program(&line("bin", true, "\"/x\"")), golden("--bin"));
        for other in [&line("bin", false, "\"/x\""), &line("lib", true, "null"), "no message"] {
            assert_eq!(program(other), None);
        }
    }
}
