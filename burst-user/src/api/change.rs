//! What the API says of another configuration: what it would change, and what became of it. As in [`super::types`], fields are
//! added, never renamed.

use serde::{Deserialize, Serialize};

use super::types::Running;

/// A configuration to be held against the one that runs: the body of `POST /v1/plan`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanRequest {
    /// Its text; left out: what is in the daemon's own file now.
    #[serde(default)]
    pub text: Option<String>,
    /// What the text is called where something is wrong in it.
    #[serde(default)]
    pub file: Option<String>,
}

/// What a reload with that configuration would change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The file.
    pub file: String,
    /// Mark of its text.
    pub hash: String,
    /// Mark of the configuration that runs.
    pub running: String,
    /// What is other than now.
    pub changes: Vec<Change>,
    /// Why it cannot be loaded; nothing, when it can.
    pub refused: Vec<Refusal>,
    /// What it would break although it can be loaded.
    pub breaks: Vec<String>,
}

/// One thing that is other than now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What becomes of it.
    pub how: How,
    /// What it is: `edge`, `link`, `class`, `rule`, `tier`, `endpoint`, `load`.
    pub what: String,
    /// Its name, with those of what it is part of.
    pub name: String,
    /// What is said of it now, and what then.
    pub text: String,
}

/// What becomes of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// It is new.
    Added,
    /// It is no more.
    Removed,
    /// It is another.
    Changed,
}

/// Why a configuration cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub fix: String,
}

/// That the daemon is to read its file anew: the body of `POST /v1/reload`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReloadRequest {
    /// Go back by itself after so many seconds, unless it is confirmed: 1 to [`ReloadRequest::LONGEST_S`]. Left out: it stays.
    #[serde(default)]
    pub confirm_s: Option<u64>,
}

impl ReloadRequest {
    /// A day.
    pub const LONGEST_S: u64 = 24 * 3600;
}

/// What a reload did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReloadResponse {
    /// What changed.
    pub plan: Plan,
    /// What runs now.
    pub config: Running,
}
