//! What the API answers when it does not do what it was asked.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

/// The body of every answer that is no success: what is wrong, for programs and for people, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message} ({fix})")]
#[serde(deny_unknown_fields)]
pub struct ApiError {
    /// For programs.
    pub code: Code,
    /// For people: what is wrong.
    pub message: String,
    /// For people: what to do about it.
    pub fix: String,
}

/// What is wrong, for programs. Names are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The body is not the JSON that is expected.
    BadJson,
    /// A value is out of its range.
    BadValue,
    /// The body is larger than any request is.
    BodyTooLarge,
    /// No such path.
    NotFound,
    /// The path is known, but not for this method.
    MethodNotAllowed,
    /// The configuration has no such class.
    UnknownClass,
    /// The class is never shifted.
    KeepClass,
    /// A configuration is wrong.
    BadConfig,
    /// A configuration does not fit what is pinned or what runs.
    DoesNotFit,
    /// A configuration could not be taken over; the former one runs.
    Failed,
    /// The last reload waits to be confirmed.
    Unconfirmed,
    /// No reload waits to be confirmed.
    NothingToConfirm,
    /// The daemon is starting, stopping, or busy for longer than a request waits.
    Unavailable,
    /// A defect, or something that failed on this host; the log says more.
    Internal,
}

impl Code {
    /// Its HTTP status.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::BadJson => StatusCode::BAD_REQUEST,
            Self::BadValue | Self::BadConfig => StatusCode::UNPROCESSABLE_ENTITY,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotFound | Self::UnknownClass => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::KeepClass | Self::DoesNotFit | Self::Unconfirmed | Self::NothingToConfirm => StatusCode::CONFLICT,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal | Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl ApiError {
    /// An error of a code.
    pub fn new(code: Code, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { code, message: message.into(), fix: fix.into() }
    }

    /// The configuration has no class `class`; `known` are the names of those that can be shifted.
    #[must_use]
    pub fn unknown_class<'a>(class: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let known: Vec<_> = known.into_iter().collect();
        let fix = if known.is_empty() {
            "the running configuration has no class that can be shifted".to_owned()
        } else {
            format!("classes that can be shifted: {}", known.join(", "))
        };
        Self::new(Code::UnknownClass, format!("there is no class {class:?}"), fix)
    }

    /// The class is never shifted.
    #[must_use]
    pub fn keep_class(class: &str) -> Self {
        let fix = "its flows stay on premises whatever is asked; a class without keep = true can be overridden";
        Self::new(Code::KeepClass, format!("class {class:?} is kept and never shifted"), fix)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.code.status(), Json(self)).into_response()
    }
}
