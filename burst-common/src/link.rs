//! A link: one way to the cloud, ready to be written into a frame.

use bytemuck::{Pod, Zeroable};

use crate::proof::layout;

/// The routing table picks the way: the packet is rewritten and goes on to the kernel.
pub const VIA_KERNEL: u32 = 1 << 0;

/// A row of the link table: one cache line. Free, or not to be used now, when `ifindex` is 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Zeroable, Pod)]
pub struct Link {
    /// The first twelve bytes of a frame: destination MAC (the next hop's), source MAC (the device's). As three words
    /// of the frame, so that they are written with three stores. Zero for [`VIA_KERNEL`].
    pub macs: [u32; 3],
    /// Device the frame leaves by (the parent of a VLAN): key of the device map. 0: the link is down.
    pub ifindex: u32,
    /// 802.1Q VLAN id, host byte order; 0 is untagged.
    pub vlan: u16,
    /// Largest IP packet in bytes.
    pub mtu: u16,
    /// [`VIA_KERNEL`] or nothing.
    pub flags: u32,
    /// Source of IPv6 tunnels over this link; zero: it carries none.
    pub source6: [u32; 4],
    /// Source of IPv4 tunnels over this link, as in the packet; zero: it carries none.
    pub source4: u32,
    /// Zero.
    pub pad: [u32; 5],
}
layout!(
    Link, size = 64,
    macs @ 0, ifindex @ 12, vlan @ 16, mtu @ 18, flags @ 20, source6 @ 24, source4 @ 40, pad @ 44,
);

impl Link {
    /// [`Link::vlan`], [`Link::mtu`] and [`Link::flags`] by one load.
    #[inline(always)]
    #[must_use]
    pub fn shape(&self) -> (u16, u16, u32) {
        const {
            assert!(core::mem::offset_of!(Self, vlan) == 16 && core::mem::offset_of!(Self, flags) == 20);
            assert!(cfg!(target_endian = "little"));
        }
        // SAFETY: sixteen bytes into a row that is aligned to eight, three fields follow each other and are eight bytes long.
        let word = unsafe { *(&raw const self.vlan).cast::<u64>() };
        (word as u16, (word >> 16) as u16, (word >> 32) as u32)
    }

    /// The three words of a frame's MAC addresses.
    #[must_use]
    pub fn macs(destination: [u8; 6], source: [u8; 6]) -> [u32; 3] {
        let mut bytes = [0u8; 12];
        bytes[..6].copy_from_slice(&destination);
        bytes[6..].copy_from_slice(&source);
        bytemuck::cast(bytes)
    }
}
