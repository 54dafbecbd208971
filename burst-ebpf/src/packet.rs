//! The packet's bytes, and the only bounds check.

use core::mem::size_of;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::{bpf_xdp_adjust_head, bpf_xdp_get_buff_len};
use aya_ebpf::programs::XdpContext;

/// The linear part of a frame.
#[derive(Clone, Copy)]
pub struct Packet {
    data: usize,
    end: usize,
    ctx: *mut xdp_md,
}

impl Packet {
    /// The frame as it stands now. Anything that moves the head makes it stale.
    #[inline(always)]
    pub fn new(ctx: &XdpContext) -> Self {
        Self { data: ctx.data(), end: ctx.data_end(), ctx: ctx.ctx }
    }

    /// The frame, in a subprogram that is handed the context. Of an argument that is only loaded from, the compiler would make
    /// the loaded values arguments, and the verifier knows no arithmetic on the end of a packet: this keeps it from that.
    #[inline(always)]
    pub fn of(ctx: *mut xdp_md) -> Self {
        Self::new(&XdpContext::new(core::hint::black_box(ctx)))
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
        if !core::intrinsics::is_val_statically_known(offset) {
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
        Some(Self::new(&self.context()))
    }
}
