//! The client that the command line uses.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::change::{Plan, PlanRequest, ReloadRequest, ReloadResponse};
use super::error::ApiError;
use super::types::{BypassRequest, BypassResponse, Health, OverrideRequest, OverrideResponse, Running, Status};

/// Largest answer in bytes: a status of 4096 endpoints is about 2 MB.
const ANSWER: usize = 16 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No socket.
    #[error("burst is not running here: no socket at {}; start it with burst run -c FILE, or name its socket with --socket. If it ran before, what is pinned goes on shifting; burst detach removes it", path.display())]
    NoSocket {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A socket that nobody listens on.
    #[error("burst is not running: nobody listens on {}; it ended without cleaning up. Traffic goes on as it was; start it with burst run -c FILE", path.display())]
    NotListening {
        /// The socket.
        path: PathBuf,
    },
    /// The socket is not for this user.
    #[error("no permission to use {}: its mode lets only its owner and group in; run as root (sudo), or give the socket a group that you are in: chgrp GROUP {}", path.display(), path.display())]
    Permission {
        /// The socket.
        path: PathBuf,
    },
    /// No answer in time.
    #[error("burst did not answer on {} within {deadline:?}; its log says what it is doing", path.display())]
    Deadline {
        /// The socket.
        path: PathBuf,
        /// How long it was waited for.
        deadline: Duration,
    },
    /// The connection broke.
    #[error("the connection to {} broke: {message}", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// How.
        message: String,
    },
    /// What answers is not burst, or a burst of another version.
    #[error("what answers on {} does not speak this version of burst's API: {message}", path.display())]
    Protocol {
        /// The socket.
        path: PathBuf,
        /// What is wrong with the answer.
        message: String,
    },
    /// The daemon says no.
    #[error(transparent)]
    Api(#[from] ApiError),
}

/// A client of the daemon; each request is a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
    deadline: Duration,
}

impl Client {
    /// A client that waits for at most `deadline` from connecting to the last byte of the answer.
    pub fn new(path: impl Into<PathBuf>, deadline: Duration) -> Self {
        Self { path: path.into(), deadline }
    }

    /// The socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `GET /v1/health`.
    ///
    /// # Errors
    /// When nobody answers, or not in time.
    pub async fn health(&self) -> Result<Health, ClientError> {
        self.call(Method::GET, "/v1/health", None::<&()>).await
    }

    /// `GET /v1/status`.
    ///
    /// # Errors
    /// When nobody answers, or not in time.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.call(Method::GET, "/v1/status", None::<&()>).await
    }

    /// `PUT /v1/classes/{class}/override`.
    ///
    /// # Errors
    /// [`ClientError::Api`] when the daemon refuses.
    pub async fn set_override(&self, class: &str, request: &OverrideRequest) -> Result<OverrideResponse, ClientError> {
        self.call(Method::PUT, &override_path(class), Some(request)).await
    }

    /// `DELETE /v1/classes/{class}/override`.
    ///
    /// # Errors
    /// [`ClientError::Api`] when the daemon refuses.
    pub async fn clear_override(&self, class: &str) -> Result<OverrideResponse, ClientError> {
        self.call(Method::DELETE, &override_path(class), None::<&()>).await
    }

    /// `POST /v1/bypass`.
    ///
    /// # Errors
    /// [`ClientError::Api`] when the daemon refuses.
    pub async fn bypass(&self, request: &BypassRequest) -> Result<BypassResponse, ClientError> {
        self.call(Method::POST, "/v1/bypass", Some(request)).await
    }

    /// `POST /v1/plan`.
    ///
    /// # Errors
    /// [`ClientError::Api`] when the configuration is wrong.
    pub async fn plan(&self, request: &PlanRequest) -> Result<Plan, ClientError> {
        self.call(Method::POST, "/v1/plan", Some(request)).await
    }

    /// `POST /v1/reload`.
    ///
    /// # Errors
    /// [`ClientError::Api`] when the configuration is wrong or does not fit, or could not be taken over.
    pub async fn reload(&self, request: &ReloadRequest) -> Result<ReloadResponse, ClientError> {
        self.call(Method::POST, "/v1/reload", Some(request)).await
    }

    /// `POST /v1/confirm`.
    ///
    /// # Errors
    /// [`ClientError::Api`] when nothing waits to be confirmed.
    pub async fn confirm(&self) -> Result<Running, ClientError> {
        self.call(Method::POST, "/v1/confirm", None::<&()>).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        uri: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        let exchange = self.exchange(method, uri, body);
        let late = |_| ClientError::Deadline { path: self.path.clone(), deadline: self.deadline };
        let (success, bytes) = tokio::time::timeout(self.deadline, exchange).await.map_err(late)??;
        if !success {
            return Err(match serde_json::from_slice::<ApiError>(&bytes) {
                Ok(error) => ClientError::Api(error),
                Err(error) => self.protocol(error),
            });
        }
        serde_json::from_slice(&bytes).map_err(|error| self.protocol(error))
    }

    /// Whether the answer is a success, and its body.
    async fn exchange(
        &self,
        method: Method,
        uri: &str,
        body: Option<&impl Serialize>,
    ) -> Result<(bool, Bytes), ClientError> {
        let broken = |message: String| ClientError::Broken { path: self.path.clone(), message };
        let stream = UnixStream::connect(&self.path).await.map_err(|error| self.unreachable(&error))?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| broken(error.to_string()))?;
        let body = body.map(serde_json::to_vec).transpose().map_err(|error| self.protocol(error))?.unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header(HOST, "localhost")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| self.protocol(error))?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(|error| {
                // Only what cannot be parsed is another protocol; anything else is a daemon that went away.
                if error.is_parse() { self.protocol(error) } else { broken(error.to_string()) }
            })?;
            let success = response.status().is_success();
            let body = Limited::new(response.into_body(), ANSWER).collect().await;
            Ok((success, body.map_err(|error| broken(error.to_string()))?.to_bytes()))
        };
        // The connection makes progress only while it is polled; it belongs to this one exchange.
        tokio::pin!(answer, connection);
        let mut open = true;
        loop {
            tokio::select! {
                answer = &mut answer => return answer,
                // An error of the connection is one of the answer as well.
                _ = &mut connection, if open => open = false,
            }
        }
    }

    fn unreachable(&self, error: &io::Error) -> ClientError {
        let path = self.path.clone();
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ClientError::NoSocket { path },
            io::ErrorKind::ConnectionRefused => ClientError::NotListening { path },
            io::ErrorKind::PermissionDenied => ClientError::Permission { path },
            _ => ClientError::Broken { path, message: error.to_string() },
        }
    }

    fn protocol(&self, error: impl std::fmt::Display) -> ClientError {
        ClientError::Protocol { path: self.path.clone(), message: error.to_string() }
    }
}

/// Percent-encodes all but unreserved characters (RFC 3986, section 2.3).
fn override_path(class: &str) -> String {
    let mut path = String::from("/v1/classes/");
    for byte in class.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => path.push(char::from(byte)),
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
    path + "/override"
}
