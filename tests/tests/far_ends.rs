//! Tunnels to the kernel's own far end: GUE by fou, IP in IP by ipip, sit and ip6_tunnel, over IPv4 and IPv6 and for both,
//! with whole bodies both ways, and with less than an Ethernet's MTU at each place where it can be.
//!
//! Not among the ordinary root tests (`test = false`): it needs modules that the kernels of build machines lack. `cargo xtask vm`
//! runs it in virtual machines that have them; where they are missing it fails and says so.

use anyhow::{Context, Result, ensure};
use burst_tests::body::BIG;
use burst_tests::client::{self, Connection, PATIENCE, Page, Transfer};
use burst_tests::daemon::{Daemon, Settings, Tunnel, Way};
use burst_tests::far_end;
use burst_tests::narrow::{self, Evidence};
use burst_tests::servers::{self, Nginx, Site};
use burst_tests::sniffer::{Flows, Sniffer};
use burst_tests::topology::{EDGE_DX, FIRST_ENDPOINT, Family, SHOP, TO_EDGE, Topology};

/// What tunnels are made of.
const MODULES: [&str; 5] = ["fou", "fou6", "ipip", "sit", "ip6_tunnel"];
/// What fits the narrow part of a way, in bytes of IP packet: above IPv6's least (1280), below what a tunnel leaves of 1500.
const NARROW: u16 = 1320;
/// What fits the narrow line, whose tunnels must leave IPv6 its least.
const NARROW_LINE: u16 = 1400;

/// A tunnel, and the family of its own packets.
#[derive(Clone, Copy, Debug)]
struct Kind(Tunnel, Family);

impl Kind {
    const fn way(self) -> Way {
        Way::Tunnel(self.0, self.1)
    }

    /// Bytes that it takes: the outer IP header, and for GUE its own and UDP's.
    const fn takes(self) -> u16 {
        let ip = if matches!(self.1, Family::V4) { 20 } else { 40 };
        ip + if matches!(self.0, Tunnel::Gue) { 12 } else { 0 }
    }

    fn settings(self) -> Settings {
        Settings { way: self.way(), ..Settings::default() }
    }

    /// The testbed with this far end.
    fn testbed(self, limit: bool) -> Result<(Topology, Nginx)> {
        far_end::require_modules(&MODULES)?;
        let topology = Topology::new()?;
        far_end::make(&topology, self.0, self.1, limit)?;
        let cloud = servers::start_cloud(&topology)?;
        Ok((topology, cloud))
    }
}

fn started<'a>(topology: &'a Topology, settings: &Settings) -> Result<Daemon<'a>> {
    let daemon = Daemon::start(topology, settings)?;
    daemon.shift(100.0)?;
    daemon.settle()?;
    Ok(daemon)
}

fn whole(transfer: &Transfer) -> Result<()> {
    ensure!(transfer.site == Some(Site::Cloud), "it stayed: {transfer:?}");
    ensure!(transfer.length == BIG, "{transfer:?}");
    Ok(())
}

fn both_ways(topology: &Topology) -> Result<()> {
    for family in Family::ALL {
        let source = topology.clients(family).first().copied();
        whole(&client::download(&topology.client, source, SHOP.at(family))?)?;
        whole(&client::upload(&topology.client, source, SHOP.at(family))?)?;
    }
    Ok(())
}

/// Everything of both families went by the tunnel, in both directions, and nothing beside it.
fn assert_tunnelled(kind: Kind, flows: &Flows) {
    let Kind(tunnel, outer) = kind;
    let protocols: &[u8] = if tunnel == Tunnel::Gue { &[17] } else { &[4, 41] };
    let (edge, far) = (EDGE_DX.of(outer), FIRST_ENDPOINT.of(outer));
    for &protocol in protocols {
        for incoming in [true, false] {
            let ends = if incoming { (edge, far) } else { (far, edge) };
            let of = flows.iter().filter(|(flow, _)| flow.incoming == incoming && flow.protocol == protocol);
            let packets: u64 = of
                .filter(|(flow, _)| (flow.source.ip(), flow.destination.ip()) == ends)
                .map(|(_, packets)| packets)
                .sum();
            assert!(packets > 50, "{kind:?}, protocol {protocol}, incoming {incoming}: {packets} packets of 2 MiB");
        }
    }
    let beside: Vec<_> = flows.keys().filter(|flow| flow.protocol == 6).collect();
    assert!(beside.is_empty(), "{kind:?}: outside of the tunnel: {beside:?}");
}

/// Nobody was offered more than fits the tunnel over a line of this MTU.
fn assert_offers_fit(kind: Kind, mtu: u16, evidence: &Evidence) {
    assert!(!evidence.offers.iter().all(|offer| !offer.incoming), "no SYN-ACK: {evidence:?}");
    for offer in evidence.offers.iter().filter(|offer| offer.incoming) {
        let headers = if offer.source.is_ipv4() { 40 } else { 60 };
        assert!(offer.mss != 0 && offer.mss <= mtu - kind.takes() - headers, "{kind:?}: {offer:?}");
    }
}

/// Whole bodies in both directions, of both families.
fn carries(kind: Kind, limit: bool) -> Result<()> {
    let (topology, _cloud) = kind.testbed(limit)?;
    let _daemon = started(&topology, &kind.settings())?;
    let witness = Sniffer::start(&topology.direct_connect, TO_EDGE)?;
    let client = narrow::watch(&topology.client, TO_EDGE)?;
    both_ways(&topology)?;
    assert_tunnelled(kind, &witness.finish()?);
    let client = narrow::evidence(client)?;
    assert_offers_fit(kind, 1500, &client);
    assert_eq!(client.errors, [], "{kind:?}: everything fits");
    Ok(())
}

