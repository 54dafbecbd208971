//! The API over a real socket: the real server, the real client, and bytes that no client of ours would send.

#![expect(clippy::disallowed_methods, reason = "the test times how long stopping takes")]

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use burst::api::change::{Plan, PlanRequest, ReloadRequest, ReloadResponse};
use burst::api::types::{
    BypassRequest, BypassResponse, Mode, Override, OverrideRequest, OverrideResponse, Running, Status, VERSION,
};
use burst::api::{ApiError, BindError, Client, ClientError, Code, Command, Peer, Socket, serve};
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

const DEADLINE: Duration = Duration::from_secs(10);

fn status() -> Status {
    Status {
        version: VERSION,
        burst: "0.1.0".into(),
        edge: "edge-a1".into(),
        mode: Mode::Active,
        bypass: false,
        config: Default::default(),
        pid: 4711,
        uptime_s: 1.5,
        classes: vec![],
        links: vec![],
        clients: vec![],
        gateways: vec![],
        other: vec![],
        events: burst::api::types::Events::default(),
        warnings: vec![],
    }
}

fn order() -> OverrideRequest {
    OverrideRequest { offsite: 0.4, for_s: 1800, reason: "new-year push".into() }
}

/// A server on a socket of its own, with a task that decides: it knows the class "promo shop", keeps "payment", and
/// notes who asked.
struct Daemon {
    directory: TempDir,
    socket: PathBuf,
    status: watch::Sender<Arc<Status>>,
    peers: mpsc::UnboundedReceiver<Peer>,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<()>,
}

impl Daemon {
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("run/burst.sock");
        let bound = Socket::bind(&socket).expect("bound");
        let (publish, snapshot) = watch::channel(Arc::new(status()));
        let (commands, mut received) = mpsc::channel(4);
        let (noted, peers) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut present: Option<Override> = None;
            while let Some(command) = received.recv().await {
                let (class, peer, next, reply) = match command {
                    Command::Override { class, request, peer, reply } => {
                        let OverrideRequest { offsite, for_s, reason } = request;
                        (class, peer, Some(Override { offsite, reason, uid: peer.uid, remaining_s: for_s }), reply)
                    }
                    Command::ClearOverride { class, peer, reply } => (class, peer, None, reply),
                    Command::Plan { request, reply } => {
                        let plan = Plan { file: request.file.unwrap_or_default(), ..Plan::default() };
                        reply.send(Ok(plan)).expect("the request waits");
                        continue;
                    }
                    Command::Reload { request, peer, reply } => {
                        noted.send(peer).expect("the test listens");
                        let config = Running { generation: request.confirm_s.unwrap_or(0), ..Running::default() };
                        let response = ReloadResponse { plan: Plan::default(), config };
                        reply.send(Ok(response)).expect("the request waits");
                        continue;
                    }
                    Command::Confirm { reply, .. } => {
                        let nothing = ApiError::new(Code::NothingToConfirm, "nothing", "wait");
                        reply.send(Err(nothing)).expect("the request waits");
                        continue;
                    }
                    Command::Bypass { request, peer, reply } => {
                        noted.send(peer).expect("the test listens");
                        reply.send(Ok(BypassResponse { on: request.on, was: false })).expect("the request waits");
                        continue;
                    }
                };
                noted.send(peer).expect("the test listens");
                let answer = match class.as_str() {
                    "promo shop" => {
                        let previous = std::mem::replace(&mut present, next);
                        Ok(OverrideResponse { class, ordered: present.clone(), previous, max_offsite: None })
                    }
                    "payment" => Err(ApiError::keep_class(&class)),
                    _ => Err(ApiError::unknown_class(&class, ["promo shop"])),
                };
                reply.send(answer).expect("the request waits");
            }
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(serve(bound, snapshot, commands, async move {
            let _ = stopped.await;
        }));
        Self { directory, socket, status: publish, peers, stop: Some(stop), server }
    }

    fn client(&self) -> Client {
        Client::new(&self.socket, DEADLINE)
    }

    /// Sends bytes as they are and reads until the server closes: status line and body.
    async fn raw(&self, request: String) -> (String, String) {
        let socket = self.socket.clone();
        let exchange = move || {
            let mut stream = UnixStream::connect(socket).expect("connected");
            stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
            stream.write_all(request.as_bytes()).expect("sent");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("an answer");
            answer
        };
        let answer = tokio::task::spawn_blocking(exchange).await.expect("the exchange");
        let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
        (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
    }

    async fn request(&self, method: &str, path: &str, body: &str) -> (String, ApiError) {
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n");
        let (line, answer) = self.raw(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())).await;
        let error = serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{line}: {answer:?}: {error}"));
        (line, error)
    }
}

