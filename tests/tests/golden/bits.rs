//! Every bit of a header, flipped one at a time: whatever comes of it, only the bytes that a rewrite is about change,
//! and only in a packet that leaves.

use std::collections::BTreeSet;
use std::ops::Range;

use anyhow::Result;
use burst_tests::golden::{Entry, Verdict};
use burst_tests::packet::diff::diff;
use burst_tests::topology::{CLIENT_DEVICE, DX_DEVICE, Family};

use super::{FROM_CLIENT, FROM_DX, Kind, RENAMED, arriving, bed, news_leg, promo_leg, replying};

/// What a rewrite may change: MACs, TTL, checksums, and an address and a port of this side (0: nothing of them).
fn allowed(kind: Kind, address: usize, port: usize) -> BTreeSet<usize> {
    let four = kind.family == Family::V4;
    let (transport, width) = if four { (34, 4) } else { (54, 16) };
    let sum = transport + if kind.proto == 6 { 16 } else { 6 };
    let mut ranges: Vec<Range<usize>> = Vec::from(if four { [0..12, 22..23, 24..26] } else { [0..12, 21..22, 0..0] });
    if address != 0 {
        ranges.extend([address..address + width, transport + port..transport + port + 2, sum..sum + 2]);
    }
    ranges.into_iter().flatten().collect()
}

#[test]
fn a_flipped_bit_never_makes_it_write_where_it_must_not() -> Result<()> {
    let mut bed = bed()?;
    let mut left = 0;
    for kind in Kind::ALL {
        promo_leg(&bed, kind);
        news_leg(&bed);
        let four = kind.family == Family::V4;
        let (source, destination) = if four { (26, 30) } else { (22, 38) };
        let cases: [(Entry, Vec<u8>, BTreeSet<usize>); 4] = [
            (FROM_CLIENT, arriving(kind.frame(kind.client(), kind.shop(443))), allowed(kind, destination, 2)),
            (FROM_CLIENT, arriving(kind.frame(kind.client(), kind.news())), allowed(kind, 0, 0)),
            (FROM_DX, replying(kind.frame(kind.reserved(RENAMED), kind.client())), allowed(kind, source, 0)),
            (FROM_DX, replying(kind.frame(kind.news(), kind.client())), allowed(kind, 0, 0)),
        ];
        for (entry, frame, allowed) in cases {
            for bit in 0..frame.len() * 8 {
                let mut flipped = frame.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let outcome = bed.run(entry, &flipped, &[CLIENT_DEVICE, DX_DEVICE])?;
                let name = kind.row(&format!("bit {bit} on {}", entry.device));
                let at = |index: usize| (flipped.get(index), outcome.frame.get(index));
                let changed = (0..flipped.len().max(outcome.frame.len())).filter(|&n| at(n).0 != at(n).1);
                let redirected = outcome.action == Verdict::Redirect(DX_DEVICE).number();
                left += usize::from(redirected);
                let names_only = outcome.action == Verdict::Pass.number() && entry == FROM_DX;
                let forbidden: Vec<usize> = if redirected || names_only {
                    changed.filter(|index| !allowed.contains(index)).collect()
                } else {
                    changed.collect()
                };
                assert!(forbidden.is_empty(), "{name}: {forbidden:?}\n{:?}", diff(&flipped, &outcome.frame));
            }
        }
    }
    assert!(left > 1000, "{left}: most flipped bits are of payloads and of fields that say nothing");
    Ok(())
}
