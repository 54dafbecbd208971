//! Rules → the rows of each dimension, for inline matching or for maps.

use std::collections::BTreeMap;

use burst_common::flow::{TCP, UDP, addr4, addr6};
use burst_common::policy::{Dimensions, Ports, Prefix4, Prefix6, Rules, Table, TooMany};
use bytemuck::Zeroable;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

use crate::config::model::Rule;

/// The dimensions as the rules name them: equal prefixes and equal port ranges are one row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    /// Destination prefixes, IPv4.
    pub dst4: Prefixes<Ipv4Net>,
    /// Source prefixes, IPv4.
    pub src4: Prefixes<Ipv4Net>,
    /// Destination prefixes, IPv6.
    pub dst6: Prefixes<Ipv6Net>,
    /// Source prefixes, IPv6.
    pub src6: Prefixes<Ipv6Net>,
    /// Rules that ask for no protocol.
    pub any_port: Rules,
    /// By (protocol, first port, last port).
    pub ports: BTreeMap<(u8, u16, u16), Rules>,
}

/// One prefix dimension.
#[derive(Clone, Debug, PartialEq)]
pub struct Prefixes<P: Ord> {
    /// Rules that do not ask for this dimension, in either family.
    pub any: Rules,
    /// Rules by prefix.
    pub rows: BTreeMap<P, Rules>,
}

impl<P: Ord> Default for Prefixes<P> {
    fn default() -> Self {
        Self { any: 0, rows: BTreeMap::new() }
    }
}

impl<P: Ord> Prefixes<P> {
    fn add(&mut self, prefix: P, bit: Rules) {
        *self.rows.entry(prefix).or_default() |= bit;
    }
}

