//! The task that follows the kernel's events.
//!
//! Events come on a connection of their own, so that what overruns it can never swallow an answer. Everything the task
//! asks the kernel for runs beside it: while the kernel's configuration lock is held by somebody, events still arrive.

#![expect(clippy::disallowed_methods, reason = "the rounds are real time: what is asked for is the kernel")]

use std::net::IpAddr;
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
use super::device::Device;
use super::neighbour::{Neighbour, Owner, Resolution};
use super::state::{NetState, Table};

/// How often next hops are looked after when nothing happens; also the shortest time between two requests for one.
const ROUND: Duration = Duration::from_secs(1);
/// How often everything is read anew, in case an event was lost without the kernel saying so.
const RESYNC: Duration = Duration::from_secs(30);
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

/// Starts to follow the devices of links and clients, and to keep the links' next hops resolved, in the network
/// namespace of the calling thread.
///
/// # Errors
/// The kernel's, when it cannot be asked for the present state. A device that does not exist is no error: it may
/// appear, and its state says so until then.
pub async fn watch(links: &[Link], clients: &[String]) -> Result<Watch, Error> {
    let events = subscribe()?;
    let mut keeper = Keeper {
        client: Netlink::open()?,
        table: Table::new(links),
        links: links.iter().map(|link| Kept { link: link.clone(), asked: None, asking: false, events: 0 }).collect(),
        clients: clients.to_vec(),
        answers: JoinSet::new(),
        events: 0,
        // Replaced by a whole state before anybody sees it.
        state: Sender::new(NetState::default()),
    };
    let picture = picture(keeper.client.clone(), links.to_vec()).await?;
    keeper.adopt(picture);
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

/// Everything, read at one time.
struct Picture {
    devices: Vec<Device>,
    neighbours: Vec<(u32, IpAddr, Option<Neighbour>)>,
}

async fn picture(client: Netlink, links: Vec<Link>) -> Result<Picture, Error> {
    let devices = client.devices().await?;
    let mut table = Table::new(&links);
    table.set_devices(devices.clone());
    let mut neighbours = Vec::with_capacity(links.len());
    for link in &links {
        let ifindex = table.link(link).neighbour_ifindex;
        if let Some(next_hop) = link.next_hop.filter(|_| ifindex != 0) {
            neighbours.push((ifindex, next_hop, client.neighbour(ifindex, next_hop).await?));
        }
    }
    Ok(Picture { devices, neighbours })
}

/// A link whose next hop is kept.
struct Kept {
    link: Link,
    /// When the kernel was last asked to resolve it.
    asked: Option<Instant>,
    /// Whether an answer is outstanding.
    asking: bool,
    /// Events seen about its next hop: an answer from before the last event is out of date.
    events: u64,
}

/// What was asked beside the task.
enum Answer {
    Neighbour { of: usize, ifindex: u32, events: u64, entry: Result<Option<Neighbour>, Error> },
    Picture { events: u64, picture: Result<Picture, Error> },
}

struct Keeper {
    client: Netlink,
    table: Table,
    links: Vec<Kept>,
    clients: Vec<String>,
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
                Some(answer) = self.answers.join_next() => match answer {
                    Ok(Answer::Neighbour { of, ifindex, events, entry }) => self.answered(of, ifindex, events, entry),
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
                let known = self.table.device(message.header.index);
                if let Some(device) = Device::parse(&message, known) {
                    self.events += 1;
                    self.table.put_device(device);
                }
            }
            // A bridge that lets go of a port says so in the same words, with its own family.
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(message))
                if message.header.interface_family == AddressFamily::Unspec =>
            {
                self.events += 1;
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
        for kept in self.links.iter_mut().filter(|kept| kept.link.next_hop == Some(address)) {
            kept.events += 1;
            self.events += 1;
        }
        self.table.put_neighbour(ifindex, address, entry);
    }

    /// Asks the kernel to resolve every next hop that needs it.
    fn look_after(&mut self) {
        let now = Instant::now();
        for (of, kept) in self.links.iter_mut().enumerate() {
            let Some(address) = kept.link.next_hop else { continue };
            let state = self.table.link(&kept.link);
            let due = kept.asked.is_none_or(|asked| now.duration_since(asked) >= ROUND);
            let ready = matches!(state.why, super::Why::Up | super::Why::Resolving | super::Why::NoAnswer);
            let known = self.table.neighbour(state.neighbour_ifindex, address);
            if !ready || !due || kept.asking || !wants_care(known) {
                continue;
            }
            (kept.asked, kept.asking) = (Some(now), true);
            let (client, ifindex) = (self.client.clone(), state.neighbour_ifindex);
            let events = kept.events;
            self.answers.spawn(async move {
                let entry = client.keep_neighbour(ifindex, address).await;
                Answer::Neighbour { of, ifindex, events, entry }
            });
        }
    }

    fn answered(&mut self, of: usize, ifindex: u32, events: u64, entry: Result<Option<Neighbour>, Error>) {
        let kept = &mut self.links[of];
        kept.asking = false;
        match entry {
            // An event that came meanwhile is newer than the answer; the next round asks again if need be.
            Ok(entry) if kept.events == events => {
                if let Some(address) = kept.link.next_hop.filter(|_| self.table.device(ifindex).is_some()) {
                    self.table.put_neighbour(ifindex, address, entry);
                }
            }
            Ok(_) => {}
            Err(error) => {
                let link = &kept.link.name;
                tracing::warn!(%error, %link, "the next hop cannot be resolved; trying again");
            }
        }
    }

    fn take_picture(&mut self) {
        let events = self.events;
        let (client, links) = (self.client.clone(), self.links.iter().map(|kept| kept.link.clone()).collect());
        self.answers.spawn(async move { Answer::Picture { events, picture: picture(client, links).await } });
    }

    fn adopt(&mut self, picture: Picture) {
        self.table.set_devices(picture.devices);
        for (ifindex, address, entry) in picture.neighbours {
            self.table.put_neighbour(ifindex, address, entry);
        }
    }

    /// Tells everybody, if something changed.
    fn publish(&self) {
        let state = NetState {
            links: self.links.iter().map(|kept| self.table.link(&kept.link)).collect(),
            clients: self.clients.iter().map(|name| self.table.client(name)).collect(),
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
