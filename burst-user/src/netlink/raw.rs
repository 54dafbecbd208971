//! Messages of rtnetlink beside the connection that asks for everything else: listings that are broken off where they get
//! long, and news of which no more is read than what they concern.
//!
//! A router with the whole internet's routes lists a million of them and announces thousands of changes a second.

use std::io;

use rtnetlink::packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};

use super::routes::DEFAULT;

/// Routes that are read at most: a table with more has no few exceptions, whatever they are.
const MOST: usize = 4096;
/// What a dump brought.
#[derive(Default)]
pub(super) struct Dump {
    /// What was read.
    pub(super) messages: Vec<RouteNetlinkMessage>,
    /// Whether there is more, or something that could not be read.
    pub(super) more: bool,
}

/// Lists something, up to [`MOST`]; and whether the listing is of one time. To close the socket ends what is left of it.
///
/// # Errors
/// The kernel's.
pub(super) async fn dump(request: RouteNetlinkMessage) -> io::Result<(Dump, bool)> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
    socket.socket_mut().bind_auto()?;
    let mut request = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(request));
    request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send_to(&bytes, &SocketAddr::new(0, 0)).await?;
    let (mut found, mut whole) = (Dump::default(), true);
    loop {
        let (bytes, _) = socket.recv_from_full().await?;
        for message in split(&bytes) {
            let header = header_of(message);
            whole &= header.flags & NLM_F_DUMP_INTR == 0;
            if [NLMSG_DONE, NLMSG_ERROR].contains(&header.kind) {
                // Both carry an errno, negative, or 0.
                let errno = message.get(HEADER..HEADER + 4).and_then(|bytes| bytes.try_into().ok());
                return match (errno.map_or(0, i32::from_ne_bytes), header.kind) {
                    (0, NLMSG_DONE) => Ok((found, whole)),
                    (errno, _) => Err(io::Error::from_raw_os_error(-errno)),
                };
            }
            match message_of(message) {
                Some(message) => found.messages.push(message),
                None => found.more = true,
            }
            if found.messages.len() > MOST {
                found.more = true;
                return Ok((found, whole));
            }
        }
    }
}

/// One message of rtnetlink; `None` when it cannot be read.
fn message_of(bytes: &[u8]) -> Option<RouteNetlinkMessage> {
    let mut header = NetlinkHeader::default();
    let kind = header_of(bytes);
    (header.length, header.message_type, header.flags) = (kind.length as u32, kind.kind, kind.flags);
    RouteNetlinkMessage::deserialize(&header, bytes.get(HEADER..)?).ok()
}

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;
const NLMSG_ERROR: u16 = libc::NLMSG_ERROR as u16;
const NLMSG_DONE: u16 = libc::NLMSG_DONE as u16;

/// What matters of `struct nlmsghdr`.
struct Header {
    length: usize,
    kind: u16,
    flags: u16,
}

/// The header of a message, which must be as long as one.
fn header_of(message: &[u8]) -> Header {
    let word = |at: usize| u16::from_ne_bytes([message[at], message[at + 1]]);
    let length = u32::from_ne_bytes([message[0], message[1], message[2], message[3]]) as usize;
    Header { length, kind: word(4), flags: word(6) }
}

/// The messages of what one receive brought.
fn split(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        if bytes.len() < HEADER {
            return None;
        }
        let length = header_of(bytes).length;
        let message = bytes.get(..length).filter(|message| message.len() >= HEADER)?;
        // Messages begin at multiples of four (NLMSG_ALIGN).
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// News of routes and rules, as they come.
pub(super) struct News(TokioSocket);

impl News {
    /// Listens from now on. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn subscribe() -> io::Result<Self> {
        // RTMGRP_IPV4_ROUTE, RTMGRP_IPV4_RULE, RTMGRP_IPV6_ROUTE, and the bit of RTNLGRP_IPV6_RULE.
        const GROUPS: u32 =
            (libc::RTMGRP_IPV4_ROUTE | libc::RTMGRP_IPV4_RULE | libc::RTMGRP_IPV6_ROUTE) as u32 | 1 << (19 - 1);
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind(&SocketAddr::new(0, GROUPS))?;
        Ok(Self(socket))
    }

    /// Waits for the next news, and says whether it concerns IPv4 and IPv6.
    ///
    /// # Errors
    /// When the kernel cannot be listened to any more.
    pub(super) async fn next(&mut self) -> io::Result<[bool; 2]> {
        match self.0.recv_from_full().await {
            Ok((bytes, _)) => Ok(concerns(&bytes)),
            // Some were lost.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok([true; 2]),
            Err(error) => Err(error),
        }
    }
}

/// Whether messages say that what a lookup of IPv4 or IPv6 finds may have changed. Without reading more of a message than
/// its first bytes: `struct rtmsg` and `struct fib_rule_hdr` both begin with the family and have the table behind three
/// lengths.
fn concerns(bytes: &[u8]) -> [bool; 2] {
    let mut changed = [false; 2];
    for message in split(bytes) {
        let rule = [libc::RTM_NEWRULE, libc::RTM_DELRULE].contains(&header_of(message).kind);
        let (Some(&family), Some(&table)) = (message.get(HEADER), message.get(HEADER + 4)) else { continue };
        // Routes of other tables do not matter while no rule names their table, and that rule is news by itself. Numbers
        // that do not fit the byte are RT_TABLE_COMPAT, 252 there.
        let asked = rule || table == 0 || u32::from(table) >= DEFAULT;
        match i32::from(family) {
            libc::AF_INET => changed[0] |= asked,
            libc::AF_INET6 => changed[1] |= asked,
            _ => {}
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_concern_the_family_and_the_tables_that_are_asked() {
        let news = |kind: u16, family: i32, table: u8| {
            let mut bytes = vec![0; HEADER + 12];
            bytes[..4].copy_from_slice(&(HEADER as u32 + 12).to_ne_bytes());
            bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
            (bytes[HEADER], bytes[HEADER + 4]) = (family as u8, table);
            bytes
        };
        let (new, gone, rule) = (libc::RTM_NEWROUTE, libc::RTM_DELROUTE, libc::RTM_NEWRULE);
        for (bytes, expected) in [
            (news(new, libc::AF_INET, 254), [true, false]),
            (news(gone, libc::AF_INET6, 255), [false, true]),
            (news(gone, libc::AF_INET, 253), [true, false]),
            (news(new, libc::AF_INET6, 0), [false, true]),
            (news(new, libc::AF_INET, 100), [false, false]),
            (news(new, libc::AF_INET6, 252), [false, false]),
            (news(rule, libc::AF_INET, 100), [true, false]),
            (news(new, libc::AF_MPLS, 254), [false, false]),
            ([news(new, libc::AF_INET, 100), news(rule, libc::AF_INET6, 0)].concat(), [false, true]),
            (vec![], [false, false]),
            (vec![9, 0, 0, 0], [false, false]),
            (vec![0; 40], [false, false]),
        ] {
            assert_eq!(concerns(&bytes), expected, "{bytes:?}");
        }
    }
}
