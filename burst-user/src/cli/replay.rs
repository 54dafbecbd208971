//! `burst replay`: each packet of a capture through the program.

mod progress;
mod summary;

use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use burst_common::reason::Reason;
use burst_common::report::Report;
use bytemuck::Zeroable;
use clap::Args;
use serde::Serialize;

use super::ask::AskArgs;
use crate::capture::{CaptureError, Packet, Reader, Writer};
use crate::exit::{Exit, Failure};
use crate::inspect::{Answer, Direction, InspectError, Specimen, Tally, action_text, headers};
use crate::kernel::Action;
use progress::Progress;
use summary::{Run, Summary};

/// Bytes of an Ethernet header: shorter frames are on no wire, and the kernel runs none.
const SHORTEST: usize = 14;
/// An IP packet of the largest length behind two tags. What lies behind it is padding.
const LONGEST: usize = 14 + 8 + 65_535;

/// Arguments of `burst replay`.
#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// The capture: pcap or pcapng.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Write the packets as they would go on, in the order they came: those that pass as they are, those that leave
    /// rewritten. Those that are dropped are left out.
    #[arg(long, value_name = "OUT.pcap")]
    pub write: Option<PathBuf>,
    /// Which instance is asked.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// A packet, for programs.
#[derive(Serialize)]
struct Line<'a> {
    n: u64,
    action: &'a str,
    reason: &'a str,
    class: Option<&'a str>,
    rule: Option<u32>,
    slot: Option<u32>,
    endpoint: Option<&'a str>,
    link: Option<&'a str>,
    len_in: usize,
    len_out: usize,
}

/// Replays a capture and prints what became of it.
///
/// # Errors
/// When the capture cannot be read, is none or breaks off, the output cannot be written, or there is nothing to ask.
pub fn replay(args: &ReplayArgs, json: bool) -> Result<(), Failure> {
    // Files first: what is wrong with them is cheap to find.
    let reader = Reader::open(&args.file)?;
    let writer = args.write.as_deref().map(|out| writer(&args.file, out)).transpose()?;
    let specimen = args.ask.open(true)?;
    let out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let mut replay = Replay::new(specimen, writer, json.then_some(out));
    let read = match replay.all(reader) {
        // Nobody reads on: that is no failure (`burst replay … | head`).
        Err(Stop::NoReader) => return Ok(()),
        Err(Stop::Failure(failure)) => return Err(failure),
        Err(Stop::Capture(error)) => Err(error),
        Ok(()) => Ok(()),
    };
    replay.agrees()?;
    let mut told = match replay.finish(args)? {
        told if json => serde_json::to_string(&told).map_err(anyhow::Error::from)?,
        told => told.render(),
    };
    told.push('\n');
    super::print(&told)?;
    // What could be read was; that not all could is said last, and by the exit code.
    Ok(read?)
}

/// The output; not the capture itself.
fn writer(capture: &Path, out: &Path) -> Result<Writer, Failure> {
    let same = std::fs::metadata(capture).ok().zip(std::fs::metadata(out).ok());
    if same.is_some_and(|(a, b)| (a.dev(), a.ino()) == (b.dev(), b.ino())) {
        let usage = anyhow::anyhow!("--write {}: that is the capture itself; name another file", out.display());
        return Err(Exit::Usage.because(usage));
    }
    Ok(Writer::create(out)?)
}

/// Why it went no further.
enum Stop {
    NoReader,
    Capture(CaptureError),
    Failure(Failure),
}

impl<E: Into<Failure>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failure(error.into())
    }
}

struct Replay<O> {
    specimen: Specimen,
    writer: Option<Writer>,
    lines: Option<O>,
    names: Names,
    tally: Tally,
    run: Run,
    /// The frame that is put, and the one that comes out.
    frame: Vec<u8>,
    out: Vec<u8>,
}

/// Names by id, made once: there are few, and many packets.
#[derive(Default)]
struct Names {
    classes: Vec<String>,
    links: Vec<String>,
    endpoints: Vec<String>,
    rules: Vec<u32>,
}

impl Names {
    fn new(specimen: &Specimen) -> Self {
        use burst_common::limits::{MAX_CLASSES, MAX_ENDPOINTS, MAX_LINKS, MAX_RULES};
        let tables = &specimen.tables;
        Self {
            classes: (0..MAX_CLASSES as u32).map(|id| tables.class(id)).collect(),
            links: (0..MAX_LINKS as u32).map(|id| tables.link(id)).collect(),
            endpoints: (0..MAX_ENDPOINTS as u16).map(|id| tables.endpoint(id)).collect(),
            rules: (0..MAX_RULES as u32).map(|rule| tables.rule_number(rule)).collect(),
        }
    }
}

impl<O: Write> Replay<O> {
    fn new(specimen: Specimen, writer: Option<Writer>, lines: Option<O>) -> Self {
        let names = Names::new(&specimen);
        let (tally, run) = (Tally::default(), Run::default());
        Self { specimen, writer, lines, names, tally, run, frame: Vec::new(), out: Vec::new() }
    }

