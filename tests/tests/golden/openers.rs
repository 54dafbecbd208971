//! What opens a flow, and what becomes of it: where there is no room, where nobody leads, where no link leads, and when it is repeated.

use anyhow::Result;
use burst_common::admission::{AT_ONCE, NONE};
use burst_common::endpoint::HELD_LINKS;
use burst_common::limits::OVERFLOW_ROWS;
use burst_common::pin::PinKey;
use burst_common::reason::{Note, Reason};
use burst_common::slot::{EndpointId, LOCAL, Slot, State};
use burst_tests::golden::{Bed, Leg, Row, key};
use burst_tests::packet::Frame;
use burst_tests::topology::{DX_DEVICE, FIRST_CLIENT};

use super::{CONFIG, FROM_CLIENT, Kind, RENAMED, arriving, bed, leaving, promo_endpoint, promo_leg};

/// Later than this machine has been up, in nanoseconds.
const FAR: u64 = 1 << 62;

/// The shop's flows of a kind, opened by some packet, and what else they need.
struct Flows {
    kind: Kind,
    class: usize,
    away: EndpointId,
    leg: Leg,
}

impl Flows {
    fn new(bed: &Bed, kind: Kind) -> Self {
        let leg = promo_leg(bed, kind);
        Self { kind, class: leg.class, away: promo_endpoint(bed, "reserved", kind.family), leg }
    }

    /// A packet of the client's flow by this port, and how it is counted when it goes to `endpoint`.
    fn row(&self, name: &str, port: u16, packet: &dyn Fn(Frame) -> Frame, endpoint: EndpointId) -> Row {
        let from = self.kind.at(FIRST_CLIENT, port);
        let frame = |to| packet(self.kind.frame(from, to));
        let arrives = arriving(frame(self.kind.shop(443)));
        let name = self.kind.row(name);
        if endpoint == LOCAL {
            return Row::passes(name, arrives, self.class, Reason::Local);
        }
        Row::leaves(name, arrives, DX_DEVICE, self.leg, leaving(frame(self.kind.reserved(RENAMED))))
    }

    fn opener(&self, name: &str, port: u16, endpoint: EndpointId) -> Row {
        let from = self.kind.at(FIRST_CLIENT, port);
        let frame = |to| self.kind.opener(from, to);
        let name = self.kind.row(&format!("{name}, opener"));
        let arrives = arriving(frame(self.kind.shop(443)));
        if endpoint == LOCAL {
            return Row::passes(name, arrives, self.class, Reason::Local);
        }
        Row::leaves(name, arrives, DX_DEVICE, self.leg, leaving(frame(self.kind.reserved(RENAMED))))
    }

    fn later(&self, name: &str, port: u16, endpoint: EndpointId) -> Row {
        self.row(&format!("{name}, later"), port, &|frame| frame, endpoint)
    }

    fn key(&self, port: u16) -> PinKey {
        key(self.kind.at(FIRST_CLIENT, port), self.kind.shop(443), self.kind.proto)
    }

    fn slot(&self, bed: &Bed, port: u16) -> Slot {
        bed.maps().slot(bed.slot_of("promo", &self.key(port)))
    }

    /// The flow by this port is pinned to `endpoint`, and no other is pinned.
    fn pinned(&self, bed: &Bed, port: u16, endpoint: Option<EndpointId>) -> Result<()> {
        let pins: Vec<_> = bed.pins()?.into_iter().map(|(key, pin)| (key, pin.endpoint)).collect();
        assert_eq!(pins, endpoint.map(|endpoint| (self.key(port), endpoint)).into_iter().collect::<Vec<_>>());
        Ok(())
    }

    fn overflow(&self, bed: &Bed, endpoint: EndpointId) {
        let family = if self.kind.client().is_ipv4() { 4 } else { 6 };
        bed.maps().set_overflow(self.class as u8, family, &[endpoint; OVERFLOW_ROWS]);
    }
}

