//! Payment stays: each of the three layers alone, while the others are told that there is no payment. And with all of them misled
//! it leaves, which proves that nothing else had kept it.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Result;
use burst_common::endpoint::link_table;
use burst_common::event::{GUARD, SENTINEL_STOPPED_OWN};
use burst_common::policy::DeviceLink;
use burst_common::reason::{Note, Reason};
use burst_common::slot::Slot;
use burst_tests::golden::layers::arrived;
use burst_tests::golden::sentinel::{Post, Sentinel};
use burst_tests::golden::{Bed, Leg, Row};
use burst_tests::packet::{Frame, flag};
use burst_tests::sniffer::Sniffer;
use burst_tests::topology::{DX_DEVICE, Family, Pair};

use super::{CONFIG, FROM_CLIENT, Kind, RENAMED, arriving, leaving, news_leg, promo_endpoint, promo_leg};

/// What payment looks like, and what it would become if it left: by address, as an opener, with options, and by the source alone.
fn payments(kind: Kind) -> Vec<Payment> {
    let (client, card) = (kind.client(), kind.at(CARD, 40_000));
    let shapes: [fn(Kind, SocketAddr, SocketAddr) -> Frame; 3] = [
        |kind, from, to| kind.frame(from, to),
        |kind, from, to| kind.opener(from, to),
        |kind, from, to| match kind.family {
            Family::V4 => kind.frame(from, to).ip_options(&[148, 4, 0, 0]),
            Family::V6 => kind.frame(from, to).extension(0, &[1, 4, 0, 0, 0, 0]),
        },
    ];
    let mut all = Vec::new();
    for (shape, build) in ["in the middle", "an opener", "with options"].into_iter().zip(shapes) {
        for (source, destination) in [(client, kind.payment()), (card, kind.shop(443))] {
            let (frame, out) = (build(kind, source, destination), build(kind, source, kind.reserved(RENAMED)));
            all.push(Payment { shape, source, destination, frame, out });
        }
    }
    all
}

/// A packet of payment's.
struct Payment {
    shape: &'static str,
    source: SocketAddr,
    destination: SocketAddr,
    frame: Frame,
    /// What it would become if it left.
    out: Frame,
}

/// A client among the card networks' addresses.
const CARD: Pair = Pair { v4: Ipv4Addr::new(192, 0, 2, 200), v6: Ipv6Addr::new(0x2001, 0xdb8, 0xca, 0, 0, 0, 0, 9) };

/// A row, counted as an opener where it is one.
fn opening(row: Row, shape: &str) -> Row {
    if shape == "an opener" { row.opens() } else { row }
}

#[test]
fn the_compiler_alone_keeps_payment() -> Result<()> {
    let mut bed = Bed::new(CONFIG)?;
    bed.blind_guard();
    for kind in Kind::tcp() {
        promo_leg(&bed, kind);
        for Payment { shape, frame, .. } in payments(kind) {
            let row = Row::passes(kind.row(shape), arriving(frame), bed.class("payment"), Reason::Keep);
            bed.check(FROM_CLIENT, &opening(row, shape))?;
        }
    }
    Ok(())
}

#[test]
fn the_guard_alone_keeps_payment_and_tells_of_it() -> Result<()> {
    for vpn in [false, true] {
        let kernel = |config: &str| config.replace("next_hop = \"10.64.1.1\"\n", "via = \"kernel\"\n");
        let mut bed = Bed::new(&if vpn { kernel(CONFIG) } else { CONFIG.to_owned() })?;
        bed.mislead("promo");
        for kind in Kind::tcp() {
            if vpn {
                let id = promo_endpoint(&bed, "elastic", kind.family);
                bed.fill("promo", Slot::stable(id));
                bed.maps().set_endpoint_links(id, link_table(&[bed.link("dx-2")]));
            } else {
                promo_leg(&bed, kind);
            }
            for Payment { shape, source, destination, frame, .. } in payments(kind) {
                let row = Row::passes(kind.row(shape), arriving(frame), bed.class("promo"), Reason::Guard);
                bed.events()?;
                bed.check(FROM_CLIENT, &opening(row, shape))?;
                let told: Vec<_> = bed.events()?.iter().map(told).collect();
                assert_eq!(told, [(GUARD, source, destination, bed.ifindex(FROM_CLIENT.device))], "{shape}");
            }
        }
    }
    let mut bed = Bed::new(CONFIG)?;
    bed.mislead("news");
    for kind in Kind::tcp() {
        let leg = news_leg(&bed);
        let frame = arriving(kind.frame(kind.client(), kind.payment()));
        bed.check(FROM_CLIENT, &Row::passes(kind.row("nexthop"), frame, leg.class, Reason::Guard))?;
    }
    Ok(())
}

