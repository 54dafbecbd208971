//! A rule in words, read back from the tables it was compiled into.

use burst_common::flow::{TCP, UDP, narrow};
use burst_common::policy::{Policy, Rules};
use ipnet::IpNet;

use crate::policy::dimensions::Large;

/// Prefixes and ports that are listed; the rest is counted.
const LISTED: usize = 4;

/// What rule `rule` asks for. In a large policy a prefix has the rules of those that cover it, too, so that narrower
/// prefixes of other rules may be listed with it.
pub(super) fn text(policy: &Policy, large: Option<&Large>, rule: u32) -> String {
    let bit = 1u64 << (rule & 63);
    let mut parts = Vec::new();
    let (dst, any_dst) = prefixes(policy, large, bit, true);
    let (src, any_src) = prefixes(policy, large, bit, false);
    for (name, prefixes, any) in [("dst", dst, any_dst), ("src", src, any_src)] {
        if !any {
            parts.push(format!("{name} {}", listed(prefixes.iter().map(ToString::to_string).collect())));
        }
    }
    if policy.dims.ports.any() & bit == 0 {
        parts.push(ports(policy, large, bit));
    }
    if parts.is_empty() { "everything".to_owned() } else { parts.join(", ") }
}

fn prefixes(policy: &Policy, large: Option<&Large>, bit: Rules, destination: bool) -> (Vec<IpNet>, bool) {
    let dims = &policy.dims;
    let (four, six) = if destination { (&dims.dst4, &dims.dst6) } else { (&dims.src4, &dims.src6) };
    if four.any() & bit != 0 && six.any() & bit != 0 {
        return (Vec::new(), true);
    }
    let net = |family: u8, addr: [u32; 4], mask: [u32; 4]| {
        let (addr, mask) = (narrow(family, addr), narrow(family, mask));
        IpNet::with_netmask(addr, mask).ok()
    };
    let inline4 = four.rows()[..four.len() as usize].iter().filter(|row| row.rules & bit != 0);
    let inline6 = six.rows()[..six.len() as usize].iter().filter(|row| row.rules & bit != 0);
    let mut nets: Vec<IpNet> = inline4
        .filter_map(|row| net(4, [row.addr, 0, 0, 0], [row.mask, 0, 0, 0]))
        .chain(inline6.filter_map(|row| net(6, bytemuck::cast(row.addr), bytemuck::cast(row.mask))))
        .collect();
    if let Some(large) = large {
        let (four, six) = if destination { (&large.dst4, &large.dst6) } else { (&large.src4, &large.src6) };
        nets.extend(four.iter().filter(|(_, rules)| rules & bit != 0).map(|(net, _)| IpNet::V4(*net)));
        nets.extend(six.iter().filter(|(_, rules)| rules & bit != 0).map(|(net, _)| IpNet::V6(*net)));
    }
    (nets, false)
}

fn ports(policy: &Policy, large: Option<&Large>, bit: Rules) -> String {
    let table = &policy.dims.ports;
    let inline = table.rows()[..table.len() as usize].iter().filter(|row| row.rules & bit != 0);
    let mut ranges: Vec<(u32, u16, u16)> = inline.map(|row| (row.proto, row.first, row.last)).collect();
    for &(index, _) in large.iter().flat_map(|large| &large.ports).filter(|(_, rules)| rules & bit != 0) {
        let (proto, port) = (if index < 1 << 16 { TCP } else { UDP }, index as u16);
        match ranges.last_mut() {
            Some((of, _, last)) if *of == u32::from(proto) && last.checked_add(1) == Some(port) => *last = port,
            _ => ranges.push((proto.into(), port, port)),
        }
    }
    let mut parts = Vec::new();
    for (proto, name) in [(TCP, "tcp"), (UDP, "udp")] {
        let of = ranges.iter().filter(|(of, ..)| *of == u32::from(proto));
        let named: Vec<_> = of
            .map(|&(_, first, last)| match (first, last) {
                (0, u16::MAX) => "every port".to_owned(),
                (first, last) if first == last => first.to_string(),
                (first, last) => format!("{first}-{last}"),
            })
            .collect();
        if !named.is_empty() {
            parts.push(format!("{name} {}", listed(named)));
        }
    }
    parts.join(", ")
}

fn listed(all: Vec<String>) -> String {
    if all.len() <= LISTED {
        return all.join(" ");
    }
    format!("{} and {} more", all[..LISTED].join(" "), all.len() - LISTED)
}

#[cfg(test)]
mod tests {
    use crate::config;
    use crate::policy::compile::compile;
    use crate::policy::ids::{Ids, Names};

    fn texts(rules: &[&str]) -> Vec<String> {
        let text = format!(
            r#"
            version = 1
            edge = {{ name = "a", client = ["eth0"], seed = "s" }}
            link = [{{ name = "dx-1", device = "eth1", next_hop = "10.64.0.1" }}]
            [class.payment]
            keep = true
            match = [{}]
            [class.promo]
            match = [{{ dst = ["203.0.113.20"], proto = "tcp", ports = [443] }}]
            when_full = "local"
            local = {{ capacity = "1k flows/s" }}
            tier = [{{ name = "r", mode = "dnat", endpoints = ["10.20.0.10"], links = ["dx-1"], capacity = "1k flows/s" }}]
            "#,
            rules.join(", ")
        );
        let config = config::parse(&text, "test").unwrap_or_else(|refused| panic!("{refused}")).config;
        let compiled = compile(&config, &Ids::assign(&config, &Names::default()).unwrap()).unwrap();
        (0..=rules.len() as u32).map(|rule| super::text(&compiled.policy, compiled.large.as_ref(), rule)).collect()
    }

    #[test]
    fn a_rule_is_said_as_it_was_written() {
        let rules = [
            r#"{ dst = ["203.0.113.10", "2001:db8::/32"], proto = "tcp", ports = [443, "8440-8449"] }"#,
            r#"{ src = ["192.0.2.0/24"] }"#,
            r#"{ dst = ["203.0.113.11"], proto = "udp" }"#,
        ];
        let said = [
            "dst 203.0.113.10/32 2001:db8::/32, tcp 443 8440-8449",
            "src 192.0.2.0/24",
            "dst 203.0.113.11/32, udp every port",
            "dst 203.0.113.20/32, tcp 443",
        ];
        assert_eq!(texts(&rules), said);
        // The same through maps: more prefixes than are matched inline.
        let many: Vec<_> = (0..20).map(|n| format!("\"198.51.100.{n}\"")).collect();
        let many = format!("{{ dst = [{}], proto = \"tcp\", ports = [1, \"5-9\"] }}", many.join(", "));
        let large = texts(&[rules[0], rules[1], rules[2], &many]);
        assert_eq!(large[..3], said[..3]);
        assert_eq!(
            large[3],
            "dst 198.51.100.0/32 198.51.100.1/32 198.51.100.2/32 198.51.100.3/32 and 16 more, tcp 1 5-9"
        );
        assert_eq!(large[4], said[3]);
    }
}
