//! From a line: replies go home under the name the client knows, everything else is the kernel's.

use anyhow::Result;
use burst_common::reason::Reason;
use burst_tests::golden::{Entry, Leg, Row};
use burst_tests::packet::{Frame, flag};
use burst_tests::topology::{
    CLIENT_DEVICE, DIRECT_CONNECT_MAC, EDGE_DX, EDGE_DX_MAC, EDGE_ON_LINK, FIRST_ENDPOINT, Family, SECOND_EDGE_DX_MAC,
};

use super::{FROM_DX, Kind, NEWS, PLAIN_PORT, RENAMED, bed, both_beds, homeward, promo_endpoint, replying};

#[test]
fn dnat_replies_get_the_services_name_back() -> Result<()> {
    for mut bed in both_beds()? {
        for kind in Kind::ALL {
            let endpoint = promo_endpoint(&bed, "reserved", kind.family);
            let leg = Leg { class: bed.class("promo"), endpoint: Some(endpoint), link: Some(bed.link("dx-1")) };
            for (port, becomes) in [(RENAMED, 443), (8080, 80), (PLAIN_PORT, PLAIN_PORT)] {
                for length in [0, 1, 2, 11, 1400] {
                    let payload: Vec<u8> = (0..length).map(|n: u32| (n * 5 + 1) as u8).collect();
                    let packet = |from| kind.frame(from, kind.client()).payload(&payload).tos(0x03);
                    let frame = replying(packet(kind.reserved(port)));
                    let out = homeward(packet(kind.shop(becomes)));
                    let name = kind.row(&format!("port {port}, {length} bytes"));
                    bed.check(FROM_DX, &Row::returns(name, frame, CLIENT_DEVICE, leg, out))?;
                }
            }
        }
        for kind in Kind::tcp() {
            let endpoint = promo_endpoint(&bed, "elastic", kind.family);
            let leg = Leg { class: bed.class("promo"), endpoint: Some(endpoint), link: Some(bed.link("dx-1")) };
            for flags in [flag::SYN | flag::ACK, flag::RST, flag::SYN, flag::FIN | flag::ACK] {
                let packet = |from| Frame::tcp(from, kind.client(), flags);
                let (frame, out) = (replying(packet(kind.elastic(RENAMED))), homeward(packet(kind.shop(443))));
                let name = kind.row(&format!("whatever the flags ({flags:#04x})"));
                bed.check(FROM_DX, &Row::returns(name, frame, CLIENT_DEVICE, leg, out))?;
            }
        }
    }
    Ok(())
}

#[test]
fn a_udp_reply_without_a_checksum_gets_none() -> Result<()> {
    let mut bed = bed()?;
    for kind in Kind::ALL.into_iter().filter(|kind| kind.proto == 17) {
        let endpoint = promo_endpoint(&bed, "reserved", kind.family);
        let leg = Leg { class: bed.class("promo"), endpoint: Some(endpoint), link: Some(bed.link("dx-1")) };
        let packet = |from| Frame::udp(from, kind.client()).no_udp_checksum().payload(b"none");
        let (frame, out) = (replying(packet(kind.reserved(RENAMED))), homeward(packet(kind.shop(443))));
        bed.check(FROM_DX, &Row::returns(kind.row("no checksum"), frame, CLIENT_DEVICE, leg, out))?;
    }
    Ok(())
}

#[test]
fn nexthop_replies_are_forwarded_as_they_are() -> Result<()> {
    for mut bed in both_beds()? {
        let leg = Leg { class: bed.class("news"), endpoint: None, link: Some(bed.link("dx-1")) };
        for kind in Kind::ALL {
            let packet = || kind.frame(kind.news(), kind.client());
            let row = Row::returns(kind.row("news"), replying(packet()), CLIENT_DEVICE, leg, homeward(packet()));
            bed.check(FROM_DX, &row)?;
        }
    }
    Ok(())
}

