//! Why the daemon cannot start or go on.

use crate::api::BindError;
use crate::kernel::KernelError;
use crate::netlink;
use crate::object::NoObject;
use crate::policy::compile::CompileError;
use crate::policy::ids::IdsError;

/// Why the daemon cannot start or go on. Which exit code that is, [`crate::exit`] knows.
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
