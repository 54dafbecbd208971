//! Slots in transition: who decides, what is remembered, and what happens when nothing more can be.

use std::net::SocketAddr;

use anyhow::Result;
use burst_common::limits::MAX_PINS;
use burst_common::pin::{Pin, PinKey};
use burst_common::reason::{Note, Reason};
use burst_common::slot::{EndpointId, LOCAL, Slot, State};
use burst_tests::golden::{Bed, Leg, Row, key};
use burst_tests::packet::{Frame, flag};
use burst_tests::topology::{DX_DEVICE, FIRST_CLIENT, Family};

use super::{FROM_CLIENT, Kind, RENAMED, arriving, bed, leaving, promo_endpoint};

/// One flow to the shop, and the places it may be in.
struct Flow {
    kind: Kind,
    class: usize,
    /// The endpoint of tier `reserved`.
    away: EndpointId,
    /// As `away`, counted.
    leg: Leg,
    key: PinKey,
}

const EPOCH: u32 = 77;

impl Flow {
    fn new(bed: &Bed, kind: Kind) -> Self {
        let away = promo_endpoint(bed, "reserved", kind.family);
        let class = bed.class("promo");
        let leg = Leg { class, endpoint: Some(away), link: Some(bed.link("dx-1")) };
        Self { kind, class, away, leg, key: key(kind.client(), kind.shop(443), kind.proto) }
    }

    fn packet(&self, to: SocketAddr, opens: bool) -> Frame {
        if opens { self.kind.opener(self.kind.client(), to) } else { self.kind.frame(self.kind.client(), to) }
    }

    /// The packet of the flow, placed at an endpoint.
    fn row(&self, name: &str, opens: bool, endpoint: EndpointId) -> Row {
        let name = self.kind.row(&format!("{name}, {}", if opens { "opener" } else { "later packet" }));
        let frame = arriving(self.packet(self.kind.shop(443), opens));
        let row = if endpoint == LOCAL {
            Row::passes(name, frame, self.class, Reason::Local)
        } else {
            let out = leaving(self.packet(self.kind.reserved(RENAMED), opens));
            Row::leaves(name, frame, DX_DEVICE, self.leg, out)
        };
        if opens { row.opens() } else { row }
    }

    fn pin(&self, endpoint: EndpointId, epoch: u32) -> (PinKey, Pin) {
        (self.key, Pin { endpoint, class: self.class as u16, epoch })
    }

    /// Runs a row in a slot with these pins before and after, of this flow alone.
    fn check(
        &self,
        bed: &mut Bed,
        row: &Row,
        slot: Slot,
        before: Option<Pin>,
        after: Option<EndpointId>,
    ) -> Result<()> {
        bed.unpin_all()?;
        bed.fill("promo", slot);
        bed.maps().set_control(false, EPOCH);
        if let Some(pin) = before {
            bed.pin(&self.key, pin)?;
        }
        bed.check(FROM_CLIENT, row)?;
        let expected: Vec<_> = after.map(|endpoint| self.pin(endpoint, EPOCH)).into_iter().collect();
        assert_eq!(bed.pins()?, expected, "{}", row.name);
        Ok(())
    }
}

/// Openers and later packets of all kinds; UDP does not say which it is, and counts as later.
fn flows(bed: &Bed) -> Vec<(Flow, bool)> {
    let both = |kind: Kind| [true, false].into_iter().filter(move |opens| !opens || Kind::tcp().any(|tcp| tcp == kind));
    Kind::ALL.into_iter().flat_map(|kind| both(kind).map(move |opens| (Flow::new(bed, kind), opens))).collect()
}

#[test]
fn in_transition_openers_go_where_new_flows_go_and_others_where_they_were() -> Result<()> {
    let mut bed = bed()?;
    for (flow, opens) in flows(&bed) {
        for (name, current, previous) in [("out", flow.away, LOCAL), ("home", LOCAL, flow.away)] {
            let placed = if opens { current } else { previous };
            let row = flow.row(name, opens, placed).notes(flow.class, Note::Pinned);
            flow.check(&mut bed, &row, Slot::new(current, previous, State::Transition, 5), None, Some(placed))?;
        }
    }
    Ok(())
}

#[test]
fn a_pin_decides_whatever_the_slot_says_and_is_seen_now() -> Result<()> {
    let mut bed = bed()?;
    for (flow, opens) in flows(&bed) {
        for (placed, other) in [(flow.away, LOCAL), (LOCAL, flow.away)] {
            for state in [State::Transition, State::Pins] {
                // Of another epoch, and of this one.
                for epoch in [EPOCH - 9, EPOCH] {
                    let row = flow.row("pinned", opens, placed).notes(flow.class, Note::PinHit);
                    let pin = flow.pin(placed, epoch).1;
                    flow.check(&mut bed, &row, Slot::new(other, other, state, 0), Some(pin), Some(placed))?;
                }
            }
        }
    }
    Ok(())
}

#[test]
fn a_stable_slot_asks_for_no_pin() -> Result<()> {
    let mut bed = bed()?;
    for (flow, opens) in flows(&bed) {
        bed.maps().set_control(false, EPOCH);
        let stale = flow.pin(flow.away, EPOCH - 9);
        bed.unpin_all()?;
        bed.pin(&flow.key, stale.1)?;
        bed.fill("promo", Slot::stable(LOCAL));
        bed.check(FROM_CLIENT, &flow.row("stable", opens, LOCAL))?;
        assert_eq!(bed.pins()?, [stale], "nor is one seen");
        bed.unpin_all()?;
        bed.check(FROM_CLIENT, &flow.row("stable", opens, LOCAL))?;
        assert_eq!(bed.pins()?, [], "nor is one made");
    }
    Ok(())
}

