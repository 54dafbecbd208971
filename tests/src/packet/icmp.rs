//! ICMP and ICMPv6 errors about a frame, built the plain way: from the RFCs, with checksums added up from scratch.

use std::net::IpAddr;

use super::Frame;
use super::checksum::sum;

/// An error about `about`, an untagged frame of which `quote` bytes from its IP header on are quoted. `head` is type and
/// code, `word` the four bytes whose meaning depends on them. Its MAC addresses are those of a new [`Frame`].
pub fn error(from: IpAddr, to: IpAddr, head: [u8; 2], word: [u8; 4], about: &[u8], quote: usize) -> Frame {
    let mut message = vec![head[0], head[1], 0, 0];
    message.extend(word);
    message.extend(&about[14..(14 + quote).min(about.len())]);
    let sum = !message_sum(from, to, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let protocol = if from.is_ipv4() { 1 } else { 58 };
    Frame::other(from, to, protocol).payload(&message)
}

/// The router's answer to a frame of a family that does not fit `mtu`: fragmentation needed (RFC 1191, section 4) or packet too
/// big (RFC 4443, section 3.2), with as much quoted as burst quotes.
pub fn too_big(from: IpAddr, to: IpAddr, about: &[u8], mtu: u16) -> Frame {
    let [high, low] = mtu.to_be_bytes();
    if from.is_ipv4() {
        error(from, to, [3, 4], [0, 0, high, low], about, 512).identification(0)
    } else {
        error(from, to, [2, 0], [0, 0, high, low], about, 1232)
    }
}

/// RFC 792: the message alone. RFC 4443, section 2.3: with a pseudo-header before it.
fn message_sum(from: IpAddr, to: IpAddr, message: &[u8]) -> u16 {
    match (from, to) {
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let length = u32::try_from(message.len()).expect("a packet's length").to_be_bytes();
            sum(&[&from.octets(), &to.octets(), &length, &[0, 0, 0, 58], message])
        }
        _ => sum(&[message]),
    }
}
