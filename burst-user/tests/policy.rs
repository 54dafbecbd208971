//! A compiled policy answers as a plain reading of the configuration does, inline and through maps; and the rows that
//! the packet path is given are the ones the configuration asks for.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use burst::config::model::{Affinity, Burst, Class, Config, Local, Mode, Rule, Tier, Udp, WhenFull};
use burst::config::parse;
use burst::policy::compile::{CompileError, Compiled, compile, numbered};
use burst::policy::dimensions::{Rows, port_index};
use burst::policy::ids::{Ids, Names};
use burst::policy::matcher::Matcher;
use burst_common::classify::Matched;
use burst_common::endpoint::{MODE_DNAT, MODE_GUE, MODE_IPIP, MODE_NEXTHOP, link_table};
use burst_common::flow::{TCP, UDP, wide};
use burst_common::policy::{BY_CLIENT, KEEP, NEXTHOP, ROOM_SHIFT, TAGGED};
use burst_common::returns::{ReturnKey, proto};
use ipnet::IpNet;
use proptest::prelude::*;

/// A service on two families, with both modes, and payment beside it.
const CONFIG: &str = r#"
version = 1
edge = { name = "edge-a1", client = ["eth0"], seed = "s", mode = "shadow" }

[[link]]
name = "dx-1"
device = "eth1"
next_hop = "10.64.0.1"

[[link]]
name = "dx-2"
device = "eth2"
next_hop = "10.64.1.1"

[class.promo]
match = [{ dst = ["203.0.113.20/32", "2001:db8::20/128"], proto = "tcp", ports = [80, 443] }]
affinity = "client"
when_full = "local"
slots = 256
local = { capacity = "1k flows/s" }

[[class.promo.tier]]
name = "elastic"
mode = "nexthop"
links = ["dx-1"]
capacity = "20k flows/s"

[class.payment]
keep = true
match = [{ dst = ["203.0.113.0/28"] }, { src = ["192.0.2.0/24"] }]
"#;

/// A `dnat` tier before the other.
const RESERVED: &str = r#"[[class.promo.tier]]
name = "reserved"
mode = "dnat"
endpoints = ["10.20.0.10", "2001:db8:c::10"]
ports = { 443 = 8443 }
links = ["dx-2", "dx-1"]
capacity = "20k flows/s"

[[class.promo.tier]]
"#;

fn config() -> Config {
    static CHECKED: LazyLock<Config> = LazyLock::new(|| {
        let text = CONFIG.replace("[[class.promo.tier]]\n", RESERVED);
        parse(&text, "test").unwrap_or_else(|refused| panic!("{refused}")).config
    });
    CHECKED.clone()
}

