//! The flow hash, from its description: 64-bit words of the packet, each mixed into a state that begins with the seed.
//!
//! A word is eight bytes as they lie in the packet, the first one lowest. Of IPv4: one word of both addresses, source first;
//! of IPv6: four words, the source's two, then the destination's. Last, a word of both ports as they lie in the packet
//! and the protocol number. A client's hash is that of its source address alone: four bytes and four zeros, or two words.

use std::net::{IpAddr, SocketAddr};

/// Addresses, ports and protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Who sends.
    pub source: SocketAddr,
    /// To whom.
    pub destination: SocketAddr,
    /// Protocol number.
    pub protocol: u8,
}

impl Flow {
    /// The other direction.
    pub const fn reversed(self) -> Self {
        Self { source: self.destination, destination: self.source, ..self }
    }
}

/// A word is xored into the state; the product with 2⁶⁴ ÷ φ is folded onto its lower half; that is multiplied again.
fn mix(state: u64, word: [u8; 8]) -> u64 {
    let product = u128::from(state ^ u64::from_le_bytes(word)) * 0x9e37_79b9_7f4a_7c15;
    let product = product as u64;
    let folded = product ^ product >> 32;
    (u128::from(folded) * 0xbf58_476d_1ce4_e5b9) as u64
}

/// The end of every hash.
fn finish(state: u64) -> u64 {
    state ^ state >> 29
}

/// Mixes all bytes in, eight at a time, the last word filled with zeros.
fn over(seed: u64, bytes: &[u8]) -> u64 {
    let words = bytes.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        word
    });
    finish(words.fold(seed, mix))
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The seed of a configured text: FNV-1a of its bytes (RFC 9923), mixed with their number.
pub fn seed(text: &str) -> u64 {
    let fnv = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (u128::from(hash ^ u64::from(byte)) * 0x0000_0100_0000_01b3) as u64
    });
    finish(mix(fnv, (text.len() as u64).to_le_bytes()))
}

/// Hash of a flow.
pub fn flow(seed: u64, flow: &Flow) -> u64 {
    let mut bytes = octets(flow.source.ip());
    bytes.extend(octets(flow.destination.ip()));
    bytes.extend(flow.source.port().to_be_bytes());
    bytes.extend(flow.destination.port().to_be_bytes());
    bytes.extend([flow.protocol, 0, 0, 0]);
    over(seed, &bytes)
}

/// Hash of a client.
pub fn client(seed: u64, address: IpAddr) -> u64 {
    over(seed, &octets(address))
}
