//! Links that the routing table picks the way of (`via = "kernel"`): whole bodies over a VPN without Ethernet headers and over an
//! Ethernet device, both families; what the daemon makes of the device and of the routes; and what it leaves on the host.

use std::net::{IpAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};
use aya::programs::{SchedClassifier, TcAttachType};
use burst::api::types::Link;
use burst_tests::body::BIG;
use burst_tests::client;
use burst_tests::daemon::{self, Daemon, Lines, PATIENCE, Settings, pin_dir, refusal, remains};
use burst_tests::load::{Held, HeldPlan};
use burst_tests::servers::{self, Limits, LocalSite, Nginx, Site};
use burst_tests::sniffer::Sniffer;
use burst_tests::topology::{
    CLIENT_DEVICE, DX_DEVICE, Family, Options, PAYMENT, SECOND_DX_DEVICE, SECOND_TO_EDGE, SHOP, Topology,
};
use burst_tests::vpn::{Offload, VPN_DEVICE, VPN_MTU, VPN_NETS, Vpn};
use burst_tests::{host, poll};

fn over(lines: Lines) -> Settings {
    Settings { lines, ..Settings::default() }
}

fn sites(topology: &Topology) -> Result<(LocalSite, Nginx)> {
    Ok((LocalSite::start(topology, Limits::default())?, servers::start_cloud(topology)?))
}

/// No line is left: the router has only the VPN to the clients.
fn unplug(topology: &Topology) -> Result<()> {
    topology.edge.ip(&format!("link set {DX_DEVICE} down"))
}

/// Moves a whole body each way, and says where both went. Payment stays.
fn bodies(topology: &Topology, family: Family, client: usize) -> Result<Site> {
    let source = topology.clients(family).get(client).copied();
    let mut sites = Vec::new();
    for service in [SHOP, PAYMENT] {
        let down = client::download(&topology.client, source, service.at(family))?;
        let up = client::upload(&topology.client, source, service.at(family))?;
        assert_eq!((down.length, up.length), (BIG, BIG), "{service:?} {family:?}");
        assert_eq!(down.site, up.site, "{service:?} {family:?}");
        sites.push(down.site.context("every answer names its site")?);
    }
    assert_eq!(sites[1], Site::Local, "payment, {family:?}");
    Ok(sites[0])
}

fn all_at(topology: &Topology, client: usize, site: Site) -> Result<()> {
    for family in Family::ALL {
        assert_eq!(bodies(topology, family, client)?, site, "{family:?}");
    }
    Ok(())
}

fn is_endpoint(topology: &Topology) -> impl Fn(IpAddr) -> bool {
    let all: Vec<IpAddr> = Family::ALL.into_iter().flat_map(|family| topology.endpoints(family)).collect();
    move |address| all.contains(&address)
}

fn is_payment(address: IpAddr) -> bool {
    Family::ALL.iter().any(|&family| address == PAYMENT.address.of(family))
}

fn link(daemon: &Daemon<'_>, name: &str) -> Result<Link> {
    daemon.status()?.links.into_iter().find(|link| link.name == name).context("no such link")
}

fn until_link(daemon: &Daemon<'_>, name: &str, why: &str) -> Result<()> {
    let waited = poll::until(why, PATIENCE, || Ok((link(daemon, name)?.why == why).then_some(())));
    waited.with_context(|| format!("{:#?}", link(daemon, name)))
}

fn leaves_again(daemon: &Daemon<'_>) -> Result<()> {
    daemon.until("the shop to leave", |shop| shop.iter().all(|burst| burst.local.share.wanted == 0.0))
}

/// Every reply was told to be one, and nothing was sent or dropped that should not have been.
fn is_counted(daemon: &Daemon<'_>) -> Result<()> {
    poll::until("the counters of the last packets", PATIENCE, || {
        let reasons = daemon.reasons(SHOP.name)?;
        let packets = |reason: &str| reasons.get(reason).map_or(0, |row| row.0);
        let counted = ["shifted-kernel", "returned-kernel"].map(packets);
        let others = ["shifted", "returned", "return-too-big", "no-route", "to-host", "no-headroom"].map(packets);
        let link = link(daemon, "vpn")?;
        assert_eq!(others, [0; 6], "{reasons:?}");
        Ok((counted.into_iter().all(|packets| packets > 100) && [link.out.packets, link.back.packets] == counted)
            .then_some(()))
    })
    .with_context(|| format!("{:#?} {:#?}", daemon.reasons(SHOP.name), link(daemon, "vpn")))
}

