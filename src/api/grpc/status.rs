//! Errors as gRPC clients see them: the reason first in the message, and in `google.rpc.ErrorInfo`.

use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::error::{Details, Error, Reason};

/// The domain of every reason.
pub const DOMAIN: &str = "tandem";

/// The reason that a status of this server gives.
pub fn reason_of(status: &Status) -> Option<Reason> {
    Reason::of_name(status.message().split(':').next()?)
}

/// The status of an error, with the details that fit it.
pub fn to_status(error: Error) -> Status {
    let code = error.reason.grpc_code();
    let none = Details::default();
    let known = error.details.as_deref().unwrap_or(&none);
    let mut details = ErrorDetails::with_error_info(error.reason.name(), DOMAIN, metadata(known));
    if let Some(field) = &known.field {
        details.add_bad_request_violation(field.clone(), error.message.clone());
    }
    if let Some(after_s) = error.reason.retry_after_s() {
        details.set_retry_info(Some(Duration::from_secs(after_s)));
    }
    if matches!(code, Code::Aborted | Code::FailedPrecondition | Code::AlreadyExists) {
        details.add_precondition_failure_violation(error.reason.name(), "key", error.message.clone());
    }
    Status::with_error_details(code, error.to_string(), details)
}

fn metadata(details: &Details) -> HashMap<String, String> {
    let numbers = [
        ("current_revision", details.current_revision),
        ("store_revision", details.store_revision),
        ("oldest_revision", details.oldest_revision),
        ("resume_revision", details.resume_revision),
        ("limit", details.limit),
        ("operation_index", details.operation_index),
    ];
    let mut metadata: HashMap<_, _> =
        numbers.into_iter().filter_map(|(name, number)| Some((name.to_owned(), number?.to_string()))).collect();
    metadata.extend(details.outcome.map(|outcome| ("outcome".to_owned(), outcome.as_str().to_owned())));
    metadata.extend(details.replayed.then(|| ("replayed".to_owned(), "true".to_owned())));
    metadata
}
