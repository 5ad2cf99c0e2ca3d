//! The routes, each in four steps: check, call, map the error, answer.

use std::time::Instant;

use axum::{
    body::Body,
    extract::{Request, State},
    response::Response,
};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{
        CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH,
        X_CONTENT_TYPE_OPTIONS,
    },
    request::Parts,
};

use super::{
    conditions::{self, strong_tag, tags, weak_tag},
    content::{self, Bound},
    escape, json,
    openapi::{
        answers::{DeleteAnswers, GetAnswers, IncrementAnswers, PutAnswers, TouchAnswers},
        headers::{ReadHeaders, WriteHeaders},
        key::KeyInPath,
    },
    parameters::{DeleteQuery, GetQuery, IncrementQuery, PutQuery, TouchQuery},
    problem::{self, KV_REPLAYED, KV_STORE_REVISION},
    query::Query,
    routes,
};
use crate::{
    error::{Error, Reason, Result},
    limits::WAIT_MAX,
    metrics::{Operation, Protocol},
    model::{CONTENT_TYPE_COUNTER, CONTENT_TYPE_DEFAULT},
    pb,
    service::{Call, Service},
};

const KV_REVISION: HeaderName = HeaderName::from_static("kv-revision");
const KV_CREATE_REVISION: HeaderName = HeaderName::from_static("kv-create-revision");
const KV_VERSION: HeaderName = HeaderName::from_static("kv-version");
const KV_EXPIRES_AT: HeaderName = HeaderName::from_static("kv-expires-at");
const KV_DURABILITY: HeaderName = HeaderName::from_static("kv-durability");
const KV_PREVIOUS_REVISION: HeaderName = HeaderName::from_static("kv-previous-revision");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Where keys are.
pub const KV_PREFIX: &str = "/v1/kv/";
/// Where counters are.
pub const COUNTERS_PREFIX: &str = "/v1/counters/";

/// Marks the answer of a request that was held: it stays out of the histogram of unary requests.
#[derive(Clone, Copy, Debug)]
pub struct Held;

/// `/v1/kv/{key…}`.
pub async fn kv(State(service): State<Service>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let (operation, answer) = match parts.method {
        Method::GET | Method::HEAD => (Operation::Get, get(&service, &parts).await),
        Method::PUT => (Operation::Put, put(&service, &parts, body).await),
        Method::PATCH => (Operation::Touch, touch(&service, &parts).await),
        Method::DELETE => (Operation::Delete, delete(&service, &parts).await),
        _ => {
            // Without a key there is nothing to say about methods.
            return match key(&parts, KV_PREFIX) {
                Err(error) if error.reason == Reason::KeyEmpty => problem::to_response(&error),
                _ => problem::method_not_allowed(&routes::KEY),
            };
        }
    };
    finish(&service, operation, answer)
}

/// `/v1/counters/{key…}`.
pub async fn counters(State(service): State<Service>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    if parts.method != Method::POST {
        return match key(&parts, COUNTERS_PREFIX) {
            Err(error) if error.reason == Reason::KeyEmpty => problem::to_response(&error),
            _ => problem::method_not_allowed(&routes::COUNTER),
        };
    }
    let answer = increment(&service, &parts).await;
    finish(&service, Operation::Increment, answer)
}

/// Any other path.
pub async fn nowhere() -> Response {
    let text = "no such path: keys are under /v1/kv/, counters under /v1/counters/, pages of keys at /v1/kv";
    problem::to_response(&Error::new(Reason::RouteNotFound, text))
}

/// An error of the door itself, or one that the service has counted already.
pub(super) enum Failure {
    Door(Error),
    Service(Error),
}

impl From<Error> for Failure {
    /// Everything that `?` meets in a check is the door's own.
    fn from(error: Error) -> Self {
        Self::Door(error)
    }
}

pub(super) fn finish(service: &Service, operation: Operation, answer: Result<Response, Failure>) -> Response {
    match answer {
        Ok(response) => response,
        Err(Failure::Service(error)) => problem::to_response(&error),
        Err(Failure::Door(error)) => problem::to_response(&service.refuse(Protocol::Http, operation, error)),
    }
}

fn key(parts: &Parts, prefix: &str) -> Result<Bytes> {
    escape::key_of(parts.uri.path().strip_prefix(prefix).unwrap_or_default())
}