#[test]
fn what_is_no_reply_is_not_touched() -> Result<()> {
    for mut bed in both_beds()? {
        for kind in Kind::ALL {
            let to = kind.client();
            for (name, from) in [
                ("an endpoint's other port", kind.reserved(22)),
                ("no endpoint", kind.at(FIRST_ENDPOINT.plus(2), RENAMED)),
                ("payment's address: kept classes do not come back over a line", kind.payment()),
                ("the shop's address: the class has no nexthop tier", kind.shop(443)),
                ("the news' other port", kind.at(NEWS, 80)),
            ] {
                let row = Row::passes(kind.row(name), replying(kind.frame(from, to)), 0, Reason::NotReturn);
                bed.check(FROM_DX, &row)?;
            }
        }
        // Ports are a protocol's own: promo has 8860 in TCP only.
        for family in Family::ALL {
            for (proto, returned) in [(6, true), (17, false)] {
                let kind = Kind { family, proto };
                let packet = |from| kind.frame(from, kind.client());
                let endpoint = promo_endpoint(&bed, "reserved", family);
                let leg = Leg { class: bed.class("promo"), endpoint: Some(endpoint), link: Some(bed.link("dx-1")) };
                let (frame, out) = (replying(packet(kind.reserved(8860))), homeward(packet(kind.shop(8860))));
                let row = if returned {
                    Row::returns(kind.row("port 8860"), frame, CLIENT_DEVICE, leg, out)
                } else {
                    Row::passes(kind.row("port 8860"), frame, 0, Reason::NotReturn)
                };
                bed.check(FROM_DX, &row)?;
            }
        }
    }
    Ok(())
}

#[test]
fn an_endpoint_does_not_speak_to_payment_under_a_services_name() -> Result<()> {
    for mut bed in both_beds()? {
        for kind in Kind::tcp() {
            let from = kind.reserved(RENAMED);
            let frame = replying(kind.frame(from, kind.payment()));
            bed.check(FROM_DX, &Row::passes(kind.row("to payment"), frame, 0, Reason::NotReturn))?;
            let frame = replying(kind.frame(kind.news(), kind.payment()));
            bed.check(FROM_DX, &Row::passes(kind.row("news to payment"), frame, 0, Reason::NotReturn))?;
            // The same client address is no service on another port: a reply goes there as to anybody.
            let elsewhere = std::net::SocketAddr::new(kind.payment().ip(), 40_000);
            let frame = replying(kind.frame(from, elsewhere));
            bed.check(FROM_DX, &Row::passes(kind.row("beside payment"), frame, 0, Reason::ToHost))?;
        }
    }
    Ok(())
}

#[test]
fn a_card_networks_client_gets_nothing_from_a_line() -> Result<()> {
    let mut bed = bed()?;
    let cards = burst_tests::topology::Pair {
        v4: std::net::Ipv4Addr::new(192, 0, 2, 200),
        v6: std::net::Ipv6Addr::new(0x2001, 0xdb8, 0xca, 0, 0, 0, 0, 2),
    };
    for kind in Kind::ALL {
        let frame = replying(kind.frame(kind.news(), kind.at(cards, 40_000)));
        bed.check(FROM_DX, &Row::passes(kind.row("news to a card network"), frame, 0, Reason::NotReturn))?;
    }
    Ok(())
}

#[test]
fn the_answer_to_a_probe_of_this_host_is_not_translated() -> Result<()> {
    let mut bed = bed()?;
    for kind in Kind::ALL {
        for (own, ttl) in [(EDGE_DX, 64), (EDGE_ON_LINK, 64), (EDGE_DX, 1)] {
            for from in [kind.reserved(RENAMED), kind.news()] {
                let frame = replying(kind.frame(from, kind.at(own, 33_000)).ttl(ttl));
                bed.check(FROM_DX, &Row::passes(kind.row("to this host"), frame, 0, Reason::ToHost))?;
            }
        }
    }
    Ok(())
}

#[test]
fn replies_are_counted_under_the_link_they_came_by_if_the_device_has_one() -> Result<()> {
    let mut bed = bed()?;
    let second = Entry { link: u32::from(bed.link("dx-2")), device: "dx1", ..FROM_DX };
    let several = Entry { link: 0, ..FROM_DX };
    for kind in Kind::ALL {
        let endpoint = promo_endpoint(&bed, "elastic", kind.family);
        for (entry, link, mac) in [(second, Some(bed.link("dx-2")), SECOND_EDGE_DX_MAC), (several, None, EDGE_DX_MAC)] {
            let leg = Leg { class: bed.class("promo"), endpoint: Some(endpoint), link };
            let packet = |from| kind.frame(from, kind.client());
            let frame = packet(kind.elastic(RENAMED)).macs(DIRECT_CONNECT_MAC, mac).build();
            let out = homeward(packet(kind.shop(443)));
            let row = Row::returns(kind.row("from the endpoint"), frame, CLIENT_DEVICE, leg, out);
            bed.check(entry, &row)?;
        }
    }
    Ok(())
}
