//! What is not at the beginning of a frame: behind options and extension headers, in fragments, tunnels and ICMP errors.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use burst_common::flow::TCP;
use burst_tests::packet::{Frame, checksum};
use burst_tests::topology::{EDGE_DX, FIRST_ENDPOINT, Family, PAYMENT};

use super::{CARDS, ICMP, IPIP, addresses, all, number, out, tuple};
use crate::Kind;

/// The IP packet of a frame.
fn packet(frame: Frame) -> Vec<u8> {
    frame.build()[14..].to_vec()
}

/// An ICMP error, to whoever sent the packet that it is about.
fn error(family: Family, from: IpAddr, to: IpAddr, about: &[u8]) -> Frame {
    let kind = if family == Family::V4 { [3, 4] } else { [2, 0] };
    let message = [&kind[..], &[0, 0, 0, 0, 0x05, 0x14], about].concat();
    let frame = Frame::other(from, to, ICMP[number(family)]);
    // ICMPv6 covers addresses, length and protocol as well (RFC 4443, section 2.3).
    let length = u32::try_from(message.len()).expect("a short message").to_be_bytes();
    let sum = match (from, to) {
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            checksum::sum(&[&from.octets(), &to.octets(), &length, &[0, ICMP[1]], &message])
        }
        _ => checksum::sum(&[&message]),
    };
    frame.payload(&[&message[..2], &(!sum).to_be_bytes(), &message[4..]].concat())
}

/// A packet inside others, from the edge to an endpoint.
fn tunnels(outer: Family, inner: Family, inside: &[u8]) -> Vec<(&'static str, Frame)> {
    let (from, to) = (EDGE_DX.of(outer), FIRST_ENDPOINT.of(outer));
    let udp = |port, payload: &[u8]| {
        Frame::udp(SocketAddr::new(from, 0xc123), SocketAddr::new(to, port)).no_udp_checksum().payload(payload)
    };
    let proto = IPIP[number(inner)];
    vec![
        ("IPIP", Frame::other(from, to, proto).payload(inside)),
        ("GUE", udp(6080, &[&[0, proto, 0, 0], inside].concat())),
        ("GUE on another port", udp(5555, &[&[0, proto, 0, 0], inside].concat())),
        ("GUE with options", udp(6080, &[&[2, proto, 0x80, 0], &[0x5a; 8][..], inside].concat())),
        ("GUE, variant 1", udp(6080, inside)),
        ("IPIP in a first fragment", Frame::other(from, to, proto).payload(inside).fragment(0, true)),
    ]
}

#[test]
fn options_and_extension_headers_hide_nothing() -> Result<()> {
    // NOPs and a timestamp (RFC 791); hop-by-hop, routing, destination options, mobility (RFC 8200, RFC 6275).
    let options = [&[1u8, 1, 1, 1][..], &[68, 8, 9, 0, 0, 0, 0, 0], &[131, 7, 4, 203, 0, 113, 9, 0]];
    let chains = [&[0u8][..], &[43], &[60], &[0, 43, 60], &[60, 60, 60, 60, 60, 60, 60], &[135, 139, 140]];
    for mut guarded in all()? {
        for kind in Kind::ALL {
            let ways = if kind.family == Family::V4 { options.len() } else { chains.len() };
            for way in 0..ways {
                let wrapped = |frame: Frame| match kind.family {
                    Family::V4 => frame.ip_options(options[way]),
                    Family::V6 => chains[way].iter().fold(frame, |frame, &number| frame.extension(number, &[0; 14])),
                };
                let cards = kind.at(CARDS, 40_000);
                let name = kind.row(&format!("way {way}"));
                let frame = out(wrapped(kind.frame(cards, kind.shop(443))));
                guarded.holds(&name, frame, tuple(cards, kind.shop(443), kind.proto))?;
                guarded.frees(&name, out(wrapped(kind.frame(kind.client(), kind.shop(443)))))?;
                guarded.frees(&name, out(wrapped(kind.frame(kind.client(), kind.at(PAYMENT.address, 444)))))?;
                if kind.proto == TCP {
                    let frame = out(wrapped(kind.frame(kind.client(), kind.payment())));
                    guarded.holds(&name, frame, tuple(kind.client(), kind.payment(), TCP))?;
                }
            }
        }
    }
    Ok(())
}

