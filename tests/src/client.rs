//! The HTTP client: one TCP connection, requests on it, and answers checked to the last byte. It never retries and
//! never reconnects, so that a broken connection is seen.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONNECTION, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpSocket;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::body;
use crate::host;
use crate::netns::Namespace;
use crate::servers::Site;

/// Deadline of a connection's setup, and of each request of [`download`], [`upload`] and [`fetch`].
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Pages that every nginx of the testbed has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// `/`: a few bytes.
    Small,
    /// `/big`: above 1 MiB.
    Big,
    /// `/stream`: 8 MiB at 64 KiB/s, so that its connection is busy for two minutes.
    Stream,
}

impl Page {
    /// Its path.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Small => "/",
            Self::Big => "/big",
            Self::Stream => "/stream",
        }
    }

    /// Its length in bytes.
    #[must_use]
    pub const fn length(self) -> usize {
        match self {
            Self::Small => body::SMALL.len(),
            Self::Big => body::BIG,
            Self::Stream => body::STREAM,
        }
    }

    /// Position of the first wrong byte of a part that starts at `offset`.
    fn mismatch(self, offset: usize, part: &[u8]) -> Option<usize> {
        let seed = match self {
            Self::Small => {
                let wrong = |(position, found): &(usize, &u8)| body::SMALL.get(*position) != Some(*found);
                return (offset..).zip(part).find(wrong).map(|(position, _)| position);
            }
            Self::Big => body::BIG_SEED,
            Self::Stream => body::STREAM_SEED,
        };
        if offset + part.len() > self.length() {
            return Some(self.length());
        }
        body::mismatch(seed, offset as u64, part).and_then(|at| usize::try_from(at).ok())
    }
}

/// What went wrong with a connection or a request; numbers of the counters in [`crate::load`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// No answer to the SYN in time.
    ConnectTimeout,
    /// The SYN was refused.
    Refused,
    /// Unreachable, no free port, or another error of the client's own kernel.
    Unreachable,
    /// The connection was reset.
    Reset,
    /// The connection was closed before the answer was complete.
    Closed,
    /// The answer was not complete in time.
    Timeout,
    /// A status other than success.
    Status,
    /// A body other than the expected one.
    Body,
    /// Answered by another service than the one asked, or by another site than before on the same connection.
    Stranger,
    /// Not HTTP.
    Protocol,
    /// Not started: the load generator had as many connections open as it was allowed.
    Overrun,
}

impl Kind {
    /// All kinds, in order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::ConnectTimeout,
        Self::Refused,
        Self::Unreachable,
        Self::Reset,
        Self::Closed,
        Self::Timeout,
        Self::Status,
        Self::Body,
        Self::Stranger,
        Self::Protocol,
        Self::Overrun,
    ];
}

/// A failed connection or request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What kind.
    pub kind: Kind,
    /// In words.
    pub text: String,
}

impl Failure {
    fn new(kind: Kind, text: impl fmt::Display) -> Self {
        Self { kind, text: text.to_string() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.text)
    }
}

impl std::error::Error for Failure {}

/// A complete and correct answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Which site answered, if it said.
    pub site: Option<Site>,
    /// Which service answered, if it said.
    pub service: Option<String>,
    /// Length of the body in bytes.
    pub length: usize,
}

/// One TCP connection.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
    host: String,
    /// Client's address and port.
    pub local: SocketAddr,
    /// Server's address and port.
    pub remote: SocketAddr,
}

impl Connection {
    /// Connects, from `source` or from the address that the routing table picks. The calling thread's namespace
    /// counts.
    ///
    /// # Errors
    /// When there is no connection within `patience`.
    pub async fn open(source: Option<IpAddr>, remote: SocketAddr, patience: Duration) -> Result<Self, Failure> {
        let socket = if remote.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        let socket = socket.map_err(|error| Failure::new(Kind::Unreachable, error))?;
        if let Some(source) = source {
            socket.bind(SocketAddr::new(source, 0)).map_err(|error| Failure::new(Kind::Unreachable, error))?;
        }
        let stream = match timeout(patience * host::slowness(), socket.connect(remote)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(Failure::new(io_kind(&error), format!("connecting to {remote}: {error}"))),
            Err(_) => return Err(Failure::new(Kind::ConnectTimeout, format!("connecting to {remote}: {patience:?}"))),
        };
        let unreachable = |error: std::io::Error| Failure::new(Kind::Unreachable, error);
        stream.set_nodelay(true).map_err(unreachable)?;
        let local = stream.local_addr().map_err(unreachable)?;
        let (sender, driver) = handshake(TokioIo::new(stream)).await.map_err(|error| hyper_failure(&error))?;
        // The driver's error is told by the request that it ends.
        let driver = tokio::spawn(async move { drop(driver.await) });
        Ok(Self { sender, driver, host: remote.to_string(), local, remote })
    }

