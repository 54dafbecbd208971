//! End to end over veth: a generator, the edge host and a sink on one CPU, so that the cost of a packet is all that the CPU
//! did for it. Beside burst: the least that a redirect can cost, the kernel's own forwarding, and what an administrator would
//! do without burst, a mark by nftables and policy routing.
//!
//! What counts is the time that the sending thread and its CPU's softirq thread ran, and frames that arrived.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use aya::Ebpf;
use aya::maps::xdp::DevMapHash;
use aya::maps::{Array, MapData};
use aya::programs::xdp::XdpLink;
use aya::programs::{Xdp, XdpMode};
use burst_common::reason::Reason;
use burst_common::slot::Slot;
use burst_tests_ebpf::Replay;
use bytemuck::Zeroable as _;

use super::cases::{FROM_CLIENT, MANY, To};
use super::policies::small_policy;
use super::replay::{Replayed, Shape, Side, context, object, program};
use super::report::Line;
use super::statistics::{Shuffle, Spread};
use super::{SEED, Settings};
use crate::golden::Bed;
use crate::golden::counters::Count;
use crate::topology::{CLIENT_DEVICE, DIRECT_CONNECT, DIRECT_CONNECT_MAC, DX_DEVICE, FIRST_ENDPOINT};

/// Frames of a measurement.
const FRAMES: u32 = 2 * MANY;
/// Frames before it.
const WARM: u32 = 4096;
/// Frames that others may send meanwhile: the kernel announces groups and looks for routers.
const STRAY: u64 = 64;

/// What is attached to the edge's client device.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Edge {
    Nothing,
    /// Counts and drops: the sink is here.
    Drop,
    Redirect,
    Burst,
}

/// What the kernel is to do with a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Routing {
    /// Forwards it by its destination.
    Plain,
    /// Marks and routes it by policy. The rule slows down all packets of the host, and it does so for ever.
    Policy,
}

/// A way through the edge.
struct Way {
    name: &'static str,
    edge: Edge,
    routing: Routing,
    /// Destination: a service or an address that no rule names.
    to: To,
}

const fn way(name: &'static str, edge: Edge, routing: Routing, to: To) -> Way {
    Way { name, edge, routing, to }
}

const WAYS: [Way; 8] = [
    way("wire/drop", Edge::Drop, Routing::Plain, To::Promo),
    way(REDIRECT, Edge::Redirect, Routing::Plain, To::Promo),
    way("wire/burst-nexthop", Edge::Burst, Routing::Plain, To::News),
    way("wire/burst-dnat", Edge::Burst, Routing::Plain, To::Promo),
    way(FORWARD, Edge::Nothing, Routing::Plain, To::Other),
    way("wire/forward-burst-passes", Edge::Burst, Routing::Plain, To::Other),
    way("wire/forward-beside-policy", Edge::Nothing, Routing::Policy, To::Other),
    way(POLICY, Edge::Nothing, Routing::Policy, To::Promo),
];
const REDIRECT: &str = "wire/redirect";
const FORWARD: &str = "wire/forward";
const POLICY: &str = "wire/nft-mark-policy-routing";

/// An edge host with its sinks.
struct World {
    bed: Bed,
    drop: Ebpf,
    redirect: Ebpf,
    sink: Ebpf,
}

/// Attaches to a device of the namespace that the caller is in, until the link is dropped. Native: generic mode is another
/// thing to measure.
fn attach(program: &mut Xdp, device: &str) -> Result<XdpLink> {
    let link = program.attach(device, XdpMode::Driver).with_context(|| format!("attaching to {device}"))?;
    Ok(program.take_link(link)?)
}

/// A loaded program.
fn loaded<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    Ok(ebpf.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?)
}

/// How many frames arrived.
fn arrived(ebpf: &Ebpf) -> Result<u64> {
    let count: Array<&MapData, u64> = ebpf.map("ARRIVED").context("no map ARRIVED")?.try_into()?;
    Ok(count.get(&0, 0)?)
}

