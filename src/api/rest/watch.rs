//! `/v1/watch`: changes as they happen, as NDJSON or as server-sent events, so that a browser's `EventSource` resumes by
//! itself.

use axum::{
    extract::{Request, State},
    response::Response,
};
use bytes::Bytes;
use http::{HeaderName, Method, request::Parts};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    collection::force_base64,
    handlers::{Failure, call, finish},
    json::EntryJson,
    openapi::{answers::WatchAnswers, headers::WatchHeaders, shapes},
    parameters::WatchQuery,
    problem,
    query::Query,
    range::write_line,
    routes,
    stream::{self, EVENT_STREAM, NDJSON, Piece},
};
use crate::{
    error::{Error, Result},
    metrics::{Operation, Protocol},
    pb::{self, EventKind},
    service::{Service, Watching},
};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// `GET /v1/watch?prefix=…`.
pub async fn watch(State(service): State<Service>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    if parts.method != Method::GET {
        return problem::method_not_allowed(&routes::WATCH);
    }
    let answer = begin(&service, &parts).await;
    finish(&service, Operation::Watch, answer)
}

/// How messages are written.
#[derive(Clone, Copy, Debug)]
enum Form {
    Ndjson,
    EventStream,
}

/// A watcher on its way out.
struct Messages {
    watching: Watching,
    form: Form,
    force_base64: bool,
}

/// Watch changes as they happen
///
/// Of a range: one of `prefix`, `start` and `end`, `key`, or `all`. A message has all events of a revision, in order,
/// without gap or duplicate; past 4 MiB it comes in several, all but the last `partial`. A message without events says how
/// far one may resume from. The stream ends only by an error, which its last message says.
///
/// As server-sent events (`Accept: text/event-stream`) each message is one event, with the revision as its `id`, so that a
/// browser's `EventSource` resumes by itself; marks are named `synced` and `reset`, errors `problem`.
#[utoipa::path(
    get,
    path = "/v1/watch",
    operation_id = "watch",
    tag = "Many keys",
    params(WatchQuery, WatchHeaders),
    responses(WatchAnswers)
)]
pub(super) async fn begin(service: &Service, parts: &Parts) -> Result<Response, Failure> {
    let query = Query::parse(parts.uri.query(), WatchQuery::KNOWN)?;
    let mut request = pb::WatchRequest {
        range: Some(query.range()?),
        start_revision: query.number("start_revision")?.unwrap_or(0),
        initial_state: query.flag("initial_state")?,
        previous: query.flag("previous")?,
        kinds: kinds(&query)?,
    };
    if let Some(revision) = last_event_id(parts)? {
        request.start_revision = revision + 1;
        request.initial_state = false;
    }
    let form = if stream::accepts(&parts.headers, EVENT_STREAM) { Form::EventStream } else { Form::Ndjson };
    let force_base64 = force_base64(&query)?;
    let watching = service.watch(&call(service), request).await.map_err(Failure::Service)?;
    let media_type = match form {
        Form::Ndjson => NDJSON,
        Form::EventStream => EVENT_STREAM,
    };
    let timer = service.metrics().stream_begins(Some(Operation::Watch), Protocol::Http);
    Ok(stream::response(media_type, timer, Messages { watching, form, force_base64 }, |mut messages| async {
        let piece = messages.next().await?;
        Some((piece, messages))
    }))
}

/// `kinds=put,delete`.
fn kinds(query: &Query<'_>) -> Result<Vec<i32>> {
    let Some(text) = query.text("kinds")? else { return Ok(Vec::new()) };
    let kind = |name: &str| match name {
        "put" => Ok(EventKind::Put.into()),
        "touch" => Ok(EventKind::Touch.into()),
        "delete" => Ok(EventKind::Delete.into()),
        "expire" => Ok(EventKind::Expire.into()),
        "evict" => Ok(EventKind::Evict.into()),
        _ => Err(Error::invalid_field("kinds", "`kinds` is a list of put, touch, delete, expire, evict")),
    };
    text.split(',').map(kind).collect()
}

/// What a browser sends when it connects again: the last `id` that it heard.
fn last_event_id(parts: &Parts) -> Result<Option<u64>> {
    let Some(value) = parts.headers.get(LAST_EVENT_ID).filter(|value| !value.is_empty()) else { return Ok(None) };
    let revision = value.to_str().ok().and_then(|text| text.parse().ok()).filter(|revision| *revision < u64::MAX);
    revision.map(Some).ok_or_else(|| {
        Error::malformed("last-event-id", "Last-Event-ID is not a revision: send the `id` that was last heard")
    })
}

