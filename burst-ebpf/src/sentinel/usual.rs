//! What nearly every frame to a link is: TCP or UDP right behind an IP header without options or extensions, untagged or with
//! one tag, in the linear part, and named by no keep rule; or such a packet in a tunnel. Such a frame is free to go; every other
//! one is looked at again.

use aya_ebpf::bindings::xdp_md;
use burst_common::flow::{Addr4, Addr6, Flow, TCP, UDP};
use burst_common::forget::forget;

use super::deep::wraps;
use crate::guard;
use crate::maps;
use crate::packet::{Packet, below_256};
use crate::parse::{ETH, IP4, IP6};
use crate::walk::{IPIP, IPV6, Walk};

const ETHERTYPE_IPV4: u16 = 0x0800u16.to_be();
const ETHERTYPE_IPV6: u16 = 0x86ddu16.to_be();
const ETHERTYPE_8021Q: u16 = 0x8100u16.to_be();
const TAG_LEN: usize = 4;

/// Whether the frame is plainly none of a keep rule's, or plainly not for a link.
#[inline(always)]
pub fn is_free(packet: &Packet) -> bool {
    let Some(eth) = packet.at::<[u16; ETH / 2]>(0) else { return false };
    // SAFETY: `at` checked all fourteen bytes.
    match unsafe { (*eth)[6] } {
        // Of a device whose links are all on VLANs, this is known when the program is loaded.
        ETHERTYPE_IPV4 | ETHERTYPE_IPV6 if maps::policy().link(0).is_none() => true,
        ETHERTYPE_IPV4 => is_free4(packet, ETH),
        ETHERTYPE_IPV6 => is_free6(packet, ETH),
        ETHERTYPE_8021Q => is_free_tagged(packet),
        _ => false,
    }
}

#[inline(always)]
fn is_free_tagged(packet: &Packet) -> bool {
    let Some(tag) = packet.at::<[u16; 2]>(ETH) else { return false };
    // SAFETY: `at` checked both half words.
    let (control, ethertype) = unsafe { ((*tag)[0], (*tag)[1]) };
    // VLAN id (IEEE 802.1Q, section 9.6); 0 is a priority alone.
    if maps::policy().link(u16::from_be(control) & 0x0fff).is_none() {
        return true;
    }
    match ethertype {
        ETHERTYPE_IPV4 => is_free4(packet, ETH + TAG_LEN),
        ETHERTYPE_IPV6 => is_free6(packet, ETH + TAG_LEN),
        _ => false,
    }
}

#[inline(always)]
fn is_free4(packet: &Packet, l3: usize) -> bool {
    header4(packet, l3).is_some_and(|(proto, src, dst)| is_free_segment(packet, l3 + IP4, proto, src, dst))
}

#[inline(always)]
fn is_free6(packet: &Packet, l3: usize) -> bool {
    header6(packet, l3).is_some_and(|(proto, src, dst)| is_free_segment(packet, l3 + IP6, proto, src, dst))
}

/// Protocol and addresses of an IPv4 header without options, of a packet that is whole.
#[inline(always)]
fn header4(packet: &Packet, l3: usize) -> Option<(u8, Addr4, Addr4)> {
    let header = packet.at::<[u32; IP4 / 4]>(l3)?;
    // SAFETY: `at` checked all twenty bytes.
    let (version, fragment, proto, src, dst) = unsafe {
        let (bytes, half) = (header.cast::<u8>(), header.cast::<u16>());
        (*bytes, *half.add(3), *bytes.add(9), (*header)[3], (*header)[4])
    };
    // More-fragments flag and offset (RFC 791, section 3.1).
    if version == 0x45 && fragment & 0x3fffu16.to_be() == 0 { Some((proto, src, dst)) } else { None }
}

/// Protocol and addresses of an IPv6 header.
#[inline(always)]
fn header6(packet: &Packet, l3: usize) -> Option<(u8, Addr6, Addr6)> {
    let header = packet.at::<[u64; IP6 / 8]>(l3)?;
    // SAFETY: `at` checked all forty bytes.
    let (version, proto, src, dst) = unsafe {
        let bytes = header.cast::<u8>();
        (*bytes >> 4, *bytes.add(6), [(*header)[1], (*header)[2]], [(*header)[3], (*header)[4]])
    };
    if version == 6 { Some((proto, src, dst)) } else { None }
}

#[inline(always)]
fn is_free_segment<A: Walk>(packet: &Packet, l4: usize, proto: u8, src: A, dst: A) -> bool {
    let ports = match proto {
        TCP => packet.at::<[u16; 2]>(l4),
        // A header, and as much of what follows as tells whether that is a tunnel.
        UDP => match packet.at::<[u16; 8]>(l4) {
            Some(udp) => {
                // SAFETY: `at` checked sixteen bytes.
                if let Some((family, header)) = unsafe { wraps(&*udp) }
                    && !is_free_inside(packet, l4 + header as usize, family)
                {
                    return false;
                }
                Some(udp.cast())
            }
            None => None,
        },
        IPIP | IPV6 => {
            let family = if proto == IPIP { 4 } else { 6 };
            return !guard::keeps_portless(src, dst) && is_free_inside(packet, l4, family);
        }
        _ => None,
    };
    let Some(ports) = ports else { return false };
    // SAFETY: `at` checked both ports.
    let (src_port, dst_port) = unsafe { ((*ports)[0], (*ports)[1]) };
    !guard::keeps(&Flow { src, dst, src_port, dst_port, proto, flags: 0 })
}

/// Whether a packet inside another is plainly none of a keep rule's. What is inside that is not looked at.
#[inline(always)]
fn is_free_inside(packet: &Packet, at: usize, family: u32) -> bool {
    let ctx = packet.context().ctx;
    // The place is hidden from the verifier, which would else look at every one.
    let at = forget(at as u64);
    if family == 4 { inside4(ctx, at) } else { inside6(ctx, at) }
}

#[inline(never)]
fn inside4(ctx: *mut xdp_md, at: u64) -> bool {
    let (packet, l3) = (Packet::of(ctx), below_256(at));
    header4(&packet, l3).is_some_and(|(proto, src, dst)| is_free_transport(&packet, l3 + IP4, proto, src, dst))
}

#[inline(never)]
fn inside6(ctx: *mut xdp_md, at: u64) -> bool {
    let (packet, l3) = (Packet::of(ctx), below_256(at));
    header6(&packet, l3).is_some_and(|(proto, src, dst)| is_free_transport(&packet, l3 + IP6, proto, src, dst))
}

#[inline(always)]
fn is_free_transport<A: Walk>(packet: &Packet, l4: usize, proto: u8, src: A, dst: A) -> bool {
    if !matches!(proto, TCP | UDP) {
        return false;
    }
    let Some(ports) = packet.at::<[u16; 2]>(l4) else { return false };
    // SAFETY: `at` checked both ports.
    let (src_port, dst_port) = unsafe { ((*ports)[0], (*ports)[1]) };
    !guard::keeps(&Flow { src, dst, src_port, dst_port, proto, flags: 0 })
}
