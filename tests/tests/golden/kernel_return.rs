//! From a link that the kernel routes: replies go home under the name the client knows, everything else is the kernel's. Each
//! row runs twice: with no checksum known, and with one over the whole packet, which the kernel holds against what comes out.

use anyhow::Result;
use burst_common::reason::Reason;
use burst_tests::golden::kernel_return::{KernelReturn, Sum};
use burst_tests::golden::{Bed, Leg, Row};
use burst_tests::packet::checksum::verify;
use burst_tests::packet::{Frame, flag, icmp};
use burst_tests::topology::{
    CLIENTS, DIRECT_CONNECT, EDGE_DX, EDGE_ON_LINK, FIRST_CLIENT, Family, SECOND_DIRECT_CONNECT_MAC, SECOND_DX_DEVICE,
    SECOND_EDGE_DX_MAC,
};

use super::{CONFIG, Kind, PLAIN_PORT, RENAMED, promo_endpoint};

/// A host whose second line is a VPN.
struct Vpn {
    bed: Bed,
    program: KernelReturn,
}

impl Vpn {
    fn new() -> Result<Self> {
        let bed = Bed::new(&CONFIG.replace("next_hop = \"10.64.1.1\"\n", "via = \"kernel\"\n"))?;
        let program = bed.kernel_return(SECOND_DX_DEVICE, bed.link("dx-2"))?;
        Ok(Self { bed, program })
    }

    /// What a reply of the tier is counted under.
    fn leg(&self, tier: &str, kind: Kind) -> Leg {
        let endpoint = promo_endpoint(&self.bed, tier, kind.family);
        Leg { class: self.bed.class("promo"), endpoint: Some(endpoint), link: Some(self.bed.link("dx-2")) }
    }

    #[track_caller]
    fn check(&mut self, row: &Row) -> Result<()> {
        assert!(self.bed.check_return(&mut self.program, Sum::None, row)?);
        if !self.bed.check_return(&mut self.program, Sum::Complete, row)? {
            println!("not run with a complete checksum, which test runs have from Linux 6.16 on: {}", row.name);
        }
        Ok(())
    }
}

/// As it comes from the VPN.
fn coming(frame: Frame) -> Vec<u8> {
    frame.macs(SECOND_DIRECT_CONNECT_MAC, SECOND_EDGE_DX_MAC).build()
}

/// As it goes on, one hop less; its MAC addresses are the kernel's to write.
fn going(frame: Frame) -> Vec<u8> {
    let out = coming(frame.ttl(63));
    verify(&out).expect("valid checksums");
    out
}

#[test]
fn the_program_loads() -> Result<()> {
    let mut vpn = Vpn::new()?;
    let info = vpn.program.program()?.info()?;
    let (verified, bytes) = (info.verified_instruction_count(), info.size_translated());
    println!("burst_return: {verified:?} instructions verified, {bytes:?} bytes translated");
    assert!(bytes.is_some_and(|bytes| bytes > 0));
    Ok(())
}

#[test]
fn replies_get_the_services_name_back() -> Result<()> {
    let mut vpn = Vpn::new()?;
    for kind in Kind::ALL {
        for (tier, from) in [("reserved", kind.reserved(0)), ("elastic", kind.elastic(0))] {
            let leg = vpn.leg(tier, kind);
            for (port, becomes) in [(RENAMED, 443), (8080, 80), (PLAIN_PORT, PLAIN_PORT)] {
                for length in [0, 1, 2, 11, 1400] {
                    let payload: Vec<u8> = (0..length).map(|n: u32| (n * 5 + 1) as u8).collect();
                    let packet = |from| kind.frame(from, kind.client()).payload(&payload).tos(0x03);
                    let frame = coming(packet(std::net::SocketAddr::new(from.ip(), port)));
                    let out = going(packet(kind.shop(becomes)));
                    let name = kind.row(&format!("{tier}, port {port}, {length} bytes"));
                    vpn.check(&Row::returns_from_kernel(name, frame, leg, out))?;
                }
            }
        }
    }
    for kind in Kind::tcp() {
        let leg = vpn.leg("elastic", kind);
        for flags in [flag::SYN | flag::ACK, flag::RST, flag::FIN | flag::ACK] {
            let packet = |from| Frame::tcp(from, kind.client(), flags);
            let (frame, out) = (coming(packet(kind.elastic(RENAMED))), going(packet(kind.shop(443))));
            let name = kind.row(&format!("flags {flags:#04x}"));
            vpn.check(&Row::returns_from_kernel(name, frame, leg, out))?;
        }
    }
    Ok(())
}

