//! Rows: values out of their range, or that this version does not support.

use super::Row;

/// Values out of their range, or that this version does not support.
pub(super) const VALUES: &[Row] = &[
    (
        "mtu too small",
        &[("mtu = 8500", "mtu = 1279")],
        &["13:7: error: mtu: 1279 is out of range / write a number from 1280 to 9216"],
    ),
    (
        "mtu too large",
        &[("mtu = 8500", "mtu = 9217")],
        &["13:7: error: mtu: 9217 is out of range / write a number from 1280 to 9216"],
    ),
    (
        "vlan out of range",
        &[("vlan = 101", "vlan = 4095")],
        &["11:8: error: vlan: 4095 is out of range / write a number from 1 to 4094"],
    ),
    (
        "bandwidth without a unit",
        &[(r#"out = "10Gbit""#, r#"out = "10""#)],
        &[
            r#"14:21: error: out: `10` is not a bandwidth / write bits per second with a unit, such as "10Gbit" or "500Mbit""#,
        ],
    ),
    (
        "tick too short",
        &[("seed =", "tick = \"10ms\"\nseed =")],
        &["6:8: error: tick: `10ms` is out of range / write a duration from 50ms to 10s"],
    ),
    (
        "socket path too long",
        &[(
            "seed =",
            "socket = \"/run/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"\nseed =",
        )],
        &["6:10: error: socket: the path is 115 bytes long / a Unix socket's path has at most 107 bytes"],
    ),
    (
        "relative path",
        &[("seed =", "state_dir = \"var\"\nseed =")],
        &[r#"6:13: error: state_dir: `var` is not an absolute path / write a path that starts with "/""#],
    ),
    (
        "empty seed",
        &[(r#"seed = "one-string-for-all-edges""#, r#"seed = " ""#)],
        &["6:8: error: seed: the text is empty / write at least one letter"],
    ),
    (
        "unknown mode",
        &[("seed =", "mode = \"shadwo\"\nseed =")],
        &[r#"6:8: error: mode: "shadwo" is unknown / did you mean "shadow"?"#],
    ),
    (
        "hold too long",
        &[("[class.promo.local]", "hold = \"11m\"\n\n[class.promo.local]")],
        &["32:8: error: hold: `11m` is out of range / write a duration from 0s to 10m"],
    ),
    (
        "udp of another kind",
        &[("[class.quiz.local]", "udp = \"flow\"\n\n[class.quiz.local]")],
        &[r#"48:7: error: udp: "flow" is unknown / write "sticky" or "quic" or "per-packet""#],
    ),
    (
        "udp without UDP",
        &[("[class.promo.local]", "udp = \"quic\"\n\n[class.promo.local]")],
        &[r#"32:7: error: class `promo` has `udp`, and no rule of proto = "udp" / remove `udp`, or add the rule"#],
    ),
    (
        "a lease of less than four ticks",
        &[("seed =", "tick = \"2s\"\nlease = { lasts = \"7s\" }\nseed =")],
        &[
            "7:19: error: lasts: 7s is less than four ticks of 2s / a daemon that is a little late would lose it: make it longer, or `tick` shorter",
        ],
    ),
    (
        "a lease that is no table",
        &[("seed =", "lease = \"7s\"\nseed =")],
        &["6:9: error: lease: expected a table, found a string / write a table"],
    ),
    (
        "another sentinel",
        &[("seed =", "sentinel = \"drop\"\nseed =")],
        &[r#"6:12: error: sentinel: "drop" is unknown / write "report" or "enforce""#],
    ),
    (
        "next hop unspecified",
        &[(r#""10.64.1.1""#, r#""0.0.0.0""#)],
        &[
            r#"19:12: error: next_hop: `0.0.0.0` is the unspecified address, not the address of a router / write the address of the Direct Connect router, such as "10.64.0.1""#,
        ],
    ),
    (
        "next hop multicast",
        &[(r#""10.64.1.1""#, r#""ff02::1""#)],
        &[
            r#"19:12: error: next_hop: `ff02::1` is a multicast address, not the address of a router / write the address of the Direct Connect router, such as "10.64.0.1""#,
        ],
    ),
    (
        "next hop with a prefix length",
        &[(r#""10.64.1.1""#, r#""10.64.1.1/24""#)],
        &[r#"19:12: error: next_hop: `10.64.1.1/24` is not an address / write "10.64.1.1", without a prefix length"#],
    ),
    (
        "host bits",
        &[(r#""192.0.2.0/24""#, r#""192.0.2.7/24""#)],
        &[
            r#"25:12: error: src: `192.0.2.7/24` has bits set behind its prefix length / write "192.0.2.0/24" for the network, or "192.0.2.7/32" for the one address"#,
        ],
    ),
    (
        "no prefix",
        &[(r#""203.0.113.30/32""#, r#""promo.example""#)],
        &[
            r#"45:19: error: dst: `promo.example` is not an address prefix / write an address and a prefix length, such as "203.0.113.10/32" or "2001:db8::/64""#,
        ],
    ),
    (
        "port zero",
        &[("ports = [80, 443]", "ports = [0, 443]")],
        &["29:83: error: ports: `0` is not a port / write a number from 1 to 65535"],
    ),
    (
        "ports backwards",
        &[(r#""8440-8449""#, r#""8449-8440""#)],
        &[r#"24:61: error: ports: the port range `8449-8440` runs backwards / write "8440-8449""#],
    ),
    (
        "unknown protocol",
        &[(r#"proto = "udp""#, r#"proto = "sctp""#)],
        &[r#"45:47: error: proto: "sctp" is unknown / write "tcp" or "udp""#],
    ),
    (
        "target above one",
        &[(
            "[class.quiz.local]\ncapacity = \"1k flows/s\"",
            "[class.quiz.local]\ntarget = 1.2\ncapacity = \"1k flows/s\"",
        )],
        &["49:10: error: target: 1.2 is out of range / write a share above 0 and at most 1 (100%)"],
    ),
    (
        "target of nothing",
        &[(
            "[class.quiz.local]\ncapacity = \"1k flows/s\"",
            "[class.quiz.local]\ntarget = \"0%\"\ncapacity = \"1k flows/s\"",
        )],
        &["49:10: error: target: 0% is out of range / write a share above 0 and at most 1 (100%)"],
    ),
    (
        "home rate",
        &[(
            "[class.quiz.local]\ncapacity = \"1k flows/s\"",
            "[class.quiz.local]\nhome_rate = \"5%/min\"\ncapacity = \"1k flows/s\"",
        )],
        &[
            r#"49:13: error: home_rate: `5%/min` is not a share per second / write a percentage per second, such as "5%/s""#,
        ],
    ),
    (
        "share above one",
        &[("[class.promo.local]", "max_offsite_share = \"101%\"\n\n[class.promo.local]")],
        &["32:21: error: max_offsite_share: 101% is out of range / write a share from 0 and at most 1 (100%)"],
    ),
    (
        "idle timeout of nothing",
        &[("[class.promo.local]", "idle_timeout = \"0s\"\n\n[class.promo.local]")],
        &["32:16: error: idle_timeout: `0s` is out of range / write a duration from 1s to 1day"],
    ),
    (
        "slots no power of two",
        &[("[class.promo.local]", "slots = 1000\n\n[class.promo.local]")],
        &["32:9: error: slots: 1000 is not a power of two / write 512 or 1024"],
    ),
    (
        "slots out of range",
        &[("[class.promo.local]", "slots = 8192\n\n[class.promo.local]")],
        &["32:9: error: slots: 8192 is out of range / write a number from 64 to 4096"],
    ),
    (
        "shed",
        &[("when_full = \"local\"\n\n[class.promo.local]", "when_full = \"shed\"\n\n[class.promo.local]")],
        &[r#"30:13: error: when_full: "shed" is not supported by this version / write "local""#],
    ),
    (
        "mode misspelt",
        &[(r#"mode = "nexthop""#, r#"mode = "next-hop""#)],
        &[r#"53:8: error: mode: "next-hop" is unknown / did you mean "nexthop"?"#],
    ),
    (
        "capacity zero",
        &[(r#""20k flows/s""#, r#""0 flows/s""#)],
        &["42:12: error: capacity: `0 flows/s` is no capacity at all / write a rate above 0"],
    ),
    (
        "capacity in bits",
        &[(r#""20k flows/s""#, r#""10Gbit/s""#)],
        &[
            r#"42:12: error: capacity: `10Gbit/s`: a capacity in bits per second is not supported by this version / write new flows per second, such as "20k flows/s""#,
        ],
    ),
    (
        "capacity without a unit",
        &[(r#""20k flows/s""#, r#""20k""#)],
        &[r#"42:12: error: capacity: `20k` is not a rate / write new flows per second, such as "20k flows/s""#],
    ),
    (
        "load without a limit",
        &[(", limit = 400", "")],
        &["34:9: error: the load source has no `limit` / add a line such as `limit = 1000`"],
    ),
    (
        "load of nothing",
        &[(
            r#"load = [{ haproxy = "/run/haproxy/admin.sock", proxy = "promo", field = "scur", limit = 400 }]"#,
            "load = [{ limit = 4 }]",
        )],
        &[
            "34:9: error: the load source reads nothing / name one of metrics (with metric), haproxy (with proxy and field), prometheus (with query)",
        ],
    ),
    (
        "load of two things",
        &[(r#"field = "scur""#, r#"field = "scur", metrics = "http://127.0.0.1:9113/metrics", metric = "m""#)],
        &[
            "34:9: error: the load source reads more than one thing / name one of metrics (with metric), haproxy (with proxy and field), prometheus (with query)",
        ],
    ),
    (
        "metrics over https",
        &[(
            r#"load = [{ haproxy = "/run/haproxy/admin.sock", proxy = "promo", field = "scur", limit = 400 }]"#,
            r#"load = [{ metrics = "https://127.0.0.1/metrics", metric = "m", limit = 1 }]"#,
        )],
        &[
            r#"34:21: error: metrics: `https://127.0.0.1/metrics` is not a URL of scheme http / write a URL such as "http://127.0.0.1:9113/metrics""#,
        ],
    ),
    (
        "a query alone",
        &[(
            "[class.quiz.local]\ncapacity = \"1k flows/s\"",
            "[class.quiz.local]\nload = [{ prometheus = \"http://127.0.0.1:9090\", query = \"max(busy)\", limit = 1.0 }]",
        )],
        &[
            r#"48:1: error: the local side has no `capacity`, and no load source that this version can read / add a line such as `capacity = "2k flows/s"`, or a source such as load = [{ metrics = "http://127.0.0.1:9113/metrics", metric = "nginx_connections_active", limit = 1000 }]"#,
            "49:24: warning: the load source is left out: PromQL queries are not supported by this version / scrape the exporter itself with `metrics` and `metric`",
        ],
    ),
    (
        "endpoint with a name",
        &[(r#""10.20.0.10""#, r#""shop.example""#)],
        &[
            r#"39:14: error: endpoints: `shop.example` is not an address / write an IPv4 or IPv6 address, such as "10.20.0.10""#,
        ],
    ),
    (
        "endpoint loopback",
        &[(r#""10.20.0.10""#, r#""127.0.0.1""#)],
        &[
            r#"39:14: error: endpoints: `127.0.0.1` is a loopback address, not the address of an endpoint / write the address of a cloud host, such as "10.20.0.10""#,
        ],
    ),
    (
        "more than eight ports",
        &[(
            "80 = 8080, 443 = 8443",
            "80 = 8080, 81 = 8081, 82 = 8082, 83 = 8083, 84 = 8084, 85 = 8085, 86 = 8086, 87 = 8087, 88 = 8088",
        )],
        &["40:9: error: tier `reserved` renames 9 ports / rename at most 8; ports left out are preserved"],
    ),
    (
        "health without a port",
        &[(r#""20k flows/s""#, "\"20k flows/s\"\nhealth = { http = \"/healthz\" }")],
        &[
            r#"43:19: error: http: `/healthz` is not a probe's target / write a port and a path, such as ":8080/healthz""#,
        ],
    ),
    (
        "a path for tcp",
        &[(r#""20k flows/s""#, "\"20k flows/s\"\nhealth = { tcp = \":8080/healthz\" }")],
        &[r#"43:18: error: tcp: `:8080/healthz` is not a probe's target / write a port, such as ":8080""#],
    ),
    (
        "a path with a blank",
        &[(r#""20k flows/s""#, "\"20k flows/s\"\nhealth = { http = \":8080/a b\" }")],
        &[
            r#"43:19: error: http: `/a b` is not the path of a request / write a path without white space, such as ":8080/healthz""#,
        ],
    ),
    (
        "health of nothing",
        &[(r#""20k flows/s""#, "\"20k flows/s\"\nhealth = { every = \"1s\" }")],
        &[r#"43:10: error: `health` has no `http` / add a line such as `http = ":8080/healthz"`"#],
    ),
    (
        "two probes",
        &[(r#""20k flows/s""#, "\"20k flows/s\"\nhealth = { http = \":80\", tcp = \":80\" }")],
        &["43:12: error: `health` has both `http` and `tcp` / remove one of them"],
    ),
    (
        "a probe that outlasts its turn",
        &[(r#""20k flows/s""#, "\"20k flows/s\"\nhealth = { tcp = \":80\", timeout = \"2s\" }")],
        &[
            "43:35: error: timeout: 2s is longer than `every`, 1s / a probe must be over when the next one begins: shorten `timeout`, or lengthen `every`",
        ],
    ),
    (
        "health out of range",
        &[(r#""20k flows/s""#, "\"20k flows/s\"\nhealth = { tcp = \":80\", fall = 0, dead_after = \"0s\" }")],
        &[
            "43:32: error: fall: 0 is out of range / write a number from 1 to 100",
            "43:48: error: dead_after: `0s` is out of range / write a duration from 1s to 1day",
        ],
    ),
    (
        "event without a moment",
        &[(
            "[class.quiz.local]\ncapacity = \"1k flows/s\"",
            "[class.quiz.local]\ncapacity = \"1k flows/s\"\n\n[[class.quiz.event]]\nname = \"push\"\nlast = \"30m\"\nexpect = \"1k flows/s\"",
        )],
        &[
            r#"51:1: error: the event has no `at` / add a line such as `at = "2027-01-01T00:00:00+09:00"`"#,
            "51:1: warning: this version does not act on `event`: the share follows measurement alone",
        ],
    ),
    (
        "event without an offset",
        &[(
            "[class.quiz.local]\ncapacity = \"1k flows/s\"",
            "[class.quiz.local]\ncapacity = \"1k flows/s\"\n\n[[class.quiz.event]]\nname = \"push\"\nat = 2027-01-01T00:00:00\nlast = \"30m\"\nexpect = \"1k flows/s\"",
        )],
        &[
            "51:1: warning: this version does not act on `event`: the share follows measurement alone",
            r#"53:6: error: at: `2027-01-01T00:00:00` is not a moment / write date, time and offset, such as "2027-01-01T00:00:00+09:00""#,
        ],
    ),
];
