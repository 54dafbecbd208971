//! The segment size that a SYN or a SYN-ACK offers is lowered to what the smallest link of its flow carries, never raised.

use anyhow::Result;
use burst_common::slot::Slot;
use burst_tests::golden::{Bed, Leg, Row};
use burst_tests::packet::checksum::verify;
use burst_tests::packet::{Frame, flag};
use burst_tests::topology::{CLIENT_DEVICE, DX_DEVICE, Family};

use super::tunnels::{self, Tunnel};
use super::{
    FROM_CLIENT, FROM_DX, Kind, RENAMED, arriving, bed, homeward, leaving, news_leg, promo_endpoint, replying,
};

/// What the link's 1400 or 1500 bytes leave of a segment: less the headers of IP (20 or 40) and TCP (20).
fn most(kind: Kind, mtu: u16) -> u16 {
    mtu - 20 - if kind.family == Family::V4 { 20 } else { 40 }
}

/// What was offered, and what becomes of it.
fn offers(most: u16) -> [(u16, u16); 7] {
    [(most + 1, most), (u16::MAX, most), (1460.max(most), most), (most, most), (most - 1, most - 1), (536, 536), (0, 0)]
}

/// Sends promo to `elastic`, whose smallest line carries 1400 bytes, over the first line.
fn elastic_leg(bed: &Bed, kind: Kind) -> Leg {
    let id = promo_endpoint(bed, "elastic", kind.family);
    bed.fill("promo", Slot::stable(id));
    let link = bed.link("dx-1");
    // The second line is down; the segment size is held against it all the same, for it may come back.
    bed.maps().set_endpoint_links(id, burst_common::endpoint::link_table(&[link]));
    Leg { class: bed.class("promo"), endpoint: Some(id), link: Some(link) }
}

#[test]
fn a_syn_offers_what_the_smallest_link_carries() -> Result<()> {
    let mut bed = bed()?;
    for kind in Kind::tcp() {
        let (promo, news) = (elastic_leg(&bed, kind), news_leg(&bed));
        let ways = [
            ("dnat", kind.shop(443), kind.elastic(RENAMED), promo, 1400),
            ("nexthop", kind.news(), kind.news(), news, 1500),
        ];
        for (name, to, becomes, leg, mtu) in ways {
            for (offered, left) in offers(most(kind, mtu)) {
                let syn = |to, size| Frame::tcp(kind.client(), to, flag::SYN).mss(size);
                let out = leaving(syn(becomes, left));
                verify(&out)?;
                let name = kind.row(&format!("{name}, {offered} offered"));
                let row = Row::leaves(name, arriving(syn(to, offered)), DX_DEVICE, leg, out).opens();
                bed.check(FROM_CLIENT, &row)?;
            }
            // What is no SYN has no such option, whatever its bytes say.
            let ack = |to| Frame::tcp(kind.client(), to, flag::ACK).mss(9000);
            let (frame, out) = (arriving(ack(to)), leaving(ack(becomes)));
            bed.check(FROM_CLIENT, &Row::leaves(kind.row("an ACK"), frame, DX_DEVICE, leg, out))?;
        }
    }
    Ok(())
}

#[test]
fn a_syn_ack_offers_what_the_smallest_link_carries() -> Result<()> {
    let mut bed = bed()?;
    for kind in Kind::tcp() {
        let promo = elastic_leg(&bed, kind);
        let news = Leg { endpoint: None, ..news_leg(&bed) };
        let ways = [
            ("dnat", kind.elastic(RENAMED), kind.shop(443), promo, 1400),
            ("nexthop", kind.news(), kind.news(), news, 1500),
        ];
        for (name, from, becomes, leg, mtu) in ways {
            for (offered, left) in offers(most(kind, mtu)) {
                let answer = |from, size| Frame::tcp(from, kind.client(), flag::SYN | flag::ACK).mss(size);
                let (frame, out) = (replying(answer(from, offered)), homeward(answer(becomes, left)));
                let name = kind.row(&format!("{name}, {offered} offered"));
                bed.check(FROM_DX, &Row::returns(name, frame, CLIENT_DEVICE, leg, out))?;
            }
        }
    }
    Ok(())
}