impl World {
    fn new(file: &[u8], routing: Routing) -> Result<Self> {
        let mut bed = Bed::new(&small_policy())?;
        bed.reach(&[CLIENT_DEVICE, DX_DEVICE])?;
        let next = DIRECT_CONNECT.v4;
        bed.neighbour(next.into(), DX_DEVICE, DIRECT_CONNECT_MAC)?;
        bed.edge().sysctl(&[("net/ipv4/conf/all/rp_filter", "0"), ("net/ipv4/conf/client0/rp_filter", "0")])?;
        bed.edge().ip(&format!("route add 203.0.113.0/24 via {next}"))?;
        if routing == Routing::Policy {
            bed.edge().ip(&format!("route add default via {next} table 100\nrule add fwmark 1 lookup 100"))?;
            let rules = "add table ip bench; \
                         add chain ip bench shift { type filter hook prerouting priority mangle; }; \
                         add rule ip bench shift ip daddr 203.0.113.20 tcp dport { 80, 443 } meta mark set 1";
            bed.edge().exec("nft", &[rules])?;
        }
        bed.fill("promo", Slot::stable(bed.endpoint(&format!("promo/reserved/{}", FIRST_ENDPOINT.v4))));
        bed.fill("news", Slot::stable(bed.endpoint("news/flat")));
        let load = || object(file, &Replay::zeroed(), &[]);
        let (mut drop, mut redirect, mut sink) = (load()?, load()?, load()?);
        for (ebpf, name) in [(&mut drop, "arrive"), (&mut redirect, "redirect"), (&mut sink, "arrive")] {
            program(ebpf, name)?;
        }
        let device = bed.ifindex(DX_DEVICE);
        let mut to: DevMapHash<&mut MapData> = redirect.map_mut("TO").context("no map TO")?.try_into()?;
        bed.edge().run(|| to.insert(0, device, None, 0))??;
        Ok(Self { bed, drop, redirect, sink })
    }

    /// What sends the frames of a way.
    fn generator(&self, file: &[u8], way: &Way) -> Result<Replayed> {
        let mut ebpf = object(file, &Replay::zeroed(), &[])?;
        let send = program(&mut ebpf, "send")?.fd()?.try_clone()?;
        let shape = Shape { frame: way.to.frame(), flows: MANY, side: Side::Source };
        // The same devices are behind the edge's, under the same names.
        let device = self.bed.far().ifindex(CLIENT_DEVICE)?;
        Replayed::new(file, &shape, &send, context(shape.frame.len(), device)?)
    }

    /// Sends frames one way, and says what one of them cost in nanoseconds.
    fn measure(&mut self, way: &Way, generator: &mut Replayed, clock: &Clock) -> Result<f64> {
        let Self { bed, drop, redirect, sink } = self;
        bed.edge().enter()?;
        let _edge = match way.edge {
            Edge::Nothing => None,
            Edge::Drop => Some(attach(loaded(drop, "arrive")?, CLIENT_DEVICE)?),
            Edge::Redirect => Some(attach(loaded(redirect, "redirect")?, CLIENT_DEVICE)?),
            Edge::Burst => Some(attach(bed.instance(FROM_CLIENT)?.program(), CLIENT_DEVICE)?),
        };
        bed.far().enter()?;
        // As frames or as socket buffers: to take them here is the cheapest for both.
        let _sink = attach(loaded(sink, "arrive")?, DX_DEVICE)?;
        let sink = if way.edge == Edge::Drop { &*drop } else { &*sink };
        generator.send(WARM)?;
        settle(sink)?;
        let counted = bed.counters().read();
        let (before, begun) = (arrived(sink)?, clock.read()?);
        generator.send(FRAMES)?;
        settle(sink)?;
        let (took, arrived) = (clock.read()? - begun, arrived(sink)? - before);
        let expected = u64::from(FRAMES);
        ensure!((expected..expected + STRAY).contains(&arrived), "{arrived} of {expected} frames arrived");
        if way.edge == Edge::Burst {
            let moved = bed.counters().moved(&counted, &bed.counters().read());
            let count = match way.to.class() {
                Some(class) => Count::Class(bed.class(class), Reason::Shifted.number()),
                None => Count::Class(0, Reason::NoMatch.number()),
            };
            let packets = moved.get(&count).map_or(0, |counter| counter.packets);
            ensure!(packets == expected, "burst counted {packets} packets of {expected}: {moved:?}");
        }
        Ok(took as f64 / f64::from(FRAMES))
    }
}

