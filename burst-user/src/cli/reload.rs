//! `burst reload` and `burst confirm`: the daemon reads its file anew, for good or until it is confirmed.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::api::Client;
use crate::api::change::{ReloadRequest, ReloadResponse};
use crate::api::types::Running;
use crate::exit::Failure;

use super::plan::changes;
use super::render::span;

/// How long the command line waits for programs to be loaded: longer than the daemon lets a request wait.
pub(super) const LOADING: Duration = Duration::from_secs(65);

/// Arguments of `burst reload`.
#[derive(Clone, Debug, Args)]
pub struct ReloadArgs {
    /// Go back to the former configuration by itself after this time, 1s to 1d, unless `burst confirm` comes before.
    #[arg(long, value_name = "TIME", value_parser = parse_lasting)]
    pub confirm: Option<Duration>,
    /// The daemon's configuration, which names its socket. It reads the file that it was started with.
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Arguments of `burst confirm`.
#[derive(Clone, Debug, Args)]
pub struct ConfirmArgs {
    /// The daemon's configuration, which names its socket.
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Has the configuration read anew, and prints what changed.
///
/// # Errors
/// When the file is wrong or does not fit, or the daemon could not take it over: then the former configuration runs.
pub async fn reload(client: &Client, args: &ReloadArgs, json: bool) -> Result<(), Failure> {
    let request = ReloadRequest { confirm_s: args.confirm.map(|confirm| confirm.as_secs()) };
    let response = client.reload(&request).await?;
    if json { super::print_json(&response) } else { super::print(&said(&response)) }
}

/// Keeps the last reload.
///
/// # Errors
/// When none waits to be confirmed.
pub async fn confirm(client: &Client, json: bool) -> Result<(), Failure> {
    let running = client.confirm().await?;
    if json { super::print_json(&running) } else { super::print(&format!("confirmed: {}\n", named(&running))) }
}

/// A configuration by its file and mark.
fn named(running: &Running) -> String {
    format!("{} ({}) stays", running.file, running.hash)
}

fn said(response: &ReloadResponse) -> String {
    let Running { file, hash, pending, .. } = &response.config;
    let plan = &response.plan;
    let mut text = format!("{file} ({hash}) runs\n");
    text += &if plan.changes.is_empty() { "  nothing else than before\n".to_owned() } else { changes(&plan.changes) };
    text += &plan.breaks.iter().map(|what| format!("  breaks: {what}\n")).collect::<String>();
    if let Some(pending) = pending {
        let left = span(pending.remaining_s as f64);
        text += &format!("in {left} it goes back to what ran before ({}), unless: burst confirm\n", pending.former);
    }
    text
}

fn parse_lasting(text: &str) -> Result<Duration, String> {
    const RANGE: &str = "give 1s to 1d, in whole seconds, for example 5m";
    let lasting = humantime::parse_duration(text).map_err(|error| format!("{error}; {RANGE}"))?;
    match lasting.as_secs() {
        1..=ReloadRequest::LONGEST_S if lasting.subsec_nanos() == 0 => Ok(lasting),
        _ => Err(RANGE.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_confirm_in_is_whole_seconds_up_to_a_day() {
        for (text, seconds) in [("1s", Some(1)), ("5m", Some(300)), ("1d", Some(86_400))] {
            assert_eq!(parse_lasting(text).ok().map(|time| time.as_secs()), seconds, "{text}");
        }
        for text in ["0s", "25h", "1500ms", "soon"] {
            assert!(parse_lasting(text).expect_err(text).contains("give 1s to 1d"), "{text}");
        }
    }
}
