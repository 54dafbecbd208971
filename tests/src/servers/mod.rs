//! The servers: real nginx on both sides, real HAProxy in front of the local one, and what they themselves say they
//! served. Nothing of theirs is simulated.

mod haproxy;
mod nginx;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};

pub use haproxy::{HaProxy, Limits, Row};
pub use nginx::{Counts, Listener, Nginx, Site, StubStatus};

use crate::dir::RunDir;
use crate::netns::Namespace;
use crate::process::Process;
use crate::topology::{CLOUD_PORT, FIRST_ENDPOINT, Family, LOCAL, PAYMENT, SHOP, Topology};

/// How long a server may take to listen, on a busy machine.
const START: Duration = Duration::from_secs(10);

/// Port of nginx's stub_status, on LOCAL's address and on the endpoints'.
pub const STATUS_PORT: u16 = 8083;
/// Port of the cloud's that only probes go to ([`start_probed`]).
pub const PROBE_PORT: u16 = 8099;
/// Port of HAProxy's Prometheus endpoint `/metrics`, on LOCAL's addresses.
pub const METRICS_PORT: u16 = 8404;

/// The premises: HAProxy on the services' addresses, nginx behind it.
#[derive(Debug)]
pub struct LocalSite {
    /// In front.
    pub haproxy: HaProxy,
    /// Behind.
    pub nginx: Nginx,
}

impl LocalSite {
    /// Starts the premises, with limits that no test reaches unless it sets lower ones.
    ///
    /// # Errors
    /// When a server does not start, with its log.
    pub fn start(topology: &Topology, limits: Limits) -> Result<Self> {
        let behind = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listeners = [
            Listener { service: PAYMENT.name, at: vec![behind(8081)] },
            Listener { service: SHOP.name, at: vec![behind(8082)] },
        ];
        let status = SocketAddr::new(LOCAL.of(Family::V4), STATUS_PORT);
        let nginx = Nginx::start(&topology.local, &topology.dir, Site::Local, &listeners, status)?;
        let haproxy = HaProxy::start(topology, limits, behind(8081), behind(8082))?;
        Ok(Self { haproxy, nginx })
    }
}

/// Starts the cloud's nginx on all endpoints: the shop on [`CLOUD_PORT`] (`dnat`) and on its own port (`nexthop`). It
/// answers on the payment port, too, so that payment which leaked would be served, logged and counted, not refused.
///
/// # Errors
/// When it does not start, with its log.
pub fn start_cloud(topology: &Topology) -> Result<Nginx> {
    let any = |port| [IpAddr::from([0; 4]), IpAddr::from([0; 16])].map(|address| SocketAddr::new(address, port));
    let listeners = [
        Listener { service: PAYMENT.name, at: any(PAYMENT.port).to_vec() },
        Listener { service: SHOP.name, at: [any(CLOUD_PORT), any(SHOP.port)].concat() },
    ];
    let status = SocketAddr::from(([0; 4], STATUS_PORT));
    Nginx::start(&topology.cloud, &topology.dir, Site::Cloud, &listeners, status)
}

/// Starts a server of the cloud's shop that is an endpoint of its own: on [`CLOUD_PORT`] of one endpoint's addresses. The
/// directory must be one that no other server of the cloud has.
///
/// # Errors
/// As [`start_cloud`].
pub fn start_endpoint(topology: &Topology, dir: &RunDir, number: u8) -> Result<Nginx> {
    let address = FIRST_ENDPOINT.plus(number);
    let at = Family::ALL.map(|family| SocketAddr::new(address.of(family), CLOUD_PORT));
    let status = SocketAddr::new(address.of(Family::V4), STATUS_PORT);
    Nginx::start(&topology.cloud, dir, Site::Cloud, &[Listener { service: SHOP.name, at: at.to_vec() }], status)
}

/// Starts a server in the cloud that nobody asks but who probes: on [`PROBE_PORT`] of all endpoints.
///
/// # Errors
/// As [`start_cloud`].
pub fn start_probed(topology: &Topology, dir: &RunDir) -> Result<Nginx> {
    let any = [IpAddr::from([0; 4]), IpAddr::from([0; 16])].map(|address| SocketAddr::new(address, PROBE_PORT));
    let status = SocketAddr::from((Ipv4Addr::LOCALHOST, PROBE_PORT + 1));
    Nginx::start(&topology.cloud, dir, Site::Cloud, &[Listener { service: "probed", at: any.to_vec() }], status)
}

/// Waits until a process's namespace has listening sockets on all of `wanted`. It reads the kernel's table: a
/// connection would be counted by the server.
fn wait_listening(process: &mut Process, namespace: &Namespace, wanted: &[SocketAddr]) -> Result<()> {
    process.wait_ready("listening", START, || {
        let ports = namespace.run(listening)??;
        Ok(wanted.iter().all(|at| ports.contains(&(at.is_ipv6(), at.port()))).then_some(()))
    })
}

/// (is IPv6, port) of all listening TCP sockets of the calling thread's namespace.
fn listening() -> Result<BTreeSet<(bool, u16)>> {
    let mut found = BTreeSet::new();
    for (file, v6) in [("tcp", false), ("tcp6", true)] {
        // Of the thread: `/proc/net` is the main thread's.
        let path = format!("/proc/thread-self/net/{file}");
        let table = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        for line in table.lines().skip(1) {
            // proc_pid_net(5): number, local address:port, remote address:port, state (0A: listening).
            let mut fields = line.split_whitespace().skip(1);
            let (Some(local), Some("0A")) = (fields.next(), fields.nth(1)) else { continue };
            if let Some(port) = local.rsplit(':').next().and_then(|port| u16::from_str_radix(port, 16).ok()) {
                found.insert((v6, port));
            }
        }
    }
    Ok(found)
}
