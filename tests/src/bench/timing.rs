//! Cases in rounds: each right after the program that does nothing, and held against what is to come of it.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use aya::programs::ProgramFd;
use burst_common::counter::Counter;
use burst_common::policy::DeviceLink;
use burst_tests_ebpf::Replay;
use bytemuck::Zeroable as _;

use super::cases::{Case, Table};
use super::primitives::{BLOCKS, Block};
use super::replay::{Replayed, Run, Shape, context, object, program};
use super::report::Line;
use super::statistics::{Shuffle, Spread};
use super::{SEED, Settings};
use crate::golden::Bed;
use crate::golden::counters::Moved;
use crate::golden::sentinel::Post;
use crate::netns::Namespace;

/// Runs of one measurement over one flow; over many, each flow has one.
const REPEAT: u32 = 20_000;

/// What a probe is held against.
enum Held {
    /// A case of the table, by number.
    Case(usize),
    /// A building block's verdict.
    Block(u32),
}

/// Something that is timed.
struct Probe {
    name: String,
    budget: Option<f64>,
    held: Held,
    subject: Replayed,
    /// Number among the baselines.
    baseline: usize,
    repeat: u32,
    taken: Vec<Sample>,
}

/// One measurement.
#[derive(Clone, Copy)]
struct Sample {
    /// Of the program, in nanoseconds.
    gross: f64,
    /// Of the one that does nothing, right before and right after.
    base: [f64; 2],
}

/// Measures everything whose name is asked for.
///
/// # Errors
/// When a bed cannot be made, or a case is not what it should be.
pub(super) fn measure(settings: &Settings, file: &[u8]) -> Result<Vec<Line>> {
    let mut table = Table::new(&settings.only)?;
    let home = Namespace::new("blocks")?;
    let mut baselines = Baselines::new(file)?;
    let mut probes = Vec::new();
    for number in 0..table.cases.len() {
        let (case, beds) = (&table.cases[number], &mut table.beds);
        let probe = of_case(file, number, case, &mut beds[case.bed], &mut baselines);
        probes.push(probe.with_context(|| case.name.clone())?);
    }
    for block in &BLOCKS {
        of_block(file, block, &home, &settings.only, &mut baselines, &mut probes)?;
    }
    eprintln!("bench: {} cases on {} policies", probes.len(), table.beds.len());
    let mut shuffle = Shuffle::new(SEED);
    for round in 0..settings.rounds {
        for number in shuffle.order(probes.len()) {
            let probe = &mut probes[number];
            let baseline = &mut baselines.loaded[probe.baseline].1;
            match probe.held {
                Held::Case(number) => {
                    let case = &table.cases[number];
                    time_case(probe, baseline, case, &table.beds[case.bed])
                }
                Held::Block(verdict) => home.enter().and_then(|()| time_block(probe, baseline, verdict)),
            }
            .with_context(|| format!("{}, round {}", probe.name, round + 1))?;
        }
    }
    Ok(probes.iter().map(Probe::line).collect())
}

/// Runs of one count. On a machine that takes a nanosecond for an instruction they are over before its clock ticks, and what
/// a call costs once is less than one instruction of each.
const COUNTED: u32 = 1_000;
/// How often a count is taken. The least counts: the others had an interrupt in them.
const TRIES: usize = 9;

