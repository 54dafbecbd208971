//! Flow → rule: which rules each dimension satisfies, and the lowest that all of them satisfy.
//!
//! Inline matching looks at every row: half a nanosecond each, and no lookup. Large policies get the same
//! bitmaps from maps; the caller says which.
//!
//! How many rows there are the verifier must know, so that it removes the rest. What is in them it must not: it would follow
//! every combination of rows that hit, each with its own bitmap, and there are 2ⁿ. So a table's length and its rows are
//! given apart, and the program keeps the rows where the verifier does not look: in memory that is frozen but not
//! `BPF_F_RDONLY_PROG` (kernel/bpf/verifier.c, `bpf_map_is_rdonly`).

use crate::flow::{Addr4, Addr6};
use crate::policy::{Policy, Ports, Prefix4, Prefix6, Rules, Table, constant};

/// Rules whose IPv4 prefix holds `addr`.
#[inline(always)]
#[must_use]
pub fn prefixes4<const N: usize>(table: &Table<Prefix4, N>, rows: &[Prefix4; N], addr: Addr4) -> Rules {
    let mut rules = table.any();
    let len = table.len();
    for (index, row) in rows.iter().enumerate() {
        if index as u32 >= len {
            break;
        }
        if (addr ^ constant(&row.addr)) & constant(&row.mask) == 0 {
            rules |= constant(&row.rules);
        }
    }
    rules
}

/// Rules whose IPv6 prefix holds `addr`.
#[inline(always)]
#[must_use]
pub fn prefixes6<const N: usize>(table: &Table<Prefix6, N>, rows: &[Prefix6; N], addr: Addr6) -> Rules {
    let mut rules = table.any();
    let len = table.len();
    for (index, row) in rows.iter().enumerate() {
        if index as u32 >= len {
            break;
        }
        let high = (addr[0] ^ constant(&row.addr[0])) & constant(&row.mask[0]);
        let low = (addr[1] ^ constant(&row.addr[1])) & constant(&row.mask[1]);
        if high | low == 0 {
            rules |= constant(&row.rules);
        }
    }
    rules
}

/// Rules whose protocol and destination port (network byte order) match.
#[inline(always)]
#[must_use]
pub fn ports<const N: usize>(table: &Table<Ports, N>, rows: &[Ports; N], proto: u8, port: u16) -> Rules {
    let port = u16::from_be(port);
    let mut rules = table.any();
    let len = table.len();
    for (index, row) in rows.iter().enumerate() {
        if index as u32 >= len {
            break;
        }
        if constant(&row.proto) == u32::from(proto) && constant(&row.first) <= port && port <= constant(&row.last) {
            rules |= constant(&row.rules);
        }
    }
    rules
}

/// The rule a packet matches: number, class id and whether its class is never shifted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matched {
    /// Bit number of the rule.
    pub rule: u32,
    /// Class id, below [`crate::limits::MAX_CLASSES`].
    pub class: u32,
    /// Whether the rule is a `keep` rule.
    pub keep: bool,
}

/// The rule among `rules`, the AND of all dimensions, that decides: the lowest.
#[inline(always)]
#[must_use]
pub fn lowest(policy: &Policy, rules: Rules) -> Option<Matched> {
    if rules == 0 {
        return None;
    }
    let bit = rules & rules.wrapping_neg();
    let rule = log2(bit) & 63;
    Some(Matched {
        rule,
        class: u32::from(constant(&policy.rule_class[rule as usize])) & 63,
        keep: bit & constant(&policy.keep) != 0,
    })
}

/// Number of the only bit that is set. The BPF instruction set counts no zeros; a table of 64 bytes indexed by a
/// de Bruijn product (Leiserson, Prokop, Randall: "Using de Bruijn sequences to index a 1 in a computer word", 1998)
/// is one multiplication and one load.
#[inline(always)]
fn log2(bit: u64) -> u32 {
    const DE_BRUIJN: u64 = 0x0218_a392_cd3d_5dbf;
    static NUMBER: [u8; 64] = {
        let mut table = [0; 64];
        let mut n = 0;
        while n < 64 {
            table[(DE_BRUIJN.wrapping_shl(n) >> 58) as usize] = n as u8;
            n += 1;
        }
        table
    };
    u32::from(NUMBER[(bit.wrapping_mul(DE_BRUIJN) >> 58) as usize])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{TCP, UDP, addr4, addr6};
    use bytemuck::Zeroable;

    #[test]
    fn log2_is_right_for_every_bit() {
        for n in 0..64 {
            assert_eq!(log2(1 << n), n);
        }
    }

    #[test]
    fn a_prefix_matches_its_addresses_and_no_others() {
        let row = Prefix4 {
            addr: addr4("198.51.100.128".parse().unwrap()),
            mask: addr4("255.255.255.192".parse().unwrap()),
            rules: 0b100,
        };
        let table = Table::<_, 16>::new(0b1, &[row]).unwrap();
        for (addr, rules) in
            [("198.51.100.128", 0b101), ("198.51.100.191", 0b101), ("198.51.100.192", 1), ("198.51.100.127", 1)]
        {
            assert_eq!(prefixes4(&table, table.rows(), addr4(addr.parse().unwrap())), rules, "{addr}");
        }
        let row = Prefix6 {
            addr: addr6("2001:db8:0:1::".parse().unwrap()),
            mask: addr6("ffff:ffff:ffff:ffff:8000::".parse().unwrap()),
            rules: 0b10,
        };
        let table = Table::<_, 16>::new(0, &[row]).unwrap();
        for (addr, rules) in
            [("2001:db8:0:1::5", 2), ("2001:db8:0:1:7fff::", 2), ("2001:db8:0:1:8000::", 0), ("2001:db8:0:2::", 0)]
        {
            assert_eq!(prefixes6(&table, table.rows(), addr6(addr.parse().unwrap())), rules, "{addr}");
        }
    }

    #[test]
    fn an_unused_row_matches_nothing() {
        // An all-zero row has mask 0 and would match every address, were it in use.
        let table = Table::<Prefix4, 16>::new(0, &[]).unwrap();
        assert_eq!(prefixes4(&table, table.rows(), 0), 0);
    }

    #[test]
    fn ports_match_their_protocol_and_both_ends_of_the_range() {
        let row = Ports { first: 8440, last: 8449, proto: u32::from(TCP), rules: 1 };
        let table = Table::<_, 16>::new(0, &[row]).unwrap();
        for (port, rules) in [(8439, 0), (8440, 1), (8449, 1), (8450, 0)] {
            assert_eq!(ports(&table, table.rows(), TCP, u16::to_be(port)), rules, "{port}");
            assert_eq!(ports(&table, table.rows(), UDP, u16::to_be(port)), 0, "{port}");
        }
    }

    #[test]
    fn the_lowest_rule_decides_and_keep_is_lowest() {
        let mut policy = Policy::zeroed();
        policy.keep = 0b11;
        policy.rule_class[1] = 1;
        policy.rule_class[5] = 2;
        assert_eq!(lowest(&policy, 0), None);
        assert_eq!(lowest(&policy, 0b10_0010), Some(Matched { rule: 1, class: 1, keep: true }));
        assert_eq!(lowest(&policy, 0b10_0000), Some(Matched { rule: 5, class: 2, keep: false }));
    }
}
