//! What can go wrong with the kernel, and what the operator can do about it.

use std::fmt;

/// What to do about a missing privilege.
pub const PRIVILEGES: &str = "run as root, or with CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN and CAP_NET_RAW";

/// A failure of the kernel side: what happened, and how to fix it.
#[derive(Debug, thiserror::Error)]
pub struct KernelError {
    /// What kind of failure; decides the exit code.
    pub kind: Kind,
    /// What happened.
    pub message: String,
    /// What to do about it.
    pub fix: String,
}

/// Kinds of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A privilege is missing.
    Permission,
    /// The kernel, or this build, cannot do what is needed.
    Unsupported,
    /// A device is missing, or something else is attached to it.
    Device,
    /// Pinned state does not fit this version or this configuration.
    State,
    /// Another daemon works with the same state.
    Busy,
    /// Anything else.
    Other,
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        if !self.fix.is_empty() {
            write!(f, "\n  fix: {}", self.fix)?;
        }
        Ok(())
    }
}

impl KernelError {
    /// A failure with its remedy.
    pub(crate) fn new(kind: Kind, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { kind, message: message.into(), fix: fix.into() }
    }

    /// A failed system call: a missing privilege if the errno says so, else [`Kind::Other`].
    pub(crate) fn os(what: impl fmt::Display, error: &std::io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::new(Kind::Permission, format!("{what}: {error}"), PRIVILEGES),
            errno => Self::new(Kind::Other, format!("{what}: {error}"), remedy(errno)),
        }
    }
}

/// What helps against failures of system calls that say nothing of burst; empty where nothing general does.
pub(crate) fn remedy(errno: Option<i32>) -> &'static str {
    match errno {
        Some(libc::EPERM | libc::EACCES) => PRIVILEGES,
        Some(libc::ENOMEM) => "the maps need memory: free some, or raise the limit of burst's cgroup",
        Some(libc::EMFILE | libc::ENFILE) => "raise the limit of open files (`ulimit -n`, LimitNOFILE=)",
        Some(libc::ENODEV) => "a device went away: see `ip link` in this network namespace",
        Some(libc::ENOENT) => "was it removed meanwhile? `burst detach`, and start anew",
        Some(libc::EBUSY) => "another process uses it: see that no other burst runs, and try again",
        _ => "",
    }
}

/// An error and its causes in one line, as `{:#}` of anyhow, but without those that are said already: many errors, of
/// other crates too, name their cause themselves.
pub(crate) fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut said = error.to_string();
    for cause in causes(error).skip(1).map(ToString::to_string) {
        if !said.contains(&cause) {
            said.push_str(": ");
            said.push_str(&cause);
        }
    }
    said
}

/// An error, its cause, the cause of that and so on.
pub(crate) fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

/// The errno of the first cause that has one.
pub(crate) fn errno(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    causes(error).find_map(|cause| cause.downcast_ref::<std::io::Error>()?.raw_os_error())
}
