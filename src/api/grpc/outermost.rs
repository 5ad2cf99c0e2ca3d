//! The outermost layer of the gRPC door. It stands around tonic because it sees what tonic refuses by itself
//! (undecodable or oversize messages, unknown methods, compression) and gives that its reason; and because size of
//! headers, deadline, trace id and metrics belong to every call, answered or refused.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::body::Incoming;
use tonic::{Code, Status, body::Body, service::Routes};
use tonic_web::GrpcWebLayer;
use tower::{Layer as _, ServiceExt as _};

use super::{
    MESSAGE_SLACK_BYTES,
    compression::{ACCEPTED, GRPC_ACCEPT_ENCODING, Gzip},
    dialect::{Dialect, plain_refusal},
};
use crate::{
    api::cors::Sharing,
    error::{Error, Reason},
    limits::Limits,
    metrics::{Operation, Protocol},
    service::{Call, Service, TraceId},
};

/// The door, to be called for each request.
#[derive(Clone, Debug)]
pub struct Door {
    service: Service,
    routes: Routes,
    sharing: Sharing,
}

/// What a path means.
#[derive(Clone, Copy, Debug)]
struct Method {
    /// As metrics name it.
    label: &'static str,
    operation: Option<Operation>,
    /// Streams last as long as their readers like: no histogram of calls should see them.
    timed: bool,
}

fn method_of(path: &str) -> Method {
    let kv = |label, operation| Method { label, operation: Some(operation), timed: true };
    let stream = |label, operation| Method { label, operation: Some(operation), timed: false };
    match path {
        "/tandem.v1.KvService/Get" => kv("tandem.v1.KvService/Get", Operation::Get),
        "/tandem.v1.KvService/BatchGet" => kv("tandem.v1.KvService/BatchGet", Operation::BatchGet),
        "/tandem.v1.KvService/List" => kv("tandem.v1.KvService/List", Operation::List),
        "/tandem.v1.KvService/Count" => kv("tandem.v1.KvService/Count", Operation::Count),
        "/tandem.v1.KvService/Put" => kv("tandem.v1.KvService/Put", Operation::Put),
        "/tandem.v1.KvService/Delete" => kv("tandem.v1.KvService/Delete", Operation::Delete),
        "/tandem.v1.KvService/Increment" => kv("tandem.v1.KvService/Increment", Operation::Increment),
        "/tandem.v1.KvService/Touch" => kv("tandem.v1.KvService/Touch", Operation::Touch),
        "/tandem.v1.KvService/BatchWrite" => kv("tandem.v1.KvService/BatchWrite", Operation::BatchWrite),
        "/tandem.v1.KvService/Txn" => kv("tandem.v1.KvService/Txn", Operation::Txn),
        "/tandem.v1.KvService/DeleteRange" => kv("tandem.v1.KvService/DeleteRange", Operation::DeleteRange),
        "/tandem.v1.KvService/Scan" => stream("tandem.v1.KvService/Scan", Operation::Scan),
        "/tandem.v1.KvService/Watch" => stream("tandem.v1.KvService/Watch", Operation::Watch),
        "/grpc.health.v1.Health/Check" => Method { label: "grpc.health.v1.Health/Check", operation: None, timed: true },
        _ => {
            let known = path.starts_with("/grpc.health.") || path.starts_with("/grpc.reflection.");
            Method { label: "_OTHER", operation: None, timed: !known }
        }
    }
}

impl Door {
    pub(super) fn new(service: Service, routes: Routes, sharing: Sharing) -> Self {
        Self { service, routes, sharing }
    }

    /// Answers one request.
    pub async fn answer(self, request: Request<Incoming>) -> Response<Body> {
        let trace = TraceId::of(request.headers().get("traceparent").map(HeaderValue::as_bytes));
        let mut response = self.sharing.around(request, |request| self.respond(request, trace)).await;
        if let Ok(id) = HeaderValue::from_bytes(&trace.digits()) {
            response.headers_mut().insert("kv-trace-id", id);
        }
        response
    }

