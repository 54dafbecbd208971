//! What the testbed asks of the machine: capabilities, programs, open files. It checks and says what to do; it
//! installs nothing.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::CapabilitySet;

/// A program and the Debian package that has it.
pub type Program = (&'static str, &'static str);

/// Programs that every test needs.
pub const TOOLS: [Program; 2] = [("ip", "iproute2"), ("ethtool", "ethtool")];
/// The web server of both sites.
pub const NGINX: Program = ("nginx", "nginx-light");
/// What stands before the premises' servers.
pub const HAPROXY: Program = ("haproxy", "haproxy");

/// Open files for thousands of connections, in this process and its children.
const OPEN_FILES: u64 = 65_536;

/// Checks that the calling thread may make namespaces and links.
///
/// # Errors
/// Without CAP_SYS_ADMIN and CAP_NET_ADMIN. This is a failure and never a skip: a run that tested nothing must not
/// look like one that passed.
pub fn require_privileges() -> Result<()> {
    let sets = rustix::thread::capabilities(None).context("reading this thread's capabilities")?;
    let wanted = CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN;
    if !sets.effective.contains(wanted) {
        bail!(
            "the testbed makes network namespaces and needs root (CAP_SYS_ADMIN and CAP_NET_ADMIN); \
             run it as root: `sudo -E cargo xtask test`"
        );
    }
    Ok(())
}

/// Checks that programs are installed.
///
/// # Errors
/// Names every missing program, its package and how to install it.
pub fn require_programs(programs: &[Program]) -> Result<()> {
    let missing: Vec<_> = programs.iter().filter(|(program, _)| find(program).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let programs = missing.iter().map(|(program, _)| *program).collect::<Vec<_>>().join(", ");
    let packages = missing.iter().map(|(_, package)| *package).collect::<Vec<_>>().join(" ");
    bail!("not installed: {programs}; run `cargo xtask setup`, or `apt-get install {packages}`")
}

/// Where `program` is: PATH first, then the directories of system programs that an unprivileged user's PATH lacks.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

/// Raises the limit of open files to 65,536, or to the hard limit where that is lower and may not be raised.
///
/// # Errors
/// When the limit cannot be set.
pub fn raise_open_files() -> Result<()> {
    let now = getrlimit(Resource::Nofile);
    if now.current.is_none_or(|current| current >= OPEN_FILES) {
        return Ok(());
    }
    let hard = now.maximum.map(|maximum| maximum.max(OPEN_FILES));
    if setrlimit(Resource::Nofile, Rlimit { current: Some(OPEN_FILES), maximum: hard }).is_ok() {
        return Ok(());
    }
    // Raising the hard limit takes CAP_SYS_RESOURCE.
    setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum })
        .context("raising the limit of open files (`ulimit -n`)")
}

/// How many times longer than elsewhere everything may take: `BURST_TEST_SLOWNESS`, which `cargo xtask vm` sets, for its machines
/// are emulated; else 1.
#[must_use]
pub fn slowness() -> u32 {
    std::env::var("BURST_TEST_SLOWNESS").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// The `burst` binary: the file that `BURST_BINARY` names, else the one in the target directory that the running
/// test was built into (same profile).
///
/// # Errors
/// When it is not there; it says how to build it. It is not built here, so build it first (`cargo xtask` does).
pub fn burst_binary() -> Result<PathBuf> {
    let path = match std::env::var_os("BURST_BINARY") {
        Some(path) => PathBuf::from(path),
        None => {
            let own = std::env::current_exe().context("the path of the running program")?;
            // A binary is in the profile's directory itself, tests are in its `deps`, examples in its `examples`.
            let profile = own.ancestors().skip(1).find(|path| !path.ends_with("deps") && !path.ends_with("examples"));
            profile.context("the running program has no directory")?.join("burst")
        }
    };
    if !path.is_file() {
        bail!("no burst binary at {}: run `cargo build -p burst-user`, or set BURST_BINARY", path.display());
    }
    Ok(path)
}
