//! The query's parameters, in one place: the parser takes a route's parameters and no others, and the API's document
//! describes the same.

use utoipa::{
    IntoParams,
    openapi::{
        Required,
        path::{Parameter as Described, ParameterBuilder, ParameterIn},
        schema::{Object, ObjectBuilder, Type},
    },
};

use super::openapi::shapes::{EVENT_KINDS, duration_pattern, signed, time, unsigned, whole};
use crate::limits::{PAGE_ENTRIES_DEFAULT, PAGE_ENTRIES_MAX, TTL_MS_MAX, TTL_MS_MIN, WAIT_MAX};

/// A parameter of a query.
#[derive(Debug)]
pub struct Parameter {
    /// Its name: the schema's, where the schema has such a field.
    pub name: &'static str,
    about: &'static str,
    shape: fn() -> Object,
    example: &'static str,
}

/// The parameters of one route.
pub type Known = &'static [&'static Parameter];

impl Parameter {
    const fn new(name: &'static str, about: &'static str, shape: fn() -> Object, example: &'static str) -> Self {
        Self { name, about, shape, example }
    }

    fn describe(&self) -> Described {
        let mut schema = (self.shape)();
        // In the schema and not beside it: pages to try an API on fill in the latter, and some of these exclude others.
        schema.examples = Vec::from_iter((!self.example.is_empty()).then(|| self.example_json()));
        ParameterBuilder::new()
            .name(self.name)
            .parameter_in(ParameterIn::Query)
            .required(Required::False)
            .description(Some(self.about))
            .schema(Some(schema))
            .build()
    }

    /// Numbers and switches as such, all else as text.
    fn example_json(&self) -> serde_json::Value {
        self.example.parse().unwrap_or_else(|_| self.example.into())
    }
}

