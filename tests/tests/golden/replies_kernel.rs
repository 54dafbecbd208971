//! Replies that the routing table cannot send to their client at once: what the kernel gets to see of them.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use burst_common::reason::Reason;
use burst_tests::golden::{Bed, Leg, Row};
use burst_tests::packet::Frame;
use burst_tests::topology::{
    CLIENT_DEVICE, CLIENT_MAC, DX_DEVICE, EDGE_CLIENT_MAC, EDGE_ON_LINK, FIRST_CLIENT, Family, Pair,
};

use super::{FROM_DX, Kind, RENAMED, bed, homeward, promo_endpoint, replying};

/// MAC of the clients' gateway.
const GATEWAY_MAC: [u8; 6] = [0x00, 0x00, 0x5e, 0x00, 0x53, 0x0f];
/// The clients' gateway, a neighbour.
const GATEWAY: Pair = EDGE_ON_LINK.plus(1);
/// A client behind nothing: the test routes it.
const ROAMING: Pair =
    Pair { v4: Ipv4Addr::new(203, 0, 113, 200), v6: Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 1) };

/// A reply of the shop, or of the news, to a client: as it comes, with the service's name only, and wholly done.
struct Reply {
    kind: Kind,
    client: Pair,
    leg: Leg,
    renamed: bool,
}

impl Reply {
    fn all(bed: &Bed, client: Pair) -> Vec<Self> {
        let link = Some(bed.link("dx-1"));
        let of = |kind: Kind, renamed| {
            let promo = Some(promo_endpoint(bed, "reserved", kind.family));
            let (class, endpoint) = if renamed { ("promo", promo) } else { ("news", None) };
            Self { kind, client, leg: Leg { class: bed.class(class), endpoint, link }, renamed }
        };
        Kind::ALL.into_iter().flat_map(|kind| [of(kind, true), of(kind, false)]).collect()
    }

    fn packet(&self, home: bool, payload: &[u8]) -> Frame {
        let kind = self.kind;
        let from = match (self.renamed, home) {
            (false, _) => kind.news(),
            (true, false) => kind.reserved(RENAMED),
            (true, true) => kind.shop(443),
        };
        kind.frame(from, kind.at(self.client, 40_000)).payload(payload)
    }

    /// It is left to the kernel under the service's name: same MACs, same TTL.
    fn named(&self, reason: Reason, payload: &[u8]) -> Row {
        let name = self.kind.row(reason.text());
        let row = Row::passes(name, replying(self.packet(false, payload)), self.leg.class, reason);
        row.becomes(replying(self.packet(true, payload)))
    }

    /// It is not touched.
    fn untouched(&self, reason: Reason) -> Row {
        Row::passes(self.kind.row(reason.text()), replying(self.packet(false, b"reply")), 0, reason)
    }
}

/// `ip` commands, once per family: `{}` is the client's prefix, `{gw}` the gateway.
fn route(bed: &Bed, command: &str) -> Result<()> {
    for family in Family::ALL {
        let command =
            command.replace("{}", &ROAMING.of(family).to_string()).replace("{gw}", &GATEWAY.of(family).to_string());
        bed.edge().ip(&command)?;
    }
    Ok(())
}

#[test]
fn a_client_whose_neighbour_entry_is_missing_is_left_to_the_kernel_to_find() -> Result<()> {
    let mut bed = bed()?;
    for reply in Reply::all(&bed, FIRST_CLIENT.plus(1)) {
        bed.check(FROM_DX, &reply.named(Reason::NoNeighbour, b"reply"))?;
    }
    for family in Family::ALL {
        bed.neighbour(FIRST_CLIENT.plus(1).of(family), CLIENT_DEVICE, GATEWAY_MAC)?;
    }
    for reply in Reply::all(&bed, FIRST_CLIENT.plus(1)) {
        let out = reply.packet(true, b"reply").macs(EDGE_CLIENT_MAC, GATEWAY_MAC).ttl(63);
        let frame = replying(reply.packet(false, b"reply"));
        bed.check(FROM_DX, &Row::returns(reply.kind.row("found"), frame, CLIENT_DEVICE, reply.leg, out.build()))?;
    }
    Ok(())
}

