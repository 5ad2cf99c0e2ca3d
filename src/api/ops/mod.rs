//! The ops door: probes and metrics, for orchestrators and Prometheus, and the administration, for operators. It speaks
//! HTTP and gRPC on one port, each through a door of the make of the store's own.

mod admin;
mod probes;

use axum::{Router, body::Body, response::Response};
use http::{Request, header::CONTENT_TYPE};
use hyper::body::Incoming;
use tower::ServiceExt as _;

use self::admin::Administration;
use super::{
    grpc::{self, BuildError},
    rest,
};
use crate::service::Admin;

/// The door, to be called for each request.
#[derive(Clone, Debug)]
pub struct Door {
    probes: Router,
    rest: rest::Door,
    grpc: grpc::Door<Administration>,
}

impl Door {
    /// The door, and the reporter of its gRPC health.
    pub fn new(admin: &Admin) -> Result<(Self, tonic_health::server::HealthReporter), BuildError> {
        let (grpc, reporter) = admin::grpc_door(admin)?;
        let probes = probes::router(admin.service().clone());
        Ok((Self { probes, rest: admin::rest_door(admin), grpc }, reporter))
    }

    /// Answers one request.
    pub async fn answer(self, request: Request<Incoming>) -> Response {
        let content_type = request.headers().get(CONTENT_TYPE);
        if content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc")) {
            return self.grpc.answer(request).await.map(Body::new);
        }
        if request.uri().path().starts_with("/v1/") {
            return self.rest.answer(request).await;
        }
        match self.probes.oneshot(request.map(Body::new)).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}