/// Names the parameters of a route, and describes them.
macro_rules! queries {
    ($($(#[$about:meta])* $name:ident: $($parameter:ident),+;)+) => {$(
        $(#[$about])*
        #[derive(Debug)]
        pub struct $name;

        impl $name {
            /// The parameters.
            pub const KNOWN: Known = &[$(&$parameter),+];
        }

        impl IntoParams for $name {
            fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Described> {
                Self::KNOWN.iter().map(|parameter| parameter.describe()).collect()
            }
        }
    )+};
}

queries! {
    /// Of a read of one key.
    GetQuery: FORMAT, ENCODING, WAIT;
    /// Of a put.
    PutQuery: TTL, EXPIRE_TIME, KEEP_TTL, IF_VERSION, RETURN_PREVIOUS, DURABILITY, VALIDATE_ONLY;
    /// Of a touch.
    TouchQuery: TTL, EXPIRE_TIME, KEEP_TTL, IF_VERSION, RETURN_PREVIOUS, DURABILITY, VALIDATE_ONLY;
    /// Of a delete.
    DeleteQuery: IF_VERSION, RETURN_PREVIOUS, DURABILITY, VALIDATE_ONLY;
    /// Of an addition to a counter.
    IncrementQuery: BY, INITIAL, TTL, EXPIRE_TIME, IF_VERSION, DURABILITY, VALIDATE_ONLY;
    /// Of a page of keys.
    ListQuery: PREFIX, START, END, KEY, ALL, PAGE_SIZE, PAGE_TOKEN, START_AFTER, DELIMITER, DESCENDING, KEYS_ONLY, ENCODING;
    /// Of a stream of a range.
    ScanQuery: PREFIX, START, END, KEY, ALL, START_AFTER, DELIMITER, DESCENDING, KEYS_ONLY, ENCODING;
    /// Of a delete of a range.
    DeleteRangeQuery: PREFIX, START, END, KEY, ALL, MAX_KEYS, DURABILITY, VALIDATE_ONLY;
    /// Of a watch.
    WatchQuery: PREFIX, START, END, KEY, ALL, START_REVISION, INITIAL_STATE, PREVIOUS, KINDS, ENCODING;
    /// Of a count.
    CountQuery: PREFIX, START, END, KEY, ALL;
    /// Of a batch of reads.
    BatchGetQuery: ENCODING;
    /// Of writes of many keys.
    BatchQuery: DURABILITY, VALIDATE_ONLY, ENCODING;
    /// Of the last slow requests, on the ops listener.
    SlowRequestsQuery: LIMIT;
}

const FORMAT: Parameter = Parameter::new(
    "format",
    "`json` answers with the entry as JSON (schema `Entry`) and a weak entity tag. Without it, the raw value.",
    || one_of(&["json"]),
    "json",
);
const ENCODING: Parameter = Parameter::new(
    "encoding",
    "`base64` gives every key and value in JSON as base64, also those that are UTF-8.",
    || one_of(&["base64"]),
    "base64",
);
const WAIT: Parameter = Parameter::new(
    "wait",
    "Holds an answer that would be 304, or 404 to a request without `If-None-Match`, until it changes, for this long at \
     most: 60 s. Digits and a unit, `ms`, `s`, `m`, `h` or `d`.",
    || text(&duration_pattern(0, WAIT_MAX.as_millis() as u64)),
    "1ms",
);
const TTL: Parameter = Parameter::new(
    "ttl",
    "Time to live, counted from the write: digits and a unit, `ms`, `s`, `m`, `h` or `d`, from 1 ms to ten years; or \
     `never`. One of `ttl`, `expire_time` and `keep_ttl` at most.",
    || text(&format!("^never$|{}", duration_pattern(TTL_MS_MIN, TTL_MS_MAX))),
    "60s",
);
const EXPIRE_TIME: Parameter = Parameter::new(
    "expire_time",
    "When the entry expires: a time that lies ahead, within ten years, as RFC 3339 writes it.",
    time,
    "2030-01-01T00:00:00Z",
);
const KEEP_TTL: Parameter =
    Parameter::new("keep_ttl", "Keeps the expiry that the key has. Bare, it is true.", flag, "true");
const IF_VERSION: Parameter =
    Parameter::new("if_version", "Writes only if the key has this version; 0: only if it is absent.", unsigned, "0");
const RETURN_PREVIOUS: Parameter = Parameter::new(
    "return_previous",
    "Answers with the value that the write replaced, its content type and `Kv-Previous-Revision`; without that header \
     there was none. Bare, it is true.",
    flag,
    "true",
);
const DURABILITY: Parameter = Parameter::new(
    "durability",
    "When the write is answered: `written`, once it was handed to the operating system, or `fsynced`, once it is on disk. \
     The server may give more than asked, never less, and says in `Kv-Durability` which it gave.",
    || one_of(&["written", "fsynced"]),
    "fsynced",
);
const VALIDATE_ONLY: Parameter = Parameter::new(
    "validate_only",
    "Answers as the write would, without writing: no revision, no durability. Bare, it is true.",
    flag,
    "true",
);
const BY: Parameter = Parameter::new("by", "What is added; 1 without it. May be negative.", signed, "5");
const INITIAL: Parameter = Parameter::new(
    "initial",
    "What an absent counter starts from; 0 without it. The first number is `initial` + `by`.",
    signed,
    "100",
);
const PREFIX: Parameter = Parameter::new(
    "prefix",
    "Keys that start with these bytes; empty: all of them. One of `prefix`, `start` and `end`, `key`, or `all`.",
    bytes,
    "user/",
);
const START: Parameter =
    Parameter::new("start", "The first key of a span, itself included; alone it is open at the end.", bytes, "user/a");
const END: Parameter = Parameter::new(
    "end",
    "The key that ends a span, itself excluded; alone it is open at the start. Not before `start`.",
    bytes,
    "user/z",
);
const KEY: Parameter = Parameter::new("key", "This key alone.", key, "user/1");
const ALL: Parameter = Parameter::new("all", "Every key. Bare, it is true.", flag, "true");
const PAGE_SIZE: Parameter = Parameter::new(
    "page_size",
    "Entries on the page at most: 100 without it or at 0, and never more than 1,000. A page may hold fewer and still not \
     be the last.",
    || whole(0_u32, i32::MAX as u32),
    "10",
);
const PAGE_TOKEN: Parameter = Parameter::new(
    "page_token",
    "The `next_page_token` of the page before, with the same range and options. Base64url.",
    || text("^[A-Za-z0-9_-]*$"),
    "",
);
const START_AFTER: Parameter = Parameter::new(
    "start_after",
    "Leaves out what comes up to this key, itself included, in the order of the page.",
    bytes,
    "user/1",
);
const DELIMITER: Parameter = Parameter::new(
    "delimiter",
    "Folds keys that have these bytes behind the prefix into one `common_prefixes` item, as folders.",
    bytes,
    "/",
);
const DESCENDING: Parameter =
    Parameter::new("descending", "From the last key to the first. Bare, it is true.", flag, "true");
const KEYS_ONLY: Parameter = Parameter::new("keys_only", "Leaves the values out. Bare, it is true.", flag, "true");

const MAX_KEYS: Parameter = Parameter::new(
    "max_keys",
    "Deletes this many keys at most, the first in order.",
    || whole(1_u64, u64::MAX),
    "1000",
);
const LIMIT: Parameter =
    Parameter::new("limit", "How many at most; all without it or at 0.", || whole(0_u32, i32::MAX as u32), "10");
const START_REVISION: Parameter = Parameter::new(
    "start_revision",
    "The first revision to tell of, itself included; 0, as without it: from now on. Refused with 410 if the history no \
     longer reaches back so far (`oldest_revision` says how far), unless `initial_state` is asked for.",
    unsigned,
    "0",
);
const INITIAL_STATE: Parameter = Parameter::new(
    "initial_state",
    "Tells the entries that there are first, as `put` events, then a `synced` mark, then changes. Bare, it is true.",
    flag,
    "true",
);
const PREVIOUS: Parameter =
    Parameter::new("previous", "Tells with each event the entry as it was before. Bare, it is true.", flag, "true");
const KINDS: Parameter = Parameter::new(
    "kinds",
    "Tells of these kinds alone: a list of `put`, `touch`, `delete`, `expire` and `evict`, by commas.",
    || {
        let kind = format!("({})", EVENT_KINDS.join("|"));
        text(&format!("^{kind}(,{kind})*$"))
    },
    "put,delete",
);

const _: () = assert!(PAGE_ENTRIES_DEFAULT == 100 && PAGE_ENTRIES_MAX == 1_000 && WAIT_MAX.as_secs() == 60);

/// Bytes, percent-encoded.
fn bytes() -> Object {
    Object::with_type(Type::String)
}

fn key() -> Object {
    ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).build()
}

fn flag() -> Object {
    Object::with_type(Type::Boolean)
}

fn text(pattern: &str) -> Object {
    ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern)).build()
}

fn one_of(values: &'static [&'static str]) -> Object {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(values.iter().copied())).build()
}
