//! Bounded waiting: a condition is asked for again and again until it holds or its time is over.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::host;

/// Pause between two questions: short against anything waited for here (a server's start takes 20 ms and more).
const PAUSE: Duration = Duration::from_millis(5);

/// Asks `probe` until it answers `Some`, at most for `within`; on a slow machine ([`host::slowness`]) so much longer.
///
/// # Errors
/// When the time is over, naming `what`, or as soon as `probe` fails.
pub fn until<T>(what: &str, within: Duration, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let within = within * host::slowness();
    let end = Instant::now() + within;
    loop {
        if let Some(value) = probe().with_context(|| format!("waiting for {what}"))? {
            return Ok(value);
        }
        if Instant::now() >= end {
            bail!("waited {within:?} in vain for {what}");
        }
        std::thread::sleep(PAUSE);
    }
}
