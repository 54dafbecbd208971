//! Openers that were seen: an opener that is repeated (RFC 9293, section 3.8.1; RFC 9002, section 6.2) is no new flow, and goes where the
//! first one went.
//!
//! One word per row, directly mapped by the flow's hash: what comes later overwrites what was there. A filter, not a record: who is
//! not found counts as new.

use bytemuck::{Pod, Zeroable};

use crate::limits::MAX_REPEATS;
use crate::slot::EndpointId;

/// Epochs (seconds) for which an opener is remembered: SYNs are repeated after 1, 3, 7, 15, 31 and 63 seconds
/// (net.ipv4.tcp_syn_retries, Documentation/networking/ip-sysctl.rst); each repeat is remembered anew.
pub const FRESH: u16 = 64;

/// What an opener is known by: its flow's hash, and of a TCP SYN its sequence number (network byte order, as in the packet), which a
/// repeated SYN has, too, and a new connection by the same ports has not (RFC 9293, section 3.4.1).
#[inline(always)]
#[must_use]
pub const fn mark(hash: u64, sequence: u32) -> u64 {
    hash ^ (sequence as u64) << 32
}

/// A row: bits 0–31 tag, 32–47 endpoint, 48–63 epoch. All zero: free.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Zeroable, Pod)]
pub struct Repeat(u64);

impl Repeat {
    /// The row of a flow with this hash.
    #[inline(always)]
    #[must_use]
    pub const fn row(hash: u64) -> u32 {
        hash as u32 & (MAX_REPEATS as u32 - 1)
    }

    /// The upper half of the hash, of which the row tells nothing; never zero, so that a free row is nobody's.
    #[inline(always)]
    const fn tag(hash: u64) -> u64 {
        hash >> 32 | 1
    }

    /// An opener of a flow with this hash that went to `endpoint` in this epoch.
    #[inline(always)]
    #[must_use]
    pub const fn new(hash: u64, endpoint: EndpointId, epoch: u32) -> Self {
        Self(Self::tag(hash) | (endpoint as u64) << 32 | (epoch as u16 as u64) << 48)
    }

    /// From the word in the map.
    #[inline(always)]
    #[must_use]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The word in the map.
    #[inline(always)]
    #[must_use]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// Where the opener of a flow with this hash went, if it was seen not long before this epoch.
    #[inline(always)]
    #[must_use]
    pub const fn of(self, hash: u64, epoch: u32) -> Option<EndpointId> {
        let ago = (epoch as u16).wrapping_sub((self.0 >> 48) as u16);
        if self.0 & 0xffff_ffff == Self::tag(hash) && ago <= FRESH { Some((self.0 >> 32) as u16) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_connection_by_the_same_ports_is_no_repeat() {
        let row = Repeat::new(mark(7, 1000), 9, 0);
        assert_eq!((row.of(mark(7, 1000), 0), row.of(mark(7, 1002), 0)), (Some(9), None));
        assert_eq!(Repeat::row(mark(7, 1000)), Repeat::row(mark(7, 1002)), "one row for a flow");
    }

    #[test]
    fn an_opener_is_known_for_a_while_and_no_other_is() {
        let hash = 0x1234_5678_9abc_def0;
        for epoch in [0, 7, 65_530, 65_535, 1 << 20] {
            let row = Repeat::new(hash, 9, epoch);
            for ago in [0, 1, 64] {
                assert_eq!(row.of(hash, epoch + ago), Some(9), "{ago} s after {epoch}");
            }
            assert_eq!(row.of(hash, epoch + 65), None);
            assert_eq!(row.of(hash ^ 1 << 40, epoch), None, "the same row, another flow");
        }
        assert_eq!(Repeat::zeroed().of(0, 0), None, "a free row");
    }
}
