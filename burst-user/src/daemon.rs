//! The daemon: opens everything, and runs the loop that owns the maps.
//!
//! `observe → decide → publish`, every tick; what the kernel says of links is published the moment it is heard. One task
//! owns maps, slots and controller; all others only read, serve or hand over values.

mod admission;
mod adopt;
mod bypass;
mod error;
mod events;
mod fits;
mod health;
mod links;
mod observe;
mod plan;
mod publish;
mod reload;
mod returns;
mod start;
mod status;
mod tell;
mod trace;
mod warnings;
mod weights;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use crate::api::types::{self, OverrideRequest, OverrideResponse, Status};
use crate::api::{self, ApiError, Command, Peer};
use crate::config::Loaded;
use crate::config::model::{Config, OnExit};
use crate::decide::{Controller, Decision, Override as Forced};
use crate::netlink::{NetState, Watch};
use crate::observe::Sources;

pub(crate) use bypass::since_boot_s;
pub use error::Error;
use events::Reader;
use health::Health;
pub(crate) use links::{gateway as gateway_row, reach as endpoint_row, row as link_row};
use observe::Meter;
use publish::Publisher;
use reload::{Stopped, Version, Versions};
pub(crate) use start::devices;
use tell::Told;
pub(crate) use weights::of_family;

/// Commands that may wait; more callers wait in the API.
const COMMANDS: usize = 16;

/// A publication of more than this part of a class's slots is worth a line.
const MANY: f64 = 0.05;

/// An operator's order that is in force.
#[derive(Clone, Debug)]
struct Order {
    offsite: f64,
    reason: String,
    uid: u32,
    until: Duration,
}

/// Runs the daemon until SIGTERM or SIGINT. Must be called within a tokio runtime on the thread whose network namespace
/// the devices are in.
///
/// # Errors
/// When something it cannot do without is missing at the start, or the kernel cannot be followed any more. Then traffic
/// goes on as it was, under what is pinned.
pub async fn run(file: &Path, loaded: Loaded) -> Result<(), Error> {
    let version = Version::from(loaded);
    let config = &version.config;
    // Before all else: a reload that is asked for while it starts must not end it. It is done when the start is.
    let hangup = signal(SignalKind::hangup()).map_err(Error::Signal)?;
    // The socket first: of two daemons, the second must not touch a map.
    let socket = api::Socket::bind(&config.edge.socket)?;
    let watch = start::follow_kernel(config).await?;
    let publisher = start::open(config, &watch.state().borrow().clone())?;
    let (stop, stopped) = watch::channel(false);
    let sources = crate::observe::spawn(&config.classes, &stopped);
    let (commands, receiver) = mpsc::channel(COMMANDS);
    let events = events::read(publisher.events()?, publisher.link_names(), watch.state(), events::Seen::default());
    let health = Health::start(config, publisher.unproven(), &watch.state(), &stopped)?;
    let versions = Versions::new(file, version.mark.clone());
    let mut core = Core::new(Arc::clone(config), publisher, (sources, health, events), (versions, stopped.clone()));
    let (status, statuses) = watch::channel(Arc::new(core.tick(&watch.state().borrow())));
    let mut ended = stopped.clone();
    let server = tokio::spawn(api::serve(socket, statuses, commands, async move {
        drop(ended.wait_for(|stop| *stop).await);
    }));
    let result = core.serve(watch, (receiver, hangup), &status).await;
    // Shutdown is a parameter of every task; the receiver is gone only when they all are.
    stop.send_replace(true);
    if let Err(error) = server.await {
        tracing::error!(%error, "the API ended badly");
    }
    core.tell_what_stays();
    let Core { publisher, config, .. } = core;
    publisher.leave();
    match config.edge.on_exit {
        _ if result.is_err() => {}
        OnExit::Leave => tracing::info!("leaving: traffic goes on under what is pinned"),
        OnExit::Detach => {
            drop(publisher);
            let (devices, neighbours) = detach(&config.edge.pin_dir).await?;
            tracing::info!(?devices, "detached: flows that were in the cloud end");
            neighbours?;
        }
    }
    result
}

