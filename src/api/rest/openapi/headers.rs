//! The headers of answers and of requests, as the document describes them.

use utoipa::{
    IntoParams,
    openapi::{
        Header, HeaderBuilder, Required,
        path::{Parameter, ParameterBuilder, ParameterIn},
        schema::{Object, ObjectBuilder, Type},
    },
};

use super::shapes;

/// A header: its name, what it says, and its schema.
pub type Described = (&'static str, &'static str, fn() -> Object);

const ETAG: Described =
    ("ETag", "The state's revision, in quotes; weak (`W/`) for JSON.", || matching(r#"^(W/)?"[0-9]+"$"#));
const REVISION: Described = ("Kv-Revision", "Revision of the write that made this state.", whole);
const CREATE_REVISION: Described = ("Kv-Create-Revision", "Revision of the write that created the key.", whole);
const VERSION: Described = ("Kv-Version", "1 at creation, and one more with each write since.", whole);
const EXPIRES_AT: Described = ("Kv-Expires-At", "When the entry expires; missing if it does not.", shapes::time);
const CACHE_CONTROL: Described = ("Cache-Control", "Whether the answer may be stored.", string);
const SNIFF: Described = ("X-Content-Type-Options", "`nosniff`, with a raw value.", string);
const SECURITY_POLICY: Described = ("Content-Security-Policy", "What a browser may do with it.", string);
const DURABILITY: Described = ("Kv-Durability", "What the write got.", || one_of(&["written", "fsynced"]));
const PREVIOUS_REVISION: Described =
    ("Kv-Previous-Revision", "Revision of the entry that was there; missing if there was none.", whole);
const VARY: Described = ("Vary", "`accept`: the form of the answer depends on it.", string);
const BUFFERING: Described =
    ("X-Accel-Buffering", "`no`, with a stream: proxies are to pass it on as it comes.", string);
/// On every answer.
pub const TRACE_ID: Described =
    ("Kv-Trace-Id", "The request's id in the server's logs.", || matching("^[0-9a-f]{32}$"));
/// On every answer to a request that is traced.
pub const TRACE_RESPONSE: Described =
    ("traceresponse", "The request's span, as W3C writes it; missing if it is not traced.", string);
/// On every answer to a request that asks for it.
pub const SERVER_TIMING: Described =
    ("Server-Timing", "Where the time went, if `Kv-Timing` asked: queue, commit, sync, apply, and all.", string);
/// With what was read.
pub const STORE_REVISION: Described = ("Kv-Store-Revision", "Revision of the state that was read.", whole);
/// With the remembered answer of a write.
pub const REPLAYED: Described =
    ("Kv-Replayed", "The remembered answer to this `Idempotency-Key`; missing if it is not.", || one_of(&["true"]));
const LINK: Described = ("Link", "The next page, `rel=\"next\"`; missing on the last.", string);
/// With a refusal.
pub const REASON: Described = ("Kv-Reason", "The refusal's reason, as in the body.", shapes::reason);
/// With a refusal that may be gone soon.
pub const RETRY_AFTER: Described = ("Retry-After", "Seconds after which the request may be sent again.", whole);
/// With a redirection.
pub const LOCATION: Described = ("Location", "Where it is.", string);

/// With an entry's state, shown or not.
pub const OF_STATE: &[Described] =
    &[ETAG, REVISION, CREATE_REVISION, VERSION, EXPIRES_AT, STORE_REVISION, CACHE_CONTROL];
/// With an entry's raw value, or its JSON.
pub const OF_VALUE: &[Described] =
    &[ETAG, REVISION, CREATE_REVISION, VERSION, EXPIRES_AT, STORE_REVISION, CACHE_CONTROL, SNIFF, SECURITY_POLICY];
/// With JSON of many keys.
pub const OF_READ: &[Described] = &[STORE_REVISION, CACHE_CONTROL];
/// With a page of keys.
pub const OF_PAGE: &[Described] = &[STORE_REVISION, CACHE_CONTROL, LINK, VARY, BUFFERING];
/// With a stream.
pub const OF_STREAM: &[Described] = &[CACHE_CONTROL, BUFFERING];
/// With a delete of a range.
pub const OF_RANGE_DELETE: &[Described] = &[REVISION, DURABILITY, CACHE_CONTROL];
/// With a write of one key.
pub const OF_WRITE: &[Described] = &[ETAG, REVISION, VERSION, DURABILITY, REPLAYED];
/// With a write of one key and what it replaced.
pub const OF_REPLACEMENT: &[Described] =
    &[ETAG, REVISION, VERSION, DURABILITY, REPLAYED, PREVIOUS_REVISION, SNIFF, SECURITY_POLICY];
/// With a delete.
pub const OF_DELETE: &[Described] = &[REVISION, DURABILITY, REPLAYED];
/// With a delete and what it removed.
pub const OF_REMOVAL: &[Described] = &[REVISION, DURABILITY, REPLAYED, PREVIOUS_REVISION, SNIFF, SECURITY_POLICY];
/// With writes of many keys.
pub const OF_WRITES: &[Described] = &[REVISION, DURABILITY, REPLAYED];
/// With a file of the page to read this with.
pub const OF_FILE: &[Described] = &[CACHE_CONTROL, SNIFF, SECURITY_POLICY];
/// With this document.
pub const OF_DOCUMENT: &[Described] = &[CACHE_CONTROL];
/// With every refusal.
pub const OF_REFUSAL: &[Described] = &[REASON, CACHE_CONTROL];

/// An answer's header.
pub fn response_header((_, about, shape): Described) -> Header {
    HeaderBuilder::new().schema(Some(shape())).description(Some(about)).build()
}

/// A request's header: its name, what it says, its schema, and an example.
type Asked = (&'static str, &'static str, fn() -> Object, &'static str);

const IF_MATCH_READ: Asked = (
    "If-Match",
    "Entity tags, or `*`: 412 if the entry's is none of them. Weak ones count as strong ones.",
    entity_tags,
    "*",
);
const IF_NONE_MATCH_READ: Asked =
    ("If-None-Match", "Entity tags, or `*`: 304 if the entry's is one of them.", entity_tags, "\"1\", \"2\"");
const IF_MATCH: Asked = (
    "If-Match",
    "One entity tag: writes only if it is the entry's. `*`: only if the key exists.",
    || matching(r#"^(\*|(W/)?"[!#-+\--~]*")$"#),
    "*",
);
const IF_NONE_MATCH: Asked = ("If-None-Match", "`*`: writes only if the key is absent.", || one_of(&["*"]), "*");
const IDEMPOTENCY_KEY: Asked = (
    "Idempotency-Key",
    "Makes a retry safe: the same request with the same key gets the first answer, and `Kv-Replayed: true`, for ten \
     minutes. 1 to 128 visible ASCII characters, quoted or bare.",
    || matching(r#"^([!#-~]{1,128}|"[!#-~]{1,128}")$"#),
    "\"8e03978e-40d5-43dd-bc93-6894a57f9324\"",
);

const LAST_EVENT_ID: Asked = (
    "Last-Event-ID",
    "The `id` that was last heard, as browsers send it: begins behind it, whatever `start_revision` and `initial_state` say.",
    || matching("^[+]?[0-9]{0,19}$"),
    "1",
);

const TIMING: Asked = ("Kv-Timing", "`1`: the answer says in `Server-Timing` where the time went.", string, "1");
const TRACE_PARENT: Asked = (
    "traceparent",
    "The trace that the request is part of, as W3C Trace Context writes it: its id is the `Kv-Trace-Id` then.",
    string,
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
);

/// The request headers of an operation.
macro_rules! request_headers {
    ($($(#[$about:meta])* $name:ident: $($header:ident),+;)+) => {$(
        $(#[$about])*
        pub struct $name;

        impl IntoParams for $name {
            fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
                [$($header),+].into_iter().map(request_header).collect()
            }
        }
    )+};
}

request_headers! {
    /// Of every request.
    EveryRequest: TIMING, TRACE_PARENT;
    /// Of a read of one key.
    ReadHeaders: IF_MATCH_READ, IF_NONE_MATCH_READ;
    /// Of a write of one key.
    WriteHeaders: IF_MATCH, IF_NONE_MATCH, IDEMPOTENCY_KEY;
    /// Of writes of many keys.
    BatchHeaders: IDEMPOTENCY_KEY;
    /// Of a watch.
    WatchHeaders: LAST_EVENT_ID;
}

fn request_header((name, about, shape, example): Asked) -> Parameter {
    let mut schema = shape();
    schema.examples = vec![example.into()];
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(about))
        .schema(Some(schema))
        .build()
}

fn entity_tags() -> Object {
    matching(r#"^(\*|(W/)?"[!#-+\--~]*"( *, *(W/)?"[!#-+\--~]*")*)$"#)
}

fn string() -> Object {
    Object::with_type(Type::String)
}

fn whole() -> Object {
    ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0_u64)).build()
}

fn matching(pattern: &str) -> Object {
    ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern)).build()
}

fn one_of(values: &'static [&'static str]) -> Object {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(values.iter().copied())).build()
}