pub(super) fn call(service: &Service) -> Call {
    Call { protocol: Protocol::Http, deadline: Instant::now() + service.limits().request_timeout }
}

/// Read a value
///
/// The raw bytes as they were stored, with their content type; the headers tell revision, version and expiry. With
/// `format=json` the entry as JSON. With `wait` the answer is held until there is news.
#[utoipa::path(
    get,
    path = "/v1/kv/{key}",
    tag = "Keys",
    params(KeyInPath, GetQuery, ReadHeaders),
    responses(GetAnswers)
)]
pub(super) async fn get(service: &Service, parts: &Parts) -> Result<Response, Failure> {
    let key = key(parts, KV_PREFIX)?;
    let query = Query::parse(parts.uri.query(), GetQuery::KNOWN)?;
    let as_json = match query.text("format")? {
        None => false,
        Some("json") => true,
        Some(_) => return Err(Error::invalid_field("format", "`format` is json; raw bytes come without it").into()),
    };
    let force_base64 = match query.text("encoding")? {
        None => false,
        Some("base64") => true,
        Some(_) => return Err(Error::invalid_field("encoding", "`encoding` is base64, with format=json").into()),
    };
    let must_match = tags(&parts.headers, &IF_MATCH)?;
    let known = tags(&parts.headers, &IF_NONE_MATCH)?;
    let wait = query.duration("wait")?;
    if wait.is_some_and(|wait| wait > WAIT_MAX) {
        let text = format!("`wait` is {} s at most: ask again for longer", WAIT_MAX.as_secs());
        return Err(Error::invalid_field("wait", text).with(|details| details.limit = Some(WAIT_MAX.as_secs())).into());
    }
    let request = pb::GetRequest { key, metadata_only: false };
    let answer = match wait {
        None => service.get(&call(service), request).await,
        Some(wait) => {
            let started = Instant::now();
            let answer =
                service.get_waiting(&call(service), request, wait, |answer| is_news(answer, known.as_ref())).await;
            service.metrics().waited(started.elapsed());
            answer
        }
    };
    let mut response = match answer {
        Err(error) => problem::to_response(&error),
        Ok(pb::GetResponse { entry: None, .. }) => return Err(Error::internal("an answer without an entry").into()),
        Ok(pb::GetResponse { entry: Some(entry), store_revision }) => {
            let revision = entry.revision;
            if must_match.is_some_and(|tags| !tags.match_revision(revision)) {
                let error =
                    Error::new(Reason::ConditionFailed, "If-Match does not hold: the entry has another revision");
                problem::to_response(&error.with(|details| {
                    details.current_revision = Some(revision);
                    details.store_revision = Some(store_revision);
                }))
            } else {
                let not_modified = known.is_some_and(|known| known.match_revision(revision));
                let head = parts.method == Method::HEAD;
                show_entry(entry, store_revision, as_json, force_base64, not_modified, head).await
            }
        }
    };
    if wait.is_some() {
        response.extensions_mut().insert(Held);
    }
    Ok(response)
}

/// Whether an answer says something that the caller does not know: neither 304, nor 404 to one who never saw the key.
fn is_news(answer: &Result<pb::GetResponse>, known: Option<&conditions::Tags>) -> bool {
    match answer {
        Ok(found) => {
            let revision = found.entry.as_ref().map_or(0, |entry| entry.revision);
            !known.is_some_and(|known| known.match_revision(revision))
        }
        Err(error) => error.reason != Reason::KeyNotFound || known.is_some(),
    }
}

