//! Socket buffer → reply: what `parse` understands, by copies.

use aya_ebpf::bindings::__sk_buff;
use burst_common::flow::{Flow, TCP, UDP};
use burst_common::reason::Reason;

use crate::bytes::{Skb, Source};
use crate::walk::{AUTHENTICATED, FIRST_FRAGMENT, IP4, IP6, Ip, ROUTED, STRANGE, Walk};

/// Shortest TCP header (RFC 9293).
const TCP_MIN: u32 = 20;
/// A UDP header (RFC 768), and of every other transport as much as an ICMP error is sure to quote (RFC 792).
pub const UDP_LEN: u32 = 8;
/// Type, code, checksum and a word that depends on the type, before the quoted packet (RFC 792, RFC 4443).
pub const ICMP_HEADER: u32 = 8;

/// IPv4 options looked at; a header has room for more only if they are padding.
const MAX_OPTIONS: usize = 10;

/// A packet that may be an endpoint's answer.
pub struct Reply<A> {
    /// Its flow. Of an ICMP error: the flow of the packet it is about, in the direction of the error.
    pub flow: Flow<A>,
    /// The sender as the IP header names it: of an ICMP error some router, else the flow's source.
    pub from: A,
    /// Length of the IP packet.
    pub ip_len: u32,
    /// Length of the largest IP packet that it goes out as: less where the kernel has merged segments.
    pub segment: u32,
    /// Offset of the IP header.
    pub l3: u32,
    /// Offset of the transport header, of an ICMP error the ICMP header.
    pub l4: u32,
    /// Length of the transport header.
    pub header: u32,
    /// Of an ICMP error: the offset of the transport header it quotes; else 0.
    pub quoted: u32,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Whether nobody on the way may fragment it: IPv6, or IPv4 with DF.
    pub whole: bool,
}

impl<A: Walk> Reply<A> {
    /// Nothing read yet.
    #[inline(always)]
    pub fn new() -> Self {
        Self {
            flow: Flow { src: A::NONE, dst: A::NONE, src_port: 0, dst_port: 0, proto: 0, flags: 0 },
            from: A::NONE,
            ip_len: 0,
            segment: 0,
            l3: 0,
            l4: 0,
            header: 0,
            quoted: 0,
            ttl: 0,
            whole: true,
        }
    }

    /// Whether this is an ICMP error.
    #[inline(always)]
    pub fn is_error(&self) -> bool {
        self.quoted != 0
    }

    /// Offset of the end of the IP packet.
    #[inline(always)]
    pub fn end(&self) -> u32 {
        self.l3 + self.ip_len
    }
}

/// Reads the packet whose IP header is at `l3`.
#[inline(never)]
pub fn read<A: Walk>(skb: *mut __sk_buff, l3: u32, reply: &mut Reply<A>) -> Result<(), Reason> {
    let mut ip = Ip::<A>::new();
    match A::walk::<Skb>(skb, l3, &mut ip) {
        Ok(()) => {}
        Err(Reason::NotIp) => return Err(Reason::BadLength),
        Err(reason) => return Err(reason),
    }
    for (odd, reason) in [
        (FIRST_FRAGMENT, Reason::Fragment),
        (AUTHENTICATED, Reason::Authenticated),
        (ROUTED, Reason::SourceRoute),
        (STRANGE, Reason::Extension),
    ] {
        if ip.odd & odd != 0 {
            return Err(reason);
        }
    }
    // SAFETY: fields of the program's own context.
    let (len, gso) = unsafe { ((*skb).len, (*skb).gso_size) };
    // What the kernel has merged into more than 64 kB has no length in its header.
    let bare = if A::FAMILY == 4 { 0 } else { IP6 };
    (reply.l3, reply.l4) = (l3, ip.l4);
    reply.ip_len = if ip.len == bare && gso != 0 { len.wrapping_sub(l3) } else { ip.len };
    (reply.flow.src, reply.flow.dst, reply.flow.proto) = (ip.flow.src, ip.flow.dst, ip.flow.proto);
    (reply.from, reply.ttl, reply.whole) = (ip.flow.src, ip.ttl, ip.whole);
    if reply.end() > len || ip.l4 > reply.end() {
        return Err(Reason::BadLength);
    }
    if A::FAMILY == 4 && ip.l4 > l3 + IP4 {
        options(skb, l3 + IP4, ip.l4)?;
    }
    transport(skb, reply)?;
    reply.segment = if gso == 0 { reply.ip_len } else { reply.l4 - l3 + reply.header + gso };
    Ok(())
}

