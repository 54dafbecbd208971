//! The burst daemon, controller and command line, as a library, so that tests reach what the binary does.
//!
//! Modules are listed in the order in which a decision is made.

pub mod config;
pub mod policy;

pub mod netlink;
pub mod object;
pub mod kernel;

pub mod decide;
pub mod observe;
pub mod slots;
pub mod health;

pub mod capture;

pub mod api;
pub mod daemon;

pub mod inspect;

pub mod cli;
pub mod exit;
