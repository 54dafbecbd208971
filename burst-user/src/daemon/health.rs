//! Health in the daemon: which endpoints are probed over which links, what of it goes to whom, and what the log says.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::error::Error;
use crate::api::types as api;
use crate::config::model::{Config, Tier};
use crate::decide::{ClassDecision, Decision};
use crate::health::{self, Event, Found, Matrix, Outcome, PathView, Place, Probers, Spec, State, Target, Voice};
use crate::netlink::NetState;

/// The endpoints that are probed, and what is known of them.
pub(super) struct Health {
    matrix: Matrix,
    /// Per endpoint of the matrix: where it is in the configuration.
    probed: Vec<Probed>,
    /// Those that died since they were asked for last.
    deaths: Vec<usize>,
    /// Reports are taken from here, once.
    reports: Option<mpsc::Receiver<Found>>,
    _probers: Probers,
}

/// An endpoint that is probed.
struct Probed {
    /// Class, and number among the endpoints of the class.
    at: (usize, usize),
    /// Number among all endpoints of the configuration.
    number: usize,
    address: IpAddr,
    /// Numbers of its links in the configuration.
    links: Vec<usize>,
}

impl Health {
    /// Starts to probe what the configuration says is to be probed; `unproven` are those, by their number in the
    /// configuration, that no flow is with.
    pub(super) fn start(
        config: &Config,
        unproven: &BTreeSet<usize>,
        net: &watch::Receiver<NetState>,
        shutdown: &watch::Receiver<bool>,
    ) -> Result<Self, Error> {
        let (specs, probed) = probed(config, unproven);
        let hops = |links: &[usize]| links.iter().map(|&link| (link, config.links[link].next_hop)).collect();
        let target =
            |(spec, probed): (_, &Probed)| Target { spec, address: probed.address, links: hops(&probed.links) };
        let targets: Vec<_> = specs.iter().zip(&probed).map(target).collect();
        let (probers, reports) = health::spawn(&targets, net, shutdown)?;
        let matrix = Matrix::new(Duration::ZERO, specs);
        Ok(Self { matrix, probed, deaths: Vec::new(), reports: Some(reports), _probers: probers })
    }

    /// The same in place of another configuration's: what was known of endpoints that are probed as before is still known.
    pub(super) fn restart(
        &self,
        config: &Config,
        unproven: &BTreeSet<usize>,
        net: &watch::Receiver<NetState>,
        shutdown: &watch::Receiver<bool>,
    ) -> Result<Self, Error> {
        let mut health = Self::start(config, unproven, net, shutdown)?;
        health.matrix.resume(&self.matrix);
        Ok(health)
    }

    /// What the probers report; the second time, nothing.
    pub(super) fn reports(&mut self) -> mpsc::Receiver<Found> {
        self.reports.take().unwrap_or_else(|| mpsc::channel(1).1)
    }

    /// Follows the links, and the time.
    pub(super) fn follow(&mut self, now: Duration, net: &NetState) {
        let probed = &self.probed;
        let carries = |place: Place| {
            let probed = &probed[place.endpoint];
            let link = probed.links.get(place.path).and_then(|&link| net.links.get(link));
            link.is_some_and(|link| link.up && !link.elsewhere.contains(&probed.address))
        };
        let events = self.matrix.follow(now, carries);
        self.take_note(events);
    }

    /// Takes note of a report; true when something is otherwise than before.
    pub(super) fn report(&mut self, now: Duration, (place, report): Found) -> bool {
        let events = self.matrix.report(now, place, report);
        let news = !events.is_empty();
        self.take_note(events);
        news
    }

    /// What is not to be used though its link is up: number of the endpoint in the configuration, and of the link. Who died
    /// has to be buried before: new flows that slots still send to it would be local, and would not be remembered to be.
    pub(super) fn shut(&self) -> impl Iterator<Item = (usize, usize)> {
        self.probed.iter().enumerate().flat_map(move |(endpoint, probed)| {
            let shut = move |path: &usize| self.matrix.is_shut(Place { endpoint, path: *path });
            (0..probed.links.len()).filter(shut).map(|path| (probed.number, probed.links[path]))
        })
    }

    /// Whether an endpoint takes new flows, by its place in the class, as far as its probes say.
    pub(super) fn accepts(&self, class: usize, place: usize) -> bool {
        self.find(class, place).is_none_or(|endpoint| self.matrix.accepts(endpoint))
    }

    /// Those that died since this was asked last: class, and place in it.
    pub(super) fn deaths(&mut self) -> Vec<(usize, usize)> {
        self.deaths.drain(..).map(|endpoint| self.probed[endpoint].at).collect()
    }

    /// A decision, as it is without those that take no new flows: their part goes to the others of their class, else it is
    /// local. It holds until the next is made, which knows more.
    pub(super) fn without(&self, decision: &Decision) -> Decision {
        let mut decision = decision.clone();
        for (class, decided) in decision.classes.iter_mut().enumerate() {
            without(decided, |place| self.accepts(class, place));
        }
        decision
    }