    async fn respond(&self, request: Request<Incoming>, trace: TraceId) -> Response<Body> {
        let started = Instant::now();
        let method = method_of(request.uri().path());
        let response = match Dialect::of(&request) {
            Ok(dialect) => match self.admit(&request, started) {
                Ok(call) => self.call(request, dialect, method, call).await,
                Err(error) => self.refuse(dialect, method, error),
            },
            Err(error) => plain_refusal(self.count(method, error)),
        };
        let code = Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code());
        if method.timed {
            self.service.metrics().rpc_call(method.label, code, started.elapsed());
        }
        if code != Code::Ok {
            let message =
                response.headers().get("grpc-message").and_then(|text| text.to_str().ok()).unwrap_or_default();
            tracing::debug!(%trace, method = method.label, ?code, message, "a call was refused");
        }
        response
    }

    /// What can be told from the headers alone.
    fn admit(&self, request: &Request<Incoming>, started: Instant) -> Result<Call, Error> {
        let limits = self.service.limits();
        check_header_bytes(request, limits)?;
        let asked = timeout_of(request.headers())?;
        let timeout = asked.map_or(limits.request_timeout, |asked| asked.min(limits.request_timeout));
        Ok(Call { protocol: Protocol::Grpc, deadline: started + timeout })
    }

    async fn call(
        &self,
        mut request: Request<Incoming>,
        dialect: Dialect,
        method: Method,
        call: Call,
    ) -> Response<Body> {
        request.extensions_mut().insert(call);
        let answer = self.answer_of_routes(request, dialect);
        let answered = match method.operation {
            // The service keeps the deadline once it has the message; this bounds the wait for the message itself.
            Some(_) => {
                let patience = self.service.limits().body_timeout.max(call.deadline - Instant::now() + GRACE);
                match tokio::time::timeout(patience, answer).await {
                    Ok(answered) => answered,
                    Err(_) => {
                        let text =
                            "the request's message did not arrive in time: send it at once, or check the network";
                        return self.refuse(dialect, method, Error::new(Reason::BodyTimeout, text));
                    }
                }
            }
            None => answer.await,
        };
        match answered {
            Ok(response) => self.explain(dialect, method, response),
            // Routes are infallible.
            Err(never) => match never {},
        }
    }

    async fn answer_of_routes(
        &self,
        mut request: Request<Incoming>,
        dialect: Dialect,
    ) -> Result<Response<Body>, Infallible> {
        // Lives until the answer: the decoded message is what was received.
        let share = Arc::new(self.service.body_share());
        let gzip = Gzip::negotiate(request.headers_mut(), self.service.limits().request_bytes + MESSAGE_SLACK_BYTES);
        let routes = self.routes.clone();
        if dialect == Dialect::Native {
            let request = request.map(|body| gzip.inflate(body, &share));
            return routes.oneshot(request).await.map(|response| gzip.deflate(response));
        }
        dialect.normalise(&mut request);
        // All this behind the translator, which would give every error of the body the same meaning.
        let inner = routes
            .map_request(|request: Request<Body>| request.map(|body| gzip.inflate(body, &share)))
            .map_response(|response| gzip.deflate(response));
        GrpcWebLayer::new().layer(inner).oneshot(request).await
    }

    /// Gives tonic's own refusals their reason.
    fn explain(&self, dialect: Dialect, method: Method, response: Response<Body>) -> Response<Body> {
        let own = response.headers().contains_key("grpc-status-details-bin");
        let refusal = if own { None } else { Status::from_header_map(response.headers()) };
        match refusal {
            Some(status) if status.code() != Code::Ok && (method.operation.is_some() || method.label == "_OTHER") => {
                let mut explained = self.refuse(dialect, method, reason_of(method, &status, self.service.limits()));
                // After an encoding that is not taken: what is.
                if response.headers().contains_key(GRPC_ACCEPT_ENCODING) {
                    explained.headers_mut().insert(GRPC_ACCEPT_ENCODING, ACCEPTED);
                }
                explained
            }
            _ => response,
        }
    }

    fn refuse(&self, dialect: Dialect, method: Method, error: Error) -> Response<Body> {
        dialect.refusal(self.count(method, error))
    }

    fn count(&self, method: Method, error: Error) -> Error {
        match method.operation {
            Some(operation) => self.service.refuse(Protocol::Grpc, operation, error),
            None => error,
        }
    }
}

/// How much longer than a call's deadline its message may take, so that the deadline's own answer wins.
const GRACE: Duration = Duration::from_secs(1);

/// The reason of a refusal of tonic's own.
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
        Code::Unimplemented if method.operation.is_some() => Error::new(
            Reason::MediaTypeUnsupported,
            "the message is compressed in a way that is not taken: gzip is, or send it as it is",
        ),
        Code::Unimplemented => {
            Error::new(Reason::RouteNotFound, "no such service or method: reflection lists those there are")
        }
        Code::Internal | Code::InvalidArgument => {
            Error::malformed("", "the message is not what the schema says: generate the client from proto/ again")
                .with(|details| details.field = None)
        }
        _ => Error::internal(status.message().to_owned()),
    }
}

fn check_header_bytes(request: &Request<Incoming>, limits: &Limits) -> Result<(), Error> {
    // As HTTP/2 counts: 32 bytes for each field.
    let fields = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 32);
    let bytes = request.uri().path().len() + fields.sum::<usize>();
    if bytes <= limits.header_bytes {
        return Ok(());
    }
    let text =
        format!("the headers have {bytes} bytes, the limit is {}: send fewer or shorter ones", limits.header_bytes);
    Err(Error::new(Reason::HeaderTooLarge, text).with(|details| details.limit = Some(limits.header_bytes as u64)))
}

/// `grpc-timeout`: at most eight digits and a unit.
fn timeout_of(headers: &HeaderMap) -> Result<Option<Duration>, Error> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    let bytes = value.as_bytes();
    let parsed = bytes.split_last().and_then(|(unit, digits)| {
        let plain = !digits.is_empty() && digits.len() <= 8 && digits.iter().all(u8::is_ascii_digit);
        let number: u64 = if plain { std::str::from_utf8(digits).ok()?.parse().ok()? } else { return None };
        match unit {
            b'H' => Some(Duration::from_secs(number * 3_600)),
            b'M' => Some(Duration::from_secs(number * 60)),
            b'S' => Some(Duration::from_secs(number)),
            b'm' => Some(Duration::from_millis(number)),
            b'u' => Some(Duration::from_micros(number)),
            b'n' => Some(Duration::from_nanos(number)),
            _ => None,
        }
    });
    match parsed {
        Some(timeout) => Ok(Some(timeout)),
        None => Err(Error::malformed("grpc-timeout", "grpc-timeout is at most eight digits and one of H M S m u n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_timeout_is_digits_and_a_unit() {
        let parse = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            timeout_of(&headers)
        };
        assert_eq!(parse("10S").unwrap(), Some(Duration::from_secs(10)));
        assert_eq!(parse("99999999H").unwrap(), Some(Duration::from_secs(99_999_999 * 3_600)));
        for bad in ["", "S", "10", "-1S", "1.5S", "123456789S", "10x"] {
            assert_eq!(parse(bad).unwrap_err().reason, Reason::Malformed, "{bad}");
        }
    }
}
