//! What the gRPC door shares with pages of other origins, by name: what gRPC-Web clients of browsers send and read.

use http::Method;

use crate::{
    api::cors::{Shared, Sharing},
    config::Cors,
};

const SHARED: Shared = Shared {
    methods: &[Method::POST],
    request_headers: &[
        "accept",
        "content-type",
        "grpc-accept-encoding",
        "grpc-encoding",
        "grpc-timeout",
        "kv-timing",
        "traceparent",
        "tracestate",
        "x-grpc-web",
        "x-user-agent",
    ],
    exposed: &[
        "grpc-encoding",
        "grpc-message",
        "grpc-status",
        "grpc-status-details-bin",
        "kv-reason",
        "kv-trace-id",
        "server-timing",
    ],
};

/// The door's rule.
pub fn of_grpc(cors: &Cors) -> Sharing {
    Sharing::new(cors, SHARED)
}
