//! A source's task: read, publish, pause; back off while it fails.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::Error;
use super::haproxy::Haproxy;
use super::metrics::{Metrics, Selector};
use crate::config::model::{LoadKind, LoadSource};
use crate::decide::Reading;

/// The longest pause between reads of a source that fails.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The latest of a source.
#[derive(Clone, Debug, Default)]
struct State {
    value: Option<(f64, Instant)>,
    error: Option<String>,
    reads: u64,
    failures: u64,
}

/// A running source. Dropping it ends its task.
#[derive(Debug)]
pub struct Source {
    name: String,
    state: watch::Receiver<State>,
    task: JoinHandle<()>,
}

/// How a source stands, for `status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// What it reads.
    pub name: String,
    /// The latest value, as the source says it, and its age.
    pub reading: Option<Reading>,
    /// Why the last read yielded none; `None` when it did.
    pub error: Option<String>,
    /// Reads since the start.
    pub reads: u64,
    /// Those that failed.
    pub failures: u64,
}

/// The sources of all classes, in the order of the configuration.
#[derive(Debug)]
pub struct Sources {
    classes: Vec<Vec<Source>>,
}

/// What a task reads.
enum Reader {
    Metrics(Box<Metrics>),
    Haproxy(Haproxy),
}

impl Source {
    /// Starts the task of one source; see [`crate::observe::spawn`].
    #[must_use]
    pub fn spawn(source: &LoadSource, shutdown: watch::Receiver<bool>) -> Self {
        let (publish, state) = watch::channel(State::default());
        let task = tokio::spawn(run(source.clone(), publish, shutdown));
        Self { name: name(&source.kind), state, task }
    }

    /// The latest value and its age at `now`; a value never published is `None`. Old ones are not left out here.
    #[must_use]
    pub fn reading(&self, now: Instant) -> Option<Reading> {
        let (value, at) = self.state.borrow().value?;
        Some(Reading { value, age: now.saturating_duration_since(at) })
    }

    /// Waits for the next read to end, whether it yields a value or not. Returns at once when the task is over.
    pub async fn changed(&mut self) {
        // An error says that the task has ended.
        drop(self.state.changed().await);
    }