#[test]
fn a_tunnel_takes_its_headers_off_the_segment_size() -> Result<()> {
    let mut bed = tunnels::bed()?;
    for tunnel in Tunnel::ALL {
        for kind in Kind::tcp() {
            let leg = tunnel.leg(&bed);
            let port = tunnel.port(&mut bed, kind)?;
            for (offered, left) in offers(most(kind, 1500 - tunnel.overhead())) {
                let syn = |size| Frame::tcp(kind.client(), kind.shop(443), flag::SYN).mss(size);
                let out = tunnel.leaving(port, syn(left), 0);
                let name = kind.row(&format!("{tunnel:?}, {offered} offered"));
                let row = Row::leaves(name.clone(), arriving(syn(offered)), DX_DEVICE, leg, out).opens();
                bed.check(FROM_CLIENT, &row)?;
                let answer = |size| Frame::tcp(kind.shop(443), kind.client(), flag::SYN | flag::ACK).mss(size);
                let (frame, out) = (tunnel.replying(answer(offered), 0), homeward(answer(left)));
                bed.check(FROM_DX, &Row::returns(name, frame, CLIENT_DEVICE, leg, out))?;
            }
        }
    }
    Ok(())
}

#[test]
fn the_option_is_found_wherever_it_stands_and_what_is_malformed_stays() -> Result<()> {
    let mut bed = bed()?;
    for kind in Kind::tcp() {
        let leg = elastic_leg(&bed, kind);
        let [high, low] = most(kind, 1400).to_be_bytes();
        // 9000 is 0x2328: both bytes change, in either half of a word of the checksum.
        let found: [(&str, &[u8], usize); 6] = [
            ("first", &[2, 4, 0x23, 0x28, 1, 3, 3, 7], 2),
            ("at an odd offset", &[1, 2, 4, 0x23, 0x28, 3, 3, 7], 3),
            ("at an even one that is no word's", &[1, 1, 2, 4, 0x23, 0x28, 1, 1], 4),
            ("behind the timestamps", &[4, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 2, 4, 0x23, 0x28], 14),
            ("behind a selective acknowledgment, odd", &[5, 2, 3, 3, 7, 2, 4, 0x23, 0x28, 0, 0, 0], 7),
            ("the tenth", &[1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 4, 0x23, 0x28, 1, 1, 1], 11),
        ];
        let syn =
            |to, options: &[u8]| Frame::tcp(kind.client(), to, flag::SYN).tcp_options(options).payload(&[2, 4, 9, 9]);
        for (name, options, at) in found {
            let mut lowered = options.to_vec();
            lowered[at..at + 2].copy_from_slice(&[high, low]);
            let (frame, out) = (arriving(syn(kind.shop(443), options)), leaving(syn(kind.elastic(RENAMED), &lowered)));
            verify(&out)?;
            bed.check(FROM_CLIENT, &Row::leaves(kind.row(name), frame, DX_DEVICE, leg, out).opens())?;
        }
        let stays: [(&str, &[u8]); 10] = [
            ("no option", &[]),
            ("others only", &[4, 2, 3, 3, 7, 0, 0, 0]),
            ("behind the end", &[0, 2, 4, 0x23, 0x28, 0, 0, 0]),
            ("of length 3", &[2, 3, 0x23, 0x28]),
            ("of length 6", &[2, 6, 0x23, 0x28, 0, 0, 0, 0]),
            ("of length 0", &[2, 0, 0x23, 0x28]),
            ("behind one of length 0", &[3, 0, 2, 4, 0x23, 0x28, 0, 0]),
            ("behind one of length 1", &[3, 1, 2, 4, 0x23, 0x28, 0, 0]),
            ("cut by the header's end: its value would be data", &[1, 1, 2, 4]),
            ("the eleventh", &[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 4, 0x23, 0x28, 1, 1]),
        ];
        for (name, options) in stays {
            let (frame, out) = (arriving(syn(kind.shop(443), options)), leaving(syn(kind.elastic(RENAMED), options)));
            bed.check(FROM_CLIENT, &Row::leaves(kind.row(name), frame, DX_DEVICE, leg, out).opens())?;
        }
    }
    Ok(())
}
