//! Another configuration while the daemon runs: read and held against what is pinned, then taken over by the way a start takes
//! over what a former daemon left ([`super::start::open`]), in this process. Whatever fails leads back to the former one.
//!
//! The devices and neighbours of the new configuration are followed before the old is let go, beside the loop: links are
//! followed and decisions made meanwhile.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::error::Error;
use super::fits::{Ground, Placed, refusals};
use super::{Core, clock, events, plan, start, tell};
use crate::api::change::{Plan, PlanRequest, Refusal, ReloadRequest, ReloadResponse};
use crate::api::types::{self, Running};
use crate::api::{ApiError, Code, Peer, Reply};
use crate::config::model::Config;
use crate::config::{self, ConfigError, Loaded};
use crate::decide::Decision;
use crate::kernel::{Events, KernelError};
use crate::netlink::Watch;
use crate::policy::compile::compile;
use crate::policy::ids::{Ids, Names, endpoint_key};

/// How long after it failed it is tried again to go back to what was before.
const AGAIN: Duration = Duration::from_secs(10);

/// A configuration that runs, or ran, or is to run.
#[derive(Clone)]
pub(super) struct Version {
    pub(super) config: Arc<Config>,
    /// Mark of its text.
    pub(super) mark: String,
}

impl From<Loaded> for Version {
    fn from(loaded: Loaded) -> Self {
        Self { config: Arc::new(loaded.config), mark: loaded.mark }
    }
}

/// What is remembered of configurations.
pub(super) struct Versions {
    file: PathBuf,
    mark: String,
    generation: u64,
    loaded: Duration,
    /// What became of the last reload, where it was not what was asked for.
    trouble: Option<String>,
    pending: Option<Pending>,
    preparing: Option<Preparing>,
}

/// What goes back by itself.
struct Pending {
    until: Duration,
    uid: u32,
    former: Version,
}

/// What is about to be taken over.
struct Preparing {
    version: Version,
    plan: Plan,
    why: Why,
    task: JoinHandle<Result<Watch, Error>>,
}

/// Why a configuration is taken over.
enum Why {
    Asked { request: ReloadRequest, peer: Peer, reply: Reply<ReloadResponse> },
    Signal,
    Unconfirmed,
}

impl Versions {
    pub(super) fn new(file: &Path, mark: String) -> Self {
        Self {
            file: std::path::absolute(file).unwrap_or_else(|_| file.to_owned()),
            mark,
            generation: 1,
            loaded: Duration::ZERO,
            trouble: None,
            pending: None,
            preparing: None,
        }
    }

    /// As status shows them.
    pub(super) fn view(&self, now: Duration) -> Running {
        let pending = self.pending.as_ref().map(|pending| types::Pending {
            remaining_s: pending.until.saturating_sub(now).as_secs_f64().ceil() as u64,
            uid: pending.uid,
            former: pending.former.mark.clone(),
        });
        Running {
            file: self.file.display().to_string(),
            hash: self.mark.clone(),
            generation: self.generation,
            loaded_s: now.saturating_sub(self.loaded).as_secs_f64(),
            pending,
            trouble: self.trouble.clone(),
        }
    }

    /// Waits until the devices of the configuration that is to be taken over are followed, or cannot be. For ever when there is
    /// none. May be dropped and asked anew.
    pub(super) async fn prepared(&mut self) -> Result<Watch, Error> {
        match &mut self.preparing {
            Some(preparing) => (&mut preparing.task).await.unwrap_or(Err(Error::NetlinkEnded)),
            None => std::future::pending().await,
        }
    }
}

impl Core {
    /// What a reload with another configuration would change.
    pub(super) fn plan(&self, request: PlanRequest) -> Result<Plan, ApiError> {
        let (loaded, file) = match request.text {
            None => (config::load(&self.versions.file).map_err(|error| refused(&error))?, None),
            Some(text) => {
                let file = request.file.unwrap_or_else(|| "the configuration".to_owned());
                let loaded = config::parse(&text, &file).map_err(ConfigError::Invalid);
                (loaded.map_err(|error| refused(&error))?, Some(file))
            }
        };
        let file = file.unwrap_or_else(|| self.versions.file.display().to_string());
        self.held(&loaded.config, &loaded.mark, file).map_err(|error| internal(&error))
    }

