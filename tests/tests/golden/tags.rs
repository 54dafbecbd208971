//! VLAN tags: those of clients are theirs, those of links say which link a packet comes from or goes to.

use anyhow::Result;
use burst_common::endpoint::link_table;
use burst_common::policy::{ROLE_CLIENT, ROLE_LINK};
use burst_common::reason::Reason;
use burst_common::slot::Slot;
use burst_tests::golden::{Bed, Entry, Leg, Row, TAGGED_ONLY};
use burst_tests::packet::Frame;
use burst_tests::topology::{
    CLIENT_DEVICE, CLIENT_MAC, DX_DEVICE, FIRST_CLIENT, SECOND_DIRECT_CONNECT_MAC, SECOND_DX_DEVICE, SECOND_EDGE_DX_MAC,
};

use super::{
    CONFIG, FROM_CLIENT, FROM_DX, Kind, RENAMED, arriving, bed, homeward, leaving, news_leg, promo_endpoint, promo_leg,
    replying,
};

/// The second line's VLAN.
const VLAN: u16 = 101;
/// The second line, a trunk.
const FROM_TRUNK: Entry = Entry { device: SECOND_DX_DEVICE, role: ROLE_LINK, link: TAGGED_ONLY };

/// Tags, outermost first: ethertype, and priority and VLAN id in one.
type Tags = &'static [(u16, u16)];
/// What a client's switch may leave on a frame.
const CLIENTS: [(&str, Tags); 7] = [
    ("no tag", &[]),
    ("802.1Q", &[(0x8100, 100)]),
    ("the link's own VLAN id", &[(0x8100, VLAN)]),
    ("802.1Q with a priority", &[(0x8100, 0xb064)]),
    ("a tag for priority alone", &[(0x8100, 0xe000)]),
    ("802.1ad, then 802.1Q", &[(0x88a8, 100), (0x8100, 7)]),
    ("802.1Q twice", &[(0x8100, 100), (0x8100, 7)]),
];

/// The golden configuration, its second line on a VLAN.
fn trunk() -> Result<Bed> {
    let hop = "next_hop = \"10.64.1.1\"\n";
    Bed::new(&CONFIG.replace(hop, &format!("{hop}vlan = {VLAN}\n")))
}

/// The frame with tags.
fn tagged(mut frame: Vec<u8>, tags: Tags) -> Vec<u8> {
    let bytes: Vec<u8> =
        tags.iter().flat_map(|&(kind, control)| [kind.to_be_bytes(), control.to_be_bytes()].concat()).collect();
    frame.splice(12..12, bytes);
    frame
}

/// As it leaves on the trunk, one hop on.
fn leaving_tagged(frame: Frame) -> Vec<u8> {
    frame.vlans(&[VLAN]).macs(SECOND_EDGE_DX_MAC, SECOND_DIRECT_CONNECT_MAC).ttl(63).build()
}

/// As it comes from the trunk, without its tag.
fn from_trunk(frame: Frame) -> Vec<u8> {
    frame.macs(SECOND_DIRECT_CONNECT_MAC, SECOND_EDGE_DX_MAC).build()
}

#[test]
fn a_clients_tags_do_not_leave_on_an_untagged_link() -> Result<()> {
    let mut bed = bed()?;
    for kind in Kind::ALL {
        let (promo, news) = (promo_leg(&bed, kind), news_leg(&bed));
        for (name, tags) in CLIENTS {
            let packet = |to| kind.frame(kind.client(), to);
            for (to, becomes, leg) in
                [(kind.shop(443), kind.reserved(RENAMED), promo), (kind.news(), kind.news(), news)]
            {
                let (frame, out) = (tagged(arriving(packet(to)), tags), leaving(packet(becomes)));
                bed.check(FROM_CLIENT, &Row::leaves(kind.row(name), frame, DX_DEVICE, leg, out))?;
            }
            // What stays keeps them.
            let payment = tagged(arriving(packet(kind.payment())), tags);
            let (class, reason) =
                if kind.proto == 6 { (bed.class("payment"), Reason::Keep) } else { (0, Reason::NoMatch) };
            bed.check(FROM_CLIENT, &Row::passes(kind.row(name), payment, class, reason))?;
        }
    }
    Ok(())
}

