//! Ways that are narrower than the devices at their ends, so that no segment size tells of them and only path MTU
//! discovery (RFC 1191, RFC 8201) finds out; and what a witness saw of it: the errors, and the segment sizes offered.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};

use crate::link::{End, veth};
use crate::netns::Namespace;
use crate::packet::checksum::{Layout, layout, verify};
use crate::sniffer::{Kept, Sniffer};
use crate::topology::{
    Clients, EDGE_ON_LINK, FIRST_CLIENT, FIRST_ENDPOINT, Pair, SHOP, TO_CLOUD, TO_EDGE, Topology, default_route, mac,
    owns,
};

/// Clients of [`clients_behind_a_router`].
const HOMES: u8 = 4;

/// The router's way into the cloud takes `mtu` bytes from now on: larger packets are answered by the router. The devices keep
/// their MTU, so that both ends offer each other full segments.
///
/// # Errors
/// When the kernel refuses.
pub fn way_into_cloud(topology: &Topology, mtu: u16) -> Result<()> {
    let router = &topology.direct_connect;
    router.ip(&format!(
        "route replace 10.20.0.0/24 dev {TO_CLOUD} mtu {mtu}\n\
         route replace fd00:20::/64 dev {TO_CLOUD} proto kernel metric 256 mtu {mtu}\n"
    ))?;
    if topology.options.shop_in_cloud {
        let (Pair { v4, v6 }, via) = (SHOP.address, FIRST_ENDPOINT);
        router.ip(&format!(
            "route replace {v4}/32 via {} mtu {mtu}\nroute replace {v6}/128 via {} mtu {mtu}\n",
            via.v4, via.v6
        ))?;
    }
    Ok(())
}

/// Moves the first clients of a topology behind CLIENT, whose way to them takes `mtu` bytes: larger packets are answered by CLIENT,
/// which is a router from now on. They are in the namespace that is answered.
///
/// # Errors
/// When the clients are not behind a gateway, or the kernel refuses.
pub fn clients_behind_a_router(topology: &Topology, mtu: u16) -> Result<Namespace> {
    const TO_HOMES: &str = "homes0";
    ensure!(topology.options.clients == Clients::BehindGateway, "the clients are on the edge's link");
    let (router, homes) = (&topology.client, Namespace::new("homes")?);
    router.sysctl(&[("net/ipv4/ip_forward", "1"), ("net/ipv6/conf/all/forwarding", "1")])?;
    router.ip("address flush dev lo scope global")?;
    let end = End { namespace: &homes, device: TO_EDGE, mac: mac(0x52) };
    veth(End { namespace: router, device: TO_HOMES, mac: mac(0x51) }, end, 1500)?;
    let mut script = owns(TO_HOMES, EDGE_ON_LINK, 24, 64);
    script += &format!(
        "route replace 198.51.100.0/24 dev {TO_HOMES} mtu {mtu}\n\
         route replace 2001:db8:51::/64 dev {TO_HOMES} proto kernel metric 256 mtu {mtu}\n"
    );
    router.ip(&script)?;
    let mut script: String = (0..HOMES).map(|n| owns(TO_EDGE, FIRST_CLIENT.plus(n), 24, 64)).collect();
    script += &default_route(EDGE_ON_LINK);
    homes.ip(&script)?;
    Ok(homes)
}

/// ICMP fragmentation needed or ICMPv6 packet too big, as it passed a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooBig {
    /// Whether it came in at the device (else: went out).
    pub incoming: bool,
    /// Who sent it, as its header says.
    pub from: IpAddr,
    /// Whom it is for.
    pub to: IpAddr,
    /// What fits, in bytes of IP packet.
    pub mtu: u16,
    /// Source of the TCP packet that it quotes.
    pub source: SocketAddr,
    /// Its destination.
    pub destination: SocketAddr,
    /// Its length, in bytes of IP packet, as it says; of segments that the kernel had merged, theirs together.
    pub length: usize,
}

/// A SYN or SYN-ACK, as it passed a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Whether it came in at the device (else: went out).
    pub incoming: bool,
    /// Its source.
    pub source: SocketAddr,
    /// The segment size that it offers; 0 where it has no such option.
    pub mss: u16,
}

/// What passed a device of path MTU discovery.
#[derive(Debug, Default)]
pub struct Evidence {
    /// Errors, in the order in which they passed.
    pub errors: Vec<TooBig>,
    /// SYNs and SYN-ACKs.
    pub offers: Vec<Offer>,
}

