//! Nothing stays behind. A register of what this process has made, which a signal takes down, and a sweep for what
//! runs that were killed could not take down themselves. The guards (`Namespace`, `Process`, `RunDir`) enter and
//! leave the register; they alone hold the ordinary way out.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, kill_process_group, waitpid};
use tokio::signal::unix::{SignalKind, signal};

use crate::host;

/// Where `ip netns` keeps named namespaces.
pub(crate) const NETNS_DIR: &str = "/run/netns";

/// How long children have between SIGTERM and SIGKILL when a signal ends the run.
const GRACE: Duration = Duration::from_secs(2);

/// What this process has made and not yet removed.
#[derive(Debug)]
pub(crate) struct Register {
    /// A signal came: nothing new may be made.
    closing: bool,
    /// Children, each the leader of its own process group. Entered and reaped under the lock, so that no pid here can
    /// have been given to another process.
    pub(crate) children: BTreeSet<i32>,
    /// Names of namespaces.
    namespaces: BTreeSet<String>,
    /// Temporary directories.
    dirs: BTreeSet<PathBuf>,
}

static REGISTER: Mutex<Register> = Mutex::new(Register {
    closing: false,
    children: BTreeSet::new(),
    namespaces: BTreeSet::new(),
    dirs: BTreeSet::new(),
});

/// The register. A panic while it was held leaves it usable: every change to it is one call.
pub(crate) fn register() -> MutexGuard<'static, Register> {
    REGISTER.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Register {
    /// Fails once a signal has ended the run.
    pub(crate) fn open(&self) -> Result<()> {
        if self.closing { bail!("the run was interrupted") } else { Ok(()) }
    }

    pub(crate) fn add_namespace(&mut self, name: &str) -> Result<()> {
        self.open()?;
        self.namespaces.insert(name.to_owned());
        Ok(())
    }

    /// Removes a namespace and whatever still runs in it.
    pub(crate) fn remove_namespace(&mut self, name: &str) -> Result<()> {
        self.namespaces.remove(name);
        remove_namespace(name)
    }

    pub(crate) fn add_dir(&mut self, path: &Path) -> Result<()> {
        self.open()?;
        self.dirs.insert(path.to_owned());
        Ok(())
    }

    /// Removes a directory and whatever is mounted beneath it.
    pub(crate) fn remove_dir(&mut self, path: &Path) -> Result<()> {
        self.dirs.remove(path);
        remove_dir(path)
    }
}

/// Once per process, before anything is made: checks privileges and programs, sweeps, and installs the handler of
/// SIGINT and SIGTERM. The guards call it.
///
/// # Errors
/// Without root or without the programs (see [`host`]), and when the sweep fails.
pub fn prepare() -> Result<()> {
    static ONCE: OnceLock<Result<(), String>> = OnceLock::new();
    // Asked of every thread, not once: a thread may have dropped its privileges.
    host::require_privileges()?;
    ONCE.get_or_init(|| {
        let all = || -> Result<()> {
            host::require_programs(&host::TOOLS)?;
            host::raise_open_files()?;
            sweep().context("removing what an earlier, killed run left")?;
            on_signal()
        };
        all().map_err(|error| format!("{error:#}"))
    })
    .as_ref()
    .map_err(|text| anyhow!("{text}"))
    .copied()
}

/// Prefix of the names of everything this process makes.
pub(crate) fn prefix() -> String {
    format!("burst-{}-", std::process::id())
}

/// Whether `name` was made by a run that is over. Our own pid counts as over: the sweep runs before we make anything,
/// so such a name is of an earlier process with the same pid.
fn is_leftover(name: &str) -> bool {
    let Some(pid) = name.strip_prefix("burst-").and_then(|rest| rest.split('-').next()?.parse::<u32>().ok()) else {
        return false;
    };
    pid == std::process::id() || !Path::new("/proc").join(pid.to_string()).exists()
}

