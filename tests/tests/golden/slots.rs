//! Which slot a flow is in: the one that userspace says, and no other.

use anyhow::Result;
use burst_common::reason::Reason;
use burst_common::slot::{LOCAL, Slot};
use burst_tests::golden::{Bed, Leg, Row, key};
use burst_tests::packet::Frame;
use burst_tests::topology::{DX_DEVICE, FIRST_CLIENT};

use super::{FROM_CLIENT, Kind, RENAMED, arriving, bed, leaving, news_leg, promo_leg};

/// Checks that a flow leaves when its slot alone says so, and stays when all others do.
fn one_slot_decides(bed: &mut Bed, kind: Kind, class: &str, leg: Leg, flow: (Frame, Frame), slot: usize) -> Result<()> {
    let away = Slot::stable(leg.endpoint.expect("an endpoint"));
    let (frame, out) = (arriving(flow.0), leaving(flow.1));
    bed.fill(class, Slot::stable(LOCAL));
    bed.maps().set_slot(slot, away);
    let row = Row::leaves(kind.row("its slot says so"), frame.clone(), DX_DEVICE, leg, out);
    bed.check(FROM_CLIENT, &row)?;
    bed.fill(class, away);
    bed.maps().set_slot(slot, Slot::stable(LOCAL));
    let row = Row::passes(kind.row("the others say so"), frame, leg.class, Reason::Local);
    bed.check(FROM_CLIENT, &row)
}

#[test]
fn affinity_by_flow_selects_the_slot_that_userspace_predicts() -> Result<()> {
    let mut bed = bed()?;
    for kind in Kind::ALL {
        let leg = promo_leg(&bed, kind);
        let mut slots = std::collections::BTreeSet::new();
        for (host, port) in (0..3).flat_map(|host| (50_000..50_008).map(move |port| (host, port))) {
            let (from, to) = (kind.at(FIRST_CLIENT.plus(host), port), kind.shop(443));
            let slot = bed.slot_of("promo", &key(from, to, kind.proto));
            slots.insert(slot);
            let flow = (kind.frame(from, to), kind.frame(from, kind.reserved(RENAMED)));
            one_slot_decides(&mut bed, kind, "promo", leg, flow, slot)?;
        }
        assert!(slots.len() > 8, "24 flows of three clients are in many slots: {slots:?}");
    }
    Ok(())
}

#[test]
fn affinity_by_client_selects_one_slot_for_all_of_a_clients_flows() -> Result<()> {
    let mut bed = bed()?;
    for kind in Kind::ALL {
        let leg = news_leg(&bed);
        let mut slots = std::collections::BTreeSet::new();
        for host in 0..8 {
            let of_client = kind.at(FIRST_CLIENT.plus(host), 1);
            let slot = bed.slot_of("news", &key(of_client, kind.news(), kind.proto));
            slots.insert(slot);
            for port in [1024, 40_000, 65_535] {
                let packet = kind.frame(kind.at(FIRST_CLIENT.plus(host), port), kind.news());
                one_slot_decides(&mut bed, kind, "news", leg, (packet.clone(), packet), slot)?;
            }
        }
        assert!(slots.len() > 4, "eight clients are in several slots: {slots:?}");
    }
    Ok(())
}

#[test]
fn the_families_have_slots_of_their_own() -> Result<()> {
    let mut bed = bed()?;
    for kind in Kind::ALL {
        let leg = news_leg(&bed);
        let base = bed.compiled().policy.classes[leg.class];
        let (own, other) = if kind.client().is_ipv4() { (base.base4, base.base6) } else { (base.base6, base.base4) };
        let packet = || kind.frame(kind.client(), kind.news());
        for (name, first, leaves) in [("own", own, true), ("the other's", other, false)] {
            bed.fill("news", Slot::stable(LOCAL));
            for index in first..=first + base.mask {
                bed.maps().set_slot(index as usize, Slot::stable(bed.endpoint("news/flat")));
            }
            let row = if leaves {
                Row::leaves(kind.row(name), arriving(packet()), DX_DEVICE, leg, leaving(packet()))
            } else {
                Row::passes(kind.row(name), arriving(packet()), leg.class, Reason::Local)
            };
            bed.check(FROM_CLIENT, &row)?;
        }
    }
    Ok(())
}
