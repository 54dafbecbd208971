//! Internet checksums (RFC 1071), always computed over everything that they cover.
//!
//! A packet whose checksum was wrong must stay exactly as wrong, so that its receiver finds out. So a changed packet gets
//! the checksum that leaves the sum over the whole of it as it was; for one that was right, that is the right one.

/// Sums are residues: one's complement addition of 16-bit words is addition modulo 2¹⁶ − 1.
const MODULUS: u64 = 0xffff;

/// The residue of all 16-bit words of the parts, each of which begins a new word.
fn residue<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let words = parts.into_iter().flat_map(|part| part.chunks(2));
    words.map(|word| u64::from(word[0]) << 8 | u64::from(word.get(1).copied().unwrap_or(0))).sum::<u64>() % MODULUS
}

/// The checksum of what was not sent with one yet; its field must be zero.
pub fn fresh<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u16 {
    ((MODULUS - residue(parts)) % MODULUS) as u16
}

/// A checksum in a packet: where it stands and what it covers, its own field included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Start of its two bytes.
    pub field: usize,
    /// What it covers of the packet, from and up to. What else it covers never changes.
    pub covers: Vec<(usize, usize)>,
    /// UDP's: a zero says that there is none, and one that is computed as zero is written as all ones (RFC 768).
    pub udp: bool,
}

impl Check {
    fn get(&self, packet: &[u8]) -> u16 {
        u16::from_be_bytes([packet[self.field], packet[self.field + 1]])
    }

    fn residue(&self, packet: &[u8]) -> u64 {
        residue(self.covers.iter().map(|&(from, to)| &packet[from..to]))
    }

    /// Writes into `after` the checksum that is as right as that of `before`.
    pub fn repair(&self, before: &[u8], after: &mut [u8]) {
        let changed = self.covers.iter().any(|&(from, to)| before[from..to] != after[from..to]);
        if !changed || self.udp && self.get(before) == 0 {
            return;
        }
        let wanted = self.residue(before);
        after[self.field..self.field + 2].fill(0);
        let mut sum = ((wanted + MODULUS - self.residue(after)) % MODULUS) as u16;
        if self.udp && sum == 0 {
            sum = 0xffff;
        }
        after[self.field..self.field + 2].copy_from_slice(&sum.to_be_bytes());
    }
}
