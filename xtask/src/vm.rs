//! `cargo xtask vm`: root tests on other kernels, each in a virtual machine of its own. Packages come from Debian, are unpacked
//! under `target/vm`, and nothing is installed.

mod debian;
pub(crate) mod kernel;
pub(crate) mod cpio;
pub(crate) mod machine;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::build::{binary, test_programs};
use crate::run::{cargo, find, run, target_dir, words};
use crate::setup::{For, setup};
use crate::test::passed_in;
use machine::{Pace, Tools};

/// Kernels that burst is tested on: the oldest it supports, those that Debian keeps for long, and the newest.
const KERNELS: [&str; 4] = ["6.1", "6.12", "6.18", "newest"];
/// Programs that tests start, and what they look for in a machine.
pub(crate) const PROGRAMS: [&str; 3] = ["ip", "ethtool", "nft"];

/// What is run: golden packets, and the tests of tunnels' far ends and of VLAN devices, which `cargo xtask test` leaves to us.
const TESTS: [&str; 3] = ["golden", "far_ends", "vlans"];
/// Servers that tests start; in the machine they find themselves under the same names.
const SERVERS: [&str; 2] = ["nginx", "haproxy"];

/// How many times longer tests may wait for anything in an emulated machine.
const SLOWNESS: u32 = 10;

/// Options of `vm`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A kernel: its first two numbers (6.12), its release, or "newest". May be given more than once; all that burst is
    /// tested on unless given.
    #[arg(long = "kernel", value_name = "VERSION")]
    kernels: Vec<String>,
    /// A test program of the package of root tests. May be given more than once; golden packets and what needs modules that
    /// build machines lack unless given.
    #[arg(long = "test", value_name = "NAME", default_values = TESTS)]
    tests: Vec<String>,
    /// Only tests with this in their name.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Show everything that the machines write.
    #[arg(long)]
    verbose: bool,
}

/// Sets up, builds, and runs the tests on each kernel.
///
/// # Errors
/// [`crate::run::Needs`] where no machine can be made; what did not build; or the kernels on which a test failed.
pub(crate) fn vm(args: &Args) -> Result<()> {
    setup(For::Test)?;
    let dir = target_dir().join("vm");
    let payload = Payload::build(&dir, args)?;
    let tools = Tools::get(&dir)?;
    let kernels: Vec<&str> =
        if args.kernels.is_empty() { KERNELS.to_vec() } else { args.kernels.iter().map(String::as_str).collect() };
    let mut failed = Vec::new();
    for wanted in kernels {
        match on(&dir, &tools, wanted, &payload, args.verbose) {
            Ok(line) => println!("{line}"),
            Err(error) => {
                println!("{wanted}: {error:#}");
                failed.push(wanted);
            }
        }
    }
    if !failed.is_empty() {
        bail!("failed on {}", failed.join(", "));
    }
    Ok(())
}

/// Runs the payload on a kernel. What came of it, in a line.
fn on(dir: &Path, tools: &Tools, wanted: &str, payload: &Payload, verbose: bool) -> Result<String> {
    let kernel = kernel::get(dir, wanted)?;
    let mut archive = tools.archive(&kernel)?;
    payload.add(&mut archive)?;
    let begun = Instant::now();
    let (mut passed, mut loads, mut log) = (0, String::new(), String::new());
    let outcome = tools.boot(&kernel, archive, Pace::Fast, |line| {
        passed += passed_in(line);
        if let Some(load) = line.strip_prefix("load: ") {
            let _ = write!(loads, "; {load}");
        }
        if verbose {
            eprintln!("{}: {line}", kernel.release);
        }
        log.push_str(line);
        log.push('\n');
    });
    let file = dir.join("logs").join(format!("{}.log", kernel.release));
    fs::create_dir_all(dir.join("logs"))?;
    fs::write(&file, &log).with_context(|| format!("writing {}", file.display()))?;
    let status = outcome.and_then(|status| {
        ensure!(status == 0, "{}: the tests ended with status {status}", kernel.release);
        ensure!(passed > 0, "{}: no test ran", kernel.release);
        Ok(())
    });
    if status.is_err() && !verbose {
        let lines: Vec<_> = log.lines().collect();
        eprintln!("{}", lines[lines.len().saturating_sub(60)..].join("\n"));
    }
    status.with_context(|| format!("all that it wrote is in {}", file.display()))?;
    Ok(format!("{}: {passed} tests passed in {} s{loads}", kernel.release, begun.elapsed().as_secs()))
}

