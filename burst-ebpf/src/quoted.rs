//! An ICMP error → the same error for the other side of a `dnat`: the packet it quotes gets the address and port that its
//! receiver knows (RFC 5508, section 4), and every checksum over them is right again.

use burst_common::checksum::Delta;
use burst_common::flow::{TCP, UDP};

use crate::classify::Family;
use crate::packet::Packet;
use crate::parse::Frame;
use crate::rewrite::{Changed, Side};

/// Writes into the quoted packet and the ICMP header. The quoted packet travelled the other way: where the error's
/// destination changes, its source does.
#[inline(always)]
pub fn rename<A: Family>(packet: &Packet, frame: &Frame<A>, changed: &Changed<A>) -> Option<()> {
    let icmp = packet.at::<[u16; 4]>(frame.l4)?;
    let inner = frame.l4 + 8;
    let ports = packet.at::<[u16; 4]>(frame.quoted)?;
    let source = changed.side == Side::Destination;
    let (old, new) = (changed.old.wide(), changed.addr.wide());
    let mut sum = Delta::NONE;
    if A::FAMILY == 4 {
        let ip = packet.at::<[u32; 5]>(inner)?;
        // SAFETY: `at` checked twenty bytes; words 3 and 4 are the addresses, half word 5 the checksum.
        unsafe {
            (*ip)[if source { 3 } else { 4 }] = new[0];
            let header = ip.cast::<u16>().add(5);
            let before = *header;
            *header = changed.addr_delta.apply(before);
            sum = sum.word(before, *header);
        }
    } else {
        let address = packet.at::<[u32; 4]>(inner + if source { 8 } else { 24 })?;
        // SAFETY: `at` checked sixteen bytes.
        unsafe { *address = new };
        // The pseudo-header of ICMPv6 has the outer addresses (RFC 4443, section 2.3).
        let from = if changed.side == Side::Source { frame.from.wide() } else { old };
        sum = sum.address(from, new);
    }
    sum = sum.address(old, new).word(changed.old_port, changed.port);
    // SAFETY: `at` checked four half words: source port, destination port, and for UDP length and checksum.
    unsafe {
        (*ports)[if source { 0 } else { 1 }] = changed.port;
        if frame.flow.proto == UDP {
            let before = (*ports)[3];
            (*ports)[3] = changed.delta.apply_udp(before);
            sum = sum.word(before, (*ports)[3]);
        }
    }
    // A router need not quote more than eight bytes of the segment (RFC 792): its checksum may not be there.
    if frame.flow.proto == TCP
        && frame.quoted + 18 <= frame.bytes() as usize
        && let Some(checksum) = packet.at::<u16>(frame.quoted + 16)
    {
        // SAFETY: `at` checked the half word.
        unsafe {
            let before = *checksum;
            *checksum = changed.delta.apply(before);
            sum = sum.word(before, *checksum);
        }
    }
    // SAFETY: `at` checked four half words; the second is the checksum (RFC 792).
    unsafe { (*icmp)[1] = sum.apply((*icmp)[1]) };
    Some(())
}
