//! Weights → slots, and the life of a slot from one endpoint to the next.
//!
//! Pure: words in, words out. Who reads the live map and the pins, and who publishes, is elsewhere; time comes in as a
//! parameter.

mod rendezvous;
mod sweep;
mod table;

#[cfg(test)]
mod schedules;
#[cfg(test)]
mod tests;

pub use rendezvous::{Candidate, achieved, assign, key, space};
pub use sweep::{Mark, Sweep};
pub use table::{Group, GroupId, Summary, Table, Write};
