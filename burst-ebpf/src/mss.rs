//! The maximum segment size that a SYN offers, made to fit the smallest link its flow may take (RFC 9293, section 3.7.1).

use aya_ebpf::bindings::xdp_md;
use burst_common::checksum::Delta;

use crate::classify::Family;
use crate::packet::Packet;
use crate::parse::{IP4, IP6, TCP_MIN};

/// Options looked at.
const MAX_OPTIONS: usize = 10;

const EOL: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;

/// Lowers the segment size in the options of the segment at `l4`, so that its packets are at most `room` bytes long. 0: not
/// limited. A segment without the option, or with a smaller one, stays as it is.
#[inline(always)]
pub fn clamp<A: Family>(packet: &Packet, l4: usize, room: u16) {
    let headers = (TCP_MIN + if A::FAMILY == 4 { IP4 } else { IP6 }) as u16;
    if room > headers {
        lower_mss(packet.context().ctx, l4 as u32, u32::from(room - headers));
    }
}

/// A global function: verified once, and out of the way of all that is no SYN.
// SAFETY (no_mangle): no other symbol of the object has this name.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lower_mss(ctx: *mut xdp_md, l4: u32, most: u32) -> u32 {
    let packet = Packet::of(ctx);
    // Larger than any offset of a transport header that was parsed; the verifier wants a bound.
    let l4 = (l4 & 0x3ff) as usize;
    let Some(tcp) = packet.at::<[u16; TCP_MIN / 2]>(l4) else { return 0 };
    // SAFETY: `at` checked twenty bytes; the data offset is the upper half of byte 12.
    let len = usize::from(unsafe { *tcp.cast::<u8>().add(12) } >> 4) * 4;
    let mut at = TCP_MIN;
    for _ in 0..MAX_OPTIONS {
        if at + 4 > len {
            return 0;
        }
        let Some(option) = packet.at::<[u8; 4]>(l4 + at) else { return 0 };
        // SAFETY: `at` checked four bytes.
        let [kind, length, high, low] = unsafe { *option };
        match (kind, length) {
            (EOL, _) => return 0,
            (NOP, _) => at += 1,
            (_, 0 | 1) => return 0,
            (MSS, 4) => {
                let old = u16::from_be_bytes([high, low]);
                if u32::from(old) <= most {
                    return 0;
                }
                let new = most as u16;
                let [new_high, new_low] = new.to_be_bytes();
                // Words of the checksum begin at even offsets: at an odd one, the value's halves belong to two of them.
                let delta = if at.is_multiple_of(2) {
                    Delta::NONE.word(u16::from_ne_bytes([high, low]), u16::from_ne_bytes([new_high, new_low]))
                } else {
                    Delta::NONE.word(u16::from_ne_bytes([low, high]), u16::from_ne_bytes([new_low, new_high]))
                };
                // SAFETY: `at` checked both: four bytes of the option, twenty of the header; half word 8 is the checksum.
                unsafe {
                    (*option)[2] = new_high;
                    (*option)[3] = new_low;
                    (*tcp)[8] = delta.apply((*tcp)[8]);
                }
                return 0;
            }
            _ => at += usize::from(length),
        }
    }
    0
}
