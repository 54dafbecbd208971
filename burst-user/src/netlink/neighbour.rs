//! A neighbour entry, and the requests that make the kernel resolve one and let go of it.
//!
//! An entry can be marked as managed (`NTF_EXT_MANAGED`, Linux 5.16): the kernel then resolves it by itself, probes it
//! again and again, and never collects it. What burst added or marked is remembered in the entry itself, in its
//! protocol number, so that it is found again after a restart and by `burst detach`, and nobody else's is touched.

use std::net::IpAddr;

use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::RouteProtocol;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

/// Protocol number of an entry that burst added. Neither rtnetlink.h nor iproute2's rt_protos names it.
const ADDED: RouteProtocol = RouteProtocol::Other(181);
/// Protocol number of an entry that was there, as any cached entry, and that burst marked as managed.
const MARKED: RouteProtocol = RouteProtocol::Other(182);

/// A neighbour: an address on a device and what is known of its MAC address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Device.
    pub ifindex: u32,
    /// Address.
    pub address: IpAddr,
    /// MAC address; only when [`Resolution::Resolved`], and never a group's or all zero.
    pub mac: Option<[u8; 6]>,
    /// How far resolution is.
    pub resolution: Resolution,
    /// Whether the kernel resolves it and keeps it fresh by itself.
    pub managed: bool,
    /// Who put it there.
    pub owner: Owner,
}

/// How far a neighbour's resolution is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The MAC address can be used (`NUD_VALID`: permanent, reachable, stale, or being confirmed).
    Resolved,
    /// Asked, not answered yet.
    Incomplete,
    /// Asked, not answered in time.
    Failed,
}

/// Who put a neighbour entry there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The kernel: a cached entry like any other.
    Cache,
    /// burst, by adding it.
    Added,
    /// The kernel, and burst marked it as managed.
    Marked,
    /// Somebody else, who means it: a permanent entry, one without ARP, one from a control plane, or one that another
    /// program manages.
    Other,
}

impl Neighbour {
    /// From a message; `None` when it is no IP neighbour (proxy entries and forwarding databases use the same words).
    pub(super) fn parse(message: &NeighbourMessage) -> Option<Self> {
        let header = &message.header;
        if header.flags.contains(NeighbourFlags::Proxy) {
            return None;
        }
        let (mut address, mut mac, mut protocol, mut managed) = (None, None, RouteProtocol::Unspec, false);
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => address = Some(IpAddr::V4(*v4)),
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => address = Some(IpAddr::V6(*v6)),
                NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
                NeighbourAttribute::Protocol(number) => protocol = *number,
                NeighbourAttribute::ExtFlags(flags) => managed = flags.contains(NeighbourExtFlags::Managed),
                _ => {}
            }
        }
        use NeighbourState::{Delay, Failed, Noarp, Permanent, Probe, Reachable, Stale};
        let mac = mac.filter(|mac: &[u8; 6]| *mac != [0; 6] && mac[0] & 1 == 0);
        let resolution = match header.state {
            Permanent | Noarp | Reachable | Stale | Delay | Probe if mac.is_some() => Resolution::Resolved,
            Failed => Resolution::Failed,
            _ => Resolution::Incomplete,
        };
        let meant = matches!(header.state, Permanent | Noarp) || header.flags.contains(NeighbourFlags::ExtLearned);
        let owner = match protocol {
            _ if meant => Owner::Other,
            ADDED => Owner::Added,
            MARKED => Owner::Marked,
            _ if managed => Owner::Other,
            _ => Owner::Cache,
        };
        let mac = mac.filter(|_| resolution == Resolution::Resolved);
        Some(Self { ifindex: header.ifindex, address: address?, mac, resolution, managed, owner })
    }

    /// Whether burst has something to take back here.
    #[must_use]
    pub const fn is_ours(&self) -> bool {
        matches!(self.owner, Owner::Added | Owner::Marked)
    }
}

/// A request and the flags it is sent with.
pub(super) type Request = (RouteNetlinkMessage, u16);

fn message(ifindex: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = ifindex;
    message.header.family = match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.attributes.push(NeighbourAttribute::Destination(address.into()));
    message
}

/// Asks for one entry.
pub(super) fn get(ifindex: u32, address: IpAddr) -> Request {
    (RouteNetlinkMessage::GetNeighbour(message(ifindex, address)), NLM_F_REQUEST)
}

/// Asks for all entries of both families.
pub(super) fn dump() -> Request {
    (RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()), NLM_F_REQUEST | rtnetlink::packet_core::NLM_F_DUMP)
}

