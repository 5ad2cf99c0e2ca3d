//! Many keys at once: pages, counts and batches, as JSON for people.

use axum::{
    extract::{Request, State},
    response::Response,
};
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine as _};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, LINK},
    request::Parts,
};
use serde::{
    Deserialize, Serialize,
    de::{DeserializeOwned, IgnoredAny},
};
use utoipa::ToSchema;

use super::{
    content::{self, Bound},
    handlers::{Failure, answer, call, finish},
    json::{self, EntryJson, text_or_base64},
    openapi::{
        answers::{BatchGetAnswers, CountAnswers, ListAnswers},
        shapes,
    },
    operations::object,
    parameters::{BatchGetQuery, CountQuery, ListQuery},
    problem::{self, KV_STORE_REVISION},
    query::Query,
    routes,
};
use crate::{
    error::{Error, Reason, Result},
    metrics::Operation,
    pb::{self, read_result::Kind},
    service::Service,
};

/// Of what serde says of a field that is unknown: its name is the client's, and may be long.
const UNKNOWN_CHARACTERS_SHOWN: usize = 60;

/// `GET /v1/kv:count?prefix=…`.
pub async fn count(State(service): State<Service>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    if parts.method != Method::GET && parts.method != Method::HEAD {
        return problem::method_not_allowed(&routes::COUNT);
    }
    let answer = count_range(&service, &parts).await;
    finish(&service, Operation::Count, answer)
}

/// `POST /v1/kv:batchGet`.
pub async fn batch_get(State(service): State<Service>, request: Request) -> Response {
    if request.method() != Method::POST {
        return problem::method_not_allowed(&routes::BATCH_GET);
    }
    let answer = read_batch(&service, request).await;
    finish(&service, Operation::BatchGet, answer)
}

/// A page of keys, in order.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Page, examples(json!({
    "entries": [{
        "key": "user/1",
        "value": "Ada",
        "revision": 3,
        "create_revision": 3,
        "version": 1,
        "expire_time": "2030-01-01T00:01:00.000Z",
        "update_time": "2030-01-01T00:00:00.000Z",
        "content_type": "text/plain",
    }],
    "store_revision": 3,
})))]
pub struct PageJson<'page> {
    entries: Vec<EntryJson<'page>>,
    /// What was folded by the delimiter; missing if nothing was.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    common_prefixes: Vec<PrefixJson<'page>>,
    /// Of the next page; missing on the last.
    #[serde(skip_serializing_if = "String::is_empty")]
    next_page_token: String,
    /// Revision of the state that the page shows.
    store_revision: u64,
}

/// What several keys start with.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CommonPrefix)]
pub struct PrefixJson<'page> {
    /// If it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    prefix: Option<&'page str>,
    /// If it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = shapes::base64)]
    prefix_base64: Option<String>,
}

/// How many keys there are.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CountResponse, examples(json!({"count": 1, "store_revision": 3})))]
pub struct CountJson {
    count: u64,
    /// Revision of the state that was counted.
    store_revision: u64,
}

impl<'page> PageJson<'page> {
    /// The JSON of a page, with values or without.
    pub fn new(page: &'page pb::ListResponse, with_value: bool, force_base64: bool) -> Self {
        let prefixes = page.common_prefixes.iter().map(|prefix| {
            let (prefix, prefix_base64) = text_or_base64(prefix, force_base64);
            PrefixJson { prefix, prefix_base64 }
        });
        Self {
            entries: page.entries.iter().map(|entry| EntryJson::new(entry, with_value, force_base64)).collect(),
            common_prefixes: prefixes.collect(),
            next_page_token: BASE64_URL_SAFE_NO_PAD.encode(&page.next_page_token),
            store_revision: page.store_revision,
        }
    }
}

impl CountJson {
    /// The JSON of a count.
    pub fn new(counted: &pb::CountResponse) -> Self {
        Self { count: counted.count, store_revision: counted.store_revision }
    }
}

/// What a read found.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ReadResult)]
pub enum ReadJson<'batch> {
    Entry(EntryJson<'batch>),
    /// There is none.
    Absent(bool),
    /// The answer was full: ask for this key again.
    Unprocessed(bool),
}

impl<'batch> ReadJson<'batch> {
    /// What a read found.
    pub(super) fn new(result: &'batch pb::ReadResult, with_value: bool, force_base64: bool) -> Self {
        match &result.kind {
            Some(Kind::Entry(entry)) => Self::Entry(EntryJson::new(entry, with_value, force_base64)),
            Some(Kind::Absent(_)) => Self::Absent(true),
            Some(Kind::Unprocessed(_)) | None => Self::Unprocessed(true),
        }
    }
}

