//! The BPF object embedded in this binary, as bytes. It does not load it.

use thiserror::Error;

/// There is no object in this binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("this burst was built without its BPF object: run `cargo xtask setup`, then `cargo xtask build`")]
pub struct NoObject;

#[cfg(not(burst_no_object))]
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/burst-ebpf"));

/// The ELF file of the BPF programs, aligned as aya's parser needs it.
///
/// # Errors
/// [`NoObject`] when the build found no BPF toolchain.
#[cfg(not(burst_no_object))]
pub const fn get() -> Result<&'static [u8], NoObject> {
    Ok(OBJECT)
}

/// The ELF file of the BPF programs, aligned as aya's parser needs it.
///
/// # Errors
/// [`NoObject`], always: the build found no BPF toolchain.
#[cfg(burst_no_object)]
pub const fn get() -> Result<&'static [u8], NoObject> {
    Err(NoObject)
}