#[inline(always)]
fn transport<A: Walk>(skb: *mut __sk_buff, reply: &mut Reply<A>) -> Result<(), Reason> {
    let payload = reply.end() - reply.l4;
    match reply.flow.proto {
        TCP => {
            let mut tcp = [0u16; TCP_MIN as usize / 2];
            if payload < TCP_MIN {
                return Err(Reason::BadLength);
            }
            if !Skb::read(skb, reply.l4, &mut tcp) {
                return Err(Reason::Truncated);
            }
            // Data offset and flags (RFC 9293, section 3.1).
            let word = u16::from_be(tcp[6]);
            reply.header = u32::from(word >> 12) * 4;
            if reply.header < TCP_MIN || reply.header > payload {
                return Err(Reason::BadLength);
            }
            (reply.flow.src_port, reply.flow.dst_port, reply.flow.flags) = (tcp[0], tcp[1], word as u8);
        }
        UDP => {
            let mut udp = [0u16; UDP_LEN as usize / 2];
            if payload < UDP_LEN {
                return Err(Reason::BadLength);
            }
            if !Skb::read(skb, reply.l4, &mut udp) {
                return Err(Reason::Truncated);
            }
            let length = u32::from(u16::from_be(udp[2]));
            if length < UDP_LEN || length > payload {
                return Err(Reason::BadLength);
            }
            reply.header = UDP_LEN;
            (reply.flow.src_port, reply.flow.dst_port) = (udp[0], udp[1]);
        }
        proto if proto == A::ICMP => return error(skb, reply),
        _ => return Err(Reason::Protocol),
    }
    Ok(())
}

/// Reads an ICMP error and the packet it is about. Its flow is that packet's, reversed: the error travels against it.
#[inline(always)]
fn error<A: Walk>(skb: *mut __sk_buff, reply: &mut Reply<A>) -> Result<(), Reason> {
    let (mut kind, mut ip) = (0u8, Ip::<A>::new());
    if !Skb::read(skb, reply.l4, &mut kind) {
        return Err(Reason::Truncated);
    }
    if !A::is_error(kind) {
        return Err(Reason::Protocol);
    }
    A::walk::<Skb>(skb, reply.l4 + ICMP_HEADER, &mut ip).map_err(|_| Reason::Protocol)?;
    // Behind extension headers nobody looks for it; and an error goes to whoever sent the packet.
    let extended = A::FAMILY == 6 && ip.l4 != reply.l4 + ICMP_HEADER + IP6;
    if !matches!(ip.flow.proto, TCP | UDP) || extended || ip.flow.src != reply.flow.dst {
        return Err(Reason::Protocol);
    }
    let mut ports = [0u16; UDP_LEN as usize / 2];
    if ip.l4 + UDP_LEN > reply.end() || !Skb::read(skb, ip.l4, &mut ports) {
        return Err(Reason::BadLength);
    }
    (reply.header, reply.quoted) = (ICMP_HEADER, ip.l4);
    reply.flow = Flow {
        src: ip.flow.dst,
        dst: ip.flow.src,
        src_port: ports[1],
        dst_port: ports[0],
        proto: ip.flow.proto,
        flags: 0,
    };
    Ok(())
}

/// Walks IPv4 options (RFC 791, section 3.1): what is well formed and names no route is understood.
#[inline(always)]
fn options(skb: *mut __sk_buff, mut at: u32, end: u32) -> Result<(), Reason> {
    const EOL: u8 = 0;
    const NOP: u8 = 1;
    const LSRR: u8 = 131;
    const SSRR: u8 = 137;
    for _ in 0..MAX_OPTIONS {
        if at >= end {
            return Ok(());
        }
        let (mut kind, mut length) = (0u8, 0u8);
        if !Skb::read(skb, at, &mut kind) {
            return Err(Reason::Truncated);
        }
        match kind {
            EOL => return Ok(()),
            NOP => at += 1,
            LSRR | SSRR => return Err(Reason::SourceRoute),
            _ => {
                if !Skb::read(skb, at + 1, &mut length) {
                    return Err(Reason::Truncated);
                }
                if length < 2 || at + u32::from(length) > end {
                    return Err(Reason::Options);
                }
                at += u32::from(length);
            }
        }
    }
    if at >= end { Ok(()) } else { Err(Reason::Options) }
}
