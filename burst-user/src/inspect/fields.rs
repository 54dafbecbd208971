//! Frames as fields, and what changed between two. For people: whatever comes out of the program is shown, tunnels and errors
//! with what is inside them. Nothing is decided here.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::Serialize;

/// A field that changed; `None`: it was not there, or is no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Layer and field, such as `ipv4.destination`.
    pub field: String,
    /// Before.
    pub before: Option<String>,
    /// After.
    pub after: Option<String>,
}

/// What is known of a frame's headers without the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// Whether all headers that the program reads lie within the bytes that are there; what is missing is payload.
    pub whole: bool,
}

struct Layer {
    name: &'static str,
    fields: Vec<(&'static str, String)>,
}

#[derive(Default)]
struct Decoded {
    layers: Vec<Layer>,
    whole: bool,
}

/// What changed from `before` to `after`. `tunnel_ports` are UDP destination ports (host byte order) of GUE.
#[must_use]
pub fn changes(before: &[u8], after: &[u8], tunnel_ports: &[u16]) -> Vec<Change> {
    let (before, after) = (decode(before, tunnel_ports).layers, decode(after, tunnel_ports).layers);
    let mut changes = Vec::new();
    // The first layer is Ethernet in both; what is put on or taken off lies between it and what both end in.
    let (Some((eth, before)), Some((new_eth, after))) = (before.split_first(), after.split_first()) else {
        return changes;
    };
    compare("", eth, new_eth, &mut changes);
    let same = before.iter().rev().zip(after.iter().rev()).take_while(|(a, b)| a.name == b.name).count();
    let (removed, kept) = before.split_at(before.len() - same);
    let (added, now) = after.split_at(after.len() - same);
    for layer in removed {
        let gone = |(field, value): &(&str, String)| Change {
            field: format!("{}.{field}", layer.name),
            before: Some(value.clone()),
            after: None,
        };
        changes.extend(layer.fields.iter().map(gone));
    }
    for layer in added {
        let new = |(field, value): &(&str, String)| Change {
            field: format!("{}.{field}", layer.name),
            before: None,
            after: Some(value.clone()),
        };
        changes.extend(layer.fields.iter().map(new));
    }
    // Behind new headers, what was there before is told apart by a prefix.
    let inner = if added.iter().any(|layer| layer.name != "vlan") { "inner " } else { "" };
    kept.iter().zip(now).for_each(|(a, b)| compare(inner, a, b, &mut changes));
    changes
}

fn compare(prefix: &str, before: &Layer, after: &Layer, changes: &mut Vec<Change>) {
    for ((field, old), (_, new)) in before.fields.iter().zip(&after.fields).filter(|(a, b)| a != b) {
        let field = format!("{prefix}{}.{field}", before.name);
        changes.push(Change { field, before: Some(old.clone()), after: Some(new.clone()) });
    }
}

/// What is there of a frame's headers.
#[must_use]
pub fn headers(frame: &[u8]) -> Headers {
    Headers { whole: decode(frame, &[]).whole }
}

fn decode(frame: &[u8], tunnel_ports: &[u16]) -> Decoded {
    let mut decoded = Decoded::default();
    // A missing byte ends the reading; the layers before it are there.
    decoded.whole = ethernet(frame, tunnel_ports, &mut decoded.layers).is_some();
    decoded
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn hex(number: u16) -> String {
    format!("{number:#06x}")
}

fn mac(bytes: &[u8], at: usize) -> Option<String> {
    Some(crate::api::types::mac(bytes.get(at..at + 6)?.try_into().ok()?))
}

fn ethernet(frame: &[u8], tunnel_ports: &[u16], layers: &mut Vec<Layer>) -> Option<()> {
    let fields = vec![("destination", mac(frame, 0)?), ("source", mac(frame, 6)?)];
    layers.push(Layer { name: "ethernet", fields });
    let (mut at, mut ethertype) = (14, half(frame, 12)?);
    // IEEE 802.1Q and 802.1ad.
    while matches!(ethertype, 0x8100 | 0x88a8) {
        let tag = half(frame, at)?;
        layers.push(Layer { name: "vlan", fields: vec![("id", (tag & 0xfff).to_string())] });
        (ethertype, at) = (half(frame, at + 2)?, at + 4);
    }
    match ethertype {
        0x0800 => ip(frame.get(at..)?, 4, tunnel_ports, layers, 0),
        0x86dd => ip(frame.get(at..)?, 41, tunnel_ports, layers, 0),
        _ => Some(()),
    }
}

/// Packets inside packets that are followed.
const DEPTH: usize = 3;

/// What an IP protocol number carries: 4 and 41 are IPv4 and IPv6.
fn ip(packet: &[u8], proto: u8, tunnel_ports: &[u16], layers: &mut Vec<Layer>, depth: usize) -> Option<()> {
    if depth > DEPTH {
        return Some(());
    }
    let (next, at) = match proto {
        4 => ipv4(packet, layers)?,
        41 => ipv6(packet, layers)?,
        _ => return Some(()),
    };
    let Some(next) = next else { return Some(()) };
    let rest = packet.get(at..)?;
    match next {
        4 | 41 => ip(rest, next, tunnel_ports, layers, depth + 1),
        6 => tcp(rest, layers),
        17 => {
            let (from, to) = (half(rest, 0)?, half(rest, 2)?);
            let fields = vec![
                ("source", from.to_string()),
                ("destination", to.to_string()),
                ("length", half(rest, 4)?.to_string()),
                ("checksum", hex(half(rest, 6)?)),
            ];
            layers.push(Layer { name: "udp", fields });
            // GUE, variant 0: version and control bit, length of options in words; then the protocol.
            match rest.get(8..10) {
                Some(&[first, inner]) if tunnel_ports.contains(&to) && first >> 5 == 0 => {
                    layers.push(Layer { name: "gue", fields: vec![("protocol", inner.to_string())] });
                    let options = usize::from(first & 0x1f) * 4;
                    ip(rest.get(12 + options..)?, inner, tunnel_ports, layers, depth + 1)
                }
                _ => Some(()),
            }
        }
        1 | 58 => icmp(rest, next == 58, tunnel_ports, layers, depth),
        _ => Some(()),
    }
}

/// Pushes the header's fields; what follows it (nothing to read in later fragments), and where.
fn ipv4(packet: &[u8], layers: &mut Vec<Layer>) -> Option<(Option<u8>, usize)> {
    let header: &[u8; 20] = packet.get(..20)?.try_into().ok()?;
    let address = |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]).to_string();
    let fields = vec![
        ("source", address(12)),
        ("destination", address(16)),
        ("ttl", header[8].to_string()),
        ("tos", format!("{:#04x}", header[1])),
        ("length", half(packet, 2)?.to_string()),
        ("protocol", header[9].to_string()),
        ("checksum", hex(half(packet, 10)?)),
    ];
    layers.push(Layer { name: "ipv4", fields });
    let later = half(packet, 6)? & 0x1fff != 0;
    Some(((!later).then_some(header[9]), usize::from(header[0] & 15).max(5) * 4))
}

