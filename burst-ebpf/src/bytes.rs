//! A frame's bytes by copy, wherever the kernel keeps them: linear or not, an XDP frame or a socket buffer. Slower than
//! `packet`, and without a pointer that could go stale or a bound that the verifier must follow.

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use aya_ebpf::helpers::generated::{bpf_skb_load_bytes, bpf_xdp_load_bytes};
use bytemuck::Pod;

/// What kind of frame a program sees.
pub trait Source {
    /// The program's context.
    type Context;

    /// Copies the bytes from offset `at` on into `to`. `false`: the frame has fewer; what `to` holds then means nothing.
    fn read<T: Pod>(ctx: *mut Self::Context, at: u32, to: &mut T) -> bool;
}

/// An XDP frame.
pub struct Xdp;

impl Source for Xdp {
    type Context = xdp_md;

    #[inline(always)]
    fn read<T: Pod>(ctx: *mut xdp_md, at: u32, to: &mut T) -> bool {
        // SAFETY: `ctx` is the program's own context; `to` is valid for a write of its size, and any bytes make a `Pod`.
        unsafe { bpf_xdp_load_bytes(ctx, at, core::ptr::from_mut(to).cast(), size_of::<T>() as u32) == 0 }
    }
}

/// A socket buffer; offsets count from where the kernel's `data` is: the Ethernet header, or the IP header of a device
/// that has none.
pub struct Skb;

impl Source for Skb {
    type Context = __sk_buff;

    #[inline(always)]
    fn read<T: Pod>(ctx: *mut __sk_buff, at: u32, to: &mut T) -> bool {
        // SAFETY: as above.
        unsafe { bpf_skb_load_bytes(ctx.cast(), at, core::ptr::from_mut(to).cast(), size_of::<T>() as u32) == 0 }
    }
}
