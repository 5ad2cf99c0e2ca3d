//! What telemetry does for a request, and nothing else.

use std::time::Duration;

use http::{Method, StatusCode};
use tandem::metrics::{Metrics, Operation, Protocol};

use super::Path;

const ELAPSED: Duration = Duration::from_micros(37);

pub fn rest() -> Path {
    let metrics = Metrics::new(true).unwrap();
    Box::new(move || {
        metrics.answered(Operation::Get, Protocol::Http, None);
        metrics.http_request(&Method::GET, Some("/v1/kv/{key}"), StatusCode::OK, ELAPSED);
    })
}

pub fn grpc() -> Path {
    let metrics = Metrics::new(true).unwrap();
    Box::new(move || {
        metrics.answered(Operation::Get, Protocol::Grpc, None);
        metrics.rpc_call("tandem.v1.KvService/Get", tonic::Code::Ok, ELAPSED);
    })
}
