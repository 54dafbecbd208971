//! Why the daemon cannot start or go on.

use crate::api::BindError;
use crate::kernel::{KernelError, Kind};
use crate::netlink;
use crate::object::NoObject;
use crate::policy::compile::CompileError;
use crate::policy::ids::IdsError;

/// Why the daemon cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API's socket.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The kernel side.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// No BPF object in this binary.
    #[error(transparent)]
    NoObject(#[from] NoObject),
    /// Devices and neighbours.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// The task that follows devices and neighbours was lost.
    #[error("devices and neighbours are no longer followed: the task ended")]
    NetlinkEnded,
    /// The configuration does not fit the state.
    #[error(transparent)]
    Ids(#[from] IdsError),
    /// The configuration does not compile.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// No signal handler.
    #[error("cannot listen for signals: {0}")]
    Signal(std::io::Error),
}

impl Error {
    /// The kind of failure that decides the exit code; `None` for a second daemon, which has its own.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Self::Bind(BindError::Running { .. }) => None,
            Self::Bind(BindError::Io { source, .. }) if source.kind() == std::io::ErrorKind::PermissionDenied => {
                Some(Kind::Permission)
            }
            Self::Bind(_) | Self::Signal(_) | Self::NetlinkEnded | Self::Compile(_) => Some(Kind::Other),
            Self::Kernel(error) => Some(error.kind),
            Self::NoObject(_) => Some(Kind::Unsupported),
            Self::Netlink(error) if error.is_permission() => Some(Kind::Permission),
            Self::Netlink(_) => Some(Kind::Other),
            Self::Ids(_) => Some(Kind::State),
        }
    }
}
