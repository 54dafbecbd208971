//! The burst daemon, controller and command line, as a library, so that tests reach what the binary does.

pub mod config;

pub mod api;
pub mod netlink;