/// Makes the kernel resolve an address and keep it fresh, without touching what is known of it. `NTF_USE` is what
/// kernels before 5.16, which do not read the extended flags, understand: they resolve it once.
pub(super) fn keep(ifindex: u32, address: IpAddr, known: Option<&Neighbour>) -> Option<Request> {
    let (mark, flags) = match known.map(|known| known.owner) {
        // EXCL: what somebody added a moment ago is theirs.
        None => (Some(ADDED), NLM_F_CREATE | NLM_F_EXCL),
        Some(Owner::Cache) => (Some(MARKED), 0),
        Some(Owner::Added | Owner::Marked) => (None, 0),
        Some(Owner::Other) => return None,
    };
    let mut message = message(ifindex, address);
    message.header.state = NeighbourState::None;
    message.header.flags = NeighbourFlags::Use;
    message.attributes.push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
    message.attributes.extend(mark.map(NeighbourAttribute::Protocol));
    Some((RouteNetlinkMessage::NewNeighbour(message), NLM_F_REQUEST | NLM_F_ACK | flags))
}

/// Takes back what [`keep`] did; `None` when nothing was.
pub(super) fn release(known: &Neighbour) -> Option<Request> {
    let mut message = message(known.ifindex, known.address);
    match known.owner {
        Owner::Added => Some((RouteNetlinkMessage::DelNeighbour(message), NLM_F_REQUEST | NLM_F_ACK)),
        Owner::Marked => {
            // An update by `NTF_USE` that does not say managed takes the flag away and leaves the state alone.
            message.header.flags = NeighbourFlags::Use;
            message.attributes.push(NeighbourAttribute::Protocol(RouteProtocol::Kernel));
            Some((RouteNetlinkMessage::NewNeighbour(message), NLM_F_REQUEST | NLM_F_ACK))
        }
        Owner::Cache | Owner::Other => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];

    fn entry(state: NeighbourState, mac: [u8; 6], attributes: &[NeighbourAttribute]) -> Neighbour {
        let mut message = message(3, "10.64.0.1".parse().unwrap());
        message.header.state = state;
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        message.attributes.extend_from_slice(attributes);
        Neighbour::parse(&message).unwrap()
    }

    #[test]
    fn a_mac_is_used_in_every_valid_state_and_in_no_other() {
        use NeighbourState::*;
        for (state, resolution) in [
            (Permanent, Resolution::Resolved),
            (Noarp, Resolution::Resolved),
            (Reachable, Resolution::Resolved),
            (Stale, Resolution::Resolved),
            (Delay, Resolution::Resolved),
            (Probe, Resolution::Resolved),
            (Incomplete, Resolution::Incomplete),
            (None, Resolution::Incomplete),
            (Failed, Resolution::Failed),
        ] {
            let neighbour = entry(state, MAC, &[]);
            let mac = (resolution == Resolution::Resolved).then_some(MAC);
            assert_eq!((neighbour.resolution, neighbour.mac), (resolution, mac), "{state:?}");
        }
        for mac in [[0; 6], [0xff; 6], [0x01, 0, 0x5e, 0, 0, 1]] {
            assert_eq!(entry(Reachable, mac, &[]).resolution, Resolution::Incomplete, "{mac:x?}");
        }
    }

    #[test]
    fn what_somebody_means_is_never_ours() {
        let managed = NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed);
        let by = NeighbourAttribute::Protocol;
        for (state, attributes, owner) in [
            (NeighbourState::Stale, vec![], Owner::Cache),
            (NeighbourState::Stale, vec![managed.clone()], Owner::Other),
            (NeighbourState::Stale, vec![managed.clone(), by(RouteProtocol::Zebra)], Owner::Other),
            (NeighbourState::Stale, vec![managed.clone(), by(ADDED)], Owner::Added),
            (NeighbourState::Stale, vec![managed.clone(), by(MARKED)], Owner::Marked),
            (NeighbourState::Permanent, vec![], Owner::Other),
            (NeighbourState::Permanent, vec![by(ADDED)], Owner::Other),
            (NeighbourState::Noarp, vec![], Owner::Other),
        ] {
            let neighbour = entry(state, MAC, &attributes);
            assert_eq!(neighbour.owner, owner, "{state:?} {attributes:?}");
            let (asks, releases) =
                (keep(3, neighbour.address, Some(&neighbour)).is_some(), release(&neighbour).is_some());
            assert_eq!((asks, releases), (owner != Owner::Other, neighbour.is_ours()), "{owner:?}");
        }
    }

    #[test]
    fn a_proxy_entry_is_no_neighbour() {
        let mut proxy = message(3, "10.64.0.1".parse().unwrap());
        proxy.header.flags = NeighbourFlags::Proxy;
        assert_eq!(Neighbour::parse(&proxy), None);
    }
}
