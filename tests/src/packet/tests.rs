//! The builder against bytes written by hand, checksums added up by hand, and the verifier against every single
//! altered byte.

use std::net::{IpAddr, SocketAddr};

use super::checksum::{layout, sum, verify};
use super::diff::{assert_same, diff};
use super::{Frame, flag};

const CLIENT4: &str = "198.51.100.10:40000";
const SHOP4: &str = "203.0.113.20:80";
const CLIENT6: &str = "[2001:db8:51::10]:40000";
const SHOP6: &str = "[2001:db8:113::20]:80";

fn at(text: &str) -> SocketAddr {
    text.parse().expect("a socket address")
}

fn ip(text: &str) -> IpAddr {
    at(text).ip()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: String = hex.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex")).collect()
}

#[test]
fn a_syn_is_what_the_rfcs_say() {
    // The words that each checksum covers, as they stand on the wire: the IPv4 header; addresses, protocol, length
    // and segment.
    let header = [0x4500, 0x002c, 0x1234, 0x4000, 0x4006, 0xc633, 0x640a, 0xcb00, 0x7114];
    let segment = [
        0xc633, 0x640a, 0xcb00, 0x7114, 0x0006, 0x0018, 0x9c40, 0x0050, 0x1000, 0x0001, 0x6002, 0xfde8, 0x0204, 0x05b4,
    ];
    let fold = |words: &[u32]| {
        let total: u32 = words.iter().sum();
        !(((total & 0xffff) + (total >> 16)) as u16)
    };
    let text = format!(
        "00005e005301 00005e005302 0800
         4500 002c 1234 4000 4006 {:04x} c633640a cb007114
         9c40 0050 10000001 00000000 6002 fde8 {:04x} 0000 020405b4",
        fold(&header),
        fold(&segment),
    );
    assert_same("SYN", &bytes(&text), &Frame::tcp(at(CLIENT4), at(SHOP4), flag::SYN).mss(1460).build());
}

#[test]
fn a_tagged_datagram_is_what_the_rfcs_say() {
    let built = Frame::udp(at(CLIENT6), at(SHOP6)).vlans(&[101, 7]).ttl(9).tos(0xb9).payload(b"odd").build();
    let expected = "00005e005301 00005e005302 88a8 0065 8100 0007 86dd
        6b900000 000b 11 09 20010db800510000 0000000000000010 20010db801130000 0000000000000020
        9c40 0050 000b 0000 6f6464";
    let mut expected = bytes(expected);
    let checksum = {
        let segment = &expected[62..];
        !sum(&[&expected[30..62], &[0, 11, 0, 17], segment])
    };
    expected[68..70].copy_from_slice(&checksum.to_be_bytes());
    assert_same("UDP", &expected, &built);
}

#[test]
fn the_sum_is_that_of_rfc_1071() {
    // The example of section 3: the sum is ddf2.
    assert_eq!(sum(&[&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]]), 0xddf2);
    assert_eq!(sum(&[&[0xff, 0xff], &[0x01]]), 0x0100, "an odd byte is a high one; the carry comes round");
}

