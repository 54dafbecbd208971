//! The task that follows the kernel's events.
//!
//! Events come on a connection of their own, so that what overruns it can never swallow an answer. Everything the task
//! asks the kernel for runs beside it: while the kernel's configuration lock is held by somebody, events still arrive.

#![expect(clippy::disallowed_methods, reason = "the rounds are real time: what is asked for is the kernel")]

use std::collections::HashSet;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, Stream, StreamExt};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::AsyncSocket;
use tokio::sync::watch::{Receiver, Sender};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};

use crate::config::model::Link;

use super::client::{Error, Netlink};
use super::clients::Gateway;
use super::device::Device;
use super::gateway::Lookup;
use super::neighbour::{Neighbour, Owner, Resolution};
use super::offload;
use super::routed::{self, Asked, Targets};
use super::routes::{self, Ways};
use super::state::{NetState, Table, Why};

/// How often next hops are looked after when nothing happens; also the shortest time between two requests for one.
const ROUND: Duration = Duration::from_secs(1);
/// How often everything is read anew, in case an event was lost without the kernel saying so.
const RESYNC: Duration = Duration::from_secs(30);
/// How long the start waits for the routing tables to be read: what they say is of use, not needed.
const ROUTES: Duration = Duration::from_secs(1);
/// Events that are handled as one change at most: a flapping device is published once, a storm is not waited out.
const BATCH: usize = 64;
/// Receive buffer for events in bytes; the kernel allows no more than net.core.rmem_max.
const EVENTS: usize = 1 << 20;

type Event = (NetlinkMessage<RouteNetlinkMessage>, rtnetlink::sys::SocketAddr);

/// The running task. Dropping it stops the task; the neighbours stay as they are (see
/// [`Netlink::release_neighbours`]).
#[derive(Debug)]
pub struct Watch {
    state: Receiver<NetState>,
    task: JoinHandle<Error>,
}

impl Watch {
    /// The state, present and to come. The first value is already whole. It is closed when the task ended.
    #[must_use]
    pub fn state(&self) -> Receiver<NetState> {
        self.state.clone()
    }

