//! The value a packet is decided on: addresses, ports, protocol, flags.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Protocol number of TCP (RFC 9293).
pub const TCP: u8 = 6;
/// Protocol number of UDP (RFC 768).
pub const UDP: u8 = 17;

/// TCP FIN flag (RFC 9293, section 3.1).
pub const FIN: u8 = 0x01;
/// TCP SYN flag.
pub const SYN: u8 = 0x02;
/// TCP RST flag.
pub const RST: u8 = 0x04;
/// TCP ACK flag.
pub const ACK: u8 = 0x10;

/// An address family as the packet path sees it: an address as it lies in the packet, read in whole words.
pub trait Address: Copy + Eq {
    /// Number of the family: 4 or 6.
    const FAMILY: u8;
    /// The address in the sixteen bytes of the ABI; IPv4 stands in the first word, the rest is zero.
    fn wide(self) -> [u32; 4];
    /// The address behind the sixteen bytes of the ABI.
    fn narrow(wide: [u32; 4]) -> Self;
}

/// An IPv4 address: the four bytes of the packet, as one native load yields them.
pub type Addr4 = u32;
/// An IPv6 address: the sixteen bytes of the packet, as two native loads yield them.
pub type Addr6 = [u64; 2];

impl Address for Addr4 {
    const FAMILY: u8 = 4;
    #[inline(always)]
    fn wide(self) -> [u32; 4] {
        [self, 0, 0, 0]
    }
    #[inline(always)]
    fn narrow(wide: [u32; 4]) -> Self {
        wide[0]
    }
}

impl Address for Addr6 {
    const FAMILY: u8 = 6;
    #[inline(always)]
    fn wide(self) -> [u32; 4] {
        bytemuck::cast(self)
    }
    #[inline(always)]
    fn narrow(wide: [u32; 4]) -> Self {
        bytemuck::cast(wide)
    }
}

/// An IPv4 address as the packet path holds it.
#[must_use]
pub const fn addr4(ip: Ipv4Addr) -> Addr4 {
    u32::from_ne_bytes(ip.octets())
}

/// An IPv6 address as the packet path holds it.
#[must_use]
pub const fn addr6(ip: Ipv6Addr) -> Addr6 {
    let o = ip.octets();
    [
        u64::from_ne_bytes([o[0], o[1], o[2], o[3], o[4], o[5], o[6], o[7]]),
        u64::from_ne_bytes([o[8], o[9], o[10], o[11], o[12], o[13], o[14], o[15]]),
    ]
}

/// An address in the sixteen bytes of the ABI.
#[must_use]
pub fn wide(ip: IpAddr) -> [u32; 4] {
    match ip {
        IpAddr::V4(ip) => addr4(ip).wide(),
        IpAddr::V6(ip) => addr6(ip).wide(),
    }
}

/// The address behind the sixteen bytes of the ABI; `family` is 4 or 6.
#[must_use]
pub fn narrow(family: u8, wide: [u32; 4]) -> IpAddr {
    if family == 6 {
        IpAddr::V6(Ipv6Addr::from(bytemuck::cast::<[u32; 4], [u8; 16]>(wide)))
    } else {
        IpAddr::V4(Ipv4Addr::from(wide[0].to_ne_bytes()))
    }
}

/// What a packet says about the flow it belongs to. Ports are in network byte order, as they lie in the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Source port, network byte order.
    pub src_port: u16,
    /// Destination port, network byte order.
    pub dst_port: u16,
    /// Protocol: [`TCP`] or [`UDP`].
    pub proto: u8,
    /// TCP flags; 0 for UDP.
    pub flags: u8,
}

impl<A: Address> Flow<A> {
    /// Whether this packet opens its flow: a TCP SYN without ACK, and without RST or FIN, with which no stack takes it. No UDP packet does in this version: its
    /// [`Flow::flags`] are 0, which is all that is asked. A repeated SYN counts again.
    #[inline(always)]
    #[must_use]
    pub fn opens(&self) -> bool {
        self.flags & (SYN | ACK | RST | FIN) == SYN
    }

    /// Whether this packet answers a connection that the service itself opened: a TCP SYN with ACK.
    #[inline(always)]
    #[must_use]
    pub fn answers(&self) -> bool {
        self.flags & (SYN | ACK) == SYN | ACK
    }

    /// The same flow as the other side sees it.
    #[inline(always)]
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self { src: self.dst, dst: self.src, src_port: self.dst_port, dst_port: self.src_port, ..*self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_the_way_into_the_abi_and_back() {
        for ip in ["203.0.113.20", "0.0.0.0", "255.255.255.255", "2001:db8::20", "::", "::ffff:192.0.2.1"] {
            let ip: IpAddr = ip.parse().unwrap();
            assert_eq!(narrow(if ip.is_ipv6() { 6 } else { 4 }, wide(ip)), ip);
        }
        assert_eq!(bytemuck::cast::<[u32; 4], [u8; 16]>(wide("192.0.2.7".parse().unwrap()))[..4], [192, 0, 2, 7]);
    }

    #[test]
    fn only_a_syn_without_ack_opens() {
        let flow = |proto, flags| Flow { src: 1u32, dst: 2, src_port: 3, dst_port: 4, proto, flags };
        assert!(flow(TCP, SYN).opens() && !flow(TCP, SYN).answers());
        assert!(flow(TCP, SYN | 0xc0).opens(), "ECN setup (RFC 3168) opens as well");
        assert!(!flow(TCP, SYN | ACK).opens() && flow(TCP, SYN | ACK).answers());
        assert!(!flow(TCP, SYN | RST).opens() && !flow(TCP, SYN | FIN).opens());
        assert!(!flow(TCP, ACK).opens() && !flow(UDP, 0).opens());
    }
}