/// What a batch of reads found.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BatchGetResponse, examples(json!({
    "results": [
        {"entry": {
            "key": "users",
            "revision": 3,
            "create_revision": 3,
            "version": 1,
            "update_time": "2030-01-01T00:00:00.000Z",
            "content_type": "text/plain",
        }},
        {"absent": true},
    ],
    "store_revision": 3,
})))]
pub struct BatchJson<'batch> {
    /// One for each key, in the request's order.
    results: Vec<ReadJson<'batch>>,
    /// Revision of the state that all of them show.
    store_revision: u64,
}

/// The keys to read: exactly one of `keys` and `keys_base64`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = BatchGetRequest, examples(json!({"keys": ["users", "absent"], "metadata_only": true})))]
struct BatchBody {
    #[schema(schema_with = shapes::keys)]
    keys: Option<Vec<String>>,
    #[schema(schema_with = shapes::keys_base64)]
    keys_base64: Option<Vec<String>>,
    /// Leaves the values out.
    #[serde(default)]
    metadata_only: bool,
}

/// Read keys in order, page by page
///
/// Of a range: one of `prefix`, `start` and `end`, `key`, or `all`. Each page is exact at one revision, `store_revision`;
/// the next one is behind `Link: rel="next"` and `next_page_token`.
///
/// With `Accept: application/x-ndjson` the answer is no page: all of the range streams, a line for each entry and each
/// common prefix, in order, and `{"end":true}` as the last. Each key comes once at most; what does not change meanwhile
/// comes exactly once. A stream has no `page_size` and no `page_token`. One that fails ends in a line with the error, and
/// its body is broken off.
#[utoipa::path(
    get,
    path = "/v1/kv",
    operation_id = "list",
    tag = "Many keys",
    params(ListQuery),
    responses(ListAnswers)
)]
pub(super) async fn list(service: &Service, parts: &Parts) -> Result<Response, Failure> {
    let query = Query::parse(parts.uri.query(), ListQuery::KNOWN)?;
    let force_base64 = force_base64(&query)?;
    let page_token = match query.text("page_token")? {
        None => Bytes::new(),
        Some(text) => BASE64_URL_SAFE_NO_PAD.decode(text).map(Bytes::from).map_err(|_| {
            Error::new(Reason::PageTokenInvalid, "no page gave this token: send it as the page before gave it")
                .with(|details| details.field = Some("page_token".into()))
        })?,
    };
    let request = pb::ListRequest {
        range: Some(query.range()?),
        page_size: query.number("page_size")?.unwrap_or(0),
        page_token,
        start_after: query.bytes("start_after")?.unwrap_or_default(),
        delimiter: query.bytes("delimiter")?.unwrap_or_default(),
        descending: query.flag("descending")?,
        keys_only: query.flag("keys_only")?,
    };
    let with_value = !request.keys_only;
    let page = service.list(&call(service), request).await.map_err(Failure::Service)?;
    let mut headers = read_headers(page.store_revision);
    if !page.next_page_token.is_empty() {
        let next_page_token = BASE64_URL_SAFE_NO_PAD.encode(&page.next_page_token);
        headers.extend(next_link(parts, &next_page_token).map(|link| (LINK, link)));
    }
    let write = move |page: &_| to_json(&PageJson::new(page, with_value, force_base64));
    Ok(answer(StatusCode::OK, headers, json::written(page, write).await))
}

/// The same query with another token.
fn next_link(parts: &Parts, next_page_token: &str) -> Option<HeaderValue> {
    let kept = parts.uri.query().unwrap_or_default().split('&').filter(|part| !part.starts_with("page_token="));
    let query: Vec<_> = kept.filter(|part| !part.is_empty()).collect();
    let link = format!("<{}?{}&page_token={next_page_token}>; rel=\"next\"", parts.uri.path(), query.join("&"));
    HeaderValue::try_from(link).ok()
}

/// Count keys
///
/// Of a range: one of `prefix`, `start` and `end`, `key`, or `all`.
#[utoipa::path(
    get,
    path = "/v1/kv:count",
    operation_id = "count",
    tag = "Many keys",
    params(CountQuery),
    responses(CountAnswers)
)]
pub(super) async fn count_range(service: &Service, parts: &Parts) -> Result<Response, Failure> {
    let query = Query::parse(parts.uri.query(), CountQuery::KNOWN)?;
    let request = pb::CountRequest { range: Some(query.range()?) };
    let counted = service.count(&call(service), request).await.map_err(Failure::Service)?;
    Ok(answer(StatusCode::OK, read_headers(counted.store_revision), to_json(&CountJson::new(&counted))))
}

