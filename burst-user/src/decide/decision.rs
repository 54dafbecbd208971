//! What the controller decides, and why, in words and in numbers.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One decision about every class, in the order of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// One per class, `keep` classes included.
    pub classes: Vec<ClassDecision>,
}

/// The decision about a class. All numbers are finite; `local` and `weights` add up to 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassDecision {
    /// Local share that demand, capacity and the rules of moving it ask for, 0–1.
    pub wanted: f64,
    /// Local share after the tiers took what they could, 0–1: never below `wanted`.
    pub local: f64,
    /// Share of all new flows per endpoint, in the order of the tiers and of the endpoints in them.
    pub weights: Vec<f64>,
    /// Share of all new flows per tier.
    pub tiers: Vec<f64>,
    /// New flows per second that the premises take before the surge guard sends more of them away; `None`: it sends none.
    pub admit: Option<f64>,
    /// Where the surge guard sends them: shares of them per endpoint, in the order of `weights`. All zero: nowhere.
    pub overflow: Vec<f64>,
    /// Demand it was decided on: new flows per second, held against noise.
    pub demand: f64,
    /// New flows per second as measured, mean over about a second.
    pub rate: f64,
    /// Those of them that stayed local.
    pub local_rate: f64,
    /// Local load; 1 is the limit. `None` when no source can be trusted.
    pub load: Option<f64>,
    /// New flows per second that make a local load of 1; `None` while unknown.
    pub capacity: Option<f64>,
    /// Rules that kept the share from where demand and capacity would have it.
    pub limits: Vec<Limit>,
    /// The decision in words.
    pub reason: String,
}

/// A rule that kept a share from where demand and capacity would have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// The local load is at its limit or above.
    Overloaded,
    /// No capacity is known yet: the share follows the load alone.
    CapacityUnknown,
    /// An operator set the share.
    Override,
    /// `max_offsite_share` keeps the rest local.
    MaxOffsiteShare,
    /// Load unknown: the last share is held, and lowered only if demand asks for it.
    StaleHold,
    /// Load unknown for longer than `hold`: on the way to `fallback`.
    StaleFallback,
    /// Flows could come home; waiting whether it stays so (`stabilize`).
    Stabilizing,
    /// Coming home at `home_rate`.
    HomeRate,
    /// Too small a change to come home for (`dead_band`).
    DeadBand,
    /// No tier can take more: the rest stays local (`when_full`).
    TiersFull,
    /// No endpoint can be reached: everything stays local.
    Unreachable,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Overloaded => "local load is over its limit",
            Self::CapacityUnknown => "local capacity is not known yet, following the load",
            Self::Override => "set by override",
            Self::MaxOffsiteShare => "max_offsite_share keeps the rest local",
            Self::StaleHold => "load unknown, share held",
            Self::StaleFallback => "load unknown, moving to fallback",
            Self::Stabilizing => "could come home, waiting for stabilize",
            Self::HomeRate => "coming home at home_rate",
            Self::DeadBand => "within dead_band",
            Self::TiersFull => "tiers are full, the rest stays local",
            Self::Unreachable => "no endpoint can be reached, all stays local",
        })
    }
}

impl ClassDecision {
    /// The decision about a `keep` class: there is none to make.
    pub(super) fn keep() -> Self {
        Self {
            wanted: 1.0,
            local: 1.0,
            weights: Vec::new(),
            tiers: Vec::new(),
            admit: None,
            overflow: Vec::new(),
            demand: 0.0,
            rate: 0.0,
            local_rate: 0.0,
            load: None,
            capacity: None,
            limits: Vec::new(),
            reason: "keep: stays local".into(),
        }
    }

    /// Writes the reason from the numbers.
    pub(super) fn explain<'a>(&mut self, target: f64, tiers: impl Iterator<Item = &'a str>) {
        let mut text = format!("demand {}/s", Grouped(self.demand));
        match self.capacity {
            Some(capacity) => text += &format!(" against {target:.2} × {}/s local", Grouped(capacity)),
            None => text += ", local capacity unknown",
        }
        match self.load {
            Some(load) => text += &format!(", load {load:.2}"),
            None => text += ", load unknown",
        }
        text += &format!(" → local {:.2}", self.local);
        for (name, share) in tiers.zip(&self.tiers).filter(|(_, share)| **share > 0.0) {
            text += &format!(", {name} {share:.2}");
        }
        for limit in &self.limits {
            text += &format!("; {limit}");
        }
        self.reason = text;
    }
}

/// A rate as people read it: whole above 10, thousands grouped.
struct Grouped(f64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 10.0 {
            return write!(f, "{:.1}", self.0);
        }
        let digits = format!("{:.0}", self.0);
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_grouped() {
        for (rate, text) in
            [(0.0, "0.0"), (9.94, "9.9"), (10.4, "10"), (999.0, "999"), (4210.0, "4,210"), (1e7, "10,000,000")]
        {
            assert_eq!(Grouped(rate).to_string(), text);
        }
    }
}
