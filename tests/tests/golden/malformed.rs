//! What is not fully understood passes untouched. Every row has a twin of the same bytes but one matter, which leaves.

use anyhow::Result;
use burst_common::flow::TCP;
use burst_common::reason::Reason;
use burst_tests::golden::{Bed, Leg, Row};
use burst_tests::packet::{Frame, flag};
use burst_tests::topology::{DX_DEVICE, EDGE_CLIENT_MAC, EDGE_DX_MAC, FIRST_CLIENT, Family, SHOP};

use super::{FROM_CLIENT, FROM_DX, Kind, RENAMED, arriving, bed, leaving, news_leg, promo_leg, replying};

/// A frame that would leave but for what is done to it here, on its way in and on its way back.
fn passes(bed: &mut Bed, name: &str, frame: Vec<u8>, reason: Reason) -> Result<()> {
    for (entry, mac) in [(FROM_CLIENT, EDGE_CLIENT_MAC), (FROM_DX, EDGE_DX_MAC)] {
        // Addressed to the device, unless that is the very matter.
        let to_device = frame[..6] == EDGE_CLIENT_MAC || frame[..6] == EDGE_DX_MAC;
        let frame = if to_device { set(frame.clone(), 0, &mac) } else { frame.clone() };
        bed.check(entry, &Row::passes(name, frame, 0, reason))?;
    }
    Ok(())
}

/// The twin: untouched by the test, it leaves.
fn twin(bed: &mut Bed, kind: Kind) -> Result<Leg> {
    let leg = promo_leg(bed, kind);
    let frame = request(kind);
    let out = leaving(kind.frame(kind.client(), kind.reserved(RENAMED)));
    bed.check(FROM_CLIENT, &Row::leaves(kind.row("its twin leaves"), frame, DX_DEVICE, leg, out))?;
    Ok(leg)
}

fn request(kind: Kind) -> Vec<u8> {
    arriving(kind.frame(kind.client(), kind.shop(443)))
}

fn set(mut frame: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    frame
}

#[test]
fn frames_to_groups_and_of_other_protocols_pass() -> Result<()> {
    let mut bed = bed()?;
    for kind in Kind::ALL {
        twin(&mut bed, kind)?;
        let frame = request(kind);
        for mac in [[0xff; 6], [0x33, 0x33, 0, 0, 0, 1], [0x01, 0x00, 0x5e, 0, 0, 1]] {
            passes(&mut bed, &kind.row("group"), set(frame.clone(), 0, &mac), Reason::Group)?;
        }
        for mac in
            [[0x00, 0x00, 0x5e, 0x00, 0x53, 0x02], [0x00, 0x00, 0x5e, 0x00, 0x54, 0x01], [0x02, 0, 0x5e, 0, 0x53, 1]]
        {
            passes(&mut bed, &kind.row("for another host"), set(frame.clone(), 0, &mac), Reason::OtherHost)?;
        }
        // ARP, MPLS, PPPoE, LLDP, a length (IEEE 802.3), the other family's bytes under no known type.
        for ethertype in [0x0806_u16, 0x8847, 0x8864, 0x88cc, 0x05dc, 0x0801] {
            let name = kind.row(&format!("ethertype {ethertype:#06x}"));
            passes(&mut bed, &name, set(frame.clone(), 12, &ethertype.to_be_bytes()), Reason::NotIp)?;
        }
    }
    let mut arp = vec![0xff; 6];
    arp.extend([0, 0, 0x5e, 0, 0x53, 2, 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1, 0, 0, 0x5e, 0, 0x53, 2]);
    arp.extend([198, 51, 100, 10, 0, 0, 0, 0, 0, 0, 198, 51, 100, 1]);
    passes(&mut bed, "an ARP request", arp.clone(), Reason::Group)?;
    passes(&mut bed, "an ARP request to this host alone", set(arp, 0, &[0, 0, 0x5e, 0, 0x53, 1]), Reason::NotIp)
}

