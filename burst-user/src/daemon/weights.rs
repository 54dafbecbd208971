//! The shares of a decision → the candidates that slots are drawn among, one address family at a time; and whether slots
//! that are there could have been drawn so.

use std::collections::BTreeMap;

use burst_common::slot::{EndpointId, LOCAL};

use crate::slots::{Candidate, key};

/// The candidates of one address family: local, and the endpoints that can take it. These get what was decided for the
/// endpoints of both families together, so that as much of this family leaves as of the other. Without any, it stays.
pub(crate) fn of_family(local: f64, endpoints: &[Candidate], takes: impl Fn(EndpointId) -> bool) -> Vec<Candidate> {
    let sum = |all: &[Candidate]| all.iter().map(|candidate| candidate.weight).sum::<f64>();
    let mut able: Vec<_> = endpoints.iter().copied().filter(|candidate| takes(candidate.id)).collect();
    let (all, own) = (sum(endpoints), sum(&able));
    if own > 0.0 && own < all {
        able.iter_mut().for_each(|candidate| candidate.weight *= all / own);
    }
    able.push(Candidate { id: LOCAL, key: key(""), weight: local });
    able
}

/// Whether shares of so many slots are likely to be drawn by these weights: each destination within six standard
/// deviations of its weight (of the binomial distribution; rendezvous hashing draws every slot by itself), which for
/// nothing and for all is exact, and nobody else with any.
pub(super) fn is_drawn_by(shares: &BTreeMap<EndpointId, f64>, weights: &[Candidate], slots: usize) -> bool {
    let sum: f64 = weights.iter().map(|candidate| candidate.weight).sum();
    let likely = |candidate: &Candidate| {
        let wanted = if sum > 0.0 { candidate.weight / sum } else { f64::from(u8::from(candidate.id == LOCAL)) };
        let deviation = (wanted * (1.0 - wanted).max(0.0) / slots as f64).sqrt();
        (shares.get(&candidate.id).copied().unwrap_or(0.0) - wanted).abs() <= 6.0 * deviation + 1e-9
    };
    weights.iter().all(likely) && shares.keys().all(|id| weights.iter().any(|candidate| candidate.id == *id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adopted_slots_are_kept_only_where_they_could_have_been_drawn() {
        let weights = |all: &[(u16, f64)]| -> Vec<_> {
            all.iter().map(|&(id, weight)| Candidate { id, key: u64::from(id), weight }).collect()
        };
        for (shares, wanted, fits) in [
            (&[(LOCAL, 1.0)][..], &[(LOCAL, 1.0), (1, 0.0)][..], true),
            (&[(LOCAL, 0.999), (1, 0.001)], &[(LOCAL, 1.0), (1, 0.0)], false),
            (&[(1, 1.0)], &[(LOCAL, 0.0), (1, 1.0)], true),
            (&[(LOCAL, 0.001), (1, 0.999)], &[(LOCAL, 0.0), (1, 1.0)], false),
            (&[(LOCAL, 0.52), (1, 0.48)], &[(LOCAL, 0.5), (1, 0.5)], true),
            (&[(LOCAL, 0.62), (1, 0.38)], &[(LOCAL, 0.5), (1, 0.5)], false),
            // Weights need not sum up to one; without any, all is local.
            (&[(LOCAL, 0.52), (1, 0.48)], &[(LOCAL, 2.0), (1, 2.0)], true),
            (&[(LOCAL, 1.0)], &[(LOCAL, 0.0), (1, 0.0)], true),
            (&[(1, 1.0)], &[(LOCAL, 0.0), (1, 0.0)], false),
            // An endpoint that is new, and one that is no more.
            (&[(LOCAL, 0.5), (1, 0.5)], &[(LOCAL, 0.5), (1, 0.25), (2, 0.25)], false),
            (&[(LOCAL, 0.5), (1, 0.25), (2, 0.25)], &[(LOCAL, 0.5), (1, 0.5)], false),
            (&[(LOCAL, 0.999), (9, 0.001)], &[(LOCAL, 0.999)], false),
        ] {
            let drawn = is_drawn_by(&shares.iter().copied().collect(), &weights(wanted), 1024);
            assert_eq!(drawn, fits, "{shares:?} by {wanted:?}");
        }
    }

    #[test]
    fn each_family_sends_away_what_was_decided_for_both() {
        let endpoint = |id, weight| Candidate { id, key: u64::from(id), weight };
        // 1 and 2 take IPv4, 3 takes IPv6, 4 takes both.
        let takes = |family: u8| move |id: EndpointId| id == 4 || (id < 3) == (family == 4);
        for (local, weights, v4, v6) in [
            (0.5, [0.125, 0.125, 0.25, 0.0], vec![(1, 0.25), (2, 0.25), (4, 0.0)], vec![(3, 0.5), (4, 0.0)]),
            (0.0, [0.5, 0.25, 0.25, 0.0], vec![(1, 2.0 / 3.0), (2, 1.0 / 3.0), (4, 0.0)], vec![(3, 1.0), (4, 0.0)]),
            (0.4, [0.0, 0.0, 0.0, 0.6], vec![(1, 0.0), (2, 0.0), (4, 0.6)], vec![(3, 0.0), (4, 0.6)]),
            // Nothing of this family can be sent anywhere.
            (0.4, [0.3, 0.3, 0.0, 0.0], vec![(1, 0.3), (2, 0.3), (4, 0.0)], vec![(3, 0.0), (4, 0.0)]),
            (1.0, [0.0; 4], vec![(1, 0.0), (2, 0.0), (4, 0.0)], vec![(3, 0.0), (4, 0.0)]),
        ] {
            let endpoints: Vec<_> = (1..).zip(weights).map(|(id, weight)| endpoint(id, weight)).collect();
            for (family, mut expected) in [(4, v4), (6, v6)] {
                expected.push((LOCAL, local));
                let found = of_family(local, &endpoints, takes(family));
                assert_eq!(found.len(), expected.len());
                for (found, (id, weight)) in found.iter().zip(expected) {
                    assert_eq!(found.id, id, "family {family}, weights {weights:?}");
                    assert!((found.weight - weight).abs() < 1e-12, "{found:?} is not {weight}, family {family}");
                }
            }
        }
        assert!(of_family(0.4, &[], takes(4)).iter().all(|candidate| candidate.id == LOCAL));
    }
}
