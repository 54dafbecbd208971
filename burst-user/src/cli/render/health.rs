//! An endpoint's state and its paths, for people.

use super::span;
use crate::api::types::{Endpoint, HealthState, Path};

/// Its state, in a few words.
pub(super) fn state(endpoint: &Endpoint) -> String {
    let via = match (endpoint.reachable, endpoint.links.is_empty()) {
        (true, false) => format!("via {}", endpoint.links.join(", ")),
        (true, true) => "reachable".to_owned(),
        (false, true) => "unreachable: no link is up".to_owned(),
        (false, false) => "unreachable".to_owned(),
    };
    let Some(health) = &endpoint.health else { return via };
    let since = span(health.since_s);
    match health.state {
        HealthState::Unproven => "unproven: no new flows before it has answered".to_owned(),
        HealthState::Healthy => format!("healthy, {via}"),
        HealthState::Failing => format!("FAILING for {since}: no new flows, {via}"),
        HealthState::Suspect => format!("SUSPECT for {since}: no new flows, {via}"),
        HealthState::Dead => format!("DEAD for {since}"),
        HealthState::Unreachable => via,
    }
}

/// A line for each of its paths.
pub(super) fn notes(endpoint: &Endpoint) -> Vec<String> {
    endpoint.health.iter().flat_map(|health| &health.paths).map(path).collect()
}

fn path(path: &Path) -> String {
    let state = match (path.up, path.probed) {
        (true, true) => "up",
        (true, false) => "taken to be up",
        (false, _) => "DOWN",
    };
    let mut text = format!("      over {} {state} for {}: {}", path.link, span(path.since_s), path.why);
    if let Some(latency) = path.latency_s {
        text += &format!(" in {:.1} ms", latency * 1000.0);
    }
    if let Some(age) = path.age_s {
        text += &format!(", {age:.1} s ago");
    }
    text
}
