//! Which line a packet leaves by, and what becomes of it when there is none.

use anyhow::Result;
use burst_common::endpoint::{Endpoint, HELD_LINKS, link_table};
use burst_common::hash;
use burst_common::link::Link;
use burst_common::reason::Reason;
use burst_common::slot::Slot;
use burst_tests::golden::{Bed, Leg, Row, key};
use burst_tests::topology::{CLIENT_DEVICE, DX_DEVICE, FIRST_CLIENT, Family, SECOND_DX_DEVICE};
use bytemuck::Zeroable as _;

use super::{FROM_CLIENT, Kind, RENAMED, arriving, bed, leaving, leaving_second, news_leg, promo_endpoint, promo_leg};

#[test]
fn the_flow_hash_chooses_among_the_links_of_the_endpoint() -> Result<()> {
    let mut bed = bed()?;
    let links = [bed.link("dx-1"), bed.link("dx-2")];
    for kind in Kind::ALL {
        let id = promo_endpoint(&bed, "elastic", kind.family);
        bed.fill("promo", Slot::stable(id));
        let mut seen = [0; 2];
        for port in 40_000..40_024 {
            let (from, to) = (kind.at(FIRST_CLIENT, port), kind.shop(443));
            let seed = bed.compiled().policy.seed;
            // The table of two links holds them in turn (see `link_table`).
            let second = hash::link(key(from, to, kind.proto).hash(seed, false)) % 2;
            seen[second] += 1;
            let packet = kind.frame(from, kind.elastic(RENAMED));
            let (device, out) =
                if second == 0 { (DX_DEVICE, leaving(packet)) } else { (SECOND_DX_DEVICE, leaving_second(packet)) };
            let leg = Leg { class: bed.class("promo"), endpoint: Some(id), link: Some(links[second]) };
            let name = kind.row(&format!("port {port}"));
            bed.check(FROM_CLIENT, &Row::leaves(name, arriving(kind.frame(from, to)), device, leg, out))?;

            // The other line takes it over when its own is lost: the packet moves, the endpoint stays.
            bed.maps().set_endpoint_links(id, link_table(&[links[1 - second]]));
            let packet = kind.frame(from, kind.elastic(RENAMED));
            let (device, out) =
                if second == 1 { (DX_DEVICE, leaving(packet)) } else { (SECOND_DX_DEVICE, leaving_second(packet)) };
            let leg = Leg { link: Some(links[1 - second]), ..leg };
            let name = kind.row(&format!("port {port}, its line lost"));
            bed.check(FROM_CLIENT, &Row::leaves(name, arriving(kind.frame(from, to)), device, leg, out))?;
            bed.maps().set_endpoint_links(id, link_table(&links));
        }
        assert!(seen.iter().all(|&count| count > 3), "{seen:?} of 24 flows: both lines are chosen");
    }
    Ok(())
}

/// The row of a packet that would leave, but stays for this reason; and that of its twin, which leaves.
fn stays(bed: &mut Bed, kind: Kind, name: &str, reason: Reason) -> Result<()> {
    let class = bed.class("promo");
    let frame = arriving(kind.frame(kind.client(), kind.shop(443)));
    bed.check(FROM_CLIENT, &Row::passes(kind.row(name), frame, class, reason))
}

/// The row of a packet whose sender is to try again.
fn waits(bed: &mut Bed, kind: Kind, name: &str) -> Result<()> {
    let class = bed.class("promo");
    let frame = arriving(kind.frame(kind.client(), kind.shop(443)));
    bed.check(FROM_CLIENT, &Row::dropped(kind.row(name), frame, class, Reason::Held))
}

fn leaves(bed: &mut Bed, kind: Kind) -> Result<()> {
    let leg = promo_leg(bed, kind);
    let frame = arriving(kind.frame(kind.client(), kind.shop(443)));
    let out = leaving(kind.frame(kind.client(), kind.reserved(RENAMED)));
    bed.check(FROM_CLIENT, &Row::leaves(kind.row("its twin leaves"), frame, DX_DEVICE, leg, out))
}

#[test]
fn without_a_link_it_stays() -> Result<()> {
    let mut bed = bed()?;
    let link = bed.link("dx-1");
    for kind in Kind::ALL {
        leaves(&mut bed, kind)?;
        let id = promo_endpoint(&bed, "reserved", kind.family);
        let table = bed.maps().endpoint(id).links;
        bed.maps().set_endpoint_links(id, 0);
        stays(&mut bed, kind, "no link of the endpoint is up", Reason::NoLink)?;
        for (name, links) in [("links are waited for", HELD_LINKS), ("a link that there cannot be", u64::MAX)] {
            bed.maps().set_endpoint_links(id, links);
            waits(&mut bed, kind, name)?;
        }
        bed.maps().set_endpoint_links(id, table);
        let row = bed.maps().link(link);
        bed.maps().set_link(link, &Link { ifindex: 0, ..row });
        waits(&mut bed, kind, "the link is down")?;
        bed.maps().set_link(link, &row);
        leaves(&mut bed, kind)?;
    }
    Ok(())
}

#[test]
fn a_device_that_is_not_bursts_is_not_sent_out_of() -> Result<()> {
    let mut bed = bed()?;
    for kind in Kind::ALL {
        leaves(&mut bed, kind)?;
        let frame = arriving(kind.frame(kind.client(), kind.shop(443)));
        let row = Row::passes(kind.row("dx0 is missing"), frame, bed.class("promo"), Reason::NoLink);
        bed.check_with(FROM_CLIENT, &row, &[CLIENT_DEVICE, SECOND_DX_DEVICE])?;
        news_leg(&bed);
        let frame = arriving(kind.frame(kind.client(), kind.news()));
        let row = Row::passes(kind.row("dx0 is missing"), frame, bed.class("news"), Reason::NoLink);
        bed.check_with(FROM_CLIENT, &row, &[])?;
    }
    Ok(())
}

#[test]
fn without_its_endpoint_it_stays() -> Result<()> {
    let mut bed = bed()?;
    for kind in Kind::ALL {
        leaves(&mut bed, kind)?;
        let id = promo_endpoint(&bed, "reserved", kind.family);
        let row = bed.maps().endpoint(id);
        bed.maps().set_endpoint(id, &Endpoint { links: row.links, ..Endpoint::zeroed() });
        stays(&mut bed, kind, "the endpoint's row is free", Reason::NoEndpoint)?;
        bed.maps().set_endpoint(id, &row);
        for id in [4095, u16::MAX] {
            bed.fill("promo", Slot::stable(id));
            stays(&mut bed, kind, "the slot names what is not there", Reason::NoEndpoint)?;
        }
        let other = if kind.family == Family::V4 { Family::V6 } else { Family::V4 };
        bed.fill("promo", Slot::stable(promo_endpoint(&bed, "reserved", other)));
        stays(&mut bed, kind, "an endpoint of the other family", Reason::NoEndpoint)?;
        leaves(&mut bed, kind)?;
    }
    Ok(())
}
