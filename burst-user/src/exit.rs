//! Exit codes, and a failure that knows its own.

use std::process::ExitCode;

use crate::api::{BindError, ClientError};
use crate::capture::CaptureError;
use crate::daemon;
use crate::inspect::InspectError;
use crate::kernel::{KernelError, Kind, with_causes};

/// How the command ended. Numbers are never given another meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// Something failed that should not; a defect, or this host.
    Internal = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The configuration is wrong or cannot be read.
    Config = 3,
    /// A privilege is missing.
    Permission = 4,
    /// The kernel, or this build, cannot do what is needed.
    Unsupported = 5,
    /// A device is missing, or another XDP program is on it.
    Device = 6,
    /// The daemon does not run or does not answer.
    NotRunning = 7,
    /// The daemon refuses: no such class, and the like.
    Refused = 8,
    /// What is pinned does not fit this version or this configuration.
    State = 9,
    /// Another daemon is running.
    AlreadyRunning = 10,
    /// A capture cannot be opened or read.
    Input = 11,
    /// A file is no capture, or one of packets of no use.
    NotACapture = 12,
    /// A capture breaks off within a packet: what came before it was looked at.
    Damaged = 13,
    /// A file cannot be written.
    Output = 14,
    /// Nobody said yes to what breaks connections.
    Unconfirmed = 15,
}

/// For `--help`.
pub const TABLE: &str = "\
Exit codes:
   0  done
   1  something failed that should not
   2  the command line is wrong
   3  the configuration is wrong or cannot be read
   4  a privilege is missing
   5  the kernel, or this build, cannot do what is needed
   6  a device is missing, or another XDP program is on it
   7  the daemon does not run or does not answer
   8  the daemon refuses: no such class, and the like
   9  what is pinned does not fit this version or this configuration
  10  another daemon is running
  11  a capture cannot be opened or read
  12  a file is no capture, or one of packets of no use
  13  a capture breaks off within a packet: what came before it was looked at
  14  a file cannot be written
  15  nobody said yes to what breaks connections";

impl Exit {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 16] = [
        Self::Ok,
        Self::Internal,
        Self::Usage,
        Self::Config,
        Self::Permission,
        Self::Unsupported,
        Self::Device,
        Self::NotRunning,
        Self::Refused,
        Self::State,
        Self::AlreadyRunning,
        Self::Input,
        Self::NotACapture,
        Self::Damaged,
        Self::Output,
        Self::Unconfirmed,
    ];

    /// The number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Internal => "internal",
            Self::Usage => "usage",
            Self::Config => "config",
            Self::Permission => "permission",
            Self::Unsupported => "unsupported",
            Self::Device => "device",
            Self::NotRunning => "not-running",
            Self::Refused => "refused",
            Self::State => "state",
            Self::AlreadyRunning => "already-running",
            Self::Input => "input",
            Self::NotACapture => "not-a-capture",
            Self::Damaged => "damaged",
            Self::Output => "output",
            Self::Unconfirmed => "unconfirmed",
        }
    }

    /// A failure that ends the command with this code.
    pub fn because(self, error: impl Into<anyhow::Error>) -> Failure {
        Failure { exit: self, error: error.into() }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.number())
    }
}

/// Why a command ended, and with which code.
#[derive(Debug, thiserror::Error)]
#[error("{}", with_causes(error.as_ref()))]
pub struct Failure {
    /// The code.
    pub exit: Exit,
    /// The reason, with its context.
    pub error: anyhow::Error,
}

impl From<anyhow::Error> for Failure {
    /// Finds the code by the first cause that has one.
    fn from(error: anyhow::Error) -> Self {
        let code = |cause: &(dyn std::error::Error + 'static)| {
            let kernel = cause.downcast_ref::<KernelError>().map(|error| of_kind(error.kind));
            let client = || cause.downcast_ref().map(of_client);
            let bind = || cause.downcast_ref().map(of_bind);
            let netlink = || cause.downcast_ref().map(of_netlink);
            let daemon = || cause.downcast_ref().map(of_daemon);
            let config = || cause.downcast_ref::<crate::config::ConfigError>().map(|_| Exit::Config);
            let capture = || cause.downcast_ref().map(of_capture);
            let inspect = || cause.downcast_ref().map(of_inspect);
            let known = kernel.or_else(client).or_else(bind).or_else(netlink).or_else(daemon).or_else(config);
            known.or_else(capture).or_else(inspect)
        };
        Self { exit: error.chain().find_map(code).unwrap_or(Exit::Internal), error }
    }
}