#[test]
fn an_authentication_header_hides_nothing() -> Result<()> {
    // RFC 4302, section 2: next header, length in words less two, reserved, SPI, sequence, twelve bytes of the value.
    let header = |next: u8| [&[next, 4, 0, 0][..], &[0x11; 20]].concat();
    for mut guarded in all()? {
        for kind in Kind::tcp() {
            let wrapped = |to| {
                let frame = kind.frame(kind.client(), to);
                let segment = packet(frame)[if kind.family == Family::V4 { 20 } else { 40 }..].to_vec();
                let payload = [header(TCP), segment].concat();
                out(Frame::other(kind.client().ip(), to.ip(), 51).payload(&payload))
            };
            let named = tuple(kind.client(), kind.payment(), TCP);
            guarded.holds(kind.row("payment"), wrapped(kind.payment()), named)?;
            guarded.frees(kind.row("the shop"), wrapped(kind.shop(443)))?;
        }
    }
    Ok(())
}

#[test]
fn what_cannot_be_read_to_its_ports_is_judged_by_its_addresses() -> Result<()> {
    for mut guarded in all()? {
        for kind in Kind::ALL {
            let news = kind.news();
            let sets = [(0, true), (100, true), (100, false)];
            for (offset, more) in sets {
                let name = |what: &str| kind.row(&format!("{what}, offset {offset}, more {more}"));
                for (what, to) in [("payment", kind.payment()), ("payment's other port", kind.at(PAYMENT.address, 444))]
                {
                    let frame = out(kind.frame(kind.client(), to).fragment(offset, more));
                    guarded.holds(name(what), frame, addresses(kind.client(), to, kind.proto))?;
                }
                guarded.frees(name("news"), out(kind.frame(kind.client(), news).fragment(offset, more)))?;
                let frame = out(kind.frame(kind.at(CARDS, 40_000), news).fragment(offset, more));
                guarded.holds(name("card networks"), frame, addresses(kind.at(CARDS, 0), news, kind.proto))?;
            }
            // An IPv6 packet with a fragment header that is whole (RFC 6946) has its ports.
            if kind.family == Family::V6 {
                let frame = out(kind.frame(kind.client(), kind.at(PAYMENT.address, 444)).fragment(0, false));
                guarded.frees(kind.row("atomic, payment's other port"), frame)?;
            }
            // Headers that end where the ports should be.
            for (to, kept) in [(kind.payment(), true), (news, false)] {
                let mut frame = out(kind.frame(kind.client(), to));
                frame.truncate(if kind.family == Family::V4 { 14 + 20 + 3 } else { 14 + 40 + 3 });
                let name = kind.row("cut in its ports");
                match kept {
                    true => guarded.holds(name, frame, addresses(kind.client(), to, kind.proto))?,
                    false => guarded.frees(name, frame)?,
                }
            }
        }
        // More extension headers than are walked; and a header that says it is shorter than it can be.
        let kind = Kind { family: Family::V6, proto: TCP };
        for (to, kept) in [(kind.at(PAYMENT.address, 444), true), (kind.news(), false)] {
            let frame = (0..9).fold(kind.frame(kind.client(), to), |frame, _| frame.extension(60, &[0; 6]));
            match kept {
                true => guarded.holds("a long chain", out(frame), addresses(kind.client(), to, 60))?,
                false => guarded.frees("a long chain", out(frame))?,
            }
        }
        let kind = Kind { family: Family::V4, proto: TCP };
        for (to, kept) in [(kind.at(PAYMENT.address, 444), true), (kind.news(), false)] {
            let mut frame = out(kind.frame(kind.client(), to));
            frame[14] = 0x44;
            match kept {
                true => guarded.holds("a short header", frame, addresses(kind.client(), to, TCP))?,
                false => guarded.frees("a short header", frame)?,
            }
        }
    }
    Ok(())
}

