//! What each operation answers: statuses, headers and media types; its refusals come from the table of reasons.

use std::collections::BTreeMap;

use utoipa::{
    IntoResponses, ToSchema,
    openapi::{
        Content, Ref, RefOr, Response, ResponseBuilder, Schema,
        schema::{AnyOfBuilder, Object, ObjectBuilder, SchemaType, Type},
    },
};

use super::{
    super::{
        collection::{BatchJson, CountJson, PageJson},
        json::EntryJson,
        many::{BatchWriteJson, TxnJson},
        problem::Problem,
        range::DeletedJson,
        scan_lines::ScanLineJson,
        stream::{EVENT_STREAM, NDJSON},
        watch::WatchJson,
    },
    headers::{self, Described},
};
use crate::error::Reason::{self, *};

type Responses = BTreeMap<String, RefOr<Response>>;

/// Every operation may refuse with these.
const ANY: &[Reason] = &[Malformed, InvalidField, Overloaded, HeaderTooLarge, Internal];
/// Every operation on data.
const DATA: &[Reason] = &[Loading];
const KEY: &[Reason] = &[KeyEmpty, KeyTooLong];
const BODY: &[Reason] = &[BodyTimeout, MediaTypeUnsupported];
const WRITE: &[Reason] = &[RequestIdReused, Draining, WalFailed, CommitUnknown, Deadline];
/// A delete of a range has no id: it is repeatable by nature.
const RANGE_WRITE: &[Reason] = &[Draining, WalFailed, CommitUnknown, Deadline];
const GROWTH: &[Reason] = &[MemoryLimit, DiskFull];
const CONDITIONS: &[Reason] = &[ConditionFailed, KeyExists];
const COUNTER: &[Reason] = &[NotAnInteger, IntegerOverflow];

