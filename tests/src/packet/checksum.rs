//! Checksums verified the plain way: add up everything that is covered and look whether the sum is right (RFC 1071).
//! It shares no code with what builds frames and none with burst, and knows just enough of headers for that.

use anyhow::{Result, bail, ensure};

/// The one's complement sum of all 16-bit words; an odd last byte is the high one of its word.
#[must_use]
pub fn sum(parts: &[&[u8]]) -> u16 {
    let mut total: u64 = 0;
    for part in parts {
        for word in part.chunks(2) {
            total += u64::from(word[0]) << 8 | u64::from(*word.get(1).unwrap_or(&0));
        }
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// Where things are in a frame, in bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Start of the IP header.
    pub network: usize,
    /// Start of what follows the IP header and its extensions.
    pub transport: usize,
    /// End of the IP packet; bytes after it are padding.
    pub end: usize,
    /// Protocol of what is at `transport`.
    pub protocol: u8,
    /// Whether it is a fragment (also the first), so that a transport checksum cannot be verified.
    pub fragment: bool,
}

/// Finds the headers of an Ethernet frame that holds IPv4 or IPv6.
///
/// # Errors
/// When it holds something else or is shorter than it says.
pub fn layout(frame: &[u8]) -> Result<Layout> {
    let mut network = 14;
    let mut ether_type = word(frame, 12)?;
    while matches!(ether_type, 0x8100 | 0x88a8) {
        ether_type = word(frame, network + 2)?;
        network += 4;
    }
    let layout = match ether_type {
        0x0800 => {
            let length = usize::from(byte(frame, network)? & 15) * 4;
            ensure!(length >= 20, "IPv4 header of {length} bytes");
            let fragment = word(frame, network + 6)? & 0x3fff != 0;
            let end = network + usize::from(word(frame, network + 2)?);
            Layout { network, transport: network + length, end, protocol: byte(frame, network + 9)?, fragment }
        }
        0x86dd => {
            let end = network + 40 + usize::from(word(frame, network + 4)?);
            let mut found =
                Layout { network, transport: network + 40, end, protocol: byte(frame, network + 6)?, fragment: false };
            // Hop-by-hop, routing, fragment, destination options (RFC 8200 section 4).
            while matches!(found.protocol, 0 | 43 | 44 | 60) {
                let is_fragment = found.protocol == 44;
                let more = if is_fragment { 0 } else { usize::from(byte(frame, found.transport + 1)?) * 8 };
                found.fragment |= is_fragment;
                found.protocol = byte(frame, found.transport)?;
                found.transport += 8 + more;
            }
            found
        }
        other => bail!("ethertype {other:#06x}"),
    };
    ensure!(layout.end <= frame.len(), "the packet ends at byte {}, the frame at {}", layout.end, frame.len());
    ensure!(
        layout.transport <= layout.end,
        "the headers end at byte {}, the packet at {}",
        layout.transport,
        layout.end
    );
    Ok(layout)
}

/// Verifies every checksum of a frame: IPv4 header, TCP, UDP, ICMP, ICMPv6. An IPv4 UDP checksum of zero is none. Of
/// a fragment only the header's can be verified.
///
/// # Errors
/// Names the first that is wrong. A frame that is neither IPv4 nor IPv6 or shorter than it says fails, too.
pub fn verify(frame: &[u8]) -> Result<()> {
    let Layout { network, transport, end, protocol, fragment } = layout(frame)?;
    let v4 = frame[network] >> 4 == 4;
    if v4 {
        let header_end = network + usize::from(frame[network] & 15) * 4;
        ensure!(sum(&[&frame[network..header_end]]) == 0xffff, "the IPv4 header's checksum is wrong");
    }
    if fragment {
        return Ok(());
    }
    let segment = &frame[transport..end];
    let addresses = if v4 { &frame[network + 12..network + 20] } else { &frame[network + 8..network + 40] };
    // RFC 9293 section 3.1 and RFC 8200 section 8.1; the words' order does not matter to their sum.
    let length = u32::try_from(segment.len())?.to_be_bytes();
    let pseudo: [&[u8]; 3] = [addresses, &length, &[0, protocol]];
    let covered: Vec<&[u8]> = match protocol {
        6 | 17 => pseudo.into_iter().chain([segment]).collect(),
        58 if !v4 => pseudo.into_iter().chain([segment]).collect(),
        1 if v4 => vec![segment],
        _ => return Ok(()),
    };
    if protocol == 17 {
        let checksum = word(segment, 6)?;
        ensure!(usize::from(word(segment, 4)?) == segment.len(), "the UDP length is wrong");
        if checksum == 0 {
            ensure!(v4, "the UDP checksum is zero, which IPv6 forbids");
            return Ok(());
        }
    }
    ensure!(sum(&covered) == 0xffff, "the checksum of protocol {protocol} is wrong");
    Ok(())
}

fn byte(bytes: &[u8], at: usize) -> Result<u8> {
    bytes.get(at).copied().ok_or_else(|| anyhow::anyhow!("the frame ends before byte {at}"))
}

fn word(bytes: &[u8], at: usize) -> Result<u16> {
    Ok(u16::from_be_bytes([byte(bytes, at)?, byte(bytes, at + 1)?]))
}