#[test]
fn a_slot_with_pins_sends_the_unpinned_to_current_and_pins_none() -> Result<()> {
    let mut bed = bed()?;
    for (flow, opens) in flows(&bed) {
        for (current, previous) in [(flow.away, LOCAL), (LOCAL, flow.away)] {
            let row = flow.row("miss", opens, current);
            flow.check(&mut bed, &row, Slot::new(current, previous, State::Pins, 0), None, None)?;
        }
    }
    Ok(())
}

#[test]
fn a_placed_flow_stays_through_changes_of_its_slot() -> Result<()> {
    let mut bed = bed()?;
    for kind in Kind::tcp() {
        let flow = Flow::new(&bed, kind);
        bed.unpin_all()?;
        bed.maps().set_control(false, EPOCH);
        let slot = Slot::stable(LOCAL).flip(flow.away);
        bed.fill("promo", slot);
        let row = flow.row("first", true, flow.away).notes(flow.class, Note::Pinned);
        bed.check(FROM_CLIENT, &row)?;
        for (name, slot, note) in [
            ("home again", slot.flip(LOCAL), true),
            ("settled with pins", slot.flip(LOCAL).settle(true), true),
            ("out again", slot.flip(LOCAL).settle(true).flip(flow.away), true),
            ("settled without", slot.settle(false), false),
        ] {
            bed.fill("promo", slot);
            let row = flow.row(name, false, flow.away);
            bed.check(FROM_CLIENT, &if note { row.notes(flow.class, Note::PinHit) } else { row })?;
        }
        assert_eq!(bed.pins()?, [flow.pin(flow.away, EPOCH)]);
    }
    Ok(())
}

#[test]
fn a_repeated_opener_goes_where_the_first_went() -> Result<()> {
    let mut bed = bed()?;
    for kind in Kind::tcp() {
        let flow = Flow::new(&bed, kind);
        let slot = Slot::stable(LOCAL).flip(flow.away);
        let first = flow.row("first", true, flow.away).notes(flow.class, Note::Pinned);
        flow.check(&mut bed, &first, slot, None, Some(flow.away))?;
        bed.fill("promo", slot.flip(LOCAL));
        bed.check(FROM_CLIENT, &flow.row("again", true, flow.away).notes(flow.class, Note::PinHit))?;
    }
    Ok(())
}

#[test]
fn when_no_more_pins_can_be_made_openers_go_where_their_followers_will() -> Result<()> {
    let mut bed = bed()?;
    let crowd = Kind { family: Family::V4, proto: 6 };
    let class = bed.class("promo") as u16;
    let hosts = 0..=(MAX_PINS / 0x1_0000) as u8;
    let mut sources = hosts.flat_map(|host| (0..=u16::MAX).map(move |port| (host, port)));
    for (host, port) in sources.by_ref().take(MAX_PINS) {
        let key = key(crowd.at(FIRST_CLIENT.plus(100 + host), port), crowd.shop(443), crowd.proto);
        bed.pin(&key, Pin { endpoint: LOCAL, class, epoch: 1 })?;
    }
    for kind in Kind::tcp() {
        let flow = Flow::new(&bed, kind);
        for (current, previous) in [(flow.away, LOCAL), (LOCAL, flow.away)] {
            bed.fill("promo", Slot::new(current, previous, State::Transition, 0));
            for opens in [true, false] {
                let row = flow.row("refused", opens, previous).notes(flow.class, Note::PinRefused);
                bed.check(FROM_CLIENT, &row)?;
            }
        }
    }
    assert_eq!(bed.pins()?.len(), MAX_PINS, "none was evicted");

    // One goes, and the next opener takes its place.
    let flow = Flow::new(&bed, crowd);
    let (gone, _) = bed.pins()?[0];
    bed.unpin(&gone)?;
    bed.fill("promo", Slot::new(flow.away, LOCAL, State::Transition, 0));
    bed.check(FROM_CLIENT, &flow.row("room for one", true, flow.away).notes(flow.class, Note::Pinned))?;
    let kept = Frame::tcp(crowd.client(), crowd.payment(), flag::SYN);
    let row = Row::passes("payment asks for no pin", arriving(kept), bed.class("payment"), Reason::Keep);
    bed.check(FROM_CLIENT, &row.opens())
}

#[test]
fn a_pin_that_decides_is_counted_once_whatever_comes_of_the_packet() -> Result<()> {
    let mut bed = bed()?;
    for (flow, opens) in flows(&bed).into_iter().filter(|(_, opens)| !opens) {
        let (pin, slot) = (flow.pin(flow.away, EPOCH).1, Slot::new(LOCAL, LOCAL, State::Pins, 0));
        let frame = |ttl| arriving(flow.packet(flow.kind.shop(443), opens).ttl(ttl));
        let row = |name: &str, ttl, reason| {
            Row::passes(flow.kind.row(name), frame(ttl), flow.class, reason).notes(flow.class, Note::PinHit)
        };
        flow.check(&mut bed, &row("TTL 1", 1, Reason::TtlExpired), slot, Some(pin), Some(flow.away))?;
        let links = bed.maps().endpoint(flow.away).links;
        bed.maps().set_endpoint_links(flow.away, 0);
        flow.check(&mut bed, &row("no link", 64, Reason::NoLink), slot, Some(pin), Some(flow.away))?;
        bed.maps().set_endpoint_links(flow.away, links);
    }
    Ok(())
}
