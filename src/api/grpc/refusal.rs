//! Refusals that are not this server's own words: tonic's (messages that do not decode, are too large or oddly
//! compressed, methods that do not exist), and those of health and reflection. Each gets a reason.

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::{
    method::Method,
    status::{DOMAIN, to_status},
};
use crate::{
    error::{Error, Reason},
    limits::Limits,
    metrics::Operation,
};

/// The header of what this server says itself.
pub const DETAILS: &str = "grpc-status-details-bin";

/// The same refusal with a reason: of the store's methods as the store would have said it (`count` gets it then), of
/// other services with their own code.
pub fn explain(method: Method, status: &Status, limits: &Limits, count: impl FnOnce(Error) -> Error) -> Status {
    if method.operation.is_none() && status.code() == Code::NotFound {
        // Health's and reflection's answer to an unknown name, whose code is theirs to choose.
        let reason = Reason::RouteNotFound.name();
        let details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
        return Status::with_error_details(Code::NotFound, format!("{reason}: {}", status.message()), details);
    }
    to_status(count(reason_of(method, status, limits)))
}

fn reason_of(method: Method, status: &Status, limits: &Limits) -> Error {
    match status.code() {
        Code::ResourceExhausted => Error::new(Reason::Overloaded, status.message().to_owned()),
        Code::OutOfRange => {
            // What makes a Put that large is its value.
            let (reason, limit) = match method.operation {
                Some(Operation::Put) => (Reason::ValueTooLarge, limits.value_bytes),
                _ => (Reason::RequestTooLarge, limits.request_bytes),
            };
            let text = format!("the message is too large, the limit is {limit} bytes: send less at once");
            Error::new(reason, text).with(|details| details.limit = Some(limit as u64))
        }
        // Of a method that is not there tonic has nothing to say; another listener may serve it.
        Code::Unimplemented if method.operation.is_some() && !status.message().is_empty() => Error::new(
            Reason::MediaTypeUnsupported,
            "the message is compressed in a way that is not taken: gzip is, or send it as it is",
        ),
        Code::Unimplemented => {
            let text = "no such service or method at this listener: reflection lists those there are; keys are asked for at \
                        the gRPC listener, tandem.admin.v1 at the ops listener";
            Error::new(Reason::RouteNotFound, text)
        }
        Code::Internal | Code::InvalidArgument => {
            Error::malformed("", "the message is not what the schema says: generate the client from proto/ again")
                .with(|details| details.field = None)
        }
        // The client went away, or its connection broke, in the middle of a message.
        Code::Cancelled | Code::Unavailable | Code::DataLoss => {
            Error::malformed("", "the request's message broke off: send it again").with(|details| details.field = None)
        }
        _ => Error::internal(status.message().to_owned()),
    }
}