#[test]
fn gue_over_ipv4_carries_both_families() -> Result<()> {
    carries(Kind(Tunnel::Gue, Family::V4), false)
}

#[test]
fn gue_over_ipv6_carries_both_families() -> Result<()> {
    carries(Kind(Tunnel::Gue, Family::V6), false)
}

#[test]
fn ipip_over_ipv4_carries_both_families() -> Result<()> {
    carries(Kind(Tunnel::Ipip, Family::V4), false)
}

#[test]
fn ipip_over_ipv6_carries_both_families() -> Result<()> {
    carries(Kind(Tunnel::Ipip, Family::V6), false)
}

#[test]
fn ipip_over_ipv6_comes_back_with_a_limit_of_nesting_as_the_kernel_sends_by_default() -> Result<()> {
    carries(Kind(Tunnel::Ipip, Family::V6), true)
}

/// Less than an Ethernet's MTU at each place: on the way that the line's configuration knows of, behind the clients' router, and on the
/// line of a connection that is older than its MTU.
fn fits(kind: Kind) -> Result<()> {
    let (topology, _cloud) = kind.testbed(false)?;
    let settings = kind.settings();
    let narrow_line = Settings { link_mtu: Some(NARROW_LINE), ..settings };
    let mut daemon = started(&topology, &settings)?;
    for family in Family::ALL {
        told_by_burst(kind, &mut daemon, family, &settings, &narrow_line)?;
    }

    // From here on the link's MTU is what the configuration says and the way into the cloud has: nothing is too big.
    narrow::way_into_cloud(&topology, NARROW_LINE)?;
    let client = narrow::watch(&topology.client, TO_EDGE)?;
    let router = Sniffer::start(&topology.direct_connect, TO_EDGE)?;
    for family in Family::ALL {
        // Others than before, of whom the kernels remember nothing.
        let source = topology.clients(family).get(1).copied();
        whole(&client::download(&topology.client, source, SHOP.at(family))?)?;
        whole(&client::upload(&topology.client, source, SHOP.at(family))?)?;
    }
    assert_offers_fit(kind, NARROW_LINE, &narrow::evidence(client)?);
    let errors = router.finish()?.into_keys().filter(|flow| !flow.incoming && matches!(flow.protocol, 1)).count();
    assert_eq!(errors, 0, "{kind:?}: the router had to say nothing");

    // And the clients' router takes still less: its errors travel through the tunnel.
    let homes = narrow::clients_behind_a_router(&topology, NARROW)?;
    daemon.restart_with(&settings)?;
    let gateway = narrow::watch(&topology.client, TO_EDGE)?;
    for family in Family::ALL {
        let source = topology.clients(family)[2];
        whole(&client::download(&homes, Some(source), SHOP.at(family))?)?;
        let route = topology.cloud.exec("ip", &["route", "get", &source.to_string()])?;
        ensure!(route.contains(&format!("mtu {NARROW}")), "{kind:?}: the cloud was not told of {NARROW}: {route}");
    }
    let gateway = narrow::evidence(gateway)?;
    for family in Family::ALL {
        let told = gateway.errors.iter().any(|error| !error.incoming && error.to == SHOP.address.of(family));
        assert!(told, "{kind:?} {family:?}: {gateway:?}");
    }
    Ok(())
}

/// A connection that is older than the link's smaller MTU has agreed on more: burst itself answers, with what the tunnel leaves.
fn told_by_burst(
    kind: Kind,
    daemon: &mut Daemon<'_>,
    family: Family,
    settings: &Settings,
    smaller: &Settings,
) -> Result<()> {
    let topology = daemon.topology;
    let source = topology.clients(family)[0];
    let client = narrow::watch(&topology.client, TO_EDGE)?;
    daemon.restart_with(settings)?;
    let transfer = client::run(&topology.client, async {
        let mut connection = Connection::open(Some(source), SHOP.at(family), PATIENCE).await?;
        connection.get(Page::Small, false, PATIENCE).await?;
        daemon.restart_with(smaller)?;
        client::upload_over(&mut connection).await
    })?;
    whole(&transfer.with_context(|| format!("{kind:?} {family:?}"))?)?;
    let client = narrow::evidence(client)?;
    assert!(client.errors.iter().any(|error| error.incoming), "{kind:?} {family:?}: {client:?}");
    for error in client.errors.iter().filter(|error| error.incoming) {
        assert_eq!((error.from, error.to, error.mtu), (SHOP.address.of(family), source, NARROW_LINE - kind.takes()));
        assert_eq!(error.destination, SHOP.at(family), "{error:?}");
    }
    Ok(())
}

#[test]
fn gue_over_ipv4_finds_each_smaller_mtu() -> Result<()> {
    fits(Kind(Tunnel::Gue, Family::V4))
}

#[test]
fn gue_over_ipv6_finds_each_smaller_mtu() -> Result<()> {
    fits(Kind(Tunnel::Gue, Family::V6))
}

#[test]
fn ipip_over_ipv4_finds_each_smaller_mtu() -> Result<()> {
    fits(Kind(Tunnel::Ipip, Family::V4))
}

#[test]
fn ipip_over_ipv6_finds_each_smaller_mtu() -> Result<()> {
    fits(Kind(Tunnel::Ipip, Family::V6))
}
