//! A request for each status that an operation answers with, as far as a request alone can provoke it.

/// A request and the status of its answer.
#[derive(Clone, Debug)]
pub struct Case {
    pub operation: String,
    pub path: String,
    pub headers: Vec<(&'static str, &'static str)>,
    pub body: Vec<u8>,
    pub status: u16,
}

fn case(operation: &str, path: &str, status: u16) -> Case {
    Case { operation: operation.into(), path: path.into(), headers: Vec::new(), body: Vec::new(), status }
}

impl Case {
    fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }
}

const NEW: (&str, &str) = ("if-none-match", "*");
const OTHER: (&str, &str) = ("if-match", "\"7777777\"");

/// All of them, to be sent in order to a new store. Of each operation the first is a plain, good one.
pub fn cases() -> Vec<Case> {
    let reads = reads();
    // HEAD answers as GET does.
    let heads = reads.iter().filter(|case| !case.operation.starts_with("batch"));
    let heads: Vec<_> =
        heads.map(|case| Case { operation: format!("{}Head", case.operation), ..case.clone() }).collect();
    [keys(), counters(), batches(), transactions(), reads, heads, ranges()].concat()
}

fn keys() -> Vec<Case> {
    let put = |path: &str, status| case("put", path, status).with("content-type", "text/plain").body("hello");
    vec![
        put("/v1/kv/greeting", 201),
        put("/v1/kv/greeting", 200),
        put("/v1/kv/greeting?return_previous", 200).with("idempotency-key", "replaced"),
        put("/v1/kv/greeting?return_previous", 200).with("idempotency-key", "replaced"),
        put("/v1/kv/once", 201).with("idempotency-key", "once"),
        put("/v1/kv/once", 201).with("idempotency-key", "once"),
        put("/v1/kv/once?ttl=1h", 422).with("idempotency-key", "once"),
        put("/v1/kv/greeting", 412).with(NEW.0, NEW.1).with("idempotency-key", "refused"),
        put("/v1/kv/greeting", 412).with(NEW.0, NEW.1).with("idempotency-key", "refused"),
        put("/v1/kv/greeting?ttl=60", 400),
        put("/v1/kv/greeting", 413).body(vec![b'x'; 1_100_000]),
        put("/v1/kv/greeting", 415).with("content-encoding", "gzip"),
        case("touch", "/v1/kv/greeting?ttl=1h", 204).with("idempotency-key", "touched"),
        case("touch", "/v1/kv/greeting?ttl=1h", 204).with("idempotency-key", "touched"),
        case("touch", "/v1/kv/greeting?ttl=2h", 422).with("idempotency-key", "touched"),
        case("touch", "/v1/kv/greeting?ttl=1h&return_previous", 200).with("idempotency-key", "touched-previous"),
        case("touch", "/v1/kv/greeting?ttl=1h&return_previous", 200).with("idempotency-key", "touched-previous"),
        case("touch", "/v1/kv/greeting?keep_ttl", 204),
        case("touch", "/v1/kv/greeting", 400),
        case("touch", "/v1/kv/absent?ttl=1h", 404).with("idempotency-key", "untouched"),
        case("touch", "/v1/kv/absent?ttl=1h", 404).with("idempotency-key", "untouched"),
        case("touch", "/v1/kv/greeting?ttl=1h", 412).with(OTHER.0, OTHER.1).with("idempotency-key", "touch-refused"),
        case("touch", "/v1/kv/greeting?ttl=1h", 412).with(OTHER.0, OTHER.1).with("idempotency-key", "touch-refused"),
        put("/v1/kv/gone", 201),
        case("delete", "/v1/kv/gone", 204).with("idempotency-key", "deleted"),
        case("delete", "/v1/kv/gone", 204).with("idempotency-key", "deleted"),
        case("delete", "/v1/kv/gone?if_version=1", 422).with("idempotency-key", "deleted"),
        put("/v1/kv/gone", 201),
        case("delete", "/v1/kv/gone?return_previous", 200).with("idempotency-key", "removed"),
        case("delete", "/v1/kv/gone?return_previous", 200).with("idempotency-key", "removed"),
        case("delete", "/v1/kv/gone?ttl=1h", 400),
        case("delete", "/v1/kv/absent", 404).with("idempotency-key", "undeleted"),
        case("delete", "/v1/kv/absent", 404).with("idempotency-key", "undeleted"),
        case("delete", "/v1/kv/greeting", 412).with(OTHER.0, OTHER.1).with("idempotency-key", "delete-refused"),
        case("delete", "/v1/kv/greeting", 412).with(OTHER.0, OTHER.1).with("idempotency-key", "delete-refused"),
    ]
}

