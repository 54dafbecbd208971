//! The sentinel's programs by test run: a frame on its way out of a device of EDGE, and whether it may.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, anyhow};
use aya::maps::{Map, MapData, RingBuf};
use aya::programs::{ProgramError, ProgramFd, SchedClassifier, TestRun, TestRunOptions, TestRunResult, Xdp};
use burst::kernel::{self, Instance, Told};
use burst::object;
use burst_common::counter::Counter;
use burst_common::event::{self, Event};
use burst_common::flow;
use burst_common::policy::{DeviceLink, Table, mac_word};
use burst_common::reason::Note;

use super::counters::{Count, Moved};
use super::{Bed, DEVICES, cpus};

/// What the sentinel of a device is told.
#[derive(Clone, Copy, Debug)]
pub struct Post<'a> {
    /// Device of EDGE.
    pub device: &'static str,
    /// Its links.
    pub links: &'a [DeviceLink],
    /// `sentinel = "enforce"`.
    pub enforce: bool,
    /// `mode = "shadow"`.
    pub shadow: bool,
}

/// The sentinel of a device: its programs, loaded and attached nowhere.
pub struct Sentinel {
    instance: Instance,
    ifindex: u32,
}

/// Which of its programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// For what XDP sends out of the device: the one that may be run by hand.
    Xdp,
    /// For what the kernel sends.
    Kernel,
}

impl Gate {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Xdp, Self::Kernel];

    const fn program(self) -> &'static str {
        match self {
            Self::Xdp => "sentinel_probe",
            Self::Kernel => "sentinel_tc",
        }
    }

    /// `XDP_PASS`; `TC_ACT_UNSPEC`, which is also `TCX_NEXT` (include/uapi/linux/{bpf,pkt_cls}.h).
    const fn passes(self) -> u32 {
        match self {
            Self::Xdp => 2,
            Self::Kernel => u32::MAX,
        }
    }

    /// `XDP_DROP`; `TC_ACT_SHOT`, which is also `TCX_DROP`.
    const fn stops(self) -> u32 {
        match self {
            Self::Xdp => 1,
            Self::Kernel => 2,
        }
    }
}

/// What the sentinel does with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on, and nothing is said.
    Free,
    /// It goes on, and is reported.
    Reported,
    /// It is dropped and reported, as burst's own.
    StoppedOwn,
    /// It is dropped and reported.
    Stopped,
}

impl Fate {
    /// Kind of the event.
    const fn kind(self) -> Option<u8> {
        match self {
            Self::Free => None,
            Self::Reported => Some(event::SENTINEL_REPORTED),
            Self::StoppedOwn => Some(event::SENTINEL_STOPPED_OWN),
            Self::Stopped => Some(event::SENTINEL_STOPPED),
        }
    }
}

/// The tuple that an event names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// Source; port 0 where none can be read.
    pub source: SocketAddr,
    /// Destination.
    pub destination: SocketAddr,
    /// Protocol.
    pub proto: u8,
}

/// A frame on its way out, and what is to come of it.
#[derive(Clone, Debug)]
#[must_use = "a passage proves nothing before `Bed::watch`"]
pub struct Passage {
    /// The promise.
    pub name: String,
    /// The frame.
    pub frame: Vec<u8>,
    /// What the sentinel does.
    pub fate: Fate,
    /// What the event names: the tuple and the link. Not looked at for [`Fate::Free`].
    pub named: (Tuple, u32),
}