/// What a machine runs.
struct Payload {
    /// Files and their names in the machine.
    files: Vec<(PathBuf, String)>,
    script: String,
}

impl Payload {
    fn build(dir: &Path, args: &Args) -> Result<Self> {
        let burst = binary(false)?;
        let programs = test_programs()?;
        let stripped = dir.join("payload");
        fs::create_dir_all(&stripped)?;
        let mut script =
            "#!/bin/sh\nset -e\nexport BURST_BINARY=/payload/burst BURST_TEST_PROGRAMS=/payload/programs\n".to_owned();
        let _ = writeln!(script, "export BURST_TEST_SLOWNESS={SLOWNESS}");
        let mut files = vec![
            (strip(&burst, &stripped, "burst")?, "/payload/burst".to_owned()),
            (programs, "/payload/programs".to_owned()),
            (strip(&built(&["--bin", "load"], "load")?, &stripped, "load")?, "/payload/load".to_owned()),
        ];
        script.push_str("./load\n");
        for test in &args.tests {
            let program = built(&["--test", test], test)?;
            files.push((strip(&program, &stripped, test)?, format!("/payload/{test}")));
            let filter = args.filter.as_deref().unwrap_or_default();
            let _ = writeln!(script, "./{test} '{}'", filter.replace('\'', ""));
        }
        for program in PROGRAMS.into_iter().chain(SERVERS) {
            let path = find(program)?;
            files.push((path.clone(), path.to_string_lossy().into_owned()));
        }
        Ok(Self { files, script })
    }

    fn add(&self, archive: &mut cpio::Archive) -> Result<()> {
        for (file, name) in &self.files {
            archive.copy(file, name)?;
        }
        // Whom servers run as.
        archive.file("/etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n");
        archive.file("/etc/group", b"root:x:0:\n");
        archive.file("/payload/run", self.script.as_bytes());
        Ok(())
    }
}

/// Builds a target of the package of root tests, and says where the program is.
pub(crate) fn built(target: &[&str], name: &str) -> Result<PathBuf> {
    let mut command = cargo(if target[0] == "--bin" { "build" } else { "test" });
    command.args(["--package", "burst-tests", "--message-format", "json-render-diagnostics"]).args(target);
    if target[0] != "--bin" {
        command.arg("--no-run");
    }
    let output =
        command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot run {}", words(&command)))?;
    ensure!(output.status.success(), "{} failed ({})", words(&command), output.status);
    executable(&String::from_utf8_lossy(&output.stdout), name).with_context(|| format!("cargo built no program {name}"))
}

/// The program that cargo says it built for a target.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    let name = format!("\"name\":\"{name}\"");
    let message = messages.lines().find(|line| line.contains(&name) && line.contains("\"executable\":\""))?;
    let path = message.split_once("\"executable\":\"")?.1.split('"').next()?;
    Some(PathBuf::from(path))
}

/// A copy of a program without what debuggers need: machines keep it in memory.
pub(crate) fn strip(program: &Path, dir: &Path, name: &str) -> Result<PathBuf> {
    let copy = dir.join(name);
    run(Command::new("strip").arg("--strip-debug").arg("-o").arg(&copy).arg(program))?;
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::executable;

    #[test]
    fn the_program_of_a_target_is_found() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"golden"},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"kind":["test"],"name":"held"},"executable":"/t/held-1"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"kind":["test"],"name":"golden"},"executable":"/t/golden-1"}"#,
        );
        assert_eq!(executable(messages, "golden").unwrap(), std::path::Path::new("/t/golden-1"));
        assert_eq!(executable(messages, "absent"), None);
    }
}
