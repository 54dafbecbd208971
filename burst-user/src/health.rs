//! Health: a matrix of endpoints × links, from probes of each endpoint through each link it is reached by.
//!
//! [`Matrix`] is a state machine without IO or clock: outcomes and link states in, with the time; out comes which links an
//! endpoint is not to be used over, whether it takes new flows, and whether it is dead. [`Probers`] are the
//! tasks that probe. Who acts on it is in [`crate::daemon`].

mod outcome;
mod path;
mod member;
mod matrix;

mod probe;
mod probers;

#[cfg(test)]
mod tests;

pub use matrix::{Event, Matrix, PathView, Place, Spec};
pub use member::State;
pub use outcome::{Outcome, Report};
pub use path::Voice;
pub use probers::{Found, Probers, Target, spawn};
