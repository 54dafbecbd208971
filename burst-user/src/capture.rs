//! Captures: files of packets, read as Ethernet frames and written as pcap. What is done with the frames is elsewhere.

mod ethernet;
mod read;
mod write;

#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;

pub use read::{Packet, Reader};
pub use write::Writer;

/// When a packet was captured: seconds and nanoseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    /// Seconds.
    pub seconds: u32,
    /// Below 10⁹.
    pub nanos: u32,
}

/// What is wrong with a capture.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The file cannot be opened or read.
    #[error("cannot read the capture {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is something else.
    #[error("{} is neither pcap nor pcapng: {why}", path.display())]
    NotACapture {
        /// The file.
        path: PathBuf,
        /// What it is, or what to do.
        why: &'static str,
    },
    /// The packets in it are of a kind that no Ethernet frame can be made of.
    #[error(
        "{}: packet {packet} has link type {number}; burst reads Ethernet (1), raw IP (101, 228, 229) and Linux \"cooked\" \
         captures (113, 276): capture on the device itself, for example `tcpdump -i eth0 -w FILE`", path.display()
    )]
    LinkType {
        /// The file.
        path: PathBuf,
        /// Number of the packet, from 1.
        packet: u64,
        /// The link type (<https://www.tcpdump.org/linktypes.html>).
        number: i32,
    },
    /// It ends in the middle of a packet.
    #[error("{} ends in the middle of packet {packet}; the packets before it are whole", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Number of the packet, from 1.
        packet: u64,
    },
    /// A packet's record makes no sense.
    #[error("{} is damaged at packet {packet}: {what}; the packets before it are whole", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Number of the packet, from 1.
        packet: u64,
        /// What makes no sense.
        what: String,
    },
    /// The output cannot be made or written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}