#[test]
fn a_new_flow_without_room_leaves_and_its_packets_follow() -> Result<()> {
    let mut bed = bed()?;
    for kind in Kind::tcp() {
        let flows = Flows::new(&bed, kind);
        bed.unpin_all()?;
        bed.fill("promo", Slot::stable(LOCAL));
        flows.overflow(&bed, flows.away);
        bed.maps().set_admission(flows.class as u8, NONE);
        bed.check(FROM_CLIENT, &flows.later("an older flow stays", 1000, LOCAL))?;
        let row = flows.opener("no room", 1000, flows.away).opens();
        bed.check(FROM_CLIENT, &row.notes(flows.class, Note::Surged).notes(flows.class, Note::Pinned))?;
        assert_eq!(flows.slot(&bed, 1000), Slot::stable(LOCAL).watch());
        flows.pinned(&bed, 1000, Some(flows.away))?;
        bed.check(FROM_CLIENT, &flows.later("its packets follow", 1000, flows.away).notes(flows.class, Note::PinHit))?;
        // A second flow of the slot tells the controller once more that there are pins it did not read.
        let same =
            (1001..).find(|port| bed.slot_of("promo", &flows.key(*port)) == bed.slot_of("promo", &flows.key(1000)));
        let same = same.expect("another port of the slot");
        let row = flows.opener("another", same, flows.away).opens();
        bed.check(FROM_CLIENT, &row.notes(flows.class, Note::Surged).notes(flows.class, Note::Pinned))?;
        assert_eq!(flows.slot(&bed, 1000), Slot::stable(LOCAL).watch().watch());

        bed.maps().set_admission(flows.class as u8, 0);
        bed.unpin_all()?;
        bed.fill("promo", Slot::stable(LOCAL));
        bed.check(FROM_CLIENT, &flows.opener("no limit", 1000, LOCAL).opens())?;
        bed.maps().set_admission(flows.class as u8, NONE);
        flows.overflow(&bed, LOCAL);
        bed.check(FROM_CLIENT, &flows.opener("no room anywhere", 1000, LOCAL).opens())?;
        flows.overflow(&bed, flows.away);
        bed.fill("promo", Slot::stable(flows.away));
        bed.check(FROM_CLIENT, &flows.opener("its slot is away", 1000, flows.away).opens())?;
        flows.pinned(&bed, 1000, None)?;
        bed.maps().set_admission(flows.class as u8, 0);
    }
    Ok(())
}

#[test]
fn as_many_stay_as_there_is_room_for() -> Result<()> {
    let mut bed = bed()?;
    for kind in Kind::tcp() {
        let flows = Flows::new(&bed, kind);
        bed.fill("promo", Slot::stable(LOCAL));
        flows.overflow(&bed, flows.away);
        // One flow in a quarter of an hour, and what may come at once.
        bed.maps().set_admission(flows.class as u8, 900_000_000_000);
        for port in 0..AT_ONCE as u16 + 4 {
            let row = if u64::from(port) <= AT_ONCE {
                flows.opener(&format!("number {port}"), 2000 + port, LOCAL).opens()
            } else {
                let row = flows.opener(&format!("number {port}"), 2000 + port, flows.away).opens();
                row.notes(flows.class, Note::Surged).notes(flows.class, Note::Pinned)
            };
            bed.check(FROM_CLIENT, &row)?;
        }
        bed.maps().set_admission(flows.class as u8, 0);
        // The families share the premises, and the next one begins anew here.
        bed.maps().set_due(flows.class as u8, 0);
        bed.unpin_all()?;
    }
    Ok(())
}

#[test]
fn a_repeated_opener_is_no_new_flow_and_goes_where_the_first_went() -> Result<()> {
    let mut bed = bed()?;
    for kind in Kind::tcp() {
        let flows = Flows::new(&bed, kind);
        let moved = Slot::stable(LOCAL).flip(flows.away);
        for (name, first, then, endpoint, pinned) in [
            ("stable", Slot::stable(LOCAL), Slot::stable(LOCAL), LOCAL, false),
            ("away", Slot::stable(flows.away), Slot::stable(flows.away), flows.away, false),
            ("across a flip", Slot::stable(LOCAL), moved, LOCAL, true),
            ("across a flip home", Slot::stable(flows.away), Slot::stable(flows.away).flip(LOCAL), flows.away, true),
            ("across a flip and its end", Slot::stable(LOCAL), moved.settle(true), LOCAL, true),
        ] {
            bed.unpin_all()?;
            bed.remember_openers(true);
            bed.fill("promo", first);
            bed.check(FROM_CLIENT, &flows.opener(&format!("{name}, first"), 3000, endpoint).opens())?;
            bed.fill("promo", then);
            let again = flows.opener(&format!("{name}, again"), 3000, endpoint).notes(flows.class, Note::Repeated);
            let again = if pinned { again.notes(flows.class, Note::Pinned) } else { again };
            bed.check(FROM_CLIENT, &again)?;
            let later = flows.later(name, 3000, endpoint);
            bed.check(FROM_CLIENT, &if pinned { later.notes(flows.class, Note::PinHit) } else { later })?;
            flows.pinned(&bed, 3000, pinned.then_some(endpoint))?;
        }
        // Not for ever: an epoch is a second.
        bed.unpin_all()?;
        bed.remember_openers(true);
        bed.fill("promo", Slot::stable(LOCAL));
        for (epoch, repeats) in [(5, false), (69, true), (134, false)] {
            bed.maps().set_control(false, epoch);
            let row = flows.opener(&format!("epoch {epoch}"), 3000, LOCAL);
            let row = if repeats { row.notes(flows.class, Note::Repeated) } else { row.opens() };
            bed.check(FROM_CLIENT, &row)?;
        }
        bed.maps().set_control(false, 0);
        // Nor is it one when it is of another connection by the same ports: another sequence number (RFC 9293, section 3.4.1).
        bed.remember_openers(true);
        let from = kind.at(FIRST_CLIENT, 3000);
        let numbered = |number| arriving(kind.opener(from, kind.shop(443)).sequence(number));
        for (name, number, repeats) in [("first", 7, false), ("again", 7, true), ("another", 8, false)] {
            let row = Row::passes(kind.row(name), numbered(number), flows.class, Reason::Local);
            let row = if repeats { row.notes(flows.class, Note::Repeated) } else { row.opens() };
            bed.check(FROM_CLIENT, &row)?;
        }
        // One that is repeated has its room already.
        bed.maps().set_admission(flows.class as u8, NONE);
        flows.overflow(&bed, flows.away);
        bed.remember_openers(true);
        bed.maps().set_admission(flows.class as u8, 0);
        bed.check(FROM_CLIENT, &flows.opener("with room", 3000, LOCAL).opens())?;
        bed.maps().set_admission(flows.class as u8, NONE);
        bed.check(FROM_CLIENT, &flows.opener("again, without", 3000, LOCAL).notes(flows.class, Note::Repeated))?;
        bed.maps().set_admission(flows.class as u8, 0);
        bed.remember_openers(false);
    }
    Ok(())
}

