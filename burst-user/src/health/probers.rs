//! The tasks that probe: one per endpoint and link, each through the link that it vouches for.
//!
//! A probe that takes another way than the endpoint's packets says nothing of them. So the kernel's route to the endpoint by
//! the link's device has to go via the link's next hop. burst makes no routes: where there is none, the path is not probed,
//! and the report says which route would do.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::matrix::{Place, Spec};
use super::outcome::Report;
use super::probe::probe;
use crate::config::model::Health;
use crate::netlink::{Error, LinkState, NetState, Netlink, checks_sources};

/// What a prober found, and where.
pub type Found = (Place, Report);

/// Reports that may wait.
const WAITING: usize = 256;
/// Metrics of the routes that are proposed: behind all that people give by hand, one for each link.
const METRIC: usize = 4096;

/// The tasks. Dropping it ends them.
#[derive(Debug)]
pub struct Probers {
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Probers {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// What a task is about.
struct Path {
    place: Place,
    /// Number of the link in the configuration.
    link: usize,
    to: SocketAddr,
    /// `None`: the routing table picks the way.
    next_hop: Option<IpAddr>,
    check: Health,
}

/// An endpoint to be probed, and the ways to it: numbers of links in the configuration, with their next hops.
pub struct Target<'a> {
    /// What is asked of it.
    pub spec: &'a Spec,
    /// Its address.
    pub address: IpAddr,
    /// In the order of the spec's links.
    pub links: Vec<(usize, Option<IpAddr>)>,
}

/// Starts a task for each path of each target. They end when `shutdown` turns true or its sender is dropped, and when the
/// handle is dropped. Must be called within a tokio runtime, on the thread whose network namespace the devices are in.
///
/// # Errors
/// When the kernel cannot be asked for routes.
pub fn spawn(
    targets: &[Target<'_>],
    net: &watch::Receiver<NetState>,
    shutdown: &watch::Receiver<bool>,
) -> Result<(Probers, mpsc::Receiver<Found>), Error> {
    let (sender, reports) = mpsc::channel(WAITING);
    let mut tasks = Vec::new();
    let all: usize = targets.iter().map(|target| target.links.len()).sum();
    // A connection to the kernel is a task, too: none where nothing is probed.
    let netlink = if all > 0 { Some(Netlink::open()?) } else { None };
    for (endpoint, target) in targets.iter().enumerate() {
        for (path, &(link, next_hop)) in target.links.iter().enumerate() {
            let Some(netlink) = netlink.clone() else { continue };
            let check = target.spec.check.clone();
            let to = SocketAddr::new(target.address, check.probe.port());
            // Spread over the time between two probes, so that they do not all leave at once.
            let first = check.every.mul_f64(tasks.len() as f64 / all as f64);
            let path = Path { place: Place { endpoint, path }, link, to, next_hop, check };
            let (sender, net, mut shutdown) = (sender.clone(), net.clone(), shutdown.clone());
            tasks.push(tokio::spawn(async move {
                tokio::select! {
                    () = path.probe_on(first, &netlink, &net, &sender) => {}
                    // Told to end, or nobody is left to tell.
                    _ = shutdown.wait_for(|end| *end) => {}
                }
            }));
        }
    }
    Ok((Probers { tasks }, reports))
}

impl Path {
    async fn probe_on(
        &self,
        first: Duration,
        netlink: &Netlink,
        net: &watch::Receiver<NetState>,
        sender: &mpsc::Sender<Found>,
    ) {
        sleep(first).await;
        let mut ticks = interval(self.check.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let state = net.borrow().links.get(self.link).cloned();
            let carries = |state: &LinkState| state.up && !state.elsewhere.contains(&self.to.ip());
            let Some(state) = state.filter(carries) else { continue };
            let report = self.once(netlink, &state).await;
            if sender.send((self.place, report)).await.is_err() {
                return;
            }
        }
    }

    async fn once(&self, netlink: &Netlink, link: &LinkState) -> Report {
        let device = match device(link) {
            Ok(device) => device,
            Err(error) => return Report::Unprobed(format!("the device of {} has no name: {error}", link.name)),
        };
        match self.is_filtered(netlink, link, &device).await {
            Ok(false) => {}
            Ok(true) => return Report::Unprobed(self.filter_fix(&device)),
            Err(error) => return Report::Unprobed(error.to_string()),
        }
        // Before, so that nothing is sent astray; and after, when the router has been asked for its MAC address.
        let mut sure = match self.takes_the_link(netlink, link).await {
            Ok(Some(false)) => return Report::Unprobed(self.fix(&device)),
            Ok(sure) => sure == Some(true),
            Err(error) => return Report::Unprobed(error.to_string()),
        };
        let outcome = match probe(self.to, &device, &self.check.probe, self.check.timeout).await {
            Ok(outcome) => outcome,
            Err(error) => {
                return Report::Unprobed(format!("this host could not send to {} by {device}: {error}", self.to));
            }
        };
        if !sure {
            sure = matches!(self.takes_the_link(netlink, link).await, Ok(Some(true)));
        }
        if sure { Report::Probed(outcome) } else { Report::Unprobed(self.fix(&device)) }
    }

    /// Whether what is bound to the link's device goes to the link's next hop; `None`: to a router whose MAC address is not
    /// known yet.
    async fn takes_the_link(&self, netlink: &Netlink, link: &LinkState) -> Result<Option<bool>, Error> {
        let Some(next_hop) = self.next_hop else { return Ok(Some(true)) };
        let by = link.neighbour_ifindex;
        let Some((_, Some(router))) = netlink.route(self.to.ip(), Some(by)).await? else { return Ok(Some(false)) };
        if router == next_hop {
            return Ok(Some(true));
        }
        // The same router under an address of the other family.
        let mac = netlink.neighbour(by, router).await?.and_then(|neighbour| neighbour.mac);
        Ok(mac.map(|mac| Some(mac) == link.next_hop_mac))
    }

    /// Whether the kernel would drop the answer: strict reverse path filtering takes a packet only by the device that its
    /// sender is routed by (`fib_validate_source` in net/ipv4/fib_frontend.c). There is none for IPv6 outside netfilter.
    async fn is_filtered(&self, netlink: &Netlink, link: &LinkState, device: &str) -> Result<bool, Error> {
        if !self.to.is_ipv4() || !checks_sources(device)? {
            return Ok(false);
        }
        Ok(netlink.way(self.to.ip()).await? != Some(link.neighbour_ifindex))
    }

    fn filter_fix(&self, device: &str) -> String {
        let switch = device.replace('.', "/");
        format!(
            "strict reverse path filtering drops what {} answers by {device}; `sysctl -w net.ipv4.conf.{switch}.rp_filter=2` lets it in",
            self.to.ip()
        )
    }

    /// Why it is not probed, and what to do.
    fn fix(&self, device: &str) -> String {
        let (to, metric) = (self.to.ip(), METRIC + self.link);
        let bits = if to.is_ipv4() { 32 } else { 128 };
        let (router, via) = match self.next_hop {
            None => return format!("no route to {to} by {device}"),
            Some(hop) if hop.is_ipv4() == to.is_ipv4() => (hop, hop.to_string()),
            Some(hop) if to.is_ipv4() => (hop, format!("inet6 {hop}")),
            // No IPv6 route goes via an IPv4 address.
            Some(hop) => (hop, "ITS-IPV6-ADDRESS".to_owned()),
        };
        format!(
            "the kernel's route to {to} by {device} is not via {router}; `ip route add {to}/{bits} via {via} dev {device} metric \
             {metric}` would make it so"
        )
    }
}

/// Name of the device that the next hop is a neighbour on: of a VLAN, the VLAN device.
fn device(link: &LinkState) -> std::io::Result<String> {
    if link.neighbour_ifindex == link.ifindex {
        return Ok(link.device.clone());
    }
    let any = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    Ok(rustix::net::netdevice::index_to_name(any, link.neighbour_ifindex)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::Probe;

    #[test]
    fn the_route_that_is_missing_is_named_as_it_would_be_typed() {
        let check = Health {
            probe: Probe::Tcp { port: 80 },
            every: Duration::from_secs(1),
            timeout: Duration::from_millis(500),
            fall: 3,
            rise: 2,
            dead_after: Duration::from_secs(30),
        };
        for (to, hop, expected) in [
            ("10.20.0.10", "10.64.1.1", "`ip route add 10.20.0.10/32 via 10.64.1.1 dev dx1 metric 4097` would"),
            ("10.20.0.10", "fe80::1", "`ip route add 10.20.0.10/32 via inet6 fe80::1 dev dx1 metric 4097` would"),
            ("fd00::10", "fe80::1", "`ip route add fd00::10/128 via fe80::1 dev dx1 metric 4097` would"),
            ("fd00::10", "10.64.1.1", "is not via 10.64.1.1; `ip route add fd00::10/128 via ITS-IPV6-ADDRESS dev dx1"),
        ] {
            let path = Path {
                place: Place { endpoint: 0, path: 0 },
                link: 1,
                to: SocketAddr::new(to.parse().unwrap(), 80),
                next_hop: hop.parse().ok(),
                check: check.clone(),
            };
            assert!(path.fix("dx1").contains(expected), "{}", path.fix("dx1"));
        }
    }
}