/// Programs of traffic control on a device of EDGE.
fn classifiers(topology: &Topology, device: &str, side: TcAttachType) -> Result<Vec<String>> {
    let (_, programs) = topology.edge.run(|| SchedClassifier::query_tcx(device, side))??;
    Ok(programs.iter().map(|program| program.name_as_str().unwrap_or_default().to_owned()).collect())
}

#[test]
fn over_a_vpn_without_ethernet_headers_the_shop_leaves_and_payment_stays() -> Result<()> {
    for offload in [Offload::None, Offload::All] {
        let topology = Topology::new()?;
        let vpn = Vpn::start(&topology, offload)?;
        let (_local, cloud) = sites(&topology)?;
        unplug(&topology)?;
        let daemon = Daemon::start(&topology, &over(Lines::Kernel(VPN_DEVICE)))?;
        daemon.shift(0.0)?;
        all_at(&topology, 0, Site::Local)?;
        let endpoint = is_endpoint(&topology);
        assert_eq!(vpn.passed().map(|passed| passed.of(&endpoint)), [0, 0]);

        daemon.shift(100.0)?;
        all_at(&topology, 1, Site::Cloud)?;
        is_counted(&daemon)?;
        assert_eq!(link(&daemon, "vpn")?.mtu, VPN_MTU);
        let passed = vpn.passed();
        for (way, passed) in ["out", "back"].into_iter().zip(&passed) {
            let (all, merged, partial) = (passed.of(&endpoint), passed.merged, passed.partial);
            println!("{offload:?}, {way}: {all} packets of endpoints, {merged} merged, {partial} without a checksum");
            assert!(all > 100, "2 MiB in each family");
            assert_eq!((merged > 10, partial > 10), (offload == Offload::All, offload == Offload::All));
            assert_eq!(passed.of(is_payment), 0, "payment on the VPN");
            // What left has the clients' addresses: each end is an endpoint or a client.
            assert_eq!(passed.of(|address| address == SHOP.address.of(Family::V4)), 0);
        }

        daemon.shift(0.0)?;
        all_at(&topology, 2, Site::Local)?;
        // A GET, then PUT, GET and DELETE, in each family.
        assert_eq!((cloud.counts_of(SHOP.name, 8)?.requests, cloud.counts_of(PAYMENT.name, 0)?.requests), (8, 0));
    }
    Ok(())
}

#[test]
fn over_an_ethernet_device_with_its_offloads_the_shop_leaves_and_payment_stays() -> Result<()> {
    let topology = Topology::with(Options { second_line: true, ..Options::default() })?;
    // As devices come: what the router sends has neither its checksum nor its cuts.
    for (namespace, device) in [(&topology.edge, SECOND_DX_DEVICE), (&topology.direct_connect, SECOND_TO_EDGE)] {
        namespace.exec("ethtool", &["-K", device, "tx", "on", "tso", "on"])?;
        // The source of replies is no neighbour's, and that is all the same to them.
        namespace.sysctl(&[(&format!("net/ipv4/conf/{device}/rp_filter"), "1")])?;
    }
    let (_local, cloud) = sites(&topology)?;
    unplug(&topology)?;
    let witness = Sniffer::start(&topology.direct_connect, SECOND_TO_EDGE)?;
    let mut daemon = Daemon::start(&topology, &over(Lines::Kernel(SECOND_DX_DEVICE)))?;
    assert!(daemon.process.log()?.contains(&format!("net.ipv4.conf.{SECOND_DX_DEVICE}.rp_filter is 1")));
    daemon.shift(100.0)?;
    all_at(&topology, 1, Site::Cloud)?;
    is_counted(&daemon)?;
    assert_eq!((cloud.counts_of(SHOP.name, 8)?.requests, cloud.counts_of(PAYMENT.name, 0)?.requests), (8, 0));
    daemon.stop()?;
    let flows = witness.finish()?;
    assert!(!flows.keys().any(|flow| is_payment(flow.source.ip()) || is_payment(flow.destination.ip())));
    let endpoint = is_endpoint(&topology);
    assert!(flows.keys().any(|flow| flow.incoming && endpoint(flow.destination.ip())), "{flows:?}");
    Ok(())
}

