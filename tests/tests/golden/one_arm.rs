//! The same program told otherwise: one device for clients and a line, shadow mode, bypass.

use anyhow::Result;
use burst_common::policy::{ROLE_CLIENT, ROLE_LINK};
use burst_common::reason::Reason;
use burst_common::slot::{LOCAL, Slot, State};
use burst_tests::golden::{Bed, Entry, Leg, Row, key};
use burst_tests::topology::{CLIENT_DEVICE, CLIENT_MAC, DX_DEVICE, EDGE_CLIENT_MAC, FIRST_CLIENT};

use super::{
    CONFIG, FROM_CLIENT, FROM_DX, Kind, RENAMED, arriving, bed, homeward, leaving, news_leg, promo_endpoint, promo_leg,
    replying,
};

#[test]
fn on_one_arm_the_source_tells_the_direction() -> Result<()> {
    let mut bed = bed()?;
    // The line's router is on the clients' device, too.
    let link = bed.link("dx-1");
    let mut row = bed.maps().link(link);
    row.macs = burst_common::link::Link::macs([0x00, 0x00, 0x5e, 0x00, 0x53, 0x77], EDGE_CLIENT_MAC);
    row.ifindex = bed.ifindex(CLIENT_DEVICE);
    bed.maps().set_link(link, &row);
    let entry = Entry { device: CLIENT_DEVICE, role: ROLE_CLIENT | ROLE_LINK, link: u32::from(link) };
    let away = |frame: burst_tests::packet::Frame| {
        frame.macs(EDGE_CLIENT_MAC, [0x00, 0x00, 0x5e, 0x00, 0x53, 0x77]).ttl(63).build()
    };
    for kind in Kind::ALL {
        let (promo, news) = (promo_leg(&bed, kind), news_leg(&bed));
        let packet = |from, to| kind.frame(from, to);
        let client = kind.client();
        let from_line = |frame: burst_tests::packet::Frame| {
            frame.macs([0x00, 0x00, 0x5e, 0x00, 0x53, 0x77], EDGE_CLIENT_MAC).build()
        };
        let payment = if kind.proto == 6 { (bed.class("payment"), Reason::Keep) } else { (0, Reason::NoMatch) };
        for row in [
            Row::leaves(
                kind.row("to the shop"),
                arriving(packet(client, kind.shop(443))),
                CLIENT_DEVICE,
                promo,
                away(packet(client, kind.reserved(RENAMED))),
            ),
            Row::leaves(
                kind.row("to the news"),
                arriving(packet(client, kind.news())),
                CLIENT_DEVICE,
                news,
                away(packet(client, kind.news())),
            ),
            Row::returns(
                kind.row("from the shop's endpoint"),
                from_line(packet(kind.reserved(RENAMED), client)),
                CLIENT_DEVICE,
                promo,
                homeward(packet(kind.shop(443), client)),
            ),
            Row::returns(
                kind.row("from the news"),
                from_line(packet(kind.news(), client)),
                CLIENT_DEVICE,
                Leg { endpoint: None, ..news },
                homeward(packet(kind.news(), client)),
            ),
            Row::passes(kind.row("payment"), arriving(packet(client, kind.payment())), payment.0, payment.1),
            Row::passes(kind.row("from another"), from_line(packet(kind.reserved(22), client)), 0, Reason::NoMatch),
            Row::passes(
                kind.row("a probe's answer"),
                from_line(packet(kind.reserved(RENAMED), kind.at(burst_tests::topology::EDGE_ON_LINK, 9))),
                0,
                Reason::ToHost,
            ),
        ] {
            bed.check(entry, &row)?;
        }
        bed.fill("promo", Slot::stable(LOCAL));
        let frame = arriving(packet(client, kind.shop(443)));
        bed.check(entry, &Row::passes(kind.row("to the shop, local"), frame, promo.class, Reason::Local))?;
    }
    Ok(())
}

#[test]
fn an_endpoint_that_is_a_client_itself_is_answered_not_shifted_again() -> Result<()> {
    let mut bed = bed()?;
    let entry = Entry { device: DX_DEVICE, role: ROLE_CLIENT | ROLE_LINK, link: u32::from(bed.link("dx-1")) };
    for kind in Kind::ALL {
        let promo = promo_leg(&bed, kind);
        // From the endpoint's own port to the shop: a reply by its source, and to nobody's client.
        bed.neighbour(FIRST_CLIENT.of(kind.family), CLIENT_DEVICE, CLIENT_MAC)?;
        let packet = |from| kind.frame(from, kind.client());
        let (frame, out) = (replying(packet(kind.reserved(RENAMED))), homeward(packet(kind.shop(443))));
        bed.check(entry, &Row::returns(kind.row("reply"), frame, CLIENT_DEVICE, promo, out))?;
        // The same host as a client of the shop, from another port: a packet from a client like any other.
        let packet = |to| kind.frame(kind.reserved(50_000), to);
        let (frame, out) = (replying(packet(kind.shop(443))), leaving(packet(kind.reserved(RENAMED))));
        bed.check(entry, &Row::leaves(kind.row("request"), frame, DX_DEVICE, promo, out))?;
    }
    Ok(())
}