async fn show_entry(
    entry: pb::Entry,
    store_revision: u64,
    as_json: bool,
    force_base64: bool,
    not_modified: bool,
    head: bool,
) -> Response {
    let mut headers = HeaderMap::with_capacity(16);
    let tag = if as_json { weak_tag(entry.revision) } else { strong_tag(entry.revision) };
    if let Some(tag) = tag {
        headers.insert(ETAG, tag);
    }
    headers.insert(KV_REVISION, HeaderValue::from(entry.revision));
    headers.insert(KV_CREATE_REVISION, HeaderValue::from(entry.create_revision));
    headers.insert(KV_VERSION, HeaderValue::from(entry.version));
    headers.insert(KV_STORE_REVISION, HeaderValue::from(store_revision));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    let expires_at = entry.expire_time.as_ref().and_then(json::time).and_then(|time| HeaderValue::try_from(time).ok());
    headers.extend(expires_at.map(|time| (KV_EXPIRES_AT, time)));
    let body = if not_modified {
        Bytes::new()
    } else if as_json {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        json::written(entry, move |entry| json::entry(entry, force_base64).into()).await
    } else {
        raw_value_headers(&mut headers, &entry.content_type);
        entry.value
    };
    let status = if not_modified { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
    if head && !not_modified {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        return answer(status, headers, Bytes::new());
    }
    answer(status, headers, body)
}

/// A value is somebody's bytes under this server's name: a browser must neither guess its type nor run it.
fn raw_value_headers(headers: &mut HeaderMap, content_type: &str) {
    let content_type = HeaderValue::from_str(content_type).unwrap_or(HeaderValue::from_static(CONTENT_TYPE_DEFAULT));
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
}

pub(super) fn answer(status: StatusCode, headers: HeaderMap, body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// Write a value
///
/// The body is the value, as it stands, and its `Content-Type` is stored with it. A missing type and that of a form are
/// stored as `application/octet-stream`, since `curl -d` sends the latter by habit.
#[utoipa::path(
    put, path = "/v1/kv/{key}", tag = "Keys",
    params(KeyInPath, PutQuery, WriteHeaders),
    request_body(
        description = "The value, of 1 MiB at most unless configured otherwise.",
        content(("text/plain", example = json!("hello")), ("application/octet-stream"), ("*/*")),
    ),
    responses(PutAnswers),
)]
pub(super) async fn put(service: &Service, parts: &Parts, body: Body) -> Result<Response, Failure> {
    let key = key(parts, KV_PREFIX)?;
    let query = Query::parse(parts.uri.query(), PutQuery::KNOWN)?;
    let share = service.body_share();
    let request = pb::PutRequest {
        key,
        expiry: query.expiry()?,
        content_type: content::content_type(&parts.headers)?,
        conditions: conditions::of_write(&parts.headers, query.number("if_version")?)?,
        return_previous: query.flag("return_previous")?,
        options: Some(options(parts, &query)?),
        value: content::read(&parts.headers, body, Bound::value(service.limits()), &share).await?,
    };
    let done = service.put(&call(service), request).await.map_err(Failure::Service)?;
    let status = if done.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok(show_write(status, done.result, Some(done.version), done.previous))
}

/// Change when a key expires
///
/// And nothing else: a new revision, the same version. One of `ttl`, `expire_time` and `keep_ttl` is needed; `ttl=never`
/// lets it stay, `keep_ttl` changes the revision alone.
#[utoipa::path(
    patch,
    path = "/v1/kv/{key}",
    tag = "Keys",
    params(KeyInPath, TouchQuery, WriteHeaders),
    responses(TouchAnswers)
)]
pub(super) async fn touch(service: &Service, parts: &Parts) -> Result<Response, Failure> {
    let key = key(parts, KV_PREFIX)?;
    let query = Query::parse(parts.uri.query(), TouchQuery::KNOWN)?;
    content::expect_none(&parts.headers)?;
    let expiry = query.expiry()?;
    if expiry.is_none() {
        let text = "PATCH changes the expiry: send ttl=60s, ttl=never, expire_time=… or keep_ttl";
        return Err(Error::invalid_field("ttl", text).into());
    }
    let request = pb::TouchRequest {
        key,
        expiry,
        conditions: conditions::of_write(&parts.headers, query.number("if_version")?)?,
        return_previous: query.flag("return_previous")?,
        options: Some(options(parts, &query)?),
    };
    let return_previous = request.return_previous;
    let done = service.touch(&call(service), request).await.map_err(Failure::Service)?;
    let status = if return_previous { StatusCode::OK } else { StatusCode::NO_CONTENT };
    Ok(show_write(status, done.result, Some(done.version), done.previous))
}

/// Delete a key
#[utoipa::path(
    delete,
    path = "/v1/kv/{key}",
    tag = "Keys",
    params(KeyInPath, DeleteQuery, WriteHeaders),
    responses(DeleteAnswers)
)]
pub(super) async fn delete(service: &Service, parts: &Parts) -> Result<Response, Failure> {
    let key = key(parts, KV_PREFIX)?;
    let query = Query::parse(parts.uri.query(), DeleteQuery::KNOWN)?;
    content::expect_none(&parts.headers)?;
    let request = pb::DeleteRequest {
        key,
        conditions: conditions::of_write(&parts.headers, query.number("if_version")?)?,
        return_previous: query.flag("return_previous")?,
        options: Some(options(parts, &query)?),
    };
    let return_previous = request.return_previous;
    let done = service.delete(&call(service), request).await.map_err(Failure::Service)?;
    let status = if return_previous { StatusCode::OK } else { StatusCode::NO_CONTENT };
    Ok(show_write(status, done.result, None, done.previous))
}