#[test]
fn the_links_tag_takes_the_place_of_all_a_frame_had() -> Result<()> {
    let mut bed = trunk()?;
    let link = bed.link("dx-2");
    for kind in Kind::ALL {
        let elastic = promo_endpoint(&bed, "elastic", kind.family);
        bed.fill("promo", Slot::stable(elastic));
        bed.maps().set_endpoint_links(elastic, link_table(&[link]));
        let promo = Leg { class: bed.class("promo"), endpoint: Some(elastic), link: Some(link) };
        let news = Leg { link: Some(link), ..news_leg(&bed) };
        bed.maps().set_endpoint_links(bed.endpoint("news/flat"), link_table(&[link]));
        for (name, tags) in CLIENTS {
            let packet = |to| kind.frame(kind.client(), to);
            for (to, becomes, leg) in [(kind.shop(443), kind.elastic(RENAMED), promo), (kind.news(), kind.news(), news)]
            {
                let (frame, out) = (tagged(arriving(packet(to)), tags), leaving_tagged(packet(becomes)));
                bed.check(FROM_CLIENT, &Row::leaves(kind.row(name), frame, SECOND_DX_DEVICE, leg, out))?;
            }
        }
    }
    Ok(())
}

#[test]
fn replies_of_a_trunk_are_known_by_the_links_tag() -> Result<()> {
    let mut bed = trunk()?;
    for kind in Kind::ALL {
        let elastic = promo_endpoint(&bed, "elastic", kind.family);
        let leg = Leg { class: bed.class("promo"), endpoint: Some(elastic), link: Some(bed.link("dx-2")) };
        let packet = |from| kind.frame(from, kind.client());
        let reply = || from_trunk(packet(kind.elastic(RENAMED)));
        let ours: [(&str, Tags); 4] = [
            ("the link's tag", &[(0x8100, VLAN)]),
            ("with a priority", &[(0x8100, 0xa000 | VLAN)]),
            ("802.1ad", &[(0x88a8, VLAN)]),
            ("another inside it", &[(0x88a8, VLAN), (0x8100, 7)]),
        ];
        for (name, tags) in ours {
            let out = homeward(packet(kind.shop(443)));
            bed.check(FROM_TRUNK, &Row::returns(kind.row(name), tagged(reply(), tags), CLIENT_DEVICE, leg, out))?;
            let frame = tagged(from_trunk(packet(kind.news())), tags);
            let news = Leg { class: bed.class("news"), endpoint: None, ..leg };
            let out = homeward(packet(kind.news()));
            bed.check(FROM_TRUNK, &Row::returns(kind.row(name), frame, CLIENT_DEVICE, news, out))?;
        }
        let others: [(&str, Tags); 4] = [
            ("no tag: no link is untagged", &[]),
            ("a tag for priority alone", &[(0x8100, 0xe000)]),
            ("another VLAN", &[(0x8100, VLAN + 1)]),
            ("the link's tag inside another", &[(0x88a8, 7), (0x8100, VLAN)]),
        ];
        for (name, tags) in others {
            let row = Row::passes(kind.row(name), tagged(reply(), tags), 0, Reason::NotReturn);
            bed.check(FROM_TRUNK, &row)?;
        }
    }
    Ok(())
}

#[test]
fn an_untagged_link_takes_a_tag_for_priority_and_no_other() -> Result<()> {
    let mut bed = bed()?;
    for kind in Kind::ALL {
        let leg = promo_leg(&bed, kind);
        let packet = |from| kind.frame(from, kind.client());
        let reply = || replying(packet(kind.reserved(RENAMED)));
        let out = homeward(packet(kind.shop(443)));
        let frame = tagged(reply(), &[(0x8100, 0xe000)]);
        bed.check(FROM_DX, &Row::returns(kind.row("priority"), frame, CLIENT_DEVICE, leg, out))?;
        let row = Row::passes(kind.row("a VLAN"), tagged(reply(), &[(0x8100, 5)]), 0, Reason::NotReturn);
        bed.check(FROM_DX, &row)?;
    }
    Ok(())
}

