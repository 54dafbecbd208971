//! Weighted rendezvous hashing: each slot goes to the candidate with the best draw, and draws depend on nothing but
//! stable inputs.
//!
//! Every (slot, candidate) has a fixed pseudo-random u in (0, 1). −ln(u) ÷ weight is exponentially distributed with rate
//! `weight`, and the smallest of several such draws belongs to a candidate with probability proportional to its weight
//! (Schindelhauer and Schomaker, "Weighted distributed hash tables", SPAA 2005). So there is no history: the same weights
//! give the same slots on every host and after every restart, and a change of one weight moves only slots to it or
//! from it.

use std::collections::BTreeMap;

use burst_common::hash;
use burst_common::slot::{EndpointId, LOCAL};

/// A destination that slots can go to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// What the slot will name.
    pub id: EndpointId,
    /// What is drawn by: [`key`] of the destination's name. Not the id: ids depend on the history of a host, and other
    /// hosts must draw the same.
    pub key: u64,
    /// Share of the slots, relative to the others; 0, negative or not a number: none.
    pub weight: f64,
}

/// The key of a destination by a name that is the same on every edge host
/// ([`crate::config::model::Tier::endpoint_names`]); use `""` for local.
#[must_use]
pub fn key(name: &str) -> u64 {
    hash::seed(name)
}

/// The space in which the slots of one class and family draw: seed of the configuration, class name, family (4 or 6).
#[must_use]
pub fn space(seed: u64, class: &str, family: u8) -> u64 {
    hash::pair(hash::pair(seed, key(class)), u64::from(family))
}

/// The endpoint of each of `slots` slots of a [`space`]. Without any candidate that has weight, all are local.
#[must_use]
pub fn assign(space: u64, slots: u32, candidates: &[Candidate]) -> Vec<EndpointId> {
    // The order of the candidates could decide ties only, and two of 2⁵² draws alike are not to be expected.
    let able: Vec<_> = candidates.iter().filter(|candidate| candidate.weight > 0.0).collect();
    match able[..] {
        [] => return vec![LOCAL; slots as usize],
        [only] => return vec![only.id; slots as usize],
        _ => {}
    }
    let bases: Vec<_> = able.iter().map(|candidate| hash::pair(space, candidate.key)).collect();
    let best = |slot: u32| {
        let mut best = (f64::INFINITY, able[0].id);
        for (candidate, &base) in able.iter().zip(&bases) {
            let score = draw(base, slot) / candidate.weight;
            if score < best.0 {
                best = (score, candidate.id);
            }
        }
        best.1
    };
    (0..slots).map(best).collect()
}

/// −ln(u) of a slot and candidate: finite and above zero. `libm`'s logarithm is the same code on every host; that of
/// std is whatever the platform has.
fn draw(base: u64, slot: u32) -> f64 {
    // 52 bits and a half: never 0, and never rounded up to 1.
    let u = ((hash::pair(base, u64::from(slot)) >> 12) as f64 + 0.5) / (1_u64 << 52) as f64;
    -libm::log(u)
}