fn ipv6(packet: &[u8], layers: &mut Vec<Layer>) -> Option<(Option<u8>, usize)> {
    let header: &[u8; 40] = packet.get(..40)?.try_into().ok()?;
    let address = |at: usize| {
        let bytes: [u8; 16] = header[at..at + 16].try_into().unwrap_or_default();
        Ipv6Addr::from(bytes).to_string()
    };
    let fields = vec![
        ("source", address(8)),
        ("destination", address(24)),
        ("hop-limit", header[7].to_string()),
        ("traffic-class", format!("{:#04x}", half(packet, 0)? >> 4 & 0xff)),
        ("length", half(packet, 4)?.to_string()),
        ("next-header", header[6].to_string()),
    ];
    layers.push(Layer { name: "ipv6", fields });
    let (mut next, mut at) = (header[6], 40);
    // Hop-by-hop, routing, destination options; fragment; authentication (RFC 8200, section 4; RFC 4302).
    for _ in 0..8 {
        let length = match next {
            0 | 43 | 60 => usize::from(*packet.get(at + 1)?) * 8 + 8,
            44 if half(packet, at + 2)? & 0xfff8 != 0 => return Some((None, at)),
            44 => 8,
            51 => usize::from(*packet.get(at + 1)?) * 4 + 8,
            _ => break,
        };
        (next, at) = (*packet.get(at)?, at + length);
    }
    Some((Some(next), at))
}