    /// Waits for the end of the task, which does not come unless the kernel cannot be followed any more.
    pub async fn ended(&mut self) -> Option<Error> {
        (&mut self.task).await.ok()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts to follow the devices of links and clients, to keep the links' next hops resolved, and to ask the routing table
/// about the targets of links without one, in the network namespace of the calling thread.
///
/// # Errors
/// The kernel's, when it cannot be asked for the present state. A device that does not exist is no error: it may
/// appear, and its state says so until then.
pub async fn watch(links: &[Link], clients: &[String], targets: &Targets) -> Result<Watch, Error> {
    let events = subscribe()?;
    let devices = Arc::new(offload::open().map_err(Error::Socket)?);
    let (ways, mut followed) = tokio::sync::watch::channel([const { Err(Lookup::Reading) }; 2]);
    let mut keeper = Keeper {
        client: Netlink::open()?,
        devices,
        table: Table::new(links, targets),
        links: links.to_vec(),
        targets: targets.clone(),
        routed: Asked::Known,
        // A next hop for each link, and a router for each family.
        kept: (0..links.len() + 2).map(|_| Kept::default()).collect(),
        clients: clients.to_vec(),
        routes: JoinSet::new(),
        ways: followed.clone(),
        known: [const { Err(Lookup::Reading) }; 2],
        former: [None; 2],
        trunks: HashSet::new(),
        answers: JoinSet::new(),
        events: 0,
        // Replaced by a whole state before anybody sees it.
        state: Sender::new(NetState::default()),
    };
    keeper.routes.spawn(routes::follow(ways));
    // Both families are read, or cannot be.
    let read = |ways: &Ways| ways.iter().all(|way| *way != Err(Lookup::Reading));
    if tokio::time::timeout(ROUTES, followed.wait_for(read)).await.is_err() {
        tracing::info!("the routing tables are still changing");
    }
    let picture = picture(keeper.client.clone(), Arc::clone(&keeper.devices), links.to_vec(), clients.to_vec()).await?;
    keeper.adopt(picture);
    keeper.table.routed.put(routed::ways(&keeper.client, targets).await?);
    keeper.routed();
    keeper.publish();
    let state = keeper.state.subscribe();
    let task = tokio::spawn(async move { keeper.run(events).await });
    Ok(Watch { state, task })
}

/// Opens a connection that hears of every change of a device or neighbour.
fn subscribe() -> Result<impl Stream<Item = Event> + Unpin + Send + use<>, Error> {
    let groups = [MulticastGroup::Link, MulticastGroup::Neigh];
    let (mut connection, _, events) = rtnetlink::new_multicast_connection(&groups).map_err(Error::Socket)?;
    if let Err(error) = connection.socket_mut().socket_mut().set_rx_buf_sz(EVENTS as libc::c_int) {
        tracing::debug!(%error, "the netlink receive buffer keeps its size");
    }
    tokio::spawn(connection);
    Ok(events)
}

/// Everything but routes, read at one time.
struct Picture {
    devices: Vec<Device>,
    neighbours: Vec<(u32, IpAddr, Option<Neighbour>)>,
    strips_tags: Vec<(u32, bool)>,
}

async fn picture(
    client: Netlink,
    asked: Arc<OwnedFd>,
    links: Vec<Link>,
    clients: Vec<String>,
) -> Result<Picture, Error> {
    let devices = client.devices().await?;
    let mut table = Table::new(&links, &Targets::new());
    table.set_devices(devices.clone());
    let mut neighbours = Vec::with_capacity(links.len());
    for link in &links {
        let ifindex = table.link(link).neighbour_ifindex;
        if let Some(next_hop) = link.next_hop.filter(|_| ifindex != 0) {
            neighbours.push((ifindex, next_hop, client.neighbour(ifindex, next_hop).await?));
        }
    }
    let mut strips_tags = Vec::new();
    for (ifindex, name) in table.trunks(&links, &clients) {
        strips_tags.extend(strips(Arc::clone(&asked), name).await.map(|strips| (ifindex, strips)));
    }
    Ok(Picture { devices, neighbours, strips_tags })
}

/// Whether a device takes VLAN tags off; `None` when it does not say. Beside the task: the kernel answers under its lock.
async fn strips(asked: Arc<OwnedFd>, device: String) -> Option<bool> {
    let name = device.clone();
    match tokio::task::spawn_blocking(move || offload::strips_tags(&*asked, &name)).await {
        Ok(Ok(strips)) => Some(strips),
        Ok(Err(error)) => {
            tracing::debug!(%error, device, "cannot be asked for its offloads");
            None
        }
        Err(_) => None,
    }
}

/// A neighbour that is kept: the next hop of a link, or the router of a family.
#[derive(Default)]
struct Kept {
    /// When the kernel was last asked to resolve it.
    asked: Option<Instant>,
    /// Whether an answer is outstanding.
    asking: bool,
    /// Events seen about its next hop: an answer from before the last event is out of date.
    events: u64,
}

/// What was asked beside the task.
enum Answer {
    Neighbour { of: usize, at: (u32, IpAddr), events: u64, entry: Result<Option<Neighbour>, Error> },
    Picture { events: u64, picture: Result<Picture, Error> },
    Tags { ifindex: u32, strips: Option<bool> },
    Released { address: IpAddr, result: Result<(), Error> },
    Routed(Result<Vec<(IpAddr, u32)>, Error>),
}

struct Keeper {
    client: Netlink,
    /// To ask devices by, in the network namespace of who started the task.
    devices: Arc<OwnedFd>,
    table: Table,
    links: Vec<Link>,
    targets: Targets,
    /// Whether it is known by which devices the targets are sent.
    routed: Asked,
    kept: Vec<Kept>,
    clients: Vec<String>,
    /// The task that follows routes.
    routes: JoinSet<()>,
    ways: Receiver<Ways>,
    /// The ways as they were last looked at.
    known: Ways,
    /// The routers that were kept before the routing tables began to change.
    former: [Option<(u32, IpAddr)>; 2],
    /// Devices that are to be asked again what they do with VLAN tags.
    trunks: HashSet<u32>,
    answers: JoinSet<Answer>,
    /// Events seen that changed the table: a picture from before the last of them is out of date.
    events: u64,
    state: Sender<NetState>,
}

impl Keeper {
    async fn run(mut self, events: impl Stream<Item = Event> + Unpin + Send) -> Error {
        let mut events: Box<dyn Stream<Item = Event> + Unpin + Send> = Box::new(events);
        let mut round = tokio::time::interval(ROUND);
        round.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut synced, mut syncing, mut stale) = (Instant::now(), false, false);
        loop {
            self.look_after();
            tokio::select! {
                event = events.next() => match event {
                    Some((message, _)) => {
                        stale |= self.event(message);
                        for _ in 1..BATCH {
                            let Some(Some((message, _))) = events.next().now_or_never() else { break };
                            stale |= self.event(message);
                        }
                    }
                    None => match subscribe() {
                        Ok(anew) => {
                            tracing::warn!("the kernel's events stopped; listening anew");
                            (events, stale) = (Box::new(anew), true);
                            tokio::time::sleep(ROUND).await;
                        }
                        Err(error) => return error,
                    },
                },
                Ok(()) = self.ways.changed() => self.routed(),
                Some(answer) = self.answers.join_next() => match answer {
                    Ok(Answer::Neighbour { of, at, events, entry }) => self.answered(of, at, events, entry),
                    Ok(Answer::Tags { ifindex, strips: Some(strips) }) if self.table.device(ifindex).is_some() => {
                        self.table.put_strips_tags(ifindex, strips);
                    }
                    Ok(Answer::Tags { .. } | Answer::Released { result: Ok(()), .. }) => {}
                    Ok(Answer::Routed(ways)) => {
                        self.routed.answer();
                        match ways {
                            Ok(ways) => self.table.routed.put(ways),
                            Err(error) => tracing::warn!(%error, "the ways to endpoints are not known; trying again"),
                        }
                    }
                    Ok(Answer::Released { address, result: Err(error) }) => {
                        tracing::warn!(%error, %address, "the former router stays resolved");
                    }
                    Ok(Answer::Picture { events, picture }) => {
                        syncing = false;
                        match picture {
                            // What happened while it was taken may be newer than it: take another, soon.
                            Ok(_) if events != self.events => stale = true,
                            Ok(picture) => {
                                synced = Instant::now();
                                self.adopt(picture);
                            }
                            Err(error) => {
                                stale = true;
                                tracing::warn!(%error, "devices and neighbours cannot be read anew; trying again");
                            }
                        }
                    }
                    Err(error) => tracing::error!(%error, "a request to the kernel broke off"),
                },
                _ = round.tick() => {
                    // News of tables that only rules lead to are not heard (`raw::concerns`).
                    self.routed.change();
                    if !syncing && (stale || synced.elapsed() >= RESYNC) {
                        (stale, syncing) = (false, true);
                        self.take_picture();
                    }
                }
            }
            self.publish();
        }
    }

    /// Takes note of an event; true when events were lost.
    fn event(&mut self, message: NetlinkMessage<RouteNetlinkMessage>) -> bool {
        match message.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message)) => {
                // Of the IPv4 routes that go with a device the kernel says nothing.
                self.routed.change();
                let known = self.table.device(message.header.index);
                if let Some(device) = Device::parse(&message, known) {
                    self.events += 1;
                    self.trunks.insert(device.ifindex);
                    self.table.put_device(device);
                }
            }
            // A bridge that lets go of a port says so in the same words, with its own family.
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(message))
                if message.header.interface_family == AddressFamily::Unspec =>
            {
                self.events += 1;
                self.routed.change();
                self.table.remove_device(message.header.index);
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(message)) => {
                if let Some(entry) = Neighbour::parse(&message) {
                    self.heard(entry.ifindex, entry.address, Some(entry));
                }
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelNeighbour(message)) => {
                if let Some(entry) = Neighbour::parse(&message) {
                    self.heard(entry.ifindex, entry.address, None);
                }
            }
            NetlinkPayload::Overrun(_) => {
                self.events += 1;
                tracing::warn!("the kernel's events came faster than they were read; reading everything anew");
                return true;
            }
            _ => {}
        }
        false
    }

    fn heard(&mut self, ifindex: u32, address: IpAddr, entry: Option<Neighbour>) {
        for of in 0..self.kept.len() {
            if self.wanted(of).is_some_and(|(_, wanted)| wanted == address) {
                self.kept[of].events += 1;
                self.events += 1;
            }
        }
        self.table.put_neighbour(ifindex, address, entry);
    }

    /// The neighbour that is kept in a place: device and address.
    fn wanted(&self, of: usize) -> Option<(u32, IpAddr)> {
        match self.links.get(of) {
            Some(link) => {
                let ready = [Why::Up, Why::Resolving, Why::NoAnswer, Why::TagsStripped];
                let state = self.table.link(link);
                Some((state.neighbour_ifindex, link.next_hop.filter(|_| ready.contains(&state.why))?))
            }
            None => {
                let way = self.known[of - self.links.len()].as_ref().ok()?;
                let ours = !matches!(
                    self.table.gateway(&self.clients, &Ok(way.clone())),
                    Gateway::Lookup(Lookup::Elsewhere | Lookup::Down)
                );
                ours.then_some((way.oif, way.gateway))
            }
        }
    }

    /// Takes note of what routes come to; a router that is none any more is let go of.
    fn routed(&mut self) {
        self.routed.change();
        let ways = self.ways.borrow_and_update().clone();
        for (family, way) in ways.into_iter().enumerate() {
            let of = self.links.len() + family;
            let former = self.wanted(of);
            if way == Err(Lookup::Reading) {
                // What it was is kept until what it is has been read.
                self.known[family] = way;
                self.former[family] = former.or(self.former[family]);
                continue;
            }
            if let Ok(way) = &way {
                self.table.look_at(way.gateway);
            }
            self.known[family] = way;
            let former = former.or(self.former[family].take());
            let kept: Vec<_> = (0..self.kept.len()).filter_map(|of| self.wanted(of)).collect();
            if let Some((ifindex, address)) = former.filter(|former| !kept.contains(former)) {
                self.kept[of] = Kept::default();
                let client = self.client.clone();
                self.answers.spawn(async move {
                    Answer::Released { address, result: client.release_neighbour(ifindex, address).await }
                });
            }
        }
    }

    /// Asks the kernel to resolve every neighbour that needs it, and devices what they do with tags.
    fn look_after(&mut self) {
        let now = Instant::now();
        for of in 0..self.kept.len() {
            let Some((ifindex, address)) = self.wanted(of) else { continue };
            let wants_care = wants_care(self.table.neighbour(ifindex, address));
            let kept = &mut self.kept[of];
            let due = kept.asked.is_none_or(|asked| now.duration_since(asked) >= ROUND);
            if !due || kept.asking || !wants_care {
                continue;
            }
            (kept.asked, kept.asking) = (Some(now), true);
            let (client, events) = (self.client.clone(), kept.events);
            self.answers.spawn(async move {
                let entry = client.keep_neighbour(ifindex, address).await;
                Answer::Neighbour { of, at: (ifindex, address), events, entry }
            });
        }
        if self.routed == Asked::Due && !self.targets.is_empty() {
            self.routed = Asked::Asking;
            let (client, targets) = (self.client.clone(), self.targets.clone());
            self.answers.spawn(async move { Answer::Routed(routed::ways(&client, &targets).await) });
        }
        if self.trunks.is_empty() {
            return;
        }
        for (ifindex, name) in self.table.trunks(&self.links, &self.clients) {
            if self.trunks.contains(&ifindex) {
                let asked = Arc::clone(&self.devices);
                self.answers.spawn(async move { Answer::Tags { ifindex, strips: strips(asked, name).await } });
            }
        }
        self.trunks.clear();
    }

    fn answered(&mut self, of: usize, at: (u32, IpAddr), events: u64, entry: Result<Option<Neighbour>, Error>) {
        let (ifindex, address) = at;
        let kept = &mut self.kept[of];
        kept.asking = false;
        match entry {
            // An event that came meanwhile is newer than the answer; the next round asks again if need be.
            Ok(entry) if kept.events == events => {
                if self.table.device(ifindex).is_some() {
                    self.table.put_neighbour(ifindex, address, entry);
                }
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, %address, "a next hop cannot be resolved; trying again"),
        }
    }

    fn take_picture(&mut self) {
        let events = self.events;
        let (client, asked) = (self.client.clone(), Arc::clone(&self.devices));
        let (links, clients) = (self.links.clone(), self.clients.clone());
        self.answers
            .spawn(async move { Answer::Picture { events, picture: picture(client, asked, links, clients).await } });
    }

    fn adopt(&mut self, picture: Picture) {
        self.table.set_devices(picture.devices);
        for (ifindex, address, entry) in picture.neighbours {
            self.table.put_neighbour(ifindex, address, entry);
        }
        for (ifindex, strips) in picture.strips_tags {
            self.table.put_strips_tags(ifindex, strips);
        }
    }

    /// Tells everybody, if something changed.
    fn publish(&self) {
        let state = NetState {
            links: self.links.iter().map(|link| self.table.link(link)).collect(),
            clients: self.clients.iter().map(|name| self.table.client(name)).collect(),
            vlans: self.table.client_vlans(&self.clients),
            gateways: [0, 1].map(|family| self.table.gateway(&self.clients, &self.known[family])),
        };
        self.state.send_if_modified(|known| {
            let changed = *known != state;
            if changed {
                *known = state;
            }
            changed
        });
    }
}

/// Whether the kernel has to be asked: not while it takes care by itself, nor where somebody else does. A next hop that does
/// not answer is asked for again, so that its return is noticed within a round.
fn wants_care(known: Option<&Neighbour>) -> bool {
    match known {
        None => true,
        Some(known) if known.owner == Owner::Other => false,
        Some(known) => !known.managed || !known.is_ours() || known.resolution != Resolution::Resolved,
    }
}
