//! What the kernel says about devices and neighbours, by rtnetlink.
//!
//! Here: a device by name, addresses, switches of the kernel; the next hops of the links, which the kernel is asked to
//! resolve and to keep fresh; the router that the routing tables send the clients' packets to, if they have one way; by which
//! device they send the endpoints of links that they pick the way of; and
//! one task that follows the kernel's events and always holds the present [`NetState`]. Not here: anything that is written
//! into maps.

mod client;
mod device;
mod offload;
mod neighbour;
mod sysctl;
mod raw;
mod routes;
mod gateway;
mod routed;
mod state;
mod clients;
mod watch;

pub use client::{Error, Netlink};
pub use clients::{ClientState, ClientVlan, Gateway, Router};
pub use device::{Device, Vlan};
pub use gateway::Lookup;
pub use neighbour::{Neighbour, Owner, Resolution};
pub use routed::Targets;
pub use state::{LinkState, NetState, Why};
pub use sysctl::{Family, checks_sources, forwarding, sends_on};
pub use watch::{Watch, watch};
