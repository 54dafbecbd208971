//! The packet path's answer, on the host: which rule a packet matches, by the same tables and the same code.

use std::net::IpAddr;

use burst_common::classify::{self, Matched, lowest};
use burst_common::flow::{addr4, addr6};
use burst_common::policy::{Policy, Rules};
use ipnet::{Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

use super::compile::Compiled;
use super::dimensions::{Large, port_index};

/// Matches packets against a compiled policy, inline or large.
#[derive(Clone, Debug)]
pub struct Matcher<'a> {
    policy: &'a Policy,
    maps: Option<Maps>,
}

/// The maps of a large policy.
#[derive(Clone, Debug)]
struct Maps {
    dst4: PrefixMap<Ipv4Net, Rules>,
    src4: PrefixMap<Ipv4Net, Rules>,
    dst6: PrefixMap<Ipv6Net, Rules>,
    src6: PrefixMap<Ipv6Net, Rules>,
    ports: Vec<(u32, Rules)>,
}

impl Maps {
    fn new(large: &Large) -> Self {
        Self {
            dst4: large.dst4.iter().copied().collect(),
            src4: large.src4.iter().copied().collect(),
            dst6: large.dst6.iter().copied().collect(),
            src6: large.src6.iter().copied().collect(),
            ports: large.ports.clone(),
        }
    }

    fn ports(&self, proto: u8, port: u16) -> Rules {
        let row =
            port_index(proto, port).and_then(|index| self.ports.binary_search_by_key(&index, |(index, _)| *index).ok());
        row.map_or(0, |row| self.ports[row].1)
    }
}

fn longest<P: prefix_trie::Prefix>(trie: &PrefixMap<P, Rules>, host: P) -> Rules {
    trie.get_lpm(&host).map_or(0, |(_, rules)| *rules)
}

impl<'a> Matcher<'a> {
    /// A matcher for `compiled`.
    #[must_use]
    pub fn new(compiled: &'a Compiled) -> Self {
        Self::of(&compiled.policy, compiled.large.as_ref())
    }

    /// A matcher for a policy and the rows of its maps.
    #[must_use]
    pub fn of(policy: &'a Policy, large: Option<&Large>) -> Self {
        Self { policy, maps: large.map(Maps::new) }
    }

    /// The rule that decides for a TCP or UDP packet; `port` is its destination port in host byte order. `None` when
    /// no rule matches, or when the families differ.
    #[must_use]
    pub fn matched(&self, src: IpAddr, dst: IpAddr, proto: u8, port: u16) -> Option<Matched> {
        let dims = &self.policy.dims;
        let mut ports = classify::ports(&dims.ports, dims.ports.rows(), proto, port.to_be());
        if let Some(maps) = &self.maps {
            ports |= maps.ports(proto, port);
        }
        let prefixes = match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let inline = (
                    classify::prefixes4(&dims.src4, dims.src4.rows(), addr4(src)),
                    classify::prefixes4(&dims.dst4, dims.dst4.rows(), addr4(dst)),
                );
                let maps = self
                    .maps
                    .as_ref()
                    .map_or((0, 0), |maps| (longest(&maps.src4, src.into()), longest(&maps.dst4, dst.into())));
                (inline.0 | maps.0) & (inline.1 | maps.1)
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let inline = (
                    classify::prefixes6(&dims.src6, dims.src6.rows(), addr6(src)),
                    classify::prefixes6(&dims.dst6, dims.dst6.rows(), addr6(dst)),
                );
                let maps = self
                    .maps
                    .as_ref()
                    .map_or((0, 0), |maps| (longest(&maps.src6, src.into()), longest(&maps.dst6, dst.into())));
                (inline.0 | maps.0) & (inline.1 | maps.1)
            }
            _ => return None,
        };
        lowest(self.policy, ports & prefixes)
    }
}
