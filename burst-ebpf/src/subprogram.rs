//! Functions that the verifier looks at once, by themselves, whatever calls them and however often.
//!
//! A function with global linkage is verified for any arguments (Documentation/bpf/verifier.rst, "global functions"; Linux
//! 5.6): what costs the verifier much and is called from several places is one. It has a stack of its own, takes the context
//! and numbers, and returns a number: everything else it reads anew, from the packet and from this CPU's memory.

/// Defines a global function for each family, and one that calls the right one: `name = ipv4, ipv6: body(arguments)`, where
/// `body` is generic over the family. All numbers are `u32`.
macro_rules! subprograms {
    ($(#[$doc:meta])* $visible:vis $name:ident = $four:ident, $six:ident: $body:ident($($argument:ident),* $(,)?)) => {
        $(#[$doc])*
        #[inline(always)]
        $visible fn $name<A: $crate::guard::Guarded>(
            ctx: *mut aya_ebpf::bindings::xdp_md,
            $($argument: u32),*
        ) -> u32 {
            if A::FAMILY == 4 { $four(ctx, $($argument),*) } else { $six(ctx, $($argument),*) }
        }

        // SAFETY (no_mangle): no other symbol of the object has this name.
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $four(ctx: *mut aya_ebpf::bindings::xdp_md, $($argument: u32),*) -> u32 {
            $body::<burst_common::flow::Addr4>(ctx, $($argument),*)
        }

        // SAFETY (no_mangle): as above.
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $six(ctx: *mut aya_ebpf::bindings::xdp_md, $($argument: u32),*) -> u32 {
            $body::<burst_common::flow::Addr6>(ctx, $($argument),*)
        }
    };
}
pub(crate) use subprograms;