/// Counts the instructions of all cases of one flow whose name is asked for, by their time: for machines that take a
/// nanosecond for each. How many flows there are changes no count. Left out is what goes through tables that the kernel hashes
/// with a secret of each boot (neighbours, hash maps with many entries), and clocks, which carry over at some times.
///
/// # Errors
/// When a bed cannot be made, or a case is not what it should be.
pub(super) fn count(settings: &Settings, file: &[u8]) -> Result<Vec<(String, i64)>> {
    let mut table = Table::new(&settings.only)?;
    let mut baselines = Baselines::new(file)?;
    let mut counts = Vec::new();
    for number in 0..table.cases.len() {
        let (case, beds) = (&table.cases[number], &mut table.beds);
        if case.shape.flows > 1 || case.name.starts_with("return-fib/") {
            continue;
        }
        let bed = &mut beds[case.bed];
        let mut probe = of_case(file, number, case, bed, &mut baselines).with_context(|| case.name.clone())?;
        case.prepare(bed);
        let baseline = least(&mut baselines.loaded[probe.baseline].1)?;
        counts.push((case.name.trim_end_matches("/1").to_owned(), least(&mut probe.subject)? - baseline));
    }
    let home = Namespace::new("blocks")?;
    let mut probes = Vec::new();
    for block in BLOCKS.iter().filter(|block| block.is_steady()) {
        of_block(file, block, &home, &settings.only, &mut baselines, &mut probes)?;
    }
    home.enter()?;
    for probe in probes.iter_mut().filter(|probe| probe.name.ends_with("/1")) {
        let baseline = least(&mut baselines.loaded[probe.baseline].1)?;
        counts.push((probe.name.trim_end_matches("/1").to_owned(), least(&mut probe.subject)? - baseline));
    }
    Ok(counts)
}

/// The least of several counts.
fn least(replayed: &mut Replayed) -> Result<i64> {
    let mut least = i64::MAX;
    for _ in 0..TRIES {
        least = least.min(replayed.run(COUNTED)?.ns.floor() as i64);
    }
    Ok(least)
}

/// What is subtracted: per program, place, and way in which the packet varies.
struct Baselines<'a> {
    file: &'a [u8],
    programs: BTreeMap<&'static str, ProgramFd>,
    loaded: Vec<(String, Replayed)>,
}

impl<'a> Baselines<'a> {
    fn new(file: &'a [u8]) -> Result<Self> {
        let mut ebpf = object(file, &Replay::zeroed(), &[])?;
        let mut programs = BTreeMap::new();
        for name in ["nothing", "key"] {
            programs.insert(name, program(&mut ebpf, name)?.fd()?.try_clone()?);
        }
        Ok(Self { file, programs, loaded: Vec::new() })
    }

    /// The number of a baseline, loaded where it is not there yet. `place` names the namespace and device.
    fn get(&mut self, name: &'static str, place: &str, shape: &Shape, context: &[u8]) -> Result<usize> {
        let Replay { flows, address_at, port_at, .. } = shape.parameters()?;
        let key = format!("{name} {place} {flows} {address_at} {port_at}");
        if let Some(number) = self.loaded.iter().position(|(other, _)| *other == key) {
            return Ok(number);
        }
        let replayed = Replayed::new(self.file, shape, &self.programs[name], context.to_vec())?;
        self.loaded.push((key, replayed));
        Ok(self.loaded.len() - 1)
    }
}

/// Puts a case's program behind `replay`, and checks its first packet byte by byte.
fn of_case(file: &[u8], number: usize, case: &Case, bed: &mut Bed, baselines: &mut Baselines<'_>) -> Result<Probe> {
    let context = bed.context(case.entry, case.shape.frame.len())?;
    let next = if case.sentinel {
        let links = [DeviceLink { vlan: 0, link: case.entry.link }];
        bed.sentinel(&Post { device: case.entry.device, links: &links, enforce: false, shadow: false })?.probe()?
    } else {
        bed.instance(case.entry)?.program().fd()?.try_clone()?
    };
    let place = format!("{} {}", case.bed, case.entry.device);
    let baseline = baselines.get("nothing", &place, &case.shape, &context)?;
    let mut subject = Replayed::new(file, &case.shape, &next, context)?;
    bed.edge().enter()?;
    case.prepare(bed);
    if case.settles {
        // A whole turn over all flows.
        subject.run(case.shape.flows)?;
    }
    let before = bed.counters().read();
    let run = subject.run(1)?;
    bed.judge(&case.row, &run.outcome, &before);
    let budget = case.budget;
    Ok(Probe::new(case.name.clone(), budget, Held::Case(number), (subject, baseline), &case.shape))
}