    /// A configuration, held against what runs and what is pinned.
    fn held(&self, new: &Config, mark: &str, file: String) -> Result<Plan, KernelError> {
        let maps = self.publisher.maps();
        let names = Names::new(maps.names()?);
        let placed = Placed::read(&names, maps)?;
        let refusal = |message: String, fix: &str| Refusal { message, fix: fix.to_owned() };
        let mut refused = plan::fixed(&self.config, new);
        let compiled = match Ids::assign(new, &names) {
            Err(error) => Err(refusal(error.to_string(), "see there")),
            Ok(ids) => match compile(new, &ids) {
                Err(error) => Err(refusal(error.to_string(), "make it smaller")),
                Ok(compiled) => Ok((ids, compiled)),
            },
        };
        match compiled {
            Err(error) => refused.push(error),
            Ok((ids, compiled)) => {
                let found = refusals(new, &ids, &compiled, &Ground { names: &names, placed: &placed, maps })?;
                refused.extend(found.into_iter().map(|error| refusal(error.message, &error.fix)));
            }
        }
        let at_class = |name: &str| {
            let index = self.config.classes.iter().position(|class| class.name == name);
            index.is_some_and(|index| placed.class(self.publisher.ids(index).0))
        };
        let at_endpoint = |key: &str| {
            let found = self.config.classes.iter().enumerate().find_map(|(index, class)| {
                let tiers = class.burst.iter().flat_map(|burst| &burst.tiers);
                let mut names = tiers.flat_map(|tier| tier.endpoint_names());
                let place = names.position(|name| endpoint_key(&class.name, &name) == key)?;
                self.publisher.ids(index).1.get(place).copied()
            });
            found.is_some_and(|id| placed.endpoint(id))
        };
        Ok(Plan {
            file,
            hash: mark.to_owned(),
            running: self.versions.mark.clone(),
            changes: plan::changes(&self.config, new),
            refused,
            breaks: plan::breaks(&self.config, new, &at_class, &at_endpoint),
        })
    }

    /// Reads the file anew because somebody asked for it.
    pub(super) fn reload(&mut self, request: ReloadRequest, peer: Peer, reply: Reply<ReloadResponse>) {
        tracing::warn!(uid = peer.uid, pid = peer.pid, confirm_s = request.confirm_s, "reload");
        match self.read_anew() {
            Ok((version, plan)) => self.prepare(version, plan, Why::Asked { request, peer, reply }),
            Err(error) => {
                tracing::error!(%error, "not reloaded: nothing was changed");
                // A caller that hung up finds it in the log.
                drop(reply.send(Err(error)));
            }
        }
    }

    /// The same because of SIGHUP: what goes wrong is in the log and in status.
    pub(super) fn reload_by_signal(&mut self) {
        tracing::warn!("reload: SIGHUP");
        match self.read_anew() {
            Ok((version, plan)) => self.prepare(version, plan, Why::Signal),
            Err(error) => {
                tracing::error!(%error, "not reloaded: nothing was changed");
                self.versions.trouble = Some(format!("not reloaded, by SIGHUP: {}", error.message));
            }
        }
    }

    fn read_anew(&self) -> Result<(Version, Plan), ApiError> {
        if self.versions.preparing.is_some() {
            return Err(ApiError::new(Code::Unavailable, "another reload is under way", "try again when it is over"));
        }
        if let Some(pending) = &self.versions.pending {
            let message = format!("the last reload, by uid {}, waits to be confirmed", pending.uid);
            return Err(ApiError::new(
                Code::Unconfirmed,
                message,
                "`burst confirm` it first, or wait until it has gone back",
            ));
        }
        let loaded = config::load(&self.versions.file).map_err(|error| refused(&error))?;
        let file = self.versions.file.display().to_string();
        let plan = self.held(&loaded.config, &loaded.mark, file).map_err(|error| internal(&error))?;
        if let Some(first) = plan.refused.first() {
            let more = plan.refused.len() - 1;
            let more = if more > 0 { format!(" (and {more} more: `burst plan` tells all)") } else { String::new() };
            return Err(ApiError::new(Code::DoesNotFit, format!("{}{more}", first.message), first.fix.clone()));
        }
        for problem in loaded.warnings.problems() {
            tracing::warn!(file = %problem.file, line = problem.line, help = problem.help, "{}", problem.message);
        }
        Ok((loaded.into(), plan))
    }

