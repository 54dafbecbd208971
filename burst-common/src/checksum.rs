//! Incremental update of the internet checksum (RFC 1624, equation 3: `HC' = ~(~HC + ~m + m')`).
//!
//! Works on words in network byte order as native loads yield them: the one's complement sum does not depend on
//! byte order (RFC 1071, section 2 (B)).

/// The checksum of words that add up to `sum`, which is below 2⁴⁸: 16-bit words, or 32-bit words as two of them each (RFC 1071,
/// section 2 (C)).
///
/// Three folds are enough. The first leaves at most 2³² + 2¹⁶ − 2; the second at most 2¹⁷ − 2, because what is above 2³² has no more
/// than 16 bits set below; the third at most 2¹⁶ − 1.
#[inline(always)]
#[must_use]
pub const fn fold(mut sum: u64) -> u16 {
    sum = (sum as u32 as u64) + (sum >> 32);
    let mut sum = (sum as u16 as u32) + (sum >> 16) as u32;
    sum = (sum as u16 as u32) + (sum >> 16);
    !(sum as u16)
}

/// The difference that replacing words makes, to be applied to one or more checksums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta(u64);

impl Delta {
    /// Nothing replaced.
    pub const NONE: Self = Self(0);

    /// A 16-bit word is replaced.
    #[inline(always)]
    #[must_use]
    pub const fn word(self, old: u16, new: u16) -> Self {
        Self(self.0 + (!old) as u64 + new as u64)
    }

    /// A 32-bit word is replaced.
    #[inline(always)]
    #[must_use]
    pub const fn dword(self, old: u32, new: u32) -> Self {
        Self(self.0 + (!old) as u64 + new as u64)
    }

    /// An address of the ABI is replaced; unused words are zero in both and change nothing.
    #[inline(always)]
    #[must_use]
    pub const fn address(self, old: [u32; 4], new: [u32; 4]) -> Self {
        self.dword(old[0], new[0]).dword(old[1], new[1]).dword(old[2], new[2]).dword(old[3], new[3])
    }

    /// Both replacements.
    #[inline(always)]
    #[must_use]
    pub const fn join(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The difference as the kernel's helpers take it (`__wsum`, as of `bpf_csum_diff`): folded to 32 bits.
    #[inline(always)]
    #[must_use]
    pub const fn wsum(self) -> u32 {
        let sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        ((sum & 0xffff_ffff) + (sum >> 32)) as u32
    }

    /// The checksum after the replacement.
    #[inline(always)]
    #[must_use]
    pub const fn apply(self, checksum: u16) -> u16 {
        fold(self.0 + (!checksum) as u64)
    }

    /// The UDP checksum after the replacement: one that is zero stays zero over IPv4 (RFC 768: "the transmitter
    /// generated no checksum"), one that becomes zero is sent as all ones (RFC 768, RFC 8200 section 8.1).
    #[inline(always)]
    #[must_use]
    pub const fn apply_udp(self, checksum: u16) -> u16 {
        if checksum == 0 {
            return 0;
        }
        match self.apply(checksum) {
            0 => 0xffff,
            sum => sum,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071, computed from scratch over native words.
    fn checksum(words: &[u16]) -> u16 {
        let mut sum: u32 = words.iter().map(|&w| u32::from(w)).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    /// 0 and 0xffff are the same number in one's complement; which one is meant is the protocol's affair.
    fn same(a: u16, b: u16) -> bool {
        a == b || (a.is_multiple_of(0xffff) && b.is_multiple_of(0xffff))
    }

    proptest! {
        #[test]
        fn agrees_with_the_sum_computed_anew(mut words in proptest::collection::vec(any::<u16>(), 8..40), new in any::<[u16; 5]>()) {
            let old = checksum(&words);
            let dword = |a: u16, b: u16| u32::from(a) | u32::from(b) << 16;
            let delta = Delta::NONE
                .word(words[1], new[0])
                .dword(dword(words[2], words[3]), dword(new[1], new[2]))
                .dword(dword(words[4], words[5]), dword(new[3], new[4]));
            words[1] = new[0];
            words[2..6].copy_from_slice(&new[1..]);
            prop_assert!(same(delta.apply(old), checksum(&words)));
        }
    }

    #[test]
    fn the_kernels_form_is_the_same_number() {
        let delta = Delta::NONE.address([0; 4], [u32::MAX; 4]).word(0, 0xffff).dword(u32::MAX, 0x1234_5678);
        // Both are the sum of 16-bit words, folded as RFC 1071 says.
        let fold = |sum: u64| (sum % 0xffff) as u16;
        assert_eq!(fold(u64::from(delta.wsum())), fold(delta.0));
        assert_eq!(Delta::NONE.wsum(), 0);
    }

    #[test]
    fn example_of_rfc_1624_section_4() {
        // HC = 0xdd2f, m = 0x5555, m' = 0x3285 gives 0x0000, not 0xffff.
        assert_eq!(Delta::NONE.word(0x5555, 0x3285).apply(0xdd2f), 0x0000);
        assert_eq!(Delta::NONE.word(0x5555, 0x3285).apply_udp(0xdd2f), 0xffff);
    }

    #[test]
    fn a_udp_checksum_of_zero_stays_zero() {
        assert_eq!(Delta::NONE.word(1, 2).apply_udp(0), 0);
    }
}
