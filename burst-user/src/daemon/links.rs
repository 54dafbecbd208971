//! What the kernel says of links and of the way to the clients → rows of the link, endpoint and gateway tables.

use std::net::IpAddr;

use burst_common::endpoint::Endpoint;
use burst_common::flow::{addr4, addr6, wide};
use burst_common::gateway::{self, Except};
use burst_common::link::{Link as Row, VIA_KERNEL};
use bytemuck::Zeroable;
use ipnet::IpNet;

use crate::config::model::Link;
use crate::netlink::{Gateway, LinkState};
use crate::policy::compile::CompiledEndpoint;

/// The row of a link that is up; `None` of one that is not.
pub(crate) fn row(link: &Link, state: &LinkState) -> Option<Row> {
    if !state.up {
        return None;
    }
    let way = Row { ifindex: state.ifindex, mtu: state.mtu, ..Row::zeroed() };
    if link.next_hop.is_none() {
        return Some(Row { flags: VIA_KERNEL, ..way });
    }
    Some(Row {
        macs: Row::macs(state.next_hop_mac?, state.device_mac),
        vlan: link.vlan.unwrap_or(0),
        source4: link.source4.map_or(0, addr4),
        source6: link.source6.map_or([0; 4], |v6| bytemuck::cast(addr6(v6))),
        ..way
    })
}

/// The row of a family whose replies take one way; `None`: the routing table is to be asked.
pub(crate) fn gateway(gateway: &Gateway) -> Option<gateway::Gateway> {
    let Gateway::Cached(router) = gateway else { return None };
    let mut row = gateway::Gateway {
        macs: Row::macs(router.mac, router.device_mac),
        ifindex: router.ifindex,
        vlan: router.vlan,
        mtu: router.mtu,
        exceptions: router.except.len() as u32,
        ..Zeroable::zeroed()
    };
    if router.except.len() > row.except.len() {
        return None;
    }
    for (except, prefix) in row.except.iter_mut().zip(&router.except) {
        let mask = match prefix {
            IpNet::V4(net) => net.netmask().into(),
            IpNet::V6(net) => net.netmask().into(),
        };
        *except = Except { addr: wide(prefix.network()), mask: wide(mask) };
    }
    Some(row)
}

/// Whether packets of an endpoint can go over a link.
pub(super) fn carries(state: &LinkState, endpoint: &CompiledEndpoint) -> bool {
    let row = &endpoint.row;
    let is_it = |address: &IpAddr| address.is_ipv4() == (row.family == 4) && wide(*address) == row.address;
    state.up && !state.elsewhere.iter().any(is_it)
}