    fn prepare(&mut self, version: Version, plan: Plan, why: Why) {
        let config = Arc::clone(&version.config);
        let task = tokio::spawn(async move { start::follow_kernel(&config).await });
        self.versions.preparing = Some(Preparing { version, plan, why, task });
    }

    /// Says yes to the last reload.
    pub(super) fn confirm(&mut self, now: Duration, peer: Peer) -> Result<Running, ApiError> {
        if self.versions.pending.take().is_none() {
            let fix = "see `burst status`: what runs is final, or has already gone back";
            return Err(ApiError::new(Code::NothingToConfirm, "no reload waits to be confirmed", fix));
        }
        tracing::warn!(uid = peer.uid, pid = peer.pid, config = self.versions.mark, "reload confirmed");
        Ok(self.versions.view(now))
    }

    /// Begins to go back when nobody confirmed in time.
    pub(super) fn unconfirmed(&mut self, now: Duration) {
        let Some(pending) = self.versions.pending.as_mut().filter(|pending| pending.until <= now) else { return };
        if self.versions.preparing.is_some() {
            return;
        }
        pending.until = now + AGAIN;
        let former = pending.former.clone();
        tracing::warn!(config = self.versions.mark, former = former.mark, "reload was not confirmed: going back");
        self.prepare(former, Plan::default(), Why::Unconfirmed);
    }

    /// Takes over what was prepared; the state of devices and links is followed by what is returned from then on. `None`: all is
    /// as it was.
    pub(super) fn take_over(&mut self, watch: Result<Watch, Error>, current: &Watch) -> Option<Watch> {
        let Preparing { version, plan, why, .. } = self.versions.preparing.take()?;
        let now = clock() - self.started;
        let former = Version { config: Arc::clone(&self.config), mark: self.versions.mark.clone() };
        let swapped = watch.and_then(|watch| self.swap(now, &version, &watch, current).map(|()| watch));
        // What is left to confirm it begins when it runs.
        let now = clock() - self.started;
        let watch = match swapped {
            Ok(watch) => {
                self.versions.generation += 1;
                (self.versions.mark, self.versions.loaded) = (version.mark, now);
                tracing::warn!(config = self.versions.mark, former = former.mark, "another configuration runs");
                self.versions.trouble = None;
                Ok(watch)
            }
            Err(error) => Err(error),
        };
        let failed = |error: &Error| format!("not reloaded, the former configuration runs: {error}");
        match (why, &watch) {
            (Why::Asked { request, peer, reply }, Ok(_)) => {
                self.versions.pending = request.confirm_s.map(|seconds| Pending {
                    until: now + Duration::from_secs(seconds),
                    uid: peer.uid,
                    former,
                });
                drop(reply.send(Ok(ReloadResponse { plan, config: self.versions.view(now) })));
            }
            (Why::Asked { reply, .. }, Err(error)) => {
                tracing::error!(%error, "not reloaded, the former configuration runs");
                drop(reply.send(Err(of_daemon(error))));
            }
            (Why::Signal, Ok(_)) => {}
            (Why::Signal, Err(error)) => {
                tracing::error!(%error, "not reloaded, the former configuration runs");
                self.versions.trouble = Some(failed(error));
            }
            (Why::Unconfirmed, Ok(_)) => {
                self.versions.pending = None;
                let file = self.versions.file.display();
                self.versions.trouble = Some(format!(
                    "the last reload was not confirmed in time: {file} is not what runs, but what was before it"
                ));
            }
            (Why::Unconfirmed, Err(error)) => {
                tracing::error!(%error, "could not go back to the former configuration; trying again in {AGAIN:?}");
                self.versions.trouble = Some(format!("not confirmed, and could not go back: {error}; trying again"));
            }
        }
        watch.ok()
    }

