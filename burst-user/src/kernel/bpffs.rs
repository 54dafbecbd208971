//! The pin directory: a bpffs of burst's own, because `ip netns exec` hides the one under /sys.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock, statfs};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::error::{KernelError, Kind};

/// Magic number of a bpffs (include/uapi/linux/magic.h).
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// What the kernel itself puts into every bpffs (kernel/bpf/preload, CONFIG_BPF_PRELOAD): it goes with the mount.
const OF_THE_KERNEL: [&str; 2] = ["maps.debug", "progs.debug"];

/// Directory of the shared maps.
pub(super) fn maps_dir(pin_dir: &Path) -> PathBuf {
    pin_dir.join("maps")
}

/// Directory of what stands for filters of traffic control, which are nothing that could be pinned.
pub(super) fn filters_dir(pin_dir: &Path) -> PathBuf {
    pin_dir.join("filters")
}

/// Directory of the links.
pub(super) fn links_dir(pin_dir: &Path) -> PathBuf {
    pin_dir.join("links")
}

/// Whether `path` lies on a bpffs; `None` when it is not there.
///
/// # Errors
/// When it cannot be looked at.
pub(super) fn is_bpffs(path: &Path) -> io::Result<Option<bool>> {
    match statfs(path) {
        Ok(stat) => Ok(Some(stat.f_type as u64 == BPF_FS_MAGIC)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What lies in a directory, by name; nothing when it is not there.
///
/// # Errors
/// When it cannot be read.
pub(super) fn entries(dir: &Path) -> io::Result<Vec<fs::DirEntry>> {
    let mut entries: Vec<_> = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed?.collect::<io::Result<_>>()?,
    };
    entries.sort_by_key(fs::DirEntry::file_name);
    Ok(entries)
}

/// How often, and how long apart, a lock that somebody has is asked for again: half a second in all.
const TRIES: u32 = 25;
const PAUSE: Duration = Duration::from_millis(20);

/// Takes the pin directory for this process: whoever writes the maps, or removes them, is alone with them. The lock goes
/// when the file is closed, also by SIGKILL. Others cannot hold it: the directory is root's, mode 0700.
///
/// # Errors
/// When another daemon has it.
pub(super) fn lock(pin_dir: &Path) -> Result<fs::File, KernelError> {
    let dir = fs::File::open(pin_dir).map_err(|error| KernelError::os(pin_dir.display(), &error))?;
    let mut locked = flock(&dir, FlockOperation::NonBlockingLockExclusive);
    // A program that a former holder starts has the descriptor, and with it the lock, from fork until exec.
    for _ in 0..TRIES {
        if locked != Err(Errno::WOULDBLOCK) {
            break;
        }
        std::thread::sleep(PAUSE);
        locked = flock(&dir, FlockOperation::NonBlockingLockExclusive);
    }
    match locked {
        Ok(()) => Ok(dir),
        Err(Errno::WOULDBLOCK) => Err(KernelError::new(
            Kind::Busy,
            format!("another burst daemon works with the pins in {}", pin_dir.display()),
            "stop it first; two daemons need a pin directory each, and devices of their own",
        )),
        Err(error) => Err(KernelError::os(pin_dir.display(), &error.into())),
    }
}

/// Makes the pin directory and mounts a bpffs on it, unless it is one already.
///
/// # Errors
/// When it cannot be made, mounted or written, with what to do.
pub(super) fn prepare(pin_dir: &Path) -> Result<(), KernelError> {
    let failed = |what: &str, error: &dyn std::fmt::Display, errno: Option<i32>| {
        let kind = if matches!(errno, Some(libc::EPERM | libc::EACCES)) { Kind::Permission } else { Kind::State };
        KernelError::new(
            kind,
            format!("the pin directory {}: {what}: {error}", pin_dir.display()),
            "start burst as root once, or set `edge.pin_dir` to a directory that can \
             be written",
        )
    };
    fs::create_dir_all(pin_dir).map_err(|error| failed("cannot be made", &error, error.raw_os_error()))?;
    let unreadable = |error: io::Error| failed("cannot be read", &error, error.raw_os_error());
    if is_bpffs(pin_dir).map_err(unreadable)? != Some(true) {
        if !entries(pin_dir).map_err(unreadable)?.is_empty() {
            return Err(KernelError::new(
                Kind::State,
                format!("the pin directory {} is no bpffs and is not empty", pin_dir.display()),
                "set `edge.pin_dir` to a directory of burst's own",
            ));
        }
        mount("bpf", pin_dir, "bpf", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, Some(c"mode=0700"))
            .map_err(|error| failed("cannot be mounted", &error, Some(error.raw_os_error())))?;
    }
    for dir in [maps_dir(pin_dir), links_dir(pin_dir)] {
        match fs::create_dir(&dir) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed("cannot be written", &error, error.raw_os_error())),
        }
    }
    Ok(())
}

/// Removes what [`prepare`] made, if nothing foreign lies in it: the directories, the mount, the mount point.
pub(super) fn remove(pin_dir: &Path) -> io::Result<()> {
    for dir in [maps_dir(pin_dir), links_dir(pin_dir), filters_dir(pin_dir)] {
        match fs::remove_dir(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let foreign = |entry: &fs::DirEntry| !OF_THE_KERNEL.iter().any(|name| entry.file_name() == *name);
    let empty = !entries(pin_dir)?.iter().any(foreign);
    let own_mount = fs::metadata(pin_dir)
        .ok()
        .zip(pin_dir.parent().and_then(|parent| fs::metadata(parent).ok()))
        .is_some_and(|(dir, parent)| {
            use std::os::unix::fs::MetadataExt;
            dir.dev() != parent.dev()
        });
    if empty && is_bpffs(pin_dir)? == Some(true) && own_mount {
        unmount(pin_dir, UnmountFlags::empty())?;
        fs::remove_dir(pin_dir)?;
    }
    Ok(())
}
