//! `burst check`: is this configuration right?

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::config::{self, ConfigError};
use crate::exit::{Exit, Failure};

/// Arguments of `burst check`.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    file: ConfigFile,
}

/// The configuration, named by `-c` or simply by its path.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
struct ConfigFile {
    /// The configuration.
    #[arg(value_name = "FILE")]
    path: Option<PathBuf>,
    /// The configuration.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Checks a file and prints what was found.
///
/// # Errors
/// [`Exit::Config`] when it is refused; the errors are in the failure, or with `json` in the output.
pub fn check(args: &CheckArgs, json: bool) -> Result<(), Failure> {
    let path = args.file.path.as_deref().or(args.file.config.as_deref());
    let path = path.ok_or_else(|| Exit::Usage.because(anyhow::anyhow!("name the configuration: burst check FILE")))?;
    let loaded = config::load(path);
    if json {
        super::print_json(&found(path, &loaded))?;
    }
    match loaded {
        Ok(loaded) if !json => super::print(&summary(path, &loaded)),
        Ok(_) => Ok(()),
        Err(error @ ConfigError::Invalid(_)) if !json => {
            let refused = format!("{error}\n\n{} cannot be run", path.display());
            Err(Exit::Config.because(anyhow::anyhow!(refused)))
        }
        Err(ConfigError::Invalid(found)) => {
            Err(Exit::Config.because(anyhow::anyhow!("{}: errors: {}", path.display(), found.errors())))
        }
        Err(error) => Err(error.into()),
    }
}

fn found(path: &Path, loaded: &Result<config::Loaded, ConfigError>) -> serde_json::Value {
    let (ok, problems) = match loaded {
        Ok(loaded) => (true, loaded.warnings.problems()),
        Err(ConfigError::Invalid(found)) => (false, found.problems()),
        Err(ConfigError::Read { .. }) => (false, Vec::new()),
    };
    json!({ "file": path, "ok": ok, "problems": problems })
}

fn summary(path: &Path, loaded: &config::Loaded) -> String {
    let config = &loaded.config;
    let count = |number: usize, one: &str, many: &str| format!("{number} {}", if number == 1 { one } else { many });
    let kept = config.classes.iter().filter(|class| class.burst.is_none()).count();
    let tiers = || config.classes.iter().filter_map(|class| class.burst.as_ref()).flat_map(|burst| &burst.tiers);
    let endpoints = tiers().map(|tier| tier.endpoint_names().len()).sum();
    let warnings = if loaded.warnings.is_empty() { String::new() } else { format!("{}\n\n", loaded.warnings) };
    format!(
        "{warnings}{} is right: {} kept, {} that may leave, {}, {}\n",
        path.display(),
        count(kept, "class", "classes"),
        config.classes.len() - kept,
        count(config.links.len(), "link", "links"),
        count(endpoints, "endpoint", "endpoints"),
    )
}
