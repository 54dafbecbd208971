//! Writing pcap.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::{CaptureError, Time};

/// Magic numbers (pcap-savefile(5)): times in microseconds, in nanoseconds.
const MICROS: u32 = 0xa1b2_c3d4;
const NANOS: u32 = 0xa1b2_3c4d;
/// Version 2.4.
const VERSION: [u16; 2] = [2, 4];
/// The largest packet, as tcpdump has it (MAXIMUM_SNAPLEN).
const SNAPLEN: u32 = 262_144;
/// LINKTYPE_ETHERNET.
const ETHERNET: u32 = 1;

/// A capture that is being written.
pub struct Writer {
    path: PathBuf,
    file: BufWriter<File>,
    nanos: bool,
    begun: bool,
}

impl Writer {
    /// Makes the file, in place of one that may be there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(path: &Path) -> Result<Self, CaptureError> {
        let file = File::create(path).map_err(|source| CaptureError::Write { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), file: BufWriter::with_capacity(1 << 16, file), nanos: true, begun: false })
    }

    /// Writes times in nanoseconds (the default) or microseconds. Before the first packet.
    pub const fn nanos(&mut self, nanos: bool) {
        self.nanos = nanos;
    }

    /// Writes a frame, of which `original` bytes were on the wire.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn packet(&mut self, time: Time, frame: &[u8], original: usize) -> Result<(), CaptureError> {
        let fraction = if self.nanos { time.nanos } else { time.nanos / 1000 };
        let header = [time.seconds, fraction, frame.len() as u32, original as u32];
        let written = self.begin().and_then(|()| {
            header.iter().try_for_each(|word| self.file.write_all(&word.to_ne_bytes()))?;
            self.file.write_all(frame)
        });
        written.map_err(|source| CaptureError::Write { path: self.path.clone(), source })
    }

    /// Ends the file. A capture without packets has a header all the same.
    ///
    /// # Errors
    /// When what is left cannot be written.
    pub fn finish(mut self) -> Result<(), CaptureError> {
        let written = self.begin().and_then(|()| self.file.flush());
        written.map_err(|source| CaptureError::Write { path: self.path, source })
    }

    fn begin(&mut self) -> io::Result<()> {
        if self.begun {
            return Ok(());
        }
        self.begun = true;
        self.file.write_all(&(if self.nanos { NANOS } else { MICROS }).to_ne_bytes())?;
        VERSION.iter().try_for_each(|number| self.file.write_all(&number.to_ne_bytes()))?;
        // Time zone and accuracy are zero everywhere.
        [0, 0, SNAPLEN, ETHERNET].iter().try_for_each(|word: &u32| self.file.write_all(&word.to_ne_bytes()))
    }
}
