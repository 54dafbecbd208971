//! Payment that the kernel itself sends to a link: a route or a NAT rule that somebody got wrong. The sentinel sees it, tells
//! of it, and stops it where it is told to.

use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result};
use burst::api::types::Events;
use burst_tests::client;
use burst_tests::daemon::{Daemon, PATIENCE, Settings};
use burst_tests::poll;
use burst_tests::servers::{Limits, LocalSite, Site};
use burst_tests::topology::{DIRECT_CONNECT, DX_DEVICE, Family, PAYMENT, Topology};

/// The route that nobody meant: payment over the line.
fn misroute(topology: &Topology, family: Family, what: &str) -> Result<()> {
    let length = if family == Family::V4 { 32 } else { 128 };
    let (to, by) = (PAYMENT.address.of(family), DIRECT_CONNECT.of(family));
    topology.edge.ip(&format!("route {what} {to}/{length} via {by}"))
}

/// Tries to open a connection to payment, and waits until the daemon saw what became of it.
fn seen(topology: &Topology, daemon: &Daemon<'_>, family: Family, wanted: impl Fn(&Events) -> bool) -> Result<Events> {
    // Nobody answers behind the line.
    let open = || drop(TcpStream::connect_timeout(&PAYMENT.at(family), Duration::from_millis(200)));
    topology.client.run(open)?;
    poll::until("an event in status", PATIENCE, || Ok(Some(daemon.status()?.events).filter(&wanted)))
        .with_context(|| format!("{:#?}", daemon.status().map(|status| status.events)))
}

#[test]
fn payment_that_the_kernel_sends_to_a_link_is_reported_and_stopped_where_that_is_asked_for() -> Result<()> {
    let topology = Topology::new()?;
    let _local = LocalSite::start(&topology, Limits::default())?;
    for enforce in [false, true] {
        let mut daemon = Daemon::start(&topology, &Settings { enforce, ..Settings::default() })?;
        for (number, family) in (1u64..).zip(Family::ALL) {
            let source = topology.clients(family).first().copied();
            assert_eq!(client::download(&topology.client, source, PAYMENT.at(family))?.site, Some(Site::Local));
            let before = daemon.status()?.events;
            misroute(&topology, family, "add")?;
            let count = |events: &Events| if enforce { events.stopped } else { events.reported };
            let events = seen(&topology, &daemon, family, |events| count(events) > count(&before))?;
            misroute(&topology, family, "del")?;

            assert_eq!((events.guard, events.stopped_own), (0, 0), "burst itself sent nothing");
            assert_eq!(if enforce { events.reported } else { events.stopped }, 0, "{events:?}");
            let last = events.recent.last().context("an event")?;
            let what = if enforce { "sentinel-stopped" } else { "sentinel-reported" };
            assert_eq!((last.what.as_str(), last.proto.as_str()), (what, "tcp"));
            assert_eq!((last.dst.as_str(), last.device.as_str()), (PAYMENT.at(family).to_string().as_str(), DX_DEVICE));
            // Counters are read with the next tick.
            poll::until("a warning and the note's count", PATIENCE, || {
                let status = daemon.status()?;
                let warned = status.warnings.iter().any(|text| text.starts_with("payment: "));
                let counted = status.other.iter().any(|row| row.reason == what && row.packets >= number);
                Ok((warned && counted).then_some(()))
            })?;
            assert_eq!(client::download(&topology.client, source, PAYMENT.at(family))?.site, Some(Site::Local));
        }
        daemon.stop()?;
    }
    Ok(())
}
