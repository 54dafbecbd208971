//! The program `replay` as seen from here: a program under test, run again and again on the same packet.

use anyhow::{Context as _, Result, anyhow, ensure};
use aya::maps::{Array, MapData, ProgramArray};
use aya::programs::{ProgramFd, TestRun, TestRunAttrs, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use burst_tests_ebpf::{HEAD, Replay};

use crate::golden::Outcome;

/// Maps of the programs that are loaded for one of them: all but the caller's are made small.
const MAPS: [&str; 5] = ["ARRAY", "PER_CPU", "HASH", "LRU", "LPM"];

/// Frames sent at once: as many as a NAPI poll takes from a device (include/linux/netdevice.h, `NAPI_POLL_WEIGHT`).
const BATCH: u32 = 64;

/// Whose address and port vary from flow to flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The sender's: packets of clients.
    Source,
    /// The receiver's: replies to clients.
    Destination,
}

/// What is run: a frame, and how it varies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The frame of flow 0. The last 16 bits of the address that varies are zero.
    pub frame: Vec<u8>,
    /// Number of flows, a power of two, at most 65,536.
    pub flows: u32,
    /// What varies.
    pub side: Side,
}

impl Shape {
    /// What the program is told.
    ///
    /// # Errors
    /// When the frame is too short, no IP packet, or its address does not end in zeros.
    pub fn parameters(&self) -> Result<Replay> {
        let frame = &self.frame;
        ensure!(frame.len() >= HEAD, "a frame of {} bytes, not of {HEAD} or more", frame.len());
        ensure!(self.flows.is_power_of_two() && self.flows <= 1 << 16, "{} flows", self.flows);
        let mut ip = 14;
        while matches!(frame[ip - 2..ip], [0x81, 0x00] | [0x88, 0xa8]) {
            ip += 4;
        }
        // RFC 791, section 3.1; RFC 8200, section 3.
        let (address, port, id) = match frame[ip - 2..ip] {
            [0x08, 0x00] => (ip + 14, ip + usize::from(frame[ip] & 15) * 4, ip + 4),
            [0x86, 0xdd] => (ip + 22, ip + 40, 0),
            ref other => return Err(anyhow!("ethertype {other:02x?} is not measured")),
        };
        let (address, port) = match self.side {
            Side::Source => (address, port),
            Side::Destination if id == 0 => (address + 16, port + 2),
            Side::Destination => (address + 4, port + 2),
        };
        ensure!(frame[address..address + 2] == [0, 0], "the address that varies does not end in zeros");
        let mut head = [0; HEAD];
        head.copy_from_slice(&frame[..HEAD]);
        Ok(Replay {
            head: bytemuck::cast(head),
            len: frame.len().try_into()?,
            flows: self.flows - 1,
            address_at: address.try_into()?,
            port_at: port.try_into()?,
            id_at: id.try_into()?,
            pad: 0,
        })
    }
}

/// The `struct xdp_md` (include/uapi/linux/bpf.h) of a frame of this length, received on a device: data, data_end, data_meta,
/// ingress_ifindex, rx_queue_index, egress_ifindex.
///
/// # Errors
/// When the length is none.
pub fn context(length: usize, ifindex: u32) -> Result<Vec<u8>> {
    let words = [0, u32::try_from(length)?, 0, ifindex, 0, 0];
    Ok(words.iter().flat_map(|word: &u32| word.to_ne_bytes()).collect())
}

/// An object of the programs beside burst's. `large` maps keep their size.
///
/// # Errors
/// When the kernel refuses it.
pub fn object(file: &[u8], parameters: &Replay, large: &[&str]) -> Result<Ebpf> {
    let mut loader = EbpfLoader::new();
    loader.override_global("REPLAY", bytemuck::bytes_of(parameters), true);
    for map in MAPS.into_iter().filter(|map| !large.contains(map)) {
        loader.map_max_entries(map, 1);
    }
    loader.load(file).context("loading the programs to compare with")
}

/// Loads one of these programs.
///
/// # Errors
/// When it is not there or the kernel refuses it.
pub fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program = ebpf.program_mut(name).with_context(|| format!("no program {name}"))?;
    let program: &mut Xdp = program.try_into()?;
    program.load().with_context(|| format!("loading {name}"))?;
    Ok(program)
}

/// A program under test, behind `replay`.
pub struct Replayed {
    ebpf: Ebpf,
    runs: Array<MapData, u64>,
    frame: Vec<u8>,
    context: Vec<u8>,
}

/// How long a number of runs took, and what came of the last.
#[derive(Clone, Debug)]
pub struct Run {
    /// Verdict and frame.
    pub outcome: Outcome,
    /// Nanoseconds of one run, `replay` included, by the kernel's own measure, which stops while something else has the
    /// CPU and leaves out what a call costs once (a third of a millisecond here). It is a whole number, rounded down.
    pub ns: f64,
}

impl Replayed {
    /// Puts `replay` in front of a program. `context` is the `struct xdp_md` of the frame.
    ///
    /// # Errors
    /// When the shape cannot be measured or the kernel refuses.
    pub fn new(file: &[u8], shape: &Shape, next: &ProgramFd, context: Vec<u8>) -> Result<Self> {
        let mut ebpf = object(file, &shape.parameters()?, &[])?;
        program(&mut ebpf, "replay")?;
        let mut array = ProgramArray::try_from(ebpf.map_mut("NEXT").context("no map NEXT")?)?;
        array.set(0, next, 0).context("putting the program behind `replay`")?;
        let runs = Array::try_from(ebpf.take_map("RUNS").context("no map RUNS")?)?;
        Ok(Self { ebpf, runs, frame: shape.frame.clone(), context })
    }

    /// Sends frames as if the context's device had received them: behind `replay` must be a program that sends.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn send(&mut self, frames: u32) -> Result<()> {
        let program: &Xdp = self.ebpf.program("replay").context("no program replay")?.try_into()?;
        let options = TestRunOptions {
            data_in: Some(&self.frame),
            ctx_in: Some(&self.context),
            repeat: frames,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::new()
        };
        program.test_run(options).context("sending frames")?;
        Ok(())
    }

    /// Runs the program. The caller is in the namespace of the context's device, and on one CPU.
    ///
    /// # Errors
    /// When the kernel refuses, or ran it another number of times.
    pub fn run(&mut self, repeat: u32) -> Result<Run> {
        let before = self.runs.get(&0, 0)?;
        let mut out = vec![0xa5; self.frame.len() + 256];
        let program: &Xdp = self.ebpf.program("replay").context("no program replay")?.try_into()?;
        let options = TestRunOptions {
            data_in: Some(&self.frame),
            data_out: Some(&mut out),
            ctx_in: Some(&self.context),
            repeat,
            ..TestRunOptions::new()
        };
        let result = program.test_run(options).context("running the program")?;
        let ran = self.runs.get(&0, 0)? - before;
        ensure!(
            ran == u64::from(repeat),
            "{ran} packets of {repeat} were put in place: the wrapper could not restore it"
        );
        out.truncate(result.data_size_out as usize);
        Ok(Run {
            outcome: Outcome { action: result.return_value, frame: out },
            ns: result.duration.as_nanos() as f64 + 0.5,
        })
    }
}
