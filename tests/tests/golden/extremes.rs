//! At the edges of what can be forwarded: TTL, MTU, jumbo frames, padding.

use std::net::SocketAddr;

use anyhow::Result;
use burst_common::reason::Reason;
use burst_tests::golden::{Bed, Leg, Outcome, Row, Verdict};
use burst_tests::packet::{Frame, icmp};
use burst_tests::topology::{CLIENT_DEVICE, CLIENT_MAC, DIRECT_CONNECT_MAC, DX_DEVICE, EDGE_CLIENT_MAC, EDGE_DX_MAC};

use super::{
    FROM_CLIENT, FROM_DX, Kind, RENAMED, arriving, bed, both_beds, homeward, leaving, news_leg, promo_leg, replying,
};

/// (name, frame to the service, the same as it would leave, what it is counted under)
type Way = (&'static str, Box<dyn Fn() -> Frame>, Box<dyn Fn() -> Frame>, Leg);
/// The address a way's frames are sent to.
type Service = fn(Kind) -> SocketAddr;
const SERVICES: [Service; 2] = [|kind| kind.shop(443), |kind| kind.news()];

/// Both ways to shift a packet of a kind.
fn ways(bed: &Bed, kind: Kind) -> [Way; 2] {
    let (promo, news) = (promo_leg(bed, kind), news_leg(bed));
    let to = move |to| Box::new(move || kind.frame(kind.client(), to)) as Box<dyn Fn() -> Frame>;
    [
        ("dnat", to(kind.shop(443)), to(kind.reserved(RENAMED)), promo),
        ("nexthop", to(kind.news()), to(kind.news()), news),
    ]
}

#[test]
fn a_ttl_of_one_is_the_kernels_to_answer() -> Result<()> {
    for mut bed in both_beds()? {
        for kind in Kind::ALL {
            for (name, as_sent, as_left, leg) in ways(&bed, kind) {
                for ttl in [0, 1] {
                    let name = kind.row(&format!("{name}, TTL {ttl}"));
                    let row = Row::passes(name, arriving(as_sent().ttl(ttl)), leg.class, Reason::TtlExpired);
                    bed.check(FROM_CLIENT, &row)?;
                }
                for ttl in [2, 3, 128, 255] {
                    let name = kind.row(&format!("{name}, TTL {ttl}"));
                    let out = as_left().ttl(ttl - 1).macs(EDGE_DX_MAC, DIRECT_CONNECT_MAC).build();
                    let row = Row::leaves(name, arriving(as_sent().ttl(ttl)), DX_DEVICE, leg, out);
                    bed.check(FROM_CLIENT, &row)?;
                }
            }
        }
    }
    Ok(())
}

#[test]
fn what_the_link_cannot_carry_is_answered() -> Result<()> {
    let mut bed = bed()?;
    let id = bed.link("dx-1");
    let mut link = bed.maps().link(id);
    for mtu in [1280, 1400, 1500] {
        link.mtu = mtu;
        bed.maps().set_link(id, &link);
        for kind in Kind::ALL {
            for ((name, as_sent, as_left, leg), service) in ways(&bed, kind).into_iter().zip(SERVICES) {
                let headers = as_sent().payload(b"").build().len() - 14;
                let filled = |frame: Frame, size: u16| frame.payload(&vec![0x5a; usize::from(size) - headers]);
                let name = kind.row(&format!("{name}, MTU {mtu}"));
                let frame = arriving(filled(as_sent(), mtu + 1));
                let (service, client) = (service(kind).ip(), kind.client().ip());
                let answer = icmp::too_big(service, client, &frame, mtu).macs(EDGE_CLIENT_MAC, CLIENT_MAC).build();
                let row = Row::answered(name.clone(), frame, CLIENT_DEVICE, leg.class, answer);
                bed.check(FROM_CLIENT, &row)?;
                let (frame, out) = (arriving(filled(as_sent(), mtu)), leaving(filled(as_left(), mtu)));
                bed.check(FROM_CLIENT, &Row::leaves(name, frame, DX_DEVICE, leg, out))?;
            }
        }
    }
    // What stays is not held against a line it does not take.
    for kind in Kind::ALL {
        promo_leg(&bed, kind);
        bed.fill("promo", burst_common::slot::Slot::stable(burst_common::slot::LOCAL));
        let frame = arriving(kind.frame(kind.client(), kind.shop(443)).payload(&[1; 2000]));
        let row = Row::passes(kind.row("local and large"), frame, bed.class("promo"), Reason::Local);
        bed.check(FROM_CLIENT, &row)?;
    }
    Ok(())
}

#[test]
fn a_jumbo_frame_leaves_whole() -> Result<()> {
    let mut bed = bed()?;
    let id = bed.link("dx-1");
    let mut link = bed.maps().link(id);
    link.mtu = 9001;
    bed.maps().set_link(id, &link);
    bed.edge().ip(&format!("link set {CLIENT_DEVICE} mtu 9001"))?;
    let payload: Vec<u8> = (0..8900_u32).map(|n| (n % 251) as u8).collect();
    let mut splits = true;
    for kind in Kind::ALL {
        for (name, as_sent, as_left, leg) in ways(&bed, kind) {
            let packet = |frame: Frame| frame.payload(&payload);
            let (frame, out) = (arriving(packet(as_sent())), leaving(packet(as_left())));
            let row = Row::leaves(kind.row(name), frame.clone(), DX_DEVICE, leg, out);
            bed.check(FROM_CLIENT, &row)?;
            splits &= bed.check_split(FROM_CLIENT, &row, 128, &[DX_DEVICE])?;

            // Headers that lie in fragments are not looked for, and such a frame is counted with its linear part alone.
            let row = Row::passes(kind.row("headers in fragments"), frame.clone(), 0, Reason::Truncated).bytes(40);
            splits &= bed.check_split(FROM_CLIENT, &row, 40, &[DX_DEVICE])?;

            // A byte is missing, at the end of the fragments.
            let outcome = bed.run(FROM_CLIENT, &frame[..frame.len() - 1], &[DX_DEVICE])?;
            assert_eq!(outcome, Outcome { action: Verdict::Pass.number(), frame: frame[..frame.len() - 1].to_vec() });
        }
        let promo = promo_leg(&bed, kind);
        let packet = |from| kind.frame(from, kind.client()).payload(&payload);
        let (frame, out) = (replying(packet(kind.reserved(RENAMED))), homeward(packet(kind.shop(443))));
        bed.check(FROM_DX, &Row::returns(kind.row("and back"), frame, CLIENT_DEVICE, promo, out))?;
    }
    if !splits {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
        eprintln!("NOT SHOWN on Linux {}: frames split right behind their headers (needs 6.18)", kernel.trim());
    }
    Ok(())
}

#[test]
fn padding_behind_a_short_packet_stays_where_it_is_and_is_not_counted() -> Result<()> {
    let mut bed = bed()?;
    for kind in Kind::ALL {
        for (name, as_sent, as_left, leg) in ways(&bed, kind) {
            // To the 60 bytes of the shortest Ethernet frame, and some more, not zero.
            for padding in [1, 17, 40] {
                let padded = |mut frame: Vec<u8>| {
                    frame.extend(vec![0xee; padding]);
                    frame
                };
                let short = arriving(as_sent().payload(b"p"));
                let (length, frame) = (short.len(), padded(short));
                let name = kind.row(&format!("{name}, {padding} bytes of padding"));
                let row = Row::leaves(name, frame, DX_DEVICE, leg, padded(leaving(as_left().payload(b"p"))));
                bed.check(FROM_CLIENT, &row.bytes(length))?;
            }
        }
    }
    Ok(())
}