#[test]
fn when_nobody_leads_new_flows_come_home_slot_by_slot_and_no_other_moves() -> Result<()> {
    let mut bed = bed()?;
    for kind in Kind::tcp() {
        let flows = Flows::new(&bed, kind);
        for (name, lease, hold, step, home) in [
            ("no lease", 0, 0, 0, false),
            ("leased", FAR, 0, 0, false),
            ("held", 1, FAR, 0, false),
            ("the first part of the slots", 1, 0, FAR, false),
            ("all", 1, 0, 0, true),
        ] {
            bed.unpin_all()?;
            bed.fill("promo", Slot::stable(flows.away));
            bed.maps().set_home(hold, step);
            bed.maps().set_lease(lease);
            let port = (4000..).find(|port| bed.slot_of("promo", &flows.key(*port)) % 64 != 0).expect("a port");
            bed.check(FROM_CLIENT, &flows.later(name, port, flows.away))?;
            let row = flows.opener(name, port, if home { LOCAL } else { flows.away }).opens();
            let row = if home { row.notes(flows.class, Note::Homed).notes(flows.class, Note::Pinned) } else { row };
            bed.check(FROM_CLIENT, &row)?;
            let slot = if home { Slot::stable(flows.away).flip(LOCAL) } else { Slot::stable(flows.away) };
            assert_eq!(flows.slot(&bed, port), slot, "{name}");
            flows.pinned(&bed, port, home.then_some(LOCAL))?;
            let other = (port + 1..).find(|other| flows.slot(&bed, *other) == slot).expect("a port of the slot");
            let row = flows.later(&format!("{name}, another"), other, flows.away);
            bed.check(FROM_CLIENT, &if home { row.notes(flows.class, Note::Pinned) } else { row })?;
        }
        bed.maps().set_lease(0);
    }
    Ok(())
}

#[test]
fn where_no_link_leads_new_flows_stay_and_others_are_held() -> Result<()> {
    let mut bed = bed()?;
    for kind in Kind::tcp() {
        let flows = Flows::new(&bed, kind);
        let links = bed.maps().endpoint(flows.away).links;
        for (name, table, reason) in [("waited for", HELD_LINKS, Reason::Held), ("given up", 0, Reason::NoLink)] {
            bed.unpin_all()?;
            bed.fill("promo", Slot::stable(flows.away));
            bed.maps().set_endpoint_links(flows.away, table);
            let frame = arriving(kind.frame(kind.at(FIRST_CLIENT, 5000), kind.shop(443)));
            let row = if reason == Reason::Held {
                Row::dropped(kind.row(name), frame.clone(), flows.class, reason)
            } else {
                Row::passes(kind.row(name), frame.clone(), flows.class, reason)
            };
            bed.check(FROM_CLIENT, &row)?;
            let row = flows.opener(name, 5000, LOCAL).opens();
            bed.check(FROM_CLIENT, &row.notes(flows.class, Note::Stranded).notes(flows.class, Note::Pinned))?;
            assert_eq!(flows.slot(&bed, 5000), Slot::stable(flows.away).watch(), "the others are where they were");
            bed.maps().set_endpoint_links(flows.away, links);
            let row = flows.later("back again, it stays", 5000, LOCAL).notes(flows.class, Note::PinHit);
            bed.check(FROM_CLIENT, &row)?;
            let slot = bed.slot_of("promo", &flows.key(5000));
            let other =
                (5001..).find(|port| bed.slot_of("promo", &flows.key(*port)) == slot).expect("a port of the slot");
            bed.check(FROM_CLIENT, &flows.later("back again, others go on", other, flows.away))?;
        }
    }
    Ok(())
}