fn tcp(segment: &[u8], layers: &mut Vec<Layer>) -> Option<()> {
    let header = segment.get(..20)?;
    let options = segment.get(20..usize::from(header[12] >> 4) * 4).unwrap_or_default();
    let flags = [(1, "FIN"), (2, "SYN"), (4, "RST"), (8, "PSH"), (16, "ACK"), (32, "URG"), (64, "ECE"), (128, "CWR")];
    let flags: Vec<_> = flags.iter().filter(|(bit, _)| header[13] & bit != 0).map(|(_, name)| *name).collect();
    let mut fields = vec![
        ("source", half(header, 0)?.to_string()),
        ("destination", half(header, 2)?.to_string()),
        ("flags", flags.join(" ")),
        ("checksum", hex(half(header, 16)?)),
    ];
    fields.extend(mss(options).map(|mss| ("mss", mss.to_string())));
    layers.push(Layer { name: "tcp", fields });
    Some(())
}

/// The maximum segment size among TCP options (RFC 9293, section 3.2).
fn mss(mut options: &[u8]) -> Option<u16> {
    loop {
        match options {
            [] | [0, ..] => return None,
            [1, rest @ ..] => options = rest,
            [2, 4, high, low, ..] => return Some(u16::from_be_bytes([*high, *low])),
            [_, length, ..] => options = options.get(usize::from(*length).max(2)..)?,
            [_] => return None,
        }
    }
}

