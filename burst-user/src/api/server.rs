//! The server: status from a channel, commands to the task that decides.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, State};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::serve::IncomingStream;
use axum::{Json, Router};
use serde::Serialize;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot, watch};

use super::change::{Plan, PlanRequest, ReloadRequest, ReloadResponse};
use super::error::{ApiError, Code};
use super::socket::Socket;
use super::types::{BypassRequest, BypassResponse, Health, OverrideRequest, OverrideResponse, Running, Status};

/// Largest body of a request in bytes.
const BODY: usize = 16 * 1024;
/// The same of one that holds a configuration.
const CONFIGURATION: usize = 4 << 20;
/// How long a request waits for another configuration to be taken over: programs are loaded for every device.
const LOADING: Duration = Duration::from_secs(60);
/// How long a request waits for the task that decides, which answers within a tick.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long open connections get to finish when the server stops.
const FAREWELL: Duration = Duration::from_secs(1);

/// Who is at the other end of a connection, as the kernel attests (SO_PEERCRED).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Peer {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Process id, as this process sees it; `None` when it cannot.
    pub pid: Option<i32>,
}

/// Where the answer to a command goes.
pub type Reply<T = OverrideResponse> = oneshot::Sender<Result<T, ApiError>>;

/// What the API asks of the task that decides. Values are checked; whether the class exists is for the task to say
/// ([`ApiError::unknown_class`], [`ApiError::keep_class`]).
#[derive(Debug)]
pub enum Command {
    /// An order.
    Override {
        /// Name of the class.
        class: String,
        /// The order.
        request: OverrideRequest,
        /// Who gives it.
        peer: Peer,
        /// Where the answer goes.
        reply: Reply,
    },
    /// Withdraws an order; it is no error when there is none.
    ClearOverride {
        /// Name of the class.
        class: String,
        /// Who withdraws it.
        peer: Peer,
        /// Where the answer goes.
        reply: Reply,
    },
    /// Turns the bypass on or off; it is no error when it is so already.
    Bypass {
        /// Which, and until when it is of use.
        request: BypassRequest,
        /// Who asks.
        peer: Peer,
        /// Where the answer goes.
        reply: Reply<BypassResponse>,
    },
    /// Asks what a reload with another configuration would change.
    Plan {
        /// Which.
        request: PlanRequest,
        /// Where the answer goes.
        reply: Reply<Plan>,
    },
    /// Has the configuration read anew.
    Reload {
        /// Whether it is to be confirmed.
        request: ReloadRequest,
        /// Who asks.
        peer: Peer,
        /// Where the answer goes, when it runs or cannot.
        reply: Reply<ReloadResponse>,
    },
    /// Confirms the last reload.
    Confirm {
        /// Who does.
        peer: Peer,
        /// Where the answer goes.
        reply: Reply<Running>,
    },
}

#[derive(Clone)]
struct Core {
    status: watch::Receiver<Arc<Status>>,
    commands: mpsc::Sender<Command>,
}

#[derive(Clone)]
struct Caller(Option<Peer>);

impl Connected<IncomingStream<'_, UnixListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let peer = stream.io().peer_cred().map(|peer| Peer { uid: peer.uid(), gid: peer.gid(), pid: peer.pid() });
        Self(peer.inspect_err(|error| tracing::warn!(%error, "a connection without credentials")).ok())
    }
}

/// Serves until `shutdown` is ready; then open connections get a second to finish, and the socket's file is removed.
pub async fn serve(
    mut socket: Socket,
    status: watch::Receiver<Arc<Status>>,
    commands: mpsc::Sender<Command>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    let Some(listener) = socket.listener.take() else { return };
    let router = router(Core { status, commands }).into_make_service_with_connect_info::<Caller>();
    let (stopping, stopped) = oneshot::channel();
    let shutdown = async move {
        shutdown.await;
        // The receiver is gone only when nobody serves any more.
        let _ = stopping.send(());
    };
    let serving = axum::serve(listener, router).with_graceful_shutdown(shutdown).into_future();
    let overdue = async {
        let _ = stopped.await;
        tokio::time::sleep(FAREWELL).await;
    };
    tokio::select! {
        // It ends only when it was told to, and never with an error (documented there).
        _ = serving => {}
        () = overdue => tracing::warn!("connections to the API were cut off: they took longer than {FAREWELL:?} to finish"),
    }
}

fn router(core: Core) -> Router {
    Router::new()
        .route("/v1/health", get(health))
        .route("/v1/status", get(status))
        .route("/v1/classes/{class}/override", put(order).delete(withdraw))
        .route("/v1/bypass", post(bypass))
        .route("/v1/plan", post(plan).layer(DefaultBodyLimit::max(CONFIGURATION)))
        .route("/v1/reload", post(reload))
        .route("/v1/confirm", post(confirm))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(BODY))
        .with_state(core)
}

async fn health(State(core): State<Core>) -> Json<Health> {
    let status = core.status.borrow();
    Json(Health {
        version: super::types::VERSION,
        burst: status.burst.clone(),
        edge: status.edge.clone(),
        pid: std::process::id(),
    })
}

async fn status(State(core): State<Core>) -> Response {
    let status = core.status.borrow().clone();
    Json(status.as_ref()).into_response()
}

