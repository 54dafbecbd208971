//! `replay`: puts a packet back as it was, and hands it to the program under test.
//!
//! `BPF_PROG_TEST_RUN` with `repeat` restores nothing between two runs. This program does, before each: it takes back
//! what the last run added to the front or took from it, writes the headers again, and tail-calls.

use core::arch::asm;

use aya_ebpf::bindings::xdp_action::XDP_ABORTED;
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::btf_maps::{Array, ProgramArray};
use aya_ebpf::helpers::generated::bpf_xdp_adjust_head;
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use burst_tests_ebpf::{HEAD, Replay, less};

/// Replaced by the loader, then frozen.
// SAFETY (no_mangle): no other symbol of the object has this name.
#[unsafe(no_mangle)]
static REPLAY: Replay = {
    // SAFETY: `Replay` is `Zeroable`; `bytemuck::zeroed` is not `const`.
    unsafe { core::mem::zeroed() }
};

/// The program under test.
#[btf_map]
static NEXT: ProgramArray<1> = ProgramArray::new();

/// Runs so far; the lowest bits are the number of the next flow.
#[btf_map]
static RUNS: Array<u64, 1> = Array::new();

/// A frame of this length or longer, whole in its linear part. Ends in `XDP_ABORTED` where anything is not as it must
/// be: no program under test returns that.
#[xdp(frags)]
pub fn replay(ctx: XdpContext) -> u32 {
    if restore(ctx.ctx).is_some() {
        // SAFETY: nothing is left to be dropped; it returns only where there is no program.
        unsafe { NEXT.tail_call(&ctx, 0) };
    }
    XDP_ABORTED
}

#[inline(always)]
fn restore(ctx: *mut xdp_md) -> Option<()> {
    // SAFETY: `ctx` is the program's own, here and below.
    let mut length = unsafe { u64::from((*ctx).data_end - (*ctx).data) };
    // In assembly, so that the compiler does not turn the sum around: the verifier allows packet pointers to be subtracted
    // from each other, and nothing else from them. A frame's linear part is shorter than this mask.
    // SAFETY: one register, and nothing else.
    unsafe { asm!("{0} &= 0xffff", inout(reg) length) };
    let grown = length as i32 - word(&REPLAY.len) as i32;
    // SAFETY: as above.
    if grown != 0 && unsafe { bpf_xdp_adjust_head(ctx, grown) } != 0 {
        return None;
    }
    // SAFETY: as above.
    let (data, end) = unsafe { ((*ctx).data as usize, (*ctx).data_end as usize) };
    if data + HEAD > end {
        return None;
    }
    let runs = RUNS.get_ptr_mut(0)?;
    // SAFETY: an array element lives as long as the program, and only this CPU runs it.
    let n = unsafe { *runs } as u32 & word(&REPLAY.flows);
    for (at, bytes) in REPLAY.head.iter().enumerate() {
        // SAFETY: `HEAD` bytes were checked above, the same number as the template has.
        unsafe { *((data + at * 8) as *mut u64) = core::ptr::read_volatile(bytes) };
    }
    vary(data, word(&REPLAY.address_at), |word| word + n as u16)?;
    vary(data, word(&REPLAY.port_at), |word| less(word, n as u16))?;
    if word(&REPLAY.id_at) != 0 {
        vary(data, word(&REPLAY.id_at), |word| less(word, n as u16))?;
    }
    // A locked instruction waits until what was written above is in the cache. Without it the program under test would wait
    // for that, wherever it reads a word that was not written as one word (no store forwarding); a card's frames
    // have no such past.
    // SAFETY: as for `runs` above; the element is aligned, and nothing else is touched.
    unsafe { asm!("lock *(u64 *)({runs} + 0) += {one}", runs = in(reg) runs, one = in(reg) 1u64) };
    Some(())
}

#[inline(always)]
fn vary(data: usize, at: u32, change: impl Fn(u16) -> u16) -> Option<()> {
    let at = at as usize;
    if at > HEAD - 2 {
        return None;
    }
    let word = (data + at) as *mut u16;
    // SAFETY: `HEAD` bytes from `data` were checked by the caller.
    unsafe { *word = change(*word) };
    Some(())
}

/// Volatile, because the loader replaces the bytes after compilation.
#[inline(always)]
fn word(of: &u32) -> u32 {
    // SAFETY: a reference is valid and aligned for a read.
    unsafe { core::ptr::read_volatile(of) }
}
