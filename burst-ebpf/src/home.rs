//! A client's address → the way to it: through the cached gateway where there is one, else as the routing table says.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::bindings::{
    BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_NOT_FWDED, BPF_FIB_LKUP_RET_SUCCESS,
    bpf_fib_lookup as FibLookup,
};
use aya_ebpf::helpers::generated::bpf_fib_lookup;
use aya_ebpf::programs::XdpContext;
use burst_common::link::Link;
use burst_common::reason::Reason;

use crate::guard::Guarded;
use crate::packet::Packet;
use crate::parse::{Frame, Offsets, full};
use crate::subprogram::subprograms;
use crate::{leave, maps};

/// Address families of the FIB lookup (include/linux/socket.h).
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Words of the FIB lookup's structure.
const WORDS: usize = size_of::<FibLookup>() / 8;
const _: () = assert!(size_of::<FibLookup>() == WORDS * 8 && align_of::<FibLookup>() <= 8);

/// No row of the return table.
pub const NO_ROW: u32 = u32::MAX;

/// The way.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Home {
    /// The first twelve bytes of the frame.
    pub macs: [u32; 3],
    /// Device; after [`Home::leave`], the one the frame leaves by.
    pub ifindex: u32,
    /// VLAN id, host byte order; 0 is untagged.
    pub vlan: u16,
}

impl Home {
    /// Prepares the redirect; [`Reason::ReturnElsewhere`]: the device is not burst's, nor is one that it stands on.
    #[inline(always)]
    pub fn leave(&mut self) -> Result<(), Reason> {
        if leave::to_client(self.ifindex) {
            return Ok(());
        }
        // The routing table names VLAN devices; frames leave by their parents.
        let vlan = maps::vlan(self.ifindex).ok_or(Reason::ReturnElsewhere)?;
        (self.ifindex, self.vlan) = (vlan.parent, vlan.vlan as u16);
        if leave::to_client(vlan.parent) { Ok(()) } else { Err(Reason::ReturnElsewhere) }
    }
}

/// Finds the way of a packet whose source becomes what the row of the return table says ([`NO_ROW`]: it stays).
#[inline(always)]
pub fn home<A: Guarded>(packet: &Packet, frame: &Frame<A>, row: u32) -> Result<Home, Reason> {
    if let Some(gateway) = maps::gateway(A::FAMILY) {
        // SAFETY: a reference is valid for a read; volatile, because the daemon takes the row out while we run.
        let ifindex = unsafe { core::ptr::read_volatile(&raw const gateway.ifindex) };
        if ifindex != 0 && !gateway.excepts(frame.flow.dst.wide()) {
            if frame.ip_len > u32::from(gateway.mtu) {
                return Err(Reason::ReturnTooBig);
            }
            return Ok(Home { macs: gateway.macs, ifindex, vlan: gateway.vlan });
        }
    }
    match ask::<A>(packet.context().ctx, frame.offsets().word(), row) {
        BPF_FIB_LKUP_RET_SUCCESS => recall().ok_or(Reason::Unready),
        BPF_FIB_LKUP_RET_NO_NEIGH => Err(Reason::NoNeighbour),
        BPF_FIB_LKUP_RET_FRAG_NEEDED => Err(Reason::ReturnTooBig),
        BPF_FIB_LKUP_RET_NOT_FWDED => Err(Reason::ToHost),
        // Unreachable, blackhole, prohibited, or forwarding is off on this device.
        _ => Err(Reason::NoRoute),
    }
}

/// The way that was remembered last, on this CPU.
#[inline(always)]
pub fn recall() -> Option<Home> {
    // SAFETY: the row is this CPU's alone, and an XDP program is not preempted by another on its CPU.
    maps::way().map(|way| unsafe { *way })
}

/// Keeps a way for a subprogram.
#[inline(always)]
pub fn remember(home: Home) {
    if let Some(way) = maps::way() {
        // SAFETY: as in `recall`.
        unsafe { *way = home };
    }
}

subprograms! {
    /// Asks the routing table, and remembers the way: what `bpf_fib_lookup` returned.
    ask = ask_fib4, ask_fib6: asked(offsets, row)
}

#[inline(always)]
fn asked<A: Guarded>(ctx: *mut xdp_md, offsets: u32, row: u32) -> u32 {
    let ctx = XdpContext::new(ctx);
    let Some(frame) = full::again::<A>(&Packet::of(ctx.ctx), Offsets::from_word(offsets)) else { return u32::MAX };
    let flow = &frame.flow;
    let (src, src_port) = match maps::returns(row) {
        Some(row) => (row.service, row.service_port),
        None => (flow.src.wide(), flow.src_port),
    };
    let mut words = core::mem::MaybeUninit::<[u64; WORDS]>::uninit();
    let fib = words.as_mut_ptr();
    // Word by word: `zeroed` would be a call that writes byte by byte.
    for word in 0..WORDS {
        // SAFETY: the structure has so many words.
        unsafe { core::ptr::write_volatile(fib.cast::<u64>().add(word), 0) };
    }
    // SAFETY: it has this size, and no greater alignment; all-zero is a valid value of this plain C structure, which is live until
    // the end of this function.
    let fib = unsafe { &mut *fib.cast::<FibLookup>() };
    fib.family = if A::FAMILY == 4 { AF_INET } else { AF_INET6 };
    fib.l4_protocol = flow.proto;
    fib.sport = src_port;
    fib.dport = flow.dst_port;
    fib.__bindgen_anon_1.tot_len = frame.ip_len as u16;
    fib.ifindex = ctx.ingress_ifindex() as u32;
    if A::FAMILY == 4 {
        fib.__bindgen_anon_3.ipv4_src = src[0];
        fib.__bindgen_anon_4.ipv4_dst = flow.dst.wide()[0];
    } else {
        fib.__bindgen_anon_3.ipv6_src = src;
        fib.__bindgen_anon_4.ipv6_dst = flow.dst.wide();
    }
    // SAFETY: context and structure are the program's own; the size is the structure's.
    let result = unsafe { bpf_fib_lookup(ctx.ctx.cast(), fib, size_of::<FibLookup>() as i32, 0) };
    remember(Home { macs: Link::macs(fib.dmac, fib.smac), ifindex: fib.ifindex, vlan: 0 });
    result as u32
}