fn counters() -> Vec<Case> {
    vec![
        case("increment", "/v1/counters/visits?by=5", 200).with("idempotency-key", "counted"),
        case("increment", "/v1/counters/visits?by=5", 200).with("idempotency-key", "counted"),
        case("increment", "/v1/counters/visits?by=6", 422).with("idempotency-key", "counted"),
        case("increment", "/v1/counters/visits?by=a", 400),
        case("increment", "/v1/counters/greeting", 409).with("idempotency-key", "uncounted"),
        case("increment", "/v1/counters/greeting", 409).with("idempotency-key", "uncounted"),
        case("increment", "/v1/counters/visits", 412).with(OTHER.0, OTHER.1).with("idempotency-key", "count-refused"),
        case("increment", "/v1/counters/visits", 412).with(OTHER.0, OTHER.1).with("idempotency-key", "count-refused"),
    ]
}

fn batches() -> Vec<Case> {
    let keys: Vec<_> = (0..1_001).map(|number| number.to_string()).collect();
    let writes: Vec<_> = keys.iter().map(|key| serde_json::json!({"delete": {"key": key}})).collect();
    let batch = |body: &str, status| case("batchWrite", "/v1/kv:batchWrite", status).body(body);
    vec![
        case("batchGet", "/v1/kv:batchGet", 200).body(r#"{"keys":["greeting","absent"]}"#),
        case("batchGet", "/v1/kv:batchGet", 400).body("{}"),
        case("batchGet", "/v1/kv:batchGet", 415).with("content-encoding", "gzip").body("{}"),
        case("batchGet", "/v1/kv:batchGet", 413).body(serde_json::json!({ "keys": keys }).to_string()),
        batch(r#"{"writes":[{"put":{"key":"batch","value":"1"}}]}"#, 200).with("idempotency-key", "batch"),
        batch(r#"{"writes":[{"put":{"key":"batch","value":"1"}}]}"#, 200).with("idempotency-key", "batch"),
        batch(r#"{"writes":[{"put":{"key":"batch","value":"2"}}]}"#, 422).with("idempotency-key", "batch"),
        batch("[]", 400),
        batch("{}", 415).with("content-encoding", "gzip"),
        batch(&serde_json::json!({ "writes": writes }).to_string(), 413),
    ]
}

fn transactions() -> Vec<Case> {
    let txn = |body: &str, status| case("txn", "/v1/kv:txn", status).body(body);
    let many: Vec<_> = (0..129).map(|number| serde_json::json!({"get": {"key": number.to_string()}})).collect();
    let twice = |body: &'static str, status, id| [0, 1].map(|_| txn(body, status).with("idempotency-key", id)).to_vec();
    [
        twice(r#"{"then":[{"put":{"key":"txn","value":"1"}},{"get":{"key":"greeting"}}]}"#, 200, "txn"),
        vec![
            txn(r#"{"then":[{"put":{"key":"txn","value":"2"}}]}"#, 422).with("idempotency-key", "txn"),
            txn("{", 400),
            txn("{}", 415).with("content-encoding", "gzip"),
            txn(&serde_json::json!({ "then": many }).to_string(), 413),
        ],
        twice(r#"{"then":[{"delete":{"key":"absent"}}]}"#, 404, "txn-absent"),
        twice(r#"{"then":[{"increment":{"key":"greeting"}}]}"#, 409, "txn-text"),
        twice(r#"{"then":[{"put":{"key":"greeting","value":"1","conditions":[{"exists":false}]}}]}"#, 412, "txn-new"),
    ]
    .concat()
}

fn reads() -> Vec<Case> {
    vec![
        case("get", "/v1/kv/greeting", 200),
        case("get", "/v1/kv/greeting?format=json", 200),
        case("get", "/v1/kv/greeting", 304).with("if-none-match", "*"),
        case("get", "/v1/kv/greeting?format=xml", 400),
        case("get", "/v1/kv/absent", 404),
        case("get", "/v1/kv/greeting", 412).with(OTHER.0, OTHER.1),
        case("list", "/v1/kv?all&page_size=1", 200),
        case("list", "/v1/kv", 400),
        case("list", "/v1/kv?all", 200).with("accept", "application/x-ndjson"),
        case("count", "/v1/kv:count?prefix=", 200),
        case("count", "/v1/kv:count", 400),
        case("openapi", "/openapi.json", 200),
        case("openapi", "/openapi.json?a", 400),
        case("docs", "/docs", 308),
        case("docs", "/docs?a", 400),
        case("docsFile", "/docs/index.html", 200),
        case("docsFile", "/docs/index.html?a", 400),
        case("docsFile", "/docs/nothing", 404),
    ]
}

fn ranges() -> Vec<Case> {
    vec![
        case("watch", "/v1/watch?all", 200),
        case("watch", "/v1/watch?all", 200).with("accept", "text/event-stream"),
        case("watch", "/v1/watch?all&kinds=puts", 400),
        case("watch", "/v1/watch?all&start_revision=999999", 400),
        // The store was made to keep one event.
        case("watch", "/v1/watch?all&start_revision=1", 410),
        case("deleteRange", "/v1/kv?prefix=ran", 200),
        case("deleteRange", "/v1/kv?prefix=", 400),
    ]
}
