//! Why a packet had its verdict. One enum; numbers are never reused.

use crate::counter::{IN, OUT};

/// What is done with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// On to the kernel.
    Pass,
    /// Out of a device.
    Redirect,
    /// Nowhere.
    Drop,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $action:ident, $text:literal;)+) => {
        /// Why a packet had its verdict.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name = $number,)+
        }

        impl Reason {
            /// All reasons, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// What is done with the packet.
            #[inline(always)]
            #[must_use]
            pub const fn action(self) -> Action {
                match self {
                    $(Self::$name => Action::$action,)+
                }
            }

            /// The reason behind a number.
            #[inline(always)]
            #[must_use]
            pub const fn from_number(number: u32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)+
                    _ => None,
                }
            }

            /// The name in output for people and machines.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }

            /// When it happens, for people: what stands above it here.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($doc),+),)+
                }
            }
        }
    };
}

reasons! {
    /// No rule matches.
    NoMatch = 0, Pass, "no-match";
    /// A rule of a `keep` class matches.
    Keep = 1, Pass, "keep";
    /// The slot (or a pin) says local.
    Local = 2, Pass, "local";
    /// Sent to an endpoint.
    Shifted = 3, Redirect, "shifted";
    /// Would have been sent to an endpoint, but the mode is `shadow`.
    Shadow = 4, Pass, "shadow";
    /// A reply from the cloud, sent on to its client.
    Returned = 5, Redirect, "returned";
    /// Rewritten for an endpoint behind a link of `via = "kernel"`: the routing table sends it on.
    ShiftedKernel = 6, Pass, "shifted-kernel";

    /// The ethertype is neither IPv4 nor IPv6.
    NotIp = 8, Pass, "not-ip";
    /// More than two VLAN tags (802.1Q, 802.1ad).
    Tagged = 9, Pass, "tagged";
    /// The frame is addressed to a group (broadcast or multicast).
    Group = 10, Pass, "group";
    /// The frame ends before its headers do.
    Truncated = 11, Pass, "truncated";
    /// Version or a length in the header contradicts the frame.
    BadLength = 12, Pass, "bad-length";
    /// IPv4 options that contradict themselves.
    Options = 13, Pass, "ipv4-options";
    /// A fragment, first or later.
    Fragment = 14, Pass, "fragment";
    /// An IPv6 extension header that is not understood, or too many of them.
    Extension = 15, Pass, "ipv6-extension";
    /// Neither TCP nor UDP nor an ICMP error about either.
    Protocol = 16, Pass, "protocol";
    /// The frame is addressed to another host: the device is promiscuous, or the switch floods. The kernel drops it
    /// (`PACKET_OTHERHOST`), unless a device stacked on this one has that MAC address.
    OtherHost = 17, Pass, "other-host";
    /// An authentication header (RFC 4302): what it covers must not change.
    Authenticated = 18, Pass, "authenticated";
    /// The sender chose the route and it is not over: an IPv4 source route (RFC 791), an IPv6 routing header with segments
    /// left (RFC 8200, section 4.4).
    SourceRoute = 19, Pass, "source-route";

    /// A SYN-ACK from outside: it answers a connection the service itself opened.
    SynAck = 20, Pass, "syn-ack";
    /// TTL or hop limit is at most 1: the kernel answers (RFC 1812 section 5.3.1, RFC 8200 section 3).
    TtlExpired = 21, Pass, "ttl-expired";
    /// The slot names an endpoint that is not in the table.
    NoEndpoint = 22, Pass, "no-endpoint";
    /// No link of the endpoint is up.
    NoLink = 23, Pass, "no-link";
    /// Larger than the link's MTU.
    TooBig = 24, Drop, "too-big";
    /// The operator said `burst bypass on`.
    Bypass = 25, Pass, "bypass";
    /// The policy or the slot table is not filled as the program expects.
    Unready = 26, Pass, "unready";
    /// The guard found a keep tuple in a packet that was about to leave. A defect of burst, and an event.
    Guard = 27, Pass, "guard";
    /// Larger than the link's MTU: its sender was told (ICMP fragmentation needed, ICMPv6 Packet Too Big), with this frame.
    TooBigAnswered = 28, Redirect, "too-big-answered";
    /// The driver left no room in front of the frame for a tag or an outer header.
    NoHeadroom = 29, Pass, "no-headroom";

    /// For an endpoint that no link leads to for the moment, of a flow that is there: the local stack would reset it. Its sender tries
    /// again.
    Held = 30, Drop, "held";

    /// From a link, but not from an endpoint or a service address: the kernel's.
    NotReturn = 32, Pass, "not-return";
    /// From an endpoint to an address of this host: a probe's answer. Also where the routing table has no way at all:
    /// the lookup does not tell the two apart.
    ToHost = 33, Pass, "to-host";
    /// A reply whose client's link-layer address is not known yet: rewritten, and left to the kernel to resolve. Where
    /// the service's address is the edge host's own, the kernel drops it instead, as it would any packet from itself.
    NoNeighbour = 34, Pass, "no-neighbour";
    /// A reply that does not fit the client side's MTU: left to the kernel, untouched if that must answer "too big" to the
    /// endpoint, rewritten if it may fragment.
    ReturnTooBig = 35, Pass, "return-too-big";
    /// A reply to a client behind a device that burst does not redirect to: rewritten, and left to the kernel.
    ReturnElsewhere = 36, Pass, "return-elsewhere";
    /// A reply the routing table refuses a way (unreachable, blackhole, prohibit), or forwarding is off on the link's
    /// device.
    NoRoute = 37, Pass, "no-route";
    /// A tunnel from an endpoint whose inner source is no service of that endpoint's class.
    Spoofed = 38, Drop, "spoofed";
    /// A tunnel whose outer header says "congestion experienced" and whose inner sender cannot be told (RFC 6040,
    /// section 4.2).
    Congested = 39, Drop, "congested";
    /// A reply that came over a link of `via = "kernel"`, given its service's address.
    ReturnedKernel = 40, Redirect, "returned-kernel";
}

