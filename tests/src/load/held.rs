//! Connections that are held across whatever a test changes: each asks on its one TCP connection for as long as it
//! lives, and whatever goes wrong on it is kept. None is ever made anew.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::generator::expected;
use crate::client::{Connection, Failure, Page};
use crate::netns::Namespace;
use crate::poll;
use crate::servers::Site;
use crate::topology::{Family, Service, Topology};

/// What is held, and what is asked on it.
#[derive(Clone, Debug, PartialEq)]
pub struct HeldPlan {
    /// Name of the service asked.
    pub service: String,
    /// The server.
    pub server: SocketAddr,
    /// Client addresses of the server's family, in turn.
    pub clients: Vec<IpAddr>,
    /// How many connections.
    pub connections: usize,
    /// What is asked for, again and again. [`Page::Stream`] keeps data flowing for two minutes at a time.
    pub page: Page,
    /// Pause between two requests.
    pub pause: Duration,
    /// Deadline of the connection's setup and of each request.
    pub patience: Duration,
}

impl HeldPlan {
    /// Six connections of a topology's clients, asked for small pages, with time for a line to go and to come back.
    #[must_use]
    pub fn of(topology: &Topology, service: Service, family: Family) -> Self {
        Self {
            service: service.name.to_owned(),
            server: service.at(family),
            clients: topology.clients(family),
            connections: 6,
            page: Page::Small,
            pause: Duration::from_millis(50),
            patience: Duration::from_secs(30),
        }
    }
}

/// One held connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// Client's address and port; `None` before it is connected.
    pub local: Option<SocketAddr>,
    /// Site that answers it; `None` before its first answer.
    pub site: Option<Site>,
    /// Requests begun.
    pub begun: u64,
    /// Requests answered completely and correctly.
    pub answered: u64,
    /// Why it is no more.
    pub broken: Option<Failure>,
}

type Lines = Arc<Mutex<Vec<Line>>>;

/// Held connections. Dropping it closes them.
#[derive(Debug)]
pub struct Held {
    lines: Lines,
    patience: Duration,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Held {
    /// Opens the connections from a namespace and waits until each is connected and (unless it streams) answered once.
    ///
    /// # Errors
    /// When one breaks before that.
    pub fn open(namespace: &Namespace, plan: HeldPlan) -> Result<Self> {
        ensure!(!plan.clients.is_empty(), "held connections need a client address");
        let lines: Lines = Arc::new(Mutex::new(vec![Line::default(); plan.connections]));
        let (stop, stopped) = watch::channel(false);
        let (handle, shared) = (namespace.handle(), Arc::clone(&lines));
        let (patience, streams) = (plan.patience, plan.page == Page::Stream);
        let body = move || -> Result<()> {
            rustix::thread::move_into_link_name_space(
                std::os::fd::AsFd::as_fd(&*handle),
                Some(rustix::thread::LinkNameSpaceType::Network),
            )
            .context("entering the namespace")?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("a runtime")?;
            runtime.block_on(hold_all(plan, shared, stopped));
            Ok(())
        };
        let thread = std::thread::Builder::new().name("held".to_owned()).spawn(body).context("a thread")?;
        let held = Self { lines, patience, stop, thread: Some(thread) };
        held.until("connected", |_, line| if streams { line.begun > 0 } else { line.answered > 0 })?;
        Ok(held)
    }

    /// All connections as they are now.
    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        lock(&self.lines).clone()
    }

    /// Fails if any connection is broken.
    ///
    /// # Errors
    /// Names the broken ones.
    pub fn check(&self) -> Result<()> {
        let lines = self.lines();
        let broken: Vec<_> = lines
            .iter()
            .filter_map(|line| Some(format!("{:?}: {}", line.local, line.broken.as_ref()?)))
            .take(10)
            .collect();
        let number = lines.iter().filter(|line| line.broken.is_some()).count();
        ensure!(number == 0, "{number} of {} held connections broke: {}", lines.len(), broken.join("; "));
        Ok(())
    }

    /// Waits until every connection has begun and completed another request after this call: proof that each carries
    /// data in both directions now. Not for [`Page::Stream`], whose answers take minutes.
    ///
    /// # Errors
    /// When one breaks, or has not done so within twice its patience.
    pub fn exchange(&self) -> Result<()> {
        let begun: Vec<_> = self.lines().iter().map(|line| line.begun).collect();
        // Those begun by now may have been answered before this call; the one after has not.
        self.until("exchanged", |index, line| line.answered > begun[index])
    }

    fn until(&self, what: &str, done: impl Fn(usize, &Line) -> bool) -> Result<()> {
        poll::until(&format!("all held connections to have {what}"), self.patience * 2, || {
            self.check()?;
            if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
                bail!("the thread of the held connections has ended");
            }
            Ok(lock(&self.lines).iter().enumerate().all(|(index, line)| done(index, line)).then_some(()))
        })
    }

    /// Checks all, closes them and answers what each did.
    ///
    /// # Errors
    /// When one was broken.
    pub fn finish(mut self) -> Result<Vec<Line>> {
        self.check()?;
        self.close()?;
        Ok(self.lines())
    }

    fn close(&mut self) -> Result<()> {
        self.stop.send_replace(true);
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().map_err(|_| anyhow!("the thread of the held connections panicked"))?
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            eprintln!("testbed: {error:#}");
        }
    }
}

fn lock(lines: &Lines) -> MutexGuard<'_, Vec<Line>> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn hold_all(plan: HeldPlan, lines: Lines, mut stopped: watch::Receiver<bool>) {
    let plan = Arc::new(plan);
    let mut tasks = JoinSet::new();
    for index in 0..plan.connections {
        let (plan, lines) = (Arc::clone(&plan), Arc::clone(&lines));
        tasks.spawn(async move {
            let failure = hold(&plan, index, &lines).await;
            lock(&lines)[index].broken = Some(failure);
        });
    }
    // Dropping the tasks closes their sockets.
    let _ = stopped.wait_for(|stop| *stop).await;
}

/// Holds one connection until it breaks.
async fn hold(plan: &HeldPlan, index: usize, lines: &Lines) -> Failure {
    let result: Result<std::convert::Infallible, Failure> = async {
        let client = plan.clients[index % plan.clients.len()];
        let mut connection = Connection::open(Some(client), plan.server, plan.patience).await?;
        let mut placed = None;
        lock(lines)[index].local = Some(connection.local);
        loop {
            lock(lines)[index].begun += 1;
            let answer = connection.get(plan.page, false, plan.patience).await?;
            let site = expected(&plan.service, placed, &answer)?;
            placed = Some(site);
            {
                let line = &mut lock(lines)[index];
                line.site = placed;
                line.answered += 1;
            }
            sleep(plan.pause).await;
        }
    }
    .await;
    match result {
        Ok(never) => match never {},
        Err(failure) => failure,
    }
}
