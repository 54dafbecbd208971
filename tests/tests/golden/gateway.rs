//! Replies through the cached gateway: no question to the routing table, but for the exceptions.

use anyhow::Result;
use burst_common::flow::wide;
use burst_common::gateway::{Except, Gateway};
use burst_common::link::Link;
use burst_common::reason::Reason;
use burst_tests::golden::{Bed, Leg, Row};
use burst_tests::packet::Frame;
use burst_tests::topology::{CLIENT_DEVICE, EDGE_CLIENT_MAC, Family, Pair};
use bytemuck::Zeroable as _;

use super::{FROM_DX, Kind, RENAMED, bed, homeward, news_leg, promo_leg, replying};

/// The gateway's MAC address: no neighbour entry has it.
const GATEWAY_MAC: [u8; 6] = [0x00, 0x00, 0x5e, 0x00, 0x53, 0x66];
/// A client to whom there is no route at all: only the gateway knows the way.
const FAR: Pair = Pair {
    v4: std::net::Ipv4Addr::new(192, 0, 2, 99),
    v6: std::net::Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, 0x99),
};

/// The row of a family: all clients but those on the link are behind the gateway.
fn row(bed: &Bed, family: Family) -> Gateway {
    let mut row = Gateway {
        macs: Link::macs(GATEWAY_MAC, EDGE_CLIENT_MAC),
        ifindex: bed.ifindex(CLIENT_DEVICE),
        mtu: 1500,
        exceptions: 2,
        ..Gateway::zeroed()
    };
    let [first, second] = match family {
        Family::V4 => [("203.0.113.0", "255.255.255.0"), ("198.51.100.0", "255.255.255.0")],
        Family::V6 => [("2001:db8:113::", "ffff:ffff:ffff:ffff::"), ("2001:db8:51::", "ffff:ffff:ffff:ffff::")],
    }
    .map(|(addr, mask)| Except {
        addr: wide(addr.parse().expect("an address")),
        mask: wide(mask.parse().expect("an address")),
    });
    (row.except[0], row.except[1]) = (first, second);
    row
}

fn number(family: Family) -> u8 {
    if family == Family::V4 { 4 } else { 6 }
}

/// As it goes to the gateway, one hop on.
fn through(frame: Frame) -> Vec<u8> {
    frame.macs(EDGE_CLIENT_MAC, GATEWAY_MAC).ttl(63).build()
}

#[test]
fn replies_go_through_the_gateway_and_exceptions_as_the_routing_table_says() -> Result<()> {
    let mut bed = bed()?;
    for kind in Kind::ALL {
        let (promo, news) = (promo_leg(&bed, kind), Leg { endpoint: None, ..news_leg(&bed) });
        let ways =
            [("dnat", kind.reserved(RENAMED), kind.shop(443), promo), ("nexthop", kind.news(), kind.news(), news)];
        for (name, from, becomes, leg) in ways {
            let far = |from| kind.frame(from, kind.at(FAR, 40_000));
            let near = |from| kind.frame(from, kind.client());
            bed.maps().set_gateway(number(kind.family), None);
            let stays = Row::passes(kind.row(name), replying(far(from)), 0, Reason::ToHost);
            bed.check(FROM_DX, &stays)?;
            let gateway = row(&bed, kind.family);
            bed.maps().set_gateway(number(kind.family), Some(&gateway));
            let row = Row::returns(kind.row(name), replying(far(from)), CLIENT_DEVICE, leg, through(far(becomes)));
            bed.check(FROM_DX, &row)?;
            let row = Row::returns(kind.row(name), replying(near(from)), CLIENT_DEVICE, leg, homeward(near(becomes)));
            bed.check(FROM_DX, &row)?;
            // An exception beyond those in use is none.
            bed.maps().set_gateway(number(kind.family), Some(&Gateway { exceptions: 1, ..gateway }));
            let row = Row::returns(kind.row(name), replying(near(from)), CLIENT_DEVICE, leg, through(near(becomes)));
            bed.check(FROM_DX, &row)?;
            bed.maps().set_gateway(number(kind.family), None);
            bed.check(FROM_DX, &stays)?;
        }
    }
    Ok(())
}

