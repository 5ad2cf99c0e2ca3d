//! Cross-origin sharing (CORS): whether a browser lets pages of other origins call a door, and what it shows them. The
//! doors say what they take and show; who may call is the configuration's matter.

use std::{convert::Infallible, time::Duration};

use http::{HeaderName, HeaderValue, Method, Request, Response};
use hyper::body::Incoming;
use tower::{Layer as _, ServiceExt as _};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::config::Cors;

/// How long a browser may remember what it asked before a request; browsers cap it themselves, at two hours or less.
const PREFLIGHT_AGE_MAX: Duration = Duration::from_secs(2 * 3_600);

/// What a door takes from pages of other origins, and which of its headers they see.
#[derive(Clone, Copy, Debug)]
pub struct Shared {
    /// Methods of requests.
    pub methods: &'static [Method],
    /// Headers of requests, beyond those that browsers always let through.
    pub request_headers: &'static [&'static str],
    /// Headers of answers.
    pub exposed: &'static [&'static str],
}

/// The rule of one door: nothing unless some origin is allowed.
#[derive(Clone, Debug)]
pub struct Sharing(Option<CorsLayer>);

impl Sharing {
    /// What the configuration allows of what the door shares.
    pub fn new(cors: &Cors, shared: Shared) -> Self {
        let origins = &cors.allowed_origins;
        if origins.is_empty() {
            return Self(None);
        }
        let allowed = if origins.iter().any(|origin| origin == "*") {
            AllowOrigin::any()
        } else {
            // Configuration takes visible ASCII alone.
            AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()))
        };
        let names = |names: &'static [&'static str]| names.iter().map(|name| HeaderName::from_static(name));
        Self(Some(
            CorsLayer::new()
                .allow_origin(allowed)
                .allow_methods(shared.methods.to_vec())
                .allow_headers(names(shared.request_headers).collect::<Vec<_>>())
                .expose_headers(names(shared.exposed).collect::<Vec<_>>())
                .max_age(PREFLIGHT_AGE_MAX),
        ))
    }

    /// Whether pages of any other origin may call.
    pub fn is_open(&self) -> bool {
        self.0.is_some()
    }

    /// Answers a browser's question before its request, or lets `door` answer and adds what the browser wants to read.
    pub async fn around<B, F>(&self, request: Request<Incoming>, door: impl Fn(Request<Incoming>) -> F) -> Response<B>
    where
        B: Default,
        F: Future<Output = Response<B>>,
    {
        let Some(layer) = &self.0 else { return door(request).await };
        let door = tower::service_fn(|request| {
            let answered = door(request);
            async move { Ok::<_, Infallible>(answered.await) }
        });
        match layer.layer(door).oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}
