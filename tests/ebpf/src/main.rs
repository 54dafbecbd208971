//! Programs that measure burst's own. None of them is part of burst.
//!
//! `replay` gives the program behind it the same packet in every run; `primitives` are the building blocks of a packet
//! path, one each; `wire` is what frames on a wire start from, are compared with, and arrive at.
//!
//! The crate also compiles for the host, as an empty program, so that checks and lints need no exceptions.

#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod replay;
#[cfg(target_arch = "bpf")]
mod primitives;
#[cfg(target_arch = "bpf")]
mod wire;

#[cfg(target_arch = "bpf")]
mod program {
    /// A reachable panic is a program the verifier refuses: this loop never ends.
    #[panic_handler]
    fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
        loop {}
    }

    /// The kernel lets only GPL-compatible programs call some helpers.
    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
}

/// On the host there is nothing to run: the object is built for the `bpf` target by `cargo xtask bench`.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
