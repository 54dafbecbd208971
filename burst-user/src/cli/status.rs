//! `burst status`.

use crate::api::Client;
use crate::exit::Failure;

use super::render::render;

/// Fetches the status and prints it.
///
/// # Errors
/// When the daemon does not answer.
pub async fn status(client: &Client, json: bool) -> Result<(), Failure> {
    let status = client.status().await?;
    if json { super::print_json(&status) } else { super::print(&render(&status)) }
}
