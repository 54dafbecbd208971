//! The benchmark measures what it says: the same packet in every run, also where the program under test grows it.

use std::path::PathBuf;

use anyhow::{Context, Result};
use burst_tests::bench::{self, Settings};

/// The object of the programs to compare with, which `cargo xtask test` builds.
fn programs() -> Result<PathBuf> {
    let named = std::env::var_os("BURST_TEST_PROGRAMS");
    named.map(PathBuf::from).context("BURST_TEST_PROGRAMS names no object: run `cargo xtask test`")
}

/// Measures cases once. Each is held against its row in every round, and fails if the packet was another one.
fn once(only: &str) -> Result<()> {
    let (counts, cpu, json, svg) = (None, None, None, None);
    bench::run(&Settings { programs: programs()?, counts, only: only.to_owned(), rounds: 1, cpu, json, svg })
}

#[test]
fn a_packet_that_grew_is_put_back() -> Result<()> {
    once("gue/4/v4/1")
}

#[test]
fn a_packet_that_was_rewritten_is_put_back() -> Result<()> {
    once("dnat/4/v6/1")
}

#[test]
fn a_case_that_does_not_exist_is_an_error() {
    let error = once("no such case").expect_err("nothing was measured");
    assert!(error.to_string().contains("no such case"), "{error:#}");
}