/// Kind, addresses and device of an event.
fn told(event: &burst_common::event::Event) -> (u8, SocketAddr, SocketAddr, u32) {
    let socket = |wide, port: u16| SocketAddr::new(burst_common::flow::narrow(event.family, wide), u16::from_be(port));
    (event.kind, socket(event.src, event.src_port), socket(event.dst, event.dst_port), event.ifindex)
}

/// The bed whose policy and guard know no payment, and the sentinel of its line, which does.
fn blind(class: &str) -> Result<(Bed, Sentinel)> {
    let mut bed = Bed::new(CONFIG)?;
    let links = [DeviceLink { vlan: 0, link: bed.link("dx-1").into() }];
    let sentinel = bed.sentinel(&Post { device: DX_DEVICE, links: &links, enforce: false, shadow: false })?;
    bed.mislead(class);
    bed.blind_guard();
    Ok((bed, sentinel))
}

#[test]
fn with_no_layer_payment_leaves() -> Result<()> {
    let (mut bed, _) = blind("promo")?;
    for kind in Kind::tcp() {
        let leg: Leg = promo_leg(&bed, kind);
        for Payment { shape, frame, out, .. } in
            payments(kind).into_iter().filter(|payment| payment.shape != "an opener")
        {
            bed.check(FROM_CLIENT, &Row::leaves(kind.row(shape), arriving(frame), DX_DEVICE, leg, leaving(out)))?;
        }
    }
    Ok(())
}

#[test]
fn the_sentinel_alone_stops_payment_on_its_way_out_and_tells_of_it() -> Result<()> {
    // `nexthop`: so the frame that leaves still says that it is payment.
    let (mut bed, mut sentinel) = blind("news")?;
    for kind in Kind::tcp() {
        let leg = news_leg(&bed);
        let frame = arriving(Frame::tcp(kind.client(), kind.payment(), flag::ACK).payload(&[7; 200]));
        bed.reach_through(DX_DEVICE, None)?;
        let line = Sniffer::start(bed.far(), DX_DEVICE)?;
        bed.send(FROM_CLIENT, &frame, 5)?;
        arrived(&line, 5)?;

        bed.reach_through(DX_DEVICE, Some(&mut sentinel))?;
        bed.events()?;
        let (counters, line) = (bed.counters().read(), Sniffer::start(bed.far(), DX_DEVICE)?);
        bed.send(FROM_CLIENT, &frame, 5)?;
        arrived(&line, 0)?;
        let moved = bed.counters().moved(&counters, &bed.counters().read());
        let count = |class: usize, row: usize| {
            moved.iter().find(|(count, _)| **count == burst_tests::golden::counters::Count::Class(class, row))
        };
        assert_eq!(
            count(leg.class, Reason::Shifted.number()).map(|(_, counter)| counter.packets),
            Some(5),
            "{moved:?}"
        );
        assert_eq!(count(0, Note::SentinelStopped.number()).map(|(_, counter)| counter.packets), Some(5), "{moved:?}");
        let told: Vec<_> = bed.events()?.iter().map(told).collect();
        let wanted = (SENTINEL_STOPPED_OWN, kind.client(), kind.payment(), bed.ifindex(DX_DEVICE));
        assert_eq!(told, [wanted; 5]);

        // Its neighbours go.
        bed.send(FROM_CLIENT, &arriving(kind.frame(kind.client(), kind.news())), 3)?;
        arrived(&line, 3)?;
    }
    Ok(())
}