/// What a watcher is told at once.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WatchMessage, examples(json!({
    "revision": 2,
    "events": [{
        "kind": "put",
        "entry": {
            "key": "greeting",
            "value": "hello",
            "revision": 2,
            "create_revision": 2,
            "version": 1,
            "update_time": "2030-01-01T00:00:00.000Z",
            "content_type": "text/plain",
        },
    }],
})))]
pub struct WatchJson<'message> {
    /// Of the events; of one without events, up to which all is told.
    revision: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    events: Vec<EventJson<'message>>,
    /// More of this revision follows.
    #[serde(skip_serializing_if = "is_false")]
    partial: bool,
    /// The state that was asked for is told; changes follow.
    #[serde(skip_serializing_if = "is_false")]
    synced: bool,
    /// The history that was asked for is gone: forget all, the state follows.
    #[serde(skip_serializing_if = "is_false")]
    reset: bool,
}

/// A change of a key.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Event)]
pub struct EventJson<'message> {
    #[schema(schema_with = shapes::event_kind)]
    kind: &'static str,
    /// The entry as it is now; of one that was removed, key and revision.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    entry: Option<EntryJson<'message>>,
    /// The entry as it was, where `previous` was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    previous: Option<EntryJson<'message>>,
}

// serde calls it with a reference.
#[expect(clippy::trivially_copy_pass_by_ref)]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// What happened, in a word.
pub fn kind_text(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Put | EventKind::Unspecified => "put",
        EventKind::Touch => "touch",
        EventKind::Delete => "delete",
        EventKind::Expire => "expire",
        EventKind::Evict => "evict",
    }
}

impl<'message> WatchJson<'message> {
    /// The JSON of a message.
    pub fn new(message: &'message pb::WatchResponse, force_base64: bool) -> Self {
        Self {
            revision: message.revision,
            events: message.events.iter().map(|event| EventJson::new(event, force_base64)).collect(),
            partial: message.partial,
            synced: message.synced,
            reset: message.reset,
        }
    }
}

impl<'message> EventJson<'message> {
    fn new(event: &'message pb::Event, force_base64: bool) -> Self {
        let kind = event.kind();
        let with_value = matches!(kind, EventKind::Put | EventKind::Touch);
        Self {
            kind: kind_text(kind),
            entry: event.entry.as_ref().map(|entry| EntryJson::new(entry, with_value, force_base64)),
            previous: event.previous.as_ref().map(|entry| EntryJson::new(entry, true, force_base64)),
        }
    }
}

impl Messages {
    async fn next(&mut self) -> Option<Piece> {
        Some(match (self.watching.next().await?, self.form) {
            (Ok(message), Form::Ndjson) => Piece::More(self.line(&message).into()),
            (Ok(message), Form::EventStream) => Piece::More(self.server_sent(&message)),
            (Err(error), Form::Ndjson) => Piece::Failed(stream::error_line(&error)),
            (Err(error), Form::EventStream) => {
                Piece::Failed(format!("event: problem\ndata: {}\n\n", problem::to_json(&error)).into())
            }
        })
    }

    /// The message as JSON, with a line break.
    fn line(&self, message: &pb::WatchResponse) -> Vec<u8> {
        let mut line = Vec::new();
        write_line(&WatchJson::new(message, self.force_base64), &mut line);
        line
    }

    /// The message as an event. Only what ends a revision carries an id, so that nobody resumes in the middle of one.
    fn server_sent(&self, message: &pb::WatchResponse) -> Bytes {
        let mut text = Vec::new();
        let progress = message.events.is_empty() && !message.synced && !message.reset;
        if message.synced {
            text.extend_from_slice(b"event: synced\n");
        } else if message.reset {
            text.extend_from_slice(b"event: reset\n");
        }
        if !message.partial && !message.reset {
            text.extend_from_slice(format!("id: {}\n", message.revision).as_bytes());
        }
        if !progress {
            text.extend_from_slice(b"data: ");
            // JSON on one line, with its line break.
            text.append(&mut self.line(message));
        }
        text.push(b'\n');
        text.into()
    }
}
