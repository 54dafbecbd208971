//! ICMP errors: each goes where the flow goes that it is about, and what it quotes is what its receiver knows.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use burst_common::reason::Reason;
use burst_common::slot::{LOCAL, Slot};
use burst_tests::golden::{Leg, Row};
use burst_tests::packet::checksum::verify;
use burst_tests::packet::{Frame, icmp};
use burst_tests::topology::{CLIENT_DEVICE, CLIENTS, DX_DEVICE, FIRST_CLIENT, Family, Pair};

use super::tunnels::{self, Tunnel};
use super::{
    FROM_CLIENT, FROM_DX, Kind, RENAMED, arriving, bed, homeward, leaving, news_leg, promo_endpoint, promo_leg,
    replying,
};

/// A router on the way to the client.
const ROUTER: Pair = FIRST_CLIENT.plus(CLIENTS);
/// A router in the cloud.
const CLOUD_ROUTER: Pair = burst_tests::topology::DIRECT_CONNECT;
/// A card network's host: kept, whatever it says.
const CARDS: Pair = Pair {
    v4: std::net::Ipv4Addr::new(192, 0, 2, 200),
    v6: std::net::Ipv6Addr::new(0x2001, 0xdb8, 0xca, 0, 0, 0, 0, 0x200),
};

/// Type, code and word of the errors there are.
fn errors(family: Family) -> &'static [([u8; 2], [u8; 4])] {
    match family {
        Family::V4 => {
            &[([3, 1], [0; 4]), ([3, 4], [0, 0, 5, 0x14]), ([4, 0], [0; 4]), ([11, 0], [0; 4]), ([12, 0], [9, 0, 0, 0])]
        }
        Family::V6 => &[([1, 4], [0; 4]), ([2, 0], [0, 0, 5, 0]), ([3, 0], [0; 4]), ([4, 1], [0, 0, 0, 6])],
    }
}

/// An error about a packet: all of it quoted, or so many bytes behind its IP header.
fn error(kind: Kind, from: IpAddr, to: IpAddr, about: &Frame, behind: usize) -> Frame {
    let (head, word) = errors(kind.family)[0];
    let header = if kind.family == Family::V4 { 20 } else { 40 };
    icmp::error(from, to, head, word, &about.clone().build(), header + behind)
}

/// Packets that are quoted, and how much of each behind the IP header.
fn quotes(kind: Kind, from: SocketAddr, to: SocketAddr) -> Vec<(String, Frame, usize)> {
    let packet = kind.frame(from, to).ttl(17);
    // Ports; up to before, in, and behind a TCP checksum; with odd and even ends; all.
    let mut quotes: Vec<_> =
        [8, 16, 18, 20, 25, 1000].map(|behind| (format!("{behind} bytes"), packet.clone(), behind)).into();
    if kind.proto == 17 {
        let none = Frame::udp(from, to).no_udp_checksum().payload(b"none");
        quotes.push(("no checksum".to_owned(), none, 1000));
    }
    if kind.family == Family::V4 {
        quotes.push(("a first fragment".to_owned(), packet.clone().fragment(0, true), 1000));
        let options = packet.ip_options(&[148, 4, 0, 0]);
        quotes.push(("options".to_owned(), options, 1000));
    }
    quotes
}

#[test]
fn an_error_of_a_clients_goes_to_the_endpoint_about_its_own_packet() -> Result<()> {
    let mut bed = bed()?;
    for kind in Kind::ALL {
        let (promo, news) = (promo_leg(&bed, kind), news_leg(&bed));
        let router = ROUTER.of(kind.family);
        let services = [(kind.shop(443), kind.reserved(RENAMED), promo), (kind.news(), kind.news(), news)];
        for (service, becomes, leg) in services {
            // As the client's side had it, and as the endpoint sent it.
            let known = quotes(kind, service, kind.client());
            let sent = quotes(kind, becomes, kind.client());
            for ((name, about, behind), (_, own, _)) in known.into_iter().zip(sent) {
                let frame = arriving(error(kind, router, service.ip(), &about, behind));
                let out = leaving(error(kind, router, becomes.ip(), &own, behind));
                verify(&out)?;
                bed.check(FROM_CLIENT, &Row::leaves(kind.row(&name), frame, DX_DEVICE, leg, out))?;
            }
            for &(head, word) in errors(kind.family) {
                let packet = |from| kind.frame(from, kind.client()).build();
                let error = |service: SocketAddr| icmp::error(router, service.ip(), head, word, &packet(service), 576);
                let name = kind.row(&format!("type {}", head[0]));
                let (frame, out) = (arriving(error(service)), leaving(error(becomes)));
                bed.check(FROM_CLIENT, &Row::leaves(name, frame, DX_DEVICE, leg, out))?;
            }
        }
    }
    Ok(())
}

