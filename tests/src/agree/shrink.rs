//! A case that failed, made smaller as long as it fails.

use anyhow::Result;

use super::edge::Host;
use super::moment::Moment;
use super::spec::Spec;
use super::{Difference, accepted, difference, publish};
use crate::model::world::World;

/// A case, with its configuration still in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The configuration.
    pub spec: Spec,
    /// The state of the moment.
    pub moment: Moment,
    /// Where the frame arrives.
    pub device: &'static str,
    /// The frame.
    pub frame: Vec<u8>,
}

/// Tries cases; the host is configured anew only where the configuration differs from the last one's.
struct Trial<'a> {
    host: &'a mut Host,
    lie: Option<fn(&mut World)>,
    last: Option<Spec>,
}

impl Trial<'_> {
    fn run(&mut self, found: &Found) -> Result<Option<Difference>> {
        let Some(config) = accepted(&found.spec) else { return Ok(None) };
        if self.last.as_ref() != Some(&found.spec) {
            self.host.configure(&config)?;
            self.last = Some(found.spec.clone());
        }
        let world = publish(self.host, &found.moment, &config, self.lie);
        difference(self.host, &world, found.device, &found.frame)
    }
}

/// Makes a case that fails smaller. Returns the smallest found and what differs there.
///
/// # Errors
/// When the host fails, or the case does not fail any more.
pub fn shrink(host: &mut Host, mut found: Found, lie: Option<fn(&mut World)>) -> Result<(Found, Difference)> {
    let mut trial = Trial { host, lie, last: None };
    let Some(mut difference) = trial.run(&found)? else { anyhow::bail!("it does not fail when it is run again") };
    loop {
        let mut smaller = false;
        for step in [moments, frames, specs] {
            // Lists of candidates are made anew from what is the smallest so far.
            let mut number = 0;
            while let Some(candidate) = step(&found).into_iter().nth(number) {
                match trial.run(&candidate)? {
                    // A smaller case of something else is no smaller case of this.
                    Some(differs) if differs.kind() == difference.kind() => {
                        (found, difference, smaller) = (candidate, differs, true);
                    }
                    _ => number += 1,
                }
            }
        }
        if !smaller {
            return Ok((found, difference));
        }
    }
}

/// Without some of what differs from an idle host.
fn moments(found: &Found) -> Vec<Found> {
    let mut candidates = Vec::new();
    let mut with = |change: &dyn Fn(&mut Moment)| {
        let mut candidate = found.clone();
        change(&mut candidate.moment);
        if candidate != *found {
            candidates.push(candidate);
        }
    };
    with(&|moment| moment.slots.clear());
    let keys: Vec<_> = found.moment.slots.keys().cloned().collect();
    let mut size = keys.len().div_ceil(2);
    while size > 0 {
        for chunk in keys.chunks(size) {
            with(&|moment| moment.slots.retain(|key, _| !chunk.contains(key)));
        }
        size = if size == 1 { 0 } else { size.div_ceil(2) };
    }
    with(&|moment| moment.bypass = false);
    with(&|moment| moment.cached = false);
    for link in found.moment.links.keys() {
        with(&|moment| {
            moment.links.remove(link);
        });
    }
    candidates
}

/// With a shorter frame, or more zeros in it.
fn frames(found: &Found) -> Vec<Found> {
    let frame = &found.frame;
    let mut candidates: Vec<Vec<u8>> = Vec::new();
    // A tag less.
    if frame.len() >= 18 && matches!(frame[12..14], [0x81, 0x00] | [0x88, 0xa8]) {
        candidates.push([&frame[..12], &frame[16..]].concat());
    }
    for cut in [512, 128, 32, 8, 4, 2, 1] {
        if frame.len() >= 14 + cut {
            candidates.push(frame[..frame.len() - cut].to_vec());
            candidates.extend(shorter(frame, cut));
        }
    }
    for size in [16, 4, 1] {
        for at in (14..frame.len()).step_by(size) {
            let end = (at + size).min(frame.len());
            let mut zeros = frame.clone();
            zeros[at..end].fill(0);
            candidates.push(zeros);
        }
    }
    candidates.retain(|candidate| candidate != frame);
    candidates.into_iter().map(|frame| Found { frame, ..found.clone() }).collect()
}

