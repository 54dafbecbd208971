//! The Unix socket, made so that nobody gets in before its permissions are set and no running daemon loses its own.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::UnixListener;

use crate::kernel::PRIVILEGES;

/// Owner and group may connect, nobody else.
const MODE: u32 = 0o660;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;

/// Why the socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A daemon answers on it.
    #[error("another burst daemon is running: it answers on {}; stop it first", path.display())]
    Running {
        /// The socket.
        path: PathBuf,
    },
    /// Something else is in its place.
    #[error("{} exists and is no socket; move it away, or set edge.socket to another path", path.display())]
    NotASocket {
        /// What is there.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot {what} {}: {source}{}", path.display(), privileges(source))]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// What to do when the system refused for lack of privilege, on a line of its own.
fn privileges(error: &io::Error) -> String {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return String::new();
    }
    format!("\n  fix: {PRIVILEGES}; the latter needs an `edge.socket` where its user may write")
}

/// A bound socket, with its file; the file is removed when this is dropped, if it is still the same.
#[derive(Debug)]
pub struct Socket {
    pub(super) listener: Option<UnixListener>,
    path: PathBuf,
    /// Device and inode of the file.
    file: (u64, u64),
}

/// How often, and with which pause, another starting daemon is waited for.
const TURNS: u32 = 50;
const TURN: Duration = Duration::from_millis(20);

impl Socket {
    /// Binds and listens, mode 0660; makes the directory it is in, removes a socket that nobody answers on. Must be
    /// called within a tokio runtime.
    ///
    /// # Errors
    /// When a daemon answers on it, when what is there is no socket, or when the system refuses.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let failed = |what, at: &Path| {
            let path = at.to_owned();
            move |error: io::Error| BindError::Io { what, path, source: error }
        };
        let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o755).create(directory).map_err(failed("make the directory", directory))?;
        // Two daemons that start at once take turns here, so that neither takes the other's fresh socket for a stale one.
        let turn = File::open(directory).map_err(failed("open the directory", directory))?;
        // Whoever can open the directory can hold this lock: it is waited for, but not for ever. The lock of the pins, which
        // is root's alone, still lets only one daemon through.
        let busy = || rustix::fs::flock(&turn, FlockOperation::NonBlockingLockExclusive).is_err();
        if (0..TURNS).all(|_| {
            busy() && {
                std::thread::sleep(TURN);
                true
            }
        }) {
            tracing::warn!(directory = %directory.display(), "somebody holds a lock on the socket's directory");
        }
        Self::clear(path)?;
        let socket = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
        .map_err(|e| failed("make the socket", path)(e.into()))?;
        // Linux gives the file the mode of the socket, less the umask (unix_bind_bsd in net/unix/af_unix.c): it never
        // exists with more permissions than these.
        rustix::fs::fchmod(&socket, Mode::from_raw_mode(MODE))
            .map_err(|e| failed("set the mode of", path)(e.into()))?;
        let address = SocketAddrUnix::new(path).map_err(|e| failed("bind", path)(e.into()))?;
        rustix::net::bind(&socket, &address).map_err(|e| failed("bind", path)(e.into()))?;
        let mode = std::fs::Permissions::from_mode(MODE);
        std::fs::set_permissions(path, mode).map_err(failed("set the mode of", path))?;
        rustix::net::listen(&socket, BACKLOG).map_err(|e| failed("listen on", path)(e.into()))?;
        let file = std::fs::symlink_metadata(path).map_err(failed("look at", path))?;
        let listener = UnixListener::from_std(socket.into()).map_err(failed("listen on", path))?;
        Ok(Self { listener: Some(listener), path: path.to_owned(), file: (file.dev(), file.ino()) })
    }

    /// Removes a socket that nobody answers on.
    fn clear(path: &Path) -> Result<(), BindError> {
        let failed = |what| move |source| BindError::Io { what, path: path.to_owned(), source };
        match std::fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed("look at")(error)),
            Ok(file) if !file.file_type().is_socket() => return Err(BindError::NotASocket { path: path.to_owned() }),
            Ok(_) => {}
        }
        match UnixStream::connect(path) {
            // The kernel answers for a daemon that hangs, too: its backlog takes the connection, or is full (EAGAIN).
            Ok(_) => Err(BindError::Running { path: path.to_owned() }),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(BindError::Running { path: path.to_owned() })
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path).map_err(failed("remove the stale socket"))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed("connect to")(error)),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let same = std::fs::symlink_metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == self.file);
        if same && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "the socket's file stays behind");
        }
    }
}
