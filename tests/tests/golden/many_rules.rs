//! As many rules as are matched inline, each with addresses and a port of its own: the verifier accepts the program, and
//! every rule decides over its own packets and no others.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use burst_common::limits::{INLINE_PORTS, INLINE_PREFIXES};
use burst_common::reason::Reason;
use burst_tests::golden::{Bed, Row};
use burst_tests::topology::Pair;

use super::{FROM_CLIENT, Kind, arriving};

/// Rules of the payment class: the promotion takes one row of each table.
const RULES: u8 = 15;

fn service(number: u8) -> Pair {
    Pair { v4: Ipv4Addr::new(203, 0, 113, 100), v6: Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0x100) }
        .plus(number)
}

fn network(number: u8) -> Pair {
    Pair { v4: Ipv4Addr::new(192, 0, 2, 10), v6: Ipv6Addr::new(0x2001, 0xdb8, 0xca, 0, 0, 0, 0, 0x10) }.plus(number)
}

const fn port(number: u8) -> u16 {
    4000 + 7 * number as u16
}

fn config() -> String {
    let rules: String = (0..RULES)
        .map(|n| {
            let (to, from) = (service(n), network(n));
            format!(
                "  {{ dst = [\"{}\", \"{}\"], src = [\"{}\", \"{}\"], proto = \"tcp\", ports = [{}] }},\n",
                to.v4,
                to.v6,
                from.v4,
                from.v6,
                port(n)
            )
        })
        .collect();
    let promo = "{ dst = [\"203.0.113.20\", \"2001:db8:113::20\"], proto = \"tcp\", ports = [443] }";
    format!(
        r#"
version = 1
edge = {{ name = "edge-a1", client = ["client0"], seed = "golden", mode = "active" }}

[[link]]
name = "dx-1"
device = "dx0"
next_hop = "10.64.0.1"
mtu = 1500

[class.payment]
keep = true
match = [
{rules}]

[class.promo]
match = [{promo}]
affinity = "flow"
slots = 64
when_full = "local"
local = {{ capacity = "1k flows/s" }}

[[class.promo.tier]]
name = "reserved"
mode = "dnat"
endpoints = ["10.20.0.10", "fd00:20::10"]
links = ["dx-1"]
capacity = "1k flows/s"
"#
    )
}

#[test]
fn as_many_rules_as_fit_inline_are_told_apart() -> Result<()> {
    let mut bed = Bed::new(&config())?;
    assert!(bed.compiled().large.is_none(), "this is about inline matching");
    let dims = bed.compiled().policy.dims;
    assert_eq!((dims.dst4.len(), dims.ports.len()), (INLINE_PREFIXES as u32, INLINE_PORTS as u32));
    let payment = bed.class("payment");
    for kind in Kind::tcp() {
        for n in 0..RULES {
            for other in 0..RULES {
                for (name, to, from, port) in [
                    ("another's port", n, n, port(other)),
                    ("another's source", n, other, port(n)),
                    ("another's destination", other, n, port(n)),
                ] {
                    let frame = kind.frame(kind.at(network(from), 40_000), kind.at(service(to), port));
                    let frame = arriving(frame);
                    let name = kind.row(&format!("rule {n}, {name} ({other})"));
                    let row = if n == other {
                        Row::passes(name, frame, payment, Reason::Keep)
                    } else {
                        Row::passes(name, frame, 0, Reason::NoMatch)
                    };
                    bed.check(FROM_CLIENT, &row)?;
                }
            }
        }
    }
    Ok(())
}
