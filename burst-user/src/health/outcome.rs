//! What a probe found, and what that says of endpoint and path.

use std::fmt;
use std::time::Duration;

/// What became of a probe that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The endpoint answered as it should, within this time.
    Ok(Duration),
    /// It refused the connection.
    Refused,
    /// It reset the connection.
    Reset,
    /// No connection within the deadline.
    Timeout,
    /// A router said that it cannot be reached, or its next hop does not answer.
    Unreachable,
    /// It answered HTTP with a status that is no success.
    Status(u16),
    /// It was connected, and did not answer within the deadline.
    Slow,
    /// It was connected, and what it said is no HTTP.
    Garbled,
}

/// What a prober says of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// A probe was sent through the link.
    Probed(Outcome),
    /// None can be, or it would not vouch for the link: why, and what to do.
    Unprobed(String),
}

/// What an outcome is evidence of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Says {
    /// Path and endpoint are well.
    Well,
    /// The path carries; the endpoint is there, and not well.
    Unwell,
    /// Nothing came back: the path, or the endpoint.
    Silent,
    /// The endpoint says itself that nobody is there.
    Gone,
}

impl Outcome {
    pub(super) const fn says(self) -> Says {
        match self {
            Self::Ok(_) => Says::Well,
            Self::Status(_) | Self::Slow | Self::Garbled => Says::Unwell,
            Self::Timeout | Self::Unreachable => Says::Silent,
            Self::Refused | Self::Reset => Says::Gone,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok(_) => f.write_str("well"),
            Self::Refused => f.write_str("connection refused"),
            Self::Reset => f.write_str("connection reset"),
            Self::Timeout => f.write_str("no connection within the deadline"),
            Self::Unreachable => f.write_str("unreachable"),
            Self::Status(status) => write!(f, "HTTP status {status}"),
            Self::Slow => f.write_str("no answer within the deadline"),
            Self::Garbled => f.write_str("its answer is no HTTP"),
        }
    }
}