#[test]
fn each_family_has_its_own() -> Result<()> {
    let mut bed = bed()?;
    for kind in Kind::ALL {
        promo_leg(&bed, kind);
        let other = if kind.family == Family::V4 { Family::V6 } else { Family::V4 };
        let gateway = row(&bed, other);
        bed.maps().set_gateway(number(kind.family), None);
        bed.maps().set_gateway(number(other), Some(&gateway));
        let frame = replying(kind.frame(kind.reserved(RENAMED), kind.at(FAR, 40_000)));
        bed.check(FROM_DX, &Row::passes(kind.row("the other family's"), frame, 0, Reason::ToHost))?;
    }
    Ok(())
}

#[test]
fn a_vlan_of_the_gateways_is_written() -> Result<()> {
    let mut bed = bed()?;
    for kind in Kind::ALL {
        let leg = promo_leg(&bed, kind);
        let gateway = Gateway { vlan: 300, ..row(&bed, kind.family) };
        bed.maps().set_gateway(number(kind.family), Some(&gateway));
        let packet = |from| kind.frame(from, kind.at(FAR, 40_000));
        for vlans in [&[][..], &[0]] {
            let frame = replying(packet(kind.reserved(RENAMED)).vlans(vlans));
            let out = through(packet(kind.shop(443)).vlans(&[300]));
            let name = kind.row(&format!("VLANs {vlans:?}"));
            bed.check(FROM_DX, &Row::returns(name, frame, CLIENT_DEVICE, leg, out))?;
        }
    }
    Ok(())
}

#[test]
fn what_does_not_fit_is_left_to_the_kernel() -> Result<()> {
    let mut bed = bed()?;
    for kind in Kind::ALL {
        let leg = promo_leg(&bed, kind);
        let gateway = Gateway { mtu: 1400, ..row(&bed, kind.family) };
        bed.maps().set_gateway(number(kind.family), Some(&gateway));
        let packet = |from, size: usize| {
            let packet = kind.frame(from, kind.at(FAR, 40_000));
            let headers = packet.clone().payload(b"").build().len() - 14;
            packet.payload(&vec![7; size - headers])
        };
        let (from, becomes) = (kind.reserved(RENAMED), kind.shop(443));
        let (frame, out) = (replying(packet(from, 1400)), through(packet(becomes, 1400)));
        bed.check(FROM_DX, &Row::returns(kind.row("it fits"), frame, CLIENT_DEVICE, leg, out))?;
        let frame = replying(packet(from, 1401));
        let row = Row::passes(kind.row("one more: untouched"), frame, leg.class, Reason::ReturnTooBig);
        bed.check(FROM_DX, &row)?;
        if kind.family == Family::V4 {
            // The kernel may fragment it, and the client must know whom it is from.
            let frame = replying(packet(from, 1401).dont_fragment(false));
            let out = replying(packet(becomes, 1401).dont_fragment(false));
            let row = Row::passes(kind.row("one that may be cut"), frame, leg.class, Reason::ReturnTooBig).becomes(out);
            bed.check(FROM_DX, &row)?;
        }
    }
    Ok(())
}

#[test]
fn a_gateway_behind_a_device_that_is_not_bursts_is_the_kernels() -> Result<()> {
    let mut bed = bed()?;
    for kind in Kind::ALL {
        let leg = promo_leg(&bed, kind);
        let gateway = row(&bed, kind.family);
        bed.maps().set_gateway(number(kind.family), Some(&gateway));
        let packet = |from| kind.frame(from, kind.at(FAR, 40_000));
        let frame = replying(packet(kind.reserved(RENAMED)));
        let out = replying(packet(kind.shop(443)));
        let row = Row::passes(kind.row("elsewhere"), frame, leg.class, Reason::ReturnElsewhere).becomes(out);
        bed.check_with(FROM_DX, &row, &[])?;
    }
    Ok(())
}
