//! veth pairs between namespaces, set up so that XDP can redirect out of either end.

use anyhow::Result;

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
