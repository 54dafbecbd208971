//! A pin: the remembered placement of one flow, used only where a slot alone cannot tell.

use core::net::SocketAddr;

use bytemuck::{Pod, Zeroable};

use crate::flow::{Address, Flow, narrow};
use crate::proof::layout;
use crate::slot::EndpointId;

/// The flow a pin is about, as the client addresses it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Zeroable, Pod)]
pub struct PinKey {
    src: [u32; 4],
    dst: [u32; 4],
    src_port: u16,
    dst_port: u16,
    proto: u8,
    family: u8,
    pad: u16,
}
layout!(PinKey, size = 40, src @ 0, dst @ 16, src_port @ 32, dst_port @ 34, proto @ 36, family @ 37, pad @ 38);

impl PinKey {
    /// The key of a flow.
    #[inline(always)]
    #[must_use]
    pub fn new<A: Address>(flow: &Flow<A>) -> Self {
        Self {
            src: flow.src.wide(),
            dst: flow.dst.wide(),
            src_port: flow.src_port,
            dst_port: flow.dst_port,
            proto: flow.proto,
            family: A::FAMILY,
            pad: 0,
        }
    }

    /// The key of addresses and ports as the ABI has them; ports in network byte order.
    #[must_use]
    pub const fn of(family: u8, proto: u8, (src, src_port): ([u32; 4], u16), (dst, dst_port): ([u32; 4], u16)) -> Self {
        Self { src, dst, src_port, dst_port, proto, family, pad: 0 }
    }

    /// Source address and port, host byte order.
    #[must_use]
    pub fn source(&self) -> SocketAddr {
        SocketAddr::new(narrow(self.family, self.src), u16::from_be(self.src_port))
    }

    /// Destination address and port, host byte order.
    #[must_use]
    pub fn destination(&self) -> SocketAddr {
        SocketAddr::new(narrow(self.family, self.dst), u16::from_be(self.dst_port))
    }

    /// Protocol number.
    #[must_use]
    pub const fn proto(&self) -> u8 {
        self.proto
    }

    /// Family: 4 or 6.
    #[must_use]
    pub const fn family(&self) -> u8 {
        self.family
    }

    /// The hash that chooses the flow's slot.
    #[must_use]
    pub fn hash(&self, seed: u64, by_client: bool) -> u64 {
        if self.family == 6 {
            let halves = |w: [u32; 4]| bytemuck::cast::<[u32; 4], [u64; 2]>(w);
            hash_of(seed, by_client, &self.flow_of(halves(self.src), halves(self.dst)))
        } else {
            hash_of(seed, by_client, &self.flow_of(self.src[0], self.dst[0]))
        }
    }

    fn flow_of<A>(&self, src: A, dst: A) -> Flow<A> {
        Flow { src, dst, src_port: self.src_port, dst_port: self.dst_port, proto: self.proto, flags: 0 }
    }
}

fn hash_of<A: Address>(seed: u64, by_client: bool, flow: &Flow<A>) -> u64 {
    if by_client { crate::hash::client(seed, flow) } else { crate::hash::flow(seed, flow) }
}

/// Where the flow is, and when it was last seen.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Zeroable, Pod)]
pub struct Pin {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// Class id.
    pub class: u16,
    /// The controller's epoch (seconds, see [`crate::control::Control::epoch`]) at which it was last seen.
    pub epoch: u32,
}
layout!(Pin, size = 8, endpoint @ 0, class @ 2, epoch @ 4);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{TCP, addr4, addr6};

    #[test]
    fn a_key_hashes_as_its_flow_does() {
        let four = Flow {
            src: addr4("198.51.100.7".parse().unwrap()),
            dst: addr4("203.0.113.20".parse().unwrap()),
            src_port: 1,
            dst_port: 2,
            proto: TCP,
            flags: 16,
        };
        let six = Flow {
            src: addr6("2001:db8::7".parse().unwrap()),
            dst: addr6("2001:db8::20".parse().unwrap()),
            src_port: 1,
            dst_port: 2,
            proto: TCP,
            flags: 16,
        };
        assert_eq!(PinKey::new(&four).hash(9, false), crate::hash::flow(9, &four));
        assert_eq!(PinKey::new(&four).hash(9, true), crate::hash::client(9, &four));
        assert_eq!(PinKey::new(&six).hash(9, false), crate::hash::flow(9, &six));
        assert_eq!(PinKey::new(&six).hash(9, true), crate::hash::client(9, &six));
    }
}