    fn find(&self, class: usize, place: usize) -> Option<usize> {
        self.probed.iter().position(|probed| probed.at == (class, place))
    }

    /// How an endpoint stands, for `status`; `None` of one that is not probed.
    pub(super) fn view(&self, now: Duration, class: usize, place: usize) -> Option<api::EndpointHealth> {
        let endpoint = self.find(class, place)?;
        let (state, since, why) = self.matrix.state(endpoint);
        let links = self.matrix.specs()[endpoint].links.iter();
        let paths = links.zip(self.matrix.paths(endpoint)).map(|(link, path)| view(now, link, path));
        Some(api::EndpointHealth { state: of(state), since_s: ago(now, since), why, paths: paths.collect() })
    }

    /// What an operator should know, a sentence each.
    pub(super) fn warnings(&self) -> Vec<String> {
        let doubt = |(set, failing, of): &(String, usize, usize)| {
            format!(
                "{set}: {failing} of {of} endpoints fail at once: the prober is suspected, none is declared dead and placed flows \
                 stay; no new flows go there"
            )
        };
        let mut found: Vec<_> = self.matrix.doubts().iter().map(doubt).collect();
        for (endpoint, spec) in self.matrix.specs().iter().enumerate() {
            let (state, _, why) = self.matrix.state(endpoint);
            match state {
                State::Healthy => {}
                State::Unproven => {
                    found.push(format!("endpoint {} is not used before it has answered: {why}", spec.name))
                }
                // Said of every endpoint without a link.
                State::Unreachable => continue,
                State::Failing | State::Suspect | State::Dead => {
                    found.push(format!("endpoint {} is {state}: {why}", spec.name))
                }
            }
            for (link, path) in spec.links.iter().zip(self.matrix.paths(endpoint)).filter(|(_, path)| path.link) {
                match &path.voice {
                    Voice::Unprobed(why) => {
                        found.push(format!("endpoint {} is not probed over {link}: {why}", spec.name))
                    }
                    Voice::Probed if !path.up && state == State::Healthy => {
                        found.push(format!("endpoint {} is not used over {link}: {}", spec.name, path.why));
                    }
                    Voice::Probed | Voice::Waiting => {}
                }
            }
        }
        found
    }

    /// Keeps who died, and writes the log.
    fn take_note(&mut self, events: Vec<Event>) {
        let specs = self.matrix.specs();
        for event in events {
            match event {
                Event::Path { place, up, why } => {
                    let spec = &specs[place.endpoint];
                    let (endpoint, link) = (&spec.name, &spec.links[place.path]);
                    match up {
                        true => tracing::info!(endpoint, link, "path is up"),
                        false => tracing::warn!(endpoint, link, why, "path is down"),
                    }
                }
                Event::Voice { place, unprobed } => {
                    let spec = &specs[place.endpoint];
                    let (endpoint, link) = (&spec.name, &spec.links[place.path]);
                    match unprobed {
                        Some(why) => tracing::warn!(endpoint, link, why, "path is not probed"),
                        None => tracing::info!(endpoint, link, "path is probed"),
                    }
                }
                Event::State { endpoint, from, to, why } => {
                    let name = &specs[endpoint].name;
                    match to {
                        // It is so from the beginning, or not at all.
                        State::Unproven => {}
                        State::Healthy => tracing::info!(endpoint = name, %from, why, "endpoint is healthy"),
                        State::Failing => {
                            tracing::warn!(endpoint = name, %from, why, "endpoint is failing: no new flows")
                        }
                        State::Suspect => {
                            tracing::error!(endpoint = name, %from, why, "endpoint is suspect: no new flows, placed ones stay");
                        }
                        State::Dead => {
                            tracing::error!(endpoint = name, %from, why, "endpoint is dead: its flows move");
                            self.deaths.push(endpoint);
                        }
                        State::Unreachable => {
                            tracing::warn!(endpoint = name, %from, "endpoint is unreachable: no link is up")
                        }
                    }
                }
                Event::Doubt { set, failing: Some((failing, of)) } => tracing::error!(
                    set,
                    failing,
                    of,
                    "so many endpoints fail at once that the prober is suspected: none is declared dead, placed flows stay"
                ),
                Event::Doubt { set, failing: None } => tracing::warn!(set, "the prober is not suspected any more"),
            }
        }
    }
}

fn without(decided: &mut ClassDecision, accepts: impl Fn(usize) -> bool) {
    let all: f64 = decided.weights.iter().sum();
    for (_, weight) in decided.weights.iter_mut().enumerate().filter(|(place, _)| !accepts(*place)) {
        *weight = 0.0;
    }
    let left: f64 = decided.weights.iter().sum();
    if left > 0.0 {
        decided.weights.iter_mut().for_each(|weight| *weight *= all / left);
    } else {
        decided.local += all;
    }
}