#[test]
fn an_error_about_payment_does_not_leave() -> Result<()> {
    for mut guarded in all()? {
        for kind in Kind::ALL {
            let (client, family) = (kind.client(), kind.family);
            let router = kind.at(EDGE_DX, 0).ip();
            // The packet that the error is about, and the flow that the error belongs to: its other direction.
            for (name, about, kept) in [
                ("payment's answer", (kind.payment(), client), kind.proto == TCP),
                ("another port's answer", (kind.at(PAYMENT.address, 444), client), false),
                ("the shop's answer", (kind.shop(443), client), false),
                ("a packet to payment", (client, kind.payment()), false),
                ("an answer to card networks", (kind.shop(443), kind.at(CARDS, 40_000)), true),
            ] {
                let (from, to) = about;
                let full = packet(kind.frame(from, to));
                let header = if family == Family::V4 { 20 } else { 40 };
                // As little as a router may quote (RFC 792), and all of it.
                for quoted in [&full[..header + 8], &full] {
                    let frame = out(error(family, router, from.ip(), quoted));
                    match kept {
                        true => guarded.holds(kind.row(name), frame, tuple(to, from, kind.proto))?,
                        false => guarded.frees(kind.row(name), frame)?,
                    }
                }
            }
            // Quoted so badly that the ports are not there.
            let header = if family == Family::V4 { 20 } else { 40 };
            for (from, kept) in [(kind.at(PAYMENT.address, 444), true), (kind.news(), false)] {
                let quoted = packet(kind.frame(from, client))[..header + 2].to_vec();
                let frame = out(error(family, router, from.ip(), &quoted));
                match kept {
                    true => guarded.holds(kind.row("cut short"), frame, addresses(client, from, kind.proto))?,
                    false => guarded.frees(kind.row("cut short"), frame)?,
                }
            }
            // No error: an echo request, with the same bytes behind it.
            let quoted = packet(kind.frame(kind.payment(), client));
            let mut echo = out(error(family, router, kind.payment().ip(), &quoted));
            echo[14 + header] = if family == Family::V4 { 8 } else { 128 };
            guarded.frees(kind.row("no error"), echo)?;
        }
    }
    Ok(())
}

#[test]
fn tunnels_hide_nothing() -> Result<()> {
    for mut guarded in all()? {
        for kind in Kind::ALL {
            for outer in Family::ALL {
                for (name, to, kept) in [
                    ("payment", kind.payment(), kind.proto == TCP),
                    ("the shop", kind.shop(443), false),
                    ("payment's other port", kind.at(PAYMENT.address, 444), false),
                ] {
                    let inside = packet(kind.frame(kind.client(), to));
                    for (tunnel, frame) in tunnels(outer, kind.family, &inside) {
                        let name = kind.row(&format!("{name} in {tunnel} over {outer:?}"));
                        match kept {
                            true => guarded.holds(name, out(frame), tuple(kind.client(), to, kind.proto))?,
                            false => guarded.frees(name, out(frame))?,
                        }
                    }
                }
                // An error about payment's answer, inside.
                let about = packet(kind.frame(kind.payment(), kind.client()));
                let inside = packet(error(kind.family, kind.client().ip(), kind.payment().ip(), &about));
                for (tunnel, frame) in tunnels(outer, kind.family, &inside) {
                    let name = kind.row(&format!("an error in {tunnel} over {outer:?}"));
                    match kind.proto == TCP {
                        true => guarded.holds(name, out(frame), tuple(kind.client(), kind.payment(), TCP))?,
                        false => guarded.frees(name, out(frame))?,
                    }
                }
                // A fragment inside.
                let to = kind.at(PAYMENT.address, 444);
                let inside = packet(kind.frame(kind.client(), to).fragment(100, true));
                for (tunnel, frame) in tunnels(outer, kind.family, &inside) {
                    let name = kind.row(&format!("a fragment in {tunnel} over {outer:?}"));
                    guarded.holds(name, out(frame), addresses(kind.client(), to, kind.proto))?;
                }
            }
        }
    }
    Ok(())
}

#[test]
fn what_only_looks_like_a_tunnel_goes() -> Result<()> {
    for mut guarded in all()? {
        for outer in Family::ALL {
            let kind = Kind { family: Family::V4, proto: TCP };
            let inside = packet(kind.frame(kind.client(), kind.payment()));
            let (from, to) = (EDGE_DX.of(outer), FIRST_ENDPOINT.of(outer));
            let udp = |payload: &[u8]| {
                out(Frame::udp(SocketAddr::new(from, 0xc123), SocketAddr::new(to, 6080)).payload(payload))
            };
            for (name, payload) in [
                ("a control message", [&[0x20, 4, 0, 0], &inside[..]].concat()),
                ("another protocol", [&[0, 6, 0, 0], &inside[..]].concat()),
                ("an IPv6 packet that is none", [&[0, 41, 0, 0], &inside[..]].concat()),
                ("as QUIC begins, with another length", [&inside[..], &[0]].concat()),
                ("a short datagram", vec![0, 4, 0, 0]),
                ("an empty one", vec![]),
            ] {
                guarded.frees(format!("{name} over {outer:?}"), udp(&payload))?;
            }
            // One level is looked into: what a tunnel in a tunnel holds is not seen.
            let twice = packet(Frame::other(from, to, IPIP[number(kind.family)]).payload(&inside));
            guarded.frees("two tunnels", out(Frame::other(from, to, IPIP[number(outer)]).payload(&twice)))?;
        }
    }
    Ok(())
}
