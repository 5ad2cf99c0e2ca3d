//! The REST door: keys and counters as resources, so that curl feels natural. The ops listener's administration goes
//! through a door of the same make.

mod collection;
mod compression;
mod conditions;
mod content;
mod docs;
mod escape;
mod handlers;
mod json;
mod many;
pub mod openapi;
mod operations;
mod parameters;
pub(in crate::api) mod problem;
mod query;
mod range;
mod routes;
mod scan_lines;
mod sharing;
pub(in crate::api) mod stream;
mod watch;

use std::{panic::AssertUnwindSafe, time::Instant};

use axum::{Router, body::Body, extract::State, response::Response};
use futures_util::{
    FutureExt as _,
    future::{Either, ready},
};
use http::{HeaderName, HeaderValue, Method, Request, StatusCode};
use hyper::body::Incoming;

use self::handlers::Held;
/// The JSON that this door speaks, for the command line to speak it as well.
pub use self::{
    collection::{CountJson, PageJson},
    json::{EntryJson, time as time_text},
    many::{TxnJson, ValuesAsked, txn_from_json},
    operations::bytes_from_json,
    routes::{ROUTES, Route},
    scan_lines::{ScanItem, ScanLineJson, in_key_order},
    watch::{WatchJson, kind_text},
};
pub(in crate::api) use self::{
    json::{text_or_base64, written},
    parameters::{Known, SlowRequestsQuery},
    query::Query,
};
use crate::{
    api::{
        cors::Sharing,
        rest_of_body::{Lent, lend},
        spanned::Spanned,
    },
    config::Cors,
    error::{Error, Reason},
    metrics::Protocol,
    service::{Answered, Seen, Service, Timing, Trace, timing_asked},
};

const KV_TIMING: HeaderName = HeaderName::from_static("kv-timing");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// The door, to be called for each request.
#[derive(Clone, Debug)]
pub struct Door {
    service: Service,
    routes: Router,
    /// Of these routes.
    table: &'static [&'static Route],
    sharing: Sharing,
}

impl Door {
    /// A door to this service, shared with pages of these origins.
    pub fn new(service: Service, cors: &Cors) -> Self {
        let routes = routes::router().with_state(service.clone());
        Self::to(service, routes, &ROUTES, cors)
    }

    /// A door to these routes.
    pub(in crate::api) fn to(service: Service, routes: Router, table: &'static [&'static Route], cors: &Cors) -> Self {
        Self { service, routes, table, sharing: sharing::of_rest(cors) }
    }

    /// Answers one request. Stands around the routes because header size, trace id and metrics belong to every answer.
    ///
    /// Put together without `async`, and with what few requests need in boxes: the future of each request is moved a few
    /// times before it is polled, and should be small.
    pub fn answer(&self, request: Request<Incoming>) -> impl Future<Output = Response> + Send + use<> {
        let started = Instant::now();
        let trace = self.service.trace(request.headers());
        let method = request.method().clone();
        let route = Route::among(self.table, request.uri().path());
        let service = self.service.clone();
        let response = if self.sharing.is_open() {
            Either::Left(Box::pin(self.clone().respond_openly(request, route, started)))
        } else {
            Either::Right(self.respond(request, route, started))
        };
        response.map(move |mut response| {
            log_refusal(trace, &method, route, &response);
            let operation = route.and_then(|route| (route.operation)(&method));
            let seen = Seen::Http { method, route: route.map(|route| route.template), status: response.status() };
            let answered = Answered { operation, trace, started, seen };
            if response.extensions().get::<Held>().is_none() {
                service.answered(&answered, || problem::reason_of(&response));
            } else if let Some(span) = service.stream_answered(answered) {
                response = response.map(|body| Body::new(Spanned { body, span }));
            }
            problem::write_body(&mut response, trace);
            trace.add_to(response.headers_mut());
            response
        })
    }

    /// Responds to pages of other origins too.
    async fn respond_openly(
        self,
        request: Request<Incoming>,
        route: Option<&'static Route>,
        started: Instant,
    ) -> Response {
        self.sharing.around(request, |request| self.respond(request, route, started)).await
    }

    fn respond(
        &self,
        request: Request<Incoming>,
        route: Option<&'static Route>,
        started: Instant,
    ) -> impl Future<Output = Response> + Send + use<> {
        let asked = timing_asked(request.headers().get(KV_TIMING).map(HeaderValue::as_bytes));
        let (request, lender) = lend(request);
        let answered = match self.check_header_bytes(&request) {
            Err(error) => Either::Left(ready(problem::to_response(&self.refuse(route, request.method(), error)))),
            Ok(()) => Either::Right(self.answer_of_route(route, request.map(Body::new))),
        };
        // A fault in a handler is an answer with a reason, not a broken connection.
        let answered = AssertUnwindSafe(answered).catch_unwind().map(|answered| answered.unwrap_or_else(|_| fault()));
        let patience = self.service.limits().body_timeout;
        let response = answered.then(move |response| lender.before(response, patience));
        response.map(move |mut response| {
            if asked && let Ok(timing) = HeaderValue::try_from(Timing::so_far(started).to_string()) {
                response.headers_mut().insert(SERVER_TIMING, timing);
            }
            response
        })
    }

    /// One key is what most requests are about: its path was recognised already, and its handler is called without the
    /// router.
    fn answer_of_route(
        &self,
        route: Option<&'static Route>,
        request: Request<Body>,
    ) -> impl Future<Output = Response> + Send + use<> {
        if route.is_some_and(|route| route.template == routes::KEY.template) {
            let service = self.service.clone();
            let key = tower::service_fn(move |request| handlers::kv(State(service.clone()), request).map(Ok).boxed());
            Either::Left(compression::around(key, request))
        } else {
            Either::Right(compression::around(self.routes.clone(), request))
        }
    }

    /// Counts what is refused before its route sees it.
    fn refuse(&self, route: Option<&Route>, method: &Method, error: Error) -> Error {
        match route.and_then(|route| (route.operation)(method)) {
            Some(operation) => self.service.refuse(Protocol::Http, operation, error),
            None => error,
        }
    }

    fn check_header_bytes(&self, request: &Request<Lent>) -> Result<(), Error> {
        let limit = self.service.limits().header_bytes;
        let fields = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
        let line = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
        let bytes = line + fields.sum::<usize>();
        if bytes <= limit {
            return Ok(());
        }
        let text = format!(
            "the request line and headers have {bytes} bytes, the limit is {limit}: send fewer or shorter ones"
        );
        Err(Error::new(Reason::HeaderTooLarge, text).with(|details| details.limit = Some(limit as u64)))
    }
}

fn log_refusal(trace: Trace, method: &Method, route: Option<&Route>, response: &Response) {
    if response.status().is_success() {
        return;
    }
    let Some(reason) = response.headers().get(problem::KV_REASON) else { return };
    let (status, route) = (response.status().as_u16(), route.map(|route| route.template));
    if response.status() == StatusCode::INTERNAL_SERVER_ERROR {
        tracing::error!(%trace, %method, route, "a request met a fault of the server");
    } else {
        tracing::debug!(%trace, %method, route, status, ?reason, "a request was refused");
    }
}

fn fault() -> Response {
    problem::to_response(&Error::internal("a fault of the server: please report it with the Kv-Trace-Id"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_future_of_a_request_is_small() {
        fn bytes_of<F>(_: impl Fn(&Door, Request<Incoming>) -> F) -> usize {
            size_of::<F>()
        }
        // 416 when this was written; nested `async` made it ten times that.
        assert!(bytes_of(Door::answer) <= 640, "{}", bytes_of(Door::answer));
    }
}