macro_rules! failure_from {
    ($($error:ty),+ $(,)?) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                anyhow::Error::from(error).into()
            }
        })+
    };
}
failure_from!(
    KernelError,
    ClientError,
    BindError,
    crate::netlink::Error,
    crate::config::ConfigError,
    daemon::Error,
    CaptureError,
    InspectError,
);

const fn of_kind(kind: Kind) -> Exit {
    match kind {
        Kind::Permission => Exit::Permission,
        Kind::Unsupported => Exit::Unsupported,
        Kind::Device => Exit::Device,
        Kind::State => Exit::State,
        Kind::Busy => Exit::AlreadyRunning,
        Kind::Other => Exit::Internal,
    }
}

fn of_daemon(error: &daemon::Error) -> Exit {
    match error {
        daemon::Error::Bind(error) => of_bind(error),
        daemon::Error::Netlink(error) => of_netlink(error),
        daemon::Error::Kernel(error) => of_kind(error.kind),
        daemon::Error::NoObject(_) => Exit::Unsupported,
        daemon::Error::Ids(_) => Exit::State,
        daemon::Error::Compile(_) => Exit::Config,
        daemon::Error::NetlinkEnded | daemon::Error::Signal(_) => Exit::Internal,
    }
}

fn of_client(error: &ClientError) -> Exit {
    use crate::api::Code;
    match error {
        ClientError::Permission { .. } => Exit::Permission,
        ClientError::Api(error) if matches!(error.code, Code::Unavailable) => Exit::NotRunning,
        ClientError::Api(error) if matches!(error.code, Code::Internal | Code::Failed) => Exit::Internal,
        ClientError::Api(error) if matches!(error.code, Code::BadConfig) => Exit::Config,
        ClientError::Api(error) if matches!(error.code, Code::DoesNotFit) => Exit::State,
        ClientError::Api(_) => Exit::Refused,
        ClientError::NoSocket { .. }
        | ClientError::NotListening { .. }
        | ClientError::Deadline { .. }
        | ClientError::Broken { .. } => Exit::NotRunning,
        ClientError::Protocol { .. } => Exit::State,
    }
}

fn of_bind(error: &BindError) -> Exit {
    match error {
        BindError::Running { .. } => Exit::AlreadyRunning,
        BindError::NotASocket { .. } => Exit::Config,
        BindError::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => Exit::Permission,
        BindError::Io { .. } => Exit::Internal,
    }
}

fn of_netlink(error: &crate::netlink::Error) -> Exit {
    match error {
        error if error.is_permission() => Exit::Permission,
        crate::netlink::Error::NoDevice { .. } => Exit::Device,
        _ => Exit::Internal,
    }
}

fn of_capture(error: &CaptureError) -> Exit {
    match error {
        CaptureError::Read { .. } => Exit::Input,
        CaptureError::NotACapture { .. } | CaptureError::LinkType { .. } => Exit::NotACapture,
        CaptureError::Truncated { .. } | CaptureError::Damaged { .. } => Exit::Damaged,
        CaptureError::Write { .. } => Exit::Output,
    }
}

