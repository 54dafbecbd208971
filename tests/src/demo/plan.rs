//! The numbers of the demonstration: rates, phases, burst's configuration.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::client::Page;
use crate::load::Plan;
use crate::servers::LocalSite;
use crate::topology::{CLIENT_DEVICE, CLOUD_PORT, DIRECT_CONNECT, DX_DEVICE, Family, PAYMENT, SHOP, Service, Topology};

/// New connections per second that the premises take for the promotion: a load of 1.
const LIMIT: f64 = 240.0;
/// Load that the controller aims at.
pub(super) const TARGET: f64 = 0.75;
/// New payment connections per second, all the time.
pub(super) const PAYMENT_RATE: f64 = 40.0;

/// A phase of the promotion.
pub(super) struct Phase {
    /// Its name.
    pub(super) name: &'static str,
    /// New promotion connections per second.
    pub(super) rate: f64,
    /// How long it lasts.
    pub(super) seconds: u32,
}

/// Tenfold, and back. The last phase is long enough for the share to come home at `home_rate` after `stabilize`.
pub(super) const PHASES: [Phase; 3] = [
    Phase { name: "calm", rate: 60.0, seconds: 8 },
    Phase { name: "push", rate: 600.0, seconds: 20 },
    Phase { name: "after", rate: 60.0, seconds: 22 },
];

/// The payment load.
pub(super) fn payment(topology: &Topology) -> Plan {
    plan(topology, PAYMENT, PAYMENT_RATE)
}

/// The promotion load, as it begins.
pub(super) fn promotion(topology: &Topology) -> Plan {
    plan(topology, SHOP, PHASES[0].rate)
}

fn plan(topology: &Topology, service: Service, rate: f64) -> Plan {
    Plan {
        service: service.name.to_owned(),
        servers: Family::ALL.map(|family| service.at(family)).to_vec(),
        clients: Family::ALL.into_iter().flat_map(|family| topology.clients(family)).collect(),
        page: Page::Small,
        rate,
        requests: 4,
        pause: Duration::from_millis(250),
        patience: Duration::from_secs(10),
        most_open: 10_000,
    }
}

/// Where burst's API is.
pub(super) fn socket(topology: &Topology) -> PathBuf {
    topology.dir.file("burst.sock")
}

/// Load of the premises as `status` has it.
pub(super) fn load(status: &Value) -> Option<f64> {
    class(status, SHOP.name)?["burst"]["local"]["load"].as_f64()
}

/// A class of a status.
pub(super) fn class<'a>(status: &'a Value, name: &str) -> Option<&'a Value> {
    status["classes"].as_array()?.iter().find(|class| class["name"] == name)
}

/// burst's configuration for the run.
pub(super) fn config(topology: &Topology, local: &LocalSite) -> String {
    let endpoints: Vec<String> = Family::ALL
        .into_iter()
        .flat_map(|family| topology.endpoints(family))
        .map(|address| format!("\"{address}\""))
        .collect();
    format!(
        r#"version = 1

[edge]
name      = "demo-edge"
client    = ["{CLIENT_DEVICE}"]
seed      = "demo"
pin_dir   = "{pins}"
socket    = "{socket}"
on_exit   = "detach"

[[link]]
name     = "dx"
device   = "{DX_DEVICE}"
next_hop = "{next_hop}"
mtu      = 1500

[class.{payment}]
keep  = true
match = [{{ dst = ["{payment4}/32", "{payment6}/128"], proto = "tcp", ports = [{payment_port}] }}]

[class.{shop}]
match        = [{{ dst = ["{shop4}/32", "{shop6}/128"], proto = "tcp", ports = [{shop_port}] }}]
idle_timeout = "4s"
when_full    = "local"

[class.{shop}.local]
target    = {TARGET}
load      = [{{ haproxy = "{haproxy}", proxy = "{shop}", server = "FRONTEND", field = "rate", limit = {LIMIT} }}]
home_rate = "15%/s"
stabilize = "3s"

[[class.{shop}.tier]]
name      = "reserved"
mode      = "dnat"
endpoints = [{endpoints}]
ports     = {{ {shop_port} = {CLOUD_PORT} }}
links     = ["dx"]
capacity  = "5k flows/s"
"#,
        pins = topology.dir.file("pins").display(),
        socket = socket(topology).display(),
        next_hop = DIRECT_CONNECT.v4,
        payment = PAYMENT.name,
        payment4 = PAYMENT.address.v4,
        payment6 = PAYMENT.address.v6,
        payment_port = PAYMENT.port,
        shop = SHOP.name,
        shop4 = SHOP.address.v4,
        shop6 = SHOP.address.v6,
        shop_port = SHOP.port,
        haproxy = local.haproxy.socket().display(),
        endpoints = endpoints.join(", "),
    )
}
