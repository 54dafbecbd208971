//! The burst binary.

use std::process::ExitCode;

use burst::config::model::Config;
use burst::exit::{Exit, Failure};

fn main() -> ExitCode {
    burst::cli::main(daemon)
}

/// Runs the daemon.
fn daemon(_config: Config) -> Result<(), Failure> {
    Err(Exit::Unsupported.because(anyhow::anyhow!("this build has no daemon")))
}
