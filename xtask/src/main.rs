//! The project's own commands: `cargo xtask <command>`. Each has a file of its own; this one parses and dispatches.
//!
//! Exit status: 0 done, 1 a step failed, 2 wrong usage, 3 this machine lacks something that only you can provide.

mod bpf;

mod run;
mod setup;
mod packages;
mod build;
mod check;
mod tidy;
mod test;
mod beside;
mod agree;
mod fuzz;
mod demo;
mod chaos;
mod bench;
mod vm;
mod insns;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// burst's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what building and testing need: BPF toolchain, bpf-linker, servers and tools. The others call it.
    Setup,
    /// Build the BPF object and the burst binary.
    Build(build::Args),
    /// Format, lints (host and BPF), documentation and house rules. Needs no root once set up.
    Check,
    /// Host tests, then the root tests.
    Test(test::Args),
    /// The real program against a naive model of it, on packets and policies by chance. As root.
    Agree(agree::Args),
    /// Fuzz one of the parsers of what others write.
    Fuzz(fuzz::Args),
    /// Show burst at work: a promotion peak over network namespaces. As root.
    Demo(demo::Args),
    /// Faults by chance under real traffic: shares, daemon, lines, floods; nothing may break. As root.
    Chaos(chaos::Args),
    /// Measure what a packet costs, in nanoseconds, against its budget. As root.
    Bench(bench::Args),
    /// Run root tests on other kernels, in virtual machines.
    Vm(vm::Args),
    /// Count the instructions of a packet, and hold them against the table of those that are known.
    Insns(insns::Args),
}

/// Whether `cargo xtask <name>` exists.
fn has_command(name: &str) -> bool {
    name == "help" || Cli::command().find_subcommand(name).is_some()
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Setup => setup::setup(setup::For::Test),
        Command::Build(args) => build::build(&args),
        Command::Check => check::check(),
        Command::Test(args) => test::test(&args),
        Command::Agree(args) => agree::agree(&args),
        Command::Fuzz(args) => fuzz::fuzz(&args),
        Command::Demo(args) => demo::demo(&args),
        Command::Chaos(args) => chaos::chaos(&args),
        Command::Bench(args) => bench::bench(&args),
        Command::Vm(args) => vm::vm(&args),
        Command::Insns(args) => insns::insns(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: error: {error:#}");
            ExitCode::from(if error.is::<run::Needs>() { 3 } else { 1 })
        }
    }
}