fn hold_both(topology: &Topology) -> Result<Vec<Held>> {
    let hold = |family| Held::open(&topology.client, HeldPlan::of(topology, SHOP, family));
    Family::ALL.into_iter().map(hold).collect()
}

fn exchange(held: &[Held]) -> Result<()> {
    held.iter().try_for_each(Held::exchange)
}

#[test]
fn a_vpn_that_stands_in_carries_nothing_until_the_line_goes_down_and_then_everything() -> Result<()> {
    let topology = Topology::new()?;
    let vpn = Vpn::start(&topology, Offload::All)?;
    let _sites = sites(&topology)?;
    // A device that is set down would lose its IPv6 addresses.
    topology.edge.sysctl(&[("net/ipv6/conf/all/keep_addr_on_down", "1")])?;
    let daemon = Daemon::start(&topology, &over(Lines::Fallback(VPN_DEVICE)))?;
    let endpoint = is_endpoint(&topology);
    let over_vpn = || vpn.passed().map(|passed| passed.of(&endpoint));
    daemon.shift(100.0)?;
    let held = hold_both(&topology)?;
    assert!(held.iter().flat_map(Held::lines).all(|line| line.site == Some(Site::Cloud)));
    all_at(&topology, 0, Site::Cloud)?;
    exchange(&held)?;
    assert_eq!(over_vpn(), [0, 0], "it stands in only");
    assert!(link(&daemon, "vpn")?.up && link(&daemon, "vpn")?.fallback);
    assert_eq!(daemon.status()?.warnings, [""; 0]);

    unplug(&topology)?;
    until_link(&daemon, "dx-1", "device is set down")?;
    exchange(&held)?;
    all_at(&topology, 1, Site::Cloud)?;
    let [out, back] = over_vpn();
    assert!(out > 100 && back > 100, "{out} out, {back} back");

    topology.edge.ip(&format!("link set {DX_DEVICE} up"))?;
    until_link(&daemon, "dx-1", "up")?;
    exchange(&held)?;
    let before = over_vpn();
    all_at(&topology, 2, Site::Cloud)?;
    exchange(&held)?;
    assert_eq!(over_vpn()[0], before[0], "the line is back");
    held.into_iter().try_for_each(|held| held.finish().map(drop))
}

