//! The daemon's API: HTTP and JSON over a Unix socket.
//!
//! `GET /v1/health`, `GET /v1/status`, `PUT` and `DELETE /v1/classes/{class}/override`, `POST /v1/bypass`, `/v1/plan`, `/v1/reload`
//! and `/v1/confirm`. The server reads the latest status
//! from a channel and sends commands to the one task that decides; it holds no state of its own. The command line is its
//! first client.

pub mod change;
mod client;
mod error;
mod server;
mod socket;
pub mod types;

pub use client::{Client, ClientError};
pub use error::{ApiError, Code};
pub use server::{Command, Peer, Reply, serve};
pub use socket::{BindError, Socket};
