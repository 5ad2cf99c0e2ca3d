//! The outermost layer of the gRPC door. It stands around tonic because it sees what tonic refuses by itself
//! (undecodable or oversize messages, unknown methods, compression) and gives that its reason; and because size of
//! headers, deadline, trace id and metrics belong to every call, answered or refused.

use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{
    FutureExt as _, TryFutureExt as _,
    future::{Either, ready},
};
use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::body::Incoming;
use tonic::{Code, Status, body::Body};
use tonic_web::GrpcWebLayer;
use tower::{Layer as _, Service as _, ServiceExt as _};

use super::{
    MESSAGE_SLACK_BYTES, SERVER_TIMING,
    closing::Closing,
    compression::{ACCEPTED, GRPC_ACCEPT_ENCODING, Gzip},
    counted::Patience,
    dialect::{Dialect, plain_refusal},
    method::Method,
    refusal::{DETAILS, explain},
    routed::{Routed, Served},
    status::{reason_of, to_status},
    unary::{self, Unary},
};
use crate::{
    api::{
        cors::Sharing,
        rest_of_body::{Lent, lend},
        spanned::Spanned,
    },
    error::{Error, Reason},
    limits::Limits,
    metrics::Protocol,
    service::{Answered, Call, Seen, Service, Trace, timing_asked},
};

/// The door, to be called for each request.
#[derive(Clone, Debug)]
pub struct Door<M> {
    service: Service,
    routes: Routed<M>,
    sharing: Sharing,
}

impl<M: Served> Door<M> {
    pub(super) fn new(service: Service, routes: Routed<M>, sharing: Sharing) -> Self {
        Self { service, routes, sharing }
    }

    /// Answers one request.
    ///
    /// Each call's future is moved a few times before it is polled. So whatever can be done at once is done at once, what
    /// few calls need lies elsewhere, boxed, and the rest is put together without `async`, which would keep room for each
    /// step's future twice.
    pub fn answer(&self, request: Request<Incoming>) -> impl Future<Output = Response<Body>> + Send + use<M> {
        let trace = self.service.trace(request.headers());
        let response = if self.sharing.is_open() {
            Either::Left(Box::pin(self.clone().respond_openly(request, trace)))
        } else {
            Either::Right(self.respond(request, trace))
        };
        response.map(move |mut response| {
            trace.add_to(response.headers_mut());
            response
        })
    }

    /// Responds to pages of other origins too.
    async fn respond_openly(self, request: Request<Incoming>, trace: Trace) -> Response<Body> {
        self.sharing.around(request, |request| self.respond(request, trace)).await
    }

    fn respond(&self, request: Request<Incoming>, trace: Trace) -> impl Future<Output = Response<Body>> + use<M> {
        let started = Instant::now();
        let (request, lender) = lend(request);
        let method = Method::of(request.uri().path());
        let timing_asked = timing_asked(request.headers().get("kv-timing").map(HeaderValue::as_bytes));
        let service = self.service.clone();
        let closing = Closing { service, method, trace, started, timing_asked, deadline: None };
        let answered = match Dialect::of(&request) {
            Ok(dialect) => match self.admit(&request, started) {
                Ok((call, deadline)) => {
                    let closing = Closing { deadline, ..closing.clone() };
                    Either::Left(self.call(request, dialect, call, closing))
                }
                Err(error) => Either::Right(ready(dialect.refusal(to_status(closing.count(error))))),
            },
            Err(error) => Either::Right(ready(plain_refusal(closing.count(error)))),
        };
        let patience = self.service.limits().body_timeout;
        let drained = answered.then(move |response| lender.before(response, patience));
        drained.map(move |mut response| {
            let refusal = Status::from_header_map(response.headers());
            let code = refusal.as_ref().map_or(Code::Ok, Status::code);
            let seen = Seen::Grpc { method: method.label, code };
            let answered = Answered { operation: method.operation, trace, started, seen };
            if !method.streams {
                closing.service.answered(&answered, || refusal.as_ref().and_then(reason_of));
            } else if let Some(span) = closing.service.stream_answered(answered) {
                response = response.map(|body| Body::new(Spanned { body, span }));
            }
            if let Some(refusal) = refusal {
                log_refusal(trace, method, &refusal);
                let timing = closing.timing().and_then(|timing| HeaderValue::try_from(timing.to_string()).ok());
                response.headers_mut().extend(timing.map(|timing| (SERVER_TIMING, timing)));
            }
            response
        })
    }

    /// What can be told from the headers alone: the call, and when its client gives a stream up.
    fn admit(&self, request: &Request<Lent>, started: Instant) -> Result<(Call, Option<Instant>), Error> {
        let limits = self.service.limits();
        check_header_bytes(request, limits)?;
        let asked = timeout_of(request.headers())?;
        let timeout = asked.map_or(limits.request_timeout, |asked| asked.min(limits.request_timeout));
        let call = Call { protocol: Protocol::Grpc, deadline: started + timeout };
        Ok((call, asked.map(|asked| started + asked)))
    }

