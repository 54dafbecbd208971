//! The kernel side of the daemon: the object, its maps, pins and attachments. `unsafe` lives in `sys` (raw bpf(2)) and
//! `mapped` (memory-mapped maps) alone.
//!
//! It does not decide anything: what to write comes from `policy`, `slots` and the daemon.

mod alone;
mod attach;
mod bpffs;
mod bypass;
mod error;
mod events;
mod install;
mod layout;
mod load;
mod mapped;
mod maps;
mod pinned;
mod pins;
mod steps;
mod sys;

pub use alone::{Action, Alone, Ran};
pub use attach::{Attached, Attachment, Hook};
pub use bypass::{Bypass, Standing};
pub(crate) use error::with_causes;
pub use error::{KernelError, Kind, PRIVILEGES};
pub use events::Events;
pub use install::{Device, Installation, Keep, Plan, detach, install, reinstall};
pub use load::{Instance, Told, load};
pub use mapped::Mapped;
pub use maps::{ClassCounters, Maps};
pub use pinned::{Pinned, Running};
pub use pins::PinTable;
pub(crate) use sys::{give_back_memory, leave_network};

/// How many CPUs this host may have: so many rows the counters have.
fn cpus() -> Result<usize, KernelError> {
    aya::util::nr_cpus()
        .map_err(|(path, error)| KernelError::new(Kind::Other, format!("{path}: {error}"), "is /sys mounted?"))
}