/// The cases of a building block.
fn of_block(
    file: &[u8],
    block: &Block,
    home: &Namespace,
    only: &str,
    baselines: &mut Baselines<'_>,
    probes: &mut Vec<Probe>,
) -> Result<()> {
    for (name, shape) in block.cases().into_iter().filter(|(name, _)| name.contains(only)) {
        let context = context(shape.frame.len(), home.ifindex("lo")?)?;
        let baseline = baselines.get(block.baseline(), "home", &shape, &context)?;
        let subject = Replayed::new(file, &shape, &block.load(file, home)?, context)?;
        probes.push(Probe::new(name, None, Held::Block(block.verdict()), (subject, baseline), &shape));
    }
    Ok(())
}

impl Probe {
    fn new(
        name: String,
        budget: Option<f64>,
        held: Held,
        (subject, baseline): (Replayed, usize),
        shape: &Shape,
    ) -> Self {
        let repeat = REPEAT.max(shape.flows);
        Self { name, budget, held, subject, baseline, repeat, taken: Vec::new() }
    }

    /// One more measurement of the program, between two of the one that does nothing.
    fn time(&mut self, baseline: &mut Replayed) -> Result<Run> {
        // A few runs first bring the caches to where they are on a busy host.
        let mut base = |repeat: u32| -> Result<f64> {
            baseline.run(repeat / 4)?;
            let run = baseline.run(repeat)?;
            ensure!(run.outcome.action == 2, "the program that does nothing answers {}", run.outcome.action);
            Ok(run.ns)
        };
        let before = base(self.repeat)?;
        self.subject.run(self.repeat / 4)?;
        let run = self.subject.run(self.repeat)?;
        let after = base(self.repeat)?;
        self.taken.push(Sample { gross: run.ns, base: [before, after] });
        Ok(run)
    }

    /// The result, from the quieter half of the measurements: those in which the program that does nothing, before and
    /// after, was least disturbed by what else the machine did.
    fn line(&self) -> Line {
        let mut taken = self.taken.clone();
        taken.sort_by(|a, b| f64::total_cmp(&a.noise(), &b.noise()));
        taken.truncate(taken.len().div_ceil(2));
        let all = |of: fn(&Sample) -> f64| Spread::of(&taken.iter().map(of).collect::<Vec<_>>());
        Line {
            case: self.name.clone(),
            net: all(Sample::net),
            base: Some(all(Sample::middle)),
            budget: self.budget,
            instructions: None,
        }
    }
}

impl Sample {
    const fn noise(&self) -> f64 {
        self.base[0].max(self.base[1])
    }

    const fn middle(&self) -> f64 {
        f64::midpoint(self.base[0], self.base[1])
    }

    const fn net(&self) -> f64 {
        self.gross - self.middle()
    }
}

fn time_case(probe: &mut Probe, baseline: &mut Replayed, case: &Case, bed: &Bed) -> Result<()> {
    bed.edge().enter()?;
    case.prepare(bed);
    let before = bed.counters().read();
    let run = probe.time(baseline)?;
    let moved = bed.counters().moved(&before, &bed.counters().read());
    let runs = u64::from(probe.repeat) + u64::from(probe.repeat / 4);
    let times = |(&count, counter): (_, &Counter)| {
        let Counter { packets, bytes, openers } = *counter;
        (count, Counter { packets: packets * runs, bytes: bytes * runs, openers: openers * runs })
    };
    let expected: Moved = case.row.moved.iter().map(times).collect();
    ensure!(moved == expected, "counters that moved\n  expected {expected:?}\n  found    {moved:?}");
    let (verdict, length) = (run.outcome.action, run.outcome.frame.len());
    ensure!(verdict == case.row.verdict.number(), "the verdict is {verdict}, not {:?}", case.row.verdict);
    ensure!(length == case.row.out.len(), "{length} bytes went on, not {}", case.row.out.len());
    // Of many flows the last is another one than the row's.
    ensure!(case.shape.flows > 1 || run.outcome.frame == case.row.out, "the last packet is not as the first was");
    Ok(())
}

fn time_block(probe: &mut Probe, baseline: &mut Replayed, verdict: u32) -> Result<()> {
    let run = probe.time(baseline)?;
    ensure!(run.outcome.action == verdict, "the verdict is {}, not {verdict}", run.outcome.action);
    Ok(())
}
