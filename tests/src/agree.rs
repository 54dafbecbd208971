//! Agreement: the real program and the [`crate::model`] are given the same packets under the same policies and the same
//! state of slots and links, all by chance, and must come to the same verdict and the same bytes.
//!
//! A run is a function of its seed. A case in which they differ is made smaller ([`mod@shrink`]) and written to a file
//! ([`mod@file`]); the files are replayed by a test for ever.

pub mod dice;

pub mod spec;
pub mod policies;
pub mod moment;

pub mod draft;
pub mod mutate;
pub mod traffic;

pub mod edge;
pub mod file;
pub mod shrink;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use burst::config::{self, model::Config};

use self::dice::Dice;
use self::edge::{Edge, Host, PORTS};
use self::file::Case;
use self::moment::Moment;
use self::shrink::{Found, shrink};
use self::spec::Spec;
use crate::golden::Outcome;
use crate::model::world::World;
use crate::model::{Answer, Verdict, Why, judge};
use crate::packet::diff::diff;

/// Packets in one state of slots and links.
const MOMENT: usize = 40;
/// Lines of a difference that are shown.
const MOST_LINES: usize = 40;

/// A run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What it is a function of.
    pub seed: u64,
    /// Packets, at least.
    pub cases: usize,
    /// Packets under one configuration.
    pub per_policy: usize,
    /// Where cases that differ are written.
    pub out: PathBuf,
    /// The run ends after so many of those.
    pub most: usize,
    /// Told to the model only, so that a test sees a difference found.
    pub lie: Option<fn(&mut World)>,
}

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Packets.
    pub cases: usize,
    /// Configurations.
    pub policies: usize,
    /// Configurations that the compiler refused.
    pub refused: usize,
    /// How often each answer was due and given.
    pub due: BTreeMap<Why, usize>,
    /// Files of cases that differ, with what differs.
    pub differing: Vec<(PathBuf, String)>,
}

impl Report {
    /// Answers that never were due.
    #[must_use]
    pub fn missing(&self) -> Vec<Why> {
        Why::ALL.iter().copied().filter(|why| !self.due.contains_key(why)).collect()
    }

    /// The distribution, a line each.
    #[must_use]
    pub fn table(&self) -> String {
        let mut table = format!(
            "{} packets under {} configurations ({} more were refused by the compiler)\n",
            self.cases, self.policies, self.refused
        );
        for why in Why::ALL {
            let count = self.due.get(why).copied().unwrap_or(0);
            let share = 100.0 * count as f64 / self.cases.max(1) as f64;
            let _ = writeln!(table, "  {:<18} {count:>9} {share:>6.2} %", format!("{why:?}"));
        }
        table
    }
}

/// Where program and model differ.
#[derive(Clone, Debug)]
pub struct Difference {
    answers: Vec<Answer>,
    outcome: Outcome,
    /// What the program says it did, when it is asked once more.
    reason: String,
}

impl Difference {
    /// What was due and what was done: two cases of one kind differ for the same cause, probably.
    fn kind(&self) -> (Why, u32) {
        (self.answers[0].why, self.outcome.action)
    }

    /// In words, with the bytes that differ from the first answer.
    #[must_use]
    pub fn text(&self) -> String {
        let due: Vec<_> =
            self.answers.iter().map(|answer| format!("{:?} ({:?})", answer.verdict, answer.why)).collect();
        let action = match self.outcome.action {
            1 => "Drop".to_owned(),
            2 => "Pass".to_owned(),
            4 => "Redirect".to_owned(),
            other => format!("action {other}"),
        };
        // The answer that is meant is the one with this verdict.
        let meant = self.answers.iter().find(|answer| answer.verdict.number() == self.outcome.action);
        let bytes = diff(&meant.unwrap_or(&self.answers[0]).frame, &self.outcome.frame).unwrap_or_default();
        let mut lines: Vec<&str> = bytes.lines().take(MOST_LINES).collect();
        if bytes.lines().nth(MOST_LINES).is_some() {
            lines.push("and so on");
        }
        format!("due: {}; the program: {action} ({})\n{}\n", due.join(" or "), self.reason, lines.join("\n"))
    }
}

/// The configuration of a spec, if it is valid.
fn accepted(spec: &Spec) -> Option<Config> {
    config::parse(&spec.to_string(), "agree.toml").ok().map(|loaded| loaded.config)
}

/// Gives a frame to both; `None` when they agree.
///
/// # Errors
/// When the program cannot be run.
fn difference(host: &mut Host, world: &World, device: &'static str, frame: &[u8]) -> Result<Option<Difference>> {
    Ok(compare(host, world, device, frame)?.1)
}

/// Publishes the state of a moment and returns it as the model is told.
fn publish(host: &mut Host, moment: &Moment, config: &Config, lie: Option<fn(&mut World)>) -> World {
    let mut world = moment.world(config);
    host.publish(&world);
    if let Some(lie) = lie {
        lie(&mut world);
    }
    world
}