/// Detaches burst from every device, removes its pins and gives its neighbours back to the kernel; nothing else. Returns
/// the devices, and whether the neighbours were given back: when they were not, burst is detached all the same.
///
/// # Errors
/// When programs, links, maps or pins could not be removed.
pub async fn detach(pin_dir: &std::path::Path) -> Result<(Vec<String>, Result<(), Error>), Error> {
    let devices = crate::kernel::detach(pin_dir)?;
    let release = async { Ok(crate::netlink::Netlink::open()?.release_neighbours().await.map(drop)?) };
    Ok((devices, release.await))
}

/// The clock: the only one that decisions and publications are dated by.
#[expect(clippy::disallowed_methods, reason = "the daemon's loop hands time to everything else")]
fn clock() -> Instant {
    Instant::now()
}

/// The program's time: `CLOCK_MONOTONIC`, which is what `bpf_ktime_get_coarse_ns` reads. Only the lease is dated by it.
fn program_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}

/// What the loop owns.
struct Core {
    config: Arc<Config>,
    publisher: Publisher,
    sources: Sources,
    health: Health,
    controller: Controller,
    meter: Meter,
    orders: HashMap<usize, Order>,
    decision: Decision,
    /// What the kernel said when it was told last.
    net: Option<NetState>,
    events: Reader,
    /// Per class of the configuration: what was told of it.
    told: Vec<Told>,
    /// Whether the bypass was on when it was looked at last.
    bypass: bool,
    versions: Versions,
    /// What tasks are told to stop by.
    stopped: Stopped,
    started: Instant,
    /// When the last round began.
    ticked: Instant,
}

impl Core {
    fn new(
        config: Arc<Config>,
        publisher: Publisher,
        (sources, health, events): (Sources, Health, Reader),
        (versions, stopped): (Versions, Stopped),
    ) -> Self {
        let mut controller = Controller::new(&config);
        let mut told = vec![Told::new(1.0); config.classes.len()];
        for (class, local) in publisher.local_shares() {
            controller.resume(class, local, None);
            told[class] = Told::new(local);
        }
        Self {
            config,
            publisher,
            sources,
            health,
            controller,
            meter: Meter::default(),
            orders: HashMap::new(),
            decision: Decision::default(),
            net: None,
            events,
            told,
            bypass: false,
            versions,
            stopped,
            started: clock(),
            ticked: clock(),
        }
    }

    async fn serve(
        &mut self,
        mut watch: Watch,
        (mut commands, mut hup): (mpsc::Receiver<Command>, Signal),
        status: &watch::Sender<Arc<Status>>,
    ) -> Result<(), Error> {
        let mut net = watch.state();
        let mut reports = self.health.reports();
        let mut ticks = self.ticks();
        let mut term = signal(SignalKind::terminate()).map_err(Error::Signal)?;
        let mut int = signal(SignalKind::interrupt()).map_err(Error::Signal)?;
        start::ready();
        loop {
            // In this order: what breaks flows first, what changes shares next.
            tokio::select! {
                biased;
                _ = term.recv() => return Ok(()),
                _ = int.recv() => return Ok(()),
                changed = net.changed() => {
                    if changed.is_err() {
                        return Err(match watch.ended().await {
                            Some(error) => Error::Netlink(error),
                            None => Error::NetlinkEnded,
                        });
                    }
                    let state = net.borrow_and_update().clone();
                    status.send_replace(Arc::new(self.between(&state, &mut ticks)));
                }
                _ = hup.recv() => self.reload_by_signal(),
                prepared = self.versions.prepared() => {
                    if let Some(new) = self.take_over(prepared, &watch) {
                        (net, watch) = (new.state(), new);
                        ticks = self.ticks();
                        reports = self.health.reports();
                    }
                    let state = net.borrow_and_update().clone();
                    status.send_replace(Arc::new(self.tick(&state)));
                }
                Some(found) = reports.recv() => {
                    if self.health.report(clock() - self.started, found) {
                        let state = net.borrow().clone();
                        status.send_replace(Arc::new(self.between(&state, &mut ticks)));
                    }
                }
                Some(command) = commands.recv() => {
                    self.obey(command);
                    let state = net.borrow().clone();
                    status.send_replace(Arc::new(self.between(&state, &mut ticks)));
                }
                _ = ticks.tick() => {
                    let state = net.borrow().clone();
                    status.send_replace(Arc::new(self.tick(&state)));
                }
            }
        }
    }

