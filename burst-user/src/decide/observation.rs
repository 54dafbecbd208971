//! What the controller is told: counters, readings, reachability, overrides. Plain values; nothing here judges them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Everything that was seen by one tick. Indices are those of the configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observation {
    /// One per class of the configuration, `keep` classes included.
    pub classes: Vec<ClassObservation>,
    /// One per link of the configuration.
    pub links: Vec<LinkState>,
}

/// What was seen of a class.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClassObservation {
    /// Flows opened since the counters began, a repeated SYN counted again. May start again from zero.
    pub openers: u64,
    /// Those of them that stayed local.
    pub openers_local: u64,
    /// One per load source of the class: its latest reading, `None` when there is none.
    pub readings: Vec<Option<Reading>>,
    /// One per endpoint, in the order of the tiers and of the endpoints in them
    /// ([`crate::config::model::Tier::endpoint_names`]): whether it has at least one
    /// usable link and takes new flows.
    pub reachable: Vec<bool>,
    /// The share that an operator set.
    pub forced: Option<Override>,
}

/// A value that a load source yielded.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// As the source says it; the controller divides it by the source's limit.
    pub value: f64,
    /// How long ago it was read.
    pub age: Duration,
}

/// What was seen of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkState {
    /// Carrier present and next hop resolved.
    pub up: bool,
}

/// A share that an operator set.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Override {
    /// Share of new flows that leave, 0–1; clamped to it. Safety rules still win.
    pub offsite: f64,
    /// When it ends, on the clock of [`crate::decide::Controller::step`].
    pub until: Duration,
}
