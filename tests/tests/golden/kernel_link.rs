//! A link of `via = "kernel"`: the packet gets its new destination, and the routing table sends it on.

use anyhow::Result;
use burst_common::endpoint::link_table;
use burst_common::reason::Reason;
use burst_common::slot::Slot;
use burst_tests::golden::{Bed, Leg, Row};
use burst_tests::packet::{Frame, flag};
use burst_tests::topology::Family;

use super::{CONFIG, FROM_CLIENT, Kind, PLAIN_PORT, RENAMED, arriving, news_leg, promo_endpoint};

/// The golden configuration, its second line a VPN.
fn vpn() -> Result<Bed> {
    Bed::new(&CONFIG.replace("next_hop = \"10.64.1.1\"\n", "via = \"kernel\"\n"))
}

/// Sends all of promo over the VPN.
fn leg(bed: &Bed, kind: Kind) -> Leg {
    let (id, link) = (promo_endpoint(bed, "elastic", kind.family), bed.link("dx-2"));
    bed.fill("promo", Slot::stable(id));
    bed.maps().set_endpoint_links(id, link_table(&[link]));
    Leg { class: bed.class("promo"), endpoint: Some(id), link: Some(link) }
}

#[test]
fn only_the_destination_changes() -> Result<()> {
    let mut bed = vpn()?;
    for kind in Kind::ALL {
        let leg = leg(&bed, kind);
        for (port, becomes) in [(443, RENAMED), (80, 8080), (PLAIN_PORT, PLAIN_PORT)] {
            for length in [0, 1, 11, 1200] {
                for vlans in [&[][..], &[100], &[100, 7]] {
                    let packet = |to| kind.frame(kind.client(), to).payload(&vec![0x5a; length]).vlans(vlans);
                    let (frame, out) = (arriving(packet(kind.shop(port))), arriving(packet(kind.elastic(becomes))));
                    let name = kind.row(&format!("port {port}, {length} bytes, VLANs {vlans:?}"));
                    bed.check(FROM_CLIENT, &Row::renamed(name, frame, leg, out))?;
                }
            }
        }
        let none = |to| match kind.proto {
            17 => Frame::udp(kind.client(), to).no_udp_checksum(),
            _ => Frame::tcp(kind.client(), to, flag::RST),
        };
        let (frame, out) = (arriving(none(kind.shop(443))), arriving(none(kind.elastic(RENAMED))));
        bed.check(FROM_CLIENT, &Row::renamed(kind.row("no checksum, no flags"), frame, leg, out))?;
        let with = |to| match kind.family {
            Family::V4 => kind.frame(kind.client(), to).ip_options(&[148, 4, 0, 0]),
            Family::V6 => kind.frame(kind.client(), to).extension(0, &[1, 4, 0, 0, 0, 0]),
        };
        let (frame, out) = (arriving(with(kind.shop(443))), arriving(with(kind.elastic(RENAMED))));
        bed.check(FROM_CLIENT, &Row::renamed(kind.row("options"), frame, leg, out))?;
    }
    Ok(())
}

#[test]
fn a_syn_offers_what_the_link_carries() -> Result<()> {
    let mut bed = vpn()?;
    for kind in Kind::tcp() {
        let leg = leg(&bed, kind);
        let most = if kind.family == Family::V4 { 1360 } else { 1340 };
        for (offered, left) in [(1460, most), (most, most), (536, 536)] {
            let syn = |to, size| Frame::tcp(kind.client(), to, flag::SYN).mss(size);
            let (frame, out) = (arriving(syn(kind.shop(443), offered)), arriving(syn(kind.elastic(RENAMED), left)));
            let name = kind.row(&format!("{offered} offered"));
            bed.check(FROM_CLIENT, &Row::renamed(name, frame, leg, out).opens())?;
        }
    }
    Ok(())
}

#[test]
fn what_stays_stays_untouched() -> Result<()> {
    let mut bed = vpn()?;
    for kind in Kind::ALL {
        let leg = leg(&bed, kind);
        let frame = arriving(kind.frame(kind.client(), kind.shop(443)).ttl(1));
        bed.check(FROM_CLIENT, &Row::passes(kind.row("TTL 1"), frame, leg.class, Reason::TtlExpired))?;
        // Its twin: the kernel takes one off, not burst.
        let packet = |to| kind.frame(kind.client(), to).ttl(2);
        let (frame, out) = (arriving(packet(kind.shop(443))), arriving(packet(kind.elastic(RENAMED))));
        bed.check(FROM_CLIENT, &Row::renamed(kind.row("TTL 2"), frame, leg, out))?;
        // Layer 2 has no next hop there.
        let news = bed.endpoint("news/flat");
        news_leg(&bed);
        bed.maps().set_endpoint_links(news, link_table(&[bed.link("dx-2")]));
        let frame = arriving(kind.frame(kind.client(), kind.news()));
        bed.check(FROM_CLIENT, &Row::passes(kind.row("nexthop"), frame, bed.class("news"), Reason::NoLink))?;
        let row = bed.maps().link(bed.link("dx-2"));
        bed.maps().set_link(bed.link("dx-2"), &burst_common::link::Link { ifindex: 0, ..row });
        let frame = arriving(kind.frame(kind.client(), kind.shop(443)));
        bed.check(FROM_CLIENT, &Row::dropped(kind.row("down"), frame, leg.class, Reason::Held))?;
        bed.maps().set_link(bed.link("dx-2"), &row);
    }
    Ok(())
}
