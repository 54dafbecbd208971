//! A link's state → its row in the link table.

use burst_common::flow::{addr4, addr6};
use burst_common::link::{Link as Row, VIA_KERNEL};
use bytemuck::Zeroable;

use crate::config::model::Link;
use crate::netlink::LinkState;

/// The row of a link that is up; `None` of one that is not.
pub(super) fn row(link: &Link, state: &LinkState) -> Option<Row> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Why;

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
            ifindex: 3,
            neighbour_ifindex: 9,
            device_mac: DEVICE,
            next_hop_mac: Some(ROUTER),
            up: true,
            why: Why::Up,
            mtu: 1500,
        }
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

    #[test]
    fn a_link_that_is_down_has_no_row() {
        assert_eq!(row(&link(), &LinkState { up: false, ..state() }), None);
        assert_eq!(row(&link(), &LinkState { next_hop_mac: None, ..state() }), None);
    }
}
