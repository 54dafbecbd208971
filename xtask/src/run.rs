//! Running other programs, and saying so. What is run is decided elsewhere.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, bail};

/// Something this machine lacks and only its owner can provide; the text says what to do.
#[derive(Debug)]
pub(crate) struct Needs(pub(crate) String);

impl fmt::Display for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Needs {}

/// The workspace's root directory.
pub(crate) fn root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// Where host builds end up.
pub(crate) fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// One line of progress.
pub(crate) fn say(text: impl fmt::Display) {
    eprintln!("xtask: {text}");
}

/// The cargo that started us, at the workspace's root.
pub(crate) fn cargo(subcommand: &str) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).arg(subcommand);
    command
}

/// Runs a command to its end; an error when it cannot start or fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", words(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", words(command));
    }
    Ok(())
}

/// A command as one would type it.
pub(crate) fn words(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    std::iter::once(program).chain(command.get_args()).map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Whether a program is installed; the system directories count also where they are not on `PATH`.
pub(crate) fn is_installed(program: &str) -> bool {
    find(program).is_ok()
}

/// Whether we run as root.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// Refuses to go on without root, saying why and how.
///
/// # Errors
/// [`Needs`], when we are not root.
pub(crate) fn require_root(command: &str) -> Result<()> {
    if is_root() {
        return Ok(());
    }
    bail!(Needs(format!(
        "`cargo xtask {command}` must run as root: it loads BPF programs and makes network namespaces. Run it in a root \
         shell whose PATH has cargo, for example: sudo --preserve-env=PATH,CARGO_HOME,RUSTUP_HOME cargo xtask {command}"
    )))
}

/// Whether a file's content is a program or library.
pub(crate) fn is_elf(content: &[u8]) -> bool {
    content.starts_with(b"\x7fELF")
}

/// Where a program is that is installed.
///
/// # Errors
/// When it is not.
pub(crate) fn find(program: &str) -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    let mut files = env::split_paths(&path).chain(system).map(|dir| dir.join(program));
    files.find(|file| file.is_file()).with_context(|| format!("{program} is not installed"))
}
