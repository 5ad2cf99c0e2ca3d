//! Errors as HTTP clients see them: `application/problem+json` of RFC 9457, and the reason in a header too.

use axum::{body::Body, response::Response};
use http::{
    HeaderName, HeaderValue,
    header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{openapi::shapes, routes::Route};
use crate::{
    error::{Details, Error, Reason},
    service::Trace,
};

/// The reason's header: a HEAD answer has no body.
pub const KV_REASON: HeaderName = HeaderName::from_static("kv-reason");
/// Says that an answer is a remembered one.
pub const KV_REPLAYED: HeaderName = HeaderName::from_static("kv-replayed");
/// Revision of the state that an answer shows.
pub const KV_STORE_REVISION: HeaderName = HeaderName::from_static("kv-store-revision");

/// A refusal, as RFC 9457 writes it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Problem<'error> {
    /// Always `about:blank`: the reason says more.
    r#type: &'static str,
    /// The status in words.
    title: &'static str,
    status: u16,
    /// Why, for programs: the same over gRPC.
    #[schema(schema_with = shapes::reason)]
    reason: &'static str,
    /// Why, for people: names the thing, the limit and the remedy.
    detail: &'error str,
    /// The parameter, header or field at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    field: Option<&'error str>,
    /// The limit that was passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    limit: Option<u64>,
    /// Number of the operation at fault, among several, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    operation_index: Option<u64>,
    /// For a write: whether it happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = shapes::outcome)]
    outcome: Option<&'static str>,
    /// Revision of the entry that a condition met; 0: there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    current_revision: Option<u64>,
    /// Revision of the state that was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    store_revision: Option<u64>,
    /// The oldest revision that can be watched from.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    oldest_revision: Option<u64>,
    /// From where a watcher that was ended goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    resume_revision: Option<u64>,
    /// The request's id in the server's logs: `Kv-Trace-Id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    trace_id: Option<String>,
}

/// An error in the middle of a stream.
pub fn to_json(error: &Error) -> String {
    json_of(error, None)
}

fn json_of(error: &Error, trace: Option<Trace>) -> String {
    let none = Details::default();
    let problem = problem_of(error, error.details.as_deref().unwrap_or(&none), trace);
    // Strings and numbers always serialise.
    serde_json::to_string(&problem).unwrap_or_default()
}

fn problem_of<'error>(error: &'error Error, details: &'error Details, trace: Option<Trace>) -> Problem<'error> {
    let status = error.reason.http_status();
    Problem {
        r#type: "about:blank",
        title: status.canonical_reason().unwrap_or("Error"),
        status: status.as_u16(),
        reason: error.reason.name(),
        detail: &error.message,
        field: details.field.as_deref(),
        limit: details.limit,
        operation_index: details.operation_index,
        outcome: details.outcome.map(|outcome| outcome.as_str()),
        current_revision: details.current_revision,
        store_revision: details.store_revision,
        oldest_revision: details.oldest_revision,
        resume_revision: details.resume_revision,
        trace_id: trace.map(|trace| trace.to_string()),
    }
}

/// An error whose body is still to be written, by [`write_body`].
#[derive(Clone, Debug)]
struct Unwritten(Error);

/// The reason that an answer of this door gives.
pub fn reason_of(response: &Response) -> Option<Reason> {
    Reason::of_name(response.headers().get(KV_REASON)?.to_str().ok()?)
}

/// Writes the body of an answer that is an error's: only the door knows the request's id.
pub fn write_body(response: &mut Response, trace: Trace) {
    if let Some(Unwritten(error)) = response.extensions_mut().remove() {
        *response.body_mut() = Body::from(json_of(&error, Some(trace)));
        // Said of the body that was not there yet.
        response.headers_mut().remove(CONTENT_LENGTH);
    }
}

/// The answer of an error.
pub fn to_response(error: &Error) -> Response {
    let none = Details::default();
    let details = error.details.as_deref().unwrap_or(&none);
    let mut response = Response::new(Body::empty());
    *response.status_mut() = error.reason.http_status();
    response.extensions_mut().insert(Unwritten(error.clone()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(KV_REASON, HeaderValue::from_static(error.reason.name()));
    if let Some(after_s) = error.reason.retry_after_s() {
        headers.insert(RETRY_AFTER, HeaderValue::from(after_s));
    }
    if let Some(store_revision) = details.store_revision {
        headers.insert(KV_STORE_REVISION, HeaderValue::from(store_revision));
    }
    if details.replayed {
        headers.insert(KV_REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

/// 405, with what the route does take.
pub fn method_not_allowed(route: &'static Route) -> Response {
    let mut response = to_response(&Error::new(Reason::MethodNotAllowed, route.remedy));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(route.allow));
    response
}