fn compare(host: &mut Host, world: &World, device: &'static str, frame: &[u8]) -> Result<(Why, Option<Difference>)> {
    let answers = judge(world, device, frame);
    let mut devices: Vec<&str> = answers
        .iter()
        .filter_map(|answer| match answer.verdict {
            Verdict::Redirect(device) => Some(device),
            Verdict::Pass | Verdict::Drop => None,
        })
        .collect();
    // What is to pass could leave by any device.
    if devices.is_empty() {
        devices = PORTS.iter().map(|port| port.name).collect();
    }
    let outcome = host.run(world, device, frame, &devices)?;
    let same = |answer: &Answer| {
        let number = answer.verdict.number() == outcome.action;
        // What is dropped is not seen by anybody.
        number && (answer.verdict == Verdict::Drop || answer.frame == outcome.frame)
    };
    match answers.iter().find(|answer| same(answer)) {
        Some(answer) => Ok((answer.why, None)),
        None => {
            let before = host.reasons();
            host.run(world, device, frame, &devices)?;
            let moved = host.reasons().into_iter().zip(before).find(|(after, before)| after != before);
            let reason = moved.map_or("no reason", |((reason, _), _)| reason.text()).to_owned();
            Ok((answers[0].why, Some(Difference { answers, outcome, reason })))
        }
    }
}

/// Runs.
///
/// # Errors
/// When the host cannot be made or fails.
pub fn run(settings: &Settings, mut progress: impl FnMut(&Report) + Send) -> Result<Report> {
    Edge::new()?.inside(|host| {
        let mut report = Report::default();
        let mut number = 0;
        while report.cases < settings.cases && report.differing.len() < settings.most {
            policy(host, settings, number, &mut report)?;
            number += 1;
            progress(&report);
        }
        Ok(report)
    })
}

/// One configuration and its packets.
fn policy(host: &mut Host, settings: &Settings, number: u64, report: &mut Report) -> Result<()> {
    let mut dice = Dice::new(settings.seed, number);
    let (spec, config) = loop {
        let spec = policies::policy(&mut dice);
        match accepted(&spec) {
            Some(config) => break (spec, config),
            None => report.refused += 1,
        }
    };
    report.policies += 1;
    host.configure(&config).with_context(|| format!("policy {number} of seed {}:\n{spec}", settings.seed))?;
    for _ in 0..settings.per_policy.div_ceil(MOMENT) {
        let moment = moment::moment(&mut dice, &config);
        let world = publish(host, &moment, &config, settings.lie);
        for _ in 0..MOMENT {
            let (device, frame) = traffic::frame(&mut dice, &world);
            let compared = compare(host, &world, device, &frame);
            let (why, differs) =
                compared.with_context(|| format!("policy {number} of seed {}:\n{spec}", settings.seed))?;
            report.cases += 1;
            *report.due.entry(why).or_default() += 1;
            if differs.is_some() {
                let found = Found { spec: spec.clone(), moment: moment.clone(), device, frame };
                let name = format!("seed-{}-{number}-{}", settings.seed, report.cases);
                report.differing.push(keep(host, settings, &name, found)?);
                // The host was configured for smaller cases meanwhile.
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Makes a case smaller and writes it.
fn keep(host: &mut Host, settings: &Settings, name: &str, found: Found) -> Result<(PathBuf, String)> {
    let (found, difference) = shrink(host, found, settings.lie)?;
    let sentence = format!("Found by {name}; {}", difference.text().lines().next().unwrap_or_default());
    let Found { spec, moment, device, frame } = found;
    let case = Case { sentence, config: spec.to_string(), moment, device, frame };
    std::fs::create_dir_all(&settings.out).with_context(|| format!("making {}", settings.out.display()))?;
    let path = settings.out.join(format!("{name}.case"));
    std::fs::write(&path, case.text()).with_context(|| format!("writing {}", path.display()))?;
    Ok((path, difference.text()))
}

/// Replays the files of a directory; returns how many there are, and what differs in which.
///
/// # Errors
/// When a file is not understood, or the host fails.
pub fn replay(directory: &Path) -> Result<(usize, Vec<(PathBuf, String)>)> {
    let listing = std::fs::read_dir(directory).with_context(|| format!("listing {}", directory.display()))?;
    let mut files = listing.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "case"));
    files.sort();
    let differing = Edge::new()?.inside(|host| {
        let mut differing = Vec::new();
        for path in &files {
            let case = Case::read(path)?;
            let config = config::parse(&case.config, &path.display().to_string());
            let config = config.map_err(|refused| anyhow::anyhow!("{refused}"))?.config;
            host.configure(&config).with_context(|| path.display().to_string())?;
            let world = publish(host, &case.moment, &config, None);
            if let Some(difference) = difference(host, &world, case.device, &case.frame)? {
                differing.push((path.clone(), format!("{}\n{}", case.sentence, difference.text())));
            }
        }
        Ok(differing)
    })?;
    Ok((files.len(), differing))
}