/// The row of an endpoint while the links are up for which `up` holds; `mtu` is what a link carries now.
pub(crate) fn reach(endpoint: &CompiledEndpoint, up: impl Fn(u8) -> bool, mtu: impl Fn(u8) -> u16) -> Endpoint {
    Endpoint { room: endpoint.room(mtu), links: endpoint.links_word(up), ..endpoint.row }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{Lookup, Router, Why};
    use burst_common::endpoint::link_at;

    const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 0xff];
    const DEVICE: [u8; 6] = [2, 0, 0, 0, 0, 9];

    fn link() -> Link {
        Link {
            name: "dx-1".into(),
            device: "eth1".into(),
            vlan: Some(101),
            next_hop: "fe80::1".parse().ok(),
            mtu: 8500,
            fallback: false,
            source4: "10.64.0.2".parse().ok(),
            source6: "2001:db8:64::2".parse().ok(),
            out_bps: None,
            in_bps: None,
        }
    }

    fn state() -> LinkState {
        LinkState {
            name: "dx-1".into(),
            device: "eth1".into(),
            ifindex: 3,
            neighbour_ifindex: 9,
            mac: DEVICE,
            device_mac: DEVICE,
            next_hop_mac: Some(ROUTER),
            up: true,
            why: Why::Up,
            mtu: 1500,
            elsewhere: vec![],
        }
    }

    fn endpoint(address: &str, fallback: &[u8]) -> CompiledEndpoint {
        let address: IpAddr = address.parse().unwrap();
        let family = if address.is_ipv4() { 4 } else { 6 };
        let row = Endpoint { address: wide(address), family, ..Endpoint::zeroed() };
        CompiledEndpoint {
            id: 1,
            name: "promo/reserved".into(),
            row,
            links: vec![1, 2, 3],
            fallback: fallback.to_vec(),
        }
    }

    /// The links in an endpoint's table, of which `up` are up.
    fn table(endpoint: &CompiledEndpoint, up: &[u8]) -> Vec<u8> {
        let row = reach(endpoint, |link| up.contains(&link), |_| 1500);
        let mut links: Vec<u8> = (0..8).map(|n| link_at(row.links, n)).collect();
        links.sort_unstable();
        links.dedup();
        links
    }

    #[test]
    fn a_link_that_stands_in_carries_nothing_while_another_is_up() {
        let endpoint = endpoint("10.20.0.10", &[2, 3]);
        for (up, used) in [(&[1, 2, 3][..], &[1][..]), (&[1, 3], &[1]), (&[2, 3], &[2, 3]), (&[3], &[3]), (&[], &[0])] {
            assert_eq!(table(&endpoint, up), used, "{up:?}");
        }
        assert_eq!(table(&self::endpoint("10.20.0.10", &[]), &[1, 3]), [1, 3], "without any that stand in");
    }

    #[test]
    fn an_endpoint_that_is_routed_another_way_is_out_of_reach_over_a_link_that_is_up() {
        let elsewhere = vec!["10.20.0.10".parse().unwrap(), "fd00::a".parse().unwrap()];
        let up = LinkState { elsewhere, ..state() };
        for (address, carried) in [("10.20.0.10", false), ("10.20.0.11", true), ("fd00::a", false), ("fd00::b", true)] {
            assert_eq!(carries(&up, &endpoint(address, &[])), carried, "{address}");
        }
        assert!(carries(&up, &endpoint("a14:a::", &[])), "the same bytes as 10.20.0.10");
        assert!(!carries(&LinkState { up: false, ..up }, &endpoint("10.20.0.11", &[])));
    }

    #[test]
    fn a_row_leaves_by_the_parent_with_the_tag_and_says_where_tunnels_come_from() {
        let row = row(&link(), &state()).unwrap();
        let frame: [u8; 12] = bytemuck::cast(row.macs);
        assert_eq!((&frame[..6], &frame[6..]), (&ROUTER[..], &DEVICE[..]));
        assert_eq!((row.ifindex, row.vlan, row.mtu, row.flags), (3, 101, 1500, 0));
        assert_eq!(row.source4.to_ne_bytes(), [10, 64, 0, 2]);
        let v6: [u8; 16] = bytemuck::cast(row.source6);
        assert_eq!(std::net::Ipv6Addr::from(v6), link().source6.unwrap());
    }

    #[test]
    fn a_way_that_the_kernel_picks_has_a_device_and_no_addresses() {
        let vpn = Link { vlan: None, next_hop: None, source4: None, source6: None, ..link() };
        let state = LinkState { next_hop_mac: None, device_mac: [0; 6], ..state() };
        let expected = Row { ifindex: 3, mtu: 1500, flags: VIA_KERNEL, ..Row::zeroed() };
        assert_eq!(row(&vpn, &state), Some(expected));
    }

    fn router() -> Router {
        Router {
            address: "192.0.2.2".parse().unwrap(),
            mac: ROUTER,
            device: "eth0".into(),
            ifindex: 2,
            device_mac: DEVICE,
            vlan: 7,
            mtu: 1500,
            except: ["10.0.0.0/8", "127.0.0.1/32"].map(|prefix| prefix.parse().unwrap()).to_vec(),
        }
    }

    #[test]
    fn a_gateways_row_excepts_what_takes_another_way() {
        let row = gateway(&Gateway::Cached(Box::new(router()))).unwrap();
        assert_eq!(
            (row.macs, row.ifindex, row.vlan, row.mtu, row.exceptions),
            (Row::macs(ROUTER, DEVICE), 2, 7, 1500, 2)
        );
        let excepts = |row: &gateway::Gateway, ip: &str| row.excepts(wide(ip.parse().unwrap()));
        assert!(excepts(&row, "10.255.0.1") && excepts(&row, "127.0.0.1"));
        assert!(!excepts(&row, "11.0.0.1") && !excepts(&row, "127.0.0.2"));
        let six = Router { except: vec!["2001:db8:64::/64".parse().unwrap()], ..router() };
        let row = gateway(&Gateway::Cached(Box::new(six))).unwrap();
        assert!(excepts(&row, "2001:db8:64::ffff") && !excepts(&row, "2001:db8:65::"));
        assert_eq!(gateway(&Gateway::Lookup(Lookup::Rules)), None);
        let many = (0..9).map(|n| format!("10.{n}.0.0/16").parse().unwrap()).collect();
        assert_eq!(
            gateway(&Gateway::Cached(Box::new(Router { except: many, ..router() }))),
            None,
            "no exception is lost"
        );
    }

    #[test]
    fn a_link_that_is_down_has_no_row() {
        assert_eq!(row(&link(), &LinkState { up: false, ..state() }), None);
        assert_eq!(row(&link(), &LinkState { next_hop_mac: None, ..state() }), None);
    }
}