/// Waits until nothing arrives any more.
fn settle(sink: &Ebpf) -> Result<()> {
    let mut last = arrived(sink)?;
    loop {
        std::thread::sleep(Duration::from_millis(2));
        let now = arrived(sink)?;
        if now == last {
            return Ok(());
        }
        last = now;
    }
}

/// The clock of all work on this CPU that is for the benchmark: this thread's, and that of the thread that goes on with
/// what arrives when there is much of it.
struct Clock {
    softirq: libc::clockid_t,
}

impl Clock {
    fn new(cpu: usize) -> Result<Self> {
        let wanted = format!("ksoftirqd/{cpu}");
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            if name.trim() == wanted {
                let pid: libc::pid_t = entry.file_name().to_string_lossy().parse()?;
                let mut softirq = 0;
                // SAFETY: a pid, and a place for the answer.
                let result = unsafe { libc::clock_getcpuclockid(pid, &raw mut softirq) };
                ensure!(result == 0, "no clock of {wanted}: {}", std::io::Error::from_raw_os_error(result));
                return Ok(Self { softirq });
            }
        }
        bail!("no thread {wanted}")
    }

    /// Nanoseconds.
    fn read(&self) -> Result<i64> {
        let mut sum = 0;
        for clock in [libc::CLOCK_THREAD_CPUTIME_ID, self.softirq] {
            let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: a place for the answer.
            let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
            ensure!(result == 0, "reading a clock: {}", std::io::Error::last_os_error());
            sum += time.tv_sec * 1_000_000_000 + time.tv_nsec;
        }
        Ok(sum)
    }
}

/// Measures all ways whose name is asked for. The caller stays on `cpu`.
///
/// # Errors
/// When a world cannot be made, or frames do not arrive.
pub(super) fn measure(settings: &Settings, file: &[u8], cpu: usize) -> Result<Vec<Line>> {
    let clock = Clock::new(cpu)?;
    let ways: Vec<_> = WAYS.iter().filter(|way| way.name.contains(&settings.only)).collect();
    if ways.is_empty() {
        return Ok(Vec::new());
    }
    let mut worlds = [World::new(file, Routing::Plain)?, World::new(file, Routing::Policy)?];
    let world = |way: &Way| usize::from(way.routing == Routing::Policy);
    let generators = ways.iter().map(|way| worlds[world(way)].generator(file, way));
    let mut generators = generators.collect::<Result<Vec<_>>>()?;
    let mut taken = vec![Vec::new(); ways.len()];
    let mut shuffle = Shuffle::new(SEED);
    for round in 0..settings.rounds {
        for number in shuffle.order(ways.len()) {
            let way = ways[number];
            let ns = worlds[world(way)].measure(way, &mut generators[number], &clock);
            taken[number].push(ns.with_context(|| format!("{}, round {}", way.name, round + 1))?);
        }
    }
    let line = |(way, taken): (&&Way, &Vec<f64>)| Line {
        case: way.name.to_owned(),
        net: Spread::of(taken),
        base: None,
        budget: None,
        instructions: None,
    };
    let mut lines: Vec<Line> = ways.iter().zip(&taken).map(line).collect();
    bound(&mut lines);
    Ok(lines)
}

/// Sets the budgets that other ways give: a redirect and a tenth, a sixth of what policy routing costs, and of the kernel's
/// forwarding two hundredths more.
fn bound(lines: &mut [Line]) {
    let of = |name: &str| lines.iter().find(|line| line.case == name).map(|line| line.net.median);
    let (redirect, forward, policy) = (of(REDIRECT), of(FORWARD), of(POLICY));
    for line in lines {
        line.budget = match line.case.as_str() {
            "wire/burst-nexthop" | "wire/burst-dnat" => {
                let all = [redirect.map(|ns| ns * 1.10), policy.map(|ns| ns / 6.0)];
                all.into_iter().flatten().min_by(f64::total_cmp)
            }
            "wire/forward-burst-passes" => forward.map(|ns| ns * 1.02),
            _ => None,
        };
    }
}
