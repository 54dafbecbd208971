//! Bad configurations, each with the exact message, place and fix; and good ones beside them, so that a refusal is not
//! the answer to everything.

use std::fmt::Write;
use std::time::Duration;

use burst::config::model::{Affinity, Health, LoadKind, Mode, Probe, Sentinel, Udp};
use burst::config::{ConfigError, load, parse};
use burst::policy::compile::compile;
use burst::policy::ids::{Ids, Names};
use proptest::prelude::*;

#[path = "bad_configs/capacity.rs"]
mod capacity;
#[path = "bad_configs/keys.rs"]
mod keys;
#[path = "bad_configs/meaning.rs"]
mod meaning;
#[path = "bad_configs/values.rs"]
mod values;
#[path = "bad_configs/ways.rs"]
mod ways;

use ways::TUNNEL;

/// What is tried; replacements in [`GOOD`], each of the first place; what is said of it: `line:column: severity: message`,
/// and behind ` / ` the help.
type Row = (&'static str, &'static [(&'static str, &'static str)], &'static [&'static str]);

/// A good configuration: payment, and two promotions on two modes.
const GOOD: &str = r#"version = 1

[edge]
name = "edge-a1"
client = ["eth0"]
seed = "one-string-for-all-edges"

[[link]]
name = "dx-1"
device = "eth1"
vlan = 101
next_hop = "10.64.0.1"
mtu = 8500
bandwidth = { out = "10Gbit", in = "10Gbit" }

[[link]]
name = "dx-2"
device = "eth2"
next_hop = "10.64.1.1"

[class.payment]
keep = true
match = [
  { dst = ["203.0.113.10/32"], proto = "tcp", ports = [443, "8440-8449"] },
  { src = ["192.0.2.0/24"], proto = "tcp", ports = ["9000-9009"] },
]

[class.promo]
match = [{ dst = ["203.0.113.20/32", "2001:db8::20/128"], proto = "tcp", ports = [80, 443] }]
when_full = "local"

[class.promo.local]
capacity = "2k flows/s"
load = [{ haproxy = "/run/haproxy/admin.sock", proxy = "promo", field = "scur", limit = 400 }]

[[class.promo.tier]]
name = "reserved"
mode = "dnat"
endpoints = ["10.20.0.10", "2001:db8:c::10"]
ports = { 80 = 8080, 443 = 8443 }
links = ["dx-1", "dx-2"]
capacity = "20k flows/s"

[class.quiz]
match = [{ dst = ["203.0.113.30/32"], proto = "udp", ports = [443] }]
when_full = "local"

[class.quiz.local]
capacity = "1k flows/s"

[[class.quiz.tier]]
name = "flat"
mode = "nexthop"
links = ["dx-2"]
capacity = "1k flows/s"
"#;

/// [`GOOD`] with replacements; each must find its text.
fn changed(name: &str, changes: &[(&str, &str)]) -> String {
    changes.iter().fold(GOOD.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{name}: {from:?} is not in the good configuration");
        text.replacen(from, to, 1)
    })
}

/// What is said of the good configuration itself: its bandwidth and its UDP rule are for a later version.
const STANDING: [&str; 3] =
    ["does not act on `bandwidth`", "does not act on `state_dir`", "this version counts no UDP packet"];

/// What is said of `text` beyond [`STANDING`]: nothing when it is taken without another warning.
fn said(text: &str) -> (bool, Vec<String>) {
    let (taken, diagnostics) = match parse(text, "burst.toml") {
        Ok(loaded) => (true, loaded.warnings),
        Err(refused) => (false, refused),
    };
    let line = |problem: burst::config::diagnostics::Problem| {
        let severity = format!("{:?}", problem.severity).to_lowercase();
        let help = problem.help.map_or(String::new(), |help| format!(" / {help}"));
        format!("{}:{}: {severity}: {}{help}", problem.line, problem.column, problem.message)
    };
    let said = diagnostics.problems().into_iter().map(line);
    (taken, said.filter(|line| !STANDING.iter().any(|standing| line.contains(standing))).collect())
}

