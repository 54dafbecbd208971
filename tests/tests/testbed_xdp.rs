//! The links carry what XDP redirects: a five-instruction program makes EDGE a wire, and whole bodies go through it
//! in both directions. burst's own program is not needed for this, nor tested by it.

use std::time::Duration;

use anyhow::Result;
use burst_tests::client::{self, Connection, Kind, Page};
use burst_tests::foreign::wire;
use burst_tests::link::mac_text;
use burst_tests::netns::Namespace;
use burst_tests::servers::{self, Limits, LocalSite, Site};
use burst_tests::topology::{
    CLIENT_DEVICE, CLIENT_MAC, DIRECT_CONNECT_MAC, DX_DEVICE, EDGE_DX, EDGE_INSIDE, EDGE_OUTSIDE, Family, LOCAL_DEVICE,
    LOCAL_MAC, Options, PAYMENT, SHOP, TO_EDGE, Topology,
};

/// Makes `namespace` send what goes to `next_hop` to another MAC than its own, so that EDGE can be a wire.
fn point(namespace: &Namespace, device: &str, next_hop: burst_tests::topology::Pair, mac: [u8; 6]) -> Result<()> {
    let script: String = Family::ALL
        .map(|family| {
            let (address, mac) = (next_hop.of(family), mac_text(mac));
            format!("neighbour replace {address} lladdr {mac} dev {device} nud permanent\n")
        })
        .concat();
    namespace.ip(&script)
}

#[test]
fn whole_bodies_cross_the_edge_by_redirect_alone_on_the_premises_side() -> Result<()> {
    let topology = Topology::new()?;
    let _local = LocalSite::start(&topology, Limits::default())?;
    point(&topology.client, TO_EDGE, EDGE_OUTSIDE, LOCAL_MAC)?;
    point(&topology.local, TO_EDGE, EDGE_INSIDE, CLIENT_MAC)?;
    let _out = wire(&topology.edge, CLIENT_DEVICE, LOCAL_DEVICE)?;
    let _back = wire(&topology.edge, LOCAL_DEVICE, CLIENT_DEVICE)?;
    for family in Family::ALL {
        for service in [PAYMENT, SHOP] {
            let source = topology.clients(family).first().copied();
            let down = client::download(&topology.client, source, service.at(family))?;
            let up = client::upload(&topology.client, source, service.at(family))?;
            assert_eq!((down.site, up.site), (Some(Site::Local), Some(Site::Local)));
        }
    }
    // The kernel of EDGE had no part in it.
    topology.edge.sysctl(&[("net/ipv4/ip_forward", "0"), ("net/ipv6/conf/all/forwarding", "0")])?;
    client::download(&topology.client, None, SHOP.at(Family::V6))?;
    client::download(&topology.client, None, SHOP.at(Family::V4))?;
    Ok(())
}

#[test]
fn whole_bodies_cross_the_edge_by_redirect_alone_over_direct_connect_if_the_peer_is_ready() -> Result<()> {
    let topology = Topology::with(Options { shop_in_cloud: true, ..Options::default() })?;
    let cloud = servers::start_cloud(&topology)?;
    point(&topology.client, TO_EDGE, EDGE_OUTSIDE, DIRECT_CONNECT_MAC)?;
    point(&topology.direct_connect, TO_EDGE, EDGE_DX, CLIENT_MAC)?;
    let _out = wire(&topology.edge, CLIENT_DEVICE, DX_DEVICE)?;
    let _back = wire(&topology.edge, DX_DEVICE, CLIENT_DEVICE)?;
    let source = |family| topology.clients(family).last().copied();
    for family in Family::ALL {
        let down = client::download(&topology.client, source(family), SHOP.at(family))?;
        let up = client::upload(&topology.client, source(family), SHOP.at(family))?;
        assert_eq!((down.site, up.site), (Some(Site::Cloud), Some(Site::Cloud)));
    }
    assert_eq!(cloud.counts_of(SHOP.name, 8)?.requests, 8);

    // Without GRO the peer has no queue that XDP could put a frame on: this is what `link::veth` is careful about.
    topology.direct_connect.exec("ethtool", &["-K", TO_EDGE, "gro", "off"])?;
    for family in Family::ALL {
        let outcome = client::run(&topology.client, async {
            let patience = Duration::from_millis(500);
            let mut connection = Connection::open(source(family), SHOP.at(family), patience).await?;
            connection.get(Page::Small, true, patience).await
        })?;
        assert_eq!(outcome.map_err(|failure| failure.kind), Err(Kind::ConnectTimeout), "{family:?}");
    }
    Ok(())
}