#[test]
fn frames_with_three_tags_pass() -> Result<()> {
    let mut bed = bed()?;
    for kind in Kind::ALL {
        twin(&mut bed, kind)?;
        // Two tags are understood, a third is not.
        let mut frame = arriving(kind.frame(kind.client(), kind.shop(443)).vlans(&[101, 7]));
        frame.splice(12..12, [0x88, 0xa8, 0, 5]);
        passes(&mut bed, &kind.row("three VLAN tags"), frame, Reason::Tagged)?;
    }
    Ok(())
}

#[test]
fn a_frame_cut_anywhere_passes() -> Result<()> {
    let mut bed = bed()?;
    for kind in Kind::ALL {
        twin(&mut bed, kind)?;
        news_leg(&bed);
        let header = if kind.family == Family::V4 { 20 } else { 40 };
        let reply = replying(kind.frame(kind.reserved(RENAMED), kind.client()));
        let news = arriving(kind.frame(kind.client(), kind.news()));
        for (entry, whole) in [(FROM_CLIENT, request(kind)), (FROM_CLIENT, news), (FROM_DX, reply)] {
            // 14 bytes is the least that the kernel takes.
            for length in 14..whole.len() {
                // The header promises more than is there: that is seen before a transport header is looked for.
                let reason = if length < 14 + header { Reason::Truncated } else { Reason::BadLength };
                let name = kind.row(&format!("{length} bytes of {}", whole.len()));
                bed.check(entry, &Row::passes(name, whole[..length].to_vec(), 0, reason))?;
            }
        }
    }
    Ok(())
}

#[test]
fn ipv4_headers_that_say_something_else_pass() -> Result<()> {
    let mut bed = bed()?;
    for kind in Kind::ALL.into_iter().filter(|kind| kind.family == Family::V4) {
        twin(&mut bed, kind)?;
        let frame = request(kind);
        for (first, reason) in [
            // What it takes for options is the transport header, ports first.
            (0x4f, Reason::BadLength),
            (0x44, Reason::BadLength),
            (0x40, Reason::BadLength),
            (0x55, Reason::BadLength),
            (0x65, Reason::BadLength),
            (0x05, Reason::BadLength),
        ] {
            let name = kind.row(&format!("version and length {first:#04x}"));
            passes(&mut bed, &name, set(frame.clone(), 14, &[first]), reason)?;
        }
        for (name, options, reason) in [
            ("loose source route", &[131, 7, 4, 10, 0, 0, 1, 0][..], Reason::SourceRoute),
            ("strict source route", &[137, 7, 4, 10, 0, 0, 1, 0], Reason::SourceRoute),
            ("an option of length 1", &[0x94, 1, 0, 0], Reason::Options),
            ("an option beyond the header", &[0x94, 5, 0, 0], Reason::Options),
            ("more options than are walked", &[1; 12], Reason::Options),
        ] {
            let frame = arriving(kind.frame(kind.client(), kind.shop(443)).ip_options(options));
            passes(&mut bed, &kind.row(name), frame, reason)?;
        }
        for (offset, more) in [(0, true), (1, true), (185, false), (8191, false)] {
            let frame = arriving(kind.frame(kind.client(), kind.shop(443)).fragment(offset, more));
            let name = kind.row(&format!("fragment at {offset}, more {more}"));
            passes(&mut bed, &name, frame, Reason::Fragment)?;
        }
        let header = 20 + if kind.proto == TCP { 20 } else { 8 };
        let whole = (frame.len() - 14) as u16;
        for length in [0, 19, 20, header - 1, whole + 1, 1500, u16::MAX] {
            let name = kind.row(&format!("total length {length} of {whole}"));
            passes(&mut bed, &name, set(frame.clone(), 16, &length.to_be_bytes()), Reason::BadLength)?;
        }
        // Whether fragments are allowed, and the bit that means nothing, say nothing of this packet.
        let leg = promo_leg(&bed, kind);
        let packet = |to| kind.frame(kind.client(), to).dont_fragment(false);
        let (frame, out) = (arriving(packet(kind.shop(443))), leaving(packet(kind.reserved(RENAMED))));
        bed.check(FROM_CLIENT, &Row::leaves(kind.row("may be fragmented"), frame, DX_DEVICE, leg, out))?;
    }
    Ok(())
}

