//! Whether a device takes the VLAN tags off the frames it receives, before any program sees them: an ioctl, and the only
//! unsafe code of this module.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketType, socket};

/// `ETHTOOL_GFLAGS` and the flag of receive VLAN offload (include/uapi/linux/ethtool.h).
const GFLAGS: u32 = 0x25;
const RXVLAN: u32 = 1 << 8;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// A socket of the network namespace of the calling thread, to ask devices of that namespace.
///
/// # Errors
/// The kernel's.
pub(super) fn open() -> io::Result<OwnedFd> {
    Ok(socket(AddressFamily::INET, SocketType::DGRAM, None)?)
}

/// Whether the device takes tags off. Waits for the kernel's lock for network configuration: not for a thread that has
/// anything else to do.
///
/// # Errors
/// The kernel's; a device that knows nothing of such flags is none.
pub(super) fn strips_tags(socket: impl AsFd, device: &str) -> io::Result<bool> {
    // SAFETY: a struct of plain integers and a union of such.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The name ends with a NUL: the last byte stays as it is.
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name[..room].iter_mut().zip(device.bytes()) {
        *to = from as libc::c_char;
    }
    let mut value = Value { command: GFLAGS, data: 0 };
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the request and the value it points to live beyond the call; GFLAGS writes no more than `struct ethtool_value`.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    match io::Error::last_os_error() {
        _ if result == 0 => Ok(value.data & RXVLAN != 0),
        error if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(false),
        error => Err(error),
    }
}
