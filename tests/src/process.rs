//! A child process as a guard: its output is kept, and it is ended and reaped on drop. It dies with this process,
//! too, however that ends.

use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{
    Pid, Signal, getpid, getppid, kill_process, kill_process_group, set_parent_process_death_signal,
};

use crate::cleanup::register;
use crate::dir::RunDir;
use crate::poll;

/// How long a process has between SIGTERM and SIGKILL on drop.
const GRACE: Duration = Duration::from_secs(3);

/// Lines of its log that a process shows when it is dropped by a panic.
const TAIL: usize = 40;

/// A running (or ended, but not forgotten) child process.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: Pid,
    child: Child,
    status: Option<ExitStatus>,
    log: PathBuf,
}

impl Process {
    /// Starts `command` in a process group of its own, with standard output and error appended to `NAME.log` in
    /// `dir`. For a process in a namespace, make the command with [`crate::netns::Namespace::command`].
    ///
    /// # Errors
    /// When the log cannot be made or the program not be started.
    pub fn spawn(name: &str, mut command: Command, dir: &RunDir) -> Result<Self> {
        let log = dir.file(&format!("{name}.log"));
        let output = OpenOptions::new().create(true).append(true).open(&log);
        let output: File = output.with_context(|| format!("opening {}", log.display()))?;
        let errors = output.try_clone().context("a second handle of a log")?;
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        // A terminal's Ctrl-C goes to the foreground group: the testbed decides when its children end.
        command.process_group(0);
        let parent = getpid();
        let die_with_parent = move || {
            // SIGTERM, so that a server takes its workers along.
            set_parent_process_death_signal(Some(Signal::TERM))?;
            // The parent may have died between fork and this point; then nobody would send the signal.
            if getppid() == Some(parent) { Ok(()) } else { Err(std::io::ErrorKind::BrokenPipe.into()) }
        };
        // SAFETY: between fork and exec two system calls are made; nothing is allocated and no lock is taken.
        unsafe { command.pre_exec(die_with_parent) };

        let mut register = register();
        register.open()?;
        let child = spawn_from_lasting_thread(command).with_context(|| format!("starting {name}"))?;
        let raw = i32::try_from(child.id()).context("a pid")?;
        let pid = Pid::from_raw(raw).ok_or_else(|| anyhow!("pid 0"))?;
        register.children.insert(raw);
        Ok(Self { name: name.to_owned(), pid, child, status: None, log })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Path of its log.
    #[must_use]
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// What it wrote so far.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn log(&self) -> Result<String> {
        let bytes = std::fs::read(&self.log).with_context(|| format!("reading {}", self.log.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Its exit status, if it has ended; reaps it then.
    ///
    /// # Errors
    /// When the kernel cannot say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.status.is_none() {
            // Reaped and forgotten under one lock: see `Register::children`.
            let mut register = register();
            self.status = self.child.try_wait().with_context(|| format!("asking whether {} has ended", self.name))?;
            if self.status.is_some() {
                register.children.remove(&self.pid.as_raw_nonzero().get());
            }
        }
        Ok(self.status)
    }

    /// Waits until `ready` answers `Some`.
    ///
    /// # Errors
    /// When the time is over or the process ends first, with its log.
    pub fn wait_ready<T>(
        &mut self,
        what: &str,
        within: Duration,
        mut ready: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let name = self.name.clone();
        let result = poll::until(&format!("{name}: {what}"), within, || {
            if let Some(status) = self.ended()? {
                bail!("{name} ended: {status}");
            }
            ready()
        });
        result.with_context(|| format!("{name} wrote:\n{}", self.log().unwrap_or_default().trim_end()))
    }

    /// Waits until its log contains `text`.
    ///
    /// # Errors
    /// As [`Self::wait_ready`].
    pub fn wait_log(&mut self, text: &str, within: Duration) -> Result<()> {
        let path = self.log.clone();
        self.wait_ready(&format!("the line {text:?}"), within, || {
            Ok(String::from_utf8_lossy(&std::fs::read(&path)?).contains(text).then_some(()))
        })
    }

    /// Sends a signal; to an ended process, none.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.ended()?.is_none() {
            kill_process(self.pid, signal).with_context(|| format!("sending {signal:?} to {}", self.name))?;
        }
        Ok(())
    }

    /// Waits for its end, at most for `within`.
    ///
    /// # Errors
    /// When it has not ended by then.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        poll::until(&what, within, || self.ended())
    }

    /// Ends it with SIGTERM and, where that does not help within three seconds, SIGKILL to its whole group.
    ///
    /// # Errors
    /// When even that does not end it.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        if let Ok(status) = self.wait(GRACE) {
            return Ok(status);
        }
        self.kill()
    }

    /// Ends it and its group with SIGKILL.
    ///
    /// # Errors
    /// When it has not ended three seconds later.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        if self.ended()?.is_none() {
            kill_process_group(self.pid, Signal::KILL).with_context(|| format!("killing {}", self.name))?;
        }
        self.wait(GRACE)
    }

    /// Its resident memory in bytes.
    ///
    /// # Errors
    /// When it has ended.
    pub fn resident(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.pid());
        let status = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        Ok(kib.with_context(|| format!("no VmRSS in {path}"))? * 1024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("testbed: {error:#}");
        }
        if std::thread::panicking() {
            let log = self.log().unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(TAIL)..];
            eprintln!("--- {} wrote, in the end:\n{}\n---", self.name, tail.join("\n"));
        }
    }
}

/// A command to start, and where to answer.
type Order = (Command, Sender<std::io::Result<Child>>);

/// Starts a command from a thread that lives as long as this process: the kernel sends the parent-death signal when
/// the *thread* that forked ends (prctl(2)), and a test's thread may end before what it started.
fn spawn_from_lasting_thread(command: Command) -> Result<Child> {
    static SPAWNER: OnceLock<Sender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, orders) = channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in orders {
                // The one who asked waits below.
                let _ = answer.send(command.spawn());
            }
        });
        sender
    });
    let (answer, child) = channel();
    spawner.send((command, answer)).map_err(|_| anyhow!("the spawner is gone"))?;
    Ok(child.recv().context("the spawner is gone")??)
}