    fn all(&mut self, mut reader: Reader) -> Result<(), Stop> {
        let mut progress = Progress::new();
        let result = loop {
            let packet = match reader.next_packet() {
                Ok(Some(packet)) => packet,
                Ok(None) => break Ok(()),
                Err(error) => break Err(Stop::Capture(error)),
            };
            let time = packet.time;
            let (answer, len_in, captured) = match self.put(packet) {
                Ok(put) => put,
                Err(error) => break Err(error.into()),
            };
            if let Err(stop) = self.note(&answer, len_in) {
                break Err(stop);
            }
            if self.writer.is_some() && answer.action != Action::Drop {
                // What was not captured is not written: it was put in as zeros.
                let missing = len_in.saturating_sub(captured);
                let frame = &self.out[..self.out.len().saturating_sub(missing).max(self.out.len().min(captured))];
                let nanos = reader.nanos();
                let Some(writer) = &mut self.writer else { continue };
                writer.nanos(nanos);
                if let Err(error) = writer.packet(time, frame, self.out.len()) {
                    break Err(error.into());
                }
            }
            progress.show(self.tally.all.packets, || reader.progress());
        };
        progress.clear();
        if let Some(lines) = &mut self.lines
            && let Err(error) = lines.flush()
        {
            return Err(unwritten(error));
        }
        result
    }

    /// Puts a packet; gives what became of it, its length, and how much of that was captured.
    fn put(&mut self, packet: Packet<'_>) -> Result<(Answer, usize, usize), InspectError> {
        let captured = packet.frame.len();
        self.frame.clear();
        self.frame.extend_from_slice(packet.frame);
        if captured < packet.original {
            self.run.cut += 1;
            // Of a packet whose headers are there only payload is missing, on which nothing depends but checksums, and
            // those change by differences.
            if headers(packet.frame).whole {
                self.frame.resize(packet.original, 0);
            } else {
                self.run.cut_in_headers += 1;
            }
        }
        let len_in = self.frame.len();
        self.frame.truncate(LONGEST);
        if len_in < SHORTEST {
            self.run.unasked += 1;
            self.out.clone_from(&self.frame);
            // The program says the same of a frame that ends before its headers do.
            let (reason, report) = (Reason::Truncated, Report { bytes: len_in as u32, ..Report::zeroed() });
            return Ok((Answer { action: Action::Pass, reason, len: len_in, report }, len_in, captured));
        }
        let out = self.writer.is_some().then_some(&mut self.out);
        Ok((self.specimen.ask(&self.frame, out)?, len_in, captured.min(len_in)))
    }

    fn note(&mut self, answer: &Answer, len_in: usize) -> Result<(), Stop> {
        let (tables, report) = (&self.specimen.tables, &answer.report);
        let direction = tables.direction(report, answer.reason);
        let rule = report.rule.checked_sub(1);
        let keep = rule.is_some_and(|rule| tables.policy.keep & 1 << (rule & 63) != 0);
        self.tally.add(answer, direction, keep, len_in);
        self.run.returns += u64::from(direction == Direction::Return);
        let Some(lines) = &mut self.lines else { return Ok(()) };
        let of = |names: &'_ [String], id: usize| -> Option<usize> { (id != 0 && id < names.len()).then_some(id) };
        let names = &self.names;
        let line = Line {
            n: self.tally.all.packets,
            action: action_text(answer.action),
            reason: answer.reason.text(),
            class: of(&names.classes, report.class as usize).map(|id| names.classes[id].as_str()),
            rule: rule.and_then(|rule| names.rules.get(rule as usize).copied()),
            slot: report.slot.checked_sub(1).map(|slot| tables.slot_number(report.class, report.family, slot)),
            endpoint: of(&names.endpoints, report.endpoint.into()).map(|id| names.endpoints[id].as_str()),
            link: of(&names.links, report.link as usize).map(|id| names.links[id].as_str()),
            len_in,
            len_out: if answer.action == Action::Drop { 0 } else { answer.len },
        };
        let written = serde_json::to_writer(&mut *lines, &line).map_err(io::Error::from);
        written.and_then(|()| lines.write_all(b"\n")).map_err(unwritten)
    }

    /// The program's counters say what its reports said.
    fn agrees(&self) -> Result<(), InspectError> {
        let counters = self.specimen.counters();
        let mut wrong = Vec::new();
        for class in 0..burst_common::limits::MAX_CLASSES {
            for reason in Reason::ALL {
                let tally = self.tally.classes.get(&(class as u32));
                let mut reported =
                    tally.and_then(|tally| tally.reasons.get(&reason.number())).map_or(0, |sum| sum.packets);
                if class == 0 && *reason == Reason::Truncated {
                    reported -= self.run.unasked;
                }
                let counted = counters.get(class, reason.number()).packets;
                if reported != counted {
                    let class = self.specimen.tables.class(class as u32);
                    let text = reason.text();
                    wrong.push(format!("{text} of class {class}: reported {reported} times, counted {counted} times"));
                }
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(InspectError::Disagree(wrong)) }
    }

    fn finish(self, args: &ReplayArgs) -> Result<Summary, Failure> {
        if let Some(writer) = self.writer {
            writer.finish()?;
        }
        Ok(Summary::new(&self.specimen, &self.tally, &self.run, &args.file, args.write.as_deref()))
    }
}

fn unwritten(error: io::Error) -> Stop {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Stop::NoReader;
    }
    Stop::Failure(anyhow::Error::from(error).context("cannot write the output").into())
}
