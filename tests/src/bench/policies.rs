//! The policies that cases are measured on, as an operator would write them.

/// How many prefixes of each family a policy has, in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    /// Three destinations and a source.
    Four,
    /// Twelve and four: as many as are matched inline.
    Sixteen,
    /// A thousand, matched through maps.
    Thousand,
}

impl Size {
    /// Number of prefixes.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Four => "4",
            Self::Sixteen => "16",
            Self::Thousand => "1000",
        }
    }

    /// Prefixes more than [`Self::Four`] has: payment's and the news' destinations, payment's sources.
    const fn more(self) -> (u32, u32, u32) {
        match self {
            Self::Four => (0, 0, 0),
            Self::Sixteen => (4, 5, 3),
            Self::Thousand => (400, 590, 6),
        }
    }

    /// Payment by address and by source, a shop that is moved by `dnat`, news that are moved by `nexthop`. With `all`, the shop
    /// may also be moved by every other mode, and over a link on a VLAN.
    pub(super) fn config(self, all: bool) -> String {
        let (payment, news, cards) = self.more();
        let hosts = |net: u32, count: u32| {
            let address = |n: u32| format!(", \"10.{net}.{}.{}\", \"fd00:{net}::{:x}\"", n / 250, n % 250 + 1, n + 1);
            (0..count).map(address).collect::<String>()
        };
        let cards: String = (0..cards).map(|n| format!(", \"10.102.{n}.0/24\", \"fd00:102:{n:x}::/48\"")).collect();
        let (source, more) = if all { ("source = [\"10.64.0.2\", \"fd00:64::2\"]", MORE) } else { ("", "") };
        format!(
            r#"
version = 1
edge = {{ name = "edge-a1", client = ["client0"], seed = "bench", mode = "active" }}

[[link]]
name = "dx-1"
device = "dx0"
next_hop = "10.64.0.1"
mtu = 1500
{source}

[class.payment]
keep = true
match = [
  {{ dst = ["203.0.113.10", "2001:db8:113::10"{}], proto = "tcp", ports = [443, "8440-8449"] }},
  {{ src = ["192.0.2.128/25", "2001:db8:ca::/48"{cards}] }},
]

[class.promo]
match = [{{ dst = ["203.0.113.20", "2001:db8:113::20"], proto = "tcp", ports = [80, 443] }}]
affinity = "flow"
slots = 4096
when_full = "local"
local = {{ capacity = "1k flows/s" }}

[[class.promo.tier]]
name = "reserved"
mode = "dnat"
endpoints = ["10.20.0.10", "fd00:20::10"]
ports = {{ 80 = 8080, 443 = 8443 }}
links = ["dx-1"]
capacity = "1k flows/s"

[class.news]
match = [{{ dst = ["203.0.113.30", "2001:db8:113::30"{}], proto = "tcp", ports = [443] }}]
affinity = "flow"
slots = 4096
when_full = "local"
local = {{ capacity = "1k flows/s" }}

[[class.news.tier]]
name = "flat"
mode = "nexthop"
links = ["dx-1"]
capacity = "1k flows/s"
{more}"#,
            hosts(100, payment),
            hosts(101, news),
        )
    }
}

/// Tiers of the shop in every other mode, and the link of one of them.
const MORE: &str = r#"
[[class.promo.tier]]
name = "gue"
mode = "gue"
endpoints = ["10.20.0.12", "fd00:20::12"]
links = ["dx-1"]
capacity = "1k flows/s"

[[class.promo.tier]]
name = "ipip"
mode = "ipip"
endpoints = ["10.20.0.13", "fd00:20::13"]
links = ["dx-1"]
capacity = "1k flows/s"

[[class.promo.tier]]
name = "tagged"
mode = "dnat"
endpoints = ["10.20.0.14", "fd00:20::14"]
ports = { 80 = 8080, 443 = 8443 }
links = ["dx-2"]
capacity = "1k flows/s"

[[link]]
name = "dx-2"
device = "dx1"
vlan = 101
next_hop = "10.64.1.1"
mtu = 1500
"#;

/// The policies: number of prefixes, and configuration.
#[must_use]
pub fn policies() -> [(&'static str, String); 3] {
    [Size::Four, Size::Sixteen, Size::Thousand].map(|size| (size.name(), size.config(false)))
}

/// The policy of what goes over a wire.
pub(super) fn small_policy() -> String {
    Size::Four.config(false)
}
