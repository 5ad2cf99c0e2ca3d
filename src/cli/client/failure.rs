//! Why a command ended early, and with which exit code.

use std::{error::Error, fmt, io, process::ExitCode};

use tonic::{Code, Status};

/// A key is missing, or a condition did not hold.
pub const EXIT_NOT_HELD: u8 = 1;
/// What was sent cannot be taken.
pub const EXIT_REFUSED: u8 = 2;
/// Usage is wrong.
const EXIT_USAGE: u8 = 64;
/// The server cannot be reached, or cannot do it now.
pub const EXIT_UNAVAILABLE: u8 = 69;

const NO_ANSWER: &str = "DEADLINE: no answer came within the time of --timeout: whether a write happened is not known; \
                         repeat it with the same --request-id, or read first";

const NOT_TANDEM: &str = "UNIMPLEMENTED: what answers there does not know this call: name Tandem's gRPC listener (port \
                          16701, unless configured) of a server that is as new as this program";

/// What ends a command: a line for standard error, unless all was said, and an exit code.
#[derive(Debug)]
pub struct Failure {
    exit: u8,
    text: Option<String>,
}

/// Result of whatever a command does.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// A key is missing, or a condition did not hold, and the output has said so.
    pub fn not_held() -> Self {
        Self { exit: EXIT_NOT_HELD, text: None }
    }

    /// An exit code that is not ours, but the one of a command that ran.
    pub fn of_child(exit: u8) -> Self {
        Self { exit, text: None }
    }

    /// A key is missing, or a condition did not hold.
    pub fn condition(text: impl Into<String>) -> Self {
        Self { exit: EXIT_NOT_HELD, text: Some(text.into()) }
    }

    /// What was given cannot be taken.
    pub fn refused(text: impl Into<String>) -> Self {
        Self { exit: EXIT_REFUSED, text: Some(text.into()) }
    }

    /// The command line is wrong in a way that its grammar cannot tell.
    pub fn usage(text: impl Into<String>) -> Self {
        Self { exit: EXIT_USAGE, text: Some(text.into()) }
    }

    /// Trying again may help.
    pub fn unavailable(text: impl Into<String>) -> Self {
        Self { exit: EXIT_UNAVAILABLE, text: Some(text.into()) }
    }

    /// Says it on standard error and gives the exit code.
    pub fn report(self) -> ExitCode {
        if let Some(text) = &self.text {
            say(text);
        }
        ExitCode::from(self.exit)
    }
}

/// A line for people, beside the output.
pub fn say(text: impl fmt::Display) {
    use io::Write as _;
    let _ = writeln!(io::stderr().lock(), "tandem: {text}");
}

/// Whether the same request may succeed later.
pub fn may_pass(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded | Code::Cancelled => true,
        Code::Internal | Code::Unknown | Code::DataLoss => true,
        Code::Ok | Code::InvalidArgument | Code::NotFound | Code::AlreadyExists | Code::PermissionDenied => false,
        Code::FailedPrecondition | Code::Aborted | Code::OutOfRange | Code::Unimplemented | Code::Unauthenticated => {
            false
        }
    }
}

/// What a status says, as `REASON: detail`.
pub fn describe(status: &Status) -> String {
    // The server begins its messages with the reason; what tonic itself says has none, but a cause.
    match (status.code(), status.source()) {
        (_, None) if status.message().split_once(": ").is_some_and(|(reason, _)| is_reason(reason)) => {
            status.message().to_owned()
        }
        (Code::Cancelled, _) => NO_ANSWER.to_owned(),
        // What answers in HTTP without gRPC, as the REST listener does, is a breach of protocol to tonic.
        (Code::Unimplemented, _) => NOT_TANDEM.to_owned(),
        (Code::Internal, _) if status.message().starts_with("protocol error") => NOT_TANDEM.to_owned(),
        (code, None) => format!("{}: {}", code_name(code), status.message()),
        (code, Some(cause)) => format!("{}: {}", code_name(code), innermost(cause)),
    }
}

fn is_reason(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
}

/// The last of a chain of causes, which names the thing.
pub fn innermost(error: &dyn Error) -> String {
    let mut error = error;
    while let Some(cause) = error.source() {
        error = cause;
    }
    error.to_string()
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Unavailable => "UNAVAILABLE",
        Code::DeadlineExceeded => "DEADLINE",
        Code::ResourceExhausted | Code::OutOfRange => "REQUEST_TOO_LARGE",
        _ => "INTERNAL",
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let text = describe(&status);
        match status.code() {
            Code::NotFound | Code::AlreadyExists | Code::Aborted => Self::condition(text),
            _ if may_pass(&status) => Self::unavailable(text),
            _ => Self::refused(text),
        }
    }
}

impl From<io::Error> for Failure {
    /// An error of standard output. Whoever closed the pipe has read enough.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self { exit: 0, text: None },
            _ => Self::unavailable(format!(
                "OUTPUT: the output cannot be written: {error}: make room or write elsewhere"
            )),
        }
    }
}
