//! The kernel side of the daemon: the object, its maps, pins and attachments. `unsafe` lives in `sys` (raw bpf(2)) and
//! `mapped` (memory-mapped maps) alone.
//!
//! It does not decide anything: what to write comes from `policy`, `slots` and the daemon.

mod attach;
mod bpffs;
mod error;
mod events;
mod install;
mod layout;
mod load;
mod mapped;
mod maps;
mod pins;
mod sys;

pub use attach::{Attached, Attachment};
pub(crate) use error::with_causes;
pub use error::{KernelError, Kind, PRIVILEGES};
pub use events::Events;
pub use install::{Device, Installation, Plan, detach, install};
pub use load::{Instance, Told, load};
pub use mapped::Mapped;
pub use maps::{ClassCounters, Maps};
pub use pins::PinTable;
