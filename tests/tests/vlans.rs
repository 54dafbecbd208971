//! Real VLAN devices: a link in a VLAN of a trunk, and clients behind a VLAN device of another. Whole bodies both ways and of
//! both families, by way of the cached gateway and of the routing table; payment stays, through the same trunks.
//!
//! Not among the ordinary root tests (`test = false`): it needs modules that the kernels of build machines lack. `cargo xtask vm`
//! runs it in virtual machines that have them; where they are missing it fails and says so.

use anyhow::{Result, ensure};
use burst_tests::body::BIG;
use burst_tests::client::{self, Transfer};
use burst_tests::daemon::{Daemon, Settings, Tunnel, Way};
use burst_tests::far_end;
use burst_tests::servers::{self, Limits, LocalSite, Site};
use burst_tests::sniffer::{Flows, Sniffer};
use burst_tests::topology::{
    Clients, EDGE_DX, FIRST_ENDPOINT, Family, Options, PAYMENT, SHOP, Service, TO_EDGE, Topology,
};
use burst_tests::trunk::{self, vlan_device};

/// VLAN of the link.
const LINE: u16 = 101;
/// VLAN of the clients.
const ACCESS: u16 = 200;

fn whole(service: Service, site: Site, transfer: &Transfer) -> Result<()> {
    ensure!(transfer.site == Some(site) && transfer.service.as_deref() == Some(service.name), "{transfer:?}");
    ensure!(transfer.length == BIG, "{transfer:?}");
    Ok(())
}

fn both_ways(topology: &Topology, service: Service, site: Site) -> Result<()> {
    for family in Family::ALL {
        let source = topology.clients(family).first().copied();
        whole(service, site, &client::download(&topology.client, source, service.at(family))?)?;
        whole(service, site, &client::upload(&topology.client, source, service.at(family))?)?;
    }
    Ok(())
}

/// Packets of a family in a direction.
fn packets(flows: &Flows, family: Family, incoming: bool) -> u64 {
    let of = flows.iter().filter(|(flow, _)| {
        flow.incoming == incoming
            && flow.source.is_ipv4() == (family == Family::V4)
            && matches!(flow.protocol, 6 | 17)
            && !flow.source.ip().is_multicast()
    });
    of.map(|(_, packets)| packets).sum()
}

/// With these trunks, the shop leaves and payment stays; a VLAN device sees its own VLAN's frames alone.
fn leaves(way: Way, clients: Clients, line: bool, access: bool) -> Result<()> {
    far_end::require_modules(&["8021q"])?;
    let topology = Topology::with(Options { clients, shop_in_cloud: way == Way::Nexthop, ..Options::default() })?;
    if line {
        trunk::tag_line(&topology, LINE)?;
    }
    if access {
        trunk::tag_clients(&topology, ACCESS)?;
    }
    let outer = if let Way::Tunnel(tunnel, outer) = way {
        far_end::require_modules(&["fou", "fou6", "ipip", "sit", "ip6_tunnel"])?;
        far_end::make(&topology, tunnel, outer, false)?;
        Some(outer)
    } else {
        None
    };
    let _local = LocalSite::start(&topology, Limits::default())?;
    let _cloud = servers::start_cloud(&topology)?;
    let vlan = line.then_some(LINE);
    let daemon = Daemon::start(&topology, &Settings { way, vlan, ..Settings::default() })?;
    both_ways(&topology, SHOP, Site::Local)?;
    daemon.shift(100.0)?;
    daemon.settle()?;
    let device = |tagged, vlan| if tagged { vlan_device(TO_EDGE, vlan) } else { TO_EDGE.to_owned() };
    let router = Sniffer::start(&topology.direct_connect, &device(line, LINE))?;
    let client = Sniffer::start(&topology.client, &device(access, ACCESS))?;
    both_ways(&topology, SHOP, Site::Cloud)?;
    both_ways(&topology, PAYMENT, Site::Local)?;

    let (router, client) = (router.finish()?, client.finish()?);
    let kept: Vec<_> = router
        .keys()
        .filter(|flow| Family::ALL.iter().any(|&family| flow.destination.ip() == PAYMENT.address.of(family)))
        .collect();
    assert!(kept.is_empty(), "payment on the line: {kept:?}");
    for family in Family::ALL {
        for incoming in [true, false] {
            if outer.is_none_or(|outer| outer == family) {
                let seen = packets(&router, family, incoming);
                assert!(seen > 50, "{way:?}, line, {family:?}, incoming {incoming}: {seen} packets of 2 MiB");
            }
            let seen = packets(&client, family, incoming);
            assert!(seen > 100, "{way:?}, clients, {family:?}, incoming {incoming}: {seen} packets of 4 MiB");
        }
    }
    if let Some(outer) = outer {
        let ends = (EDGE_DX.of(outer), FIRST_ENDPOINT.of(outer));
        assert!(router.keys().any(|flow| (flow.source.ip(), flow.destination.ip()) == ends), "{router:?}");
    }
    Ok(())
}

#[test]
fn by_dnat_over_a_link_in_a_vlan() -> Result<()> {
    leaves(Way::Dnat, Clients::BehindGateway, true, false)
}

#[test]
fn by_nexthop_over_a_link_in_a_vlan() -> Result<()> {
    leaves(Way::Nexthop, Clients::BehindGateway, true, false)
}

#[test]
fn by_gue_over_a_link_in_a_vlan() -> Result<()> {
    leaves(Way::Tunnel(Tunnel::Gue, Family::V4), Clients::BehindGateway, true, false)
}

#[test]
fn by_dnat_to_clients_of_a_vlan_behind_a_gateway() -> Result<()> {
    leaves(Way::Dnat, Clients::BehindGateway, false, true)
}

#[test]
fn by_dnat_to_clients_on_a_vlan_by_the_routing_table() -> Result<()> {
    leaves(Way::Dnat, Clients::OnLink, false, true)
}

#[test]
fn by_nexthop_from_a_vlan_to_a_vlan_by_the_routing_table() -> Result<()> {
    leaves(Way::Nexthop, Clients::OnLink, true, true)
}

#[test]
fn by_gue_from_a_vlan_to_a_vlan_behind_a_gateway() -> Result<()> {
    leaves(Way::Tunnel(Tunnel::Gue, Family::V6), Clients::BehindGateway, true, true)
}