#[test]
fn a_vpn_that_goes_or_is_not_the_way_keeps_new_flows_home_until_it_is_back() -> Result<()> {
    let topology = Topology::new()?;
    let vpn = Vpn::start(&topology, Offload::None)?;
    let _sites = sites(&topology)?;
    unplug(&topology)?;
    let daemon = Daemon::start(&topology, &over(Lines::Kernel(VPN_DEVICE)))?;
    daemon.shift(100.0)?;
    all_at(&topology, 0, Site::Cloud)?;

    // One family is sent another way: that one stays home.
    vpn.route("delete", VPN_NETS[1])?;
    daemon.until("endpoints of one family", |shop| {
        shop[0].tiers[0].endpoints.iter().all(|end| end.reachable != end.name.contains(':'))
    })?;
    let warnings = daemon.status()?.warnings;
    let warned = format!("the routing table does not send fd00:20::10, fd00:20::11 by {VPN_DEVICE}");
    assert!(warnings.iter().any(|text| text.contains(&warned)), "{warnings:#?}");
    assert!(link(&daemon, "vpn")?.up);
    assert_eq!(bodies(&topology, Family::V4, 1)?, Site::Cloud);
    assert_eq!(bodies(&topology, Family::V6, 1)?, Site::Local);
    vpn.route("delete", VPN_NETS[0])?;
    until_link(&daemon, "vpn", "the routing table sends no endpoint by the device")?;
    all_at(&topology, 2, Site::Local)?;
    for net in VPN_NETS {
        vpn.route("add", net)?;
    }
    until_link(&daemon, "vpn", "up")?;
    leaves_again(&daemon)?;
    all_at(&topology, 3, Site::Cloud)?;

    // By a switch of the clients' device nothing is sent on.
    let switch = format!("net/ipv4/conf/{CLIENT_DEVICE}/forwarding");
    topology.edge.sysctl(&[(&switch, "0")])?;
    until_link(&daemon, "vpn", "forwarding is off on a client device (sysctl)")?;
    topology.edge.sysctl(&[(&switch, "1")])?;
    until_link(&daemon, "vpn", "up")?;

    // The VPN's daemon ends, and makes its device anew.
    drop(vpn);
    until_link(&daemon, "vpn", "device does not exist")?;
    all_at(&topology, 4, Site::Local)?;
    let _vpn = Vpn::start(&topology, Offload::All)?;
    until_link(&daemon, "vpn", "up")?;
    leaves_again(&daemon)?;
    poll::until("programs on the new device", PATIENCE, || {
        Ok((classifiers(&topology, VPN_DEVICE, TcAttachType::Ingress)? == ["burst_return"]).then_some(()))
    })?;
    all_at(&topology, 5, Site::Cloud)
}

#[test]
fn connections_over_a_vpn_outlive_the_daemon_and_detaching_leaves_nothing() -> Result<()> {
    let topology = Topology::new()?;
    let _vpn = Vpn::start(&topology, Offload::All)?;
    let _sites = sites(&topology)?;
    unplug(&topology)?;
    let mut daemon = Daemon::start(&topology, &over(Lines::Kernel(VPN_DEVICE)))?;
    daemon.shift(100.0)?;
    let held = hold_both(&topology)?;
    assert!(held.iter().flat_map(Held::lines).all(|line| line.site == Some(Site::Cloud)));
    daemon.kill()?;
    exchange(&held)?;
    all_at(&topology, 0, Site::Cloud)?;
    daemon.start_again()?;
    exchange(&held)?;
    daemon.shift(100.0)?;
    all_at(&topology, 1, Site::Cloud)?;
    assert_eq!(classifiers(&topology, VPN_DEVICE, TcAttachType::Ingress)?, ["burst_return"]);
    assert_eq!(classifiers(&topology, VPN_DEVICE, TcAttachType::Egress)?, ["sentinel_tc"]);
    daemon.stop()?;
    exchange(&held)?;
    held.into_iter().try_for_each(|held| held.finish().map(drop))?;

    let pins = pin_dir(&topology);
    let said = daemon::command(&topology, &["detach", "--pin-dir", pins.to_str().context("a path")?])?;
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains(VPN_DEVICE) && said.out.contains(CLIENT_DEVICE), "{}", said.out);
    for side in [TcAttachType::Ingress, TcAttachType::Egress] {
        // A link ends a moment after its pin.
        let gone = || Ok(classifiers(&topology, VPN_DEVICE, side)?.is_empty().then_some(()));
        poll::until("the device to be as it was", PATIENCE, gone)?;
    }
    assert_eq!(remains(&topology)?, [""; 0]);
    all_at(&topology, 2, Site::Local)
}