#[test]
fn in_shadow_mode_everything_is_counted_and_nothing_touched() -> Result<()> {
    let mut active = bed()?;
    let mut shadow = Bed::new(&CONFIG.replace("\"active\"", "\"shadow\""))?;
    for kind in Kind::ALL {
        for (class, to, as_sent) in
            [("promo", kind.shop(443), kind.reserved(RENAMED)), ("news", kind.news(), kind.news())]
        {
            let packet = |to| kind.frame(kind.client(), to);
            let leg = if class == "promo" { promo_leg(&active, kind) } else { news_leg(&active) };
            let row = Row::leaves(
                kind.row("its twin leaves"),
                arriving(packet(to)),
                DX_DEVICE,
                leg,
                leaving(packet(as_sent)),
            );
            active.check(FROM_CLIENT, &row)?;
            if class == "promo" {
                promo_leg(&shadow, kind)
            } else {
                news_leg(&shadow)
            };
            let row = Row::passes(kind.row("shadow"), arriving(packet(to)), leg.class, Reason::Shadow);
            shadow.check(FROM_CLIENT, &row)?;
            let row = Row::passes(kind.row("TTL"), arriving(packet(to).ttl(1)), leg.class, Reason::TtlExpired);
            shadow.check(FROM_CLIENT, &row)?;
            let row = Row::passes(kind.row("local"), arriving(packet(to)), leg.class, Reason::Local);
            shadow.fill(class, Slot::stable(LOCAL));
            shadow.check(FROM_CLIENT, &row)?;
        }
    }
    for kind in Kind::tcp() {
        let leg = promo_leg(&shadow, kind);
        let frame = arriving(kind.opener(kind.client(), kind.shop(443)));
        shadow.check(FROM_CLIENT, &Row::passes(kind.row("opener"), frame, leg.class, Reason::Shadow).opens())?;
        let frame = arriving(kind.opener(kind.client(), kind.payment()));
        let row = Row::passes(kind.row("payment"), frame, shadow.class("payment"), Reason::Keep);
        shadow.check(FROM_CLIENT, &row.opens())?;
    }
    Ok(())
}

#[test]
fn with_bypass_on_everything_passes_and_no_pin_is_made() -> Result<()> {
    let mut bed = bed()?;
    for kind in Kind::ALL {
        let endpoint = promo_endpoint(&bed, "reserved", kind.family);
        let leg = promo_leg(&bed, kind);
        let request = || kind.frame(kind.client(), kind.shop(443));
        let reply = |from| kind.frame(from, kind.client());
        bed.maps().set_control(true, 3);
        for slot in [Slot::stable(endpoint), Slot::new(LOCAL, endpoint, State::Transition, 0)] {
            bed.fill("promo", slot);
            let row = Row::passes(kind.row("bypass"), arriving(request()), leg.class, Reason::Bypass);
            bed.check(FROM_CLIENT, &row)?;
        }
        assert_eq!(bed.pins()?, []);
        let row = Row::passes(kind.row("reply"), replying(reply(kind.reserved(RENAMED))), leg.class, Reason::Bypass);
        bed.check(FROM_DX, &row)?;
        let row = Row::passes(kind.row("reply"), replying(reply(kind.news())), bed.class("news"), Reason::Bypass);
        bed.check(FROM_DX, &row)?;
        let row = Row::passes(kind.row("not ours"), arriving(reply(kind.shop(22))), 0, Reason::NoMatch);
        bed.check(FROM_CLIENT, &row)?;

        bed.maps().set_control(false, 3);
        bed.fill("promo", Slot::stable(endpoint));
        let out = leaving(kind.frame(kind.client(), kind.reserved(RENAMED)));
        bed.check(FROM_CLIENT, &Row::leaves(kind.row("bypass off"), arriving(request()), DX_DEVICE, leg, out))?;
        let (frame, out) = (replying(reply(kind.reserved(RENAMED))), homeward(reply(kind.shop(443))));
        bed.check(FROM_DX, &Row::returns(kind.row("reply, bypass off"), frame, CLIENT_DEVICE, leg, out))?;
    }
    assert_eq!(bed.pins()?, []);
    // The twin that makes one.
    let kind = Kind::ALL[0];
    let endpoint = promo_endpoint(&bed, "reserved", kind.family);
    bed.fill("promo", Slot::new(endpoint, LOCAL, State::Transition, 0));
    bed.run(FROM_CLIENT, &arriving(kind.frame(kind.client(), kind.shop(443))), &[DX_DEVICE])?;
    assert_eq!(bed.pins()?[0].0, key(kind.client(), kind.shop(443), kind.proto));
    Ok(())
}