impl Bed {
    /// Loads the sentinel of a device, as the daemon does.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn sentinel(&self, post: &Post<'_>) -> Result<Sentinel> {
        let mut policy = self.compiled.policy;
        policy.role = burst_common::policy::ROLE_LINK;
        policy.shadow = post.shadow.into();
        policy.links = Table::new(0, post.links).map_err(|_| anyhow!("too many links"))?;
        policy.mac =
            DEVICES.iter().find(|(device, ..)| *device == post.device).map_or(0, |(_, mac, ..)| mac_word(*mac));
        let mut guard = self.compiled.guard;
        guard.enforce = post.enforce.into();
        let told = Told {
            policy: &policy,
            large: self.compiled.large.as_ref(),
            guard: &guard,
            guard_large: self.compiled.guard_large.as_ref(),
            trace: false,
        };
        let mut instance = kernel::load(object::get()?, &self.pin_dir.join("maps"), cpus()?, &told)?;
        for name in ["sentinel", "sentinel_probe"] {
            let program: &mut Xdp = program(&mut instance, name)?.try_into()?;
            program.load().with_context(|| name.to_owned())?;
        }
        let program: &mut SchedClassifier = program(&mut instance, "sentinel_tc")?.try_into()?;
        program.load().context("sentinel_tc")?;
        Ok(Sentinel { instance, ifindex: self.indices[post.device] })
    }

    /// Events that were reported since this was last asked.
    ///
    /// # Errors
    /// When the ring cannot be read.
    pub fn events(&self) -> Result<Vec<Event>> {
        let ring = MapData::from_pin(self.pin_dir.join("maps/EVENTS")).context("opening EVENTS")?;
        let mut ring = RingBuf::try_from(Map::RingBuf(ring))?;
        let mut events = Vec::new();
        while let Some(item) = ring.next() {
            events.push(bytemuck::pod_read_unaligned(&item));
        }
        Ok(events)
    }

    /// Runs a frame through one of the sentinel's programs, and holds verdict, bytes, counters and events against what was
    /// to come.
    ///
    /// # Errors
    /// When the run itself fails.
    ///
    /// # Panics
    /// When something differs, with the name and the differences.
    #[track_caller]
    pub fn watch(&self, sentinel: &mut Sentinel, gate: Gate, passage: &Passage) -> Result<()> {
        let before = self.counters.read();
        let mut out = vec![0xa5; passage.frame.len() + 256];
        let result = self.edge.run(|| sentinel.run(gate, &passage.frame, &mut out))??;
        out.truncate(result.data_size_out as usize);
        let moved = self.counters.moved(&before, &self.counters.read());
        let events = self.events()?;

        let fate = passage.fate;
        let verdict = if matches!(fate, Fate::Free | Fate::Reported) { gate.passes() } else { gate.stops() };
        let note = if fate == Fate::Reported { Note::SentinelReported } else { Note::SentinelStopped };
        let counter = Counter { packets: 1, bytes: 0, openers: 0 };
        let expected: Moved = match fate {
            Fate::Free => BTreeMap::new(),
            _ => [(Count::Class(0, note.number()), counter)].into(),
        };
        let said: Vec<_> = events.iter().map(|event| (event.kind, tuple(event), event.link, event.ifindex)).collect();
        let (named, link) = passage.named;
        let told: Vec<_> = fate.kind().map(|kind| (kind, named, link, sentinel.ifindex)).into_iter().collect();
        let mut wrong = Vec::new();
        if result.return_value != verdict {
            wrong.push(format!("the verdict is {:#x}, not {verdict:#x}", result.return_value));
        }
        if moved != expected {
            wrong.push(format!("counters that moved\n  expected {expected:?}\n  found    {moved:?}"));
        }
        if said != told {
            wrong.push(format!("events\n  expected {told:?}\n  found    {said:?}"));
        }
        if out != passage.frame {
            wrong.push("the frame was changed".to_owned());
        }
        if events.iter().any(|event| event.stamp == 0 || event.pad != 0) {
            wrong.push("an event without its time".to_owned());
        }
        assert!(wrong.is_empty(), "{} ({gate:?}):\n{}", passage.name, wrong.join("\n"));
        Ok(())
    }
}

impl Sentinel {
    /// The loaded instance, for its programs.
    pub fn instance(&mut self) -> &mut Instance {
        &mut self.instance
    }

    /// The program that may be run by hand.
    ///
    /// # Errors
    /// When its descriptor cannot be had.
    pub fn probe(&mut self) -> Result<ProgramFd> {
        let program: &mut Xdp = program(&mut self.instance, Gate::Xdp.program())?.try_into()?;
        Ok(program.fd()?.try_clone()?)
    }

    /// Runs a frame through a program, on behalf of its device; in the namespace of that device.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn run(&mut self, gate: Gate, frame: &[u8], out: &mut [u8]) -> Result<TestRunResult> {
        // struct xdp_md: ingress_ifindex is its fourth word; struct __sk_buff: ifindex is its eleventh, and without one the
        // kernel takes the loopback device (net/bpf/test_run.c). include/uapi/linux/bpf.h.
        let context: Vec<u32> = match gate {
            Gate::Xdp => vec![0, u32::try_from(frame.len())?, 0, self.ifindex, 0, 0],
            Gate::Kernel => (0..48).map(|word| if word == 10 { self.ifindex } else { 0 }).collect(),
        };
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(out),
            ctx_in: Some(bytemuck::cast_slice(&context)),
            ..TestRunOptions::new()
        };
        let found = program(&mut self.instance, gate.program())?;
        Ok(match gate {
            Gate::Xdp => <&mut Xdp>::try_from(found)?.test_run(options)?,
            Gate::Kernel => <&mut SchedClassifier>::try_from(found)?.test_run(options)?,
        })
    }
}

fn program<'a>(instance: &'a mut Instance, name: &str) -> Result<&'a mut aya::programs::Program> {
    instance.ebpf().program_mut(name).with_context(|| format!("the object has no program {name}"))
}

/// What an event names.
fn tuple(event: &Event) -> Tuple {
    let address = |wide| -> IpAddr { flow::narrow(event.family, wide) };
    let socket = |wide, port: u16| SocketAddr::new(address(wide), u16::from_be(port));
    Tuple {
        source: socket(event.src, event.src_port),
        destination: socket(event.dst, event.dst_port),
        proto: event.proto,
    }
}

/// How many instructions the verifier looked at to accept a program (Linux 5.16 and newer), and how many it has.
///
/// # Errors
/// When the program is not loaded or the kernel does not tell.
pub fn verified(sentinel: &mut Sentinel, name: &str) -> Result<(u32, u32)> {
    let info = match program(sentinel.instance(), name)? {
        aya::programs::Program::Xdp(program) => program.info(),
        aya::programs::Program::SchedClassifier(program) => program.info(),
        _ => return Err(anyhow!("{name} is of another kind")),
    }
    .map_err(|error: ProgramError| anyhow!("{name}: {error}"))?;
    Ok((info.verified_instruction_count().unwrap_or(0), info.size_translated().unwrap_or(0) / 8))
}
