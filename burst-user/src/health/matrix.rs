//! All endpoints that are probed: what is reported of each, and what it comes to among those of its tier and class.
//!
//! Where more than half of a set fail at once, it is more likely that what probes them fails: then nobody is declared dead.

use std::time::Duration;

use super::member::{Member, State};
use super::outcome::{Outcome, Report};
use super::path::Voice;
use crate::config::model::Health;

/// An endpoint to be probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Its name, for events.
    pub name: String,
    /// Its class.
    pub class: String,
    /// Its tier in the class.
    pub tier: String,
    /// Names of the links it may be reached by: one path each.
    pub links: Vec<String>,
    /// How it is probed and judged.
    pub check: Health,
    /// Whether flows may be with it: then it counts as well until it is found not to be. Else it has to be found well first.
    pub proven: bool,
}

/// A path, by its number: of the endpoint among all, and of the link among the endpoint's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Endpoint.
    pub endpoint: usize,
    /// Link.
    pub path: usize,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A path is up or down by its probes.
    Path {
        /// Which.
        place: Place,
        /// Whether it is up.
        up: bool,
        /// Why.
        why: String,
    },
    /// A path that was probed cannot be any more, or can be.
    Voice {
        /// Which.
        place: Place,
        /// Why it is not probed; `None`: it is.
        unprobed: Option<String>,
    },
    /// An endpoint stands otherwise than before.
    State {
        /// Number of the endpoint.
        endpoint: usize,
        /// How it stood.
        from: State,
        /// How it stands.
        to: State,
        /// Why.
        why: String,
    },
    /// So many of a set failed at once that the prober is suspected, or no longer.
    Doubt {
        /// The set: a tier, or a class.
        set: String,
        /// How many of how many failed; `None`: it is over.
        failing: Option<(usize, usize)>,
    },
}

/// The matrix.
#[derive(Clone, Debug)]
pub struct Matrix {
    specs: Vec<Spec>,
    members: Vec<Member>,
    /// Sets that failed as a whole, nearly: name, failing, of.
    doubts: Vec<(String, usize, usize)>,
}

/// How a path stands.
#[derive(Clone, Debug, PartialEq)]
pub struct PathView {
    /// Whether the link carries.
    pub link: bool,
    /// Whether it is up by its probes.
    pub up: bool,
    /// Whether it is probed.
    pub voice: Voice,
    /// When `up` changed.
    pub since: Duration,
    /// When the last probe ended, and how.
    pub last: Option<(Duration, Outcome)>,
    /// In words.
    pub why: String,
}

impl Matrix {
    /// Nothing was probed yet.
    #[must_use]
    pub fn new(now: Duration, specs: Vec<Spec>) -> Self {
        let members = specs.iter().map(|spec| Member::new(now, spec.links.len(), spec.proven)).collect();
        Self { specs, members, doubts: Vec::new() }
    }

    /// Takes over what another matrix knows of endpoints that are probed here as they were there.
    pub fn resume(&mut self, former: &Self) {
        for (spec, member) in self.specs.iter().zip(&mut self.members) {
            let same = |other: &&Spec| Spec { proven: spec.proven, ..(*other).clone() } == *spec;
            if let Some(known) = former.specs.iter().position(|other| same(&other)) {
                *member = former.members[known].clone();
            }
        }
        self.doubts.clone_from(&former.doubts);
    }

    /// The endpoints, as they were given.
    #[must_use]
    pub fn specs(&self) -> &[Spec] {
        &self.specs
    }

    /// Which links carry packets of which endpoint; and that time has passed.
    pub fn follow(&mut self, now: Duration, carries: impl Fn(Place) -> bool) -> Vec<Event> {
        for (endpoint, member) in self.members.iter_mut().enumerate() {
            for (path, state) in member.paths.iter_mut().enumerate() {
                state.set_link(now, carries(Place { endpoint, path }));
            }
        }
        self.judge(now)
    }

    /// Takes note of what a prober says of a path. What it says of one whose link does not carry any more is out of date.
    pub fn report(&mut self, now: Duration, place: Place, report: Report) -> Vec<Event> {
        let path = self.members.get_mut(place.endpoint).and_then(|member| member.paths.get_mut(place.path));
        let Some(path) = path.filter(|path| path.link) else { return Vec::new() };
        let (voice, up) = (path.voice.clone(), path.up);
        path.report(now, report, &self.specs[place.endpoint].check);
        let mut events = Vec::new();
        match (&voice, &path.voice) {
            (before, now) if before == now => {}
            (_, Voice::Unprobed(why)) => events.push(Event::Voice { place, unprobed: Some(why.clone()) }),
            (Voice::Unprobed(_), _) => events.push(Event::Voice { place, unprobed: None }),
            _ => {}
        }
        if path.up != up {
            events.push(Event::Path { place, up: path.up, why: path.why() });
        }
        events.extend(self.judge(now));
        events
    }