/// Add to a counter
///
/// A counter is a value that is a signed 64-bit number as text, in the same key space: it is read and deleted under
/// `/v1/kv/`. An absent one is created. The expiry applies only where this creates the key.
#[utoipa::path(
    post,
    path = "/v1/counters/{key}",
    tag = "Counters",
    params(KeyInPath, IncrementQuery, WriteHeaders),
    responses(IncrementAnswers)
)]
pub(super) async fn increment(service: &Service, parts: &Parts) -> Result<Response, Failure> {
    let key = key(parts, COUNTERS_PREFIX)?;
    let query = Query::parse(parts.uri.query(), IncrementQuery::KNOWN)?;
    content::expect_none(&parts.headers)?;
    let request = pb::IncrementRequest {
        key,
        by: query.number("by")?,
        initial: query.number("initial")?.unwrap_or(0),
        expiry: query.expiry()?,
        conditions: conditions::of_write(&parts.headers, query.number("if_version")?)?,
        return_previous: false,
        options: Some(options(parts, &query)?),
    };
    let done = service.increment(&call(service), request).await.map_err(Failure::Service)?;
    let mut response = show_write(StatusCode::OK, done.result, Some(done.version), None);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE_COUNTER));
    *response.body_mut() = Body::from(done.value.to_string());
    Ok(response)
}

pub(super) fn options(parts: &Parts, query: &Query<'_>) -> Result<pb::WriteOptions> {
    let mut ids = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
    let request_id = match (ids.next(), ids.next()) {
        (None, _) => String::new(),
        (Some(id), None) => request_id(id)?,
        (Some(_), Some(_)) => {
            return Err(Error::invalid_field("idempotency-key", "Idempotency-Key is there twice: send it once"));
        }
    };
    Ok(pb::WriteOptions {
        request_id,
        durability: query.durability()?.into(),
        validate_only: query.flag("validate_only")?,
    })
}

/// Quoted, as the standard's draft says, or bare.
fn request_id(value: &HeaderValue) -> Result<String> {
    let invalid = || {
        Error::invalid_field("idempotency-key", "Idempotency-Key has 1 to 128 visible ASCII characters, quoted or bare")
    };
    let text = value.to_str().map_err(|_| invalid())?.trim();
    let id = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    if id.is_empty() { Err(invalid()) } else { Ok(id.to_owned()) }
}

/// What the answer to every write says of it.
pub(super) fn write_headers(result: &pb::WriteResult) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    // Only validated: nothing was written, and nothing has a revision.
    if result.revision > 0 {
        headers.insert(KV_REVISION, HeaderValue::from(result.revision));
        let durability = match result.durability() {
            pb::Durability::Fsynced => "fsynced",
            pb::Durability::Written | pb::Durability::Unspecified => "written",
        };
        headers.insert(KV_DURABILITY, HeaderValue::from_static(durability));
    }
    if result.replayed {
        headers.insert(KV_REPLAYED, HeaderValue::from_static("true"));
    }
    headers
}

pub(super) fn show_write(
    status: StatusCode,
    result: Option<pb::WriteResult>,
    version: Option<u64>,
    previous: Option<pb::Entry>,
) -> Response {
    let result = result.unwrap_or_default();
    let mut headers = write_headers(&result);
    if let Some(version) = version {
        headers.insert(KV_VERSION, HeaderValue::from(version));
        // What was deleted has no state that a tag could name, nor has what was only validated.
        if result.revision > 0
            && let Some(tag) = strong_tag(result.revision)
        {
            headers.insert(ETAG, tag);
        }
    }
    let body = match previous {
        Some(previous) => {
            headers.insert(KV_PREVIOUS_REVISION, HeaderValue::from(previous.revision));
            raw_value_headers(&mut headers, &previous.content_type);
            previous.value
        }
        None => Bytes::new(),
    };
    answer(status, headers, body)
}
