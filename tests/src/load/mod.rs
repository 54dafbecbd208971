//! Load: many short connections at a rate that can be changed ([`Load`]), and connections that are held and must
//! never break ([`Held`]). Both run real HTTP over real TCP, on a thread in the clients' namespace.

mod generator;
mod held;
mod stats;

pub use generator::{Load, Plan};
pub use held::{Held, HeldPlan, Line};
pub use stats::{Latency, Snapshot};
