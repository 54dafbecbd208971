//! Offsite share → tiers in their order, each up to its capacity, evenly over the endpoints that can be reached.

use super::decision::Limit;

/// The offsite share, poured.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Poured {
    /// Share of all new flows per endpoint, in the order of the tiers.
    pub(super) weights: Vec<f64>,
    /// Share of all new flows per tier.
    pub(super) tiers: Vec<f64>,
    /// Share of all new flows that fits nowhere.
    pub(super) left: f64,
    /// What stood in the way.
    pub(super) limits: Vec<Limit>,
}

/// Pours `offsite` (0–1) of `demand` (flows/s). A tier's capacity (flows/s) is that of all its endpoints: those that
/// cannot be reached take their part of it with them. What fits nowhere stays with the caller: local.
pub(super) fn pour(offsite: f64, demand: f64, capacities: &[f64], reachable: &[Vec<bool>]) -> Poured {
    let mut left = offsite.clamp(0.0, 1.0);
    let mut poured = Poured { weights: Vec::new(), tiers: Vec::new(), left: 0.0, limits: Vec::new() };
    let mut any = false;
    for (&capacity, endpoints) in capacities.iter().zip(reachable) {
        let up = endpoints.iter().filter(|up| **up).count();
        any |= up > 0;
        let room = capacity * up as f64 / endpoints.len().max(1) as f64;
        let share = if up == 0 || left <= 0.0 {
            0.0
        } else if demand * left <= room {
            left
        } else {
            room / demand
        };
        left -= share;
        let each = if up == 0 { 0.0 } else { share / up as f64 };
        poured.weights.extend(endpoints.iter().map(|up| if *up { each } else { 0.0 }));
        poured.tiers.push(share);
    }
    poured.left = left;
    // Sums of shares are exact to a few units in the last place of 1.
    if left > 1e-12 {
        poured.limits.push(if any { Limit::TiersFull } else { Limit::Unreachable });
    }
    poured
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiers_fill_in_order_and_the_rest_is_left() {
        let (two, one, gone) = (vec![true, true], vec![true], vec![false]);
        type Row<'a> = (&'a str, f64, f64, [&'a Vec<bool>; 2], &'a [f64], [f64; 2], &'a [Limit]);
        let half = vec![true, false];
        let dead = vec![false, false];
        let rows: [Row<'_>; 8] = [
            ("nothing leaves", 0.0, 1000.0, [&two, &one], &[0.0, 0.0, 0.0], [0.0, 0.0], &[]),
            ("the first tier suffices", 0.4, 1000.0, [&two, &one], &[0.2, 0.2, 0.0], [0.4, 0.0], &[]),
            ("the second takes what is over", 0.8, 1000.0, [&two, &one], &[0.25, 0.25, 0.3], [0.5, 0.3], &[]),
            ("both are full", 1.0, 2000.0, [&two, &one], &[0.125, 0.125, 0.5], [0.25, 0.5], &[Limit::TiersFull]),
            ("half a tier has half its capacity", 0.8, 1000.0, [&half, &one], &[0.25, 0.0, 0.55], [0.25, 0.55], &[]),
            ("a tier out of reach is skipped", 0.8, 1000.0, [&dead, &one], &[0.0, 0.0, 0.8], [0.0, 0.8], &[]),
            (
                "nothing can be reached",
                0.8,
                1000.0,
                [&dead, &gone],
                &[0.0, 0.0, 0.0],
                [0.0, 0.0],
                &[Limit::Unreachable],
            ),
            ("no demand, as by an override", 0.8, 0.0, [&two, &one], &[0.4, 0.4, 0.0], [0.8, 0.0], &[]),
        ];
        for (name, offsite, demand, reachable, weights, tiers, limits) in rows {
            let poured = pour(offsite, demand, &[500.0, 1000.0], &reachable.map(Clone::clone));
            let near = |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12);
            assert!(near(&poured.weights, weights) && near(&poured.tiers, &tiers), "{name}: {poured:?}");
            assert!((poured.left + tiers.iter().sum::<f64>() - offsite).abs() < 1e-12, "{name}: {poured:?}");
            assert_eq!(poured.limits, limits, "{name}");
        }
    }
}
