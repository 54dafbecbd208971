//! The flow hash: one multiply-and-fold per pair of words, seeded by the configuration, the same on every edge host.
//!
//! Low bits choose the slot, high bits the link: [`slot`] and [`link`].

use crate::flow::{Address, Flow};
use crate::limits::ENDPOINT_LINKS;

/// 2⁶⁴ divided by the golden ratio, odd (Knuth, TAOCP volume 3, section 6.4).
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
/// Another odd constant with bits spread evenly (the finaliser of Stafford's "Mix13" variant of MurmurHash3).
const SPREAD: u64 = 0xbf58_476d_1ce4_e5b9;

#[inline(always)]
const fn mix(state: u64, word: u64) -> u64 {
    let product = (state ^ word).wrapping_mul(GOLDEN);
    (product ^ (product >> 32)).wrapping_mul(SPREAD)
}

#[inline(always)]
const fn finish(state: u64) -> u64 {
    state ^ (state >> 29)
}

#[inline(always)]
fn address<A: Address>(state: u64, addr: A) -> u64 {
    let [a, b, c, d] = addr.wide();
    let state = mix(state, u64::from(a) | u64::from(b) << 32);
    if A::FAMILY == 6 { mix(state, u64::from(c) | u64::from(d) << 32) } else { state }
}

/// Hash of a flow's 5-tuple.
#[inline(always)]
#[must_use]
pub fn flow<A: Address>(seed: u64, flow: &Flow<A>) -> u64 {
    let ports = u64::from(flow.src_port) | u64::from(flow.dst_port) << 16 | u64::from(flow.proto) << 32;
    if A::FAMILY == 4 {
        // Two multiplications for the whole of it: both addresses fit one word.
        let pair = u64::from(flow.src.wide()[0]) | u64::from(flow.dst.wide()[0]) << 32;
        return finish(mix(mix(seed, pair), ports));
    }
    finish(mix(address(address(seed, flow.src), flow.dst), ports))
}

/// Hash of a client: its source address alone.
#[inline(always)]
#[must_use]
pub fn client<A: Address>(seed: u64, flow: &Flow<A>) -> u64 {
    finish(address(seed, flow.src))
}

/// The index of a slot within its class and family; `mask` is the number of slots less one.
#[inline(always)]
#[must_use]
pub const fn slot(hash: u64, mask: u32) -> u32 {
    hash as u32 & mask
}

/// The entry of an endpoint's link table.
#[inline(always)]
#[must_use]
pub const fn link(hash: u64) -> usize {
    (hash >> 48) as usize & (ENDPOINT_LINKS - 1)
}

/// The seed of a configured string. FNV-1a (RFC 9923), then mixed: a change of one letter changes every bit.
#[must_use]
pub fn seed(text: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in text.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    finish(mix(hash, text.len() as u64))
}

/// A hash of two words, for placement outside the packet path.
#[must_use]
pub const fn pair(a: u64, b: u64) -> u64 {
    finish(mix(mix(SPREAD, a), b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{TCP, addr4, addr6};

    fn spread(hashes: impl Iterator<Item = u64>) {
        let mut slots = vec![0u32; 256];
        let mut links = [0u32; 8];
        let mut count = 0;
        for hash in hashes {
            slots[slot(hash, 255) as usize] += 1;
            links[link(hash)] += 1;
            count += 1;
        }
        let (mean, mean_link) = (count as f64 / 256.0, f64::from(count) / 8.0);
        // A chi-squared of 256 cells has mean 255 and deviation 22.6; 400 is beyond six deviations.
        let chi: f64 = slots.iter().map(|&n| (f64::from(n) - mean).powi(2) / mean).sum();
        assert!(chi < 400.0, "slots: chi squared {chi}");
        let chi: f64 = links.iter().map(|&n| (f64::from(n) - mean_link).powi(2) / mean_link).sum();
        assert!(chi < 40.0, "links: chi squared {chi}");
    }

    #[test]
    fn flows_that_differ_in_one_field_spread_evenly() {
        let base = Flow {
            src: addr4("198.51.100.7".parse().unwrap()),
            dst: addr4("203.0.113.20".parse().unwrap()),
            src_port: 40000u16.to_be(),
            dst_port: 443u16.to_be(),
            proto: TCP,
            flags: 0,
        };
        let seed = seed("edge");
        spread((0..60_000u16).map(|p| flow(seed, &Flow { src_port: p.to_be(), ..base })));
        spread((0..60_000u32).map(|a| flow(seed, &Flow { src: a.to_be(), ..base })));
        spread((0..60_000u32).map(|a| client(seed, &Flow { src: a.to_be(), ..base })));
        let six = Flow {
            src: addr6("2001:db8::7".parse().unwrap()),
            dst: addr6("2001:db8::20".parse().unwrap()),
            src_port: 1,
            dst_port: 2,
            proto: TCP,
            flags: 0,
        };
        spread((0..60_000u64).map(|a| flow(seed, &Flow { src: [six.src[0], a.to_be()], ..six })));
        spread((0..60_000u64).map(|a| client(seed, &Flow { src: [a.to_be(), 0], ..six })));
    }

    #[test]
    fn the_hash_is_part_of_the_abi() {
        // Edge hosts of different versions must agree: these values never change.
        assert_eq!(seed("one-string-for-all-edges"), SEED);
        let four = Flow {
            src: addr4("198.51.100.7".parse().unwrap()),
            dst: addr4("203.0.113.20".parse().unwrap()),
            src_port: 40000u16.to_be(),
            dst_port: 443u16.to_be(),
            proto: TCP,
            flags: 0,
        };
        assert_eq!(flow(SEED, &four), FLOW4);
        assert_eq!(client(SEED, &four), CLIENT4);
    }
    const SEED: u64 = 12426916702842205621;
    const FLOW4: u64 = 3646280974586045733;
    const CLIENT4: u64 = 12648044216679097127;
}