#[test]
fn options_extension_headers_and_missing_checksums_are_no_hindrance() -> Result<()> {
    let mut vpn = Vpn::new()?;
    for kind in Kind::ALL {
        let leg = vpn.leg("elastic", kind);
        let with = |from| match kind.family {
            Family::V4 => kind.frame(from, kind.client()).ip_options(&[148, 4, 0, 0]),
            Family::V6 => kind.frame(from, kind.client()).extension(0, &[1, 4, 0, 0, 0, 0]),
        };
        let (frame, out) = (coming(with(kind.elastic(RENAMED))), going(with(kind.shop(443))));
        vpn.check(&Row::returns_from_kernel(kind.row("options"), frame, leg, out))?;
        if kind.proto == 17 {
            let none = |from| Frame::udp(from, kind.client()).no_udp_checksum().payload(b"none");
            let frame = coming(none(kind.elastic(RENAMED)));
            let out = coming(none(kind.shop(443)).ttl(63));
            vpn.check(&Row::returns_from_kernel(kind.row("no checksum"), frame, leg, out))?;
        }
    }
    Ok(())
}

#[test]
fn a_syn_ack_offers_what_the_smallest_link_carries() -> Result<()> {
    let mut vpn = Vpn::new()?;
    for kind in Kind::tcp() {
        let leg = vpn.leg("elastic", kind);
        // 1400 bytes on the VPN, less the headers of IP (20 or 40) and TCP (20).
        let most: u16 = 1400 - 20 - if kind.family == Family::V4 { 20 } else { 40 };
        let [high, low] = 9000u16.to_be_bytes();
        let [new_high, new_low] = most.to_be_bytes();
        // The option, at even and odd offsets, behind others, and with a length that is none of its own.
        let lists: [(&[u8], &[u8]); 5] = [
            (&[2, 4, high, low], &[2, 4, new_high, new_low]),
            (&[1, 2, 4, high, low, 0, 0, 0], &[1, 2, 4, new_high, new_low, 0, 0, 0]),
            (&[4, 2, 3, 3, 7, 2, 4, high, low, 0, 0, 0], &[4, 2, 3, 3, 7, 2, 4, new_high, new_low, 0, 0, 0]),
            (&[2, 3, high, low], &[2, 3, high, low]),
            (&[0, 2, 4, high, low, 0, 0, 0], &[0, 2, 4, high, low, 0, 0, 0]),
        ];
        for (offered, left) in lists {
            let packet = |from, options| Frame::tcp(from, kind.client(), flag::SYN | flag::ACK).tcp_options(options);
            let (frame, out) = (coming(packet(kind.elastic(RENAMED), offered)), going(packet(kind.shop(443), left)));
            let name = kind.row(&format!("options {offered:?}"));
            vpn.check(&Row::returns_from_kernel(name, frame, leg, out))?;
        }
        for size in [most, most - 1, 536] {
            let packet = |from| Frame::tcp(from, kind.client(), flag::SYN | flag::ACK).mss(size);
            let (frame, out) = (coming(packet(kind.elastic(RENAMED))), going(packet(kind.shop(443))));
            vpn.check(&Row::returns_from_kernel(kind.row(&format!("{size} offered")), frame, leg, out))?;
        }
        let packet = |from| Frame::tcp(from, kind.client(), flag::ACK).mss(9000);
        let (frame, out) = (coming(packet(kind.elastic(RENAMED))), going(packet(kind.shop(443))));
        vpn.check(&Row::returns_from_kernel(kind.row("an ACK"), frame, leg, out))?;
    }
    Ok(())
}

#[test]
fn an_error_goes_to_the_client_about_its_own_packet() -> Result<()> {
    let mut vpn = Vpn::new()?;
    for kind in Kind::ALL {
        let leg = vpn.leg("elastic", kind);
        let header = if kind.family == Family::V4 { 20 } else { 40 };
        let head = if kind.family == Family::V4 { [3, 4] } else { [2, 0] };
        // From a router on the way, or the endpoint itself: to the client it is the service.
        for from in [DIRECT_CONNECT.of(kind.family), kind.elastic(0).ip()] {
            for behind in [8, 16, 18, 20, 25, 1000] {
                let error = |from, about: std::net::SocketAddr| {
                    let packet = kind.frame(kind.client(), about).ttl(17).build();
                    icmp::error(from, kind.client().ip(), head, [0, 0, 5, 0x14], &packet, header + behind)
                };
                let frame = coming(error(from, kind.elastic(RENAMED)));
                let out = going(error(kind.shop(0).ip(), kind.shop(443)));
                let name = kind.row(&format!("from {from}, {behind} bytes"));
                vpn.check(&Row::returns_from_kernel(name, frame, leg, out))?;
            }
        }
        let none = |about: std::net::SocketAddr| Frame::udp(kind.client(), about).no_udp_checksum().build();
        let error = |from, about| icmp::error(from, kind.client().ip(), head, [0; 4], &none(about), 1000);
        if kind.proto == 17 {
            let frame = coming(error(kind.elastic(0).ip(), kind.elastic(RENAMED)));
            let out = going(error(kind.shop(0).ip(), kind.shop(443)));
            vpn.check(&Row::returns_from_kernel(kind.row("no checksum inside"), frame, leg, out))?;
        }
        // About a packet that is not the client's, or goes to no endpoint.
        let other = std::net::SocketAddr::new(FIRST_CLIENT.plus(1).of(kind.family), 40_000);
        for (name, from, to, reason) in [
            ("another's packet", other, kind.elastic(RENAMED), Reason::Protocol),
            ("to an endpoint's other port", kind.client(), kind.elastic(22), Reason::NotReturn),
        ] {
            let packet = kind.frame(from, to).build();
            let error = icmp::error(kind.elastic(0).ip(), kind.client().ip(), head, [0; 4], &packet, 1000);
            vpn.check(&Row::passes(kind.row(name), coming(error), 0, reason))?;
        }
    }
    Ok(())
}