#[test]
fn an_error_of_the_clouds_goes_to_the_client_about_its_own_packet() -> Result<()> {
    let mut bed = bed()?;
    for kind in Kind::ALL {
        let promo = promo_leg(&bed, kind);
        let news = Leg { endpoint: None, ..news_leg(&bed) };
        let (router, client) = (CLOUD_ROUTER.of(kind.family), kind.client().ip());
        // Of dnat, the client knows no router behind the service.
        let services = [
            (kind.reserved(RENAMED), kind.shop(443), kind.shop(443).ip(), promo),
            (kind.news(), kind.news(), router, news),
        ];
        for (endpoint, service, sender, leg) in services {
            let known = quotes(kind, kind.client(), endpoint);
            let sent = quotes(kind, kind.client(), service);
            for ((name, about, behind), (_, own, _)) in known.into_iter().zip(sent) {
                let frame = replying(error(kind, router, client, &about, behind));
                let out = homeward(error(kind, sender, client, &own, behind));
                verify(&out)?;
                bed.check(FROM_DX, &Row::returns(kind.row(&name), frame, CLIENT_DEVICE, leg, out))?;
            }
            for &(head, word) in errors(kind.family) {
                let packet = |to| kind.frame(kind.client(), to).build();
                let error = |from, to| icmp::error(from, client, head, word, &packet(to), 576);
                let (frame, out) = (replying(error(router, endpoint)), homeward(error(sender, service)));
                let name = kind.row(&format!("type {}", head[0]));
                bed.check(FROM_DX, &Row::returns(name, frame, CLIENT_DEVICE, leg, out))?;
            }
        }
    }
    Ok(())
}

#[test]
fn an_error_about_a_flow_in_a_tunnel_travels_in_it() -> Result<()> {
    let mut bed = tunnels::bed()?;
    for tunnel in Tunnel::ALL {
        for kind in Kind::ALL {
            let leg = tunnel.leg(&bed);
            let port = tunnel.port(&mut bed, kind)?;
            let about = kind.frame(kind.shop(443), kind.client());
            let packet = || error(kind, ROUTER.of(kind.family), kind.shop(443).ip(), &about, 1000);
            let name = kind.row(&format!("{tunnel:?}"));
            // It is its flow's, and so takes its flow's way through the cloud.
            let out = tunnel.leaving(port, packet(), 0);
            bed.check(FROM_CLIENT, &Row::leaves(name.clone(), arriving(packet()), DX_DEVICE, leg, out))?;

            let about = kind.frame(kind.client(), kind.shop(443));
            let packet = || error(kind, kind.shop(443).ip(), kind.client().ip(), &about, 1000);
            let frame = tunnel.replying(packet(), 0);
            bed.check(FROM_DX, &Row::returns(name.clone(), frame, CLIENT_DEVICE, leg, homeward(packet())))?;
            let other = error(kind, CLOUD_ROUTER.of(kind.family), kind.client().ip(), &about, 1000);
            let row = Row::dropped(name, tunnel.replying(other, 0), leg.class, Reason::Spoofed);
            bed.check(FROM_DX, &row)?;
        }
    }
    Ok(())
}

#[test]
fn an_error_leaves_no_pin_and_follows_the_one_there_is() -> Result<()> {
    let mut bed = bed()?;
    for kind in Kind::ALL {
        let leg = promo_leg(&bed, kind);
        let away = promo_endpoint(&bed, "reserved", kind.family);
        let about = |from| kind.frame(from, kind.client());
        let router = ROUTER.of(kind.family);
        let frame = || arriving(error(kind, router, kind.shop(443).ip(), &about(kind.shop(443)), 1000));
        let out = leaving(error(kind, router, kind.reserved(RENAMED).ip(), &about(kind.reserved(RENAMED)), 1000));
        // No opener: it goes where its flow was before the slot moved.
        bed.fill("promo", Slot::stable(LOCAL).flip(away));
        bed.check(FROM_CLIENT, &Row::passes(kind.row("was local"), frame(), leg.class, Reason::Local))?;
        assert_eq!(bed.pins()?, [], "an error pins nothing");
        bed.fill("promo", Slot::stable(away).flip(LOCAL));
        let row = Row::leaves(kind.row("was away"), frame(), DX_DEVICE, leg, out);
        bed.check(FROM_CLIENT, &row)?;
        assert_eq!(bed.pins()?, [], "an error pins nothing");
        // A packet of the flow itself is pinned, and the error follows it.
        let packet = |to| kind.frame(kind.client(), to);
        let pinned = Row::leaves(
            kind.row("its flow"),
            arriving(packet(kind.shop(443))),
            DX_DEVICE,
            leg,
            leaving(packet(kind.reserved(RENAMED))),
        );
        bed.check(FROM_CLIENT, &pinned.notes(leg.class, burst_common::reason::Note::Pinned))?;
        let row = row.notes(leg.class, burst_common::reason::Note::PinHit);
        bed.check(FROM_CLIENT, &row)?;
        bed.unpin_all()?;
    }
    Ok(())
}

