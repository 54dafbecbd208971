//! What a packet means.
//!
//! This crate holds what the XDP program and the daemon must agree on: the layout of every map value (the
//! ABI, proven at compile time), the policy tables that are compiled into the program, and the pure logic of
//! the packet path that decides on values. It does not hold packet pointers, maps, clocks or IO.
//!
//! Modules are listed in the order in which a packet meets them.

#![cfg_attr(not(test), no_std)]

mod proof;

pub mod forget;

pub mod limits;

pub mod flow;
pub mod policy;
// `classify` reads the policy; `slot`, `place` and `pin` decide where a flow goes; `endpoint` and `link` say how.
pub mod classify;
pub mod hash;
pub mod slot;
pub mod place;
pub mod pin;
pub mod repeat;
pub mod admission;
pub mod endpoint;
pub mod link;
pub mod gateway;
pub mod returns;
pub mod checksum;
pub mod reason;
pub mod counter;
pub mod event;
pub mod report;
pub mod control;
pub mod tables;
pub mod meta;
