//! As many classes, rules, links, endpoints and prefixes as there is room for, and one more.

use std::fmt::Write;

use super::said;

/// Parts of a configuration in numbers: classes, keep rules, links, endpoints, prefixes of one rule.
struct Size {
    classes: usize,
    rules: usize,
    links: usize,
    endpoints: usize,
    prefixes: usize,
}

/// A configuration of that size, with one promotion among its classes and rules.
fn sized(size: &Size) -> String {
    let mut text = "version = 1\nedge = { name = \"a\", client = [\"eth0\"], seed = \"s\" }\n".to_owned();
    for n in 0..size.links {
        let _ = writeln!(text, "[[link]]\nname = \"dx-{n}\"\ndevice = \"eth1\"\nnext_hop = \"10.64.0.{}\"", n + 1);
    }
    let rules = size.rules - (size.classes - 2);
    for class in 0..size.classes - 1 {
        let _ = writeln!(text, "[class.k{class}]\nkeep = true\nmatch = [");
        for rule in 0..if class == 0 { rules - 1 } else { 1 } {
            let prefix = |n: usize| format!("\"2001:db8:{class:x}:{rule:x}::{n:x}\"");
            let prefixes: Vec<_> = (0..if class + rule == 0 { size.prefixes } else { 1 }).map(prefix).collect();
            let _ = writeln!(text, "{{ src = [{}] }},", prefixes.join(", "));
        }
        text.push_str("]\n");
    }
    let endpoints: Vec<_> = (0..size.endpoints).map(|n| format!("\"10.20.{}.{}\"", n / 200, n % 200 + 1)).collect();
    let _ = write!(
        text,
        "[class.promo]\nmatch = [{{ dst = [\"203.0.113.20\"], proto = \"tcp\", ports = [443] }}]\nwhen_full = \"local\"\n\
         local = {{ capacity = \"1k flows/s\" }}\n[[class.promo.tier]]\nname = \"t\"\nmode = \"dnat\"\nlinks = [\"dx-0\"]\n\
         capacity = \"1k flows/s\"\nendpoints = [{}]\n",
        endpoints.join(", ")
    );
    text
}

#[test]
fn capacities_are_taken_to_the_last_and_refused_beyond() {
    let full = || Size { classes: 63, rules: 64, links: 62, endpoints: 4095, prefixes: 16384 - 62 };
    assert_eq!(said(&sized(&full())), (true, Vec::new()));
    let rows: [(Size, &str); 5] = [
        (
            Size { classes: 64, ..full() },
            "there are more than 63 classes / 63 are possible; this is the first too many",
        ),
        (
            Size { rules: 65, prefixes: 1, ..full() },
            "there are more than 64 match rules / 64 are possible; this is the first too many",
        ),
        (Size { links: 63, ..full() }, "there are more than 62 links / 62 are possible; this is the first too many"),
        (
            Size { endpoints: 4096, ..full() },
            "there are more than 4095 endpoints / 4095 are possible; this is the first too many",
        ),
        (
            Size { prefixes: 16384, ..full() },
            "there are more than 16384 IPv6 prefixes in `src` / name shorter prefixes that cover several of these",
        ),
    ];
    for (size, expected) in rows {
        let (taken, said) = said(&sized(&size));
        assert!(!taken, "{expected}");
        let messages: Vec<_> =
            said.iter().filter_map(|line| line.split_once(": error: ")).map(|(_, message)| message).collect();
        assert_eq!(messages, [expected]);
    }
}

#[test]
fn a_device_has_links_on_sixteen_vlans() {
    let links = |vlans: u16| {
        let link = |n: u16| {
            format!("[[link]]\nname = \"t-{n}\"\ndevice = \"eth1\"\nvlan = {}\nnext_hop = \"10.64.0.1\"\n", n + 1)
        };
        // A second router on a VLAN that is there already takes no more room.
        let second = "[[link]]\nname = \"u\"\ndevice = \"eth1\"\nvlan = 7\nnext_hop = \"10.64.0.2\"\n";
        let size = Size { classes: 2, rules: 2, links: 1, endpoints: 1, prefixes: 1 };
        sized(&size).replacen("[[link]]", &((0..vlans).map(link).collect::<String>() + second + "[[link]]"), 1)
    };
    // `dx-0` is untagged on the same device: one more.
    assert_eq!(said(&links(15)), (true, Vec::new()));
    let (taken, said) = said(&links(16));
    assert!(!taken);
    assert_eq!(
        said,
        [
            "90:10: error: there are links on more than 16 VLANs of device `eth1` / spread the links over several devices"
        ]
    );
}