#[test]
fn ipv6_headers_that_say_something_else_pass() -> Result<()> {
    let mut bed = bed()?;
    for kind in Kind::ALL.into_iter().filter(|kind| kind.family == Family::V6) {
        twin(&mut bed, kind)?;
        let frame = request(kind);
        for first in [0x40, 0x45, 0x50, 0x70, 0x00] {
            let name = kind.row(&format!("version {first:#04x}"));
            passes(&mut bed, &name, set(frame.clone(), 14, &[first]), Reason::BadLength)?;
        }
        let packet = || kind.frame(kind.client(), kind.shop(443));
        // Routing with segments left, authentication, mobility, HIP, shim6.
        for (number, reason) in [
            (43, Reason::SourceRoute),
            (51, Reason::Authenticated),
            (135, Reason::Extension),
            (139, Reason::Extension),
            (140, Reason::Extension),
        ] {
            let frame = arriving(packet().extension(number, &[1, 4, 0, 0, 0, 0]));
            passes(&mut bed, &kind.row(&format!("extension header {number}")), frame, reason)?;
        }
        let padding = [1, 4, 0, 0, 0, 0];
        let late = arriving(packet().extension(60, &padding).extension(0, &padding));
        passes(&mut bed, &kind.row("hop-by-hop options that are not the first"), late, Reason::Extension)?;
        let many = (0..7).fold(packet(), |packet, _| packet.extension(60, &padding));
        passes(&mut bed, &kind.row("more than are walked"), arriving(many), Reason::Extension)?;
        let two = arriving(packet().extension(0, &[1, 4, 0, 0, 0, 0]).fragment(0, true));
        passes(&mut bed, &kind.row("two of them"), two, Reason::Fragment)?;
        for (offset, more) in [(0, true), (185, false)] {
            let name = kind.row(&format!("fragment at {offset}, more {more}"));
            passes(&mut bed, &name, arriving(packet().fragment(offset, more)), Reason::Fragment)?;
        }
        let header = if kind.proto == TCP { 20 } else { 8 };
        let whole = (frame.len() - 54) as u16;
        // Zero would be a jumbogram (RFC 2675), whose length is in an extension header.
        for length in [0, header - 1, whole + 1, 1460, u16::MAX] {
            let name = kind.row(&format!("payload length {length} of {whole}"));
            passes(&mut bed, &name, set(frame.clone(), 18, &length.to_be_bytes()), Reason::BadLength)?;
        }
        // Traffic class and flow label are nobody's business.
        let leg = promo_leg(&bed, kind);
        let out = leaving(kind.frame(kind.client(), kind.reserved(RENAMED)));
        let label = [0x6a, 0xbc, 0xde, 0xf1];
        let row = Row::leaves(kind.row("flow label"), set(frame, 14, &label), DX_DEVICE, leg, set(out, 14, &label));
        bed.check(FROM_CLIENT, &row)?;
    }
    Ok(())
}

