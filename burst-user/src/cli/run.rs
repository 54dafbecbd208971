//! `burst run` and `burst detach`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use rustix::thread::CapabilitySet;
use serde_json::json;

use crate::api::{Client, ClientError};
use crate::exit::{Exit, Failure};
use crate::{config, daemon};

/// Where pins are unless the configuration says otherwise.
pub(super) const PIN_DIR: &str = "/run/burst/bpf";

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

/// Reads the configuration and runs the daemon with it until it is told to stop. `socket` is what the command line says,
/// if it does: the configuration decides.
///
/// # Errors
/// When the configuration is refused, a privilege is missing, or the daemon fails.
pub async fn run(args: &RunArgs, socket: Option<&Path>) -> Result<(), Failure> {
    let loaded = config::load(&args.config)?;
    for problem in loaded.warnings.problems() {
        tracing::warn!(file = %problem.file, line = problem.line, help = problem.help, "{}", problem.message);
    }
    let edge = &loaded.config.edge;
    if let Some(said) = socket.filter(|said| **said != edge.socket) {
        let (said, socket) = (said.display(), edge.socket.display());
        tracing::warn!(%said, %socket, "--socket and BURST_SOCKET are not for the daemon: its socket is edge.socket");
    }
    may(effective()?)?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        edge = edge.name,
        mode = if edge.shadow { "shadow" } else { "active" },
        config = %args.config.display(),
        socket = %edge.socket.display(),
        pin_dir = %edge.pin_dir.display(),
        "starting"
    );
    Ok(daemon::run(&args.config, loaded).await?)
}

/// The capabilities of this process.
fn effective() -> Result<CapabilitySet, Failure> {
    let sets = rustix::thread::capabilities(None);
    let sets = sets.map_err(|error| anyhow::Error::from(error).context("cannot read the capabilities of this process"));
    Ok(sets?.effective)
}

/// Makes sure that nothing is begun that lacks a privilege, and names each that is missing (capabilities(7)).
fn may(effective: CapabilitySet) -> Result<(), Failure> {
    let missing: Vec<_> = [
        ("CAP_BPF", CapabilitySet::BPF | CapabilitySet::SYS_ADMIN),
        ("CAP_PERFMON", CapabilitySet::PERFMON | CapabilitySet::SYS_ADMIN),
        ("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN),
        ("CAP_NET_RAW", CapabilitySet::NET_RAW),
    ]
    .into_iter()
    .filter(|(_, any)| !effective.intersects(*any))
    .map(|(name, _)| name)
    .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let error = anyhow::anyhow!("burst lacks {}; run as root, or give it what is missing", missing.join(", "));
    Err(Exit::Permission.because(error))
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
    let (detached, neighbours) = daemon::detach(&pin_dir).await?;
    if !detached.is_empty() {
        tracing::warn!("flows that were in the cloud are not shifted any more: they end");
    }
    // First what was done: it is done, also when the neighbours could not be given back.
    if json {
        super::print_json(&json!({ "pin_dir": pin_dir, "detached": detached }))?;
    } else if detached.is_empty() {
        super::print(&format!("burst was not attached here (its pins would be in {})\n", pin_dir.display()))?;
    } else {
        super::print(&detached.iter().map(|device| format!("detached from {device}\n")).collect::<String>())?;
    }
    neighbours.map_err(|error| anyhow::Error::from(error).context("the neighbours were not given back").into())
}

/// Makes sure that no daemon answers.
async fn not_running(socket: &Path) -> Result<(), Failure> {
    match Client::new(socket, Duration::from_secs(2)).health().await {
        Err(ClientError::NoSocket { .. } | ClientError::NotListening { .. }) => Ok(()),
        Ok(health) => Err(Exit::AlreadyRunning.because(anyhow::anyhow!(
            "burst is running (process {}, edge {:?}); stop it first: kill {}",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_privilege_that_is_missing_is_named() {
        use CapabilitySet as Has;
        for (has, missing) in [
            (Has::BPF | Has::PERFMON | Has::NET_ADMIN | Has::NET_RAW, None),
            (Has::SYS_ADMIN | Has::NET_ADMIN | Has::NET_RAW, None),
            (Has::BPF | Has::NET_ADMIN | Has::NET_RAW, Some("lacks CAP_PERFMON;")),
            (Has::SYS_ADMIN | Has::NET_ADMIN, Some("lacks CAP_NET_RAW;")),
            (Has::empty(), Some("lacks CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN, CAP_NET_RAW;")),
        ] {
            let failure = may(has).err();
            assert_eq!(failure.is_some(), missing.is_some(), "{has:?}: {failure:?}");
            if let (Some(failure), Some(missing)) = (failure, missing) {
                assert_eq!(failure.exit, Exit::Permission);
                assert!(failure.to_string().contains(missing), "{failure}");
            }
        }
    }
}
