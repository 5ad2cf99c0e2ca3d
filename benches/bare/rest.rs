//! A bare axum server: GET and PUT of a key, with the headers that Tandem's answers have; and a count, by which
//! `tandem bench` tells whether a Tandem is there.

use axum::{
    Router,
    extract::Path,
    response::{AppendHeaders, IntoResponse},
    routing::get,
};
use bytes::Bytes;

use super::VALUE;

const TRACE_ID: &str = "0123456789abcdef0123456789abcdef";

pub fn routes() -> Router {
    let count = || async { ([("content-type", "application/json")], r#"{"count":1,"store_revision":1234567}"#) };
    Router::new().route("/v1/kv/{*key}", get(read).put(write)).route("/v1/kv:count", get(count))
}

async fn read(Path(_key): Path<String>) -> impl IntoResponse {
    let headers = AppendHeaders([
        ("etag", "\"1234567\""),
        ("kv-revision", "1234567"),
        ("kv-create-revision", "123456"),
        ("kv-version", "7"),
        ("kv-store-revision", "1234567"),
        ("cache-control", "no-cache"),
        ("content-type", "application/octet-stream"),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "sandbox"),
        ("kv-trace-id", TRACE_ID),
    ]);
    // Without the type that axum gives to bytes by itself.
    (headers, axum::body::Body::from(Bytes::from_static(&VALUE)))
}

async fn write(Path(_key): Path<String>, value: Bytes) -> impl IntoResponse {
    assert_eq!(value.len(), VALUE.len());
    AppendHeaders([
        ("kv-revision", "1234567"),
        ("kv-durability", "fsynced"),
        ("kv-version", "7"),
        ("etag", "\"1234567\""),
        ("kv-trace-id", TRACE_ID),
    ])
}
