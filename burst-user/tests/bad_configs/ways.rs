//! Rows: links, modes and tunnels that do not go together.

use super::Row;

const FLAT: &str = "name = \"flat\"\nmode = \"nexthop\"\nlinks = [\"dx-2\"]";

/// A tier that tunnels to both families over the first link, in place of [`FLAT`].
pub(super) const TUNNEL: &str =
    "name = \"flat\"\nmode = \"gue\"\nendpoints = [\"10.20.0.30\", \"2001:db8:c::30\"]\nlinks = [\"dx-1\"]";

/// Links that the routing table picks, and links on the clients' device.
pub(super) const WAYS: &[Row] = &[
    (
        "health of a tier without endpoints",
        &[("name = \"flat\"", "name = \"flat\"\nhealth = { tcp = \":80\" }")],
        &[
            "53:1: error: tier `flat` is of mode nexthop and has `health` / remove `health`: packets keep their destination, so that there is no endpoint to probe; the tier is healthy while a link is up",
        ],
    ),
    (
        "a way that the routing table picks, with a next hop, a tag and a source",
        &[("bandwidth =", "via = \"kernel\"\nsource = [\"10.64.0.2\"]\nbandwidth =")],
        &[
            r#"11:1: error: link `dx-1` has `vlan` and `via = "kernel"` / remove one of them: name the VLAN device itself as `device`"#,
            r#"12:1: error: link `dx-1` has `next_hop` and `via = "kernel"` / remove one of them: the routing table knows it"#,
            r#"15:1: error: link `dx-1` has `source` and `via = "kernel"` / remove one of them: tunnels are not sent over such a link"#,
        ],
    ),
    (
        "a way by something else",
        &[("bandwidth =", "via = \"krnl\"\nbandwidth =")],
        &[r#"14:7: error: via: "krnl" is unknown / did you mean "kernel"?"#],
    ),
    (
        "a way that the routing table picks, by the clients' device",
        &[
            ("device = \"eth2\"\nnext_hop = \"10.64.1.1\"", "device = \"eth0\"\nvia = \"kernel\""),
            (FLAT, "name = \"flat\"\nmode = \"dnat\"\nendpoints = [\"10.20.0.30\"]\nlinks = [\"dx-2\"]"),
        ],
        &[
            "18:10: error: link `dx-2` is via the kernel and shares device `eth0` with the clients / name a device of its own, such as the VPN's",
        ],
    ),
    (
        "a way that the routing table picks, by another link's device",
        &[
            ("device = \"eth2\"\nnext_hop = \"10.64.1.1\"", "device = \"eth1\"\nvia = \"kernel\""),
            (FLAT, "name = \"flat\"\nmode = \"dnat\"\nendpoints = [\"10.20.0.30\"]\nlinks = [\"dx-2\"]"),
        ],
        &[
            "18:10: error: link `dx-2` is via the kernel and shares device `eth1` with link `dx-1` / name a device of its own, such as the VPN's",
        ],
    ),
    (
        "nexthop over a way that the routing table picks",
        &[("device = \"eth2\"\nnext_hop = \"10.64.1.1\"", "device = \"wg0\"\nvia = \"kernel\"")],
        &[
            r#"54:10: error: tier `flat` is of mode nexthop, and link `dx-2` is via the kernel: the packet keeps its destination, so that the routing table would send it to the premises / name a link with a `next_hop`, or write mode = "dnat""#,
        ],
    ),
    (
        "nexthop beside a link on the clients' device",
        &[("device = \"eth1\"\nvlan = 101", "device = \"eth0\"")],
        &[
            "52:8: error: tier `flat` is of mode nexthop, and link `dx-1` shares device `eth0` with the clients without a VLAN between them / a reply could not be told from a client that forges a service's address: give the link a device or a VLAN of its own, or write another mode",
        ],
    ),
];

/// Tunnels.
pub(super) const TUNNELS: &[Row] = &[
    (
        "a tunnel over a link without a source",
        &[
            ("mode = \"dnat\"", "mode = \"gue\""),
            ("ports = { 80 = 8080, 443 = 8443 }\n", ""),
            ("next_hop = \"10.64.1.1\"", "next_hop = \"10.64.1.1\"\nsource = [\"10.64.1.2\"]"),
        ],
        &[
            r#"41:10: error: tier `reserved` tunnels to 10.20.0.10, and link `dx-1` has no IPv4 `source` / add a line such as source = ["10.64.0.2"] to the link: an address of this host that the endpoint has a route to"#,
            r#"41:10: error: tier `reserved` tunnels to 2001:db8:c::10, and link `dx-1` has no IPv6 `source` / add a line such as source = ["2001:db8:64::2"] to the link: an address of this host that the endpoint has a route to"#,
            r#"41:18: error: tier `reserved` tunnels to 2001:db8:c::10, and link `dx-2` has no IPv6 `source` / add a line such as source = ["2001:db8:64::2"] to the link: an address of this host that the endpoint has a route to"#,
        ],
    ),
    (
        "a tunnel with renamed ports",
        &[("mode = \"dnat\"", "mode = \"ipip\"")],
        &[
            "40:1: error: tier `reserved` is of mode ipip and has `ports` / remove `ports`: packets travel whole, to the service's own address and port",
        ],
    ),
    (
        "a tunnel's port for ipip",
        &[("mode = \"dnat\"", "mode = \"ipip\"\nport = 6080"), ("ports = { 80 = 8080, 443 = 8443 }\n", "")],
        &[
            "39:1: error: tier `reserved` is of mode ipip and has `port` / remove `port`: only `gue` sends to a port of its own",
        ],
    ),
    (
        "a tunnel's port for dnat",
        &[("mode = \"dnat\"", "mode = \"dnat\"\nport = 6080")],
        &[
            "39:1: error: tier `reserved` is of mode dnat and has `port` / remove `port`; `ports` renames ports, such as ports = { 443 = 8443 }",
        ],
    ),
    (
        "a tunnel's port for nexthop",
        &[("mode = \"nexthop\"", "mode = \"nexthop\"\nport = 6080")],
        &[
            "54:1: error: tier `flat` is of mode nexthop and has `port` / remove `port`: only `gue` sends to a port of its own",
        ],
    ),
    (
        "a tunnel's port that is none",
        &[("mode = \"dnat\"", "mode = \"gue\"\nport = 0")],
        &[
            "39:8: error: port: `0` is not a port / write a number from 1 to 65535",
            "41:1: error: tier `reserved` is of mode gue and has `ports` / remove `ports`: packets travel whole, to the service's own address and port",
        ],
    ),
    (
        "a tunnel over a way that the routing table picks",
        &[
            ("device = \"eth2\"\nnext_hop = \"10.64.1.1\"", "device = \"wg0\"\nvia = \"kernel\""),
            (FLAT, "name = \"flat\"\nmode = \"gue\"\nendpoints = [\"10.20.0.30\"]\nlinks = [\"dx-2\"]"),
        ],
        &[
            r#"55:10: error: tier `flat` is of mode gue, and link `dx-2` is via the kernel: the routing table would choose the source of its tunnels, and their way back is not known / name a link with a `next_hop`, or write mode = "dnat""#,
        ],
    ),
    (
        "a tunnel that leaves too little for IPv6",
        &[
            ("mode = \"dnat\"", "mode = \"ipip\""),
            ("ports = { 80 = 8080, 443 = 8443 }\n", ""),
            ("mtu = 8500", "mtu = 1319\nsource = [\"10.64.0.2\", \"2001:db8:64::2\"]"),
            ("links = [\"dx-1\", \"dx-2\"]", "links = [\"dx-1\"]"),
        ],
        &[
            "41:10: error: class `promo` has IPv6 destinations, and tunnels of tier `reserved` leave 1279 bytes of link `dx-1` / IPv6 needs 1280 (RFC 8200, section 5): the link must carry 1320, or write another mode",
        ],
    ),
    (
        "two classes' tunnels to one far end",
        &[
            ("mode = \"dnat\"", "mode = \"ipip\""),
            ("ports = { 80 = 8080, 443 = 8443 }\n", ""),
            ("mtu = 8500", "mtu = 8500\nsource = [\"10.64.0.2\", \"2001:db8:64::2\"]"),
            ("links = [\"dx-1\", \"dx-2\"]", "links = [\"dx-1\"]"),
            (FLAT, "name = \"flat\"\nmode = \"gue\"\nendpoints = [\"10.20.0.10\"]\nlinks = [\"dx-1\"]"),
        ],
        &[
            "54:14: error: endpoint 10.20.0.10 is the far end of tunnels of two classes: `promo` and `quiz` / a packet that comes back could not be told apart: give each class its own endpoint address",
        ],
    ),
    (
        "a tunnel that looks like what is kept",
        &[
            (FLAT, "name = \"flat\"\nmode = \"gue\"\nport = 9001\nendpoints = [\"10.20.0.30\"]\nlinks = [\"dx-2\"]"),
            ("next_hop = \"10.64.1.1\"", "next_hop = \"10.64.1.1\"\nsource = [\"10.64.1.2\"]"),
            (
                r#"{ src = ["192.0.2.0/24"], proto = "tcp", ports = ["9000-9009"] }"#,
                r#"{ proto = "udp", ports = ["9000-9009"] }"#,
            ),
        ],
        &[
            "55:8: error: a tunnel of tier `flat` to udp port 9001 would match rule 2 of class `payment`, which is kept / write another `port`, or give the kept rule a `dst`",
        ],
    ),
    (
        "sources that are something else",
        &[
            ("bandwidth =", "source = [\"192.0.2.7\", \"2001:db8:c::10\"]\nbandwidth ="),
            ("next_hop = \"10.64.1.1\"", "next_hop = \"10.64.1.1\"\nsource = [\"203.0.113.30\"]"),
        ],
        &[
            "14:11: error: tunnel source 192.0.2.7 lies in a source of rule 2 of class `payment`, which is kept / its tunnels would look like packets that must stay: name another address of this host",
            "14:24: error: tunnel source 2001:db8:c::10 is itself an endpoint / name an address of this host",
            "21:11: error: tunnel source 203.0.113.30 lies in a destination of rule 1 of class `quiz` / what comes back could not be told from the clients' packets: name another address of this host",
        ],
    ),
    (
        "a source that is a router",
        &[("bandwidth =", "source = [\"10.64.1.1\"]\nbandwidth =")],
        &["14:11: error: tunnel source 10.64.1.1 is itself a next hop / name an address of this host"],
    ),
    (
        "two sources of a family",
        &[("bandwidth =", "source = [\"10.64.0.2\", \"10.64.0.3\"]\nbandwidth =")],
        &["14:24: error: source: a second IPv4 address, 10.64.0.3 / name one address of each family at most"],
    ),
    (
        "a source of one line alone",
        &[("bandwidth =", "source = [\"fe80::2\"]\nbandwidth =")],
        &[
            r#"14:11: error: source: `fe80::2` is a link-local address, and no tunnel could come back to it / write an address of this host that the cloud has a route to, such as "10.64.0.2""#,
        ],
    ),
    (
        "a source that is no list",
        &[("bandwidth =", "source = \"10.64.0.2\"\nbandwidth =")],
        &["14:10: error: source: expected an array, found a string / write an array"],
    ),
    (
        "no source in a list",
        &[("bandwidth =", "source = []\nbandwidth =")],
        &["14:10: error: source: an empty list is no address / leave `source` out, or name an address of this host"],
    ),
];