#[tokio::test]
async fn status_is_the_latest_that_was_published() {
    let daemon = Daemon::start();
    assert_eq!(daemon.client().status().await.expect("status"), status());
    let later = Status { uptime_s: 99.0, ..status() };
    daemon.status.send_replace(Arc::new(later.clone()));
    assert_eq!(daemon.client().status().await.expect("status"), later);
    let health = daemon.client().health().await.expect("health");
    assert_eq!((health.edge.as_str(), health.pid), ("edge-a1", std::process::id()));
}

#[tokio::test]
async fn an_order_reaches_the_task_with_its_class_values_and_giver() {
    let mut daemon = Daemon::start();
    let set = daemon.client().set_override("promo shop", &order()).await.expect("taken");
    let uid = rustix::process::geteuid().as_raw();
    let ordered = Override { offsite: 0.4, reason: "new-year push".into(), uid, remaining_s: 1800 };
    assert_eq!(
        set,
        OverrideResponse {
            class: "promo shop".into(),
            ordered: Some(ordered.clone()),
            previous: None,
            max_offsite: None
        }
    );
    let pid = i32::try_from(std::process::id()).expect("a process id");
    let peer = daemon.peers.recv().await.expect("noted");
    assert_eq!((peer.uid, peer.pid), (uid, Some(pid)));
    let cleared = daemon.client().clear_override("promo shop").await.expect("taken");
    assert_eq!(
        cleared,
        OverrideResponse { class: "promo shop".into(), ordered: None, previous: Some(ordered), max_offsite: None }
    );
}

#[tokio::test]
async fn bypass_reaches_the_task_with_who_asks() {
    let mut daemon = Daemon::start();
    let done = daemon.client().bypass(&BypassRequest { on: true, lapses_s: Some(1) }).await.expect("done");
    assert_eq!(done, BypassResponse { on: true, was: false });
    assert_eq!(daemon.peers.recv().await.expect("noted").uid, rustix::process::geteuid().as_raw());
}

#[tokio::test]
async fn a_configuration_is_larger_than_an_order_and_reloads_know_who_asks() {
    let mut daemon = Daemon::start();
    let request = |bytes: usize| PlanRequest { text: Some("#".repeat(bytes)), file: Some("burst.toml".into()) };
    let plan = daemon.client().plan(&request(1 << 20)).await.expect("answered");
    assert_eq!(plan.file, "burst.toml");
    match daemon.client().plan(&request(5 << 20)).await {
        Err(ClientError::Api(error)) => assert_eq!(error.code, Code::BodyTooLarge),
        // The server stops reading, and the client may see that first.
        Err(ClientError::Broken { .. }) => {}
        other => panic!("{other:?}"),
    }
    let reloaded = daemon.client().reload(&ReloadRequest { confirm_s: Some(300) }).await.expect("answered");
    assert_eq!(reloaded.config.generation, 300);
    assert_eq!(daemon.peers.recv().await.expect("noted").uid, rustix::process::geteuid().as_raw());
}

#[tokio::test]
async fn what_the_task_refuses_comes_back_as_it_said() {
    let daemon = Daemon::start();
    let error = |result: Result<OverrideResponse, ClientError>| match result {
        Err(ClientError::Api(error)) => error,
        other => panic!("{other:?}"),
    };
    let unknown = error(daemon.client().set_override("nope", &order()).await);
    assert_eq!(unknown.to_string(), "there is no class \"nope\" (classes that can be shifted: promo shop)");
    assert_eq!(error(daemon.client().clear_override("payment").await).code, Code::KeepClass);
    let bad = error(daemon.client().set_override("promo shop", &OverrideRequest { offsite: 1.5, ..order() }).await);
    assert_eq!((bad.code, bad.message.as_str()), (Code::BadValue, "offsite is 1.5"));
}

