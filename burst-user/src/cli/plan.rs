//! `burst plan`: what a reload would change.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::api::Client;
use crate::api::change::{Change, How, Plan, PlanRequest};
use crate::config::{self, ConfigError};
use crate::exit::{Exit, Failure};

/// Arguments of `burst plan`.
#[derive(Clone, Debug, Args)]
pub struct PlanArgs {
    /// The configuration to hold against the one that runs; the daemon's own file, as it is now, when it is left out.
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Asks the daemon, and prints what would change. Changes nothing.
///
/// # Errors
/// [`Exit::State`] when the configuration could not be loaded, [`Exit::Config`] when it is wrong.
pub async fn plan(args: &PlanArgs, socket: Option<&Path>, json: bool) -> Result<(), Failure> {
    let (request, of_file) = match &args.config {
        None => (PlanRequest::default(), None),
        Some(file) => {
            let loaded = config::load(file)?;
            let read = std::fs::read_to_string(file);
            let text = read.map_err(|source| ConfigError::Read { path: file.clone(), source })?;
            let request = PlanRequest { text: Some(text), file: Some(file.display().to_string()) };
            (request, Some(loaded.config.edge.socket))
        }
    };
    let socket = socket.map(Path::to_owned).or(of_file).unwrap_or_else(|| super::SOCKET.into());
    let plan = Client::new(socket, super::DEADLINE).plan(&request).await?;
    if json {
        super::print_json(&plan)?
    } else {
        super::print(&said(&plan))?
    }
    match plan.refused.len() {
        0 => Ok(()),
        number => {
            Err(Exit::State
                .because(anyhow::anyhow!("{}: refused for {number} reasons; nothing was changed", plan.file)))
        }
    }
}

/// The changes, a line each.
pub(super) fn changes(changes: &[Change]) -> String {
    let line = |change: &Change| {
        let sign = match change.how {
            How::Added => '+',
            How::Removed => '-',
            How::Changed => '~',
        };
        let text = if change.text.is_empty() { String::new() } else { format!(": {}", change.text) };
        format!("  {sign} {} {}{text}\n", change.what, change.name)
    };
    changes.iter().map(line).collect()
}

fn said(plan: &Plan) -> String {
    let mut text = match plan.changes.is_empty() {
        true => format!("{}: nothing changes\n", plan.file),
        false => format!("{} would change:\n{}", plan.file, changes(&plan.changes)),
    };
    if !plan.breaks.is_empty() {
        text += "it would break:\n";
        text += &plan.breaks.iter().map(|what| format!("  {what}\n")).collect::<String>();
    }
    if !plan.refused.is_empty() {
        text += "it is refused:\n";
        let refused = plan.refused.iter().map(|refused| format!("  {}\n    fix: {}\n", refused.message, refused.fix));
        text += &refused.collect::<String>();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::change::Refusal;

    #[test]
    fn a_plan_says_what_changes_what_breaks_and_what_is_refused() {
        let change = |how, what: &str, name: &str, text: &str| Change {
            how,
            what: what.into(),
            name: name.into(),
            text: text.into(),
        };
        let plan = Plan { file: "burst.toml".into(), ..Plan::default() };
        assert_eq!(said(&plan), "burst.toml: nothing changes\n");
        let plan = Plan {
            changes: vec![
                change(How::Changed, "edge", "tick", "250ms → 1s"),
                change(How::Added, "endpoint", "promo/reserved/10.20.0.12", ""),
                change(How::Removed, "link", "dx-2", "device eth2"),
            ],
            breaks: vec!["something".into()],
            refused: vec![Refusal { message: "no".into(), fix: "do".into() }],
            ..plan
        };
        assert_eq!(
            said(&plan),
            "burst.toml would change:\n  ~ edge tick: 250ms → 1s\n  + endpoint promo/reserved/10.20.0.12\n  - link dx-2: device eth2\n\
             it would break:\n  something\nit is refused:\n  no\n    fix: do\n"
        );
    }
}