#[test]
fn what_is_no_reply_is_not_touched() -> Result<()> {
    let mut vpn = Vpn::new()?;
    for kind in Kind::ALL {
        let client = kind.client();
        for (name, from, to) in [
            ("an endpoint's other port", kind.elastic(22), client),
            ("the shop's own address", kind.shop(443), client),
            ("nobody", kind.at(DIRECT_CONNECT, 443), client),
        ] {
            let row = Row::passes(kind.row(name), coming(kind.frame(from, to)), 0, Reason::NotReturn);
            vpn.check(&row)?;
        }
        if kind.proto == 6 {
            let frame = coming(kind.frame(kind.elastic(RENAMED), kind.payment()));
            vpn.check(&Row::passes(kind.row("to payment"), frame, 0, Reason::NotReturn))?;
        }
        for own in [EDGE_DX, EDGE_ON_LINK] {
            let frame = coming(kind.frame(kind.elastic(RENAMED), kind.at(own, 33_000)));
            vpn.check(&Row::passes(kind.row("to this host"), frame, 0, Reason::ToHost))?;
        }
        let promo = vpn.bed.class("promo");
        for ttl in [0, 1] {
            let frame = coming(kind.frame(kind.elastic(RENAMED), client).ttl(ttl));
            vpn.check(&Row::passes(kind.row(&format!("TTL {ttl}")), frame, promo, Reason::TtlExpired))?;
        }
        let fragment = coming(kind.frame(kind.elastic(RENAMED), client).fragment(0, true));
        let bytes = fragment.len();
        vpn.check(&Row::passes(kind.row("a first fragment"), fragment, 0, Reason::Fragment).bytes(bytes))?;
        let other = kind.frame(kind.elastic(RENAMED), client).macs(SECOND_DIRECT_CONNECT_MAC, [2, 0, 0, 0, 9, 9]);
        vpn.check(&Row::passes(kind.row("for another host"), other.build(), 0, Reason::OtherHost))?;

        vpn.bed.maps().set_control(true, 0);
        let frame = coming(kind.frame(kind.elastic(RENAMED), client));
        vpn.check(&Row::passes(kind.row("bypass"), frame, promo, Reason::Bypass))?;
        vpn.bed.maps().set_control(false, 0);
    }
    Ok(())
}

#[test]
fn a_client_whose_neighbour_is_not_known_is_the_kernels_to_find() -> Result<()> {
    let mut vpn = Vpn::new()?;
    for kind in Kind::ALL {
        let leg = vpn.leg("elastic", kind);
        let unknown = kind.at(FIRST_CLIENT.plus(CLIENTS), 40_000);
        let packet = |from| kind.frame(from, unknown);
        let (frame, out) = (coming(packet(kind.elastic(RENAMED))), going(packet(kind.shop(443))));
        vpn.check(&Row::returns_from_kernel(kind.row("no neighbour"), frame, leg, out))?;
    }
    Ok(())
}

#[test]
fn what_does_not_fit_the_clients_side_is_left_to_the_kernel() -> Result<()> {
    let mut vpn = Vpn::new()?;
    let promo = vpn.bed.class("promo");
    vpn.bed.edge().ip("link set dev client0 mtu 1280")?;
    for kind in Kind::ALL {
        let leg = vpn.leg("elastic", kind);
        let header = if kind.family == Family::V4 { 20 } else { 40 } + if kind.proto == 6 { 20 } else { 8 };
        let packet = |from, size: usize| kind.frame(from, kind.client()).payload(&vec![1; size - header]);
        let (frame, out) = (coming(packet(kind.elastic(RENAMED), 1280)), going(packet(kind.shop(443), 1280)));
        vpn.check(&Row::returns_from_kernel(kind.row("fits"), frame, leg, out))?;
        let frame = coming(packet(kind.elastic(RENAMED), 1281));
        vpn.check(&Row::passes(kind.row("the endpoint must hear of it"), frame, promo, Reason::ReturnTooBig))?;
        if kind.family == Family::V4 {
            let packet = |from| packet(from, 1281).dont_fragment(false);
            let (frame, out) = (coming(packet(kind.elastic(RENAMED))), coming(packet(kind.shop(443))));
            let row = Row::passes(kind.row("may be fragmented"), frame, promo, Reason::ReturnTooBig).becomes(out);
            vpn.check(&row)?;
        }
    }
    Ok(())
}
