//! The burst daemon, controller and command line, as a library, so that tests reach what the binary does.
//!
//! Modules are listed in the order in which a decision is made.

pub mod config;
pub mod policy;

pub mod object;

pub mod kernel;