/// Read many keys
///
/// Exact at one revision, in the request's order. Past 4 MiB of answer the rest is `unprocessed`.
#[utoipa::path(
    post, path = "/v1/kv:batchGet", operation_id = "batchGet", tag = "Many keys",
    params(BatchGetQuery), request_body = BatchBody, responses(BatchGetAnswers),
)]
pub(super) async fn read_batch(service: &Service, request: Request) -> Result<Response, Failure> {
    let (parts, body) = request.into_parts();
    let query = Query::parse(parts.uri.query(), BatchGetQuery::KNOWN)?;
    let force_base64 = force_base64(&query)?;
    content::expect_plain(&parts.headers)?;
    let share = service.body_share();
    let body = content::read(&parts.headers, body, Bound::request(service.limits()), &share).await?;
    let batch: BatchBody = from_json(&body)?;
    let keys = match (batch.keys, batch.keys_base64) {
        (Some(keys), None) => keys.into_iter().map(Bytes::from).collect(),
        (None, Some(keys)) => decode_keys(&keys)?,
        _ => return Err(Error::invalid_field("keys", "send exactly one of `keys` and `keys_base64`").into()),
    };
    let request = pb::BatchGetRequest { keys, metadata_only: batch.metadata_only };
    let with_value = !request.metadata_only;
    let found = service.batch_get(&call(service), request).await.map_err(Failure::Service)?;
    let store_revision = found.store_revision;
    let write = move |found: &pb::BatchGetResponse| {
        let results = found.results.iter().map(|result| ReadJson::new(result, with_value, force_base64));
        to_json(&BatchJson { results: results.collect(), store_revision })
    };
    Ok(answer(StatusCode::OK, read_headers(store_revision), json::written(found, write).await))
}

fn decode_keys(keys: &[String]) -> Result<Vec<Bytes>> {
    let decode = |key: &String| BASE64_STANDARD.decode(key).map(Bytes::from);
    let malformed = |_| Error::malformed("keys_base64", "a key is not base64");
    keys.iter().map(|key| decode(key).map_err(malformed)).collect()
}

pub(super) fn force_base64(query: &Query<'_>) -> Result<bool> {
    match query.text("encoding")? {
        None => Ok(false),
        Some("base64") => Ok(true),
        Some(_) => Err(Error::invalid_field("encoding", "`encoding` is base64")),
    }
}

/// A body that is a JSON object, and nothing else.
pub(super) fn from_json<T: DeserializeOwned>(json: &[u8]) -> Result<T> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let body = object(&mut reader).and_then(|body| reader.end().map(|()| body));
    body.map_err(|error| bad_json(json, &error))
}

fn bad_json(json: &[u8], error: &serde_json::Error) -> Error {
    let place = format!("line {} column {}", error.line(), error.column());
    if error.is_data() {
        return Error::invalid_field("body", format!("{}, {place}", wrong_shape(error)));
    }
    // Where one of several fields is to be there and none is, or two are, serde takes the JSON for broken.
    if error.to_string().starts_with("expected value at ") && serde_json::from_slice::<IgnoredAny>(json).is_ok() {
        return Error::invalid_field("body", format!("an object of exactly one field is expected, {place}"));
    }
    Error::malformed("body", format!("the body is not JSON, {place}"))
}

/// What serde says of JSON that is another than expected: names a field that is unknown, and never shows a value.
fn wrong_shape(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(&*text, |(text, _)| text);
    match text.rsplit_once(", expected ") {
        Some((unknown, expected)) if unknown.starts_with("unknown ") => {
            let unknown: String = unknown.chars().take(UNKNOWN_CHARACTERS_SHOWN).collect();
            format!("{unknown}, expected {expected}")
        }
        Some((_, expected)) => format!("expected {expected}"),
        None => text.chars().take(UNKNOWN_CHARACTERS_SHOWN).collect(),
    }
}

pub(super) fn json_headers() -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers
}

fn read_headers(store_revision: u64) -> HeaderMap {
    let mut headers = json_headers();
    headers.insert(KV_STORE_REVISION, HeaderValue::from(store_revision));
    headers
}

pub(super) fn to_json(json: &impl Serialize) -> Bytes {
    // Strings, numbers and lists of them always serialise.
    serde_json::to_vec(json).unwrap_or_default().into()
}