    fn ticks(&self) -> Interval {
        let mut ticks = interval(self.config.edge.tick);
        // After a late tick a whole period again: a rate over less is noise.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    }

    /// What happens between two ticks. Links are followed at once; a decision is made early only when half a tick has
    /// passed, because a rate over less is noise, and whoever may call must not make the daemon busy.
    fn between(&mut self, net: &NetState, ticks: &mut Interval) -> Status {
        let at = clock();
        if at - self.ticked >= self.config.edge.tick / 2 {
            ticks.reset();
            return self.tick(net);
        }
        let net = &start::with_forwarding(&self.config, net);
        self.follow(at - self.started, net);
        status::status(self, net, at)
    }

    /// Follows the kernel and the probes, and tells what moved no row.
    fn follow(&mut self, now: Duration, net: &NetState) {
        self.health.follow(now, net);
        self.bury(now);
        let links: Vec<_> = self.publisher.link_ids().collect();
        self.publisher.shut(health::by_id(self.health.shut(), &links));
        self.publisher.follow(now, net);
        if self.net.as_ref() != Some(net) {
            tell::devices(self.net.as_ref(), net);
            self.net = Some(net.clone());
        }
    }

    /// Gives away the flows of who died, by the last decision there was: the next is made when rates are known.
    fn bury(&mut self, now: Duration) {
        // Where none was made yet, the dead wait for it.
        if self.decision.classes.is_empty() {
            return;
        }
        let deaths = self.health.deaths();
        if deaths.is_empty() {
            return;
        }
        let decision = self.health.without(&self.decision);
        for endpoint in deaths {
            if let Err(error) = self.publisher.bury(now, endpoint, &decision) {
                tracing::error!(%error, "an endpoint that died keeps its id, and its flows stay with it");
            }
        }
    }

    /// One round: follow the kernel, observe, decide, publish; and what there is to see after it.
    fn tick(&mut self, net: &NetState) -> Status {
        let at = clock();
        self.ticked = at;
        let now = at - self.started;
        let net = &start::with_forwarding(&self.config, net);
        self.follow(now, net);
        self.orders.retain(|&class, order| {
            let stays = order.until > now;
            if !stays {
                let (class, offsite) = (&self.config.classes[class].name, tell::percent(order.offsite));
                tracing::warn!(class, offsite, reason = order.reason, "override is over: burst decides again");
            }
            stays
        });
        self.meter.read(now, &self.publisher);
        let forced =
            |class: usize| self.orders.get(&class).map(|order| Forced { offsite: order.offsite, until: order.until });
        let observation = observe::observation(
            &self.config,
            &self.meter,
            &self.publisher,
            (&self.sources, &self.health),
            (at, net),
            &forced,
        );
        let decision = self.controller.step(now, &observation);
        // The first round knows neither demand nor load.
        let knows = self.meter.before().is_some();
        for (index, (class, new)) in self.config.classes.iter().zip(&decision.classes).enumerate() {
            let before = self.decision.classes.get(index).map_or(new.local, |old| old.local);
            if (before - new.local).abs() > 1e-9 {
                tracing::debug!(class = class.name, from = %tell::percent(before), to = %tell::percent(new.local), "step");
            }
            if knows {
                tell::news(&class.name, &self.told[index].news(now, before, new), new);
            }
        }
        self.decision = decision;
        // What a former daemon left is better than a decision without demand.
        let words = if knows { self.publisher.publish(now, &self.decision) } else { 0 };
        if words as f64 > MANY * self.least_slots() {
            tracing::info!(words, took = ?(clock() - at), "published");
        } else if words > 0 {
            tracing::debug!(words, took = ?(clock() - at), "published");
        }
        self.publisher.maintain(now);
        self.hear_of_bypass();
        self.unconfirmed(now);
        // Last of all: a round that did not come so far renews nothing.
        self.publisher.renew(program_time());
        status::status(self, net, at)
    }

    /// Slots of the class that has the fewest, both families together.
    fn least_slots(&self) -> f64 {
        let slots = self.config.classes.iter().filter_map(|class| class.burst.as_ref()).map(|burst| burst.slots * 2);
        slots.min().map_or(0.0, f64::from)
    }

    /// Tells, at the end, what goes on without the daemon, and what ends with it.
    fn tell_what_stays(&self) {
        for (index, local) in self.publisher.local_shares() {
            let (class, offsite) = (&self.config.classes[index].name, tell::percent(1.0 - local));
            tracing::info!(class, offsite, "share that is in force at the end");
        }
        for (index, order) in &self.orders {
            let (class, offsite) = (&self.config.classes[*index].name, tell::percent(order.offsite));
            tracing::warn!(class, offsite, reason = order.reason, "override ends with the daemon");
        }
    }

    fn obey(&mut self, command: Command) {
        let now = clock() - self.started;
        // A caller that hung up still gave its order; it is in force and logged.
        match command {
            Command::Override { class, request, peer, reply } => {
                drop(reply.send(self.order(now, &class, &request, peer)));
            }
            Command::ClearOverride { class, peer, reply } => drop(reply.send(self.withdraw(now, &class, peer))),
            Command::Plan { request, reply } => drop(reply.send(self.plan(request))),
            Command::Reload { request, peer, reply } => self.reload(request, peer, reply),
            Command::Confirm { peer, reply } => drop(reply.send(self.confirm(now, peer))),
            Command::Bypass { request, peer, reply } => drop(reply.send(self.bypass(request, peer))),
        }
    }

    fn order(
        &mut self,
        now: Duration,
        class: &str,
        request: &OverrideRequest,
        peer: Peer,
    ) -> Result<OverrideResponse, ApiError> {
        let index = self.find(class)?;
        let previous = self.orders.get(&index).map(|order| order.view(now));
        let OverrideRequest { offsite, for_s, ref reason } = *request;
        let share = tell::percent(offsite);
        tracing::warn!(class, offsite = share, for_s, reason, uid = peer.uid, pid = peer.pid, "override");
        let order = Order { offsite, reason: reason.clone(), uid: peer.uid, until: now + Duration::from_secs(for_s) };
        let ordered = Some(order.view(now));
        self.orders.insert(index, order);
        Ok(OverrideResponse { class: class.to_owned(), ordered, previous, max_offsite: self.max_offsite(index) })
    }

    fn withdraw(&mut self, now: Duration, class: &str, peer: Peer) -> Result<OverrideResponse, ApiError> {
        let index = self.find(class)?;
        let previous = self.orders.remove(&index).map(|order| order.view(now));
        match previous {
            Some(_) => tracing::warn!(class, uid = peer.uid, pid = peer.pid, "override withdrawn"),
            None => tracing::info!(class, uid = peer.uid, pid = peer.pid, "there was no override to withdraw"),
        }
        Ok(OverrideResponse { class: class.to_owned(), ordered: None, previous, max_offsite: self.max_offsite(index) })
    }

    fn max_offsite(&self, class: usize) -> Option<f64> {
        self.config.classes[class].burst.as_ref().map(|burst| burst.max_offsite_share)
    }

    fn find(&self, name: &str) -> Result<usize, ApiError> {
        let burst =
            || self.config.classes.iter().filter(|class| class.burst.is_some()).map(|class| class.name.as_str());
        let index = self.config.classes.iter().position(|class| class.name == name);
        let index = index.ok_or_else(|| ApiError::unknown_class(name, burst()))?;
        if self.config.classes[index].burst.is_none() { Err(ApiError::keep_class(name)) } else { Ok(index) }
    }
}

impl Order {
    fn view(&self, now: Duration) -> types::Override {
        let remaining_s = self.until.saturating_sub(now).as_secs_f64().ceil() as u64;
        types::Override { offsite: self.offsite, reason: self.reason.clone(), uid: self.uid, remaining_s }
    }
}