    fn call(
        &self,
        mut request: Request<Lent>,
        dialect: Dialect,
        call: Call,
        closing: Closing,
    ) -> impl Future<Output = Response<Body>> + use<M> {
        request.extensions_mut().insert(call);
        let patience = match closing.method.operation {
            Some(operation) if !operation.is_lengthy() => {
                let until = (closing.started + self.service.limits().body_timeout).max(call.deadline + GRACE);
                Some(Patience::new(until, closing.clone()))
            }
            // A stream of another service waits for its messages as long as it likes; so does a call that lasts as long as
            // files are long.
            _ => None,
        };
        let answer = self.answer_of_routes(request, dialect, call, patience, &closing);
        AssertUnwindSafe(answer).catch_unwind().map(move |answered| match answered {
            Ok(Ok(response)) => explained(dialect, &closing, response),
            // Routes are infallible.
            Ok(Err(never)) => match never {},
            Err(_panic) => {
                let error = Error::internal("a fault of the server: please report it with the kv-trace-id");
                dialect.refusal(to_status(closing.count(error)))
            }
        })
    }

    fn answer_of_routes(
        &self,
        mut request: Request<Lent>,
        dialect: Dialect,
        call: Call,
        mut patience: Option<Patience>,
        closing: &Closing,
    ) -> impl Future<Output = Result<Response<Body>, Infallible>> + use<M> {
        // Lives until the answer: the decoded message is what was received.
        let share = Arc::new(self.service.body_share());
        let gzip = Gzip::negotiate(request.headers_mut(), self.service.limits().request_bytes + MESSAGE_SLACK_BYTES);
        let (mut routes, closing) = (self.routes.clone(), closing.clone());
        if dialect == Dialect::Native {
            let unary = Unary::of::<M>(&closing, call, &share, gzip);
            // Routes are always ready.
            let answer = unary::answer(unary, request, {
                let share = Arc::clone(&share);
                move |request| routes.call(request.map(|body| gzip.inflate(body, &share, patience)))
            });
            return Either::Left(Box::pin(answer.map_ok(move |response| {
                drop(share);
                gzip.deflate(closing.close(response))
            })));
        }
        dialect.normalise(&mut request);
        // All this behind the translator, which would give every error of the body the same meaning.
        let inner = routes
            .map_request(move |request: Request<Body>| request.map(|body| gzip.inflate(body, &share, patience.take())))
            .map_response(move |response| gzip.deflate(closing.close(response)));
        Either::Right(Box::pin(GrpcWebLayer::new().layer(inner).oneshot(request)))
    }
}

/// Gives refusals that are not this server's own their reason.
fn explained(dialect: Dialect, closing: &Closing, response: Response<Body>) -> Response<Body> {
    if response.headers().contains_key(DETAILS) {
        return response;
    }
    let Some(status) = Status::from_header_map(response.headers()).filter(|status| status.code() != Code::Ok) else {
        return response;
    };
    let limits = closing.service.limits();
    let mut explained = dialect.refusal(explain(closing.method, &status, limits, |error| closing.count(error)));
    // After an encoding that is not taken: what is.
    if response.headers().contains_key(GRPC_ACCEPT_ENCODING) {
        explained.headers_mut().insert(GRPC_ACCEPT_ENCODING, ACCEPTED);
    }
    explained
}

fn log_refusal(trace: Trace, method: Method, refusal: &Status) {
    let (method, code, message) = (method.label, refusal.code(), refusal.message());
    match code {
        Code::Ok => {}
        Code::Internal => tracing::error!(%trace, method, ?code, message, "a call met a fault of the server"),
        _ => tracing::debug!(%trace, method, ?code, message, "a call was refused"),
    }
}

/// How much longer than a call's deadline its message may take, so that the deadline's own answer wins.
const GRACE: Duration = Duration::from_secs(1);

fn check_header_bytes(request: &Request<Lent>, limits: &Limits) -> Result<(), Error> {
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
    use crate::{api::grpc::Kv, pb::kv_service_server::KvServiceServer};

    #[test]
    fn the_future_of_a_call_is_small() {
        fn bytes_of<F>(_: impl Fn(&Door<KvServiceServer<Kv>>, Request<Incoming>) -> F) -> usize {
            size_of::<F>()
        }
        // 752 when this was written; 6,944 with all of it in nested `async`, which cost gRPC half of its speed.
        assert!(bytes_of(Door::answer) <= 1_024, "{}", bytes_of(Door::answer));
    }

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
