//! Two frames compared for a reader: which fields differ, then the bytes.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::checksum::{Layout, layout};

/// Bytes in a line of the dump.
const LINE: usize = 16;

/// A field of a frame.
struct Field {
    name: &'static str,
    start: usize,
    length: usize,
}

/// Says where two frames differ, by field and by byte; `None` when they are equal.
#[must_use]
pub fn diff(expected: &[u8], found: &[u8]) -> Option<String> {
    if expected == found {
        return None;
    }
    let mut text = String::new();
    if expected.len() != found.len() {
        let _ = writeln!(text, "length: expected {}, found {}", expected.len(), found.len());
    }
    // Fields are named by the expected frame's layout.
    for Field { name, start, length } in fields(expected) {
        let part = |frame: &[u8]| frame.get(start..start + length).map(<[u8]>::to_vec);
        let (wanted, got) = (part(expected), part(found));
        if wanted != got {
            let _ = writeln!(text, "{name}: expected {}, found {}", value(wanted), value(got));
        }
    }
    for start in (0..expected.len().max(found.len())).step_by(LINE) {
        let line =
            |frame: &[u8]| frame.get(start..).map(|rest| rest[..rest.len().min(LINE)].to_vec()).unwrap_or_default();
        let (wanted, got) = (line(expected), line(found));
        if wanted == got {
            continue;
        }
        let marks: String = (0..wanted.len().max(got.len()))
            .map(|index| if wanted.get(index) == got.get(index) { "   " } else { "^^ " })
            .collect();
        let _ = writeln!(text, "{start:04x} expected  {}", hex(&wanted));
        let _ = writeln!(text, "{start:04x} found     {}", hex(&got));
        let _ = writeln!(text, "               {}", marks.trim_end());
    }
    Some(text)
}

/// Panics with the differences unless the frames are equal.
///
/// # Panics
/// When they differ: `name` says of which row.
#[track_caller]
pub fn assert_same(name: &str, expected: &[u8], found: &[u8]) {
    if let Some(text) = diff(expected, found) {
        panic!("{name}: the frame is not as expected\n{text}");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

fn value(bytes: Option<Vec<u8>>) -> String {
    let Some(bytes) = bytes else { return "nothing".to_owned() };
    match bytes[..] {
        [byte] => byte.to_string(),
        [high, low] => {
            let number = u16::from_be_bytes([high, low]);
            format!("{number} ({number:#06x})")
        }
        [a, b, c, d] => Ipv4Addr::new(a, b, c, d).to_string(),
        _ => match <[u8; 16]>::try_from(&bytes[..]) {
            Ok(address) => Ipv6Addr::from(address).to_string(),
            Err(_) if bytes.len() == 6 => hex(&bytes).replace(' ', ":"),
            Err(_) => hex(&bytes),
        },
    }
}

/// The fields of a frame, as far as it is understood.
fn fields(frame: &[u8]) -> Vec<Field> {
    let mut all = vec![
        Field { name: "destination MAC", start: 0, length: 6 },
        Field { name: "source MAC", start: 6, length: 6 },
        Field { name: "ethertype", start: 12, length: 2 },
    ];
    let mut add = |base: usize, list: &[(&'static str, usize, usize)]| {
        all.extend(list.iter().map(|(name, offset, length)| Field { name, start: base + offset, length: *length }));
    };
    let Ok(Layout { network, transport, protocol, .. }) = layout(frame) else { return all };
    for tag in (14..network).step_by(4) {
        add(tag, &[("VLAN tag", 0, 2), ("ethertype after the tag", 2, 2)]);
    }
    if frame[network] >> 4 == 4 {
        let list = [
            ("IPv4 version and length", 0, 1),
            ("TOS", 1, 1),
            ("total length", 2, 2),
            ("identification", 4, 2),
            ("fragment", 6, 2),
            ("TTL", 8, 1),
            ("protocol", 9, 1),
            ("IPv4 checksum", 10, 2),
            ("source", 12, 4),
            ("destination", 16, 4),
        ];
        add(network, &list);
    } else {
        let list = [
            ("payload length", 4, 2),
            ("next header", 6, 1),
            ("hop limit", 7, 1),
            ("source", 8, 16),
            ("destination", 24, 16),
        ];
        add(network, &list);
    }
    match protocol {
        6 => add(
            transport,
            &[("source port", 0, 2), ("destination port", 2, 2), ("TCP flags", 13, 1), ("TCP checksum", 16, 2)],
        ),
        17 => add(
            transport,
            &[("source port", 0, 2), ("destination port", 2, 2), ("UDP length", 4, 2), ("UDP checksum", 6, 2)],
        ),
        _ => {}
    }
    all
}