fn compiled(config: &Config) -> (Compiled, Ids) {
    let ids = Ids::assign(config, &Names::default()).unwrap();
    (compile(config, &ids).unwrap(), ids)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn keep_rules_come_first_and_each_class_has_its_own_slots() {
    let (compiled, ids) = compiled(&config());
    let (payment, promo) = (ids.classes["payment"], ids.classes["promo"]);
    let rules: Vec<_> = compiled.rules.iter().map(|rule| (rule.class.as_str(), rule.index)).collect();
    assert_eq!(rules, [("payment", 0), ("payment", 1), ("promo", 0)]);
    let policy = &compiled.policy;
    assert_eq!((policy.keep, &policy.rule_class[..4]), (0b11, &[payment, payment, promo, 0][..]));
    assert_eq!((policy.role, policy.shadow, policy.large), (0, 1, 0));
    assert_eq!(policy.seed, burst_common::hash::seed("s"));
    let row = policy.classes[usize::from(promo)];
    assert_eq!((row.base4, row.base6, row.mask), (u32::from(promo) * 8192, u32::from(promo) * 8192 + 4096, 255));
    assert_eq!(row.flags, BY_CLIENT | NEXTHOP | 1500 << ROOM_SHIFT, "the MTU of the `nexthop` tier's link");
    assert_eq!(policy.classes[usize::from(payment)].flags, KEEP);

    let matcher = Matcher::new(&compiled);
    let promo_rule = Some(Matched { rule: 2, class: promo.into(), keep: false });
    let payment_rule = |rule| Some(Matched { rule, class: payment.into(), keep: true });
    for (src, dst, proto, port, expected) in [
        ("198.51.100.7", "203.0.113.20", TCP, 443, promo_rule),
        ("2001:db8:1::7", "2001:db8::20", TCP, 80, promo_rule),
        ("198.51.100.7", "203.0.113.20", UDP, 443, None),
        ("198.51.100.7", "203.0.113.20", TCP, 8443, None),
        ("198.51.100.7", "203.0.113.15", TCP, 443, payment_rule(0)),
        ("192.0.2.9", "203.0.113.20", TCP, 443, payment_rule(1)),
        ("192.0.2.9", "203.0.113.15", UDP, 1, payment_rule(0)),
        ("2001:db8:1::7", "2001:db8::21", TCP, 80, None),
        ("198.51.100.7", "2001:db8::20", TCP, 80, None),
    ] {
        assert_eq!(matcher.matched(ip(src), ip(dst), proto, port), expected, "{src} {dst} {proto} {port}");
    }
}

#[test]
fn endpoints_are_given_their_rows() {
    let (compiled, ids) = compiled(&config());
    let names: Vec<_> = compiled.endpoints.iter().map(|endpoint| endpoint.name.as_str()).collect();
    assert_eq!(names, ["promo/reserved/10.20.0.10", "promo/reserved/2001:db8:c::10", "promo/elastic"]);
    let [four, six, flat] = &compiled.endpoints[..] else { panic!("three endpoints") };
    assert_eq!((four.row.mode, four.row.family, four.row.class), (MODE_DNAT, 4, ids.classes["promo"]));
    assert_eq!((six.row.family, six.row.address), (6, wide(ip("2001:db8:c::10"))));
    assert_eq!((four.row.address, four.row.links), (wide(ip("10.20.0.10")), 0));
    assert_eq!((four.row.port(443u16.to_be()), four.row.port(80u16.to_be())), (8443u16.to_be(), 80u16.to_be()));
    assert_eq!((flat.row.mode, flat.row.family, flat.row.address), (MODE_NEXTHOP, 0, [0; 4]));
    let (dx1, dx2) = (ids.links["dx-1"], ids.links["dx-2"]);
    assert_eq!((&four.links[..], &flat.links[..]), (&[dx2, dx1][..], &[dx1][..]));
    assert_eq!(four.links_word(|_| true), link_table(&[dx2, dx1]));
    assert_eq!(four.links_word(|link| link == dx1), link_table(&[dx1]));
    assert_eq!(flat.links_word(|link| link == dx2), 0);
    for endpoint in &compiled.endpoints {
        assert_eq!(ids.endpoints[&endpoint.name], endpoint.id);
    }
}

#[test]
fn every_reply_of_an_endpoint_finds_its_service() {
    let (compiled, ids) = compiled(&config());
    let rows: BTreeMap<_, _> = compiled.returns.iter().copied().collect();
    assert_eq!(rows.len(), 4, "two ports for each family, none for nexthop");
    for (endpoint, port, service, service_port) in [
        ("10.20.0.10", 80, "203.0.113.20", 80u16),
        ("10.20.0.10", 8443, "203.0.113.20", 443),
        ("2001:db8:c::10", 80, "2001:db8::20", 80),
        ("2001:db8:c::10", 8443, "2001:db8::20", 443),
    ] {
        let family = if ip(endpoint).is_ipv6() { 6 } else { 4 };
        let find = |port: u16| {
            let key = ReturnKey { address: wide(ip(endpoint)), port: port.to_be(), proto: proto(family, TCP) };
            key.rows().filter_map(|row| rows.get(&row)).find(|row| row.answers(&key)).copied()
        };
        let row = find(port).unwrap();
        assert_eq!((row.service, row.service_port), (wide(ip(service)), service_port.to_be()));
        assert_eq!(row.endpoint, ids.endpoints[&format!("promo/reserved/{endpoint}")]);
        assert_eq!(row.class, ids.classes["promo"]);
        assert_eq!(find(443), None, "a renamed port is no endpoint port");
    }
}

#[test]
fn ids_of_another_configuration_are_refused() {
    let error = compile(&config(), &Ids::default()).unwrap_err();
    assert_eq!(error, CompileError::NoId { kind: "class", name: "payment".to_owned() });
}

#[test]
fn a_policy_that_does_not_fit_inline_is_looked_up_in_maps() {
    let with = |hosts: u8| {
        let prefixes: Vec<_> = (0..hosts).map(|host| format!("\"203.0.113.{host}/32\"")).collect();
        parse(&CONFIG.replace("\"203.0.113.0/28\"", &prefixes.join(", ")), "test").unwrap().config
    };
    // The promotion's own destination is one more row.
    let (fits, _) = compiled(&with(15));
    assert_eq!((fits.policy.large, fits.large.is_some()), (0, false));
    let (large, _) = compiled(&with(16));
    assert_eq!(large.policy.large, 1);
    assert!(large.policy.dims.dst4.is_empty() && large.policy.dims.ports.is_empty());
    assert_eq!((large.policy.dims.dst4.any(), large.policy.dims.ports.any()), (0b010, 0b011));
    let maps = large.large.unwrap();
    assert_eq!((maps.dst4.len(), maps.dst6.len(), maps.src4.len(), maps.src6.len()), (17, 1, 1, 0));
    assert_eq!(maps.ports, [(port_index(TCP, 80).unwrap(), 0b100), (port_index(TCP, 443).unwrap(), 0b100)]);
}

#[test]
fn a_longer_prefix_has_the_rules_of_the_shorter_ones_and_any_is_not_in_maps() {
    let rule = |dst: &[&str]| {
        let dst = dst.iter().map(|text| text.parse().unwrap()).collect();
        Rule { dst, src: Vec::new(), proto: None, ports: Vec::new() }
    };
    let rules =
        [rule(&["203.0.113.0/24"]), rule(&["203.0.113.64/26", "2001:db8::/32"]), rule(&[]), rule(&["203.0.113.64/26"])];
    let maps = Rows::new(&rules).large();
    let rows: Vec<_> = maps.dst4.iter().map(|(prefix, rules)| (prefix.to_string(), *rules)).collect();
    assert_eq!(rows, [("203.0.113.0/24".to_owned(), 0b0001), ("203.0.113.64/26".to_owned(), 0b1011)]);
    assert_eq!(maps.dst6.iter().map(|(_, rules)| *rules).collect::<Vec<_>>(), [0b0010]);
    assert_eq!(Rows::new(&rules).any_only().dst4.any(), 0b0100);
    assert_eq!(Rows::new(&rules).any_only().src6.any(), 0b1111);
}

/// The plain reading: keep classes first, then the others, each in the order of the file; the first rule all of whose
/// dimensions hold. Yields (class, position of the rule within it, keep).
fn read_plainly(config: &Config, src: IpAddr, dst: IpAddr, proto: u8, port: u16) -> Option<(String, usize, bool)> {
    for keep in [true, false] {
        for class in config.classes.iter().filter(|class| class.burst.is_none() == keep) {
            for (position, rule) in class.rules.iter().enumerate() {
                let dst_holds = rule.dst.is_empty() || rule.dst.iter().any(|prefix| prefix.contains(&dst));
                let src_holds = rule.src.is_empty() || rule.src.iter().any(|prefix| prefix.contains(&src));
                let proto_holds = rule.proto.is_none_or(|wanted| wanted == proto);
                let port_holds =
                    rule.ports.is_empty() || rule.ports.iter().any(|&(first, last)| first <= port && port <= last);
                if dst_holds && src_holds && proto_holds && port_holds {
                    return Some((class.name.clone(), position, keep));
                }
            }
        }
    }
    None
}

fn burst_class() -> Burst {
    let second = std::time::Duration::from_secs(1);
    Burst {
        affinity: Affinity::Flow,
        idle_timeout: second,
        hold: std::time::Duration::from_secs(15),
        udp: Udp::Sticky,
        when_full: WhenFull::Local,
        max_offsite_share: 1.0,
        slots: 64,
        local: Local {
            target: 0.75,
            capacity: Some(1.0),
            load: Vec::new(),
            home_rate: 0.05,
            stabilize: second,
            dead_band: 0.0,
            hold: second,
            fallback: 1.0,
        },
        tiers: vec![Tier {
            name: "flat".to_owned(),
            mode: Mode::Nexthop,
            endpoints: Vec::new(),
            ports: Vec::new(),
            port: None,
            links: vec!["dx-1".to_owned()],
            capacity: 1.0,
            health: None,
        }],
    }
}

/// Few values, so that prefixes nest, rules overlap and packets match: three bits decide, on both sides of a byte
/// boundary.
fn address(v4: bool, bits: u8) -> IpAddr {
    match v4 {
        true => Ipv4Addr::new(203, 0, 113 ^ (bits >> 2), (bits & 3) << 6).into(),
        false => Ipv6Addr::new(0x2001, 0xdb8, 0, u16::from(bits >> 2), u16::from(bits & 3) << 14, 0, 0, 1).into(),
    }
}

fn any_prefix() -> impl Strategy<Value = IpNet> {
    (any::<bool>(), 0..8u8, 0..5usize).prop_map(|(v4, bits, depth)| {
        let len = if v4 { [0, 23, 24, 25, 32][depth] } else { [0, 63, 64, 65, 128][depth] };
        IpNet::new(address(v4, bits), len).unwrap().trunc()
    })
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let ports = prop::collection::vec((0..40u16, 0..20u16).prop_map(|(first, more)| (first, first + more)), 0..4);
    let proto = prop_oneof![Just(None), Just(Some(TCP)), Just(Some(UDP))];
    let prefixes = || prop::collection::vec(any_prefix(), 0..4);
    (prefixes(), prefixes(), proto, ports).prop_map(|(dst, src, proto, ports)| {
        let ports = if proto.is_some() { ports } else { Vec::new() };
        Rule { dst, src, proto, ports }
    })
}

fn any_config() -> impl Strategy<Value = Config> {
    let classes = prop::collection::vec((any::<bool>(), prop::collection::vec(any_rule(), 1..5)), 1..12);
    classes.prop_map(|classes| {
        let class = |(n, (keep, rules)): (usize, (bool, _))| Class {
            name: format!("c{n}"),
            rules,
            burst: (!keep).then(burst_class),
        };
        Config { classes: classes.into_iter().enumerate().map(class).collect(), ..config() }
    })
}

proptest! {
    // A case through maps fills 131,072 ports: a hundred take seconds without optimisation.
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn inline_maps_and_a_plain_reading_agree(
        config in any_config(),
        packets in prop::collection::vec((any::<bool>(), 0..8u8, 0..8u8, any::<bool>(), 0..60u16), 64),
    ) {
        let (chosen, _) = compiled(&config);
        let rows = Rows::new(numbered(&config).into_iter().map(|(_, _, rule)| rule));
        let mut through_maps = chosen.clone();
        through_maps.policy.dims = rows.any_only();
        through_maps.policy.large = 1;
        through_maps.large = Some(rows.large());
        prop_assert_eq!(chosen.large.is_some(), rows.inline().is_err());
        if chosen.large.is_some() {
            prop_assert_eq!(&chosen, &through_maps);
        }
        let forms = [("as chosen", Matcher::new(&chosen)), ("through maps", Matcher::new(&through_maps))];
        for (v4, src, dst, tcp, port) in packets {
            let (src, dst, proto) = (address(v4, src), address(v4, dst), if tcp { TCP } else { UDP });
            let expected = read_plainly(&config, src, dst, proto, port);
            for (form, matcher) in &forms {
                let matched = matcher.matched(src, dst, proto, port).map(|matched| {
                    assert_eq!(u32::from(chosen.policy.rule_class[matched.rule as usize]), matched.class);
                    let rule = &chosen.rules[matched.rule as usize];
                    (rule.class.clone(), rule.index, matched.keep)
                });
                prop_assert_eq!(&matched, &expected, "{}: {} -> {} protocol {} port {}", form, src, dst, proto, port);
            }
        }
    }
}

#[test]
fn random_policies_match_often_and_come_in_both_forms() {
    // Without this, the agreement above could be one of nothing with nothing.
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut large, mut matched, mut kept, mut missed) = (0, 0, 0, 0);
    for _ in 0..200 {
        let config = proptest::strategy::ValueTree::current(&any_config().new_tree(&mut runner).unwrap());
        large += u32::from(compiled(&config).0.large.is_some());
        for bits in 0..8 {
            match read_plainly(&config, address(true, bits), address(true, 7 - bits), TCP, 20) {
                Some((.., true)) => kept += 1,
                Some(_) => matched += 1,
                None => missed += 1,
            }
        }
    }
    assert!((20..180).contains(&large), "{large} of 200 are large");
    assert!(matched > 100 && kept > 100 && missed > 100, "{matched} matched, {kept} kept, {missed} missed");
}

