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

/// Whether the kernel looks up ways for packets that arrive on a device. The answer is about the network namespace of the
/// calling thread: procfs follows its reader.
///
/// # Errors
/// [`Error::Sysctl`] when the device does not exist or procfs is not mounted.
pub fn forwarding(device: &str, family: Family) -> Result<bool, Error> {
    Ok(read(family, device, "forwarding")? != 0)
}

/// Whether the kernel itself sends on what arrives on a device. That is another question for IPv6: there it goes by the switch
/// of all devices (`ip6_forward` in net/ipv6/ip6_output.c), or by `force_forwarding` of this one (Linux 6.17).
///
/// # Errors
/// As [`forwarding`].
pub fn sends_on(device: &str, family: Family) -> Result<bool, Error> {
    let all = match family {
        Family::V4 => return forwarding(device, family),
        Family::V6 => forwarding("all", family)?,
    };
    // Older kernels do not have it.
    Ok(all || read(family, device, "force_forwarding").is_ok_and(|value| value != 0))
}

/// Whether the kernel drops IPv4 packets that arrive on a device other than the one it would answer by: strict reverse path
/// filtering (RFC 3704), the larger of the switches of all devices and of this one being 1.
///
/// # Errors
/// As [`forwarding`].
pub fn checks_sources(device: &str) -> Result<bool, Error> {
    let of = |device| read(Family::V4, device, "rp_filter");
    Ok(of("all")?.max(of(device)?) == 1)
}

fn read(family: Family, device: &str, switch: &str) -> Result<u32, Error> {
    let family = match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    };
    let path = PathBuf::from(format!("/proc/sys/net/{family}/conf/{device}/{switch}"));
    let number = |text: String| text.trim().parse().map_err(std::io::Error::other);
    std::fs::read_to_string(&path).and_then(number).map_err(|source| Error::Sysctl { path, source })
}
