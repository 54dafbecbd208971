//! Reading pcap and pcapng, packet by packet, in constant memory.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use pcap_parser::traits::PcapReaderIterator;
use pcap_parser::{Block, PcapBlockOwned, PcapError, create_reader};

use super::{CaptureError, Time, ethernet};

/// Bytes read at once, and the largest record that needs no larger buffer.
const BUFFER: usize = 1 << 20;
/// The largest record that is believed; tcpdump's largest snapshot is 256 KiB (MAXIMUM_SNAPLEN).
const LARGEST: usize = 1 << 24;

/// A captured packet as an Ethernet frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// When it was captured.
    pub time: Time,
    /// The frame, as far as it was captured.
    pub frame: &'a [u8],
    /// Bytes of the frame on the wire: more than were captured if the packet was cut.
    pub original: usize,
}

/// What a pcapng file says of an interface.
#[derive(Clone, Copy, Debug)]
struct Interface {
    link_type: i32,
    snaplen: u32,
    /// Units of time per second.
    units: u64,
    /// Seconds to be added.
    offset: i64,
}

/// A record, its bytes copied to the reader's frame.
struct Record {
    time: Time,
    original: usize,
}

/// What a block was.
enum Step {
    Packet(Record),
    Other,
    End,
    More,
    Larger,
    Cut,
    LinkType(i32),
    Wrong(String),
}

/// A capture that is being read.
pub struct Reader {
    path: PathBuf,
    blocks: Box<dyn PcapReaderIterator + Send>,
    source: Arc<Source>,
    /// Bytes in the file, where it is one.
    size: Option<u64>,
    capacity: usize,
    interfaces: Vec<Interface>,
    /// Whether times are finer than microseconds, or may be.
    nanos: bool,
    frame: Vec<u8>,
    packets: u64,
}

impl Reader {
    /// Opens a capture.
    ///
    /// # Errors
    /// When it cannot be read, or is none.
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        let failed = |source| CaptureError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let meta = file.metadata().map_err(failed)?;
        if meta.is_dir() {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        let size = meta.is_file().then_some(meta.len());
        Self::new(path, file, size)
    }

    /// Reads a capture from anywhere; `path` is what errors call it.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn of(path: &Path, from: impl Read + Send + 'static) -> Result<Self, CaptureError> {
        Self::new(path, from, None)
    }

    fn new(path: &Path, from: impl Read + Send + 'static, size: Option<u64>) -> Result<Self, CaptureError> {
        let source = Arc::new(Source::default());
        let input = Input { from, source: source.clone() };
        let not_a_capture = |why| CaptureError::NotACapture { path: path.to_owned(), why };
        let blocks = match create_reader(BUFFER, input) {
            Ok(blocks) => blocks,
            Err(PcapError::Eof) => return Err(not_a_capture("it is empty")),
            Err(PcapError::ReadError) => {
                return Err(CaptureError::Read { path: path.to_owned(), source: source.error() });
            }
            Err(_) if source.begins_with(&[0x1f, 0x8b]) => {
                return Err(not_a_capture("it is compressed by gzip: gunzip it first"));
            }
            Err(_) if source.begins_with(&[0x28, 0xb5, 0x2f, 0xfd]) => {
                return Err(not_a_capture("it is compressed by zstd: unzstd it first"));
            }
            Err(_) => return Err(not_a_capture("it does not begin as one; `tcpdump -w FILE` writes one")),
        };
        Ok(Self {
            path: path.to_owned(),
            blocks,
            source,
            size,
            capacity: BUFFER,
            interfaces: Vec::new(),
            nanos: true,
            frame: Vec::new(),
            packets: 0,
        })
    }

    /// How much of the file has been read, 0–1; `None` when its size is not known.
    #[must_use]
    pub fn progress(&self) -> Option<f64> {
        let size = self.size.filter(|size| *size > 0)?;
        Some((self.source.bytes.load(Ordering::Relaxed) as f64 / size as f64).min(1.0))
    }

    /// Whether times are finer than microseconds, or may be. Known once a packet was read.
    #[must_use]
    pub const fn nanos(&self) -> bool {
        self.nanos
    }

    /// The next packet; `None` at the end.
    ///
    /// # Errors
    /// When the file is damaged, ends within a packet, or holds packets of no use. Nothing can be read after that.
    pub fn next_packet(&mut self) -> Result<Option<Packet<'_>>, CaptureError> {
        loop {
            match self.step() {
                Step::Packet(Record { time, original }) => {
                    self.packets += 1;
                    return Ok(Some(Packet { time, frame: &self.frame, original }));
                }
                Step::Other => {}
                Step::End => return Ok(None),
                Step::More => {
                    if self.blocks.refill().is_err() {
                        return Err(CaptureError::Read { path: self.path.clone(), source: self.source.error() });
                    }
                }
                Step::Larger if self.capacity < LARGEST => {
                    self.capacity *= 2;
                    self.blocks.grow(self.capacity);
                }
                Step::Larger => return Err(self.damaged(format!("it claims to have more than {LARGEST} bytes"))),
                Step::Cut => return Err(CaptureError::Truncated { path: self.path.clone(), packet: self.packets + 1 }),
                Step::LinkType(number) => {
                    let (path, packet) = (self.path.clone(), self.packets + 1);
                    return Err(CaptureError::LinkType { path, packet, number });
                }
                Step::Wrong(what) => return Err(self.damaged(what)),
            }
        }
    }

    fn damaged(&self, what: String) -> CaptureError {
        CaptureError::Damaged { path: self.path.clone(), packet: self.packets + 1, what }
    }

    /// Reads one block.
    fn step(&mut self) -> Step {
        let (length, step) = match self.blocks.next() {
            Ok((length, block)) => (length, take(block, &mut self.interfaces, &mut self.nanos, &mut self.frame)),
            Err(PcapError::Eof) => return Step::End,
            Err(PcapError::Incomplete(_)) => return Step::More,
            Err(PcapError::BufferTooSmall) => return Step::Larger,
            Err(PcapError::UnexpectedEof) => {
                return if self.blocks.data().is_empty() { Step::End } else { Step::Cut };
            }
            Err(_) => return Step::Wrong("its record makes no sense".to_owned()),
        };
        if length == 0 {
            return Step::Wrong("an empty block".to_owned());
        }
        self.blocks.consume(length);
        step
    }
}