/// The share of the slots that each endpoint has: what was achieved of the weights.
#[must_use]
pub fn achieved(assignment: impl IntoIterator<Item = EndpointId>) -> BTreeMap<EndpointId, f64> {
    let (mut counts, mut all) = (BTreeMap::<_, f64>::new(), 0.0);
    for endpoint in assignment {
        *counts.entry(endpoint).or_default() += 1.0;
        all += 1.0;
    }
    counts.values_mut().for_each(|count| *count /= all);
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(weights: &[f64]) -> Vec<Candidate> {
        let name = |n: usize| if n == 0 { String::new() } else { format!("reserved/10.20.0.{n}") };
        let candidate = |(n, &weight): (usize, &f64)| Candidate { id: n as u16, key: key(&name(n)), weight };
        weights.iter().enumerate().map(candidate).collect()
    }

    fn promo() -> u64 {
        space(hash::seed("one-string-for-all-edges"), "promo", 4)
    }

    #[test]
    fn the_assignment_is_part_of_what_edge_hosts_agree_on() {
        // Edge hosts of different versions must agree: these values never change.
        let slots = assign(promo(), 32, &candidates(&[0.4, 0.3, 0.2, 0.1]));
        assert_eq!(slots, GOLDEN);
        // Neither order nor ids matter.
        let mut other = candidates(&[0.4, 0.3, 0.2, 0.1]);
        other.reverse();
        other.iter_mut().for_each(|candidate| candidate.id += 100);
        assert_eq!(assign(promo(), 32, &other), GOLDEN.map(|id| id + 100));
    }
    const GOLDEN: [u16; 32] =
        [2, 1, 0, 3, 1, 1, 2, 2, 0, 1, 2, 0, 1, 3, 1, 3, 0, 0, 0, 2, 1, 3, 0, 0, 1, 1, 1, 2, 1, 3, 1, 0];

    #[test]
    fn the_ends_are_exact() {
        for family in [4, 6] {
            let space = space(1, "promo", family);
            assert!(assign(space, 4096, &candidates(&[1.0, 0.0, 0.0])).iter().all(|id| *id == LOCAL));
            assert!(assign(space, 4096, &candidates(&[0.0, 0.5, 0.5])).iter().all(|id| *id != LOCAL));
            assert!(assign(space, 4096, &candidates(&[0.0, f64::NAN, -1.0])).iter().all(|id| *id == LOCAL));
            assert!(assign(space, 4096, &[]).iter().all(|id| *id == LOCAL));
            assert!(assign(space, 4096, &candidates(&[0.5, 0.0, 0.5])).iter().all(|id| *id != 1));
        }
    }

    #[test]
    fn shares_are_met_within_chance() {
        for weights in [&[0.9, 0.1][..], &[0.31, 0.3, 0.2, 0.19], &[0.02; 50], &[1e-3, 1.0]] {
            let sum: f64 = weights.iter().sum();
            for class in ["promo", "sale", "video"] {
                let shares = achieved(assign(space(7, class, 6), 4096, &candidates(weights)));
                for (id, weight) in weights.iter().enumerate() {
                    let (share, wanted) = (shares.get(&(id as u16)).copied().unwrap_or(0.0), weight / sum);
                    // Five deviations of a binomial, and one slot.
                    let slack = 5.0 * (wanted * (1.0 - wanted) / 4096.0).sqrt() + 1.0 / 4096.0;
                    assert!((share - wanted).abs() < slack, "{class} {id}: {share} instead of {wanted}");
                }
            }
        }
    }

    #[test]
    fn a_change_of_weight_moves_only_what_it_must() {
        let moved = |a: &[u16], b: &[u16]| {
            a.iter().zip(b).filter(|(a, b)| a != b).map(|(a, b)| (*a, *b)).collect::<Vec<(u16, u16)>>()
        };
        let before = assign(promo(), 4096, &candidates(&[0.5, 0.25, 0.25]));
        // Local gives up a tenth: slots leave local and no other place.
        let less = assign(promo(), 4096, &candidates(&[0.4, 0.3, 0.3]));
        let moves = moved(&before, &less);
        assert!(moves.iter().all(|(from, to)| *from == LOCAL && *to != LOCAL), "{moves:?}");
        assert!((330..490).contains(&moves.len()), "{}", moves.len());
        // An endpoint goes: only its slots move.
        let gone = assign(promo(), 4096, &candidates(&[0.5, 0.25, 0.0]));
        assert!(moved(&before, &gone).iter().all(|(from, _)| *from == 2));
        // And back: history leaves no trace.
        assert_eq!(assign(promo(), 4096, &candidates(&[0.5, 0.25, 0.25])), before);
    }

    #[test]
    fn classes_and_families_draw_apart() {
        let weights = candidates(&[0.5, 0.5]);
        let same = |a: u64, b: u64| {
            let (a, b) = (assign(a, 4096, &weights), assign(b, 4096, &weights));
            a.iter().zip(&b).filter(|(a, b)| a == b).count()
        };
        for (a, b) in [
            (space(1, "promo", 4), space(1, "promo", 6)),
            (space(1, "a", 4), space(1, "b", 4)),
            (space(1, "a", 4), space(2, "a", 4)),
        ] {
            assert!((1888..2208).contains(&same(a, b)), "five deviations of 2048 ± 32: {}", same(a, b));
        }
    }
}
