//! A word whose value the verifier does not know.
//!
//! The verifier follows each path through a program with the values it knows there. Where paths meet with different constants, it
//! goes on with each of them. Code that looks at a packet header by header has hundreds of such paths: what it hands on from
//! header to header goes through here.

/// The same word. In the program, the verifier takes it for any word at all, at the price of one load.
#[inline(always)]
#[must_use]
pub fn forget(word: u64) -> u64 {
    // In memory that is not frozen, for all the verifier knows. Nobody writes it.
    #[cfg(target_arch = "bpf")]
    static NOTHING: core::sync::atomic::AtomicU64 = core::sync::atomic::AtomicU64::new(0);
    #[cfg(target_arch = "bpf")]
    // SAFETY: valid and aligned for a read. Not `or`: that would keep the bits that are set.
    return word ^ unsafe { core::ptr::read_volatile(NOTHING.as_ptr()) };
    #[cfg(not(target_arch = "bpf"))]
    word
}
