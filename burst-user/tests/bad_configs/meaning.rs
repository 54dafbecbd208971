//! Rows: rules, names and endpoints that do not go together.

use super::Row;

/// Rules that say too little, and rules that no packet reaches.
pub(super) const RULES: &[Row] = &[
    (
        "no rules",
        &[(r#"[{ dst = ["203.0.113.30/32"], proto = "udp", ports = [443] }]"#, "[]")],
        &[
            r#"45:9: error: class `quiz` matches nothing / write at least one rule, such as [{ dst = ["203.0.113.10/32"], proto = "tcp", ports = [443] }]"#,
        ],
    ),
    (
        "a rule of everything",
        &[(r#"{ src = ["192.0.2.0/24"], proto = "tcp", ports = ["9000-9009"] }"#, "{}")],
        &["25:3: error: the rule matches every packet / name what it matches: dst, src, or proto and ports"],
    ),
    (
        "an empty dimension",
        &[(r#"["203.0.113.10/32"]"#, "[]")],
        &["24:11: error: dst: an empty list matches nothing / leave `dst` out to match all, or name what it matches"],
    ),
    (
        "ports without proto",
        &[(r#"{ src = ["192.0.2.0/24"], proto = "tcp","#, r#"{ src = ["192.0.2.0/24"],"#)],
        &[r#"25:29: error: the rule has ports and no `proto` / add proto = "tcp" or proto = "udp""#],
    ),
    (
        "families that never meet",
        &[(
            r#"{ src = ["192.0.2.0/24"], proto = "tcp", ports = ["9000-9009"] }"#,
            r#"{ src = ["192.0.2.0/24"], dst = ["2001:db8::10"] }"#,
        )],
        &[
            "25:3: error: rule 2 of class `payment` matches nothing: dst and src are of different families / name sources of the same family as the destinations",
        ],
    ),
    (
        "burst rule without dst",
        &[(r#"dst = ["203.0.113.30/32"], proto = "udp", ports = [443]"#, r#"proto = "udp", ports = [443]"#)],
        &[
            r#"45:10: error: rule 1 of class `quiz` has no `dst`, and the class is a burst class / name the service's addresses, such as dst = ["203.0.113.20/32"]"#,
        ],
    ),
    (
        "burst rule without ports",
        &[(
            r#"dst = ["203.0.113.30/32"], proto = "udp", ports = [443]"#,
            r#"dst = ["203.0.113.30/32"], proto = "udp""#,
        )],
        &[
            "45:10: error: rule 1 of class `quiz` has no `ports`, and the class is a burst class / name the service's ports, such as ports = [80, 443]",
        ],
    ),
    (
        "burst rule without proto",
        &[(r#"dst = ["203.0.113.30/32"], proto = "udp", ports = [443]"#, r#"dst = ["203.0.113.30/32"]"#)],
        &[
            r#"45:10: error: rule 1 of class `quiz` has no `proto`, and the class is a burst class / add proto = "tcp" or proto = "udp""#,
            "45:10: error: rule 1 of class `quiz` has no `ports`, and the class is a burst class / name the service's ports, such as ports = [80, 443]",
        ],
    ),
    (
        "burst rule inside a keep rule",
        &[(
            r#""203.0.113.20/32", "2001:db8::20/128"], proto = "tcp", ports = [80, 443]"#,
            r#""203.0.113.10/32"], proto = "tcp", ports = [443, "8441-8442"]"#,
        )],
        &[
            "29:10: error: rule 1 of class `promo` lies wholly inside rule 1 of class `payment`, which is kept / a packet such as tcp 198.51.100.1:40000 -> 203.0.113.10:443 always stays local: take it out of one of the two rules",
            "39:28: error: endpoint 2001:db8:c::10 is IPv6, and class `promo` has no IPv6 destination / dnat keeps the family: name an IPv4 endpoint, or add an IPv6 `dst`",
            "40:11: error: tier `reserved` renames port 80, which no rule of class `promo` names / remove it, or add the port to `match`",
        ],
    ),
    (
        "burst rule inside two adjacent keep prefixes",
        &[(
            r#"dst = ["203.0.113.10/32"], proto = "tcp", ports = [443, "8440-8449"]"#,
            r#"dst = ["203.0.113.30/32", "203.0.113.31/32"], proto = "udp""#,
        )],
        &[
            "45:10: error: rule 1 of class `quiz` lies wholly inside rule 1 of class `payment`, which is kept / a packet such as udp 198.51.100.1:40000 -> 203.0.113.30:443 always stays local: take it out of one of the two rules",
        ],
    ),
    (
        "burst rule inside keep rules by parts",
        &[(
            r#"{ src = ["192.0.2.0/24"], proto = "tcp", ports = ["9000-9009"] },"#,
            "{ dst = [\"203.0.113.20\"], proto = \"tcp\" },\n  { dst = [\"2001:db8::/32\"], proto = \"tcp\", ports = [\"1-1023\"] },",
        )],
        &[
            "30:10: error: rule 1 of class `promo` lies wholly inside rule 2 of class `payment`, which is kept / a packet such as tcp 198.51.100.1:40000 -> 203.0.113.20:80 always stays local: take it out of one of the two rules",
            "40:28: error: endpoint 2001:db8:c::10 lies in a destination of rule 3 of class `payment`, which is kept / a packet rewritten to it would look like one that must stay: name another address",
        ],
    ),
    (
        "burst rule behind another class's",
        &[(
            r#"dst = ["203.0.113.30/32"], proto = "udp", ports = [443]"#,
            r#"src = ["198.51.100.0/24"], dst = ["203.0.113.20/32"], proto = "tcp", ports = [443]"#,
        )],
        &[
            "45:10: error: rule 1 of class `quiz` is never reached: rule 1 of class `promo` stands before it / a packet such as tcp 198.51.100.0:40000 -> 203.0.113.20:443 is taken before: take it out of one of the two rules",
        ],
    ),
    (
        "burst rule taken by a keep rule and another class together",
        &[(
            r#"dst = ["203.0.113.30/32"], proto = "udp", ports = [443]"#,
            r#"dst = ["203.0.113.10/32", "203.0.113.20/32"], proto = "tcp", ports = [443]"#,
        )],
        &[
            "45:10: error: rule 1 of class `quiz` is never reached: rule 1 of class `promo` stands before it / a packet such as tcp 198.51.100.1:40000 -> 203.0.113.10:443 is taken before: take it out of one of the two rules",
        ],
    ),
    (
        "keep class with a tier",
        &[("keep = true\n", "keep = true\nwhen_full = \"local\"\ntier = []\n")],
        &[
            "23:1: error: class `payment` is kept and has a `when_full` / remove `when_full`, or `keep`",
            "24:1: error: class `payment` is kept and has a `tier` / remove `tier`, or `keep`",
        ],
    ),
    (
        "dnat from a wide prefix",
        &[(r#""203.0.113.20/32""#, r#""203.0.113.16/28""#)],
        &[
            r#"29:19: error: `203.0.113.16/28` is more than one address, and tier `reserved` is of mode dnat / a reply could not be given back to the address it was asked of: name each address, such as "203.0.113.20/32""#,
        ],
    ),
];

/// Names, links and devices.
pub(super) const NAMES: &[Row] = &[
    (
        "a link twice",
        &[(r#"name = "dx-2""#, r#"name = "dx-1""#)],
        &[
            "17:8: error: link `dx-1` is there twice / give each its own name",
            r#"41:18: error: tier `reserved`: there is no link `dx-2` / did you mean "dx-1"?"#,
            r#"54:10: error: tier `flat`: there is no link `dx-2` / did you mean "dx-1"?"#,
        ],
    ),
    (
        "a way twice",
        &[("device = \"eth2\"\nnext_hop = \"10.64.1.1\"", "device = \"eth1\"\nvlan = 101\nnext_hop = \"10.64.0.1\"")],
        &["20:12: error: links `dx-1` and `dx-2` are the same way: 10.64.0.1 on `eth1` / remove one of them"],
    ),
    (
        "a tier twice",
        &[(
            "[class.quiz]\n",
            "[[class.promo.tier]]\nname = \"reserved\"\nmode = \"nexthop\"\nlinks = [\"dx-1\"]\ncapacity = \"1k flows/s\"\n\n[class.quiz]\n",
        )],
        &["45:8: error: class `promo`: tier `reserved` is there twice / give each its own name"],
    ),
    (
        "an unknown link",
        &[(r#"["dx-1", "dx-2"]"#, r#"["dx-l"]"#)],
        &[r#"41:10: error: tier `reserved`: there is no link `dx-l` / did you mean "dx-1"?"#],
    ),
    (
        "a link named twice by a tier",
        &[(r#"["dx-1", "dx-2"]"#, r#"["dx-1", "dx-1"]"#)],
        &["41:18: error: tier `reserved`: link `dx-1` is named twice / name it once"],
    ),
    (
        "no link in a tier",
        &[(r#"["dx-1", "dx-2"]"#, "[]")],
        &["41:9: error: tier `reserved` has no link / name at least one link"],
    ),
    (
        "no link at all",
        &[(
            "[[link]]\nname = \"dx-1\"\ndevice = \"eth1\"\nvlan = 101\nnext_hop = \"10.64.0.1\"\nmtu = 8500\nbandwidth = { out = \"10Gbit\", in = \"10Gbit\" }\n\n[[link]]\nname = \"dx-2\"\ndevice = \"eth2\"\nnext_hop = \"10.64.1.1\"\n",
            "",
        )],
        &["1:1: error: the file has no `link` / add a line such as `[[link]]`"],
    ),
];

/// Endpoints that cannot be reached, reversed or told apart.
pub(super) const ENDPOINTS: &[Row] = &[
    (
        "nexthop with endpoints",
        &[(
            "name = \"flat\"\nmode = \"nexthop\"\nlinks = [\"dx-2\"]",
            "name = \"flat\"\nmode = \"nexthop\"\nlinks = [\"dx-2\"]\nendpoints = [\"10.20.0.30\"]\nports = { 443 = 8443 }",
        )],
        &[
            r#"55:1: error: tier `flat` is of mode nexthop and has `endpoints` / remove `endpoints`: packets keep their destination; or write mode = "dnat""#,
            r#"56:1: error: tier `flat` is of mode nexthop and has `ports` / remove `ports`: packets keep their destination; or write mode = "dnat""#,
        ],
    ),
    (
        "dnat without endpoints",
        &[(
            "name = \"flat\"\nmode = \"nexthop\"\nlinks = [\"dx-2\"]",
            "name = \"flat\"\nmode = \"dnat\"\nendpoints = []\nlinks = [\"dx-2\"]",
        )],
        &["54:13: error: tier `flat` has no endpoint / name at least one address, or remove the tier"],
    ),
    (
        "an endpoint twice",
        &[(r#"["10.20.0.10", "2001:db8:c::10"]"#, r#"["10.20.0.10", "10.20.0.10", "2001:db8:c::10"]"#)],
        &[
            "39:28: error: endpoint 10.20.0.10 is named twice in class `promo` / name it once: replies from it could not be told apart",
        ],
    ),
    (
        "an endpoint in two tiers",
        &[(
            "[class.quiz]\n",
            "[[class.promo.tier]]\nname = \"elastic\"\nmode = \"dnat\"\nendpoints = [\"10.20.0.10\"]\nlinks = [\"dx-1\"]\ncapacity = \"1k flows/s\"\n\n[class.quiz]\n",
        )],
        &[
            "47:14: error: endpoint 10.20.0.10 is named twice in class `promo` / name it once: replies from it could not be told apart",
        ],
    ),
    (
        "an endpoint of a family the class does not have",
        &[(
            "name = \"flat\"\nmode = \"nexthop\"\nlinks = [\"dx-2\"]",
            "name = \"flat\"\nmode = \"dnat\"\nendpoints = [\"2001:db8:c::30\"]\nlinks = [\"dx-2\"]",
        )],
        &[
            "44:8: warning: IPv4 flows of class `quiz` always stay local: no tier has an IPv4 endpoint / add an IPv4 endpoint, or remove the IPv4 destinations",
            "54:14: error: endpoint 2001:db8:c::30 is IPv6, and class `quiz` has no IPv6 destination / dnat keeps the family: name an IPv4 endpoint, or add an IPv6 `dst`",
        ],
    ),
    (
        "an endpoint that is a service",
        &[(r#""10.20.0.10""#, r#""203.0.113.30""#)],
        &[
            "39:14: error: endpoint 203.0.113.30 is itself a destination of rule 1 of class `quiz` / a rewritten packet would match again: name the cloud host's own address",
        ],
    ),
    (
        "an endpoint that is a router",
        &[(r#""10.20.0.10""#, r#""10.64.1.1""#)],
        &["39:14: error: endpoint 10.64.1.1 is the next hop of link `dx-2` / name the cloud host's own address"],
    ),
    (
        "an endpoint among the kept",
        &[(r#""203.0.113.10/32""#, r#""203.0.113.10/32", "10.20.0.0/24""#)],
        &[
            "39:14: error: endpoint 10.20.0.10 lies in a destination of rule 1 of class `payment`, which is kept / a packet rewritten to it would look like one that must stay: name another address",
        ],
    ),
    (
        "a renamed port that nothing matches",
        &[("443 = 8443", "8443 = 443")],
        &[
            "40:22: error: tier `reserved` renames port 8443, which no rule of class `promo` names / remove it, or add the port to `match`",
        ],
    ),
    (
        "a port renamed into a keep rule",
        &[("443 = 8443", "443 = 9001")],
        &[
            "40:28: error: a packet rewritten to tcp port 9001 would match rule 2 of class `payment`, which is kept / rename to another port, or give the kept rule a `dst`",
        ],
    ),
    (
        "two services of a class behind one endpoint",
        &[(r#""203.0.113.20/32","#, r#""203.0.113.20/32", "203.0.113.21/32","#)],
        &[
            "39:14: error: endpoint tcp 10.20.0.10:8080 stands for two services: 203.0.113.20:80 of class `promo` and 203.0.113.21:80 of class `promo` / a reply tcp 10.20.0.10:8080 -> 198.51.100.1:40000 could not be told apart: give each service its own endpoint address or port",
        ],
    ),
    (
        "two ports of a service behind one",
        &[("443 = 8443", "443 = 8080")],
        &[
            "39:14: error: endpoint tcp 10.20.0.10:8080 stands for two services: 203.0.113.20:80 of class `promo` and 203.0.113.20:443 of class `promo` / a reply tcp 10.20.0.10:8080 -> 198.51.100.1:40000 could not be told apart: give each service its own endpoint address or port",
            "39:28: error: endpoint tcp [2001:db8:c::10]:8080 stands for two services: [2001:db8::20]:80 of class `promo` and [2001:db8::20]:443 of class `promo` / a reply tcp [2001:db8:c::10]:8080 -> [2001:db8::1]:40000 could not be told apart: give each service its own endpoint address or port",
        ],
    ),
    (
        "services of two classes behind one endpoint",
        &[
            (
                r#"[{ dst = ["203.0.113.30/32"], proto = "udp", ports = [443] }]"#,
                r#"[{ dst = ["203.0.113.30/32"], proto = "tcp", ports = [8080] }]"#,
            ),
            (
                "name = \"flat\"\nmode = \"nexthop\"\nlinks = [\"dx-2\"]",
                "name = \"flat\"\nmode = \"dnat\"\nendpoints = [\"10.20.0.10\"]\nlinks = [\"dx-2\"]",
            ),
        ],
        &[
            "54:14: error: endpoint tcp 10.20.0.10:8080 stands for two services: 203.0.113.20:80 of class `promo` and 203.0.113.30:8080 of class `quiz` / a reply tcp 10.20.0.10:8080 -> 198.51.100.1:40000 could not be told apart: give each service its own endpoint address or port",
        ],
    ),
    (
        "one service in two classes behind one endpoint",
        &[
            (
                r#"[{ dst = ["203.0.113.30/32"], proto = "udp", ports = [443] }]"#,
                r#"[{ dst = ["203.0.113.20/32"], proto = "tcp", ports = [443, 8443] }]"#,
            ),
            (
                "name = \"flat\"\nmode = \"nexthop\"\nlinks = [\"dx-2\"]",
                "name = \"flat\"\nmode = \"dnat\"\nendpoints = [\"10.20.0.10\"]\nports = { 443 = 8443, 8443 = 443 }\nlinks = [\"dx-2\"]",
            ),
        ],
        &[
            "54:14: error: endpoint tcp 10.20.0.10:8443 stands for service 203.0.113.20:443 in two classes: `promo` and `quiz` / a reply tcp 10.20.0.10:8443 -> 198.51.100.1:40000 could not be told apart: give each class its own endpoint address or port",
        ],
    ),
    (
        "more translations than rows",
        &[("ports = [80, 443]", r#"ports = ["1-9000"]"#)],
        &[
            "37:8: error: class `promo`, tier `reserved`: the return table has no room for its services × ports × endpoints / 18000 rows are asked for up to here, of at most 16384, and fewer when they fall together: name fewer ports or endpoints",
        ],
    ),
];
