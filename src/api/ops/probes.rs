//! Probes and metrics.

use axum::{
    Router,
    extract::{RawQuery, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};

use crate::service::{Health, Service};

/// `/livez`, `/readyz` and `/metrics`.
pub fn router(service: Service) -> Router {
    let here = "here are /livez, /readyz (?verbose), /metrics and /v1/admin/status\n";
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .fallback(move || async move { (StatusCode::NOT_FOUND, here) })
        .with_state(service)
}

/// The process answers: that is all.
async fn livez() -> &'static str {
    "ok\n"
}

/// Whether requests may be sent here. With `?verbose` what was looked at, a line each.
async fn readyz(State(service): State<Service>, RawQuery(query): RawQuery) -> Response {
    let (status, word) = match service.health() {
        Health::Ready => (StatusCode::OK, "ok"),
        Health::Loading => (StatusCode::SERVICE_UNAVAILABLE, "LOADING"),
        Health::Draining => (StatusCode::SERVICE_UNAVAILABLE, "DRAINING"),
        Health::WalFailed => (StatusCode::SERVICE_UNAVAILABLE, "WAL_FAILED"),
    };
    let verbose =
        query.is_some_and(|query| query.split('&').any(|part| part == "verbose" || part.starts_with("verbose=")));
    let mut text = String::new();
    if verbose {
        for check in service.checks() {
            let mark = if check.ok { "[+]" } else { "[-]" };
            let word = if check.ok { "ok" } else { "failed" };
            text.push_str(&format!("{mark}{} {word}: {}\n", check.name, check.detail));
        }
    }
    text.push_str(word);
    text.push('\n');
    (status, text).into_response()
}

async fn metrics(State(service): State<Service>) -> Response {
    service.show_health();
    match service.metrics().render() {
        Ok((content_type, text)) => ([(header::CONTENT_TYPE, content_type)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics could not be written");
            (StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be written\n").into_response()
        }
    }
}
