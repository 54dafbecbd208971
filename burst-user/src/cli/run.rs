//! `burst run` and `burst detach`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::api::{Client, ClientError};
use crate::exit::{Exit, Failure};
use crate::{config, daemon};

/// Where pins are unless the configuration says otherwise.
const PIN_DIR: &str = "/run/burst/bpf";

/// Arguments of `burst run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// The configuration.
    #[arg(short, long, value_name = "FILE")]
    pub config: PathBuf,
}

/// Arguments of `burst detach`.
#[derive(Clone, Debug, Args)]
pub struct DetachArgs {
    /// The configuration that says where the pins are.
    #[arg(short, long, value_name = "FILE", conflicts_with = "pin_dir")]
    pub config: Option<PathBuf>,
    /// The directory of the pins; /run/burst/bpf when neither is given.
    #[arg(long, value_name = "DIR")]
    pub pin_dir: Option<PathBuf>,
}

/// Reads the configuration and runs the daemon with it until it is told to stop.
///
/// # Errors
/// When the configuration is refused, or the daemon fails.
pub async fn run(args: &RunArgs) -> Result<(), Failure> {
    let loaded = config::load(&args.config)?;
    for problem in loaded.warnings.problems() {
        tracing::warn!(file = %problem.file, line = problem.line, help = problem.help, "{}", problem.message);
    }
    let edge = &loaded.config.edge;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        edge = edge.name,
        mode = if edge.shadow { "shadow" } else { "active" },
        config = %args.config.display(),
        socket = %edge.socket.display(),
        pin_dir = %edge.pin_dir.display(),
        "starting"
    );
    Ok(daemon::run(&loaded.config).await?)
}

/// Removes programs, links, maps and pins, and gives back the neighbours, of this network namespace.
///
/// # Errors
/// [`Exit::AlreadyRunning`] while a daemon answers, which would go on working with what was removed; else the kernel's.
pub async fn detach(args: &DetachArgs, socket: &Path, json: bool) -> Result<(), Failure> {
    let (pin_dir, socket) = match (&args.config, &args.pin_dir) {
        (Some(file), _) => {
            let edge = config::load(file)?.config.edge;
            (edge.pin_dir, edge.socket)
        }
        (None, Some(directory)) => (directory.clone(), socket.to_owned()),
        (None, None) => (PathBuf::from(PIN_DIR), socket.to_owned()),
    };
    not_running(&socket).await?;
    let detached = daemon::detach(&pin_dir).await?;
    if json {
        return super::print_json(&json!({ "pin_dir": pin_dir, "detached": detached }));
    }
    if detached.is_empty() {
        return super::print(&format!("burst was not attached here (its pins would be in {})\n", pin_dir.display()));
    }
    super::print(&detached.iter().map(|device| format!("detached from {device}\n")).collect::<String>())
}

/// Makes sure that no daemon answers.
async fn not_running(socket: &Path) -> Result<(), Failure> {
    match Client::new(socket, Duration::from_secs(2)).health().await {
        Err(ClientError::NoSocket { .. } | ClientError::NotListening { .. }) => Ok(()),
        Ok(health) => Err(Exit::AlreadyRunning.because(anyhow::anyhow!(
            "burst is running (process {}, edge {:?}); stop it first: kill {}, or systemctl stop burst",
            health.pid,
            health.edge,
            health.pid
        ))),
        Err(error @ ClientError::Permission { .. }) => Err(error.into()),
        Err(error) => {
            let context = "a daemon may be running; stop it before detaching";
            Err(Exit::AlreadyRunning.because(anyhow::Error::from(error).context(context)))
        }
    }
}
