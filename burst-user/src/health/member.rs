//! An endpoint among those of its tier: what its paths come to.

use std::fmt;
use std::time::Duration;

use super::path::{Path, Voice};
use crate::config::model::Health;

/// How an endpoint stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No flow is with it, and it was not well yet: no new flows.
    Unproven,
    /// It takes new flows.
    Healthy,
    /// It is there and says that it is not well: no new flows.
    Failing,
    /// It fails through all its links: no new flows; those that are placed stay.
    Suspect,
    /// Its flows are given to others. When it returns, it is another endpoint.
    Dead,
    /// None of its links carries its packets: nothing is known of it.
    Unreachable,
}

impl State {
    /// In a word, as the API says it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unproven => "unproven",
            Self::Healthy => "healthy",
            Self::Failing => "failing",
            Self::Suspect => "suspect",
            Self::Dead => "dead",
            Self::Unreachable => "unreachable",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// An endpoint.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) paths: Vec<Path>,
    pub(super) state: State,
    /// When `state` changed.
    pub(super) since: Duration,
    /// When the failures began that it died of.
    pub(super) died_of: Option<Duration>,
}

impl Member {
    pub(super) fn new(now: Duration, paths: usize, proven: bool) -> Self {
        let path = Path::new(now, proven);
        let state = if proven { State::Healthy } else { State::Unproven };
        Self { paths: vec![path; paths], state, since: now, died_of: None }
    }

    /// What it is now by all that is known of it. Who has no flows, or has lost them, has to rise first; but nobody can where
    /// no probe can be sent, and then links have to do.
    pub(super) fn stand(&self) -> State {
        match self.state {
            State::Dead if !self.has_risen() => State::Dead,
            State::Unproven if !self.has_risen() && (self.speaks() || self.linked().next().is_none()) => {
                State::Unproven
            }
            _ => self.judge(),
        }
    }

    /// Whether a path that carries is spoken for.
    pub(super) fn speaks(&self) -> bool {
        self.voices().next().is_some()
    }

    /// It is dead from now on. What it failed of is kept, and that it has to rise over some path.
    pub(super) fn bury(&mut self, now: Duration) {
        self.died_of = self.failing();
        (self.state, self.since) = (State::Dead, now);
        self.paths.iter_mut().for_each(|path| path.bury(now));
    }

    /// Paths whose links carry.
    fn linked(&self) -> impl Iterator<Item = &Path> {
        self.paths.iter().filter(|path| path.link)
    }

    /// Those of them that probes speak for, or will.
    fn voices(&self) -> impl Iterator<Item = &Path> {
        self.linked().filter(|path| !matches!(path.voice, Voice::Unprobed(_)))
    }

    /// How it stands now by what its paths say alone; never dead.
    fn judge(&self) -> State {
        if self.linked().next().is_none() {
            return State::Unreachable;
        }
        let mut up = self.voices().filter(|path| path.up).peekable();
        if up.peek().is_some() {
            return if up.all(|path| path.ill) { State::Failing } else { State::Healthy };
        }
        // What is silent may be so for the sake of its path alone, as long as there is one that nobody can speak for.
        match self.may_be_reached_otherwise() {
            true => State::Healthy,
            false => State::Suspect,
        }
    }

    /// Whether a path that is not probed counts as up: not when the endpoint itself says, over another, that nobody is there.
    fn may_be_reached_otherwise(&self) -> bool {
        let unprobed = self.linked().count() > self.voices().count();
        unprobed && !self.voices().any(Path::says_gone)
    }

    /// Since when it fails through all the paths that speak: suspect, or on the way to it.
    pub(super) fn failing(&self) -> Option<Duration> {
        if self.may_be_reached_otherwise() {
            return None;
        }
        let mut latest = None;
        for path in self.voices() {
            latest = latest.max(Some(path.failing?));
        }
        latest
    }

    /// Whether the endpoint itself says, over each of its paths, that nobody is there.
    pub(super) fn is_gone(&self, check: &Health) -> bool {
        self.linked().next().is_some() && self.linked().all(|path| path.is_gone(check))
    }

    /// Since when it is suspect and nothing is heard from it, over any path: also over one that cannot be probed any more.
    pub(super) fn silent_since(&self) -> Duration {
        self.paths.iter().filter_map(|path| path.heard).fold(self.since, Duration::max)
    }

    /// Whether each path that speaks was probed just now: silence of a prober is not silence of the endpoint.
    pub(super) fn is_asked(&self, now: Duration, check: &Health) -> bool {
        let lately = |at: Duration| now.saturating_sub(at) <= check.every * 2 + check.timeout;
        self.voices().all(|path| path.last.is_some_and(|(at, _)| lately(at)))
    }

    /// Whether a path that speaks has risen.
    pub(super) fn has_risen(&self) -> bool {
        self.voices().any(|path| path.up && path.voice == Voice::Probed)
    }

    /// Whether packets are not to be sent over a path. Of a suspect all are as good as any.
    pub(super) fn is_shut(&self, path: usize) -> bool {
        match self.state {
            State::Dead | State::Unproven => true,
            State::Suspect | State::Unreachable => false,
            State::Healthy | State::Failing => self.paths.get(path).is_some_and(Path::is_shut),
        }
    }

    /// Why it is as it is, in words; `links` are the names of its paths'.
    pub(super) fn why(&self, links: &[String]) -> String {
        let say = |wanted: &dyn Fn(&Path) -> bool| {
            let paths = self.paths.iter().zip(links).filter(|(path, _)| path.link && wanted(path));
            paths.map(|(path, link)| format!("{} over {link}", path.why())).collect::<Vec<_>>().join("; ")
        };
        match self.state {
            State::Healthy if !self.speaks() => "no path is probed".to_owned(),
            State::Healthy => "well".to_owned(),
            State::Failing => say(&|path| path.ill && path.up),
            State::Unreachable => "no link to it is up".to_owned(),
            State::Suspect | State::Dead if !self.speaks() => "no path is probed".to_owned(),
            State::Unproven => say(&|_| true),
            State::Suspect | State::Dead => say(&|path| path.voice == Voice::Probed),
        }
    }
}
