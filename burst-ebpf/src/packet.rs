//! The packet's bytes, and the only bounds check.

use core::mem::size_of;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::bpf_xdp_get_buff_len;
use aya_ebpf::programs::XdpContext;

/// The linear part of a frame.
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

    /// A pointer to a `T` at `offset`, if the linear part holds all of it.
    ///
    /// Fields of headers are read and written as whole words through it. They may be misaligned for their type: this
    /// target has no alignment requirement for packet memory on the machines burst supports (the verifier refuses the
    /// access where that is not so), and a `read_unaligned` would be one load per byte.
    #[inline(always)]
    pub fn at<T>(&self, offset: usize) -> Option<*mut T> {
        if self.data + offset + size_of::<T>() > self.end { None } else { Some((self.data + offset) as *mut T) }
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
}
