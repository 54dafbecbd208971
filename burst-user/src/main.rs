//! The burst binary: the command line, and the daemon behind `burst run`.

use std::process::ExitCode;

use burst::config::model::Config;
use burst::exit::Failure;

fn main() -> ExitCode {
    burst::cli::main(daemon)
}

/// Runs the daemon on one thread: its tasks wait far more than they work, and the one that owns the maps is never
/// interrupted.
fn daemon(config: Config) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(anyhow::Error::from)?;
    runtime.block_on(burst::daemon::run(&config)).map_err(|error| anyhow::Error::from(error).into())
}
