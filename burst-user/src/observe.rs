//! Load sources: each a task that reads one value, again and again, with a deadline, and publishes the latest.
//!
//! What a value means (its limit, its staleness, which of several counts) is decided in [`crate::decide`]; here it is
//! read and dated. A failed read publishes no value: the last one stays and ages, and the error is kept for `status`.

mod haproxy;
mod http;
mod metrics;
mod source;
mod text;

pub mod answers;

pub use source::{Source, SourceStatus, Sources};

use crate::config::model::{Class, LoadSource};
use tokio::sync::watch;

/// Why a read yielded no value.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source could not be reached, or the exchange broke off.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// HTTP went wrong below the level of an answer.
    #[error("GET {url}: {source}")]
    Http {
        /// The address that was asked for.
        url: String,
        /// What hyper said.
        source: hyper::Error,
    },
    /// The answer is none that a value can be read from.
    #[error("{0}")]
    Answer(String),
    /// The configured address is none.
    #[error("`{url}` is no address to scrape: {why}; write http://HOST:PORT/PATH")]
    Url {
        /// The address.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// No answer within the deadline.
    #[error("no answer within {0:?}")]
    Deadline(std::time::Duration),
}

impl Error {
    fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        |source| Self::Io { what, source }
    }
}

/// Starts a task for every load source of `classes` (the configuration's, `keep` classes included). They end when
/// `shutdown` turns true or its sender is dropped, and when the handle is dropped. Must be called within a tokio runtime
/// that has IO and time.
#[must_use]
pub fn spawn(classes: &[Class], shutdown: &watch::Receiver<bool>) -> Sources {
    let sources = |class: &Class| {
        let load: &[LoadSource] = class.burst.as_ref().map_or(&[], |burst| &burst.local.load);
        load.iter().map(|source| Source::spawn(source, shutdown.clone())).collect()
    };
    Sources::new(classes.iter().map(sources).collect())
}

/// The clock that readings are dated by.
#[expect(clippy::disallowed_methods, reason = "a reading is dated where it is made")]
fn clock() -> tokio::time::Instant {
    tokio::time::Instant::now()
}