impl Rows {
    /// The rows of `rules`; the rule at position `n` is bit `n`. There are at most 64.
    #[must_use]
    pub fn new<'a>(rules: impl IntoIterator<Item = &'a Rule>) -> Self {
        let mut rows = Self::default();
        for (number, rule) in rules.into_iter().enumerate() {
            let bit = 1 << number;
            // A rule that names prefixes of one family only does not match the other: it is in no `any` then.
            rows.prefixes(&rule.dst, bit, |rows| (&mut rows.dst4, &mut rows.dst6));
            rows.prefixes(&rule.src, bit, |rows| (&mut rows.src4, &mut rows.src6));
            let Some(proto) = rule.proto else {
                rows.any_port |= bit;
                continue;
            };
            let all = [(0, u16::MAX)];
            let ports = if rule.ports.is_empty() { &all[..] } else { &rule.ports };
            for &(first, last) in ports {
                *rows.ports.entry((proto, first, last)).or_default() |= bit;
            }
        }
        rows
    }

    fn prefixes(
        &mut self,
        prefixes: &[IpNet],
        bit: Rules,
        families: impl Fn(&mut Self) -> (&mut Prefixes<Ipv4Net>, &mut Prefixes<Ipv6Net>),
    ) {
        let (four, six) = families(self);
        if prefixes.is_empty() {
            four.any |= bit;
            six.any |= bit;
        }
        for prefix in prefixes {
            match prefix {
                IpNet::V4(prefix) => four.add(prefix.trunc(), bit),
                IpNet::V6(prefix) => six.add(prefix.trunc(), bit),
            }
        }
    }

    /// The tables that are matched inline.
    ///
    /// # Errors
    /// When a dimension has more rows than are matched inline: then it takes [`Rows::large`].
    pub fn inline(&self) -> Result<Dimensions, TooMany> {
        let four = |dimension: &Prefixes<Ipv4Net>| {
            let row = |(prefix, &rules): (&Ipv4Net, &Rules)| Prefix4 {
                addr: addr4(prefix.network()),
                mask: addr4(prefix.netmask()),
                rules,
            };
            Table::new(dimension.any, &dimension.rows.iter().map(row).collect::<Vec<_>>())
        };
        let six = |dimension: &Prefixes<Ipv6Net>| {
            let row = |(prefix, &rules): (&Ipv6Net, &Rules)| Prefix6 {
                addr: addr6(prefix.network()),
                mask: addr6(prefix.netmask()),
                rules,
            };
            Table::new(dimension.any, &dimension.rows.iter().map(row).collect::<Vec<_>>())
        };
        let port = |(&(proto, first, last), &rules): (&(u8, u16, u16), &Rules)| Ports {
            first,
            last,
            proto: proto.into(),
            rules,
        };
        Ok(Dimensions {
            dst4: four(&self.dst4)?,
            src4: four(&self.src4)?,
            dst6: six(&self.dst6)?,
            src6: six(&self.src6)?,
            ports: Table::new(self.any_port, &self.ports.iter().map(port).collect::<Vec<_>>())?,
        })
    }

    /// The inline tables of a policy that is matched through maps: the `any` bitmaps and no rows.
    #[must_use]
    pub fn any_only(&self) -> Dimensions {
        let mut empty = self.clone();
        empty.dst4.rows.clear();
        empty.src4.rows.clear();
        empty.dst6.rows.clear();
        empty.src6.rows.clear();
        empty.ports.clear();
        // No rows always fit.
        empty.inline().unwrap_or_else(|_| Dimensions::zeroed())
    }

    /// The rows of the maps.
    #[must_use]
    pub fn large(&self) -> Large {
        Large {
            dst4: cover(&self.dst4),
            src4: cover(&self.src4),
            dst6: cover(&self.dst6),
            src6: cover(&self.src6),
            ports: self.bitmaps(),
        }
    }

    fn bitmaps(&self) -> Vec<(u32, Rules)> {
        let mut bitmaps = Vec::new();
        for proto in [TCP, UDP] {
            let mut rules = vec![0; 1 << 16];
            for (&(_, first, last), bits) in self.ports.iter().filter(|((of, ..), _)| *of == proto) {
                rules[usize::from(first)..=usize::from(last)].iter_mut().for_each(|rules| *rules |= bits);
            }
            let used = (0..=u16::MAX).zip(rules).filter(|(_, rules)| *rules != 0);
            bitmaps.extend(used.filter_map(|(port, rules)| Some((port_index(proto, port)?, rules))));
        }
        bitmaps
    }
}

/// The rows of the maps that a large policy is looked up in. `any` bits are not in them: the packet path adds those.
#[derive(Clone, Debug, PartialEq)]
pub struct Large {
    /// Destination prefixes, IPv4; a longer prefix has the rules of the shorter ones that cover it.
    pub dst4: Vec<(Ipv4Net, Rules)>,
    /// Source prefixes, IPv4; likewise.
    pub src4: Vec<(Ipv4Net, Rules)>,
    /// Destination prefixes, IPv6; likewise.
    pub dst6: Vec<(Ipv6Net, Rules)>,
    /// Source prefixes, IPv6; likewise.
    pub src6: Vec<(Ipv6Net, Rules)>,
    /// Rules by [`port_index`], ascending, only those that are not zero.
    pub ports: Vec<(u32, Rules)>,
}

/// Row of a destination port (host byte order) in the map of ports: TCP's come first, then UDP's. `None` for other
/// protocols.
#[must_use]
pub const fn port_index(proto: u8, port: u16) -> Option<u32> {
    match proto {
        TCP => Some(port as u32),
        UDP => Some(0x1_0000 + port as u32),
        _ => None,
    }
}

fn cover<P: prefix_trie::Prefix + Ord + Copy>(dimension: &Prefixes<P>) -> Vec<(P, Rules)> {
    let trie: PrefixMap<P, Rules> = dimension.rows.iter().map(|(prefix, rules)| (*prefix, *rules)).collect();
    dimension.rows.keys().map(|prefix| (*prefix, trie.cover_values(prefix).fold(0, |all, rules| all | rules))).collect()
}