/// Removes namespaces and directories of runs whose process is gone; leaves everything else alone.
///
/// # Errors
/// When something of a dead run is there and cannot be removed.
fn sweep() -> Result<()> {
    for name in leftovers(Path::new(NETNS_DIR))? {
        remove_namespace(&name)?;
    }
    let temp = std::env::temp_dir();
    for name in leftovers(&temp)? {
        remove_dir(&temp.join(name))?;
    }
    Ok(())
}

/// Names in `directory` that dead runs left there; none when there is no such directory.
fn leftovers(directory: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("reading {}", directory.display())),
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter(|name| is_leftover(name)).collect())
}

/// Kills what runs in the namespace, then removes it. One that is gone already is fine.
fn remove_namespace(name: &str) -> Result<()> {
    let path = Path::new(NETNS_DIR).join(name);
    let Ok(meta) = fs::metadata(&path) else { return Ok(()) };
    kill_inhabitants(meta.ino());
    let output = Command::new("ip").args(["netns", "delete", name]).output().context("running ip netns delete")?;
    if !output.status.success() && path.exists() {
        bail!("ip netns delete {name}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Sends SIGKILL to every process (but this one) whose network namespace has this inode. Namespaces reach this place
/// by name only, so these are processes that a testbed started, or their children.
fn kill_inhabitants(inode: u64) {
    let own = std::process::id();
    let Ok(processes) = fs::read_dir("/proc") else { return };
    for entry in processes.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let inside = fs::metadata(entry.path().join("ns/net")).is_ok_and(|meta| meta.ino() == inode);
        let pid = i32::try_from(pid).ok().filter(|_| inside && pid != own).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended by itself meanwhile; then there is nothing to do.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Unmounts everything beneath `path`, deepest first, and removes it. One that is gone already is fine.
fn remove_dir(path: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("reading /proc/self/mountinfo")?;
    // proc_pid_mountinfo(5): the fifth field is the mount point.
    let mut beneath: Vec<_> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(Path::new)
        .filter(|mount| mount.starts_with(path))
        .collect();
    beneath.sort_by_key(|mount| std::cmp::Reverse(mount.components().count()));
    for mount in beneath {
        unmount(mount, UnmountFlags::DETACH).with_context(|| format!("unmounting {}", mount.display()))?;
    }
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Starts the thread that waits for SIGINT and SIGTERM, takes everything down and ends the process with 128 + the
/// signal's number, as a shell would report it.
fn on_signal() -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("a runtime for signals")?;
    let enter = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt()).context("a handler of SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("a handler of SIGTERM")?;
    drop(enter);
    let wait = move || {
        let number = runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => SignalKind::interrupt().as_raw_value(),
                _ = terminate.recv() => SignalKind::terminate().as_raw_value(),
            }
        });
        take_down();
        std::process::exit(128 + number);
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(wait).context("a thread for signals")?;
    Ok(())
}

/// Removes everything in the register. The lock is held to the end, so that guards dropped meanwhile wait here.
fn take_down() {
    let mut register = register();
    register.closing = true;
    let children: Vec<_> = std::mem::take(&mut register.children).into_iter().filter_map(Pid::from_raw).collect();
    let namespaces = std::mem::take(&mut register.namespaces);
    let dirs = std::mem::take(&mut register.dirs);
    eprintln!("interrupted: removing {} processes and {} namespaces", children.len(), namespaces.len());

    let mut left = children;
    for child in &left {
        let _ = kill_process(*child, Signal::TERM);
    }
    let end = Instant::now() + GRACE;
    while !left.is_empty() && Instant::now() < end {
        left.retain(|child| matches!(waitpid(Some(*child), WaitOptions::NOHANG), Ok(None)));
        std::thread::sleep(Duration::from_millis(10));
    }
    for child in left {
        let _ = kill_process_group(child, Signal::KILL);
    }
    for name in namespaces {
        if let Err(error) = remove_namespace(&name) {
            eprintln!("{error:#}");
        }
    }
    for dir in dirs {
        if let Err(error) = remove_dir(&dir) {
            eprintln!("{error:#}");
        }
    }
}