/// Two tunnel tiers over three links, one of which only stands in for the others; no prefix is a single address.
const TUNNELS: &str = r#"
version = 1
edge = { name = "edge-a1", client = ["eth0"], seed = "s", sentinel = "enforce" }
link = [
  { name = "dx-1", device = "eth1", vlan = 101, next_hop = "fe80::1", mtu = 8500, source = ["10.64.0.2", "2001:db8:64::2"] },
  { name = "dx-2", device = "eth2", next_hop = "10.64.1.1", source = ["10.64.1.2", "2001:db8:65::2"], fallback = true },
  { name = "dx-3", device = "eth2", vlan = 7, next_hop = "10.64.2.1", mtu = 9000, source = ["2001:db8:66::2"] },
]

[class.promo]
match = [{ dst = ["203.0.113.16/28", "2001:db8:113::/64"], proto = "tcp", ports = [443] }]
when_full = "local"
local = { capacity = "1k flows/s" }

[[class.promo.tier]]
name = "reserved"
mode = "gue"
endpoints = ["10.20.0.10", "2001:db8:c::10"]
links = ["dx-2", "dx-1"]
capacity = "20k flows/s"

[[class.promo.tier]]
name = "elastic"
mode = "ipip"
endpoints = ["2001:db8:c::11"]
links = ["dx-1", "dx-3"]
capacity = "20k flows/s"
"#;