/// Starts to watch a device for errors and for what opens connections.
///
/// # Errors
/// As [`Sniffer::start`].
pub fn watch(namespace: &Namespace, device: &str) -> Result<Sniffer> {
    Sniffer::keeping(namespace, device, |frame| read_error(frame).is_some() || read_offer(frame).is_some())
}

/// Stops, and answers what passed.
///
/// # Errors
/// As [`Sniffer::finish`], and when the checksum of an error is wrong.
pub fn evidence(witness: Sniffer) -> Result<Evidence> {
    let mut all = Evidence::default();
    for Kept { incoming, frame } in witness.finish_kept()? {
        if let Some(error) = read_error(&frame) {
            verify(&frame).with_context(|| format!("{error:?}"))?;
            all.errors.push(TooBig { incoming, ..error });
        }
        all.offers.extend(read_offer(&frame).map(|offer| Offer { incoming, ..offer }));
    }
    Ok(all)
}

/// Addresses of the IP header at `at`.
fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let four = |at| Some(IpAddr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
    let six = |at| Some(IpAddr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?));
    match packet.first()? >> 4 {
        4 => Some((four(12)?, four(16)?)),
        6 => Some((six(8)?, six(24)?)),
        _ => None,
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// The error that a frame is, about a TCP packet without options or extension headers.
fn read_error(frame: &[u8]) -> Option<TooBig> {
    const TCP: u8 = 6;
    let Layout { network, transport, protocol, fragment, .. } = layout(frame).ok()?;
    let icmp = frame.get(transport..)?;
    match (protocol, icmp.first()?, icmp.get(1)?) {
        // Destination unreachable, fragmentation needed; packet too big.
        (1, 3, 4) | (58, 2, 0) if !fragment => {}
        _ => return None,
    }
    let (from, to) = addresses(&frame[network..])?;
    let quoted = icmp.get(8..)?;
    let (source, destination) = addresses(quoted)?;
    let (length, proto, ports) = match source {
        IpAddr::V4(_) => (usize::from(word(quoted, 2)?), *quoted.get(9)?, 20),
        IpAddr::V6(_) => (40 + usize::from(word(quoted, 4)?), *quoted.get(6)?, 40),
    };
    (proto == TCP).then_some(())?;
    Some(TooBig {
        incoming: false,
        from,
        to,
        mtu: word(icmp, 6)?,
        source: SocketAddr::new(source, word(quoted, ports)?),
        destination: SocketAddr::new(destination, word(quoted, ports + 2)?),
        length,
    })
}

/// The offer that a frame makes.
fn read_offer(frame: &[u8]) -> Option<Offer> {
    const SYN: u8 = 2;
    let Layout { network, transport, end, protocol, fragment } = layout(frame).ok()?;
    let tcp = frame.get(transport..end)?;
    if protocol != 6 || fragment || tcp.get(13)? & SYN == 0 {
        return None;
    }
    let source = SocketAddr::new(addresses(&frame[network..])?.0, word(tcp, 0)?);
    let mut options = tcp.get(20..usize::from(tcp.get(12)? >> 4) * 4)?;
    let mut mss = 0;
    // RFC 9293, section 3.1: end, no operation, and all others with their length.
    while let Some(&kind) = options.first() {
        let length = match kind {
            0 => break,
            1 => 1,
            _ => usize::from(*options.get(1)?).max(2),
        };
        if kind == 2 {
            mss = word(options, 2)?;
        }
        options = options.get(length..)?;
    }
    Some(Offer { incoming: false, source, mss })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Frame, flag, icmp};

    #[test]
    fn errors_and_offers_are_read_from_frames() {
        for (a, b) in [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")] {
            let [a, b] = [a, b].map(|text| text.parse::<IpAddr>().unwrap());
            let [source, destination] = [SocketAddr::new(a, 1024), SocketAddr::new(b, 80)];
            let about = Frame::tcp(source, destination, flag::ACK).payload(&[7; 1400]).build();
            let error = read_error(&icmp::too_big(b, a, &about, 1300).build()).unwrap();
            let length = about.len() - 14;
            assert_eq!(error, TooBig { incoming: false, from: b, to: a, mtu: 1300, source, destination, length });
            assert_eq!(read_error(&about), None);
            assert_eq!(read_offer(&about), None, "no SYN");
            let syn = Frame::tcp(source, destination, flag::SYN);
            assert_eq!(read_offer(&syn.build()), Some(Offer { incoming: false, source, mss: 0 }));
            let syn = syn.tcp_options(&[1, 2, 4, 0x04, 0xd2]);
            assert_eq!(read_offer(&syn.build()), Some(Offer { incoming: false, source, mss: 1234 }));
            assert_eq!(read_error(&syn.build()), None);
        }
    }
}
