//! The directory of a testbed: configuration, logs, sockets, pages and, where a test wants one, a bpffs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, mount};

use crate::cleanup::{self, register};

/// A temporary directory that goes on drop, with everything mounted beneath it (by the daemon, too).
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
}

impl RunDir {
    /// Makes the directory under the system's temporary directory.
    ///
    /// # Errors
    /// As [`cleanup::prepare`], and when the directory cannot be made.
    pub fn new() -> Result<Self> {
        cleanup::prepare()?;
        let mut register = register();
        register.open()?;
        let path = tempfile::Builder::new()
            .prefix(&cleanup::prefix())
            .tempdir()
            .context("making a temporary directory")?
            // From here on the guard below removes it: it knows of mounts.
            .keep();
        register.add_dir(&path)?;
        Ok(Self { path })
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file in it.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file in it and returns its path.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.file(name);
        fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// Makes a directory in it, with its parents.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn subdir(&self, name: &str) -> Result<PathBuf> {
        let path = self.file(name);
        fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(path)
    }

    /// Mounts a bpffs on the directory `name` in it. The mount, and with it every pin, goes on drop.
    ///
    /// # Errors
    /// When the directory cannot be made or the kernel refuses the mount.
    pub fn bpffs(&self, name: &str) -> Result<PathBuf> {
        let path = self.subdir(name)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("bpf", &path, "bpf", flags, Some(c"mode=0700"))
            .with_context(|| format!("mounting a bpffs on {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if let Err(error) = register().remove_dir(&self.path) {
            eprintln!("testbed: {error:#}");
        }
    }
}
