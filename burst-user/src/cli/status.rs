//! `burst status`.

use std::path::PathBuf;

use clap::Args;

use crate::api::Client;
use crate::exit::Failure;

use super::render::render;

/// Arguments of `burst status`.
#[derive(Clone, Debug, Args)]
pub struct StatusArgs {
    /// The daemon's configuration, which names its socket.
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Fetches the status and prints it.
///
/// # Errors
/// When the daemon does not answer.
pub async fn status(client: &Client, json: bool) -> Result<(), Failure> {
    let status = client.status().await?;
    if json { super::print_json(&status) } else { super::print(&render(&status)) }
}
