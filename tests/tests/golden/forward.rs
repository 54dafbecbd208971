//! From a client: what stays, what leaves, and how it looks then.

use anyhow::Result;
use burst_common::flow::{TCP, UDP};
use burst_common::reason::Reason;
use burst_common::slot::{LOCAL, Slot};
use burst_tests::golden::Row;
use burst_tests::packet::{Frame, flag};
use burst_tests::topology::{DX_DEVICE, FIRST_CLIENT, Family, Pair};

use super::{FROM_CLIENT, Kind, PLAIN_PORT, RENAMED, arriving, bed, both_beds, leaving, news_leg, promo_leg};

/// A card network's host: payment, whatever it talks to. Among the large policy's longer prefixes, too.
const CARDS: Pair = Pair {
    v4: std::net::Ipv4Addr::new(192, 0, 2, 200),
    v6: std::net::Ipv6Addr::new(0x2001, 0xdb8, 0xca, 0, 0, 0, 0, 0x200),
};
/// Next to it, but not of its prefix.
const NO_CARDS: Pair = Pair {
    v4: std::net::Ipv4Addr::new(192, 0, 2, 127),
    v6: std::net::Ipv6Addr::new(0x2001, 0xdb8, 0xcb, 0, 0, 0, 0, 0x200),
};

#[test]
fn payment_stays_and_what_is_not_ours_is_not_touched() -> Result<()> {
    for mut bed in both_beds()? {
        let payment = bed.class("payment");
        for kind in Kind::ALL {
            let leg = promo_leg(&bed, kind);
            news_leg(&bed);
            let row = |name: &str, from, to, class, reason| {
                Row::passes(kind.row(name), arriving(kind.frame(from, to)), class, reason)
            };
            let client = kind.client();
            let cards = kind.at(CARDS, 40_000);
            let neighbour = kind.shop(22);
            let (reason, class) = if kind.proto == TCP { (Reason::Keep, payment) } else { (Reason::NoMatch, 0) };
            for row in [
                row("payment stays; its ports are TCP's", client, kind.payment(), class, reason),
                row(
                    "a card network's packet stays, whatever its port",
                    cards,
                    kind.at(CARDS.plus(1), 7),
                    payment,
                    Reason::Keep,
                ),
                row("a card network's packet to the shop stays", cards, kind.shop(443), payment, Reason::Keep),
                row("a card network's packet to the news stays", cards, kind.news(), payment, Reason::Keep),
                row("no class is asked for another port", client, neighbour, 0, Reason::NoMatch),
                row("nor for another host", client, kind.at(FIRST_CLIENT.plus(9), 443), 0, Reason::NoMatch),
                row("nor for a port below the range", client, kind.shop(8839), 0, Reason::NoMatch),
                row("nor for one above", client, kind.shop(8861), 0, Reason::NoMatch),
            ] {
                bed.check(FROM_CLIENT, &row)?;
            }
            let other = kind.at(NO_CARDS, 40_000);
            for (from, to) in [(other, kind.shop(443)), (client, kind.shop(443))] {
                let out = leaving(kind.frame(from, kind.reserved(RENAMED)));
                let row = Row::leaves(kind.row("its twin leaves"), arriving(kind.frame(from, to)), DX_DEVICE, leg, out);
                bed.check(FROM_CLIENT, &row)?;
            }
        }
    }
    Ok(())
}

#[test]
fn keep_wins_where_a_burst_rule_overlaps_it() -> Result<()> {
    for mut bed in both_beds()? {
        let payment = bed.class("payment");
        for kind in Kind::tcp() {
            let leg = promo_leg(&bed, kind);
            for (port, kept) in [(8840, true), (8849, true), (8850, false), (8860, false)] {
                let (from, to) = (kind.client(), kind.shop(port));
                let frame = arriving(kind.opener(from, to));
                let name = kind.row(&format!("port {port}"));
                let row = if kept {
                    Row::passes(name, frame, payment, Reason::Keep)
                } else {
                    let out = leaving(kind.opener(from, kind.reserved(port)));
                    Row::leaves(name, frame, DX_DEVICE, leg, out)
                };
                bed.check(FROM_CLIENT, &row.opens())?;
            }
        }
    }
    Ok(())
}

#[test]
fn what_a_slot_says_is_local_goes_on_untouched() -> Result<()> {
    let mut bed = bed()?;
    for kind in Kind::ALL {
        for (class, to) in [("promo", kind.shop(443)), ("news", kind.news())] {
            bed.fill(class, Slot::stable(LOCAL));
            let frame = arriving(kind.frame(kind.client(), to));
            bed.check(FROM_CLIENT, &Row::passes(kind.row(class), frame, bed.class(class), Reason::Local))?;
        }
    }
    for kind in Kind::tcp() {
        let frame = arriving(kind.opener(kind.client(), kind.shop(80)));
        bed.check(FROM_CLIENT, &Row::passes(kind.row("opener"), frame, bed.class("promo"), Reason::Local).opens())?;
    }
    Ok(())
}

#[test]
fn nexthop_changes_macs_and_ttl_and_nothing_else() -> Result<()> {
    for mut bed in both_beds()? {
        let leg = news_leg(&bed);
        for kind in Kind::ALL {
            let packet = kind.frame(kind.client(), kind.news()).tos(0xb9);
            let (frame, out) = (arriving(packet.clone()), leaving(packet));
            bed.check(FROM_CLIENT, &Row::leaves(kind.row("nexthop"), frame, DX_DEVICE, leg, out))?;
        }
        for kind in Kind::tcp() {
            let packet = kind.opener(kind.client(), kind.news());
            let (frame, out) = (arriving(packet.clone()), leaving(packet));
            bed.check(FROM_CLIENT, &Row::leaves(kind.row("opener"), frame, DX_DEVICE, leg, out).opens())?;
        }
    }
    Ok(())
}

