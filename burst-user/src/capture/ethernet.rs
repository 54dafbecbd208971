//! A packet of a link type → an Ethernet frame. What is not Ethernet gets a header in front.

/// Link types (<https://www.tcpdump.org/linktypes.html>).
const ETHERNET: i32 = 1;
const RAW: i32 = 101;
const LINUX_SLL: i32 = 113;
const IPV4: i32 = 228;
const IPV6: i32 = 229;
const LINUX_SLL2: i32 = 276;

/// MAC addresses of a header that was not captured: to the edge, from a client. Locally administered (IEEE 802, section
/// 8.4).
const MACS: [u8; 12] = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 4];

/// Appends the frame of a packet to `frame`, which is empty, and gives how much longer (or shorter) it became. `None`: there
/// is no way to make a frame of this link type.
pub(super) fn frame(link_type: i32, packet: &[u8], frame: &mut Vec<u8>) -> Option<isize> {
    let (skipped, ethertype) = match link_type {
        ETHERNET => {
            frame.extend_from_slice(packet);
            return Some(0);
        }
        IPV4 => (0, Some([0x08, 0x00])),
        IPV6 => (0, Some([0x86, 0xdd])),
        RAW => match packet.first().map(|byte| byte >> 4) {
            Some(6) => (0, Some([0x86, 0xdd])),
            _ => (0, Some([0x08, 0x00])),
        },
        LINUX_SLL => (16, at(packet, 14)),
        LINUX_SLL2 => (20, at(packet, 0)),
        _ => return None,
    };
    // A packet that was cut inside the pseudo-header has nothing of its own.
    frame.extend_from_slice(&MACS);
    frame.extend_from_slice(&ethertype.unwrap_or_default());
    frame.extend_from_slice(packet.get(skipped..).unwrap_or_default());
    Some(14 - skipped as isize)
}

fn at(packet: &[u8], offset: usize) -> Option<[u8; 2]> {
    packet.get(offset..offset + 2)?.try_into().ok()
}
