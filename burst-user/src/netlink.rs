//! What the kernel says about devices and neighbours, by rtnetlink.
//!
//! Here: a device by name, addresses, the forwarding switch; the next hops of the links, which the kernel is asked to
//! resolve and to keep fresh; and one task that follows the kernel's events and always holds the present [`NetState`].
//! Not here: routes, and anything that is written into maps.

mod client;
mod device;
mod neighbour;
mod state;
mod sysctl;
mod watch;

pub use client::{Error, Netlink};
pub use device::{Device, Vlan};
pub use neighbour::{Neighbour, Owner, Resolution};
pub use state::{ClientState, LinkState, NetState, Why};
pub use sysctl::{Family, forwarding};
pub use watch::{Watch, watch};