#[tokio::test]
async fn every_refusal_is_json_with_its_own_status() {
    let daemon = Daemon::start();
    let put = "/v1/classes/promo/override";
    let large = format!(r#"{{"offsite":0.4,"for_s":1,"reason":"{}"}}"#, "x".repeat(20_000));
    for (method, path, body, line, code) in [
        ("PUT", put, "{", "HTTP/1.1 400 Bad Request", Code::BadJson),
        ("PUT", put, "", "HTTP/1.1 400 Bad Request", Code::BadJson),
        ("PUT", put, r#"{"offsite":"40%","for_s":1,"reason":"x"}"#, "HTTP/1.1 400 Bad Request", Code::BadJson),
        ("PUT", put, r#"{"offsite":0.4,"for_s":1,"reason":"x","more":1}"#, "HTTP/1.1 400 Bad Request", Code::BadJson),
        ("PUT", put, r#"{"offsite":2,"for_s":1,"reason":"x"}"#, "HTTP/1.1 422 Unprocessable Entity", Code::BadValue),
        ("PUT", put, &large, "HTTP/1.1 413 Payload Too Large", Code::BodyTooLarge),
        ("PUT", put, r#"{"offsite":0.4,"for_s":1,"reason":"x"}"#, "HTTP/1.1 404 Not Found", Code::UnknownClass),
        ("DELETE", "/v1/classes/payment/override", "", "HTTP/1.1 409 Conflict", Code::KeepClass),
        ("DELETE", "/v1/classes/%ff/override", "", "HTTP/1.1 422 Unprocessable Entity", Code::BadValue),
        ("POST", "/v1/bypass", r#"{"on":1}"#, "HTTP/1.1 400 Bad Request", Code::BadJson),
        ("POST", "/v1/reload", r#"{"confirm_s":0}"#, "HTTP/1.1 422 Unprocessable Entity", Code::BadValue),
        ("POST", "/v1/reload", r#"{"confirm_s":86401}"#, "HTTP/1.1 422 Unprocessable Entity", Code::BadValue),
        ("POST", "/v1/confirm", "", "HTTP/1.1 409 Conflict", Code::NothingToConfirm),
        ("GET", "/v1/bypass", "", "HTTP/1.1 405 Method Not Allowed", Code::MethodNotAllowed),
        ("POST", "/v1/status", "", "HTTP/1.1 405 Method Not Allowed", Code::MethodNotAllowed),
        ("GET", "/v2/status", "", "HTTP/1.1 404 Not Found", Code::NotFound),
    ] {
        let (status, error) = daemon.request(method, path, body).await;
        assert_eq!((status.as_str(), error.code), (line, code), "{method} {path} {body:.60}");
        assert!(!error.message.is_empty() && !error.fix.is_empty(), "{error:?}");
    }
}

#[tokio::test]
async fn a_body_without_its_content_type_is_refused() {
    let daemon = Daemon::start();
    let request =
        "PUT /v1/classes/promo/override HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
    let (_, body) = daemon.raw(request.into()).await;
    assert_eq!(serde_json::from_str::<ApiError>(&body).expect("JSON").code, Code::BadJson);
}

#[tokio::test]
async fn only_owner_and_group_get_in_and_the_directory_is_made() {
    let daemon = Daemon::start();
    let mode = |path: &std::path::Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o7777;
    assert_eq!(mode(&daemon.socket), 0o660);
    assert_eq!(mode(&daemon.directory.path().join("run")) & !0o022, 0o755 & !0o022);
}

#[tokio::test]
async fn a_stale_socket_is_replaced() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("burst.sock");
    drop(UnixListener::bind(&path).expect("bound"));
    let refused = Client::new(&path, DEADLINE).status().await.expect_err("nobody listens");
    assert!(matches!(refused, ClientError::NotListening { .. }), "{refused:?}");
    let socket = Socket::bind(&path).expect("the stale one is replaced");
    UnixStream::connect(&path).expect("listens");
    drop(socket);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_second_server_is_refused_and_the_first_goes_on() {
    let daemon = Daemon::start();
    let error = Socket::bind(&daemon.socket).expect_err("the first one answers");
    assert!(matches!(error, BindError::Running { .. }), "{error:?}");
    assert_eq!(daemon.client().status().await.expect("status"), status());
}

#[tokio::test]
async fn a_daemon_that_hangs_still_holds_its_socket() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("burst.sock");
    let hanging = UnixListener::bind(&path).expect("bound");
    let error = Socket::bind(&path).expect_err("somebody listens");
    assert!(matches!(error, BindError::Running { .. }), "{error:?}");
    let deadline = Duration::from_millis(100);
    let late = Client::new(&path, deadline).status().await.expect_err("nobody answers");
    assert!(matches!(late, ClientError::Deadline { .. }), "{late:?}");
    drop(hanging);
}

#[tokio::test]
async fn what_is_no_socket_is_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("burst.sock");
    std::fs::write(&path, "precious").expect("written");
    let error = Socket::bind(&path).expect_err("it is a file");
    assert!(matches!(error, BindError::NotASocket { .. }), "{error:?}");
    assert_eq!(std::fs::read_to_string(&path).expect("still there"), "precious");
}

#[tokio::test]
async fn the_socket_of_a_successor_is_not_removed() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("burst.sock");
    let first = Socket::bind(&path).expect("bound");
    std::fs::remove_file(&path).expect("removed by hand");
    let second = Socket::bind(&path).expect("bound again");
    drop(first);
    UnixStream::connect(second.path()).expect("the second one listens on");
}

#[tokio::test]
async fn a_missing_socket_says_how_to_start() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("none.sock");
    let error = Client::new(&path, DEADLINE).status().await.expect_err("no socket");
    let said = format!(
        "burst is not running here: no socket at {}; start it with burst run -c FILE, or name its socket with --socket. If it ran before, what is pinned goes on shifting; burst detach removes it",
        path.display()
    );
    assert_eq!(error.to_string(), said);
}

#[tokio::test]
async fn what_is_not_burst_is_told_apart() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("other.sock");
    let other = UnixListener::bind(&path).expect("bound");
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = other.accept().expect("a client");
        let mut buffer = [0; 1024];
        let _ = stream.read(&mut buffer).expect("a request");
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").expect("answered");
    });
    let error = Client::new(&path, DEADLINE).status().await.expect_err("not burst");
    assert!(matches!(error, ClientError::Protocol { .. }), "{error:?}");
    answering.join().expect("answered");
}

#[tokio::test]
async fn a_daemon_that_dies_during_a_request_is_no_other_protocol() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("dying.sock");
    let dying = UnixListener::bind(&path).expect("bound");
    for answer in [&b""[..], b"HTTP/1.1 200 OK\r\nContent-", b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{"] {
        let dying = dying.try_clone().expect("the same socket");
        let answering = std::thread::spawn(move || {
            let (mut stream, _) = dying.accept().expect("a client");
            let mut buffer = [0; 1024];
            let _ = stream.read(&mut buffer).expect("a request");
            stream.write_all(answer).expect("answered");
        });
        let error = Client::new(&path, DEADLINE).status().await.expect_err("it died");
        assert!(matches!(error, ClientError::Broken { .. }), "{error:?}");
        answering.join().expect("answered");
    }
}

#[tokio::test]
async fn stopping_waits_for_nobody_for_long_and_removes_the_socket() {
    let mut daemon = Daemon::start();
    // Half a request, and then silence.
    let mut idle = UnixStream::connect(&daemon.socket).expect("connected");
    idle.write_all(b"GET /v1/sta").expect("sent");
    daemon.client().status().await.expect("status");
    let begun = Instant::now();
    daemon.stop.take().expect("once").send(()).expect("it runs");
    daemon.server.await.expect("it ends");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert!(!daemon.socket.exists());
}

#[test]
fn a_user_who_may_not_is_told_how_to() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("burst.sock");
    let _listener = UnixListener::bind(&path).expect("bound");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).expect("closed to all");
    let client = Client::new(&path, DEADLINE);
    let asked = std::thread::spawn(move || {
        if rustix::process::geteuid().is_root() {
            // Root may everything. Only this thread, which ends right after, becomes somebody else ("nobody").
            rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(65534)).expect("another user");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(client.status())
    });
    let error = asked.join().expect("asked").expect_err("no permission");
    assert!(matches!(error, ClientError::Permission { .. }), "{error:?}");
    assert!(
        error
            .to_string()
            .ends_with(&format!("give the socket a group that you are in: chgrp GROUP {}", path.display()))
    );
}