    /// Puts a configuration in the place of the one that runs, or leaves that where it is.
    fn swap(&mut self, now: Duration, new: &Version, watch: &Watch, current: &Watch) -> Result<(), Error> {
        // Before anything is let go: what is refused leaves the one that runs alone. What was placed since may stand in its way, also on the
        // way back.
        let held = self.held(&new.config, &new.mark, String::new())?;
        if let Some(first) = held.refused.into_iter().next() {
            return Err(KernelError::new(crate::kernel::Kind::State, first.message, first.fix).into());
        }
        let net = start::with_forwarding(&new.config, &watch.state().borrow());
        let opened = start::reopen(&new.config, &net, &self.publisher, now);
        let opened = opened.and_then(|publisher| {
            let health = self.health.restart(&new.config, publisher.unproven(), &watch.state(), &self.stopped)?;
            Ok((publisher.events()?, health, publisher))
        });
        match opened {
            Ok((ring, health, publisher)) => {
                self.publisher = publisher;
                self.health = health;
                self.follow_configuration(&new.config, ring, watch);
                Ok(())
            }
            Err(error) => {
                tracing::error!(%error, "the new configuration failed midway: going back to the former one");
                let net = start::with_forwarding(&self.config, &current.state().borrow());
                match start::reopen(&self.config, &net, &self.publisher, now) {
                    Ok(publisher) => self.publisher = publisher,
                    Err(error) => tracing::error!(
                        %error,
                        "and the former one cannot be restored as a whole: programs of both may run; `burst reload` once \
                         what is wrong is mended"
                    ),
                }
                Err(error)
            }
        }
    }

    /// Everything but maps and programs: what was learned and ordered stays with classes of the same name.
    fn follow_configuration(&mut self, new: &Arc<Config>, ring: Events, watch: &Watch) {
        let former = std::mem::replace(&mut self.config, Arc::clone(new));
        let place = |name: &str| former.classes.iter().position(|class| class.name == name);
        self.controller = self.controller.with(&former, new);
        self.told = vec![tell::Told::new(1.0); new.classes.len()];
        for (class, local) in self.publisher.local_shares() {
            if place(&new.classes[class].name).is_none() {
                self.controller.resume(class, local, None);
            }
            self.told[class] = tell::Told::new(local);
        }
        let mut orders = std::mem::take(&mut self.orders);
        let kept: HashMap<usize, _> = new
            .classes
            .iter()
            .enumerate()
            .filter(|(_, class)| class.burst.is_some())
            .filter_map(|(index, class)| Some((index, orders.remove(&place(&class.name)?)?)))
            .collect();
        for (index, order) in orders {
            let (class, offsite) = (&former.classes[index].name, tell::percent(order.offsite));
            tracing::warn!(class, offsite, reason = order.reason, "override ends with its class");
        }
        self.orders = kept;
        self.sources = crate::observe::spawn(&new.classes, &self.stopped);
        self.events = events::read(ring, self.publisher.link_names(), watch.state(), self.events.seen());
        self.meter = super::observe::Meter::default();
        (self.decision, self.net) = (Decision::default(), None);
    }
}

/// What a file is refused for, with the place in it.
fn refused(error: &ConfigError) -> ApiError {
    ApiError::new(Code::BadConfig, error.to_string(), "correct the file; nothing was changed")
}

fn internal(error: &KernelError) -> ApiError {
    ApiError::new(Code::Internal, error.message.clone(), error.fix.clone())
}

fn of_daemon(error: &Error) -> ApiError {
    match error {
        Error::Kernel(error) => {
            let code = if error.kind == crate::kernel::Kind::State { Code::DoesNotFit } else { Code::Failed };
            ApiError::new(code, error.message.clone(), format!("{}; the former configuration runs", error.fix))
        }
        error => ApiError::new(Code::Failed, error.to_string(), "the former configuration runs"),
    }
}

/// A handle that every task is told to stop by.
pub(super) type Stopped = watch::Receiver<bool>;
