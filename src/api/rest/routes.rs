//! The routes: the one table from which the router is built, a refused method is answered and metrics are named. The
//! API's document is held to it by a test.

use axum::{
    Router,
    routing::{MethodRouter, any},
};

use http::Method;

use super::{collection, docs, handlers, many, range, watch};
use crate::{metrics::Operation, service::Service};

/// A path and what it takes.
#[derive(Debug)]
pub struct Route {
    /// The path as OpenAPI writes it. A parameter is the last of it and holds all that follows, slashes too.
    pub template: &'static str,
    /// Its methods, as `Allow` names them.
    pub allow: &'static str,
    /// What to do instead, said to another method.
    pub remedy: &'static str,
    /// What a method asks for, if it is one of the store's operations.
    pub operation: fn(&Method) -> Option<Operation>,
}

/// One key.
pub const KEY: Route = Route {
    template: "/v1/kv/{key}",
    allow: "GET, HEAD, PUT, PATCH, DELETE",
    remedy: "a key takes GET, HEAD, PUT, PATCH and DELETE: to write it use PUT",
    operation: |method| match *method {
        Method::GET | Method::HEAD => Some(Operation::Get),
        Method::PUT => Some(Operation::Put),
        Method::PATCH => Some(Operation::Touch),
        Method::DELETE => Some(Operation::Delete),
        _ => None,
    },
};
/// One counter.
pub const COUNTER: Route = Route {
    template: "/v1/counters/{key}",
    allow: "POST",
    remedy: "a counter takes POST, which adds to it: read it under /v1/kv/",
    operation: |_| Some(Operation::Increment),
};
/// Keys in order.
pub const RANGE: Route = Route {
    template: "/v1/kv",
    allow: "GET, HEAD, DELETE",
    remedy: "a range takes GET and DELETE: keys are written one by one under /v1/kv/, or by POST /v1/kv:batchWrite",
    operation: |method| match *method {
        Method::GET | Method::HEAD => Some(Operation::List),
        Method::DELETE => Some(Operation::DeleteRange),
        _ => None,
    },
};
/// Changes as they happen.
pub const WATCH: Route = Route {
    template: "/v1/watch",
    allow: "GET",
    remedy: "watching takes GET, with the range in the query",
    operation: |_| Some(Operation::Watch),
};
/// How many keys.
pub const COUNT: Route = Route {
    template: "/v1/kv:count",
    allow: "GET, HEAD",
    remedy: "counting takes GET, with the range in the query",
    operation: |_| Some(Operation::Count),
};
/// Reads of many keys.
pub const BATCH_GET: Route = Route {
    template: "/v1/kv:batchGet",
    allow: "POST",
    remedy: "a batch takes POST, with the keys as JSON in the body",
    operation: |_| Some(Operation::BatchGet),
};
/// Independent writes of many keys.
pub const BATCH_WRITE: Route = Route {
    template: "/v1/kv:batchWrite",
    allow: "POST",
    remedy: "a batch takes POST, with the writes as JSON in the body",
    operation: |_| Some(Operation::BatchWrite),
};
/// Transactions.
pub const TXN: Route = Route {
    template: "/v1/kv:txn",
    allow: "POST",
    remedy: "a transaction takes POST, with guards and operations as JSON in the body",
    operation: |_| Some(Operation::Txn),
};
/// The API's document.
pub const DOCUMENT: Route =
    Route { template: "/openapi.json", allow: "GET, HEAD", remedy: "the document is only read", operation: |_| None };
/// The way to the page that shows it.
pub const DOCS: Route =
    Route { template: "/docs", allow: "GET, HEAD", remedy: "the page is only read", operation: |_| None };
/// The page's files.
pub const DOCS_FILE: Route =
    Route { template: "/docs/{file}", allow: "GET, HEAD", remedy: "the page is only read", operation: |_| None };

/// All of them; those that are asked for most come first.
pub const ROUTES: [&Route; 11] =
    [&KEY, &COUNTER, &RANGE, &COUNT, &BATCH_GET, &BATCH_WRITE, &TXN, &WATCH, &DOCUMENT, &DOCS, &DOCS_FILE];

impl Route {
    /// The path before the parameter.
    fn prefix(&self) -> Option<&'static str> {
        self.template.split_once('{').map(|(prefix, _)| prefix)
    }

    /// The route of a table that a path is of.
    pub fn among(table: &[&'static Self], path: &str) -> Option<&'static Self> {
        table.iter().copied().find(|route| match route.prefix() {
            Some(prefix) => path.starts_with(prefix),
            None => path == route.template,
        })
    }
}

/// The router of the table. Every method: the handlers refuse with their reason those that their route does not take.
pub fn router() -> Router<Service> {
    let handlers: [MethodRouter<Service>; ROUTES.len()] = [
        any(handlers::kv),
        any(handlers::counters),
        any(range::range),
        any(collection::count),
        any(collection::batch_get),
        any(many::batch_write),
        any(many::txn),
        any(watch::watch),
        any(docs::document),
        any(docs::redirect),
        any(docs::file),
    ];
    let routes = ROUTES.into_iter().zip(handlers);
    routes.fold(Router::new().fallback(handlers::nowhere), |router, (route, handler)| match route.prefix() {
        None => router.route(route.template, handler),
        // A parameter matches no empty rest.
        Some(prefix) => router.route(prefix, handler.clone()).route(&format!("{prefix}{{*rest}}"), handler),
    })
}
