//! The testbed: real namespaces, real links, real servers and a real HTTP client around the edge host, for the
//! namespace tests and the demo. It holds everything but burst itself, which is started in it as any other process.
//!
//! Everything the testbed makes is a guard: namespaces, processes, mounts and directories go when it is dropped, also
//! while a panic unwinds and on Ctrl-C; what a killed run left is removed at the start of the next ([`cleanup`]).
//!
//! A namespace test:
//!
//! ```no_run
//! use burst_tests::{client, host, process::Process, servers, sniffer::Sniffer};
//! use burst_tests::topology::{Family, PAYMENT, SHOP, TO_EDGE, Topology};
//!
//! # fn main() -> anyhow::Result<()> {
//! let topology = Topology::new()?;
//! let local = servers::LocalSite::start(&topology, servers::Limits::default())?;
//! let cloud = servers::start_cloud(&topology)?;
//! let witness = Sniffer::start(&topology.direct_connect, TO_EDGE)?;
//!
//! let config = topology.dir.write("burst.toml", "version = 1 …")?;
//! let mut command = topology.edge.command(host::burst_binary()?);
//! command.arg("run").arg("-c").arg(&config);
//! let mut burst = Process::spawn("burst", command, &topology.dir)?;
//! burst.wait_log("ready", std::time::Duration::from_secs(5))?;
//!
//! let client = topology.clients(Family::V4)[0];
//! let moved = client::upload(&topology.client, Some(client), SHOP.at(Family::V4))?;
//! assert_eq!(moved.site, Some(servers::Site::Cloud));
//! assert_eq!(cloud.counts(SHOP.name)?.errors, 0);
//! let payment = |address: std::net::SocketAddr| address.ip() == PAYMENT.address.of(Family::V4);
//! assert!(!witness.finish()?.keys().any(|flow| payment(flow.destination)));
//! # Ok(())
//! # }
//! ```

pub mod poll;

pub mod cleanup;
pub mod host;

pub mod dir;
pub mod netns;
pub mod process;

pub mod link;
pub mod topology;
pub mod vpn;

pub mod body;
pub mod client;
pub mod load;
pub mod servers;

pub mod capture;
pub mod foreign;
pub mod packet;

pub mod golden;
pub mod bench;

pub mod model;
pub mod agree;

pub mod sniffer;
pub mod narrow;
pub mod svg;

pub mod daemon;
pub mod far_end;
pub mod trunk;
pub mod demo;
pub mod chaos;
