//! The edge host's own routing table, as far as replies ask it: the longest prefix decides.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

/// What a route does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To a device; the next hop is the destination itself.
    On(&'static str),
    /// To a device by way of a router.
    Via(IpAddr, &'static str),
    /// Nowhere from here: an address of this host, a broadcast or multicast address.
    Here,
    /// Nowhere at all: unreachable, prohibited, blackhole.
    Refused,
}

/// The routing table and the neighbours.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    /// Routes.
    pub routes: Vec<(IpNet, Way)>,
    /// Neighbours whose MAC address is known.
    pub neighbours: BTreeMap<(IpAddr, &'static str), [u8; 6]>,
    /// Largest IP packet of each device.
    pub mtu: BTreeMap<&'static str, u16>,
}

/// What the kernel says of a packet that it is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// It can be sent: device, and the next hop's MAC address.
    Sent(&'static str, [u8; 6]),
    /// The next hop's MAC address is not known.
    Unknown,
    /// It does not fit the device.
    TooBig,
    /// It is for this host, or has no way.
    NotForwarded,
}

impl Routes {
    /// The longest matching route; where two are equally long, the first.
    pub fn way(&self, destination: IpAddr) -> Option<Way> {
        let matching = self.routes.iter().filter(|(prefix, _)| prefix.contains(&destination));
        matching.rev().max_by_key(|(prefix, _)| prefix.prefix_len()).map(|(_, way)| *way)
    }

    /// Asks where a packet of `length` bytes to `destination` goes.
    pub fn ask(&self, destination: IpAddr, length: usize) -> Said {
        let (hop, device) = match self.way(destination) {
            Some(Way::On(device)) => (destination, device),
            Some(Way::Via(router, device)) => (router, device),
            Some(Way::Here | Way::Refused) | None => return Said::NotForwarded,
        };
        if length > usize::from(self.mtu[device]) {
            return Said::TooBig;
        }
        match self.neighbours.get(&(hop, device)) {
            Some(mac) => Said::Sent(device, *mac),
            None => Said::Unknown,
        }
    }
}