/// Names the answers of operations.
macro_rules! answers {
    ($($(#[$about:meta])* $name:ident: $answers:expr;)+) => {$(
        $(#[$about])*
        pub struct $name;

        impl IntoResponses for $name {
            fn responses() -> Responses {
                $answers
            }
        }
    )+};
}

answers! {
    /// Of a read of one key.
    GetAnswers: Answers::refusing(&[ANY, DATA, KEY, &[KeyNotFound, ConditionFailed]])
        .or(200, "The raw value, or with `format=json` the entry as JSON.", headers::OF_VALUE, value_or_entry())
        .or(304, "The state is the one that `If-None-Match` names.", headers::OF_STATE, vec![])
        .0;
    /// Of a put.
    PutAnswers: Answers::refusing(&[ANY, DATA, KEY, BODY, WRITE, GROWTH, CONDITIONS, &[ValueTooLarge]])
        .or(200, "Replaced; with `return_previous` the value that was there.", headers::OF_REPLACEMENT, vec![raw()])
        .or(201, "Created.", headers::OF_WRITE, vec![])
        .0;
    /// Of a touch.
    TouchAnswers: Answers::refusing(&[ANY, DATA, KEY, WRITE, GROWTH, CONDITIONS, &[KeyNotFound]])
        .or(200, "Touched, with `return_previous`: the value.", headers::OF_REPLACEMENT, vec![raw()])
        .or(204, "Touched.", headers::OF_WRITE, vec![])
        .0;
    /// Of a delete.
    DeleteAnswers: Answers::refusing(&[ANY, DATA, KEY, WRITE, CONDITIONS, &[KeyNotFound]])
        .or(200, "Deleted, with `return_previous`: the value that was there.", headers::OF_REMOVAL, vec![raw()])
        .or(204, "Deleted.", headers::OF_DELETE, vec![])
        .0;
    /// Of an addition to a counter.
    IncrementAnswers: Answers::refusing(&[ANY, DATA, KEY, WRITE, GROWTH, CONDITIONS, COUNTER])
        .or(200, "The new number.", headers::OF_WRITE, vec![("text/plain", number())])
        .0;
    /// Of a page of keys.
    ListAnswers: Answers::refusing(&[ANY, DATA, &[KeyEmpty, PageTokenInvalid]])
        .or(200, "The page, or a stream, of which this is a line.", headers::OF_PAGE, vec![json_of::<PageJson<'_>>(), lines()])
        .0;
    /// Of a delete of a range.
    DeleteRangeAnswers: Answers::refusing(&[ANY, DATA, RANGE_WRITE, &[KeyEmpty]])
        .or(200, "What was deleted.", headers::OF_RANGE_DELETE, vec![json_of::<DeletedJson>()])
        .0;
    /// Of a watch.
    WatchAnswers: Answers::refusing(&[ANY, DATA, &[KeyEmpty, RevisionFuture, RevisionCompacted]])
        .or(200, "A stream without end, of which this is a message.", headers::OF_STREAM, messages())
        .0;
    /// Of a count.
    CountAnswers: Answers::refusing(&[ANY, DATA, &[KeyEmpty]])
        .or(200, "The count.", headers::OF_READ, vec![json_of::<CountJson>()])
        .0;
    /// Of a batch of reads.
    BatchGetAnswers: Answers::refusing(&[ANY, DATA, KEY, BODY, &[BatchTooLarge, RequestTooLarge]])
        .or(200, "What was found, in the request's order.", headers::OF_READ, vec![json_of::<BatchJson<'_>>()])
        .0;
    /// Of a batch of writes.
    BatchWriteAnswers: Answers::refusing(&[ANY, DATA, KEY, BODY, WRITE, GROWTH, &[BatchTooLarge, RequestTooLarge, ValueTooLarge]])
        .or(200, "What became of each write, in the request's order.", headers::OF_WRITES, vec![json_of::<BatchWriteJson<'_>>()])
        .0;
    /// Of a transaction.
    TxnAnswers: Answers::refusing(&[ANY, DATA, KEY, BODY, WRITE, GROWTH, CONDITIONS, COUNTER, &[KeyNotFound, BatchTooLarge, RequestTooLarge, ValueTooLarge]])
        .or(200, "Which branch happened, and what became of its operations.", headers::OF_WRITES, vec![json_of::<TxnJson<'_>>()])
        .0;
    /// Of this document.
    DocumentAnswers: Answers::refusing(&[ANY])
        .or(200, "This document.", headers::OF_DOCUMENT, vec![("application/json", Content::default())])
        .0;
    /// Of the way to the page.
    DocsAnswers: Answers::refusing(&[ANY])
        .or(308, "The page is at `docs/`.", &[headers::LOCATION], vec![])
        .0;
    /// Of the page's files.
    DocsFileAnswers: Answers::refusing(&[ANY, &[RouteNotFound]])
        .or(200, "A file of the page.", headers::OF_FILE, vec![raw()])
        .0;
}

/// The answers of an operation, by status.
struct Answers(Responses);

impl Answers {
    /// The refusals, each under the status of its reason.
    fn refusing(reasons: &[&[Reason]]) -> Self {
        let mut by_status: BTreeMap<u16, Vec<Reason>> = BTreeMap::new();
        for reason in reasons.iter().copied().flatten() {
            by_status.entry(reason.http_status().as_u16()).or_default().push(*reason);
        }
        let remembered = by_status.values().flatten().any(|reason| *reason == RequestIdReused);
        let refusals = by_status.into_iter();
        Self(refusals.map(|(status, reasons)| (status.to_string(), refusal(&reasons, remembered).into())).collect())
    }

    fn or(mut self, status: u16, about: &str, headers: &[Described], contents: Vec<(&str, Content)>) -> Self {
        let mut response = response(about, headers);
        for (media_type, content) in contents {
            response = response.content(media_type, content);
        }
        self.0.insert(status.to_string(), response.build().into());
        self
    }
}

/// What one status says; `remembered`: of a write that is judged once, however often it is sent.
fn refusal(reasons: &[Reason], remembered: bool) -> Response {
    let names: Vec<_> = reasons.iter().map(|reason| format!("`{}`", reason.name())).collect();
    let mut response =
        response(&names.join(", "), headers::OF_REFUSAL).content("application/problem+json", content::<Problem<'_>>());
    let of_state = [ConditionFailed, KeyExists, KeyNotFound, NotAnInteger, IntegerOverflow];
    let of_revision = [KeyNotFound, ConditionFailed, RevisionCompacted, RevisionFuture];
    let sent = [
        (headers::RETRY_AFTER, reasons.iter().any(|reason| reason.retry_after_s().is_some())),
        (headers::STORE_REVISION, !remembered && reasons.iter().any(|reason| of_revision.contains(reason))),
        (headers::REPLAYED, remembered && reasons.iter().any(|reason| of_state.contains(reason))),
    ];
    for (header, _) in sent.into_iter().filter(|(_, sent)| *sent) {
        response = response.header(header.0, headers::response_header(header));
    }
    response.build()
}

fn response(about: &str, headers: &[Described]) -> ResponseBuilder {
    let response = ResponseBuilder::new().description(about);
    headers
        .iter()
        .chain(&[headers::TRACE_ID, headers::TRACE_RESPONSE, headers::SERVER_TIMING])
        .fold(response, |response, header| response.header(header.0, headers::response_header(*header)))
}

fn content<T: ToSchema>() -> Content {
    Content::new(Some(Ref::from_schema_name(T::name())))
}

fn json_of<T: ToSchema>() -> (&'static str, Content) {
    ("application/json", content::<T>())
}

/// Bytes of any type. OpenAPI 3.1 gives them no schema.
fn raw() -> (&'static str, Content) {
    ("*/*", Content::default())
}

/// A value that is JSON comes under the same media type as an entry's JSON.
fn value_or_entry() -> Vec<(&'static str, Content)> {
    let entry = Ref::from_schema_name(EntryJson::name());
    let value = ObjectBuilder::new()
        .schema_type(SchemaType::AnyValue)
        .description(Some("A stored value that is JSON."))
        .build();
    let either = AnyOfBuilder::new().item(entry).item(value).build();
    vec![raw(), ("application/json", Content::new(Some(Schema::AnyOf(either))))]
}

/// One JSON text a line, each of which is one of these.
fn lines() -> (&'static str, Content) {
    let line = AnyOfBuilder::new().item(Ref::from_schema_name(ScanLineJson::name())).item(error_line()).build();
    (NDJSON, Content::new(Some(Schema::AnyOf(line))))
}

fn messages() -> Vec<(&'static str, Content)> {
    let message = AnyOfBuilder::new().item(Ref::from_schema_name(WatchJson::name())).item(error_line()).build();
    // An event's fields are text, of which `data` is such a message.
    let event = ObjectBuilder::new().schema_type(Type::String).build();
    vec![(NDJSON, Content::new(Some(Schema::AnyOf(message)))), (EVENT_STREAM, Content::new(Some(event)))]
}

/// The last words of a stream that failed.
fn error_line() -> Object {
    let problem = Ref::from_schema_name(Problem::name());
    ObjectBuilder::new().schema_type(Type::Object).property("error", problem).required("error").build()
}

fn number() -> Content {
    Content::new(Some(super::shapes::integer_text()))
}
