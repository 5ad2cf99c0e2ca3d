//! The one error of the server, and for each reason what both doors answer.
//!
//! A new reason does not compile until its gRPC code, HTTP status and retry answer stand in the tables below: no match
//! here has a wildcard arm.

use std::{borrow::Cow, fmt};

pub use crate::pb::Reason;

/// Whether a failed write happened. Only errors of writes carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The write did not happen and will not.
    NotApplied,
    /// It cannot be told: retry only with a request id, or read first.
    Unknown,
}

impl Outcome {
    /// As clients see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotApplied => "NOT_APPLIED",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// Why a request was refused: names the thing, the limit and the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The reason, the same on both doors.
    pub reason: Reason,
    /// What happened and what to do, for people. Never holds a key or a value.
    pub message: Cow<'static, str>,
    /// The rest, boxed: most errors have none of it, and results stay small.
    pub details: Option<Box<Details>>,
}

/// What an error may say beyond its reason; the names are those of the metadata that clients see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// Revision of the entry that a condition met; 0 when the key is absent.
    pub current_revision: Option<u64>,
    /// Revision of the state against which the request was judged.
    pub store_revision: Option<u64>,
    /// The oldest revision that can be watched from.
    pub oldest_revision: Option<u64>,
    /// The revision from which a watcher that was ended goes on.
    pub resume_revision: Option<u64>,
    /// The limit that was passed.
    pub limit: Option<u64>,
    /// The request's field that is wrong, by its name in the schema.
    pub field: Option<Cow<'static, str>>,
    /// Number of the operation that is at fault, among several.
    pub operation_index: Option<u64>,
    /// For a failed write: whether it happened.
    pub outcome: Option<Outcome>,
    /// For a remembered failure: true.
    pub replayed: bool,
}

/// Result of whatever a client asked for.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error without details.
    pub fn new(reason: Reason, message: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, message: message.into(), details: None }
    }

    /// INVALID_FIELD: `field` is understood but not allowed.
    pub fn invalid_field(field: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Reason::InvalidField, message).with(|details| details.field = Some(field.into()))
    }

    /// MALFORMED: `field` cannot be parsed.
    pub fn malformed(field: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Reason::Malformed, message).with(|details| details.field = Some(field.into()))
    }

    /// INTERNAL: a fault of the server.
    pub fn internal(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Reason::Internal, message)
    }

    /// Adds details.
    pub fn with(mut self, set: impl FnOnce(&mut Details)) -> Self {
        set(self.details.get_or_insert_default());
        self
    }

    /// Names the operation at fault, among several, by its number from 0.
    pub fn at_operation(mut self, number: usize) -> Self {
        self.message = format!("operation {number}: {}", self.message).into();
        self.with(|details| details.operation_index = Some(number as u64))
    }

    /// Says whether the write happened, unless that was said closer to the fact.
    pub fn with_outcome(self, outcome: Outcome) -> Self {
        self.with(|details| details.outcome = details.outcome.or(Some(outcome)))
    }

    /// Whether the write happened, where that was said.
    pub fn outcome(&self) -> Option<Outcome> {
        self.details.as_ref().and_then(|details| details.outcome)
    }
}

impl fmt::Display for Error {
    /// `REASON: message`, as both doors say it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.reason.name(), self.message)
    }
}

impl std::error::Error for Error {}