/// The frame with a shorter payload, and lengths to match; an untagged frame of UDP or TCP only.
fn shorter(frame: &[u8], cut: usize) -> Option<Vec<u8>> {
    let mut frame = frame[..frame.len() - cut].to_vec();
    let less = |frame: &mut [u8], at: usize| -> Option<()> {
        let field = frame.get_mut(at..at + 2)?;
        let value = u16::from_be_bytes([field[0], field[1]]).checked_sub(cut as u16)?;
        field.copy_from_slice(&value.to_be_bytes());
        Some(())
    };
    let (length, protocol, body) = match frame.get(12..14)? {
        [0x08, 0x00] => (16, *frame.get(23)?, 14 + usize::from(frame[14] & 15) * 4),
        [0x86, 0xdd] => (18, *frame.get(20)?, 54),
        _ => return None,
    };
    less(&mut frame, length)?;
    if protocol == 17 {
        less(&mut frame, body + 4)?;
    }
    Some(frame)
}

/// With a simpler configuration.
fn specs(found: &Found) -> Vec<Found> {
    let mut candidates = Vec::new();
    let mut with = |change: &dyn Fn(&mut Spec)| {
        let mut candidate = found.clone();
        change(&mut candidate.spec);
        if candidate != *found {
            candidates.push(candidate);
        }
    };
    let spec = &found.spec;
    for class in 0..spec.classes.len() {
        with(&|spec| {
            spec.classes.remove(class);
        });
    }
    with(&|spec| spec.shadow = false);
    with(&|spec| spec.clients.truncate(1));
    for (number, class) in spec.classes.iter().enumerate() {
        for rule in 0..class.rules.len() {
            with(&|spec| {
                spec.classes[number].rules.remove(rule);
            });
            let parts = &class.rules[rule];
            for n in 0..parts.dst.len() {
                with(&|spec| {
                    spec.classes[number].rules[rule].dst.remove(n);
                });
            }
            with(&|spec| spec.classes[number].rules[rule].src.clear());
            for n in 0..parts.src.len() {
                with(&|spec| {
                    spec.classes[number].rules[rule].src.remove(n);
                });
            }
            for n in 0..parts.ports.len() {
                with(&|spec| {
                    spec.classes[number].rules[rule].ports.remove(n);
                });
            }
        }
        let Some(burst) = &class.burst else { continue };
        for tier in 0..burst.tiers.len() {
            with(&|spec| {
                spec.classes[number].burst.as_mut().map(|burst| burst.tiers.remove(tier));
            });
            for n in 0..burst.tiers[tier].endpoints.len() {
                with(&|spec| {
                    tier_of(spec, number, tier, |tier| {
                        tier.endpoints.remove(n);
                    })
                });
            }
            for n in 0..burst.tiers[tier].links.len() {
                with(&|spec| {
                    tier_of(spec, number, tier, |tier| {
                        tier.links.remove(n);
                    })
                });
            }
            with(&|spec| tier_of(spec, number, tier, |tier| tier.ports.clear()));
        }
    }
    for link in 0..spec.links.len() {
        with(&|spec| {
            let name = spec.links.remove(link).name;
            let tiers =
                spec.classes.iter_mut().filter_map(|class| class.burst.as_mut()).flat_map(|burst| &mut burst.tiers);
            tiers.for_each(|tier| tier.links.retain(|named| *named != name));
        });
    }
    candidates
}

fn tier_of(spec: &mut Spec, class: usize, tier: usize, change: impl FnOnce(&mut super::spec::Tier)) {
    if let Some(burst) = &mut spec.classes[class].burst {
        change(&mut burst.tiers[tier]);
    }
}