#[test]
fn tunnels_are_given_their_rows_and_known_by_their_far_end() {
    let text = TUNNELS.replace(
        "[[class.promo.tier]]\nname = \"reserved\"\nmode = \"gue\"",
        "[[class.promo.tier]]\nname = \"reserved\"\nmode = \"gue\"\nport = 6081",
    );
    let (compiled, ids) = compiled(&parse(&text, "test").unwrap_or_else(|refused| panic!("{refused}")).config);
    let flags = compiled.policy.classes[usize::from(ids.classes["promo"])].flags;
    assert_eq!(flags, 0, "no `nexthop` tier, no room of one");
    assert_eq!(
        (compiled.guard.enforce, compiled.policy.modes),
        (1, 1 << MODE_GUE | 1 << MODE_IPIP | TAGGED),
        "a link has a VLAN"
    );
    let [four, six, elastic] = &compiled.endpoints[..] else { panic!("three endpoints") };
    // What the smallest link carries (dx-2: 1500; dx-1: 8500), less IPv4 or IPv6, UDP and GUE headers.
    let row = |end: &burst::policy::compile::CompiledEndpoint| {
        assert_eq!(1500 - u16::from(end.row.overhead), end.row.room - if end.row.mode == MODE_IPIP { 7000 } else { 0 });
        (end.row.mode, end.row.family, end.row.room, end.row.tunnel_port)
    };
    assert_eq!(row(four), (MODE_GUE, 4, 1500 - 20 - 8 - 4, 6081u16.to_be()));
    assert_eq!(row(six), (MODE_GUE, 6, 1500 - 40 - 8 - 4, 6081u16.to_be()));
    assert_eq!(row(elastic), (MODE_IPIP, 6, 8500 - 40, 0));
    assert_eq!(six.row.address, wide(ip("2001:db8:c::10")));
    assert!(compiled.endpoints.iter().all(|end| end.takes(4) && end.takes(6)), "whatever the outer packet is");
    assert_eq!(
        elastic.room(|link| if link == ids.links["dx-3"] { 1400 } else { 8500 }),
        1360,
        "a device may carry less"
    );

    let (dx1, dx2) = (ids.links["dx-1"], ids.links["dx-2"]);
    assert_eq!((&four.links[..], &four.fallback[..]), (&[dx2, dx1][..], &[dx2][..]));
    assert_eq!(four.links_word(|_| true), link_table(&[dx1]), "what stands in waits");
    assert_eq!(four.links_word(|link| link == dx2), link_table(&[dx2]), "until it is needed");
    assert_eq!(four.links_word(|_| false), 0);

    let rows: BTreeMap<_, _> = compiled.returns.iter().copied().collect();
    assert_eq!(rows.len(), 3, "one for each far end, whatever the services");
    for (end, family) in [(four, 4), (six, 6), (elastic, 6)] {
        let key = ReturnKey { address: end.row.address, port: 0, proto: proto(family, 4) };
        let found = key.rows().find_map(|row| rows.get(&row).filter(|row| row.answers(&key))).expect("a row");
        assert_eq!((found.service, found.service_port), ([0; 4], 0));
        assert_eq!((found.class, found.endpoint), (ids.classes["promo"], end.id));
    }
}

#[test]
fn room_and_families_of_the_other_modes() {
    let (compiled, _) = compiled(&config());
    let [four, six, flat] = &compiled.endpoints[..] else { panic!("three endpoints") };
    assert!([four, six, flat].iter().all(|end| end.row.room == 1500 && end.row.tunnel_port == 0));
    let takes = |end: &burst::policy::compile::CompiledEndpoint| (end.takes(4), end.takes(6));
    assert_eq!([four, six, flat].map(takes), [(true, false), (false, true), (true, true)]);
    assert_eq!(compiled.guard.enforce, 0);
}