#[test]
fn the_routing_table_says_where_a_client_is() -> Result<()> {
    let mut bed = bed()?;
    // No route at all reads as "not forwarded" in the lookup, like an address of this host.
    for (route_to, reason) in [
        ("", Reason::ToHost),
        ("unreachable", Reason::NoRoute),
        ("blackhole", Reason::NoRoute),
        ("prohibit", Reason::NoRoute),
    ] {
        if !route_to.is_empty() {
            route(&bed, &format!("route add {route_to} {{}}"))?;
        }
        for reply in Reply::all(&bed, ROAMING) {
            bed.check(FROM_DX, &reply.untouched(reason))?;
        }
        if !route_to.is_empty() {
            route(&bed, &format!("route del {route_to} {{}}"))?;
        }
    }
    for family in Family::ALL {
        bed.neighbour(GATEWAY.of(family), CLIENT_DEVICE, GATEWAY_MAC)?;
    }
    route(&bed, "route add {} via {gw}")?;
    for reply in Reply::all(&bed, ROAMING) {
        let out = reply.packet(true, b"reply").macs(EDGE_CLIENT_MAC, GATEWAY_MAC).ttl(63);
        let frame = replying(reply.packet(false, b"reply"));
        let row = Row::returns(reply.kind.row("behind a gateway"), frame, CLIENT_DEVICE, reply.leg, out.build());
        bed.check(FROM_DX, &row)?;
    }
    Ok(())
}

#[test]
fn without_forwarding_nothing_is_touched() -> Result<()> {
    let mut bed = bed()?;
    let set = |bed: &Bed, value| {
        let keys = [format!("net/ipv4/conf/{DX_DEVICE}/forwarding"), format!("net/ipv6/conf/{DX_DEVICE}/forwarding")];
        bed.edge().sysctl(&keys.each_ref().map(|key| (key.as_str(), value)))
    };
    set(&bed, "0")?;
    for reply in Reply::all(&bed, FIRST_CLIENT) {
        bed.check(FROM_DX, &reply.untouched(Reason::NoRoute))?;
    }
    set(&bed, "1")?;
    for reply in Reply::all(&bed, FIRST_CLIENT) {
        let (frame, out) = (replying(reply.packet(false, b"reply")), homeward(reply.packet(true, b"reply")));
        bed.check(FROM_DX, &Row::returns(reply.kind.row("forwarded"), frame, CLIENT_DEVICE, reply.leg, out))?;
    }
    Ok(())
}

#[test]
fn a_client_behind_a_device_that_is_not_bursts_is_left_to_the_kernel() -> Result<()> {
    let mut bed = bed()?;
    for reply in Reply::all(&bed, FIRST_CLIENT) {
        let row = reply.named(Reason::ReturnElsewhere, b"reply");
        bed.check_with(FROM_DX, &row, &[DX_DEVICE])?;
    }
    Ok(())
}

#[test]
fn a_reply_too_big_for_the_clients_side_is_left_to_the_kernel_to_answer() -> Result<()> {
    let mut bed = bed()?;
    bed.edge().ip(&format!("link set {CLIENT_DEVICE} mtu 1400"))?;
    for reply in Reply::all(&bed, FIRST_CLIENT) {
        let headers = reply.packet(false, b"").build().len() - 14;
        // Nobody may fragment it: the kernel answers the endpoint, which must recognise its own packet.
        let long = vec![7; 1401 - headers];
        let asked = replying(reply.packet(false, &long));
        let name = reply.kind.row("too big, whole");
        bed.check(FROM_DX, &Row::passes(name, asked, reply.leg.class, Reason::ReturnTooBig))?;
        if reply.kind.family == Family::V4 {
            let (frame, out) = (reply.packet(false, &long), reply.packet(true, &long));
            let name = reply.kind.row("too big, may be fragmented");
            let frame = replying(frame.dont_fragment(false));
            let row = Row::passes(name, frame, reply.leg.class, Reason::ReturnTooBig);
            bed.check(FROM_DX, &row.becomes(replying(out.dont_fragment(false))))?;
        }
        let fits = vec![7; 1400 - headers];
        let (frame, out) = (replying(reply.packet(false, &fits)), homeward(reply.packet(true, &fits)));
        bed.check(FROM_DX, &Row::returns(reply.kind.row("it fits"), frame, CLIENT_DEVICE, reply.leg, out))?;
    }
    Ok(())
}

#[test]
fn a_reply_at_the_end_of_its_way_is_the_kernels_to_answer() -> Result<()> {
    let mut bed = bed()?;
    for reply in Reply::all(&bed, FIRST_CLIENT) {
        for ttl in [0, 1] {
            let frame = replying(reply.packet(false, b"reply").ttl(ttl));
            let name = reply.kind.row(&format!("TTL {ttl}"));
            bed.check(FROM_DX, &Row::passes(name, frame, reply.leg.class, Reason::TtlExpired))?;
        }
        for ttl in [2, 255] {
            let frame = replying(reply.packet(false, b"reply").ttl(ttl));
            let out = reply.packet(true, b"reply").ttl(ttl - 1);
            let out = out.macs(EDGE_CLIENT_MAC, CLIENT_MAC).build();
            let name = reply.kind.row(&format!("TTL {ttl}"));
            bed.check(FROM_DX, &Row::returns(name, frame, CLIENT_DEVICE, reply.leg, out))?;
        }
    }
    Ok(())
}