fn of_inspect(error: &InspectError) -> Exit {
    match error {
        InspectError::Nothing { .. } => Exit::NotRunning,
        InspectError::Unknown { .. } | InspectError::Usage(_) => Exit::Usage,
        InspectError::Kernel(error) => of_kind(error.kind),
        InspectError::Ids(_) => Exit::State,
        InspectError::Compile(_) => Exit::Config,
        InspectError::NoObject(_) => Exit::Unsupported,
        InspectError::Disagree(_) => Exit::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn the_table_lists_every_code_once_and_in_order() {
        let listed: Vec<u8> = TABLE.lines().skip(1).map(|line| line[..4].trim().parse().expect("a number")).collect();
        assert_eq!(listed, Exit::ALL.map(Exit::number));
        assert!(Exit::ALL.iter().enumerate().all(|(place, exit)| usize::from(exit.number()) == place));
    }

    #[test]
    fn a_cause_is_said_once_and_a_missing_privilege_has_its_fix() {
        let denied = || std::io::Error::from_raw_os_error(libc::EACCES);
        let path = || "/run/burst".into();
        let refused = crate::netlink::Error::Refused { what: "list devices".into(), source: denied() };
        for failure in [
            Failure::from(BindError::Io { what: "make the directory", path: path(), source: denied() }),
            Failure::from(daemon::Error::Netlink(refused)),
        ] {
            let said = failure.to_string();
            assert_eq!(said.matches("Permission denied (os error 13)").count(), 1, "{said}");
            assert_eq!(said.matches("\n  fix: run as root").count(), 1, "{said}");
        }
        let missing = std::io::Error::from_raw_os_error(libc::ENOENT);
        let unread = crate::config::ConfigError::Read { path: "burst.toml".into(), source: missing };
        let said = Failure::from(unread).to_string();
        assert_eq!(said, "cannot read the configuration burst.toml: No such file or directory (os error 2)");
        // A cause that is not said yet is said.
        let hidden = anyhow::Error::from(denied()).context("while starting");
        assert_eq!(Failure::from(hidden).to_string(), "while starting: Permission denied (os error 13)");
    }

    #[test]
    fn a_failure_finds_its_code_under_its_context() {
        let path = || "/run/burst/burst.sock".into();
        let denied = || std::io::Error::from_raw_os_error(libc::EACCES);
        let kernel = |kind| KernelError { kind, message: String::new(), fix: String::new() };
        let too_many = || crate::policy::compile::CompileError::TooManyPrefixes { dimension: "dst", prefixes: 99_999 };
        let api = |code| ClientError::Api(crate::api::ApiError::new(code, "", ""));
        for (error, exit) in [
            (ClientError::NoSocket { path: path() }.into(), Exit::NotRunning),
            (ClientError::Permission { path: path() }.into(), Exit::Permission),
            (api(crate::api::Code::UnknownClass).into(), Exit::Refused),
            (api(crate::api::Code::Unavailable).into(), Exit::NotRunning),
            (BindError::Running { path: path() }.into(), Exit::AlreadyRunning),
            (BindError::Io { what: "bind", path: path(), source: denied() }.into(), Exit::Permission),
            (crate::netlink::Error::NoDevice { name: "eth9".into() }.into(), Exit::Device),
            (kernel(Kind::State).into(), Exit::State),
            (daemon::Error::Bind(BindError::Running { path: path() }).into(), Exit::AlreadyRunning),
            (daemon::Error::Netlink(crate::netlink::Error::NoDevice { name: "eth9".into() }).into(), Exit::Device),
            (daemon::Error::Kernel(kernel(Kind::Device)).into(), Exit::Device),
            (daemon::Error::NetlinkEnded.into(), Exit::Internal),
            (daemon::Error::NoObject(crate::object::NoObject).into(), Exit::Unsupported),
            (daemon::Error::Compile(too_many()).into(), Exit::Config),
            (CaptureError::Read { path: path(), source: denied() }.into(), Exit::Input),
            (CaptureError::NotACapture { path: path(), why: "" }.into(), Exit::NotACapture),
            (CaptureError::LinkType { path: path(), packet: 1, number: 105 }.into(), Exit::NotACapture),
            (CaptureError::Truncated { path: path(), packet: 1 }.into(), Exit::Damaged),
            (CaptureError::Write { path: path(), source: denied() }.into(), Exit::Output),
            (InspectError::Nothing { pin_dir: path() }.into(), Exit::NotRunning),
            (InspectError::Usage(String::new()).into(), Exit::Usage),
            (InspectError::Kernel(kernel(Kind::Permission)).into(), Exit::Permission),
            (InspectError::Compile(too_many()).into(), Exit::Config),
            (InspectError::Disagree(vec![]).into(), Exit::Internal),
            (anyhow::anyhow!("nobody knows"), Exit::Internal),
        ] {
            let error: anyhow::Error = error;
            let said = format!("{error:?}");
            let failure = Failure::from(Err::<(), _>(error).context("while starting").unwrap_err());
            assert_eq!(failure.exit, exit, "{said}");
            assert!(failure.to_string().starts_with("while starting"), "{failure}");
        }
    }
}
