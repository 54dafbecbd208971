//! IPv4 options and IPv6 extension headers that are understood: the packet leaves, and comes back, with them as they are.

use anyhow::Result;
use burst_tests::golden::{Leg, Row};
use burst_tests::packet::Frame;
use burst_tests::packet::checksum::verify;
use burst_tests::topology::{CLIENT_DEVICE, DX_DEVICE, Family};

use super::{FROM_CLIENT, FROM_DX, Kind, RENAMED, arriving, bed, homeward, leaving, news_leg, promo_leg, replying};

/// A change to a frame.
type Change = fn(Frame) -> Frame;

/// Option lists of IPv4 (RFC 791, section 3.1).
const OPTIONS: [(&str, Change); 8] = [
    ("one option of padding and an end", |frame| frame.ip_options(&[1, 0, 0, 0])),
    ("an end at once", |frame| frame.ip_options(&[0, 131, 137, 1])),
    ("ten of padding, then an end", |frame| frame.ip_options(&[1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0])),
    ("router alert (RFC 2113)", |frame| frame.ip_options(&[148, 4, 0, 0])),
    ("padding, then router alert", |frame| frame.ip_options(&[1, 148, 4, 0, 0, 1, 1, 0])),
    ("a timestamp", |frame| frame.ip_options(&[68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
    ("record route, 40 bytes in all", |frame| {
        let mut option = [0; 40];
        option[..3].copy_from_slice(&[7, 39, 4]);
        frame.ip_options(&option)
    }),
    ("an option nobody knows", |frame| frame.ip_options(&[94, 8, 9, 9, 9, 9, 9, 9])),
];

/// Chains of IPv6 (RFC 8200, section 4).
const EXTENSIONS: [(&str, Change); 8] = [
    ("hop-by-hop options", |frame| frame.extension(0, &[1, 4, 0, 0, 0, 0])),
    ("hop-by-hop options, longer: router alert (RFC 2711)", |frame| {
        frame.extension(0, &[5, 2, 0, 0, 1, 8, 0, 0, 0, 0, 0, 0, 0, 0])
    }),
    ("destination options", |frame| frame.extension(60, &[1, 4, 0, 0, 0, 0])),
    ("a route that is over", |frame| {
        frame.extension(43, &[0, 0, 0, 0, 0, 0, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9])
    }),
    ("an atomic fragment (RFC 6946)", |frame| frame.fragment(0, false)),
    ("all of them, in the order of the RFC", |frame| {
        let padding = [1, 4, 0, 0, 0, 0];
        frame.extension(0, &padding).extension(60, &padding).extension(43, &[0, 0, 0, 0, 0, 0]).fragment(0, false)
    }),
    ("as many as are walked", |frame| (0..6).fold(frame, |frame, _| frame.extension(60, &[1, 4, 0, 0, 0, 0]))),
    ("256 bytes of them", |frame| frame.extension(60, &[0; 254])),
];

fn changes(kind: Kind) -> [(&'static str, Change); 8] {
    if kind.family == Family::V4 { OPTIONS } else { EXTENSIONS }
}

#[test]
fn a_packet_with_options_leaves_with_them() -> Result<()> {
    let mut bed = bed()?;
    for kind in Kind::ALL {
        let (promo, news) = (promo_leg(&bed, kind), news_leg(&bed));
        for (name, change) in changes(kind) {
            let packet = |to| change(kind.frame(kind.client(), to).tos(0x2e));
            let out = leaving(packet(kind.reserved(RENAMED)));
            // An atomic fragment is one to the verifier, too, which takes no fragment's transport checksum for one.
            verify(&out)?;
            let row = Row::leaves(kind.row(name), arriving(packet(kind.shop(443))), DX_DEVICE, promo, out);
            bed.check(FROM_CLIENT, &row)?;
            let (frame, out) = (arriving(packet(kind.news())), leaving(packet(kind.news())));
            bed.check(FROM_CLIENT, &Row::leaves(kind.row(name), frame, DX_DEVICE, news, out))?;
        }
    }
    Ok(())
}

#[test]
fn openers_with_options_are_openers() -> Result<()> {
    let mut bed = bed()?;
    for kind in Kind::tcp() {
        let promo = promo_leg(&bed, kind);
        for (name, change) in changes(kind) {
            let packet = |to| change(kind.opener(kind.client(), to));
            let (frame, out) = (arriving(packet(kind.shop(443))), leaving(packet(kind.reserved(RENAMED))));
            bed.check(FROM_CLIENT, &Row::leaves(kind.row(name), frame, DX_DEVICE, promo, out).opens())?;
        }
    }
    Ok(())
}

#[test]
fn a_reply_with_options_comes_home_with_them() -> Result<()> {
    let mut bed = bed()?;
    for kind in Kind::ALL {
        let promo = promo_leg(&bed, kind);
        let news = Leg { endpoint: None, ..news_leg(&bed) };
        for (name, change) in changes(kind) {
            let packet = |from| change(kind.frame(from, kind.client()));
            let (frame, out) = (replying(packet(kind.reserved(RENAMED))), homeward(packet(kind.shop(443))));
            bed.check(FROM_DX, &Row::returns(kind.row(name), frame, CLIENT_DEVICE, promo, out))?;
            let (frame, out) = (replying(packet(kind.news())), homeward(packet(kind.news())));
            bed.check(FROM_DX, &Row::returns(kind.row(name), frame, CLIENT_DEVICE, news, out))?;
        }
    }
    Ok(())
}
