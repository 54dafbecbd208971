//! Captures, written and read byte by byte after pcap-savefile(5), so that no test takes burst's word for them.

use anyhow::{Context, Result, ensure};

/// A packet of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// Seconds and nanoseconds.
    pub time: (u32, u32),
    /// The bytes that were captured.
    pub bytes: Vec<u8>,
    /// How many there were on the wire.
    pub original: u32,
}

/// Times in nanoseconds, little-endian.
const NANOS: u32 = 0xa1b2_3c4d;
/// Times in microseconds.
const MICROS: u32 = 0xa1b2_c3d4;
/// LINKTYPE_ETHERNET.
const ETHERNET: u32 = 1;

/// A capture of whole frames, one a second and a few nanoseconds.
#[must_use]
pub fn of_frames<'a>(frames: impl IntoIterator<Item = &'a [u8]>) -> Vec<Captured> {
    let packet = |(n, frame): (u32, &[u8])| Captured {
        time: (1_700_000_000 + n, n),
        bytes: frame.to_vec(),
        original: frame.len() as u32,
    };
    (1..).zip(frames).map(packet).collect()
}

/// The file of a capture.
#[must_use]
pub fn write(packets: &[Captured]) -> Vec<u8> {
    let mut file = Vec::new();
    let words = |words: &[u32], file: &mut Vec<u8>| words.iter().for_each(|word| file.extend(word.to_le_bytes()));
    words(&[NANOS], &mut file);
    file.extend([2, 0, 4, 0]);
    words(&[0, 0, 65_535, ETHERNET], &mut file);
    for Captured { time: (seconds, nanos), bytes, original } in packets {
        words(&[*seconds, *nanos, bytes.len() as u32, *original], &mut file);
        file.extend(bytes);
    }
    file
}

/// What a file holds.
///
/// # Errors
/// When it is no little-endian pcap of Ethernet frames, or breaks off.
pub fn read(file: &[u8]) -> Result<Vec<Captured>> {
    let word = |at: usize| -> Result<u32> {
        let bytes = file.get(at..at + 4).with_context(|| format!("the capture ends at byte {}", file.len()))?;
        Ok(u32::from_le_bytes(bytes.try_into()?))
    };
    let unit = match word(0)? {
        NANOS => 1,
        MICROS => 1000,
        other => anyhow::bail!("magic number {other:#x}"),
    };
    ensure!(word(20)? == ETHERNET, "link type {}", word(20)?);
    let (mut at, mut packets) = (24, Vec::new());
    while at < file.len() {
        let (length, original) = (word(at + 8)? as usize, word(at + 12)?);
        let bytes = file.get(at + 16..at + 16 + length).context("the capture breaks off")?.to_vec();
        packets.push(Captured { time: (word(at)?, word(at + 4)? * unit), bytes, original });
        at += 16 + length;
    }
    Ok(packets)
}