    /// How it stands at `now`.
    #[must_use]
    pub fn status(&self, now: Instant) -> SourceStatus {
        let reading = self.reading(now);
        let state = self.state.borrow();
        let (error, reads, failures) = (state.error.clone(), state.reads, state.failures);
        SourceStatus { name: self.name.clone(), reading, error, reads, failures }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Sources {
    pub(super) fn new(classes: Vec<Vec<Source>>) -> Self {
        Self { classes }
    }

    /// The readings of a class at `now`, as [`crate::decide::ClassObservation::readings`] wants them. Empty for a class
    /// without sources.
    #[must_use]
    pub fn readings(&self, class: usize, now: Instant) -> Vec<Option<Reading>> {
        self.classes
            .get(class)
            .map_or_else(Vec::new, |sources| sources.iter().map(|source| source.reading(now)).collect())
    }

    /// How the sources of a class stand.
    #[must_use]
    pub fn status(&self, class: usize, now: Instant) -> Vec<SourceStatus> {
        self.classes
            .get(class)
            .map_or_else(Vec::new, |sources| sources.iter().map(|source| source.status(now)).collect())
    }

    /// Waits until every task has ended, after the shutdown was told; a task that panicked is an error.
    ///
    /// # Errors
    /// Names the source whose task panicked.
    pub async fn join(mut self) -> Result<(), String> {
        for source in self.classes.iter_mut().flatten() {
            (&mut source.task).await.map_err(|error| format!("load source {}: {error}", source.name))?;
        }
        Ok(())
    }
}

/// A source's name in messages.
fn name(kind: &LoadKind) -> String {
    match kind {
        LoadKind::Metrics { url, metric, .. } => format!("{metric} at {url}"),
        LoadKind::Haproxy { socket, proxy, server, field } => {
            format!("{field} of {proxy}/{server} at {}", socket.display())
        }
    }
}

async fn run(source: LoadSource, publish: watch::Sender<State>, mut shutdown: watch::Receiver<bool>) {
    tokio::select! {
        () = read_on(source, publish) => {}
        // Told to end, or nobody is left to tell.
        _ = shutdown.wait_for(|end| *end) => {}
    }
}

async fn read_on(source: LoadSource, publish: watch::Sender<State>) {
    let mut reader = match Reader::new(&source.kind) {
        Ok(reader) => reader,
        Err(error) => {
            // Nothing that time would mend.
            tracing::error!(source = name(&source.kind), %error, "load source cannot be read");
            publish.send_modify(|state| state.error = Some(error.to_string()));
            return std::future::pending().await;
        }
    };
    let mut failed = 0;
    loop {
        // The value was true at some time during the read: it is dated to the beginning, never younger than it is.
        let begun = crate::observe::clock();
        let result = match timeout(source.timeout, reader.read()).await {
            Ok(result) => result,
            Err(_) => Err(Error::Deadline(source.timeout)),
        };
        match &result {
            Ok(_) if failed > 0 => tracing::info!(source = name(&source.kind), "load source is read again"),
            Err(error) if failed == 0 => tracing::warn!(source = name(&source.kind), %error, "load source failed"),
            _ => {}
        }
        failed = if result.is_err() { failed + 1 } else { 0 };
        publish.send_modify(|state| {
            state.reads += 1;
            state.failures += u64::from(result.is_err());
            match result {
                Ok(value) => {
                    state.value = value.map(|value| (value, begun)).or(state.value);
                    state.error = None;
                }
                Err(error) => state.error = Some(error.to_string()),
            }
        });
        sleep(pause(source.every, failed)).await;
    }
}

/// The pause after `failed` failures in a row: twice as long after each but the first, up to some seconds.
fn pause(every: Duration, failed: u32) -> Duration {
    let factor = 1_u32 << failed.saturating_sub(1).min(16);
    every.saturating_mul(factor).min(LONGEST_PAUSE.max(every))
}

impl Reader {
    fn new(kind: &LoadKind) -> Result<Self, Error> {
        Ok(match kind.clone() {
            LoadKind::Metrics { url, metric, labels, combine, rate } => {
                Self::Metrics(Box::new(Metrics::new(&url, Selector { metric, labels, combine, rate })?))
            }
            LoadKind::Haproxy { socket, proxy, server, field } => {
                Self::Haproxy(Haproxy { socket, proxy, server, field })
            }
        })
    }

    async fn read(&mut self) -> Result<Option<f64>, Error> {
        match self {
            Self::Metrics(metrics) => metrics.read().await,
            Self::Haproxy(haproxy) => haproxy.read().await.map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_while_it_fails_and_end_at_some_seconds() {
        let quarter = Duration::from_millis(250);
        let pauses: Vec<_> = (0..9).map(|failed| pause(quarter, failed).as_millis()).collect();
        assert_eq!(pauses, [250, 250, 500, 1000, 2000, 4000, 5000, 5000, 5000]);
        assert_eq!(pause(quarter, u32::MAX).as_millis(), 5000);
        assert_eq!(pause(Duration::from_secs(30), 4).as_secs(), 30);
    }

    #[tokio::test]
    async fn a_source_that_cannot_be_read_says_why_and_ends_when_told() {
        let directory = tempfile::tempdir().unwrap();
        let silent = directory.path().join("silent");
        let _listener = tokio::net::UnixListener::bind(&silent).unwrap();
        let haproxy =
            |socket| LoadKind::Haproxy { socket, proxy: "p".into(), server: "BACKEND".into(), field: "scur".into() };
        let metrics = LoadKind::Metrics {
            url: "nonsense".into(),
            metric: "m".into(),
            labels: vec![],
            combine: crate::config::model::Combine::Sum,
            rate: false,
        };
        let rows = [
            (haproxy(silent), "no answer within 50ms"),
            (haproxy(directory.path().join("absent")), "No such file or directory"),
            (metrics, "write http://HOST:PORT/PATH"),
        ];
        for (kind, expected) in rows {
            let (end, shutdown) = watch::channel(false);
            let source =
                LoadSource { kind, limit: 1.0, timeout: Duration::from_millis(50), every: Duration::from_millis(10) };
            let mut source = Source::spawn(&source, shutdown);
            source.changed().await;
            let status = source.status(crate::observe::clock());
            assert!(status.error.as_ref().is_some_and(|error| error.contains(expected)), "{status:?}");
            assert_eq!(status.reading, None);
            end.send(true).unwrap();
            Sources::new(vec![vec![source]]).join().await.unwrap();
        }
    }
}