    /// Asks for a page and checks every byte of it. `last` asks the server to close after it: the side that closes
    /// first keeps the port in TIME_WAIT, and that should be the server's.
    ///
    /// # Errors
    /// When the answer is not complete and correct within `patience`.
    pub async fn get(&mut self, page: Page, last: bool, patience: Duration) -> Result<Answer, Failure> {
        let request = self.request(Method::GET, page.path(), last, Bytes::new())?;
        let work = async {
            let (mut answer, mut body) = self.send(request).await?;
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| hyper_failure(&error))?;
                let Some(data) = frame.data_ref() else { continue };
                if let Some(at) = page.mismatch(answer.length, data) {
                    return Err(Failure::new(Kind::Body, format!("{}: byte {at} is wrong", page.path())));
                }
                answer.length += data.len();
            }
            if answer.length != page.length() {
                let text = format!("{}: {} of {} bytes", page.path(), answer.length, page.length());
                return Err(Failure::new(Kind::Body, text));
            }
            Ok(answer)
        };
        in_time(patience, work).await
    }

    /// Sends a request with a body; answers the answer's body, too.
    ///
    /// # Errors
    /// When the answer is not complete and successful within `patience`.
    pub async fn ask(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
        patience: Duration,
    ) -> Result<(Answer, Bytes), Failure> {
        let request = self.request(method, path, false, body)?;
        let work = async {
            let (mut answer, body) = self.send(request).await?;
            let body = body.collect().await.map_err(|error| hyper_failure(&error))?.to_bytes();
            answer.length = body.len();
            Ok((answer, body))
        };
        in_time(patience, work).await
    }

    fn request(&self, method: Method, path: &str, last: bool, body: Bytes) -> Result<Request<Full<Bytes>>, Failure> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, &self.host);
        if last {
            request = request.header(CONNECTION, "close");
        }
        request.body(Full::new(body)).map_err(|error| Failure::new(Kind::Protocol, error))
    }

    /// Sends a request and reads the answer's head.
    async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<(Answer, Incoming), Failure> {
        let what = format!("{} {}", request.method(), request.uri());
        // After a last answer the driver may not have noticed that the connection can take another request.
        self.sender.ready().await.map_err(|error| hyper_failure(&error))?;
        let response = self.sender.send_request(request).await.map_err(|error| hyper_failure(&error))?;
        if !response.status().is_success() {
            return Err(Failure::new(Kind::Status, format!("{what}: {}", response.status())));
        }
        let site = header(&response, "x-served-by").and_then(Site::from_name);
        let service = header(&response, "x-service").map(str::to_owned);
        Ok((Answer { site, service, length: 0 }, response.into_body()))
    }

    /// Waits until the connection is closed, in order or not.
    pub async fn closed(self) {
        drop(self.sender);
        // A cancelled or panicked driver has closed its socket, too.
        let _ = self.driver.await;
    }
}

fn header<'a>(response: &'a Response<Incoming>, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

async fn in_time<T>(patience: Duration, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    timeout(patience * host::slowness(), work)
        .await
        .unwrap_or_else(|_| Err(Failure::new(Kind::Timeout, format!("after {patience:?}"))))
}

fn io_kind(error: &std::io::Error) -> Kind {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => Kind::Refused,
        std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe => Kind::Reset,
        std::io::ErrorKind::UnexpectedEof => Kind::Closed,
        // The kernel gave up retransmitting.
        std::io::ErrorKind::TimedOut => Kind::Timeout,
        _ => Kind::Unreachable,
    }
}

