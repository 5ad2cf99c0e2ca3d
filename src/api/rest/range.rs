//! `/v1/kv?…`: a range as a resource. GET gives a page, or all of it as NDJSON; DELETE removes it.

use axum::{
    extract::{Request, State},
    response::Response,
};
use http::{HeaderValue, Method, StatusCode, header::VARY, request::Parts};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    collection::{self, force_base64, to_json},
    conditions, content,
    handlers::{Failure, answer, call, finish, options, write_headers},
    openapi::answers::DeleteRangeAnswers,
    parameters::{DeleteRangeQuery, ScanQuery},
    problem,
    query::Query,
    routes,
    scan_lines::{ScanLineJson, in_key_order},
    stream::{self, NDJSON, Piece},
};
use crate::{
    error::{Error, Result},
    metrics::{Operation, Protocol},
    pb,
    service::{Scanning, Service},
};

/// `/v1/kv?prefix=…`.
pub async fn range(State(service): State<Service>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let streamed = stream::accepts(&parts.headers, NDJSON);
    let (operation, answer) = match parts.method {
        Method::GET | Method::HEAD if streamed => (Operation::Scan, scan(&service, &parts).await),
        Method::GET | Method::HEAD => (Operation::List, collection::list(&service, &parts).await),
        Method::DELETE => (Operation::DeleteRange, delete(&service, &parts).await),
        _ => {
            return problem::method_not_allowed(&routes::RANGE);
        }
    };
    let mut response = finish(&service, operation, answer);
    if operation != Operation::DeleteRange {
        // A cache must not give one form for the other.
        response.headers_mut().append(VARY, HeaderValue::from_static("accept"));
    }
    response
}

/// A scan on its way out.
struct Lines {
    scanning: Scanning,
    with_value: bool,
    force_base64: bool,
    descending: bool,
    store_revision: u64,
    ended: bool,
}

async fn scan(service: &Service, parts: &Parts) -> Result<Response, Failure> {
    let query = Query::parse(parts.uri.query(), ScanQuery::KNOWN)?;
    let request = pb::ScanRequest {
        range: Some(query.range()?),
        start_after: query.bytes("start_after")?.unwrap_or_default(),
        delimiter: query.bytes("delimiter")?.unwrap_or_default(),
        descending: query.flag("descending")?,
        keys_only: query.flag("keys_only")?,
    };
    let lines = Lines {
        with_value: !request.keys_only,
        force_base64: force_base64(&query)?,
        descending: request.descending,
        scanning: service.scan(&call(service), request).await.map_err(Failure::Service)?,
        store_revision: 0,
        ended: false,
    };
    let timer = service.metrics().stream_begins(Some(Operation::Scan), Protocol::Http);
    Ok(stream::response(NDJSON, timer, lines, |mut lines| async {
        let piece = lines.next().await?;
        Some((piece, lines))
    }))
}

impl Lines {
    async fn next(&mut self) -> Option<Piece> {
        if self.ended {
            return None;
        }
        let mut text = Vec::new();
        match self.scanning.next().await {
            Some(Ok(batch)) => {
                self.store_revision = batch.store_revision;
                for item in in_key_order(&batch.entries, &batch.common_prefixes, self.descending) {
                    write_line(&ScanLineJson::new(item, self.with_value, self.force_base64), &mut text);
                }
            }
            Some(Err(error)) => return Some(Piece::Failed(stream::error_line(&error))),
            None => {
                self.ended = true;
                write_line(&ScanLineJson::end(self.store_revision), &mut text);
            }
        }
        Some(Piece::More(text.into()))
    }
}

pub(super) fn write_line(json: &impl Serialize, text: &mut Vec<u8>) {
    // Strings, numbers and lists of them always serialise.
    let _ = serde_json::to_writer(&mut *text, json);
    text.push(b'\n');
}

/// What a delete of a range did.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeleteRangeResponse, examples(json!({"deleted": 2, "complete": true})))]
pub struct DeletedJson {
    /// How many keys.
    deleted: u64,
    /// Whether all of the range is gone; false only where `max_keys` or the request's time ended it.
    complete: bool,
}

/// Delete a range
///
/// Of one of `prefix`, `start` and `end`, `key`, or `all`; everything goes only with `all`. In records of 64 keys at
/// most, each atomic. It takes no `Idempotency-Key`: to repeat it is safe by nature. With `validate_only` it counts.
#[utoipa::path(
    delete,
    path = "/v1/kv",
    operation_id = "deleteRange",
    tag = "Many keys",
    params(DeleteRangeQuery),
    responses(DeleteRangeAnswers)
)]
pub(super) async fn delete(service: &Service, parts: &Parts) -> Result<Response, Failure> {
    let query = Query::parse(parts.uri.query(), DeleteRangeQuery::KNOWN)?;
    content::expect_none(&parts.headers)?;
    conditions::expect_none(&parts.headers)?;
    let max_keys = query.number("max_keys")?;
    if max_keys == Some(0) {
        return Err(Error::invalid_field("max_keys", "`max_keys` is 1 at least: leave it out for no limit").into());
    }
    let request = pb::DeleteRangeRequest {
        range: Some(query.range()?),
        max_keys: max_keys.unwrap_or(0),
        options: Some(options(parts, &query)?),
    };
    let done = service.delete_range(&call(service), request).await.map_err(Failure::Service)?;
    let mut headers = collection::json_headers();
    headers.extend(write_headers(&done.result.unwrap_or_default()));
    let json = DeletedJson { deleted: done.deleted, complete: done.complete };
    Ok(answer(StatusCode::OK, headers, to_json(&json)))
}