/// What a block says; a packet's frame is left in `frame`.
fn take(block: PcapBlockOwned<'_>, interfaces: &mut Vec<Interface>, nanos: &mut bool, frame: &mut Vec<u8>) -> Step {
    match block {
        PcapBlockOwned::LegacyHeader(header) => {
            *nanos = header.is_nanosecond_precision();
            let units = if *nanos { 1_000_000_000 } else { 1_000_000 };
            let (link_type, snaplen) = (header.network.0 & 0xffff, header.snaplen);
            *interfaces = vec![Interface { link_type, snaplen, units, offset: 0 }];
            Step::Other
        }
        PcapBlockOwned::Legacy(packet) => {
            let Some(interface) = interfaces.first() else { return Step::Wrong("no header before it".to_owned()) };
            let time = time(u64::from(packet.ts_sec), u64::from(packet.ts_usec), interface.units);
            record(interface, time, packet.data, packet.origlen, frame)
        }
        PcapBlockOwned::NG(Block::SectionHeader(_)) => {
            interfaces.clear();
            Step::Other
        }
        PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
            let Some(units) = units(interface.if_tsresol) else {
                return Step::Wrong(format!("a time resolution of {:#x}", interface.if_tsresol));
            };
            let (link_type, snaplen) = (interface.linktype.0 & 0xffff, interface.snaplen);
            interfaces.push(Interface { link_type, snaplen, units, offset: interface.if_tsoffset });
            Step::Other
        }
        PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
            let Some(interface) = interfaces.get(packet.if_id as usize) else {
                return Step::Wrong(format!("it is of interface {}, which is not described", packet.if_id));
            };
            let stamp = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
            let seconds = (stamp / interface.units).saturating_add_signed(interface.offset);
            let Some(data) = packet.data.get(..packet.caplen as usize) else {
                return Step::Wrong("it is shorter than it says".to_owned());
            };
            record(interface, time(seconds, stamp % interface.units, interface.units), data, packet.origlen, frame)
        }
        PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
            let Some(interface) = interfaces.first() else {
                return Step::Wrong("no interface is described before it".to_owned());
            };
            // The block is padded; how much was captured follows from the interface (pcapng, section 4.4).
            let snaplen = if interface.snaplen == 0 { u32::MAX } else { interface.snaplen };
            let captured = packet.data.len().min(packet.origlen.min(snaplen) as usize);
            record(interface, Time::default(), &packet.data[..captured], packet.origlen, frame)
        }
        PcapBlockOwned::NG(_) => Step::Other,
    }
}

fn record(interface: &Interface, time: Time, data: &[u8], original: u32, frame: &mut Vec<u8>) -> Step {
    frame.clear();
    let Some(longer) = ethernet::frame(interface.link_type, data, frame) else {
        return Step::LinkType(interface.link_type);
    };
    // Some writers leave the original length out.
    let original = (original as usize).saturating_add_signed(longer).max(frame.len());
    if original > LARGEST {
        return Step::Wrong(format!("it claims to have had {original} bytes"));
    }
    Step::Packet(Record { time, original })
}

/// Units per second of an `if_tsresol` (pcapng, section 4.2): a negative power of 10, or of 2 if the highest bit is set.
fn units(resolution: u8) -> Option<u64> {
    let exponent = u32::from(resolution & 0x7f);
    if resolution & 0x80 == 0 { 10_u64.checked_pow(exponent) } else { 1_u64.checked_shl(exponent) }
}

fn time(seconds: u64, fraction: u64, units: u64) -> Time {
    let nanos = u128::from(fraction) * 1_000_000_000 / u128::from(units);
    Time { seconds: seconds as u32, nanos: nanos.min(999_999_999) as u32 }
}

/// What is known of the input beside its bytes.
#[derive(Default)]
struct Source {
    bytes: AtomicU64,
    start: Mutex<Vec<u8>>,
    failure: Mutex<Option<io::Error>>,
}

impl Source {
    fn error(&self) -> io::Error {
        let mut failure = self.failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        failure.take().unwrap_or_else(|| io::ErrorKind::Other.into())
    }

    fn begins_with(&self, bytes: &[u8]) -> bool {
        self.start.lock().unwrap_or_else(std::sync::PoisonError::into_inner).starts_with(bytes)
    }
}

/// Fills each buffer as far as it can: the parser takes a short read for the end of the header.
struct Input<R> {
    from: R,
    source: Arc<Source>,
}

impl<R: Read> Read for Input<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.from.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let kind = error.kind();
                    *self.source.failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error);
                    return Err(kind.into());
                }
            }
        }
        if self.source.bytes.fetch_add(filled as u64, Ordering::Relaxed) == 0 {
            let start = buffer[..filled.min(4)].to_vec();
            *self.source.start.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = start;
        }
        Ok(filled)
    }
}
