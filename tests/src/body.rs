//! Bodies whose every byte is known: a pseudo-random function of seed and position, so that a lost, doubled, swapped
//! or altered segment shows, and at which byte.

/// Length of the page `/big` and of uploads, in bytes: above the 160–180 kB at which a path with broken offloads
/// stalls, and no multiple of any segment size.
pub const BIG: usize = 1024 * 1024 + 4321;
/// Length of the page `/stream`, in bytes; at its 64 KiB/s it takes two minutes.
pub const STREAM: usize = 8 * 1024 * 1024 + 77;
/// Seed of `/big`.
pub const BIG_SEED: u64 = 1;
/// Seed of `/stream`.
pub const STREAM_SEED: u64 = 2;
/// The page `/`.
pub const SMALL: &[u8] = b"One small page of the testbed, with a few words to read.\n";

/// Finalizer of splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
const fn mix(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The first `length` bytes.
#[must_use]
pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut all = Vec::with_capacity(length + 8);
    for index in 0..length.div_ceil(8) as u64 {
        all.extend_from_slice(&mix(seed, index).to_le_bytes());
    }
    all.truncate(length);
    all
}

/// Position of the first byte of `part`, which starts at `offset`, that is not as it should be.
#[must_use]
pub fn mismatch(seed: u64, offset: u64, part: &[u8]) -> Option<u64> {
    // Word by word, as the first may begin in its middle.
    let mut position = offset;
    let mut rest = part;
    while !rest.is_empty() {
        let expected = &mix(seed, position / 8).to_le_bytes()[(position % 8) as usize..];
        let length = expected.len().min(rest.len());
        if rest[..length] != expected[..length] {
            let wrong = (0..length).find(|index| rest[*index] != expected[*index])?;
            return Some(position + wrong as u64);
        }
        rest = &rest[length..];
        position += length as u64;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_altered_lost_or_shifted_byte_is_found() {
        let body = bytes(7, 1000);
        assert_eq!(mismatch(7, 0, &body), None);
        assert_eq!(mismatch(7, 500, &body[500..]), None, "a part from the middle");
        assert_eq!(mismatch(8, 0, &body).map(|at| at < 8), Some(true), "another seed");
        for at in [0, 1, 7, 8, 999] {
            let mut altered = body.clone();
            altered[at] ^= 1;
            assert_eq!(mismatch(7, 0, &altered), Some(at as u64));
        }
        let mut lost = body;
        lost.drain(300..308);
        assert!(mismatch(7, 0, &lost).is_some_and(|at| (300..308).contains(&at)));
    }

    #[test]
    fn the_generator_is_the_published_one() {
        // First outputs of splitmix64 for seed 1234567, as in the Rosetta Code listing of the algorithm.
        assert_eq!([0, 1].map(|index| mix(1_234_567, index)), [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
    }
}
