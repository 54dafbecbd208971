//! The packet's bytes, and the only bounds check.

use core::mem::size_of;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::{bpf_xdp_adjust_head, bpf_xdp_get_buff_len};
use aya_ebpf::programs::XdpContext;

/// An offset below 256, whatever its other bits say. In assembly: the compiler would leave the mask out where it knows the bound
/// from elsewhere, and the verifier may not know it (Linux 6.1 forgets bounds at an exclusive or).
#[inline(always)]
pub fn below_256(mut offset: u64) -> usize {
    // SAFETY: one register, and nothing else.
    unsafe {
        core::arch::asm!("{0} &= 255", inlateout(reg) offset, options(pure, nomem, nostack, preserves_flags));
    }
    offset as usize
}

/// The linear part of a frame.
#[derive(Clone, Copy)]
pub struct Packet {
    data: usize,
    end: usize,
    ctx: *mut xdp_md,
    /// Bytes from the start that are known to be there. A constant wherever it is read: it costs nothing.
    held: usize,
}

impl Packet {
    /// The frame as it stands now. Anything that moves the head makes it stale.
    ///
    /// Both bounds are read in assembly. In `xdp_md` they are words of 32 bits that the verifier turns into loads of whole pointers:
    /// the compiler, which knows nothing of that, may move them by 32-bit registers, which is half a pointer, and may make the
    /// loaded values arguments of a subprogram, where the verifier does not know them.
    #[inline(always)]
    pub fn of(ctx: *mut xdp_md) -> Self {
        let (data, end): (usize, usize);
        // SAFETY: `ctx` is the program's own context: `data` is its first word, `data_end` its second (include/uapi/linux/bpf.h).
        unsafe {
            core::arch::asm!(
                "{data} = *(u32 *)({ctx} + 0)", "{end} = *(u32 *)({ctx} + 4)",
                ctx = in(reg) ctx, data = out(reg) data, end = lateout(reg) end,
                options(readonly, nostack, preserves_flags),
            );
        }
        Self { data, end, ctx, held: 0 }
    }

    /// The same frame, if its linear part has `bytes` bytes or more: what lies in them is read and written without another
    /// check.
    #[inline(always)]
    pub fn hold(&self, bytes: usize) -> Option<Self> {
        if self.data + bytes > self.end { None } else { Some(Self { held: bytes, ..*self }) }
    }

    /// The same frame once more, whose bytes the compiler takes for others. What is needed again is then read again, by one load,
    /// and need not be kept on the stack meanwhile, by a store and a load.
    #[inline(always)]
    pub fn again(&self) -> Self {
        let mut data = self.data;
        // SAFETY: the value comes out as it went in; the verifier follows it.
        unsafe {
            core::arch::asm!("{0} = {0}", inlateout(reg) data, options(pure, nomem, nostack, preserves_flags));
        }
        Self { data, ..*self }
    }

    /// A pointer to a `T` at `offset`, if the linear part holds all of it.
    ///
    /// Fields of headers are read and written as whole words through it. They may be misaligned for their type: this
    /// target has no alignment requirement for packet memory on the machines burst supports (the verifier refuses the
    /// access where that is not so), and a `read_unaligned` would be one load per byte.
    ///
    /// `T` has two bytes or more: the comparison for one byte is turned into "end above start", from which the verifier learns
    /// nothing (kernel/bpf/verifier.c, `find_good_pkt_pointers`).
    #[inline(always)]
    pub fn at<T>(&self, offset: usize) -> Option<*mut T> {
        let mut start = self.data + offset;
        let known = core::intrinsics::is_val_statically_known(offset);
        if known && offset + size_of::<T>() <= self.held {
            return Some(start as *mut T);
        }
        if !known {
            // To the verifier every sum of pointer and unknown offset is a pointer of its own, of which it knows only what was
            // compared with it. So the compiler must not leave a comparison out because it made the same one of an equal sum.
            // SAFETY: the value comes out as it went in. (No instruction at all would leave two source lines on one, which the
            // kernel refuses.)
            unsafe {
                core::arch::asm!("{0} = {0}", inlateout(reg) start, options(pure, nomem, nostack, preserves_flags))
            };
        }
        if start + size_of::<T>() > self.end { None } else { Some(start as *mut T) }
    }

    /// Bytes in the linear part.
    #[inline(always)]
    pub fn linear_len(&self) -> u32 {
        (self.end - self.data) as u32
    }

    /// Bytes in all, fragments of the frame included. Costs a helper call: only for frames whose headers promise more
    /// than the linear part holds.
    #[inline(always)]
    pub fn full_len(&self) -> u32 {
        // SAFETY: `ctx` is the program's own context.
        unsafe { bpf_xdp_get_buff_len(self.ctx) as u32 }
    }

    /// The program's context.
    #[inline(always)]
    pub fn context(&self) -> XdpContext {
        XdpContext::new(self.ctx)
    }

    /// Makes room for `bytes` in front of the frame, or cuts as many off where it is negative. `None` when the driver left
    /// less room, or less than an Ethernet header would be left; then the frame is as it was.
    #[inline(always)]
    pub fn grow(&self, bytes: i32) -> Option<Self> {
        // SAFETY: `ctx` is the program's own context. The call invalidates every packet pointer: `self` is not used on.
        if unsafe { bpf_xdp_adjust_head(self.ctx, -bytes) } != 0 {
            return None;
        }
        Some(Self::of(self.ctx))
    }
}