    /// What all of it comes to.
    fn judge(&mut self, now: Duration) -> Vec<Event> {
        let mut events = Vec::new();
        let before: Vec<State> = self.members.iter().map(|member| member.state).collect();
        for member in &mut self.members {
            let state = member.stand();
            if member.state != state {
                (member.state, member.since, member.died_of) = (state, now, None);
            }
        }
        let mut doubts = Vec::new();
        let mut dead = Vec::new();
        for (endpoint, member) in self.members.iter().enumerate().filter(|(_, member)| member.state == State::Suspect) {
            let (check, Some(begun)) = (&self.specs[endpoint].check, member.failing()) else { continue };
            let crowd = self.crowd(endpoint, begun);
            let silent = now.saturating_sub(member.silent_since()) >= check.dead_after;
            let proven = member.is_gone(check) || silent && member.is_asked(now, check);
            // By then all others were probed since it began to fail.
            let heard = now.saturating_sub(begun) >= check.every + check.timeout;
            if crowd.is_none() && proven && heard {
                dead.push(endpoint);
            }
            doubts.extend(crowd);
        }
        dead.into_iter().for_each(|endpoint| self.members[endpoint].bury(now));
        for (endpoint, from) in before.into_iter().enumerate() {
            let (to, spec) = (self.members[endpoint].state, &self.specs[endpoint]);
            if from != to {
                events.push(Event::State { endpoint, from, to, why: self.members[endpoint].why(&spec.links) });
            }
        }
        doubts.sort_unstable();
        doubts.dedup();
        let has = |all: &[(String, usize, usize)], set: &str| all.iter().any(|(name, ..)| name == set);
        for (set, failing, of) in doubts.iter().filter(|(set, ..)| !has(&self.doubts, set)) {
            events.push(Event::Doubt { set: set.clone(), failing: Some((*failing, *of)) });
        }
        for (set, ..) in self.doubts.iter().filter(|(set, ..)| !has(&doubts, set)) {
            events.push(Event::Doubt { set: set.clone(), failing: None });
        }
        self.doubts = doubts;
        events
    }

    /// The tier of an endpoint, else its class, if more than half of it fails now. Who died counts among the failing when it
    /// began to fail with the endpoint, else not at all. A set that nobody else is in says nothing.
    fn crowd(&self, endpoint: usize, begun: Duration) -> Option<(String, usize, usize)> {
        let Spec { class, tier, check, .. } = &self.specs[endpoint];
        let window = check.every * check.fall + check.timeout;
        let near = |at: Duration| at.abs_diff(begun) <= window;
        let count = |belongs: &dyn Fn(&Spec) -> bool| {
            let (mut failing, mut of) = (0, 0);
            for (_, member) in self.specs.iter().zip(&self.members).filter(|(spec, _)| belongs(spec)) {
                let (counts, fails) = match member.state {
                    State::Unreachable | State::Unproven => (false, false),
                    State::Dead => {
                        let with_it = member.died_of.is_some_and(near);
                        (with_it, with_it)
                    }
                    State::Healthy | State::Failing | State::Suspect => (member.speaks(), member.failing().is_some()),
                };
                (failing, of) = (failing + usize::from(fails), of + usize::from(counts));
            }
            (of >= 2 && failing * 2 > of).then_some((failing, of))
        };
        let named = |set: String| move |(failing, of)| (set, failing, of);
        let of_tier = count(&|spec| spec.class == *class && spec.tier == *tier).map(named(format!("{class}/{tier}")));
        of_tier.or_else(|| count(&|spec| spec.class == *class).map(named(class.clone())))
    }

    /// Whether an endpoint takes new flows, as far as its probes say. One that is not there does.
    #[must_use]
    pub fn accepts(&self, endpoint: usize) -> bool {
        let state = self.members.get(endpoint).map(|member| member.state);
        matches!(state, None | Some(State::Healthy | State::Unreachable))
    }

    /// Whether packets of an endpoint are not to be sent over a path.
    #[must_use]
    pub fn is_shut(&self, place: Place) -> bool {
        self.members.get(place.endpoint).is_some_and(|member| member.is_shut(place.path))
    }

    /// The sets of which so many failed at once that nobody is declared dead: name, how many, of how many.
    #[must_use]
    pub fn doubts(&self) -> &[(String, usize, usize)] {
        &self.doubts
    }

    /// How an endpoint stands, since when, and why in words. One that is not there is unreachable.
    #[must_use]
    pub fn state(&self, endpoint: usize) -> (State, Duration, String) {
        match self.members.get(endpoint) {
            Some(member) => (member.state, member.since, member.why(&self.specs[endpoint].links)),
            None => (State::Unreachable, Duration::ZERO, String::new()),
        }
    }

    /// How its paths stand, in the order of its links.
    pub fn paths(&self, endpoint: usize) -> impl Iterator<Item = PathView> {
        self.members.get(endpoint).into_iter().flat_map(|member| &member.paths).map(|path| PathView {
            link: path.link,
            up: path.up,
            voice: path.voice.clone(),
            since: path.since,
            last: path.last,
            why: path.why(),
        })
    }
}
