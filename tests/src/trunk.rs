//! Lines that are trunks: what a topology has on a device moves to a VLAN device on it, at both ends.

use anyhow::Result;

use crate::netns::Namespace;
use crate::topology::{
    CLIENT_DEVICE, CLIENTS, Clients, DIRECT_CONNECT, DX_DEVICE, EDGE_DX, EDGE_ON_LINK, EDGE_OUTSIDE, FIRST_CLIENT,
    GATEWAY, TO_EDGE, Topology, default_route, owns, route,
};

/// The VLAN device of an id on a device.
#[must_use]
pub fn vlan_device(device: &str, vlan: u16) -> String {
    format!("{device}.{vlan}")
}

/// Puts the first Direct Connect line into a VLAN.
///
/// # Errors
/// When the kernel has no VLAN devices, or refuses.
pub fn tag_line(topology: &Topology, vlan: u16) -> Result<()> {
    let (edge, router) = (vlan_device(DX_DEVICE, vlan), vlan_device(TO_EDGE, vlan));
    let cloud = route("10.20.0.0/24", "fd00:20::/64", DIRECT_CONNECT, "");
    put(&topology.edge, DX_DEVICE, vlan, &(owns(&edge, EDGE_DX, 30, 64) + &cloud))?;
    let home = topology.routes_to_edge(EDGE_DX, "metric 100");
    put(&topology.direct_connect, TO_EDGE, vlan, &(owns(&router, DIRECT_CONNECT, 30, 64) + &home))
}

/// Puts EDGE's link to CLIENT into a VLAN.
///
/// # Errors
/// As [`tag_line`].
pub fn tag_clients(topology: &Topology, vlan: u16) -> Result<()> {
    let (edge, client) = (vlan_device(CLIENT_DEVICE, vlan), vlan_device(TO_EDGE, vlan));
    let (there, here) = match topology.options.clients {
        Clients::BehindGateway => (
            owns(&client, GATEWAY, 30, 64) + &default_route(EDGE_OUTSIDE),
            owns(&edge, EDGE_OUTSIDE, 30, 64) + &default_route(GATEWAY),
        ),
        Clients::OnLink => {
            let all: String = (0..CLIENTS).map(|n| owns(&client, FIRST_CLIENT.plus(n), 24, 64)).collect();
            (all + &default_route(EDGE_ON_LINK), owns(&edge, EDGE_ON_LINK, 24, 64))
        }
    };
    put(&topology.client, TO_EDGE, vlan, &there)?;
    put(&topology.edge, CLIENT_DEVICE, vlan, &here)
}

/// Makes a VLAN device in place of what is configured on its parent, and runs a script on it. Tags are in the frames, where XDP sees
/// them, and not beside them.
fn put(namespace: &Namespace, device: &str, vlan: u16, script: &str) -> Result<()> {
    namespace.exec("ethtool", &["-K", device, "rxvlan", "off", "txvlan", "off"])?;
    // With its last address a device loses its routes of IPv4; those of IPv6 through a router stay.
    namespace.exec("ip", &["-6", "route", "flush", "dev", device, "proto", "boot"])?;
    let tagged = vlan_device(device, vlan);
    namespace.ip(&format!(
        "address flush dev {device} scope global\n\
         link add link {device} name {tagged} type vlan id {vlan}\n\
         link set {tagged} up\n{script}"
    ))
}