fn samples() -> Vec<(&'static str, Frame)> {
    let mut all = Vec::new();
    for (name, client, shop) in [("IPv4", CLIENT4, SHOP4), ("IPv6", CLIENT6, SHOP6)] {
        let [tcp, udp] = [Frame::tcp(at(client), at(shop), flag::ACK | flag::PSH), Frame::udp(at(client), at(shop))];
        all.push((name, tcp.clone()));
        all.push((name, tcp.clone().payload(b"GET / HTTP/1.1\r\n\r\n")));
        all.push((name, tcp.clone().vlans(&[101]).tcp_options(&[1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8])));
        all.push((name, udp.clone()));
        all.push((name, udp.payload(&[0xa5; 1201])));
    }
    all.push(("IPv4 with options", Frame::tcp(at(CLIENT4), at(SHOP4), flag::SYN).ip_options(&[1, 1, 1, 0])));
    let extended = Frame::tcp(at(CLIENT6), at(SHOP6), flag::SYN);
    all.push((
        "IPv6, extended",
        extended.extension(0, &[1, 4, 0, 0, 0, 0]).extension(60, &[1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ));
    all
}

#[test]
fn every_frame_verifies_and_with_any_altered_byte_does_not() {
    for (name, frame) in samples() {
        let good = frame.build();
        verify(&good).unwrap_or_else(|error| panic!("{name}: {error}\n{frame:?}"));
        let found = layout(&good).expect("a frame");
        // What no checksum of the frame covers: in IPv6, all but addresses and payload length. (Another "next header" makes
        // it a packet of another protocol, whose checksum is unknown.)
        let uncovered = |position: usize| {
            let in_header = position.wrapping_sub(found.network);
            good[found.network] >> 4 == 6 && (in_header < 4 || matches!(in_header, 6 | 7))
                || good[found.network] >> 4 == 6 && position >= found.network + 40 && position < found.transport
        };
        for position in (found.network..found.end).filter(|position| !uncovered(*position)) {
            let mut altered = good.clone();
            altered[position] ^= 0x04;
            assert!(verify(&altered).is_err(), "{name}: byte {position} may be altered unseen\n{frame:?}");
        }
    }
}

#[test]
fn a_datagram_without_checksum_passes_only_in_ipv4() {
    let built = Frame::udp(at(CLIENT4), at(SHOP4)).no_udp_checksum().build();
    assert_eq!(built[40..42], [0, 0]);
    assert!(verify(&built).is_ok());
    let built = Frame::udp(at(CLIENT6), at(SHOP6)).no_udp_checksum().build();
    assert!(verify(&built).is_err_and(|error| error.to_string().contains("forbids")));
}

#[test]
fn a_computed_udp_checksum_of_zero_becomes_ffff() {
    let frame = |value: u16| Frame::udp(at(CLIENT4), at(SHOP4)).payload(&value.to_be_bytes());
    let checksum = |value| frame(value).build()[40..42].to_vec();
    // The payload that brings the sum to ffff is the complement of the sum without it.
    let without = u16::from_be_bytes(checksum(0).try_into().expect("two bytes"));
    assert_eq!(checksum(without), [0xff, 0xff]);
    assert!(verify(&frame(without).build()).is_ok());
}

#[test]
fn fragments_are_fragments() {
    let first = Frame::udp(at(CLIENT4), at(SHOP4)).fragment(0, true).payload(&[1; 64]).build();
    assert_eq!(first[20..22], [0x20, 0x00]);
    let later = Frame::other(ip(CLIENT4), ip(SHOP4), 17).fragment(9, false).payload(&[1; 64]).build();
    assert_eq!(later[20..22], [0x00, 0x09]);
    let six = Frame::udp(at(CLIENT6), at(SHOP6)).fragment(9, true).payload(&[1; 64]).build();
    assert_eq!(six[20], 44, "the header says that a fragment header follows");
    assert_eq!(six[54..62], [17, 0, 0x00, 0x49, 0, 0, 0x12, 0x34]);
    for frame in [first, later, six] {
        assert!(layout(&frame).expect("a frame").fragment);
        assert!(verify(&frame).is_ok(), "the header's checksum is right, the other cannot be verified");
    }
}

#[test]
fn a_difference_is_named_by_field_and_marked_in_the_bytes() {
    let sent = Frame::tcp(at(CLIENT4), at(SHOP4), flag::SYN).build();
    assert_eq!(diff(&sent, &sent), None);
    let shifted = Frame::tcp(at(CLIENT4), at("10.20.0.10:8080"), flag::SYN).ttl(63).build();
    let text = diff(&sent, &shifted).expect("they differ");
    for line in [
        "TTL: expected 64, found 63",
        "destination: expected 203.0.113.20, found 10.20.0.10",
        "destination port: expected 80 (0x0050), found 8080 (0x1f90)",
        "IPv4 checksum: ",
        "TCP checksum: ",
        "0010 expected  00 28 12 34 40 00 40 06 ",
        "               ^^",
    ] {
        let found = text.contains(line) || (line.trim() == "^^" && text.lines().any(|line| line.contains("^^")));
        assert!(found, "{line:?} is not in\n{text}");
    }
    assert!(!text.contains("source"), "the source is the same\n{text}");
    let cut = diff(&sent, &sent[..50]).expect("they differ");
    assert!(cut.contains("length: expected 54, found 50") && cut.contains("TCP checksum: expected"), "{cut}");
    assert!(cut.contains("found nothing"), "{cut}");
}