#[test]
fn dnat_changes_the_destination_and_renames_the_ports_that_are_named() -> Result<()> {
    for mut bed in both_beds()? {
        for kind in Kind::ALL {
            let leg = promo_leg(&bed, kind);
            for (port, becomes) in [(443, RENAMED), (80, 8080), (PLAIN_PORT, PLAIN_PORT)] {
                // Lengths odd and even, none and many: the last byte of a sum stands alone or not.
                for length in [0, 1, 2, 3, 11, 64, 1001, 1400] {
                    let payload: Vec<u8> = (0..length).map(|n: u32| (n * 7 + 3) as u8).collect();
                    let packet = |to| kind.frame(kind.client(), to).payload(&payload).tos(0x02);
                    let frame = arriving(packet(kind.shop(port)));
                    let out = leaving(packet(kind.reserved(becomes)));
                    let name = kind.row(&format!("port {port}, {length} bytes"));
                    bed.check(FROM_CLIENT, &Row::leaves(name, frame, DX_DEVICE, leg, out))?;
                }
            }
        }
    }
    Ok(())
}

#[test]
fn openers_are_counted_and_a_syn_ack_passes() -> Result<()> {
    let mut bed = bed()?;
    for kind in Kind::tcp() {
        let leg = promo_leg(&bed, kind);
        let (from, to) = (kind.client(), kind.shop(443));
        let with = |to, flags| Frame::tcp(from, to, flags);
        for (name, flags, opens) in [
            ("SYN", flag::SYN, true),
            ("SYN with more flags", flag::SYN | flag::PSH, true),
            ("ACK", flag::ACK, false),
            ("FIN and ACK", flag::FIN | flag::ACK, false),
            ("RST", flag::RST, false),
            ("no flag", 0, false),
        ] {
            let out = leaving(with(kind.reserved(RENAMED), flags));
            let row = Row::leaves(kind.row(name), arriving(with(to, flags)), DX_DEVICE, leg, out);
            bed.check(FROM_CLIENT, &if opens { row.opens() } else { row })?;
        }
        let answer = arriving(with(to, flag::SYN | flag::ACK));
        let row = Row::passes(kind.row("it answers what the service opened"), answer, leg.class, Reason::SynAck);
        bed.check(FROM_CLIENT, &row)?;
        let frame = arriving(kind.opener(from, kind.payment()));
        let row = Row::passes(kind.row("payment's openers"), frame, bed.class("payment"), Reason::Keep);
        bed.check(FROM_CLIENT, &row.opens())?;
        let frame = arriving(kind.opener(from, kind.at(FIRST_CLIENT, 1)));
        let row = Row::passes(kind.row("openers of no class are not told apart"), frame, 0, Reason::NoMatch);
        bed.check(FROM_CLIENT, &row)?;
    }
    Ok(())
}

#[test]
fn a_udp_checksum_of_zero_stays_zero() -> Result<()> {
    let mut bed = bed()?;
    for family in Family::ALL {
        let kind = Kind { family, proto: UDP };
        let leg = promo_leg(&bed, kind);
        let packet = |to| Frame::udp(kind.client(), to).no_udp_checksum().payload(b"none was computed");
        let (frame, out) = (arriving(packet(kind.shop(443))), leaving(packet(kind.reserved(RENAMED))));
        bed.check(FROM_CLIENT, &Row::leaves(kind.row("no checksum"), frame, DX_DEVICE, leg, out))?;
    }
    Ok(())
}

#[test]
fn a_checksum_computed_as_zero_is_all_ones_in_udp_and_zero_in_tcp() -> Result<()> {
    let mut bed = bed()?;
    for kind in Kind::ALL {
        let leg = promo_leg(&bed, kind);
        let packet = |to, word: u16| kind.frame(kind.client(), to).payload(&word.to_be_bytes());
        // One word of payload moves the sum through all its values.
        let (at, wanted) = if kind.proto == UDP { (6, 0xffff_u16) } else { (16, 0) };
        let transport = if kind.family == Family::V4 { 34 } else { 54 };
        let out = |word| leaving(packet(kind.reserved(RENAMED), word));
        let sum = |frame: &[u8]| u16::from_be_bytes([frame[transport + at], frame[transport + at + 1]]);
        let word = (0..=u16::MAX).find(|&word| sum(&out(word)) == wanted);
        let word = word.expect("one of all sums is that one");
        let frame = arriving(packet(kind.shop(443), word));
        assert!(![0, 0xffff].contains(&sum(&frame)), "it is the rewrite that makes it so");
        let row = Row::leaves(kind.row("a computed zero"), frame, DX_DEVICE, leg, out(word));
        bed.check(FROM_CLIENT, &row)?;
    }
    Ok(())
}

#[test]
fn replies_of_the_services_own_hosts_are_not_ours_on_the_client_side() -> Result<()> {
    let mut bed = bed()?;
    for kind in Kind::ALL {
        promo_leg(&bed, kind);
        for from in [kind.shop(443), kind.reserved(RENAMED), kind.news()] {
            let frame = arriving(kind.frame(from, kind.client()));
            bed.check(FROM_CLIENT, &Row::passes(kind.row("not a return"), frame, 0, Reason::NoMatch))?;
        }
    }
    Ok(())
}
