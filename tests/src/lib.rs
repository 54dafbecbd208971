//! The testbed: real namespaces, real links, real servers and a real HTTP client around the edge host, for the
//! namespace tests and the demo. It holds everything but burst itself, which is started in it as any other process.
//!
//! Everything the testbed makes is a guard: namespaces, processes, mounts and directories go when it is dropped, also
//! while a panic unwinds and on Ctrl-C; what a killed run left is removed at the start of the next ([`cleanup`]).

pub mod poll;

pub mod cleanup;
pub mod host;

pub mod dir;
pub mod netns;
pub mod process;

pub mod link;
pub mod topology;

pub mod body;
pub mod client;
pub mod load;
pub mod servers;

pub mod packet;
pub mod svg;
