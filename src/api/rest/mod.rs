//! The REST door: keys and counters as resources, so that curl feels natural.

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
mod problem;
mod query;
mod range;
mod routes;
mod scan_lines;
mod sharing;
mod stream;
mod watch;

use std::{any::Any, time::Instant};

use axum::{Router, body::Body, response::Response};
use http::{HeaderName, HeaderValue, Request, StatusCode};
use hyper::body::Incoming;
use tower_http::catch_panic::CatchPanicLayer;

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
use crate::{
    api::cors::Sharing,
    config::Cors,
    error::{Error, Reason},
    service::{Service, Timing, TraceId, timed, timing_asked},
};

const KV_TIMING: HeaderName = HeaderName::from_static("kv-timing");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// The door, to be called for each request.
#[derive(Clone, Debug)]
pub struct Door {
    service: Service,
    routes: Router,
    sharing: Sharing,
}

impl Door {
    /// A door to this service, shared with pages of these origins.
    pub fn new(service: Service, cors: &Cors) -> Self {
        let routes = routes::router()
            // A fault in a handler is an answer with a reason, not a broken connection.
            .layer(CatchPanicLayer::custom(fault))
            .with_state(service.clone());
        Self { service, routes, sharing: sharing::of_rest(cors) }
    }

    /// Answers one request. Stands around the routes because header size, trace id and metrics belong to every answer.
    pub async fn answer(self, request: Request<Incoming>) -> Response {
        let started = Instant::now();
        let trace = TraceId::of(request.headers().get("traceparent").map(HeaderValue::as_bytes));
        let method = request.method().clone();
        let route = Route::of(request.uri().path()).map(|route| route.template);
        let asked = timing_asked(request.headers().get(KV_TIMING).map(HeaderValue::as_bytes));
        let respond = self.sharing.around(request, |request| self.respond(request, started));
        let mut response = if asked { Box::pin(timed(respond)).await } else { respond.await };
        if response.extensions().get::<Held>().is_none() {
            self.service.metrics().http_request(&method, route, response.status(), started.elapsed());
        }
        if let Some(reason) = response.headers().get(problem::KV_REASON) {
            let status = response.status().as_u16();
            if response.status() == StatusCode::INTERNAL_SERVER_ERROR {
                tracing::error!(%trace, %method, route, "a request met a fault of the server");
            } else {
                tracing::debug!(%trace, %method, route, status, ?reason, "a request was refused");
            }
        }
        problem::write_body(&mut response, trace);
        trace.add_to(response.headers_mut());
        response
    }

    async fn respond(&self, request: Request<Incoming>, started: Instant) -> Response {
        let mut response = match self.check_header_bytes(&request) {
            Err(error) => problem::to_response(&error),
            Ok(()) => compression::around(self.routes.clone(), request.map(Body::new)).await,
        };
        let timing = Timing::so_far(started).and_then(|timing| HeaderValue::try_from(timing.to_string()).ok());
        response.headers_mut().extend(timing.map(|timing| (SERVER_TIMING, timing)));
        response
    }

    fn check_header_bytes(&self, request: &Request<Incoming>) -> Result<(), Error> {
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

fn fault(_: Box<dyn Any + Send>) -> Response {
    problem::to_response(&Error::internal("a fault of the server: please report it with the Kv-Trace-Id"))
}