/// A UDP payload that begins as a QUIC packet with a long header does (RFC 9000, section 17.2).
fn long_header(first: u8, version: [u8; 4]) -> Vec<u8> {
    let mut payload = vec![first];
    payload.extend(version);
    payload.extend([8; 40]);
    payload
}

#[test]
fn quic_initials_open_flows_and_nothing_else_of_udp_does() -> Result<()> {
    let config = CONFIG.replacen("affinity = \"flow\"", "affinity = \"flow\"\nudp = \"quic\"", 1);
    let mut bed = Bed::new(&config)?;
    let (v1, v2) = ([0, 0, 0, 1], [0x6b, 0x33, 0x43, 0xcf]);
    for kind in Kind::ALL.into_iter().filter(|kind| !Kind::tcp().any(|tcp| tcp == *kind)) {
        let flows = Flows::new(&bed, kind);
        for (name, payload, opens) in [
            ("an Initial of version 1", long_header(0xc3, v1), true),
            ("an Initial of version 2", long_header(0xd0, v2), true),
            ("0-RTT of version 1", long_header(0xd0, v1), false),
            ("a Handshake of version 1", long_header(0xe0, v1), false),
            ("a Retry of version 2", long_header(0xc0, v2), false),
            ("a version nobody knows", long_header(0xc0, [0x1a; 4]), false),
            ("a short header", long_header(0x43, v1), false),
            ("no fixed bit", long_header(0x80, v1), false),
            ("too short for a version", vec![0xc3, 0, 0, 0], false),
            ("nothing", vec![], false),
        ] {
            let packet = |frame: Frame| frame.payload(&payload);
            bed.fill("promo", Slot::stable(flows.away));
            let row = flows.row(&format!("{name}, stable"), 6000, &packet, flows.away);
            bed.check(FROM_CLIENT, &if opens { row.opens() } else { row })?;
            bed.unpin_all()?;
            bed.fill("promo", Slot::new(flows.away, LOCAL, State::Transition, 0));
            let row = flows.row(name, 6000, &packet, if opens { flows.away } else { LOCAL });
            let row = if opens { row.opens() } else { row };
            bed.check(FROM_CLIENT, &row.notes(flows.class, Note::Pinned))?;
        }
    }
    // A class that does not ask for it does not have it.
    let mut plain = self::bed()?;
    for kind in Kind::ALL.into_iter().filter(|kind| !Kind::tcp().any(|tcp| tcp == *kind)) {
        let flows = Flows::new(&plain, kind);
        plain.unpin_all()?;
        plain.fill("promo", Slot::new(flows.away, LOCAL, State::Transition, 0));
        let row = flows.row("sticky", 6000, &|frame| frame.payload(&long_header(0xc3, v1)), LOCAL);
        plain.check(FROM_CLIENT, &row.notes(flows.class, Note::Pinned))?;
    }
    Ok(())
}

#[test]
fn each_datagram_is_placed_by_itself_where_that_is_asked_for() -> Result<()> {
    let config = CONFIG.replacen("affinity = \"flow\"", "affinity = \"flow\"\nudp = \"per-packet\"", 1);
    let mut bed = Bed::new(&config)?;
    for kind in Kind::ALL.into_iter().filter(|kind| !Kind::tcp().any(|tcp| tcp == *kind)) {
        let flows = Flows::new(&bed, kind);
        for state in [State::Stable, State::Transition, State::Pins] {
            bed.fill("promo", Slot::new(flows.away, LOCAL, state, 0));
            for again in ["once", "again"] {
                let row = flows.later(&format!("{state:?} {again}"), 7000, flows.away).opens();
                bed.check(FROM_CLIENT, &row)?;
            }
        }
        bed.fill("promo", Slot::stable(LOCAL));
        flows.overflow(&bed, flows.away);
        bed.maps().set_admission(flows.class as u8, NONE);
        let row = flows.later("no room", 7000, flows.away).opens().notes(flows.class, Note::Surged);
        bed.check(FROM_CLIENT, &row)?;
        assert_eq!((bed.pins()?, flows.slot(&bed, 7000)), (vec![], Slot::stable(LOCAL)), "nothing is remembered");
        bed.maps().set_admission(flows.class as u8, 0);
    }
    Ok(())
}
