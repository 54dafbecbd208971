//! By which device the routing table sends the endpoints of links that it picks the way of (`via = "kernel"`).
//!
//! It is asked as for a packet of this host's own: rules that go by the source, the incoming device or a mark are not seen.

use std::collections::HashMap;
use std::net::IpAddr;

use super::client::{Error, Netlink};

/// Endpoints, by the name of the link that the kernel is to send their packets by.
pub type Targets = HashMap<String, Vec<IpAddr>>;

/// By which device each endpoint is sent to; 0 where the routing table sends it nowhere, or to this host.
///
/// # Errors
/// The kernel's.
pub(super) async fn ways(client: &Netlink, targets: &Targets) -> Result<Vec<(IpAddr, u32)>, Error> {
    let mut all: Vec<IpAddr> = targets.values().flatten().copied().collect();
    all.sort_unstable();
    all.dedup();
    let mut ways = Vec::with_capacity(all.len());
    for target in all {
        ways.push((target, client.way(target).await?.unwrap_or(0)));
    }
    Ok(ways)
}

/// What is known of it.
#[derive(Debug, Default)]
pub(super) struct Routed {
    targets: Targets,
    ways: HashMap<IpAddr, u32>,
}

impl Routed {
    /// Nothing is known yet.
    pub(super) fn new(targets: &Targets) -> Self {
        Self { targets: targets.clone(), ways: HashMap::new() }
    }

    /// By which devices endpoints are sent now, 0 for none.
    pub(super) fn put(&mut self, ways: Vec<(IpAddr, u32)>) {
        self.ways = ways.into_iter().collect();
    }

    /// The endpoints of a link that are not sent by a device, as far as the routing table was asked; and whether these are all
    /// that it has.
    pub(super) fn elsewhere(&self, link: &str, ifindex: u32) -> (Vec<IpAddr>, bool) {
        let targets = self.targets.get(link).map_or(&[][..], Vec::as_slice);
        let strays = |target: &&IpAddr| self.ways.get(*target).is_some_and(|way| *way != ifindex);
        let elsewhere: Vec<_> = targets.iter().filter(strays).copied().collect();
        let all = !elsewhere.is_empty() && elsewhere.len() == targets.len();
        (elsewhere, all)
    }
}

/// Whether what was asked is what is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// As far as anybody told.
    Known,
    /// It has to be asked.
    Due,
    /// It is being asked.
    Asking,
    /// It is being asked, and may have changed since.
    AskingAgain,
}

impl Asked {
    /// It may have changed.
    pub(super) fn change(&mut self) {
        *self = match self {
            Self::Known | Self::Due => Self::Due,
            Self::Asking | Self::AskingAgain => Self::AskingAgain,
        };
    }

    /// It was answered.
    pub(super) fn answer(&mut self) {
        *self = if *self == Self::AskingAgain { Self::Due } else { Self::Known };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::Link;
    use crate::netlink::state::Table;
    use crate::netlink::{Device, Why};

    const VPN: u32 = 3;

    fn vpn() -> Link {
        Link {
            name: "vpn".into(),
            device: "wg0".into(),
            vlan: None,
            next_hop: None,
            mtu: 1420,
            fallback: false,
            source4: None,
            source6: None,
            out_bps: None,
            in_bps: None,
        }
    }

    fn device(ifindex: u32) -> Device {
        Device { ifindex, name: "wg0".into(), mac: None, mtu: 1420, up: true, carrier: true, vlan: None }
    }

    #[test]
    fn a_link_that_the_kernel_picks_needs_a_route_to_an_endpoint_by_its_device() {
        let ends: [IpAddr; 2] = ["10.20.0.10", "fd00:20::10"].map(|end| end.parse().unwrap());
        let mut table = Table::new(&[vpn()], &Targets::from([("vpn".to_owned(), ends.to_vec())]));
        table.set_devices(vec![device(VPN)]);
        assert_eq!(table.link(&vpn()).why, Why::Up, "not asked yet");
        for (ways, elsewhere, why) in [
            ([VPN, VPN], vec![], Why::Up),
            ([VPN, 0], vec![ends[1]], Why::Up),
            ([VPN + 1, VPN], vec![ends[0]], Why::Up),
            ([VPN + 1, 0], ends.to_vec(), Why::NotRouted),
        ] {
            table.routed.put(ends.into_iter().zip(ways).collect());
            let state = table.link(&vpn());
            assert_eq!((state.why, state.up, state.elsewhere), (why, why == Why::Up, elsewhere));
        }
        // Its device is made anew, and the routing table was not asked since.
        table.routed.put(ends.into_iter().zip([VPN; 2]).collect());
        table.set_devices(vec![device(VPN + 1)]);
        assert_eq!(table.link(&vpn()).why, Why::NotRouted);
        table.set_devices(vec![Device { up: false, ..device(VPN) }]);
        assert_eq!(table.link(&vpn()).why, Why::DeviceDown, "the device first");
        let other = Link { name: "other".into(), ..vpn() };
        table.set_devices(vec![device(VPN + 1)]);
        assert_eq!(table.link(&other).why, Why::Up, "another link's endpoints do not matter");
    }

    #[test]
    fn what_changes_while_it_is_asked_is_asked_again() {
        let mut asked = Asked::Known;
        asked.change();
        assert_eq!(asked, Asked::Due);
        asked = Asked::Asking;
        asked.answer();
        assert_eq!(asked, Asked::Known);
        asked = Asked::Asking;
        asked.change();
        asked.change();
        asked.answer();
        assert_eq!(asked, Asked::Due);
    }
}