impl Reason {
    /// The name that clients see: without the enum's prefix.
    pub fn name(self) -> &'static str {
        let name = self.as_str_name();
        name.strip_prefix("REASON_").unwrap_or(name)
    }

    /// The reason of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::from_str_name(&format!("REASON_{name}"))
    }

    /// The gRPC code.
    pub fn grpc_code(self) -> tonic::Code {
        use tonic::Code;
        match self {
            Self::KeyNotFound => Code::NotFound,
            Self::ConditionFailed => Code::Aborted,
            Self::KeyExists => Code::AlreadyExists,
            Self::NotAnInteger | Self::IntegerOverflow => Code::FailedPrecondition,
            Self::KeyEmpty | Self::KeyTooLong | Self::InvalidField | Self::Malformed | Self::PageTokenInvalid => {
                Code::InvalidArgument
            }
            Self::ValueTooLarge | Self::BatchTooLarge | Self::RequestTooLarge | Self::MediaTypeUnsupported => {
                Code::InvalidArgument
            }
            Self::RequestIdReused => Code::InvalidArgument,
            Self::RevisionCompacted | Self::RevisionFuture => Code::OutOfRange,
            Self::RouteNotFound | Self::MethodNotAllowed => Code::Unimplemented,
            Self::HeaderTooLarge | Self::Overloaded | Self::TooManyStreams | Self::WatcherTooSlow => {
                Code::ResourceExhausted
            }
            Self::MemoryLimit | Self::DiskFull => Code::ResourceExhausted,
            Self::Loading | Self::Draining | Self::WalFailed | Self::CommitUnknown => Code::Unavailable,
            Self::Unauthenticated => Code::Unauthenticated,
            Self::PermissionDenied => Code::PermissionDenied,
            Self::Deadline | Self::BodyTimeout => Code::DeadlineExceeded,
            Self::Internal | Self::Unspecified => Code::Internal,
        }
    }

    /// The HTTP status.
    pub fn http_status(self) -> http::StatusCode {
        use http::StatusCode;
        match self {
            Self::KeyNotFound | Self::RouteNotFound => StatusCode::NOT_FOUND,
            Self::ConditionFailed | Self::KeyExists => StatusCode::PRECONDITION_FAILED,
            Self::NotAnInteger | Self::IntegerOverflow => StatusCode::CONFLICT,
            Self::KeyEmpty | Self::KeyTooLong | Self::InvalidField | Self::Malformed | Self::PageTokenInvalid => {
                StatusCode::BAD_REQUEST
            }
            Self::RevisionFuture => StatusCode::BAD_REQUEST,
            Self::ValueTooLarge | Self::BatchTooLarge | Self::RequestTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::MediaTypeUnsupported => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::RevisionCompacted => StatusCode::GONE,
            Self::RequestIdReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::HeaderTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Overloaded | Self::TooManyStreams | Self::WatcherTooSlow => StatusCode::TOO_MANY_REQUESTS,
            Self::MemoryLimit | Self::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
            Self::Loading | Self::Draining | Self::WalFailed | Self::CommitUnknown => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::PermissionDenied => StatusCode::FORBIDDEN,
            Self::Deadline => StatusCode::GATEWAY_TIMEOUT,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Internal | Self::Unspecified => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// After how many seconds the same request may be sent again; `None` where that would not help.
    pub fn retry_after_s(self) -> Option<u64> {
        match self {
            Self::Overloaded | Self::TooManyStreams | Self::WatcherTooSlow | Self::Loading | Self::Draining => Some(1),
            Self::MemoryLimit | Self::DiskFull => Some(10),
            Self::KeyNotFound
            | Self::ConditionFailed
            | Self::KeyExists
            | Self::NotAnInteger
            | Self::IntegerOverflow
            | Self::KeyEmpty
            | Self::KeyTooLong
            | Self::InvalidField
            | Self::Malformed
            | Self::PageTokenInvalid
            | Self::ValueTooLarge
            | Self::BatchTooLarge
            | Self::RequestTooLarge
            | Self::MediaTypeUnsupported
            | Self::RevisionCompacted
            | Self::RevisionFuture
            | Self::RequestIdReused
            | Self::RouteNotFound
            | Self::MethodNotAllowed
            | Self::HeaderTooLarge
            | Self::WalFailed
            | Self::CommitUnknown
            | Self::Unauthenticated
            | Self::PermissionDenied
            | Self::Deadline
            | Self::BodyTimeout
            | Self::Internal
            | Self::Unspecified => None,
        }
    }

    /// What a failed write's outcome is where the engine did not say: refusals come before the log is touched.
    pub fn write_outcome(self) -> Outcome {
        match self {
            Self::CommitUnknown | Self::Deadline | Self::Internal | Self::Unspecified => Outcome::Unknown,
            Self::KeyNotFound
            | Self::ConditionFailed
            | Self::KeyExists
            | Self::NotAnInteger
            | Self::IntegerOverflow
            | Self::KeyEmpty
            | Self::KeyTooLong
            | Self::InvalidField
            | Self::Malformed
            | Self::PageTokenInvalid
            | Self::ValueTooLarge
            | Self::BatchTooLarge
            | Self::RequestTooLarge
            | Self::MediaTypeUnsupported
            | Self::RevisionCompacted
            | Self::RevisionFuture
            | Self::RequestIdReused
            | Self::RouteNotFound
            | Self::MethodNotAllowed
            | Self::HeaderTooLarge
            | Self::Overloaded
            | Self::TooManyStreams
            | Self::WatcherTooSlow
            | Self::MemoryLimit
            | Self::DiskFull
            | Self::Loading
            | Self::Draining
            | Self::WalFailed
            | Self::Unauthenticated
            | Self::PermissionDenied
            | Self::BodyTimeout => Outcome::NotApplied,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_reads_as_clients_know_it() {
        assert_eq!(Reason::KeyNotFound.name(), "KEY_NOT_FOUND");
        let error = Error::new(Reason::KeyExists, "the key exists");
        assert_eq!(error.to_string(), "KEY_EXISTS: the key exists");
    }

    #[test]
    fn an_outcome_once_said_stays() {
        let error = Error::internal("x").with_outcome(Outcome::NotApplied).with_outcome(Outcome::Unknown);
        assert_eq!(error.outcome(), Some(Outcome::NotApplied));
    }
}
