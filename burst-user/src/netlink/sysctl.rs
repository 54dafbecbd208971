//! Switches of the kernel that are files, not netlink messages.

use std::path::PathBuf;

use super::Error;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Whether the kernel forwards packets that arrive on a device. The answer is about the network namespace of the calling
/// thread: procfs follows its reader.
///
/// # Errors
/// [`Error::Sysctl`] when the device does not exist or procfs is not mounted.
pub fn forwarding(device: &str, family: Family) -> Result<bool, Error> {
    let family = match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    };
    let path = PathBuf::from(format!("/proc/sys/net/{family}/conf/{device}/forwarding"));
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim() != "0"),
        Err(source) => Err(Error::Sysctl { path, source }),
    }
}