#[test]
fn bad_configurations_are_refused_with_place_reason_and_fix() {
    let mut wrong = String::new();
    let groups = [
        keys::SYNTAX,
        keys::KEYS,
        values::VALUES,
        meaning::RULES,
        meaning::NAMES,
        meaning::ENDPOINTS,
        ways::WAYS,
        ways::TUNNELS,
    ];
    for (name, changes, expected) in groups.into_iter().flatten() {
        let (taken, said) = said(&changed(name, changes));
        if taken || said != *expected {
            let _ = write!(wrong, "\n{name}: taken: {taken}\n  said:     {said:#?}\n  expected: {expected:#?}");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn the_good_configuration_and_its_good_neighbours_are_taken_in_silence() {
    let neighbours: &[(&str, &[(&str, &str)])] = &[
        ("as it is", &[]),
        (
            "smallest and largest mtu",
            &[("mtu = 8500", "mtu = 1280"), (r#"device = "eth2""#, "device = \"eth2\"\nmtu = 9216")],
        ),
        ("a link on the clients' device, behind a VLAN", &[(r#"device = "eth1""#, r#"device = "eth0""#)]),
        (
            "a link on the clients' device, for dnat",
            &[
                ("device = \"eth1\"\nvlan = 101", "device = \"eth0\""),
                ("mode = \"nexthop\"", "mode = \"dnat\"\nendpoints = [\"10.20.0.30\"]"),
            ],
        ),
        (
            "a way that the routing table picks",
            &[
                ("vlan = 101\nnext_hop = \"10.64.0.1\"", "via = \"kernel\"\nfallback = true"),
                (r#"device = "eth1""#, r#"device = "wg0""#),
            ],
        ),
        (
            "tunnels with the least room that IPv6 needs",
            &[
                ("mode = \"dnat\"", "mode = \"gue\"\nport = 9000"),
                ("ports = { 80 = 8080, 443 = 8443 }\n", ""),
                ("mtu = 8500", "mtu = 1332\nsource = [\"10.64.0.2\", \"2001:db8:64::2\"]"),
                ("links = [\"dx-1\", \"dx-2\"]", "links = [\"dx-1\"]"),
            ],
        ),
        (
            "tunnels of IPv4 alone over the smallest link, from and to whole prefixes",
            &[
                ("\"203.0.113.30/32\"", "\"203.0.113.32/28\""),
                ("name = \"flat\"\nmode = \"nexthop\"\nlinks = [\"dx-2\"]", TUNNEL),
                ("mtu = 8500", "mtu = 1280\nsource = [\"10.64.0.2\", \"2001:db8:64::2\"]"),
            ],
        ),
        ("a link that stands in for others", &[("mtu = 8500", "fallback = true")]),
        ("a source that no tier needs", &[("mtu = 8500", "source = [\"10.64.0.2\"]")]),
        ("two links on one device with two routers", &[(r#"device = "eth2""#, "device = \"eth1\"\nvlan = 101")]),
        ("a router with a link-local address", &[(r#""10.64.1.1""#, r#""fe80::1""#)]),
        ("a name of 40 letters", &[(r#"name = "reserved""#, r#"name = "rrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrr""#)]),
        ("a wide prefix for nexthop", &[(r#""203.0.113.30/32""#, r#""203.0.113.32/28""#)]),
        ("an address without a prefix length", &[(r#""203.0.113.30/32""#, r#""203.0.113.30""#)]),
        ("the same prefix twice", &[(r#""203.0.113.30/32""#, r#""203.0.113.30/32", "203.0.113.30/32""#)]),
        (
            "a burst rule partly inside a keep rule",
            &[
                (r#""203.0.113.30/32""#, r#""203.0.113.30/32", "203.0.113.10/32""#),
                (r#"proto = "udp""#, r#"proto = "tcp""#),
            ],
        ),
        (
            "services told apart by the endpoint's port",
            &[
                (
                    r#"dst = ["203.0.113.30/32"], proto = "udp", ports = [443]"#,
                    r#"dst = ["203.0.113.30/32"], proto = "tcp", ports = [443]"#,
                ),
                ("mode = \"nexthop\"", "mode = \"dnat\"\nendpoints = [\"10.20.0.10\"]"),
            ],
        ),
        (
            "services told apart by protocol",
            &[("mode = \"nexthop\"", "mode = \"dnat\"\nendpoints = [\"10.20.0.10\"]\nports = { 443 = 8443 }")],
        ),
        (
            "a rule that another of its own class holds",
            &[(
                r#"proto = "udp", ports = [443] }]"#,
                r#"proto = "udp", ports = [443] }, { dst = ["203.0.113.30/32"], proto = "udp", ports = [443] }]"#,
            )],
        ),
        ("the least target", &[("[class.quiz.local]", "[class.quiz.local]\ntarget = 0.01")]),
        ("no offsite share", &[("[class.promo.local]", "max_offsite_share = 0\n\n[class.promo.local]")]),
        (
            "eight ports",
            &[
                (
                    "80 = 8080, 443 = 8443",
                    "1 = 8001, 2 = 8002, 3 = 8003, 4 = 8004, 5 = 8005, 6 = 8006, 7 = 8007, 8 = 8008",
                ),
                ("ports = [80, 443]", r#"ports = ["1-8"]"#),
            ],
        ),
        (
            "every key of the edge",
            &[(
                "seed =",
                "mode = \"shadow\"\nsentinel = \"enforce\"\npin_dir = \"/run/burst/bpf\"\nstate_dir = \"/var/lib/burst\"\nsocket = \"/run/burst/burst.sock\"\non_exit = \"detach\"\nxdp = \"generic\"\ntick = \"1s\"\ntrace = true\nseed =",
            )],
        ),
        (
            "every key of a class and its local side",
            &[(
                "[class.promo.local]",
                "affinity = \"client\"\nhold = \"30s\"\nidle_timeout = \"5m\"\nmax_offsite_share = \"95%\"\nslots = 4096\n\n[class.promo.local]\ntarget = \"70%\"\nhome_rate = \"5%/s\"\nstabilize = \"30s\"\ndead_band = 0.05\nhold = \"2m\"\nfallback = 0.5",
            )],
        ),
        (
            "a scraped source",
            &[(
                r#"{ haproxy = "/run/haproxy/admin.sock", proxy = "promo", field = "scur", limit = 400 }"#,
                r#"{ metrics = "http://127.0.0.1:9113/metrics", metric = "nginx_connections_active", labels = { k = "v" }, combine = "max", rate = false, limit = 1000, timeout = "100ms", every = "1s" }"#,
            )],
        ),
        ("sources without a capacity", &[("capacity = \"2k flows/s\"\n", "")]),
    ];
    for (name, changes) in neighbours {
        assert_eq!(said(&changed(name, changes)), (true, Vec::new()), "{name}");
    }
}

#[test]
fn what_this_version_does_not_act_on_is_taken_with_a_warning() {
    const QUIZ: &str = "[class.quiz.local]";
    let rows: &[Row] = &[
        (
            "a query beside a capacity",
            &[(
                QUIZ,
                "[class.quiz.local]\nload = [{ prometheus = \"http://127.0.0.1:9090\", query = \"max(busy)\", limit = 1.0 }]",
            )],
            &[
                "49:24: warning: the load source is left out: PromQL queries are not supported by this version / scrape the exporter itself with `metrics` and `metric`",
            ],
        ),
        (
            "price, provision",
            &[(
                "links = [\"dx-2\"]",
                "links = [\"dx-2\"]\nprice = { per_gb = 0, currency = \"EUR\" }\nprovision = { webhook = \"https://scale.example/promo\" }",
            )],
            &[
                "55:9: warning: this version does not act on `price`: cost is not accounted",
                "56:13: warning: this version does not act on `provision`: capacity is not asked for, the tier is taken to be there",
            ],
        ),
        (
            "an event",
            &[(
                QUIZ,
                "[[class.quiz.event]]\nname = \"push\"\ncron = \"0 9 * * 1\"\nlast = \"30m\"\nexpect = \"1k flows/s\"\n\n[class.quiz.local]",
            )],
            &["48:1: warning: this version does not act on `event`: the share follows measurement alone"],
        ),
        (
            "a family that no tier takes",
            &[(r#"["10.20.0.10", "2001:db8:c::10"]"#, r#"["10.20.0.10"]"#)],
            &[
                "28:8: warning: IPv6 flows of class `promo` always stay local: no tier has an IPv6 endpoint / add an IPv6 endpoint, or remove the IPv6 destinations",
            ],
        ),
    ];
    for (name, changes, expected) in rows {
        let (taken, said) = said(&changed(name, changes));
        assert_eq!((taken, said), (true, expected.iter().map(|&line| line.to_owned()).collect()), "{name}");
    }
}

#[test]
fn what_a_later_version_is_for_is_said_where_it_stands() {
    let loaded = parse(GOOD, "burst.toml").unwrap();
    let said: Vec<_> = loaded.warnings.problems().into_iter().map(|problem| (problem.line, problem.message)).collect();
    assert_eq!(
        said,
        [
            (14, "this version does not act on `bandwidth`: no share is bounded by what a link carries".to_owned()),
            (45, "class `quiz`: this version counts no UDP packet as the start of a flow".to_owned()),
        ]
    );
}

#[test]
fn ways_and_tunnels_are_what_the_file_says() {
    let text = changed(
        "ways",
        &[
            ("mtu = 8500", "mtu = 8500\nfallback = true\nsource = [\"2001:db8:64::2\", \"10.64.0.2\"]"),
            ("device = \"eth2\"\nnext_hop = \"10.64.1.1\"", "device = \"wg0\"\nvia = \"kernel\"\nmtu = 1420"),
            ("name = \"flat\"\nmode = \"nexthop\"\nlinks = [\"dx-2\"]", TUNNEL),
            ("seed =", "sentinel = \"enforce\"\nseed ="),
        ],
    );
    let config = parse(&text, "f").unwrap_or_else(|refused| panic!("{refused}")).config;
    let [dx1, dx2] = &config.links[..] else { panic!("two links") };
    assert_eq!((dx1.fallback, dx1.vlan, dx1.next_hop.is_some()), (true, Some(101), true));
    assert_eq!((dx1.source4, dx1.source6), ("10.64.0.2".parse().ok(), "2001:db8:64::2".parse().ok()));
    assert_eq!((dx2.next_hop, dx2.device.as_str(), dx2.mtu, dx2.fallback), (None, "wg0", 1420, false));
    assert_eq!((dx2.source4, dx2.source6, config.edge.sentinel), (None, None, Sentinel::Enforce));
    let [promo, quiz] = [1, 2].map(|n| config.classes[n].burst.as_ref().unwrap().tiers[0].clone());
    assert_eq!((promo.mode, promo.port, quiz.mode, quiz.port), (Mode::Dnat, None, Mode::Gue, Some(6080)));
    assert_eq!(quiz.endpoints.len(), 2, "of a family the class does not have, too");
    assert_eq!(config.edge.sentinel, Sentinel::Enforce);
    assert_eq!(parse(GOOD, "f").unwrap().config.edge.sentinel, Sentinel::Report, "unless the file says so");
}

#[test]
fn defaults_are_what_the_model_says() {
    let config = parse(GOOD, "f").unwrap().config;
    assert_eq!(
        config.classes.iter().map(|class| class.name.as_str()).collect::<Vec<_>>(),
        ["payment", "promo", "quiz"]
    );
    assert_eq!((config.edge.tick.as_millis(), config.edge.shadow, config.edge.trace), (250, false, false));
    assert_eq!((config.links[0].vlan, config.links[1].vlan, config.links[1].mtu), (Some(101), None, 1500));
    assert_eq!((config.links[0].out_bps, config.links[1].in_bps), (Some(10_000_000_000), None));
    let [promo, quiz] = [1, 2].map(|n| config.classes[n].burst.clone().unwrap());
    assert_eq!((promo.affinity, quiz.affinity), (Affinity::Flow, Affinity::Client), "QUIC clients change their ports");
    assert_eq!((promo.slots, promo.max_offsite_share, promo.idle_timeout.as_secs()), (4096, 1.0, 120));
    let seconds = |time: Duration| time.as_secs();
    let lease = config.edge.lease;
    assert_eq!([lease.lasts, lease.hold, lease.home].map(seconds), [5, 900, 600]);
    assert_eq!((seconds(promo.hold), promo.udp, quiz.udp), (15, Udp::Sticky, Udp::Sticky));
    assert_eq!((promo.local.target, promo.local.capacity, promo.local.home_rate), (0.75, Some(2000.0), 0.05));
    let LoadKind::Haproxy { server, .. } = &promo.local.load[0].kind else { panic!("HAProxy") };
    assert_eq!(
        (server.as_str(), promo.local.load[0].every.as_millis(), promo.local.load[0].timeout.as_millis()),
        ("BACKEND", 250, 200)
    );
}

#[test]
fn health_is_what_the_file_says_and_what_it_leaves_out() {
    let of = |health: &str| {
        let text = changed("health", &[(r#""20k flows/s""#, &format!("\"20k flows/s\"\nhealth = {health}"))]);
        let config = parse(&text, "f").unwrap_or_else(|refused| panic!("{health}: {refused}")).config;
        config.classes[1].burst.as_ref().unwrap().tiers[0].health.clone().unwrap()
    };
    let (ms, http) = (Duration::from_millis, |path: &str| Probe::Http { port: 8080, path: path.into() });
    let plain = Health {
        probe: Probe::Tcp { port: 8080 },
        every: ms(1000),
        timeout: ms(500),
        fall: 3,
        rise: 2,
        dead_after: ms(30_000),
    };
    for (text, expected) in [
        (r#"{ tcp = ":8080" }"#, plain.clone()),
        (r#"{ http = ":8080/healthz?deep=1" }"#, Health { probe: http("/healthz?deep=1"), ..plain.clone() }),
        (r#"{ http = ":8080" }"#, Health { probe: http("/"), ..plain.clone() }),
        (r#"{ tcp = ":8080", every = "200ms" }"#, Health { every: ms(200), timeout: ms(200), ..plain.clone() }),
        (
            r#"{ tcp = ":8080", every = "5s", timeout = "5s", fall = 1, rise = 100, dead_after = "1s" }"#,
            Health { every: ms(5000), timeout: ms(5000), fall: 1, rise: 100, dead_after: ms(1000), ..plain.clone() },
        ),
    ] {
        assert_eq!(of(text), expected, "{text}");
    }
    let silent = parse(GOOD, "f").unwrap_or_else(|refused| panic!("{refused}")).config;
    assert!(silent.classes[1].burst.as_ref().unwrap().tiers[0].health.is_none());
}

#[test]
fn a_refusal_shows_the_line_the_value_and_the_fix() {
    let refused =
        parse(&changed("", &[("\"192.0.2.0/24\"", "\"192.0.2.7/24\"")]), "/etc/burst/burst.toml").unwrap_err();
    let expected = "\
error: src: `192.0.2.7/24` has bits set behind its prefix length
  --> /etc/burst/burst.toml:25:12
   |
25 |   { src = [\"192.0.2.7/24\"], proto = \"tcp\", ports = [\"9000-9009\"] },
   |            ^^^^^^^^^^^^^^
   |
   = help: write \"192.0.2.0/24\" for the network, or \"192.0.2.7/32\" for the one address";
    assert!(refused.plain().contains(expected), "{}", refused.plain());
    assert_eq!(refused.to_string(), refused.plain());
}

#[test]
fn a_refusal_between_two_places_shows_both() {
    let refused = parse(
        &changed(
            "",
            &[
                ("name = \"dx-2\"", "name = \"dx-1\""),
                ("[\"dx-1\", \"dx-2\"]", "[\"dx-1\"]"),
                ("[\"dx-2\"]", "[\"dx-1\"]"),
            ],
        ),
        "f",
    )
    .unwrap_err();
    let expected = "\
error: link `dx-1` is there twice
  --> f:17:8
   |
 9 | name = \"dx-1\"
   |        ------ first here
...
17 | name = \"dx-1\"
   |        ^^^^^^
   |
   = help: give each its own name";
    assert!(refused.plain().contains(expected), "{}", refused.plain());
}

#[test]
fn the_example_is_taken_and_says_what_is_not_acted_on() {
    let loaded = load(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/examples/burst.toml").as_ref())
        .unwrap_or_else(|error| panic!("{error}"));
    let said: Vec<_> = loaded.warnings.problems().into_iter().map(|problem| problem.message).collect();
    let starts = [
        "this version does not act on `bandwidth`",
        "the load source is left out",
        "this version does not act on `price`",
        "this version does not act on `provision`",
        "this version does not act on `event`",
    ];
    assert_eq!(said.len(), starts.len(), "{said:#?}");
    assert!(said.iter().zip(starts).all(|(said, start)| said.starts_with(start)), "{said:#?}");
    assert_eq!(loaded.config.classes.len(), 2);

    // Without its capacity the local side would rest on a query that this version cannot ask: that, and only that, is refused.
    let text = include_str!("../../docs/examples/burst.toml");
    let line = text.lines().find(|line| line.starts_with("capacity = \"2k flows/s\"")).unwrap();
    let refused = parse(&text.replace(line, ""), "f").unwrap_err();
    let problems = refused.problems();
    let errors: Vec<_> =
        problems.iter().filter(|problem| problem.severity == burst::config::diagnostics::Severity::Error).collect();
    assert_eq!(errors.len(), 1, "{refused}");
    assert_eq!(errors[0].message, "the local side has no `capacity`, and no load source that this version can read");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("absent.toml");
    let error = load(&path).unwrap_err();
    assert!(matches!(error, ConfigError::Read { .. }));
    assert_eq!(
        error.to_string(),
        format!("cannot read the configuration {}: No such file or directory (os error 2)", path.display())
    );
    std::fs::write(&path, [b'a', 0xff]).unwrap();
    assert_eq!(
        load(&path).unwrap_err().to_string(),
        format!("cannot read the configuration {}: stream did not contain valid UTF-8", path.display())
    );
}

proptest! {
    #[test]
    fn no_text_makes_the_checker_fall_over(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..12usize, "[ -~\n\téß\u{1f600}]{0,6}"), 1..4),
    ) {
        let mut text = GOOD.to_owned();
        for (place, cut, new) in edits {
            let start = (0..=place.index(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap();
            let end = (start..=(start + cut).min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap();
            text.replace_range(start..end, &new);
        }
        match parse(&text, "f") {
            Ok(loaded) => {
                prop_assert_eq!(loaded.warnings.errors(), 0);
                let ids = Ids::assign(&loaded.config, &Names::default());
                prop_assert!(compile(&loaded.config, &ids.unwrap()).is_ok(), "what is taken compiles");
            }
            Err(refused) => {
                prop_assert!(refused.errors() > 0);
                prop_assert!(refused.plain().contains("error: ") && refused.coloured().contains("error"));
                prop_assert_eq!(refused.problems().len(), refused.list().len());
            }
        }
    }
}
