//! The log: to standard error, for people or as JSON lines.
//!
//! It never decides what becomes of the daemon: a thread of its own writes the lines, and a disk that is full or a reader
//! that stalls or went away costs lines, not packets.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::ValueEnum;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::exit::Failure;

/// What is logged unless BURST_LOG says otherwise. aya tells of every section it reads at lower levels; the netlink crates
/// warn of every attribute of a newer kernel.
const DEFAULT: &str = "info,aya=warn,aya_obj=warn,netlink_proto=error,netlink_packet_route=error";
/// Lines that wait for a reader that stalls; some megabytes at most. Further ones are lost, and counted.
const LINES: usize = 8192;

/// Form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// Lines for people; in colour on a terminal.
    #[default]
    Human,
    /// One JSON object per line.
    Json,
}

/// The log while it is written: to be kept until the end. When it is dropped, lines that wait are written, for a second
/// or so at most.
#[derive(Debug)]
#[must_use = "what waits to be written is lost without it"]
pub struct Log {
    /// Lines that found no room.
    lost: ErrorCounter,
    /// Lines that could not be written.
    failed: Arc<AtomicUsize>,
    writer: Option<WorkerGuard>,
}

impl Log {
    /// Lines that nobody will read.
    fn lost(&self) -> usize {
        self.lost.dropped_lines().saturating_add(self.failed.load(Ordering::Relaxed))
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let lines = self.lost();
        if lines > 0 {
            tracing::warn!(lines, "log lines were lost: standard error took none, or not fast enough");
        }
        // On a thread of its own: the guard waits for a writer that is stuck, and prints that it did, which may fail.
        let writer = self.writer.take();
        let (told, heard) = std::sync::mpsc::channel();
        let ending = std::thread::Builder::new().spawn(move || {
            drop(writer);
            // Nobody waits any more.
            let _ = told.send(());
        });
        if ending.is_ok() {
            let _ = heard.recv_timeout(super::LAST_WORDS);
        }
    }
}

/// Standard error, or what stands for it in tests. An error is a line that is lost, and nothing else.
struct Sink<W> {
    inner: W,
    failed: Arc<AtomicUsize>,
}

impl<W: Write> Write for Sink<W> {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        if self.inner.write_all(line).is_err() {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        // What could not be written has been counted.
        drop(self.inner.flush());
        Ok(())
    }
}

/// Starts to log.
///
/// # Errors
/// When BURST_LOG cannot be understood.
pub fn start(form: Form) -> Result<Log, Failure> {
    use std::io::IsTerminal;
    let filter = filter(std::env::var("BURST_LOG").ok().as_deref())?;
    // A descriptor of its own: while a write is stuck, the lock of `std::io::stderr` must not be held.
    let stderr = rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), 3)
        .map_err(|error| anyhow::Error::from(error).context("cannot open standard error for the log"))?;
    let (writer, log) = writer(File::from(stderr), LINES);
    // Errors of the log are not printed: that would be to the same standard error, and panics when it fails.
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).log_internal_errors(false);
    let started = match form {
        Form::Human => builder.with_target(false).with_ansi(std::io::stderr().is_terminal()).try_init(),
        Form::Json => builder.with_ansi(false).json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("cannot start to log: {error}"))?;
    Ok(log)
}

/// A writer that neither waits nor fails, whatever `sink` does.
fn writer(sink: impl Write + Send + 'static, lines: usize) -> (NonBlocking, Log) {
    let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(lines).thread_name("burst-log");
    let failed = Arc::new(AtomicUsize::new(0));
    let (writer, guard) = builder.finish(Sink { inner: sink, failed: Arc::clone(&failed) });
    let lost = writer.error_counter();
    (writer, Log { lost, failed, writer: Some(guard) })
}

/// What BURST_LOG says, on top of the defaults for libraries.
fn filter(said: Option<&str>) -> Result<EnvFilter, Failure> {
    let directives = match said {
        None | Some("") => DEFAULT.to_owned(),
        // The later directive for a target counts.
        Some(said) => format!("{DEFAULT},{said}"),
    };
    EnvFilter::builder().parse(directives).map_err(|error| {
        let said = said.unwrap_or_default();
        let fix = "write for example BURST_LOG=debug or BURST_LOG=info,burst::netlink=debug";
        crate::exit::Exit::Usage.because(anyhow::anyhow!("BURST_LOG is {said:?}: {error}; {fix}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sink that takes nothing until the sender is dropped.
    struct Stuck(std::sync::mpsc::Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// A sink that is full.
    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
    }

    fn say(writer: NonBlocking, lines: usize) {
        let subscriber = tracing_subscriber::fmt().with_writer(writer).log_internal_errors(false).finish();
        tracing::subscriber::with_default(subscriber, || (0..lines).for_each(|n| tracing::info!(n, "said")));
    }

    #[test]
    fn a_reader_that_stalls_costs_lines_and_nothing_else() {
        let (release, stuck) = std::sync::mpsc::channel();
        let (writer, log) = writer(Stuck(stuck), 10);
        say(writer, 1000);
        // Ten wait, one may be in the sink.
        assert!((989..=990).contains(&log.lost()), "{} lost", log.lost());
        drop(release);
    }

    #[test]
    fn a_reader_that_never_reads_does_not_keep_the_log_from_ending() {
        let (_release, stuck) = std::sync::mpsc::channel();
        let (writer, log) = writer(Stuck(stuck), 10);
        say(writer, 1000);
        drop(log);
    }

    #[test]
    fn a_full_disk_costs_lines_and_nothing_else() {
        let (writer, log) = writer(Full, 1000);
        say(writer, 100);
        let failed = Arc::clone(&log.failed);
        drop(log);
        assert_eq!(failed.load(Ordering::Relaxed), 100);
    }

    #[test]
    fn the_environment_adds_to_the_defaults() {
        for (said, expected) in [
            (None, "aya=warn,aya_obj=warn,netlink_proto=error,netlink_packet_route=error,info"),
            (Some(""), "aya=warn,aya_obj=warn,netlink_proto=error,netlink_packet_route=error,info"),
            (Some("debug"), "aya=warn,aya_obj=warn,netlink_proto=error,netlink_packet_route=error,debug"),
            (Some("aya=debug"), "aya=debug,aya_obj=warn,netlink_proto=error,netlink_packet_route=error,info"),
        ] {
            let filter = filter(said).unwrap().to_string();
            let mut parts: Vec<_> = filter.split(',').collect();
            parts.sort_unstable();
            let mut wanted: Vec<_> = expected.split(',').collect();
            wanted.sort_unstable();
            assert_eq!(parts, wanted, "{said:?}");
        }
    }

    #[test]
    fn nonsense_is_a_usage_error_that_says_how_to_write_it() {
        let failure = filter(Some("burst=loud")).unwrap_err();
        assert_eq!(failure.exit, crate::exit::Exit::Usage);
        assert!(failure.to_string().starts_with("BURST_LOG is \"burst=loud\": "), "{failure}");
    }
}
