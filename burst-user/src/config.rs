//! Text → validated configuration, or errors that point into the file.
//!
//! `read` and `leaf` know TOML and types, `schema` knows the keys, `validate` compares the parts with one another and
//! makes the [`model`]. Nothing is opened here but the file itself.

pub mod diagnostics;
pub mod model;
pub mod units;

mod leaf;
mod raw;
mod read;
mod schema;
mod validate;

use std::path::{Path, PathBuf};

use toml::de::DeTable;

use diagnostics::{Diagnostic, Diagnostics, Span};
use model::Config;
use read::{Sink, Table};

/// A configuration that can be run.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What this version does not act on; no errors.
    pub warnings: Diagnostics,
    /// A short mark of its text: the same text has the same, on every host.
    pub mark: String,
}

/// Why a file is not a configuration that can be run.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read the configuration {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is wrong.
    #[error("{0}")]
    Invalid(Diagnostics),
}

/// Reads and checks a file.
///
/// # Errors
/// When it cannot be read, is no UTF-8, or is refused.
pub fn load(path: &Path) -> Result<Loaded, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    parse(&text, &path.display().to_string()).map_err(ConfigError::Invalid)
}

/// Checks `text`, which is shown as `file_name`. Three passes: syntax, then keys and types, then what the parts mean
/// together; each reports all it finds, and the next runs only when the one before found no error.
///
/// # Errors
/// When it is refused; warnings are among the diagnostics then.
pub fn parse(text: &str, file_name: &str) -> Result<Loaded, Diagnostics> {
    let refuse = |list| Diagnostics::new(file_name, text, list);
    let (top, syntax) = DeTable::parse_recoverable(text);
    if !syntax.is_empty() {
        let error = |error: toml::de::Error| {
            let span = error.span().map_or(Span { start: 0, end: 0 }, Span::from);
            let message = match text.get(span.start..span.end) {
                Some(at) if !at.is_empty() && !at.contains('\n') => format!("{}: `{at}`", error.message()),
                _ => error.message().to_owned(),
            };
            Diagnostic::error(span, message).help("the file is TOML, see https://toml.io")
        };
        return Err(refuse(syntax.into_iter().map(error).collect()));
    }
    let sink = Sink::default();
    let file = schema::file(Table::new(top.get_ref(), Span { start: 0, end: 0 }, "the file", &sink));
    let config = match file {
        Some(file) if !sink.failed() => validate::validate(&file, &sink),
        _ => None,
    };
    match config {
        Some(config) if !sink.failed() => {
            let mark = format!("{:016x}", burst_common::hash::seed(text));
            Ok(Loaded { config, warnings: refuse(sink.into_list()), mark })
        }
        _ => Err(refuse(sink.into_list())),
    }
}
