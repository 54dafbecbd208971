//! Rows: text that is no TOML; keys that are missing, unknown or of another type.

use super::Row;

/// Text that is no TOML.
pub(super) const SYNTAX: &[Row] = &[
    (
        "unclosed string",
        &[(r#"name = "edge-a1""#, r#"name = "edge-a1"#)],
        &[r#"4:16: error: invalid basic string, expected `"` / the file is TOML, see https://toml.io"#],
    ),
    (
        "a key twice",
        &[(r#"client = ["eth0"]"#, "client = [\"eth0\"]\nname = \"edge-a2\"")],
        &["6:1: error: duplicate key: `name` / the file is TOML, see https://toml.io"],
    ),
    (
        "a class twice",
        &[("[class.quiz]\n", "[class.promo]\n")],
        &[
            "44:8: error: duplicate key: `promo` / the file is TOML, see https://toml.io",
            "45:1: error: duplicate key: `match` / the file is TOML, see https://toml.io",
            "46:1: error: duplicate key: `when_full` / the file is TOML, see https://toml.io",
        ],
    ),
];

/// Keys that are missing, unknown or of another type.
pub(super) const KEYS: &[Row] = &[
    (
        "unknown key",
        &[(r#"next_hop = "10.64.1.1""#, r#"nexthop = "10.64.1.1""#)],
        &[
            r#"16:1: error: link `dx-2` has no `next_hop` / add a line such as `next_hop = "10.64.0.1"`"#,
            "19:1: error: link `dx-2` has no key `nexthop` / did you mean `next_hop`?",
        ],
    ),
    (
        "unknown key far from any",
        &[("mtu = 8500", "colour = 8500")],
        &[
            "13:1: error: link `dx-1` has no key `colour` / known here: bandwidth, device, fallback, mtu, name, next_hop, source, via, vlan",
        ],
    ),
    (
        "unknown table",
        &[("[class.quiz.local]", "[class.quiz.premises]")],
        &[
            "44:1: error: class `quiz` has no `local` / add a line such as `[class.quiz.local]`",
            "48:13: error: class `quiz` has no key `premises` / known here: affinity, event, hold, idle_timeout, keep, local, match, max_offsite_share, slots, tier, udp, when_full",
        ],
    ),
    (
        "unknown key in a rule",
        &[(r#"{ src = ["192.0.2.0/24"]"#, r#"{ source = ["192.0.2.0/24"]"#)],
        &["25:5: error: the rule has no key `source` / known here: dst, ports, proto, src"],
    ),
    (
        "no version",
        &[("version = 1", "")],
        &["1:1: error: the file has no `version` / add a line such as `version = 1`"],
    ),
    (
        "another version",
        &[("version = 1", "version = 2")],
        &["1:11: error: version: 2 is unknown to this burst / write 1"],
    ),
    (
        "no name",
        &[("name = \"edge-a1\"\n", "")],
        &[r#"3:1: error: the edge has no `name` / add a line such as `name = "edge-a1"`"#],
    ),
    (
        "no when_full",
        &[("when_full = \"local\"\n\n[class.promo.local]", "[class.promo.local]")],
        &[r#"28:1: error: class `promo` has no `when_full` / add a line such as `when_full = "local"`"#],
    ),
    (
        "no tiers",
        &[(
            "[[class.quiz.tier]]\nname = \"flat\"\nmode = \"nexthop\"\nlinks = [\"dx-2\"]\ncapacity = \"1k flows/s\"\n",
            "",
        )],
        &["44:1: error: class `quiz` has no `tier` / add a line such as `[[class.quiz.tier]]`"],
    ),
    (
        "empty tiers",
        &[
            (
                "[[class.quiz.tier]]\nname = \"flat\"\nmode = \"nexthop\"\nlinks = [\"dx-2\"]\ncapacity = \"1k flows/s\"\n",
                "",
            ),
            (
                "[class.quiz.local]\ncapacity = \"1k flows/s\"",
                "tier = []\n\n[class.quiz.local]\ncapacity = \"1k flows/s\"",
            ),
        ],
        &["48:8: error: class `quiz` has no tier / name at least one, or write keep = true"],
    ),
    (
        "no mode",
        &[("mode = \"nexthop\"\n", "")],
        &[r#"51:1: error: tier `flat` has no `mode` / add a line such as `mode = "dnat"`"#],
    ),
    (
        "no local side",
        &[("[class.quiz.local]\ncapacity = \"1k flows/s\"", "")],
        &["44:1: error: class `quiz` has no `local` / add a line such as `[class.quiz.local]`"],
    ),
    (
        "nothing to tell local capacity",
        &[("capacity = \"1k flows/s\"\n\n[[class.quiz.tier]]", "\n[[class.quiz.tier]]")],
        &[
            r#"48:1: error: the local side has neither `capacity` nor a `load` source / add a line such as `capacity = "2k flows/s"`, or a source such as load = [{ metrics = "http://127.0.0.1:9113/metrics", metric = "nginx_connections_active", limit = 1000 }]"#,
        ],
    ),
    (
        "a string for a number",
        &[("mtu = 8500", r#"mtu = "8500""#)],
        &["13:7: error: mtu: expected an integer, found a string / write an integer"],
    ),
    (
        "a table for an array of tables",
        &[("[[class.quiz.tier]]", "[class.quiz.tier]")],
        &[
            "51:1: error: tier: expected an array of tables, found a table / double the brackets of its header, as in [[link]]",
        ],
    ),
    (
        "several at once",
        &[("device = \"eth2\"\nnext_hop = \"10.64.1.1\"", "vlan = 4095\nmtv = 1500")],
        &[
            r#"16:1: error: link `dx-2` has no `device` / add a line such as `device = "eth1"`"#,
            r#"16:1: error: link `dx-2` has no `next_hop` / add a line such as `next_hop = "10.64.0.1"`"#,
            "18:8: error: vlan: 4095 is out of range / write a number from 1 to 4094",
            "19:1: error: link `dx-2` has no key `mtv` / did you mean `mtu`?",
        ],
    ),
    (
        "tabs and control letters in a name",
        &[(r#"name = "dx-2""#, r#"name = "dx\t2""#)],
        &[r#"17:8: error: name: the name `dx\t2` holds '\t' / use 1 to 40 of the letters A-Z a-z 0-9 . _ -"#],
    ),
    (
        "a name of 41 letters",
        &[(r#"name = "reserved""#, r#"name = "rrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrr""#)],
        &[
            "37:8: error: name: the name `rrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrr` has 41 letters / use 1 to 40 of the letters A-Z a-z 0-9 . _ -",
        ],
    ),
    (
        "a class name with a slash",
        &[("[class.quiz]\n", "[\"class\".\"quiz/1\"]\n")],
        &[
            "44:1: error: class `quiz/1` has no `local` / add a line such as `[class.quiz/1.local]`",
            "44:1: error: class `quiz/1` has no `tier` / add a line such as `[[class.quiz/1.tier]]`",
            "44:10: error: class: the name `quiz/1` holds '/' / use 1 to 40 of the letters A-Z a-z 0-9 . _ -",
            r#"48:8: error: class `quiz` has no `match` / add a line such as `match = [{ dst = ["203.0.113.10/32"], proto = "tcp", ports = [443] }]`"#,
            r#"48:8: error: class `quiz` has no `when_full` / add a line such as `when_full = "local"`"#,
        ],
    ),
    (
        "a device name that is too long",
        &[(r#"device = "eth2""#, r#"device = "a-long-device-name""#)],
        &[
            "18:10: error: device: `a-long-device-name` is not a device name / write the name that `ip link` shows, of 1 to 15 letters",
        ],
    ),
    (
        "no client device",
        &[(r#"client = ["eth0"]"#, "client = []")],
        &[
            r#"5:10: error: client: names no device / name the devices that client traffic arrives on, such as ["eth0"]"#,
        ],
    ),
    (
        "a client device twice",
        &[(r#"client = ["eth0"]"#, r#"client = ["eth0", "eth0"]"#)],
        &["5:19: error: client: `eth0` is named twice / name it once"],
    ),
];
