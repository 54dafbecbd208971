//! `cargo xtask demo`: the whole way once, on real traffic, in namespaces.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use burst_tests::demo::{self, Settings};
use clap::Parser;

/// Shows a promotion's rise and fall through a real edge host: payment stays, the overflow goes to the cloud and comes
/// home.
#[derive(Parser)]
struct Arguments {
    /// The burst binary.
    #[arg(long, value_name = "FILE")]
    burst: PathBuf,
    /// Where the timeline goes.
    #[arg(long, value_name = "DIR", default_value = "target/demo")]
    out: PathBuf,
}

fn main() -> Result<ExitCode> {
    let Arguments { burst, out } = Arguments::parse();
    let verdict = demo::run(&Settings { burst, out })?;
    Ok(if verdict { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
