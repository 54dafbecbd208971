//! The building blocks of a packet path, each alone: what they cost says what a design can cost. All take their key from
//! the packet, as [`key`] does, which is to be subtracted.

use aya_ebpf::bindings::BPF_F_NO_COMMON_LRU;
use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_PASS};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray};
use aya_ebpf::helpers::generated::{
    bpf_get_smp_processor_id, bpf_ktime_get_coarse_ns, bpf_ktime_get_ns, bpf_xdp_adjust_head,
};
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;

/// Flows at most; the array's index is the lowest 16 bits of a key.
const FLOWS: usize = 1 << 16;

#[btf_map]
static ARRAY: Array<u64, FLOWS> = Array::new();
#[btf_map]
static PER_CPU: PerCpuArray<u64, FLOWS> = PerCpuArray::new();
#[btf_map]
static HASH: HashMap<u64, u64, { 4 * FLOWS }> = HashMap::new();
#[btf_map]
static LRU: LruHashMap<u64, u64, { 4 * FLOWS }, { BPF_F_NO_COMMON_LRU as usize }> = LruHashMap::new();
#[btf_map]
static LPM: LpmTrie<[u8; 4], u32, 16384> = LpmTrie::new();

/// Reads the source address of an IPv4 packet, and passes.
#[xdp(frags)]
pub fn key(ctx: XdpContext) -> u32 {
    verdict(address(&ctx).map(u64::from))
}

/// Does nothing.
#[xdp(frags)]
pub fn nothing(_ctx: XdpContext) -> u32 {
    XDP_PASS
}

/// A lookup in an array.
#[xdp(frags)]
pub fn array(ctx: XdpContext) -> u32 {
    verdict(address(&ctx).and_then(|address| ARRAY.get(index(address)).copied()))
}

/// A lookup in a per-CPU array.
#[xdp(frags)]
pub fn per_cpu_array(ctx: XdpContext) -> u32 {
    verdict(address(&ctx).and_then(|address| PER_CPU.get(index(address)).copied()))
}

/// A lookup in a hash map, by eight bytes.
#[xdp(frags)]
pub fn hash(ctx: XdpContext) -> u32 {
    // SAFETY: nothing removes entries while the program runs.
    verdict(address(&ctx).and_then(|address| unsafe { HASH.get(u64::from(address)) }.copied()))
}

/// A lookup in an LRU hash map, by eight bytes.
#[xdp(frags)]
pub fn lru(ctx: XdpContext) -> u32 {
    // SAFETY: as for `hash`.
    verdict(address(&ctx).and_then(|address| unsafe { LRU.get(u64::from(address)) }.copied()))
}

/// A lookup of the longest prefix.
#[xdp(frags)]
pub fn lpm(ctx: XdpContext) -> u32 {
    verdict(address(&ctx).and_then(|address| LPM.get(&Key::new(32, address.to_ne_bytes())).copied()).map(u64::from))
}

/// The clock.
#[xdp(frags)]
pub fn clock(ctx: XdpContext) -> u32 {
    // SAFETY: a helper without arguments, here and below.
    verdict(address(&ctx).map(|_| unsafe { bpf_ktime_get_ns() }))
}

/// The clock of the last tick.
#[xdp(frags)]
pub fn coarse_clock(ctx: XdpContext) -> u32 {
    // SAFETY: as above.
    verdict(address(&ctx).map(|_| unsafe { bpf_ktime_get_coarse_ns() }))
}

/// The number of this CPU.
#[xdp(frags)]
pub fn cpu(ctx: XdpContext) -> u32 {
    // SAFETY: as above.
    verdict(address(&ctx).map(|_| u64::from(unsafe { bpf_get_smp_processor_id() })))
}

/// Makes room in front of the packet, and takes it back.
#[xdp(frags)]
pub fn head(ctx: XdpContext) -> u32 {
    // SAFETY: the context is the program's own.
    let moved = |by| unsafe { bpf_xdp_adjust_head(ctx.ctx, by) } == 0;
    verdict(address(&ctx).and_then(|address| (moved(-36) && moved(36)).then_some(u64::from(address))))
}

/// The source address of an IPv4 packet.
#[inline(always)]
fn address(ctx: &XdpContext) -> Option<u32> {
    if ctx.data() + 34 > ctx.data_end() {
        return None;
    }
    // SAFETY: the address is at 14 + 12 (RFC 791, section 3.1), within what was checked.
    Some(unsafe { *((ctx.data() + 26) as *const u32) })
}

/// Flow `n` adds `n` to the address's last 16 bits, read as the machine reads them.
#[inline(always)]
const fn index(address: u32) -> u32 {
    address >> 16
}

/// Uses a value, so that it is not optimised away; none is an error of the benchmark.
#[inline(always)]
fn verdict(value: Option<u64>) -> u32 {
    match value {
        // No map holds this value, no clock and no counter gets there.
        None | Some(u64::MAX) => XDP_ABORTED,
        Some(_) => XDP_PASS,
    }
}