fn hyper_failure(error: &hyper::Error) -> Failure {
    let mut text = error.to_string();
    let mut kind = if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        Kind::Closed
    } else {
        Kind::Protocol
    };
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            kind = io_kind(io);
        }
        source = cause.source();
    }
    Failure::new(kind, text)
}

/// A body moved in one direction, byte-exact.
#[derive(Clone, Debug, PartialEq)]
pub struct Transfer {
    /// Which site served it.
    pub site: Option<Site>,
    /// Which service served it.
    pub service: Option<String>,
    /// Bytes moved.
    pub length: usize,
    /// How long it took, connection setup included.
    pub took: Duration,
}

/// Runs asynchronous client code in a namespace to its end, on a thread and runtime of its own.
///
/// # Errors
/// When the thread or the runtime cannot be made.
pub fn run<T: Send>(namespace: &Namespace, work: impl Future<Output = T> + Send) -> Result<T> {
    namespace.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.context("a runtime").map(|runtime| runtime.block_on(work))
    })?
}

/// Downloads `/big` (above 1 MiB) over one new connection.
///
/// # Errors
/// When a byte is missing or wrong, or it takes more than [`PATIENCE`].
pub fn download(namespace: &Namespace, source: Option<IpAddr>, server: SocketAddr) -> Result<Transfer> {
    run(namespace, async {
        let start = Instant::now();
        let mut connection = Connection::open(source, server, PATIENCE).await?;
        let Answer { site, service, length } = connection.get(Page::Big, true, PATIENCE).await?;
        Ok(Transfer { site, service, length, took: start.elapsed() })
    })?
    .map_err(|failure: Failure| anyhow::Error::new(failure).context(format!("downloading from {server}")))
}

/// Uploads a body above 1 MiB over one new connection. What arrived is read back over the same connection, so that
/// it is the same server's, compared, and deleted.
///
/// # Errors
/// When a byte is missing or wrong, or a step takes more than [`PATIENCE`].
pub fn upload(namespace: &Namespace, source: Option<IpAddr>, server: SocketAddr) -> Result<Transfer> {
    run(namespace, async {
        let start = Instant::now();
        let mut connection = Connection::open(source, server, PATIENCE).await?;
        let opened = start.elapsed();
        let transfer = upload_over(&mut connection).await?;
        anyhow::Ok(Transfer { took: opened + transfer.took, ..transfer })
    })?
    .with_context(|| format!("uploading to {server}"))
}

/// The same over a connection that is open already.
///
/// # Errors
/// As [`upload`].
pub async fn upload_over(connection: &mut Connection) -> Result<Transfer> {
    /// Names and fills uploads of this process, so that none is mistaken for another.
    static NEXT: AtomicU64 = AtomicU64::new(1000);
    let seed = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = format!("/upload/{}-{seed}", std::process::id());
    let body = Bytes::from(body::bytes(seed, body::BIG));
    let start = Instant::now();
    let (Answer { site, service, .. }, _) = connection.ask(Method::PUT, &path, body, PATIENCE).await?;
    let took = start.elapsed();
    let (_, stored) = connection.ask(Method::GET, &path, Bytes::new(), PATIENCE).await?;
    ensure!(stored.len() == body::BIG, "{} of {} bytes arrived", stored.len(), body::BIG);
    if let Some(at) = body::mismatch(seed, 0, &stored) {
        anyhow::bail!("byte {at} arrived wrong");
    }
    connection.ask(Method::DELETE, &path, Bytes::new(), PATIENCE).await?;
    Ok(Transfer { site, service, length: stored.len(), took })
}

/// A text at a path, over one new connection.
///
/// # Errors
/// When the answer is not complete and successful within [`PATIENCE`].
pub fn fetch(namespace: &Namespace, server: SocketAddr, path: &str) -> Result<String> {
    let (_, body) = run(namespace, async {
        let mut connection = Connection::open(None, server, PATIENCE).await?;
        connection.ask(Method::GET, path, Bytes::new(), PATIENCE).await
    })?
    .with_context(|| format!("fetching {path} from {server}"))?;
    String::from_utf8(body.to_vec()).context("the answer is no text")
}
