//! `edge.trace`: what the program decided of each packet is in the daemon's log, and is not there otherwise.

use std::time::Duration;

use anyhow::Result;
use burst_common::reason::Reason;
use burst_tests::client::{self, Connection, Page};
use burst_tests::daemon::{Daemon, PATIENCE, Settings};
use burst_tests::poll;
use burst_tests::servers::{self, Limits, LocalSite};
use burst_tests::topology::{Family, PAYMENT, SHOP, Service, Topology};

/// Asks a small page, and says from which address and port.
fn ask(topology: &Topology, service: Service, family: Family) -> Result<String> {
    let source = topology.clients(family).first().copied();
    let local = client::run(&topology.client, async {
        let mut connection = Connection::open(source, service.at(family), PATIENCE).await?;
        connection.get(Page::Small, true, PATIENCE).await?;
        Ok::<_, client::Failure>(connection.local)
    })??;
    Ok(local.to_string())
}

#[test]
fn traced_packets_are_logged_with_their_flow_and_verdict_and_others_are_not() -> Result<()> {
    for trace in [true, false] {
        let topology = Topology::new()?;
        let _local = LocalSite::start(&topology, Limits::default())?;
        let _cloud = servers::start_cloud(&topology)?;
        let daemon = Daemon::start(&topology, &Settings { trace, ..Settings::default() })?;
        daemon.shift(100.0)?;
        for family in Family::ALL {
            for (service, reason) in [(PAYMENT, Reason::Keep), (SHOP, Reason::Shifted)] {
                let from = ask(&topology, service, family)?;
                let line = |text: &str| {
                    text.contains(&format!("{from} > {} ", service.at(family)))
                        && text.ends_with(&format!("reason {}", reason.number()))
                };
                let logged =
                    || -> Result<usize> { Ok(daemon.process.log()?.lines().filter(|text| line(text)).count()) };
                if trace {
                    // SYN, the ACK of the handshake, the request, the FIN: at least.
                    poll::until("the packets in the log", PATIENCE, || Ok((logged()? >= 4).then_some(())))
                        .inspect_err(|_| eprintln!("{from} > {}: {:?}", service.at(family), logged()))?;
                } else {
                    std::thread::sleep(Duration::from_millis(200));
                    assert_eq!(logged()?, 0, "{}", daemon.process.log()?);
                }
            }
        }
    }
    Ok(())
}