async fn order(
    State(core): State<Core>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    class: Result<Path<String>, PathRejection>,
    body: Result<Json<OverrideRequest>, JsonRejection>,
) -> Result<Json<OverrideResponse>, ApiError> {
    let (class, peer) = (name(class)?, known(&caller)?);
    let Json(request) = body.map_err(|rejection| bad_body(&rejection, ORDER))?;
    request.check()?;
    ask(&core, |reply| Command::Override { class, request, peer, reply }).await
}

async fn withdraw(
    State(core): State<Core>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    class: Result<Path<String>, PathRejection>,
) -> Result<Json<OverrideResponse>, ApiError> {
    let (class, peer) = (name(class)?, known(&caller)?);
    ask(&core, |reply| Command::ClearOverride { class, peer, reply }).await
}

async fn bypass(
    State(core): State<Core>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    body: Result<Json<BypassRequest>, JsonRejection>,
) -> Result<Json<BypassResponse>, ApiError> {
    let peer = known(&caller)?;
    let Json(request) = body.map_err(|rejection| bad_body(&rejection, r#"{"on": true}"#))?;
    ask(&core, |reply| Command::Bypass { request, peer, reply }).await
}

async fn plan(
    State(core): State<Core>,
    body: Result<Json<PlanRequest>, JsonRejection>,
) -> Result<Json<Plan>, ApiError> {
    let Json(request) = body.map_err(|rejection| bad_body(&rejection, r#"{"text": "version = 1 …"}"#))?;
    ask(&core, |reply| Command::Plan { request, reply }).await
}

async fn reload(
    State(core): State<Core>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    body: Result<Json<ReloadRequest>, JsonRejection>,
) -> Result<Json<ReloadResponse>, ApiError> {
    let peer = known(&caller)?;
    let Json(request) = body.map_err(|rejection| bad_body(&rejection, r#"{"confirm_s": 300}"#))?;
    if request.confirm_s.is_some_and(|seconds| !(1..=ReloadRequest::LONGEST_S).contains(&seconds)) {
        let fix = "give a time between 1 s and 86400 s (a day)";
        return Err(ApiError::new(Code::BadValue, "confirm_s is out of its range", fix));
    }
    ask_for(LOADING, &core, |reply| Command::Reload { request, peer, reply }).await
}

async fn confirm(
    State(core): State<Core>,
    ConnectInfo(caller): ConnectInfo<Caller>,
) -> Result<Json<Running>, ApiError> {
    let peer = known(&caller)?;
    ask(&core, |reply| Command::Confirm { peer, reply }).await
}

async fn not_found(uri: Uri) -> ApiError {
    let fix =
        "paths: /v1/health, /v1/status, /v1/classes/{class}/override, /v1/bypass, /v1/plan, /v1/reload, /v1/confirm";
    ApiError::new(Code::NotFound, format!("there is no {}", uri.path()), fix)
}

async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    let fix = "GET for /v1/health and /v1/status, PUT or DELETE for /v1/classes/{class}/override, POST for all others";
    ApiError::new(Code::MethodNotAllowed, format!("{method} is not for {}", uri.path()), fix)
}

fn name(class: Result<Path<String>, PathRejection>) -> Result<String, ApiError> {
    let fix = "write the class's name percent-encoded in UTF-8";
    class.map(|Path(class)| class).map_err(|rejection| ApiError::new(Code::BadValue, rejection.body_text(), fix))
}

/// An order needs somebody who gave it.
fn known(caller: &Caller) -> Result<Peer, ApiError> {
    let fix = "connect to the Unix socket directly, not through a proxy in another user namespace";
    caller.0.ok_or_else(|| ApiError::new(Code::Internal, "the caller's credentials are not known", fix))
}

/// A body that an order may have.
const ORDER: &str = r#"{"offsite": 0.4, "for_s": 1800, "reason": "why"}"#;

fn bad_body(rejection: &JsonRejection, example: &str) -> ApiError {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        let fix = "send nothing but the fields of the request";
        return ApiError::new(Code::BodyTooLarge, "the body is larger than any request is", fix);
    }
    let fix = format!("send Content-Type: application/json and {example}");
    ApiError::new(Code::BadJson, rejection.body_text(), fix)
}

async fn ask<T>(core: &Core, command: impl FnOnce(Reply<T>) -> Command) -> Result<Json<T>, ApiError> {
    ask_for(PATIENCE, core, command).await
}

async fn ask_for<T>(
    patience: Duration,
    core: &Core,
    command: impl FnOnce(Reply<T>) -> Command,
) -> Result<Json<T>, ApiError> {
    let (reply, answer) = oneshot::channel();
    let exchange = async {
        core.commands.send(command(reply)).await.ok()?;
        answer.await.ok()
    };
    let unavailable = |message: &str, fix| ApiError::new(Code::Unavailable, message, fix);
    match tokio::time::timeout(patience, exchange).await {
        Ok(Some(answer)) => answer.map(Json),
        Ok(None) => Err(unavailable("the daemon is stopping", "try again when it runs")),
        Err(_) => {
            let fix =
                "look at burst status before trying again: the order may have been taken; the daemon's log says why";
            Err(unavailable("the daemon did not answer in time", fix))
        }
    }
}
