//! veth pairs between namespaces, set up so that XDP can redirect out of either end; and sockets that send frames by them.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Result, ensure};

use crate::netns::Namespace;

/// One end of a link.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// Where it is.
    pub namespace: &'a Namespace,
    /// Its name there, at most 15 bytes.
    pub device: &'a str,
    /// Its MAC address.
    pub mac: [u8; 6],
}

/// Makes a veth pair, up on both ends, with the same MTU (bytes of IP packet).
///
/// - Transmit checksum offload is off on both ends: veth hands "to be done by the card" on as it is, and a redirect
///   by XDP or a rewrite of the packet would deliver a checksum that nobody ever computed.
/// - GRO is on on both ends, which gives each a NAPI queue: a frame that XDP redirects out of one end is silently
///   dropped where the other has neither that nor a native program of its own.
///
/// # Errors
/// When a device of that name exists or the kernel refuses.
pub fn veth(a: End<'_>, b: End<'_>, mtu: u16) -> Result<()> {
    a.namespace.ip(&format!(
        "link add {} address {} mtu {mtu} type veth peer name {} address {} mtu {mtu} netns {}",
        a.device,
        mac_text(a.mac),
        b.device,
        mac_text(b.mac),
        b.namespace.name(),
    ))?;
    // Offloads of both ends first: the kernel decides when an end comes up whether XDP may redirect out of it, by its
    // peer's GRO at that moment, and GRO that is switched on while the peer is down is not noticed (drivers/net/veth.c,
    // veth_open and veth_set_features; the redirect then fails, and shows as `rx_queue_0_drops` of `ethtool -S`).
    for end in [a, b] {
        end.namespace.exec("ethtool", &["-K", end.device, "tx", "off", "gro", "on"])?;
    }
    for end in [a, b] {
        end.namespace.ip(&format!("link set {} up", end.device))?;
    }
    Ok(())
}

/// A MAC address in the usual notation.
#[must_use]
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// A packet socket that sends out of a device of the caller's namespace, and receives nothing.
///
/// # Errors
/// When the kernel refuses it.
pub fn packet_socket(ifindex: u32) -> Result<OwnedFd> {
    // SAFETY: no pointers; the descriptor is new and nobody else's.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
        ensure!(fd >= 0, "a packet socket: {}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd)
    };
    // SAFETY: all-zero is a valid address.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = ifindex.try_into()?;
    // SAFETY: the address is live and as large as is said.
    let bound = unsafe {
        libc::bind(socket.as_raw_fd(), std::ptr::from_ref(&address).cast(), size_of_val(&address) as libc::socklen_t)
    };
    ensure!(bound == 0, "binding a packet socket: {}", std::io::Error::last_os_error());
    Ok(socket)
}