#[test]
fn payment_that_a_route_leads_into_the_vpn_is_stopped_where_that_is_asked_for() -> Result<()> {
    let topology = Topology::new()?;
    let vpn = Vpn::start(&topology, Offload::All)?;
    let daemon = Daemon::start(&topology, &Settings { enforce: true, ..over(Lines::Kernel(VPN_DEVICE)) })?;
    for (number, family) in (1..).zip(Family::ALL) {
        let length = if family == Family::V4 { 32 } else { 128 };
        vpn.route("add", &format!("{}/{length}", PAYMENT.address.of(family)))?;
        let open = || drop(TcpStream::connect_timeout(&PAYMENT.at(family), Duration::from_millis(200)));
        topology.client.run(open)?;
        let wanted = || Ok(Some(daemon.status()?.events).filter(|events| events.stopped >= number));
        let events = poll::until("an event in status", PATIENCE, wanted)?;
        assert_eq!((events.guard, events.stopped_own, events.reported), (0, 0, 0), "{events:?}");
        let last = events.recent.last().context("an event")?;
        assert_eq!((last.dst.as_str(), last.device.as_str()), (PAYMENT.at(family).to_string().as_str(), VPN_DEVICE));
    }
    assert_eq!(vpn.passed().map(|passed| passed.of(is_payment)), [0, 0]);
    Ok(())
}

#[test]
fn explain_tells_what_goes_out_by_the_link_and_refuses_to_guess_what_comes_back() -> Result<()> {
    let topology = Topology::new()?;
    let file = topology.dir.write("burst.toml", daemon::config(&topology, &over(Lines::Kernel(VPN_DEVICE))))?;
    let (client, endpoint) = (topology.clients(Family::V4)[0], topology.endpoints(Family::V4)[0]);
    let explain = |from: String, to: String, more: &[&str]| {
        let file = file.to_str().context("a path")?;
        let flow = ["explain", "-c", file, "--proto", "tcp", "--src", &from, "--dst", &to];
        daemon::command(&topology, &[&flow[..], more].concat())
    };
    let offsite = format!("{}=100%", SHOP.name);
    let out = explain(format!("{client}:40000"), SHOP.at(Family::V4).to_string(), &["--syn", "--offsite", &offsite])?;
    assert_eq!(out.code, 0, "{}", out.err);
    assert!(out.out.contains("shifted-kernel"), "{}", out.out);
    let back = explain(format!("{endpoint}:8080"), format!("{client}:40000"), &["--in", VPN_DEVICE])?;
    assert_eq!(back.code, 2, "{}", back.err);
    assert!(back.err.contains("goes through another program"), "{}", back.err);
    Ok(())
}

#[test]
fn a_host_that_would_send_nothing_by_the_link_is_refused_with_the_switch_named() -> Result<()> {
    let topology = Topology::new()?;
    let _vpn = Vpn::start(&topology, Offload::None)?;
    let settings = over(Lines::Kernel(VPN_DEVICE));
    let config = daemon::config(&topology, &settings);
    let client = format!("ipv4.conf.{CLIENT_DEVICE}");
    for (switch, on) in [
        (client.as_str(), "the kernel would send nothing by link `vpn`"),
        (&format!("ipv4.conf.{VPN_DEVICE}"), "replies from the cloud could not be routed to clients"),
    ] {
        let path = format!("net/{}/forwarding", switch.replace('.', "/"));
        topology.edge.sysctl(&[(&path, "0")])?;
        let said = refusal(&topology, topology.edge.command(host::burst_binary()?), &config)?;
        assert_eq!(said.code, 6, "{}", said.err);
        let expected = format!("burst: net.{switch}.forwarding is 0: {on}\n  fix: sysctl -w net.{switch}.forwarding=1");
        assert!(said.err.contains(&expected), "{}", said.err);
        assert!(!pin_dir(&topology).exists(), "nothing was made");
        topology.edge.sysctl(&[(&path, "1")])?;
    }
    // Of IPv6 the kernel asks the switch of all devices, and burst's lookups that of the device.
    topology.edge.sysctl(&[
        ("net/ipv6/conf/all/forwarding", "0"),
        (&format!("net/ipv6/conf/{VPN_DEVICE}/forwarding"), "1"),
        (&format!("net/ipv6/conf/{CLIENT_DEVICE}/forwarding"), "1"),
    ])?;
    let said = refusal(&topology, topology.edge.command(host::burst_binary()?), &config)?;
    assert!(said.err.contains("net.ipv6.conf.all.forwarding is 0"), "{}", said.err);
    topology.edge.sysctl(&[("net/ipv6/conf/all/forwarding", "1")])?;
    Daemon::start(&topology, &settings)?.stop()
}
