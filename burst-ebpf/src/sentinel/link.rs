//! Frame → whether it is for a link of this device, and for which.

use burst_common::limits::MAX_LINKS;
use burst_common::link::{Link, VIA_KERNEL};
use burst_common::policy::constant;

use crate::maps;

/// The link that a frame is for: `vlan` is its VLAN id (0: untagged), `to` its first eight bytes, if it has an Ethernet
/// header. The inner `Option` is the link's id, 0 if it is not known which of several.
#[inline(always)]
pub fn link(vlan: u16, to: u64) -> Option<u32> {
    let policy = maps::policy();
    let row = policy.link(vlan)?;
    // A device without a MAC address is a link from end to end.
    if constant(&policy.mac) == 0 {
        return Some(row);
    }
    if row != 0 {
        return if maps::link(row as u8).is_some_and(|link| is_for(link, vlan, to)) { Some(row) } else { None };
    }
    (1..MAX_LINKS as u32).find(|&id| maps::link(id as u8).is_some_and(|link| is_for(link, vlan, to)))
}

/// Whether a link's next hop is where a frame goes. A link that is down keeps its next hop; one that never was up has none,
/// and no frame is for it.
#[inline(always)]
fn is_for(link: &Link, vlan: u16, to: u64) -> bool {
    if link.flags & VIA_KERNEL != 0 {
        return link.vlan == vlan;
    }
    let next_hop = u64::from(link.macs[0]) | u64::from(link.macs[1] as u16) << 32;
    next_hop != 0 && next_hop == to & 0xffff_ffff_ffff && link.vlan == vlan
}

/// Whether the kernel routes what goes over a link. Of several it is not known which one a packet takes.
#[inline(always)]
pub fn is_via_kernel(id: u32) -> bool {
    id != 0 && maps::link(id as u8).is_some_and(|link| link.flags & VIA_KERNEL != 0)
}