fn icmp(message: &[u8], six: bool, tunnel_ports: &[u16], layers: &mut Vec<Layer>, depth: usize) -> Option<()> {
    let (kind, code) = (*message.first()?, *message.get(1)?);
    let mut fields = vec![("type", kind.to_string()), ("code", code.to_string()), ("checksum", hex(half(message, 2)?))];
    // What errors are about follows (RFC 792; RFC 4443, section 2.1).
    let error = if six { kind < 128 } else { matches!(kind, 3 | 4 | 5 | 11 | 12) };
    // Next-hop MTU (RFC 1191, section 4; RFC 4443, section 3.2).
    match (six, kind, code) {
        (false, 3, 4) => fields.push(("mtu", half(message, 6)?.to_string())),
        (true, 2, _) => fields.push(("mtu", u32::from_be_bytes(message.get(4..8)?.try_into().ok()?).to_string())),
        _ => {}
    }
    layers.push(Layer { name: if six { "icmpv6" } else { "icmp" }, fields });
    if !error {
        return Some(());
    }
    // Eight bytes of the transport header may be all there is: enough for ports.
    let inside = message.get(8..)?;
    let (next, at) = if six { ipv6(inside, layers)? } else { ipv4(inside, layers)? };
    let ports = inside.get(at..at + 4);
    if matches!(next, Some(6 | 17)) {
        let ports = ports?;
        let fields = vec![("source", half(ports, 0)?.to_string()), ("destination", half(ports, 2)?.to_string())];
        layers.push(Layer { name: "about", fields });
    } else if matches!(next, Some(4 | 41)) {
        return ip(inside.get(at..)?, next?, tunnel_ports, layers, depth + 1);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;

    fn tcp(payload: &[u8]) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 8])
            .ipv4([198, 51, 100, 7], [203, 0, 113, 20], 64)
            .tcp(40_000, 443, 1, 65_000)
            .syn()
            .options(&[etherparse::TcpOptionElement::MaximumSegmentSize(1460)])
            .unwrap();
        let mut frame = Vec::new();
        builder.write(&mut frame, payload).unwrap();
        frame
    }

    fn said(changes: &[Change]) -> Vec<String> {
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        changes.iter().map(|c| format!("{} {} {}", c.field, text(&c.before), text(&c.after))).collect()
    }

    #[test]
    fn what_changed_is_named_and_nothing_else() {
        let before = tcp(b"x");
        assert_eq!(changes(&before, &before, &[]), []);
        let mut after = before.clone();
        after[5] = 1;
        after[22] = 63;
        after[30..34].copy_from_slice(&[10, 20, 0, 10]);
        after[36..38].copy_from_slice(&8443u16.to_be_bytes());
        after[56..58].copy_from_slice(&1400u16.to_be_bytes());
        let wanted = [
            "ethernet.destination 02:00:00:00:00:08 02:00:00:00:00:01",
            "ipv4.destination 203.0.113.20 10.20.0.10",
            "ipv4.ttl 64 63",
            "tcp.destination 443 8443",
            "tcp.mss 1460 1400",
        ];
        assert_eq!(said(&changes(&before, &after, &[])), wanted);
    }

    #[test]
    fn headers_that_are_put_in_front_are_told_from_those_inside() {
        let before = tcp(b"x");
        let mut tagged = before[..12].to_vec();
        tagged.extend([0x81, 0, 0, 101]);
        tagged.extend(&before[12..]);
        assert_eq!(said(&changes(&before, &tagged, &[])), ["vlan.id - 101"]);
        // GUE: Ethernet, IPv4, UDP, four bytes, the packet.
        let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 8])
            .ipv4([10, 64, 0, 2], [10, 20, 0, 10], 64)
            .udp(51_000, 6080);
        let mut inside = vec![0, 4, 0, 0];
        inside.extend(&before[14..]);
        inside[4 + 8] = 63;
        let mut tunnel = Vec::new();
        builder.write(&mut tunnel, &inside).unwrap();
        let found = said(&changes(&before, &tunnel, &[6080]));
        for wanted in
            ["ipv4.destination - 10.20.0.10", "udp.destination - 6080", "gue.protocol - 4", "inner ipv4.ttl 64 63"]
        {
            assert!(found.iter().any(|change| change == wanted), "{wanted}: {found:?}");
        }
        assert!(found.iter().all(|change| !change.starts_with("inner tcp")), "{found:?}");
        // The other way round they are taken off.
        assert!(said(&changes(&tunnel, &before, &[6080])).contains(&"gue.protocol 4 -".to_owned()));
    }

    #[test]
    fn headers_are_whole_up_to_their_last_byte() {
        let frame = tcp(&[0; 100]);
        assert!(headers(&frame).whole && headers(&frame[..54]).whole);
        for cut in [0, 13, 33, 40, 53] {
            assert!(!headers(&frame[..cut]).whole, "{cut}");
        }
        let builder = PacketBuilder::ethernet2([2; 6], [2; 6]).ipv4([10, 0, 0, 1], [198, 51, 100, 7], 64);
        let builder = builder.icmpv4_raw(3, 4, [0, 0, 0x05, 0x78]);
        let mut error = Vec::new();
        builder.write(&mut error, &frame[14..14 + 28]).unwrap();
        assert!(headers(&error).whole);
        let fields = decode(&error, &[]).layers;
        let names: Vec<_> = fields.iter().map(|layer| layer.name).collect();
        assert_eq!(names, ["ethernet", "ipv4", "icmp", "ipv4", "about"]);
        assert!(fields[2].fields.contains(&("mtu", "1400".to_owned())));
        assert!(!headers(&error[..error.len() - 5]).whole);
    }
}