/// The endpoints that the configuration says are to be probed.
fn probed(config: &Config, unproven: &BTreeSet<usize>) -> (Vec<Spec>, Vec<Probed>) {
    let (mut all, mut number) = (Vec::new(), 0);
    for (index, class) in config.classes.iter().enumerate() {
        let mut place = 0;
        for tier in class.burst.iter().flat_map(|burst| &burst.tiers) {
            for (endpoint, name) in tier.endpoint_names().into_iter().enumerate() {
                // `nexthop` has no addresses, and is not probed.
                if let (Some(check), Some(&address)) = (&tier.health, tier.endpoints.get(endpoint)) {
                    let spec = Spec {
                        name: crate::policy::ids::endpoint_key(&class.name, &name),
                        class: class.name.clone(),
                        tier: tier.name.clone(),
                        links: tier.links.clone(),
                        check: check.clone(),
                        proven: !unproven.contains(&number),
                    };
                    all.push((spec, Probed { at: (index, place), number, address, links: links(config, tier) }));
                }
                (place, number) = (place + 1, number + 1);
            }
        }
    }
    all.into_iter().unzip()
}

/// Numbers of a tier's links.
fn links(config: &Config, tier: &Tier) -> Vec<usize> {
    tier.links.iter().filter_map(|name| config.links.iter().position(|link| link.name == *name)).collect()
}

/// The links of endpoints that are not to be used, with the links' ids.
pub(super) fn by_id(shut: impl Iterator<Item = (usize, usize)>, ids: &[u8]) -> BTreeSet<(usize, u8)> {
    shut.filter_map(|(endpoint, link)| Some((endpoint, *ids.get(link)?))).collect()
}

fn ago(now: Duration, at: Duration) -> f64 {
    now.saturating_sub(at).as_secs_f64()
}

fn of(state: State) -> api::HealthState {
    match state {
        State::Unproven => api::HealthState::Unproven,
        State::Healthy => api::HealthState::Healthy,
        State::Failing => api::HealthState::Failing,
        State::Suspect => api::HealthState::Suspect,
        State::Dead => api::HealthState::Dead,
        State::Unreachable => api::HealthState::Unreachable,
    }
}

fn view(now: Duration, link: &str, path: PathView) -> api::Path {
    let latency = path.last.and_then(|(_, outcome)| match outcome {
        Outcome::Ok(latency) => Some(latency.as_secs_f64()),
        _ => None,
    });
    api::Path {
        link: link.to_owned(),
        up: path.link && path.up,
        probed: !matches!(path.voice, Voice::Unprobed(_)),
        why: if path.link { path.why } else { "link is down".to_owned() },
        since_s: ago(now, path.since),
        age_s: path.last.map(|(at, _)| ago(now, at)),
        latency_s: latency,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_of_who_takes_none_goes_to_the_others_else_it_is_local() {
        let of = |local, weights: [f64; 3]| ClassDecision {
            admit: None,
            overflow: vec![],
            wanted: local,
            local,
            weights: weights.to_vec(),
            tiers: vec![],
            demand: 0.0,
            rate: 0.0,
            local_rate: 0.0,
            load: None,
            capacity: None,
            limits: vec![],
            reason: String::new(),
        };
        for (local, weights, takes, then, left) in [
            (0.4, [0.3, 0.2, 0.1], [true; 3], 0.4, [0.3, 0.2, 0.1]),
            (0.4, [0.3, 0.2, 0.1], [false, true, true], 0.4, [0.0, 0.4, 0.2]),
            (0.4, [0.3, 0.3, 0.0], [false, false, true], 1.0, [0.0; 3]),
            (1.0, [0.0; 3], [false, true, true], 1.0, [0.0; 3]),
        ] {
            let mut decided = of(local, weights);
            without(&mut decided, |place| takes[place]);
            let near = |a: f64, b: f64| (a - b).abs() < 1e-12;
            let all = decided.weights.iter().zip(left).all(|(a, b)| near(*a, b));
            assert!(near(decided.local, then) && all, "{weights:?} {takes:?}: {decided:?}");
        }
    }

    #[test]
    fn every_endpoint_with_an_address_is_probed_where_its_tier_says_so() {
        let text = include_str!("../../../docs/examples/burst.toml");
        let config = crate::config::parse(text, "f").unwrap_or_else(|refused| panic!("{refused}")).config;
        let (specs, probed) = probed(&config, &BTreeSet::new());
        let named: Vec<_> =
            specs.iter().zip(&probed).map(|(spec, probed)| (spec.name.as_str(), probed.number)).collect();
        let names: Vec<_> = config
            .classes
            .iter()
            .flat_map(|class| {
                let tiers = class.burst.iter().flat_map(|burst| &burst.tiers);
                tiers.flat_map(|tier| {
                    tier.endpoint_names()
                        .into_iter()
                        .map(|name| (format!("{}/{name}", class.name), tier.health.is_some()))
                })
            })
            .collect();
        assert!(!named.is_empty() && named.len() < names.len(), "some are, some are not");
        for (name, number) in named {
            assert_eq!((name, true), (names[number].0.as_str(), names[number].1));
        }
    }
}
