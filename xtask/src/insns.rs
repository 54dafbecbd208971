//! `cargo xtask insns`: how many instructions a packet takes, exactly, against a table that is part of this tree. A virtual machine
//! that takes a nanosecond for each instruction counts them; caches and busy neighbours change nothing there.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

use crate::bpf;
use crate::build::{object, test_programs};
use crate::run::{find, root, say, target_dir};
use crate::setup::{For, setup};
use crate::vm::machine::{Pace, Tools};
use crate::vm::{PROGRAMS, built, kernel, strip};

/// The kernel that a new table is made with: the oldest that burst supports, of a suite that changes no more.
const KERNEL: &str = "6.1";

/// Options of `insns`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write the table anew.
    #[arg(long)]
    update: bool,
}

/// Sets up, builds, counts, and compares.
///
/// # Errors
/// [`crate::run::Needs`] where no machine can be made; what did not build; or how the counts differ from the table.
pub(crate) fn insns(args: &Args) -> Result<()> {
    setup(For::Build)?;
    object()?;
    let file = table_file();
    let known = match fs::read_to_string(&file) {
        Ok(text) => Some(Table::read(&text).with_context(|| format!("reading {}", file.display()))?),
        Err(_) if args.update => None,
        Err(error) => return Err(error).with_context(|| format!("reading {}", file.display())),
    };
    let wanted = known.as_ref().filter(|_| !args.update).map_or(KERNEL, |table| &table.kernel);
    let counted = count(wanted)?;
    if args.update {
        fs::write(&file, counted.text()).with_context(|| format!("writing {}", file.display()))?;
    }
    let differences = known.map_or_else(Vec::new, |known| known.compare(&counted));
    for line in &differences {
        println!("{line}");
    }
    say(format_args!("insns: {} cases on {}", counted.counts.len(), counted.kernel));
    if !args.update && !differences.is_empty() {
        bail!(
            "the counts are not those of {}: if that is meant, run `cargo xtask insns --update` and commit the table with \
             the change",
            file.display()
        );
    }
    Ok(())
}

/// The table.
pub(crate) fn table_file() -> PathBuf {
    root().join("docs/instructions.txt")
}

/// Boots the machine and counts.
fn count(wanted: &str) -> Result<Table> {
    let dir = target_dir().join("vm");
    let payload = dir.join("payload");
    fs::create_dir_all(&payload)?;
    let bench = strip(&built(&["--bin", "bench"], "bench")?, &payload, "bench")?;
    let programs = test_programs()?;
    let tools = Tools::get(&dir)?;
    let kernel = kernel::get_from(&dir, &["bookworm"], wanted)?;
    let mut archive = tools.archive(&kernel)?;
    archive.copy(&bench, "/payload/bench")?;
    archive.copy(&programs, "/payload/programs")?;
    for program in PROGRAMS {
        let path = find(program)?;
        archive.copy(&path, &path)?;
    }
    archive.file("/payload/run", b"#!/bin/sh\nexec ./bench --programs /payload/programs --count\n");
    let (mut counts, mut log) = (BTreeMap::new(), String::new());
    let status = tools.boot(&kernel, archive, Pace::Counted, |line| {
        let words = line.strip_prefix("insns: ").and_then(|rest| rest.split_once(' '));
        if let Some((case, Ok(count))) = words.map(|(case, count)| (case, count.trim().parse())) {
            counts.insert(case.to_owned(), count);
        }
        log.push_str(line);
        log.push('\n');
    })?;
    ensure!(status == 0 && !counts.is_empty(), "counting ended with status {status}:\n{log}");
    Ok(Table { kernel: kernel.release, compiler: bpf::toolchain()?.version, counts })
}

/// Counts, and what they were made with.
#[derive(Debug, PartialEq, Eq)]
struct Table {
    kernel: String,
    compiler: String,
    counts: BTreeMap<String, i64>,
}