#[test]
fn what_is_kept_is_kept_outside_and_inside() -> Result<()> {
    let mut bed = bed()?;
    for kind in Kind::ALL {
        let promo = promo_leg(&bed, kind);
        news_leg(&bed);
        let payment = bed.class("payment");
        let (router, cards) = (ROUTER.of(kind.family), kind.at(CARDS, 40_000));
        let about = |service, client| kind.frame(service, client);
        let (shop, client) = (kind.shop(443), kind.client());
        let frame = arriving(error(kind, router, shop.ip(), &about(shop, cards), 1000));
        bed.check(FROM_CLIENT, &Row::passes(kind.row("to a card network"), frame, payment, Reason::Keep))?;
        let frame = arriving(error(kind, cards.ip(), shop.ip(), &about(shop, client), 1000));
        bed.check(FROM_CLIENT, &Row::passes(kind.row("from a card network"), frame, promo.class, Reason::Keep))?;
        if kind.proto == 6 {
            let kept = kind.shop(8845);
            let frame = arriving(error(kind, router, kept.ip(), &about(kept, client), 1000));
            bed.check(FROM_CLIENT, &Row::passes(kind.row("a kept port"), frame, payment, Reason::Keep))?;
            let frame = arriving(error(kind, router, kind.payment().ip(), &about(kind.payment(), client), 1000));
            bed.check(FROM_CLIENT, &Row::passes(kind.row("payment"), frame, payment, Reason::Keep))?;
        }
        let frame =
            replying(error(kind, CLOUD_ROUTER.of(kind.family), client.ip(), &about(client, kind.payment()), 1000));
        bed.check(FROM_DX, &Row::passes(kind.row("payment, from the cloud"), frame, 0, Reason::NotReturn))?;
        let out =
            leaving(error(kind, router, kind.reserved(RENAMED).ip(), &about(kind.reserved(RENAMED), client), 1000));
        let frame = arriving(error(kind, router, shop.ip(), &about(shop, client), 1000));
        bed.check(FROM_CLIENT, &Row::leaves(kind.row("its twin"), frame, DX_DEVICE, promo, out))?;
    }
    Ok(())
}

#[test]
fn what_is_not_understood_of_an_error_passes() -> Result<()> {
    let mut bed = bed()?;
    for kind in Kind::ALL {
        promo_leg(&bed, kind);
        let v4 = kind.family == Family::V4;
        let (router, shop, client) = (ROUTER.of(kind.family), kind.shop(443), kind.client());
        let about = kind.frame(shop, client);
        let whole = about.clone().build();
        let with = |head, quote: &[u8]| icmp::error(router, shop.ip(), head, [0; 4], quote, 576);
        let head = errors(kind.family)[0].0;
        let ping = Frame::other(shop.ip(), client.ip(), if v4 { 1 } else { 58 }).payload(&[8; 16]).build();
        let mut version = whole.clone();
        version[14] ^= 0x20;
        let mut rows = vec![
            ("about a ping", with(head, &ping), Reason::Protocol),
            ("a wrong version inside", with(head, &version), Reason::BadLength),
            (
                "to another than sent it",
                error(kind, router, shop.ip(), &kind.frame(kind.at(FIRST_CLIENT, 9), client), 99),
                Reason::Protocol,
            ),
            ("seven bytes of the segment", error(kind, router, shop.ip(), &about, 7), Reason::BadLength),
            ("no packet", error(kind, router, shop.ip(), &about, 0), Reason::BadLength),
        ];
        let queries: &[u8] =
            if v4 { &[0, 5, 8, 9, 10, 13, 14, 17, 40, 129] } else { &[0, 5, 100, 128, 129, 133, 135, 137] };
        for &query in queries {
            rows.push(("no error", with([query, 0], &whole), Reason::Protocol));
        }
        if v4 {
            let later = about.clone().fragment(7, false);
            rows.push(("about a later fragment", error(kind, router, shop.ip(), &later, 99), Reason::Fragment));
        } else {
            let extended = about.extension(60, &[1, 4, 0, 0, 0, 0]);
            rows.push(("about an extended packet", error(kind, router, shop.ip(), &extended, 99), Reason::Protocol));
        }
        for (name, frame, reason) in rows {
            bed.check(FROM_CLIENT, &Row::passes(kind.row(name), arriving(frame), 0, reason))?;
        }
        let unknown = error(kind, router, kind.shop(22).ip(), &kind.frame(kind.shop(22), client), 99);
        bed.check(FROM_CLIENT, &Row::passes(kind.row("no service"), arriving(unknown), 0, Reason::NoMatch))?;
        // From the cloud, about what no endpoint was sent.
        let unknown =
            error(kind, CLOUD_ROUTER.of(kind.family), client.ip(), &kind.frame(client, kind.reserved(22)), 99);
        bed.check(FROM_DX, &Row::passes(kind.row("no endpoint"), replying(unknown), 0, Reason::NotReturn))?;
    }
    Ok(())
}
