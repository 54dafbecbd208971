//! Tunnels around a frame's packet, built the plain way from the RFCs. What is inside is taken as it is.

use std::net::{IpAddr, SocketAddr};

use super::Frame;

/// The port that Generic UDP Encapsulation is sent to (IANA).
pub const GUE_PORT: u16 = 6080;

/// The packet of an untagged frame inside another IP packet (RFC 2003, RFC 2473, RFC 4213).
pub fn ipip(from: IpAddr, to: IpAddr, inner: &[u8]) -> Frame {
    let (protocol, packet) = packet(inner);
    Frame::other(from, to, protocol).payload(packet).identification(0)
}

/// The packet of an untagged frame inside UDP: four bytes of GUE (variant 0, no control message, no optional fields), no
/// UDP checksum. The destination is an address: the port is [`GUE_PORT`].
pub fn gue(from: SocketAddr, to: IpAddr, inner: &[u8]) -> Frame {
    gue_with(from, to, [0, packet(inner).0, 0, 0], inner)
}

/// As [`gue`], with a GUE header of the test's choice.
pub fn gue_with(from: SocketAddr, to: IpAddr, header: [u8; 4], inner: &[u8]) -> Frame {
    let payload = [&header[..], packet(inner).1].concat();
    Frame::udp(from, (to, GUE_PORT)).no_udp_checksum().payload(&payload).identification(0)
}

/// The IP packet of an untagged frame, and its protocol number as a payload.
fn packet(frame: &[u8]) -> (u8, &[u8]) {
    let packet = &frame[14..];
    (if packet[0] >> 4 == 4 { 4 } else { 41 }, packet)
}