#[test]
fn protocols_other_than_tcp_and_udp_pass() -> Result<()> {
    let mut bed = bed()?;
    for kind in Kind::tcp() {
        twin(&mut bed, kind)?;
        let (from, to) = (FIRST_CLIENT.of(kind.family), SHOP.address.of(kind.family));
        // ICMP, IGMP, IPv4, DCCP, IPv6, GRE, ESP, ICMPv6, no next header, OSPF, SCTP, UDP-Lite, reserved.
        let icmp = if kind.family == Family::V4 { 1 } else { 58 };
        for protocol in [1, 2, 4, 33, 41, 47, 50, 58, 59, 89, 132, 136, 255] {
            // Behind it stand the bytes of a segment to the shop: they are not looked at.
            let segment = request(kind)[if kind.family == Family::V4 { 34 } else { 54 }..].to_vec();
            let frame = arriving(Frame::other(from, to, protocol).payload(&segment));
            passes(&mut bed, &kind.row(&format!("protocol {protocol}")), frame, Reason::Protocol)?;
            let empty = arriving(Frame::other(from, to, protocol));
            let reason = match (kind.family, protocol) {
                // A packet without a payload, or without room for the ICMP header.
                (Family::V6, _) => Reason::BadLength,
                (Family::V4, protocol) if protocol == icmp => Reason::BadLength,
                (Family::V4, _) => Reason::Protocol,
            };
            passes(&mut bed, &kind.row(&format!("protocol {protocol}, empty")), empty, reason)?;
        }
        // An error about the shop's own packet: it goes to the host that sent it, which is this one's backend.
        let inner = request(kind)[14..].to_vec();
        let (number, kind_of) = if kind.family == Family::V4 { (1, [3, 4]) } else { (58, [2, 0]) };
        let mut error = vec![kind_of[0], kind_of[1], 0, 0, 0, 0, 0x05, 0x14];
        error.extend(&inner);
        let frame = arriving(Frame::other(from, to, number).payload(&error));
        passes(&mut bed, &kind.row("an ICMP error"), frame, Reason::Protocol)?;
    }
    // Hop-by-hop options are an IPv6 header only: in IPv4 the number is just another protocol.
    let four = |number| Frame::other(FIRST_CLIENT.of(Family::V4), SHOP.address.of(Family::V4), number);
    for number in [0, 43, 44, 51, 60] {
        let frame = arriving(four(number).payload(&[0; 40]));
        passes(&mut bed, &format!("protocol {number} in IPv4"), frame, Reason::Protocol)?;
    }
    Ok(())
}

#[test]
fn transport_headers_that_contradict_the_packet_pass() -> Result<()> {
    let mut bed = bed()?;
    for kind in Kind::ALL {
        let leg = promo_leg(&bed, kind);
        let out = leaving(kind.frame(kind.client(), kind.reserved(RENAMED)));
        let transport = if kind.family == Family::V4 { 34 } else { 54 };
        let lies: &[(usize, Vec<u8>)] = if kind.proto == TCP {
            &[(12, vec![0x00]), (12, vec![0x40]), (12, vec![0xf0])]
        } else {
            &[(4, vec![0, 0]), (4, vec![0, 7]), (4, vec![0xff, 0xff])]
        };
        for (at, lie) in lies {
            let name = kind.row(&format!("{lie:02x?} at {at}"));
            passes(&mut bed, &name, set(request(kind), transport + at, lie), Reason::BadLength)?;
        }
        // A checksum that was wrong is as wrong as before, so that the receiver finds out.
        let at = transport + if kind.proto == TCP { 16 } else { 6 };
        let wrong = |frame: &[u8]| {
            let right = u16::from_be_bytes([frame[at], frame[at + 1]]);
            // One more in one's complement: no sum of these frames is near the ends of the range.
            assert!((1..0xfffe).contains(&right));
            set(frame.to_vec(), at, &(right + 1).to_be_bytes())
        };
        let row = Row::leaves(kind.row("a wrong checksum"), wrong(&request(kind)), DX_DEVICE, leg, wrong(&out));
        bed.check(FROM_CLIENT, &row)?;
    }
    Ok(())
}

#[test]
fn an_opener_that_is_not_understood_opens_nothing() -> Result<()> {
    let mut bed = bed()?;
    let kind = Kind { family: Family::V4, proto: TCP };
    promo_leg(&bed, kind);
    let syn = Frame::tcp(kind.client(), kind.shop(443), flag::SYN);
    let name = "a SYN in a fragment";
    passes(&mut bed, name, arriving(syn.clone().fragment(0, true)), Reason::Fragment)?;
    passes(&mut bed, "a source-routed SYN", arriving(syn.clone().ip_options(&[131, 3, 4, 0])), Reason::SourceRoute)?;
    let leg = promo_leg(&bed, kind);
    let out = leaving(Frame::tcp(kind.client(), kind.reserved(RENAMED), flag::SYN));
    bed.check(FROM_CLIENT, &Row::leaves("its twin", arriving(syn), DX_DEVICE, leg, out).opens())?;
    Ok(())
}
