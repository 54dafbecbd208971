//! HAProxy in front of the local nginx, with its stats socket and Prometheus endpoint: where the load is read.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::{METRICS_PORT, wait_listening};
use crate::host;
use crate::process::Process;
use crate::topology::{Family, LOCAL, PAYMENT, SHOP, Service, Topology};

/// How much the premises take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections from clients at a time, for each service; more wait in the listen queue.
    pub connections: u32,
    /// Requests that nginx works on at a time, for each service; more wait in HAProxy's queue (`qcur`).
    pub requests: u32,
}

impl Default for Limits {
    fn default() -> Self {
        // Twice the descriptors for two services: within the 20,000 open files that some machines limit root to.
        Self { connections: 4_000, requests: 4_000 }
    }
}

/// A running HAProxy. Frontends and backends are named as the services.
#[derive(Debug)]
pub struct HaProxy {
    /// Its process.
    pub process: Process,
    socket: PathBuf,
}

/// One row of `show stat`: a frontend, a backend or a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    columns: BTreeMap<String, String>,
}

impl Row {
    /// A column as a number. Columns are named in HAProxy's management guide, section 9.1 (`scur` current sessions,
    /// `stot` sessions since the start, `req_tot` requests, `qcur` queued, `slim` limit).
    #[must_use]
    pub fn number(&self, column: &str) -> Option<u64> {
        self.columns.get(column)?.parse().ok()
    }
}

impl HaProxy {
    /// Starts HAProxy in LOCAL on the services' addresses, before the two addresses of nginx, and waits until it
    /// listens.
    ///
    /// # Errors
    /// When it does not start, with its log.
    pub fn start(topology: &Topology, limits: Limits, payment: SocketAddr, shop: SocketAddr) -> Result<Self> {
        let socket = topology.dir.file("haproxy.sock");
        let services = [(PAYMENT, payment), (SHOP, shop)];
        let config = topology.dir.write("haproxy.cfg", config(&socket, limits, &services))?;
        host::require_programs(&[host::HAPROXY])?;
        let mut command = topology.local.command("haproxy");
        command.args(["-db", "-f"]).arg(&config);
        let mut process = Process::spawn("haproxy", command, &topology.dir)?;
        let wanted: Vec<_> =
            services.iter().flat_map(|(service, _)| Family::ALL.map(|family| service.at(family))).collect();
        wait_listening(&mut process, &topology.local, &wanted)?;
        Ok(Self { process, socket })
    }

    /// Path of the stats socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The row of a service's `FRONTEND`, `BACKEND` or server (`nginx`).
    ///
    /// # Errors
    /// When HAProxy does not answer within two seconds or has no such row.
    pub fn stat(&self, service: &str, row: &str) -> Result<Row> {
        let mut rows = parse(&self.ask("show stat")?)?;
        rows.remove(&(service.to_owned(), row.to_owned()))
            .with_context(|| format!("show stat has no row {service},{row}"))
    }

    /// Asks the stats socket; the answer is text.
    ///
    /// # Errors
    /// When HAProxy does not answer within two seconds.
    pub fn ask(&self, command: &str) -> Result<String> {
        let ask = || -> std::io::Result<String> {
            let mut stream = UnixStream::connect(&self.socket)?;
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            writeln!(stream, "{command}")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        ask().with_context(|| format!("asking {} for {command:?}", self.socket.display()))
    }
}

/// Rows of `show stat` by proxy and server name.
fn parse(text: &str) -> Result<BTreeMap<(String, String), Row>> {
    let text = text.strip_prefix("# ").unwrap_or(text);
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(text.trim_end().as_bytes());
    let rows = reader.deserialize().map(|row: Result<BTreeMap<String, String>, _>| {
        let columns = row.context("a row of show stat")?;
        let name = |column: &str| columns.get(column).cloned().with_context(|| format!("show stat: no {column}"));
        Ok(((name("pxname")?, name("svname")?), Row { columns }))
    });
    rows.collect()
}

fn config(socket: &Path, limits: Limits, services: &[(Service, SocketAddr)]) -> String {
    let socket = socket.display();
    let Limits { connections, requests } = limits;
    let total = connections.saturating_mul(2).saturating_add(500);
    let metrics = Family::ALL.map(|family| format!("    bind {}", SocketAddr::new(LOCAL.of(family), METRICS_PORT)));
    let mut text = format!(
        "# Written by the testbed.
global
    stats socket {socket} mode 600 level admin
    maxconn {total}
    nbthread 1
    hard-stop-after 1s
defaults
    mode http
    option http-keep-alive
    timeout connect 5s
    timeout client 600s
    timeout server 600s
    timeout http-request 30s
    timeout http-keep-alive 600s
    timeout queue 30s
frontend metrics
{}
    http-request use-service prometheus-exporter if {{ path /metrics }}
    http-request deny
",
        metrics.join("\n")
    );
    for (service, server) in services {
        let name = service.name;
        let binds = Family::ALL.map(|family| format!("    bind {} backlog 16384", service.at(family)));
        text += &format!(
            "frontend {name}
{}
    maxconn {connections}
    default_backend {name}
backend {name}
    http-reuse safe
    server nginx {server} maxconn {requests} pool-max-conn -1
",
            binds.join("\n")
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn show_stat_is_understood() {
        let text = "# pxname,svname,qcur,scur,stot,\nshop,FRONTEND,,7,120,\nshop,BACKEND,3,5,119,\n\n";
        let rows = parse(text).expect("good text");
        let row = |name: &str| &rows[&("shop".to_owned(), name.to_owned())];
        assert_eq!(row("FRONTEND").number("scur"), Some(7));
        assert_eq!(row("FRONTEND").number("qcur"), None, "a frontend has no queue");
        assert_eq!(row("BACKEND").number("stot"), Some(119));
        assert!(parse("Unknown command\nwhat\n").is_err());
    }
}
