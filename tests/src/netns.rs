//! A network namespace as a guard: code and programs run in it, and it goes when the guard is dropped.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::cleanup::{self, NETNS_DIR, register};

/// Numbers the namespaces of this process, so that testbeds in one process do not meet.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A named network namespace, `burst-PID-NUMBER-ROLE`.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    /// Keeps the namespace reachable for children between fork and exec.
    handle: Arc<File>,
}

impl Namespace {
    /// Makes a namespace for `role` (lower case, no spaces), with its loopback up and without IPv6 duplicate address
    /// detection, which would keep new addresses unusable for a second.
    ///
    /// # Errors
    /// As [`cleanup::prepare`], and when the namespace cannot be made or set up.
    pub fn new(role: &str) -> Result<Self> {
        cleanup::prepare()?;
        let name = format!("{}{}-{role}", cleanup::prefix(), NEXT.fetch_add(1, Ordering::Relaxed));
        // Under the lock: a signal finds either no namespace or a registered one.
        let mut register = register();
        register.add_namespace(&name)?;
        finish("ip netns add", Command::new("ip").args(["netns", "add", &name]), "")?;
        let path = Path::new(NETNS_DIR).join(&name);
        let handle = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        drop(register);
        let namespace = Self { name, handle: Arc::new(handle) };
        namespace.sysctl(&[
            ("net/ipv6/conf/all/accept_dad", "0"),
            ("net/ipv6/conf/default/accept_dad", "0"),
            ("net/ipv6/conf/default/accept_ra", "0"),
        ])?;
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Its name, as `ip netns` and `ip -n` take it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Moves the calling thread into the namespace, for good. Only for threads made for this.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn enter(&self) -> Result<()> {
        move_into_link_name_space(self.handle.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("entering namespace {}", self.name))
    }

    /// Another handle of the namespace, for threads that outlive this borrow.
    ///
    /// It keeps the namespace (not its name) alive: drop it with the thread.
    pub(crate) fn handle(&self) -> Arc<File> {
        Arc::clone(&self.handle)
    }

    /// Runs `work` in the namespace, on a thread of its own. A panic in it goes on in the caller.
    ///
    /// # Errors
    /// When the thread cannot be made or the namespace not be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let inside = || self.enter().map(|()| work());
            let thread = std::thread::Builder::new()
                .name(self.name.clone())
                .spawn_scoped(scope, inside)
                .context("a thread for work in a namespace")?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A command that will run in the namespace. Unlike `ip netns exec` it leaves the mounts alone, so that a bpffs
    /// stays visible.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let handle = self.handle();
        let enter = move || {
            move_into_link_name_space(handle.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(())
        };
        // SAFETY: between fork and exec only one system call is made, on a descriptor that the closure keeps open;
        // nothing is allocated and no lock is taken.
        unsafe { command.pre_exec(enter) };
        command
    }

    /// Runs a program in the namespace to its end and returns what it wrote to standard output.
    ///
    /// # Errors
    /// When it cannot be started or fails, with what it wrote to standard error.
    pub fn exec(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let what = format!("{program} {} (in {})", arguments.join(" "), self.name);
        finish(&what, self.command(program).args(arguments), "")
    }

    /// Runs `ip` commands, one per line (without the word `ip`), in the namespace; stops at the first that fails.
    ///
    /// # Errors
    /// When one fails, with the line and the reason.
    pub fn ip(&self, script: &str) -> Result<()> {
        let what = format!("ip -n {} -batch, of:\n{}\n", self.name, script.trim_end());
        finish(&what, Command::new("ip").args(["-n", &self.name, "-batch", "-"]), script)?;
        Ok(())
    }

    /// Sets sysctls of the namespace: (path below /proc/sys, value).
    ///
    /// # Errors
    /// When one cannot be written, with its name.
    pub fn sysctl(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.run(|| {
            for (key, value) in settings {
                let path = Path::new("/proc/sys").join(key);
                std::fs::write(&path, value).with_context(|| format!("writing {value} to {}", path.display()))?;
            }
            Ok(())
        })?
    }

    /// Index of a device of the namespace.
    ///
    /// # Errors
    /// When there is no such device.
    pub fn ifindex(&self, device: &str) -> Result<u32> {
        let index = self.run(|| {
            let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
            rustix::net::netdevice::name_to_index(socket, device)
        })?;
        index.with_context(|| format!("no device {device} in {}", self.name))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = register().remove_namespace(&self.name) {
            eprintln!("testbed: {error:#}");
        }
    }
}

/// Runs a command to its end with `input` on standard input.
fn finish(what: &str, command: &mut Command, input: &str) -> Result<String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("starting {what}"))?;
    let written = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
    let mut output = String::new();
    child.stdout.take().map(|mut stdout| stdout.read_to_string(&mut output)).transpose().context("reading output")?;
    let rest = child.wait_with_output().with_context(|| format!("waiting for {what}"))?;
    if !rest.status.success() {
        bail!("{what}: {}: {}", rest.status, String::from_utf8_lossy(&rest.stderr).trim());
    }
    written.transpose().with_context(|| format!("writing to {what}"))?;
    Ok(output)
}