impl Table {
    fn read(text: &str) -> Result<Self> {
        let mut table = Self { kernel: String::new(), compiler: String::new(), counts: BTreeMap::new() };
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            if let Some(kernel) = line.strip_prefix("# kernel: ") {
                kernel.clone_into(&mut table.kernel);
            } else if let Some(compiler) = line.strip_prefix("# compiler: ") {
                compiler.clone_into(&mut table.compiler);
            } else if !line.starts_with('#') {
                let parsed = line.split_once(' ').and_then(|(case, count)| Some((case, count.trim().parse().ok()?)));
                let (case, count) = parsed.with_context(|| format!("not a case and a count: {line:?}"))?;
                table.counts.insert(case.to_owned(), count);
            }
        }
        ensure!(!table.kernel.is_empty(), "it does not say what kernel it was made with (\"# kernel: …\")");
        Ok(table)
    }

    fn text(&self) -> String {
        let mut text = format!(
            "# Instructions of a packet, over those of a program that does nothing: what, number of prefixes, family.\n\
             # Made by `cargo xtask insns --update`; CI holds every change against it.\n\
             # kernel: {}\n# compiler: {}\n",
            self.kernel, self.compiler
        );
        let width = self.counts.keys().map(String::len).max().unwrap_or_default();
        for (case, count) in &self.counts {
            let _ = writeln!(text, "{case:width$} {count:5}");
        }
        text
    }

    /// What is not as it was, a line each.
    fn compare(&self, now: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        let cases: std::collections::BTreeSet<_> = self.counts.keys().chain(now.counts.keys()).collect();
        for case in cases {
            match (self.counts.get(case), now.counts.get(case)) {
                (Some(was), Some(is)) if was == is => {}
                (Some(was), Some(is)) => lines.push(format!("{case}: {was} before, {is} now ({:+})", is - was)),
                (Some(was), None) => lines.push(format!("{case}: {was} before, not counted now")),
                (None, Some(is)) => lines.push(format!("{case}: new, {is}")),
                (None, None) => {}
            }
        }
        if !lines.is_empty() {
            for (what, was, is) in [("kernel", &self.kernel, &now.kernel), ("compiler", &self.compiler, &now.compiler)]
            {
                if was != is {
                    lines.push(format!("the table was made with another {what}: {was}, not {is}"));
                }
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(counts: &[(&str, i64)]) -> Table {
        let counts = counts.iter().map(|&(case, count)| (case.to_owned(), count)).collect();
        Table { kernel: "6.1.0-1-cloud-amd64".to_owned(), compiler: "rustc 1.96.0".to_owned(), counts }
    }

    #[test]
    fn a_table_is_read_as_it_is_written() {
        let table = table(&[("dnat/4/v4", 210), ("not-ours/16/v6", 1234)]);
        assert_eq!(Table::read(&table.text()).unwrap(), table);
        assert!(Table::read("dnat/4/v4 210\n").is_err_and(|error| error.to_string().contains("kernel")));
        let broken = format!("{}dnat many\n", table.text());
        assert!(Table::read(&broken).is_err_and(|error| error.to_string().contains("dnat many")));
    }

    #[test]
    fn every_difference_is_told_and_no_other() {
        let known = table(&[("a", 10), ("b", 20), ("gone", 30)]);
        assert_eq!(known.compare(&table(&[("a", 10), ("b", 20), ("gone", 30)])), [""; 0]);
        let now = table(&[("a", 10), ("b", 21), ("new", 5)]);
        let told = ["b: 20 before, 21 now (+1)", "gone: 30 before, not counted now", "new: new, 5"];
        assert_eq!(known.compare(&now), told);
        let other = Table { compiler: "rustc 1.97.0".to_owned(), ..table(&[("a", 9), ("b", 20), ("gone", 30)]) };
        let told = known.compare(&other);
        assert_eq!(told[0], "a: 10 before, 9 now (-1)");
        assert!(told[1].contains("another compiler"), "{told:?}");
    }
}
