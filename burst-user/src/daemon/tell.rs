//! What the log says of rounds: what an operator wants to know once, not with every tick.
//!
//! That links go up and down is said where their rows are written; here is what moves no row.

use std::time::Duration;

use crate::decide::{ClassDecision, Limit};
use crate::netlink::NetState;

/// A rule that did not apply for so long does not apply any more. Shorter, it would be said of every ripple.
const GONE: Duration = Duration::from_secs(5);
/// A share that moved less than this since it was told is not told again.
const STEP: f64 = 0.01;

/// What was told of a class.
#[derive(Clone, Debug)]
pub(super) struct Told {
    /// Rules that apply, and when each did last.
    limits: Vec<(Limit, Duration)>,
    /// Where the share went when it was told: home (1), out (-1), nowhere (0).
    direction: i8,
    /// The local share that was told.
    local: f64,
}

/// What is worth a line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum News {
    /// A rule applies that did not.
    Begins(Limit),
    /// A rule does not apply any more.
    Ends(Limit),
    /// The share turned, stopped or arrived at home; it was this when it was told last.
    Share(f64),
}

impl Told {
    /// Of a class with this local share.
    pub(super) fn new(local: f64) -> Self {
        Self { limits: Vec::new(), direction: 0, local }
    }

    /// What is new about a class whose local share was `before`.
    pub(super) fn news(&mut self, now: Duration, before: f64, decided: &ClassDecision) -> Vec<News> {
        let mut news = Vec::new();
        for &limit in &decided.limits {
            match self.limits.iter_mut().find(|(known, _)| *known == limit) {
                Some((_, last)) => *last = now,
                None => {
                    self.limits.push((limit, now));
                    news.push(News::Begins(limit));
                }
            }
        }
        self.limits.retain(|(limit, last)| {
            let stays = now.saturating_sub(*last) < GONE;
            if !stays {
                news.push(News::Ends(*limit));
            }
            stays
        });
        let local = decided.local;
        let direction = i8::from(local > before + 1e-9) - i8::from(local < before - 1e-9);
        let arrives = direction > 0 && local > 1.0 - 1e-9;
        if arrives || direction != self.direction && (local - self.local).abs() >= STEP {
            news.push(News::Share(self.local));
            (self.direction, self.local) = (if arrives { 0 } else { direction }, local);
        }
        news
    }
}

/// Writes the news about a class.
pub(super) fn news(class: &str, news: &[News], decided: &ClassDecision) {
    let why = &decided.reason;
    for news in news {
        match news {
            News::Begins(limit) if grave(*limit) => tracing::warn!(class, why, "{limit}"),
            News::Begins(limit) => tracing::info!(class, why, "{limit}"),
            News::Ends(limit) if grave(*limit) => tracing::info!(class, why, "no longer: {limit}"),
            News::Ends(limit) => tracing::debug!(class, "no longer: {limit}"),
            News::Share(from) => {
                tracing::info!(class, from = %percent(*from), to = %percent(decided.local), why, "local share");
            }
        }
    }
}

/// Whether a rule means that somebody should look.
pub(super) const fn grave(limit: Limit) -> bool {
    match limit {
        Limit::Overloaded | Limit::StaleHold | Limit::StaleFallback | Limit::TiersFull | Limit::Unreachable => true,
        Limit::CapacityUnknown
        | Limit::Override
        | Limit::MaxOffsiteShare
        | Limit::Stabilizing
        | Limit::HomeRate
        | Limit::DeadBand => false,
    }
}

/// What the kernel says of devices that it did not say before, as far as it moves no row.
pub(super) fn devices(before: Option<&NetState>, net: &NetState) {
    for (index, link) in net.links.iter().enumerate().filter(|(_, link)| !link.up) {
        let (link, why) = (&link.name, link.why);
        match before.and_then(|before| before.links.get(index)) {
            None => tracing::warn!(link, %why, "link is not up"),
            Some(before) if !before.up && before.why != why => tracing::debug!(link, %why, "link is still down"),
            Some(_) => {}
        }
    }
    for (index, client) in net.clients.iter().enumerate() {
        let before = before.and_then(|before| before.clients.get(index));
        let (device, why) = (&client.name, client.why);
        match (before.is_none_or(|before| before.up), client.up) {
            (true, false) => tracing::error!(device, %why, "client device down"),
            (false, true) => tracing::info!(device, "client device up"),
            (false, false) if before.is_some_and(|before| before.why != why) => {
                tracing::info!(device, %why, "client device is still down");
            }
            _ => {}
        }
    }
}

/// A share as people read it.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(local: f64, limits: &[Limit]) -> ClassDecision {
        ClassDecision {
            wanted: local,
            local,
            weights: vec![1.0 - local],
            tiers: vec![1.0 - local],
            admit: None,
            overflow: vec![],
            demand: 0.0,
            rate: 0.0,
            local_rate: 0.0,
            load: None,
            capacity: None,
            limits: limits.to_vec(),
            reason: String::new(),
        }
    }

    #[test]
    fn the_way_home_is_told_at_its_beginning_and_its_end() {
        let (mut told, mut before, mut at) = (Told::new(0.5), 0.5, Duration::ZERO);
        let mut all = Vec::new();
        for local in [0.5, 0.55, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0, 1.0] {
            at += Duration::from_millis(250);
            all.push(told.news(at, before, &decided(local, &[])));
            before = local;
        }
        let lines = all.iter().flatten().count();
        assert_eq!(lines, 2, "{all:?}");
        assert_eq!(all[1], [News::Share(0.5)], "it sets out");
        assert_eq!(all[6], [News::Share(0.55)], "it arrives");
    }

    #[test]
    fn ripples_are_not_told_and_turns_are() {
        let mut told = Told::new(0.5);
        let now = Duration::from_secs(1);
        assert!(told.news(now, 0.5, &decided(0.495, &[])).is_empty());
        assert!(told.news(now, 0.495, &decided(0.495, &[])).is_empty());
        assert_eq!(told.news(now, 0.495, &decided(0.3, &[])), [News::Share(0.5)]);
        assert!(told.news(now, 0.3, &decided(0.2, &[])).is_empty());
        assert_eq!(told.news(now, 0.2, &decided(0.2, &[])), [News::Share(0.3)], "it stops");
        assert!(told.news(now, 0.2, &decided(0.2, &[])).is_empty());
    }

    #[test]
    fn a_rule_is_told_once_and_its_end_when_it_stays_away() {
        let mut told = Told::new(1.0);
        let at = Duration::from_secs;
        let (with, without) = (decided(1.0, &[Limit::Overloaded]), decided(1.0, &[]));
        for (now, decided, expected) in [
            (at(0), &without, vec![]),
            (at(1), &with, vec![News::Begins(Limit::Overloaded)]),
            (at(2), &with, vec![]),
            (at(3), &without, vec![]),
            (at(4), &with, vec![]),
            (at(8), &without, vec![]),
            (at(9), &without, vec![News::Ends(Limit::Overloaded)]),
            (at(20), &without, vec![]),
        ] {
            assert_eq!(told.news(now, 1.0, decided), expected, "{now:?}");
        }
    }
}