#[test]
fn on_one_trunk_with_the_clients_the_tag_and_the_source_tell_the_direction() -> Result<()> {
    let mut bed = trunk()?;
    let link = bed.link("dx-2");
    let shared = Entry { role: ROLE_CLIENT | ROLE_LINK, ..FROM_TRUNK };
    for kind in Kind::ALL {
        let elastic = promo_endpoint(&bed, "elastic", kind.family);
        bed.fill("promo", Slot::stable(elastic));
        bed.maps().set_endpoint_links(elastic, link_table(&[link]));
        let leg = Leg { class: bed.class("promo"), endpoint: Some(elastic), link: Some(link) };
        let ways: [(&str, Tags); 3] =
            [("untagged", &[]), ("the clients' VLAN", &[(0x8100, 100)]), ("the link's VLAN", &[(0x8100, VLAN)])];
        for (name, tags) in ways {
            let packet = |to| kind.frame(kind.client(), to);
            let frame = tagged(from_trunk(packet(kind.shop(443))), tags);
            let out = leaving_tagged(packet(kind.elastic(RENAMED)));
            bed.check(shared, &Row::leaves(kind.row(name), frame, SECOND_DX_DEVICE, leg, out))?;
            // An endpoint speaks on its link's VLAN alone.
            let packet = |from| kind.frame(from, kind.client());
            let frame = tagged(from_trunk(packet(kind.elastic(RENAMED))), tags);
            let row = if name == "the link's VLAN" {
                Row::returns(kind.row(name), frame, CLIENT_DEVICE, leg, homeward(packet(kind.shop(443))))
            } else {
                Row::passes(kind.row(name), frame, 0, Reason::NoMatch)
            };
            bed.check(shared, &row)?;
        }
    }
    Ok(())
}

#[test]
fn a_client_behind_a_vlan_device_gets_its_tag() -> Result<()> {
    let mut bed = bed()?;
    let client = FIRST_CLIENT.plus(40);
    for family in burst_tests::topology::Family::ALL {
        let bits = if client.of(family).is_ipv4() { 32 } else { 128 };
        bed.edge().ip(&format!("route add {}/{bits} dev {SECOND_DX_DEVICE}", client.of(family)))?;
        bed.neighbour(client.of(family), SECOND_DX_DEVICE, CLIENT_MAC)?;
    }
    // The routing table names a device of its own for each VLAN; here the second line's stands for one.
    let names: [(&str, Tags); 2] = [("untagged", &[]), ("tagged for priority", &[(0x8100, 0xe000)])];
    for known in [false, true] {
        if known {
            bed.vlan_device(SECOND_DX_DEVICE, CLIENT_DEVICE, 200)?;
        }
        for kind in Kind::ALL {
            let leg = promo_leg(&bed, kind);
            let packet = |from| kind.frame(from, kind.at(client, 40_000));
            for (name, tags) in names {
                let frame = tagged(replying(packet(kind.reserved(RENAMED))), tags);
                if known {
                    let out = packet(kind.shop(443)).vlans(&[200]).macs(SECOND_EDGE_DX_MAC, CLIENT_MAC).ttl(63).build();
                    bed.check(FROM_DX, &Row::returns(kind.row(name), frame, CLIENT_DEVICE, leg, out))?;
                } else {
                    // Not a device of burst's, nor one on it: rewritten, and the kernel's.
                    let out = tagged(replying(packet(kind.shop(443))), tags);
                    let row = Row::passes(kind.row(name), frame, leg.class, Reason::ReturnElsewhere).becomes(out);
                    bed.check_with(FROM_DX, &row, &[CLIENT_DEVICE])?;
                }
            }
        }
    }
    Ok(())
}
