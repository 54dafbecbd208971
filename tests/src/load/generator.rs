//! An open-loop generator: connections begin at the planned rate, whether or not earlier ones are answered, as
//! customers do.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::stats::{Snapshot, Stats};
use crate::client::{Answer, Connection, Failure, Kind, Page};
use crate::netns::Namespace;

/// Pause between two looks at how many connections are due: at 5,000 per second, ten at a time.
const TICK: Duration = Duration::from_millis(2);

/// What to ask for, from where, how often.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Name of the service asked: an answer by any other is a failure.
    pub service: String,
    /// Servers, in turn.
    pub servers: Vec<SocketAddr>,
    /// Client addresses, in turn; each is used for servers of its family.
    pub clients: Vec<IpAddr>,
    /// What is asked for.
    pub page: Page,
    /// New connections per second at the start.
    pub rate: f64,
    /// Requests on each connection.
    pub requests: u32,
    /// Pause between two requests on one connection.
    pub pause: Duration,
    /// Deadline of each connection's setup and of each request.
    pub patience: Duration,
    /// Most connections open at a time; one that is due beyond it counts as a failure of kind `Overrun`.
    pub most_open: u64,
}

/// What the generator is told.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Order {
    /// Begin so many connections per second.
    Rate(f64),
    /// Begin none, and end when all are over.
    Finish,
    /// End now.
    Abort,
}

/// A running load. Dropping it ends it at once, with its connections.
#[derive(Debug)]
pub struct Load {
    stats: Arc<Stats>,
    orders: watch::Sender<Order>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Load {
    /// Starts the load on a thread in a namespace.
    ///
    /// # Errors
    /// When the plan names no server or no client of a server's family, or the thread cannot be made.
    pub fn start(namespace: &Namespace, plan: Plan) -> Result<Self> {
        ensure!(!plan.servers.is_empty(), "a load needs a server");
        let mut pairs = Vec::new();
        for server in &plan.servers {
            let clients: Vec<_> = plan.clients.iter().filter(|client| client.is_ipv4() == server.is_ipv4()).collect();
            ensure!(!clients.is_empty(), "no client address of the family of {server}");
            pairs.push((*server, clients.into_iter().copied().collect::<Vec<_>>()));
        }
        let stats = Arc::new(Stats::default());
        let (orders, inbox) = watch::channel(Order::Rate(plan.rate));
        let (entered, ready) = std::sync::mpsc::channel();
        let (handle, counters) = (namespace.handle(), Arc::clone(&stats));
        let name = format!("load-{}", plan.service);
        let body = move || -> Result<()> {
            let enter = rustix::thread::move_into_link_name_space(
                std::os::fd::AsFd::as_fd(&*handle),
                Some(rustix::thread::LinkNameSpaceType::Network),
            );
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            // The starter waits below.
            let _ = entered.send(enter.is_ok() && runtime.is_ok());
            enter.context("entering the namespace")?;
            runtime.context("a runtime")?.block_on(generate(plan, pairs, inbox, counters));
            Ok(())
        };
        let thread = std::thread::Builder::new().name(name).spawn(body).context("a thread for load")?;
        let load = Self { stats, orders, thread: Some(thread) };
        if ready.recv() != Ok(true) {
            load.finish()?;
            return Err(anyhow!("the load ended before it began"));
        }
        Ok(load)
    }

    /// Changes the rate, in new connections per second.
    pub fn set_rate(&self, rate: f64) {
        self.orders.send_replace(Order::Rate(rate));
    }

    /// Counters now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.stats.snapshot()
    }

    /// Begins no more connections, waits until all are over (each has its deadlines) and answers the counters.
    ///
    /// # Errors
    /// When the generator failed.
    pub fn finish(mut self) -> Result<Snapshot> {
        self.orders.send_replace(Order::Finish);
        self.join()?;
        Ok(self.stats.snapshot())
    }

    fn join(&mut self) -> Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().map_err(|_| anyhow!("the load generator panicked"))?
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.orders.send_replace(Order::Abort);
        if let Err(error) = self.join() {
            eprintln!("testbed: {error:#}");
        }
    }
}

/// The generator's life.
async fn generate(
    plan: Plan,
    pairs: Vec<(SocketAddr, Vec<IpAddr>)>,
    mut orders: watch::Receiver<Order>,
    stats: Arc<Stats>,
) {
    let plan = Arc::new(plan);
    let mut tasks = JoinSet::new();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut last, mut due, mut next) = (Instant::now(), 0.0, 0_usize);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            changed = orders.changed() => if changed.is_err() { return },
        }
        let now = Instant::now();
        let order = *orders.borrow();
        match order {
            Order::Rate(rate) => due += rate * (now - last).as_secs_f64(),
            Order::Finish => break,
            Order::Abort => return,
        }
        last = now;
        while due >= 1.0 {
            due -= 1.0;
            if stats.open.load(Ordering::Relaxed) >= plan.most_open {
                let text = format!("{} connections are open", plan.most_open);
                stats.failed(&Failure { kind: Kind::Overrun, text });
                continue;
            }
            let (server, clients) = &pairs[next % pairs.len()];
            let client = clients[next / pairs.len() % clients.len()];
            next = next.wrapping_add(1);
            stats.started.fetch_add(1, Ordering::Relaxed);
            stats.open.fetch_add(1, Ordering::Relaxed);
            tasks.spawn(one(Arc::clone(&plan), client, *server, Arc::clone(&stats)));
        }
        while tasks.try_join_next().is_some() {}
    }
    loop {
        tokio::select! {
            ended = tasks.join_next() => if ended.is_none() { return },
            changed = orders.changed() => if changed.is_err() || *orders.borrow() == Order::Abort { return },
        }
    }
}

/// One connection, from SYN to FIN.
async fn one(plan: Arc<Plan>, client: IpAddr, server: SocketAddr, stats: Arc<Stats>) {
    if let Err(failure) = talk(&plan, client, server, &stats).await {
        stats.failed(&failure);
    }
    stats.open.fetch_sub(1, Ordering::Relaxed);
    stats.finished.fetch_add(1, Ordering::Relaxed);
}

async fn talk(plan: &Plan, client: IpAddr, server: SocketAddr, stats: &Stats) -> Result<(), Failure> {
    let mut connection = Connection::open(Some(client), server, plan.patience).await?;
    let mut placed = None;
    for number in 1..=plan.requests {
        let start = Instant::now();
        let answer = connection.get(plan.page, number == plan.requests, plan.patience).await?;
        let site = expected(&plan.service, placed, &answer)?;
        stats.answered(site, start.elapsed());
        if placed.replace(site).is_none() {
            stats.placed(site);
        }
        if number < plan.requests {
            sleep(plan.pause).await;
        }
    }
    // The server was asked to close; one that does not is not waited for.
    let _ = tokio::time::timeout(plan.patience, connection.closed()).await;
    Ok(())
}

/// The site of an answer, if it is by the service that was asked and by the same site as the earlier ones.
pub(super) fn expected(
    service: &str,
    placed: Option<crate::servers::Site>,
    answer: &Answer,
) -> Result<crate::servers::Site, Failure> {
    let stranger = |text: String| Failure { kind: Kind::Stranger, text };
    if answer.service.as_deref() != Some(service) {
        return Err(stranger(format!("asked {service}, answered by {:?}", answer.service)));
    }
    match (answer.site, placed) {
        (None, _) => Err(stranger("the answer does not say which site it is from".to_owned())),
        (Some(site), Some(before)) if site != before => {
            Err(stranger(format!("answered by {before:?}, then by {site:?} on the same connection")))
        }
        (Some(site), _) => Ok(site),
    }
}
