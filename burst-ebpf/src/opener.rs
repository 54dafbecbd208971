//! What only openers ask: whether they are repeated, whether the premises have room for them, and whether anybody leads.
//!
//! Nothing here is on the way of a packet that opens nothing: no clock, no hash of repeats, no shared word.

use burst_common::admission::Admission;
use burst_common::flow::{Address, Flow, UDP};
use burst_common::policy::{PER_PACKET, QUIC};
use burst_common::repeat::{self, Repeat};
use burst_common::slot::{EndpointId, LOCAL};

use crate::maps;
use crate::packet::Packet;
use crate::parse::UDP_LEN;

/// How often a word that others write meanwhile is tried again. Each failure means that another CPU's opener was admitted; after
/// these, this one is, too.
const TRIES: usize = 4;

/// QUIC version 1 and version 2, as they lie in the packet (RFC 9000, section 15; RFC 9369, section 3.1).
const QUIC_1: u32 = 1u32.to_be();
const QUIC_2: u32 = 0x6b33_43cf_u32.to_be();
/// The first byte of an Initial as far as it is not protected: long header, fixed bit, type (RFC 9000, section 17.2.2; RFC 9369,
/// section 3.2).
const INITIAL_1: u8 = 0xc0;
const INITIAL_2: u8 = 0xd0;

/// What a packet is to its flow.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Opens {
    /// One of its packets, or all that can be said.
    No,
    /// Its first, or the first once more.
    Flow,
    /// All of it.
    Alone,
}

/// What a packet of a class with these flags is to its flow; `l4` is the offset of its transport header.
#[inline(always)]
pub fn opens<A: Address>(flags: u32, packet: &Packet, flow: &Flow<A>, l4: usize) -> Opens {
    if flow.proto != UDP {
        return if flow.opens() { Opens::Flow } else { Opens::No };
    }
    if flags & (PER_PACKET | QUIC) == 0 {
        return Opens::No;
    }
    if flags & PER_PACKET != 0 {
        return Opens::Alone;
    }
    if is_initial(packet, l4 + UDP_LEN) { Opens::Flow } else { Opens::No }
}

/// Whether a UDP payload begins as a QUIC Initial does.
#[inline(always)]
fn is_initial(packet: &Packet, payload: usize) -> bool {
    // Two words around the version, which begins at the second byte.
    let Some(words) = packet.at::<[u16; 3]>(payload) else { return false };
    // SAFETY: `at` checked six bytes; the version is in the four behind the first.
    let (first, version) = unsafe { (*words.cast::<u8>() & 0xf0, *words.byte_add(1).cast::<u32>()) };
    first == INITIAL_1 && version == QUIC_1 || first == INITIAL_2 && version == QUIC_2
}

/// What an opener is remembered by; `l4` is the offset of its transport header.
#[inline(always)]
pub fn mark<A: Address>(packet: &Packet, flow: &Flow<A>, l4: usize, hash: u64) -> u64 {
    if flow.proto == UDP {
        return hash;
    }
    // A SYN's header is there: its flags were read.
    let Some(words) = packet.at::<[u16; 4]>(l4) else { return hash };
    // SAFETY: `at` checked eight bytes; the sequence number is the second word of a TCP header (RFC 9293, section 3.1).
    repeat::mark(hash, unsafe { *words.cast::<u32>().add(1) })
}

/// Where an opener with this mark went not long ago.
#[inline(always)]
pub fn repeats(hash: u64, epoch: u32) -> Option<EndpointId> {
    let row = maps::repeat(Repeat::row(hash))?;
    // SAFETY: array elements live as long as the program; the word is aligned and only ever stored whole.
    Repeat::from_word(unsafe { core::ptr::read_volatile(row) }).of(hash, epoch)
}

/// Remembers where an opener with this mark went.
#[inline(always)]
pub fn remember(hash: u64, endpoint: EndpointId, epoch: u32) {
    if let Some(row) = maps::repeat(Repeat::row(hash)) {
        // SAFETY: as above.
        unsafe { core::ptr::write_volatile(row, Repeat::new(hash, endpoint, epoch).word()) }
    }
}

/// Whether the premises have room for one more new flow of a class, which is then taken.
#[inline(always)]
pub fn admits(class: u32, now: u64) -> bool {
    let Some(row) = maps::admission(class) else { return true };
    // SAFETY: array elements live as long as the program; the daemon stores these words whole.
    let (interval, allowance) = unsafe {
        (core::ptr::read_volatile(&raw const (*row).interval), core::ptr::read_volatile(&raw const (*row).allowance))
    };
    if interval == 0 {
        return true;
    }
    // SAFETY: as above.
    let mut seen = unsafe { core::ptr::read_volatile(&raw const (*row).due) };
    for _ in 0..TRIES {
        let Some(next) = Admission::admit(interval, allowance, seen, now) else { return false };
        // SAFETY: as above.
        match unsafe { maps::swap(&raw mut (*row).due, seen, next) } {
            found if found == seen => return true,
            found => seen = found,
        }
    }
    true
}

/// Where a new flow goes for which the premises have no room.
#[inline(always)]
pub fn overflow(class: u32, family: u8, slot: u32) -> EndpointId {
    maps::overflow(class, family, slot).unwrap_or(LOCAL)
}

/// [`usual`]: an opener of a new flow may go where its slot says.
pub const GOES: u32 = 0;
/// The same, and it repeats one that was seen.
pub const REPEATS: u32 = 1;
/// The same opener is for the way step by step: its slot must change, or it must be pinned.
pub const RARE: u32 = 2;

/// Asks whether an opener may go where its stable slot says, and remembers it by its mark (`hash`) if so. Of one that may not, nothing is
/// remembered.
#[inline(never)]
pub fn usual(class: u32, slot: u32, endpoint: u32, hash: u64) -> u32 {
    let Some(control) = maps::control() else { return RARE };
    let now = maps::now();
    if endpoint != u32::from(LOCAL) && control.homing(slot, now) {
        return RARE;
    }
    let repeats = repeats(hash, control.epoch).is_some();
    if endpoint == u32::from(LOCAL) && !repeats && !admits(class, now) {
        return RARE;
    }
    remember(hash, endpoint as EndpointId, control.epoch);
    if repeats { REPEATS } else { GOES }
}