/// What else is counted in the rows of a class, beside its verdicts: numbers no [`Reason`] has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Note {
    /// A flow was pinned.
    Pinned = 60,
    /// A pin was refused: the table is full.
    PinRefused = 61,
    /// A pin decided.
    PinHit = 62,
    /// An opener was repeated: no new flow.
    Repeated = 57,
    /// The surge guard sent a new flow away: the premises had no room for it.
    Surged = 56,
    /// A new flow stayed local, because the endpoint it was meant for cannot be reached.
    Stranded = 55,
    /// A slot's new flows came home, because nobody leads any more (the lease is over).
    Homed = 54,
    /// The sentinel stopped a keep tuple on its way to a link (counted under class 0).
    SentinelStopped = 58,
    /// The sentinel saw a keep tuple on its way to a link and let it go (counted under class 0).
    SentinelReported = 59,
}

impl Note {
    /// All notes.
    pub const ALL: &[Self] = &[
        Self::Homed,
        Self::Stranded,
        Self::Surged,
        Self::Repeated,
        Self::SentinelStopped,
        Self::SentinelReported,
        Self::Pinned,
        Self::PinRefused,
        Self::PinHit,
    ];

    /// The note's row in the counters.
    #[inline(always)]
    #[must_use]
    pub const fn number(self) -> usize {
        self as usize
    }

    /// The name in output for people and machines.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Pinned => "pinned",
            Self::PinRefused => "pin-refused",
            Self::PinHit => "pin-hit",
            Self::Repeated => "repeated",
            Self::Surged => "surged",
            Self::Stranded => "stranded",
            Self::Homed => "homed",
            Self::SentinelStopped => "sentinel-stopped",
            Self::SentinelReported => "sentinel-reported",
        }
    }
}

impl Reason {
    /// The direction in which a packet with this verdict passed an endpoint and a link, and is counted there: [`OUT`] or [`IN`].
    #[inline(always)]
    #[must_use]
    pub const fn direction(self) -> Option<usize> {
        match self {
            Self::Shifted | Self::ShiftedKernel => Some(OUT),
            Self::Returned | Self::ReturnedKernel => Some(IN),
            _ => None,
        }
    }

    /// The reason's number: its row in the counters.
    #[inline(always)]
    #[must_use]
    pub const fn number(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MAX_REASONS;
    use std::collections::HashSet;

    #[test]
    fn numbers_fit_and_names_differ() {
        assert!(Reason::ALL.iter().all(|r| r.number() < MAX_REASONS));
        let names: HashSet<_> = Reason::ALL.iter().map(|r| r.text()).collect();
        assert_eq!(names.len(), Reason::ALL.len());
        assert!(Reason::ALL.is_sorted_by_key(|r| r.number()));
        assert!(Reason::ALL.iter().all(|r| Reason::from_number(r.number() as u32) == Some(*r)));
        assert!(
            Note::ALL.iter().all(|n| n.number() < MAX_REASONS && Reason::ALL.iter().all(|r| r.number() != n.number()))
        );
    }

    #[test]
    fn only_what_is_named_here_leaves_or_is_dropped() {
        let not_passed: Vec<_> = Reason::ALL.iter().filter(|r| r.action() != Action::Pass).map(|r| r.text()).collect();
        assert_eq!(
            not_passed,
            ["shifted", "returned", "too-big", "too-big-answered", "held", "spoofed", "congested", "returned-kernel"]
        );
    }
}
