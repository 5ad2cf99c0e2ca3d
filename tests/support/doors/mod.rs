//! Three ways to the same store: the service itself, gRPC, REST. Each takes the schema's requests and gives its
//! responses, so that one suite runs through all of them.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use bytes::Bytes;
use tandem::{
    error::{Error, Reason},
    metrics::Protocol,
    pb::{self, kv_service_client::KvServiceClient},
    service::{Call, Service},
};
use tonic_types::StatusExt as _;

use self::json::{condition_json, entry_from_json, results_from_json, write_json};
use crate::support::{self, Answer, Client};

pub mod json;
mod streams;

/// A refusal as a client of any door sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub reason: String,
    pub outcome: Option<String>,
    pub current_revision: Option<u64>,
    /// Of an absent key, the revision of the state in which it is absent.
    pub store_revision: Option<u64>,
    pub replayed: bool,
}

/// Stands for a reason where no answer came: the connection broke off.
pub const BROKEN_OFF: &str = "BROKEN_OFF";

pub type Answered<T> = Result<T, Refused>;

pub enum Door {
    Service(Service),
    Grpc(KvServiceClient<tonic::transport::Channel>),
    Rest { client: Client, base: String },
}

fn call() -> Call {
    Call { protocol: Protocol::Grpc, deadline: Instant::now() + Duration::from_secs(10) }
}

fn from_error(error: Error) -> Refused {
    let details = error.details.unwrap_or_default();
    Refused {
        reason: error.reason.name().into(),
        outcome: details.outcome.map(|outcome| outcome.as_str().into()),
        current_revision: details.current_revision,
        store_revision: details.store_revision,
        replayed: details.replayed,
    }
}

fn from_status(status: &tonic::Status) -> Refused {
    let unanswered = status.code() == tonic::Code::Cancelled && status.details().is_empty();
    if unanswered || std::error::Error::source(status).is_some() {
        return broken_off();
    }
    let info = status.get_error_details().error_info().cloned().unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
    assert_eq!(info.domain, "tandem");
    assert!(status.message().starts_with(&format!("{}: ", info.reason)), "{status:?}");
    let reason = Reason::from_str_name(&format!("REASON_{}", info.reason)).expect("a published reason");
    assert_eq!(status.code(), reason.grpc_code());
    Refused {
        reason: info.reason,
        outcome: info.metadata.get("outcome").cloned(),
        current_revision: info.metadata.get("current_revision").map(|revision| revision.parse().unwrap()),
        store_revision: info.metadata.get("store_revision").map(|revision| revision.parse().unwrap()),
        replayed: info.metadata.get("replayed").is_some_and(|replayed| replayed == "true"),
    }
}

fn from_problem(answer: &Answer) -> Refused {
    if answer.status == NO_STATUS {
        return broken_off();
    }
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer:?}");
    let problem = answer.json();
    let reason = problem["reason"].as_str().unwrap().to_owned();
    assert_eq!(answer.header("kv-reason"), Some(reason.as_str()));
    let known = Reason::from_str_name(&format!("REASON_{reason}")).expect("a published reason");
    assert_eq!(answer.status, known.http_status().as_u16());
    assert_eq!(problem["status"].as_u64(), Some(answer.status.into()));
    Refused {
        reason,
        outcome: problem["outcome"].as_str().map(Into::into),
        current_revision: problem["current_revision"].as_u64(),
        store_revision: problem["store_revision"].as_u64(),
        replayed: answer.header("kv-replayed") == Some("true"),
    }
}

fn broken_off() -> Refused {
    Refused { reason: BROKEN_OFF.into(), outcome: None, current_revision: None, store_revision: None, replayed: false }
}

/// A server answers sooner, or is gone. Twice a client's library waited for ever, on no connection at all.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// No status is so high: the connection broke off before there was one.
const NO_STATUS: u16 = 999;

async fn send(client: &Client, method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let broken_off = || Answer { status: NO_STATUS, headers: http::HeaderMap::new(), body: Bytes::new() };
    match tokio::time::timeout(ANSWER_WITHIN, support::try_send(client, method, url, headers, body)).await {
        Ok(answer) => answer.unwrap_or_else(|_| broken_off()),
        Err(_) => broken_off(),
    }
}

impl Door {
    pub async fn over_grpc(address: &str) -> Self {
        let endpoint =
            tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap().timeout(ANSWER_WITHIN);
        Self::Grpc(KvServiceClient::new(endpoint.connect().await.unwrap()).max_decoding_message_size(16 << 20))
    }

    pub fn over_rest(address: &str) -> Self {
        Self::Rest { client: support::client(), base: format!("http://{address}") }
    }

    pub async fn get(&self, key: &[u8]) -> Answered<pb::GetResponse> {
        let request = pb::GetRequest { key: Bytes::copy_from_slice(key), metadata_only: false };
        match self {
            Self::Service(service) => service.get(&call(), request).await.map_err(from_error),
            Self::Grpc(client) => unary(client.clone().get(request).await),
            Self::Rest { client, base } => {
                let url = format!("{base}/v1/kv/{}?format=json&encoding=base64", support::escape(key));
                let answer = send(client, "GET", &url, &[], b"").await;
                if answer.status != 200 {
                    return Err(from_problem(&answer));
                }
                let store_revision = number(&answer, "kv-store-revision").unwrap();
                Ok(pb::GetResponse { entry: Some(entry_from_json(&answer.json())), store_revision })
            }
        }
    }

    pub async fn batch_get(&self, request: pb::BatchGetRequest) -> Answered<pb::BatchGetResponse> {
        match self {
            Self::Service(service) => service.batch_get(&call(), request).await.map_err(from_error),
            Self::Grpc(client) => unary(client.clone().batch_get(request).await),
            Self::Rest { client, base } => {
                use base64::prelude::*;
                let keys: Vec<_> = request.keys.iter().map(|key| BASE64_STANDARD.encode(key)).collect();
                let body = serde_json::json!({"keys_base64": keys, "metadata_only": request.metadata_only}).to_string();
                let url = format!("{base}/v1/kv:batchGet?encoding=base64");
                let answer = send(client, "POST", &url, &[], body.as_bytes()).await;
                if answer.status != 200 {
                    return Err(from_problem(&answer));
                }
                let json = answer.json();
                let results = json["results"].as_array().unwrap().iter().map(|result| {
                    use pb::read_result::Kind;
                    let kind = match (&result["entry"], result["absent"] == true) {
                        (serde_json::Value::Null, true) => Kind::Absent(true),
                        (serde_json::Value::Null, false) => Kind::Unprocessed(result["unprocessed"] == true),
                        (entry, _) => Kind::Entry(entry_from_json(entry)),
                    };
                    pb::ReadResult { kind: Some(kind) }
                });
                Ok(pb::BatchGetResponse {
                    results: results.collect(),
                    store_revision: json["store_revision"].as_u64().unwrap(),
                })
            }
        }
    }

    pub async fn list(&self, request: pb::ListRequest) -> Answered<pb::ListResponse> {
        match self {
            Self::Service(service) => service.list(&call(), request).await.map_err(from_error),
            Self::Grpc(client) => unary(client.clone().list(request).await),
            Self::Rest { client, base } => {
                use base64::prelude::*;
                let mut query = range_query(request.range.as_ref());
                query.push(format!("page_size={}", request.page_size));
                query.push("encoding=base64".into());
                if !request.page_token.is_empty() {
                    query.push(format!("page_token={}", BASE64_URL_SAFE_NO_PAD.encode(&request.page_token)));
                }
                for (name, bytes) in [("start_after", &request.start_after), ("delimiter", &request.delimiter)] {
                    if !bytes.is_empty() {
                        query.push(format!("{name}={}", support::escape(bytes)));
                    }
                }
                query.push(format!("descending={}", request.descending));
                query.push(format!("keys_only={}", request.keys_only));
                let answer = send(client, "GET", &format!("{base}/v1/kv?{}", query.join("&")), &[], b"").await;
                if answer.status != 200 {
                    return Err(from_problem(&answer));
                }
                let json = answer.json();
                let token = json["next_page_token"].as_str().unwrap_or_default();
                let link = answer.header("link").unwrap_or_default();
                assert_eq!(link.ends_with(&format!("page_token={token}>; rel=\"next\"")), !token.is_empty(), "{link}");
                let prefixes = json["common_prefixes"].as_array().cloned().unwrap_or_default();
                Ok(pb::ListResponse {
                    entries: json["entries"].as_array().unwrap().iter().map(entry_from_json).collect(),
                    common_prefixes: prefixes
                        .iter()
                        .map(|prefix| BASE64_STANDARD.decode(prefix["prefix_base64"].as_str().unwrap()).unwrap().into())
                        .collect(),
                    next_page_token: BASE64_URL_SAFE_NO_PAD.decode(token).unwrap().into(),
                    store_revision: json["store_revision"].as_u64().unwrap(),
                })
            }
        }
    }

    pub async fn count(&self, request: pb::CountRequest) -> Answered<pb::CountResponse> {
        match self {
            Self::Service(service) => service.count(&call(), request).await.map_err(from_error),
            Self::Grpc(client) => unary(client.clone().count(request).await),
            Self::Rest { client, base } => {
                let query = range_query(request.range.as_ref()).join("&");
                let answer = send(client, "GET", &format!("{base}/v1/kv:count?{query}"), &[], b"").await;
                if answer.status != 200 {
                    return Err(from_problem(&answer));
                }
                let json = answer.json();
                Ok(pb::CountResponse {
                    count: json["count"].as_u64().unwrap(),
                    store_revision: json["store_revision"].as_u64().unwrap(),
                })
            }
        }
    }

    pub async fn batch_write(&self, request: pb::BatchWriteRequest) -> Answered<pb::BatchWriteResponse> {
        match self {
            Self::Service(service) => service.batch_write(&call(), request).await.map_err(from_error),
            Self::Grpc(client) => unary(client.clone().batch_write(request).await),
            Self::Rest { client, base } => {
                let writes: Vec<_> = request.writes.iter().map(write_json).collect();
                let body = serde_json::json!({ "writes": writes });
                let answer = post(client, base, "kv:batchWrite", request.options.as_ref(), &body).await;
                if answer.status != 200 {
                    return Err(from_problem(&answer));
                }
                let results = results_from_json(&answer.json()["results"]);
                Ok(pb::BatchWriteResponse { result: Some(result(&answer)), results })
            }
        }
    }

    pub async fn txn(&self, request: pb::TxnRequest) -> Answered<pb::TxnResponse> {
        match self {
            Self::Service(service) => service.txn(&call(), request).await.map_err(from_error),
            Self::Grpc(client) => unary(client.clone().txn(request).await),
            Self::Rest { client, base } => {
                use base64::prelude::*;
                let branch = |ops: &[pb::TxnOp]| -> Vec<_> {
                    let op = |op: &pb::TxnOp| match op.op.as_ref().unwrap() {
                        pb::txn_op::Op::Write(write) => write_json(write),
                        pb::txn_op::Op::Get(get) => serde_json::json!({"get": {
                            "key_base64": BASE64_STANDARD.encode(&get.key), "metadata_only": get.metadata_only
                        }}),
                    };
                    ops.iter().map(op).collect()
                };
                let guard = |guard: &pb::Guard| {
                    let conditions: Vec<_> = guard.conditions.iter().map(condition_json).collect();
                    serde_json::json!({"key_base64": BASE64_STANDARD.encode(&guard.key), "conditions": conditions})
                };
                let guards: Vec<_> = request.guards.iter().map(guard).collect();
                let body = serde_json::json!({
                    "guards": guards, "then": branch(&request.then), "otherwise": branch(&request.otherwise)
                });
                let answer = post(client, base, "kv:txn", request.options.as_ref(), &body).await;
                if answer.status != 200 {
                    return Err(from_problem(&answer));
                }
                let json = answer.json();
                let succeeded = json["succeeded"].as_bool().unwrap();
                Ok(pb::TxnResponse {
                    result: Some(result(&answer)),
                    succeeded,
                    results: results_from_json(&json["results"]),
                })
            }
        }
    }

    pub async fn put(&self, request: pb::PutRequest) -> Answered<pb::PutResponse> {
        match self {
            Self::Service(service) => service.put(&call(), request).await.map_err(from_error),
            Self::Grpc(client) => unary(client.clone().put(request).await),
            Self::Rest { client, base } => {
                let mut rest = Rest::new(&request.key, &request.conditions, request.options.as_ref());
                rest.expiry(request.expiry.as_ref());
                rest.flag("return_previous", request.return_previous);
                if !request.content_type.is_empty() {
                    rest.headers.push(("content-type", request.content_type.clone()));
                }
                let answer = rest.send(client, "PUT", base, "kv", &request.value).await;
                if answer.status > 299 {
                    return Err(from_problem(&answer));
                }
                Ok(pb::PutResponse {
                    result: Some(result(&answer)),
                    created: answer.status == 201,
                    version: number(&answer, "kv-version").unwrap_or(0),
                    previous: previous(&answer),
                })
            }
        }
    }

    pub async fn delete(&self, request: pb::DeleteRequest) -> Answered<pb::DeleteResponse> {
        match self {
            Self::Service(service) => service.delete(&call(), request).await.map_err(from_error),
            Self::Grpc(client) => unary(client.clone().delete(request).await),
            Self::Rest { client, base } => {
                let mut rest = Rest::new(&request.key, &request.conditions, request.options.as_ref());
                rest.flag("return_previous", request.return_previous);
                let answer = rest.send(client, "DELETE", base, "kv", b"").await;
                if answer.status > 299 {
                    return Err(from_problem(&answer));
                }
                Ok(pb::DeleteResponse { result: Some(result(&answer)), previous: previous(&answer) })
            }
        }
    }

    pub async fn increment(&self, request: pb::IncrementRequest) -> Answered<pb::IncrementResponse> {
        match self {
            Self::Service(service) => service.increment(&call(), request).await.map_err(from_error),
            Self::Grpc(client) => unary(client.clone().increment(request).await),
            Self::Rest { client, base } => {
                let mut rest = Rest::new(&request.key, &request.conditions, request.options.as_ref());
                rest.expiry(request.expiry.as_ref());
                if let Some(by) = request.by {
                    rest.query.push(format!("by={by}"));
                }
                if request.initial != 0 {
                    rest.query.push(format!("initial={}", request.initial));
                }
                let answer = rest.send(client, "POST", base, "counters", b"").await;
                if answer.status > 299 {
                    return Err(from_problem(&answer));
                }
                Ok(pb::IncrementResponse {
                    result: Some(result(&answer)),
                    created: number(&answer, "kv-version") == Some(1),
                    version: number(&answer, "kv-version").unwrap_or(0),
                    previous: None,
                    value: answer.text().parse().unwrap(),
                })
            }
        }
    }

    pub async fn touch(&self, request: pb::TouchRequest) -> Answered<pb::TouchResponse> {
        match self {
            Self::Service(service) => service.touch(&call(), request).await.map_err(from_error),
            Self::Grpc(client) => unary(client.clone().touch(request).await),
            Self::Rest { client, base } => {
                let mut rest = Rest::new(&request.key, &request.conditions, request.options.as_ref());
                rest.expiry(request.expiry.as_ref());
                rest.flag("return_previous", request.return_previous);
                let answer = rest.send(client, "PATCH", base, "kv", b"").await;
                if answer.status > 299 {
                    return Err(from_problem(&answer));
                }
                Ok(pb::TouchResponse {
                    result: Some(result(&answer)),
                    version: number(&answer, "kv-version").unwrap_or(0),
                    previous: previous(&answer),
                })
            }
        }
    }
}

async fn post(
    client: &Client,
    base: &str,
    path: &str,
    options: Option<&pb::WriteOptions>,
    body: &serde_json::Value,
) -> Answer {
    let rest = Rest::new(&Bytes::new(), &[], options);
    let url = format!("{base}/v1/{path}?{}", [rest.query, vec!["encoding=base64".into()]].concat().join("&"));
    let headers: Vec<_> = rest.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    send(client, "POST", &url, &headers, body.to_string().as_bytes()).await
}

fn range_query(range: Option<&pb::KeyRange>) -> Vec<String> {
    use pb::key_range::Kind;
    match range.and_then(|range| range.kind.as_ref()) {
        None => Vec::new(),
        Some(Kind::Prefix(prefix)) => vec![format!("prefix={}", support::escape(prefix))],
        Some(Kind::Span(span)) => {
            vec![format!("start={}", support::escape(&span.start)), format!("end={}", support::escape(&span.end))]
        }
        Some(Kind::Key(key)) => vec![format!("key={}", support::escape(key))],
        Some(Kind::All(all)) => vec![format!("all={all}")],
    }
}

fn unary<T>(answer: Result<tonic::Response<T>, tonic::Status>) -> Answered<T> {
    answer.map(tonic::Response::into_inner).map_err(|status| from_status(&status))
}

/// A write on its way to the REST door.
struct Rest {
    key: Bytes,
    query: Vec<String>,
    headers: Vec<(&'static str, String)>,
}

impl Rest {
    fn new(key: &Bytes, conditions: &[pb::Condition], options: Option<&pb::WriteOptions>) -> Self {
        use pb::condition::Kind;
        let mut rest = Self { key: key.clone(), query: Vec::new(), headers: Vec::new() };
        for condition in conditions {
            match condition.kind.as_ref().unwrap() {
                Kind::Exists(true) => rest.headers.push(("if-match", "*".into())),
                Kind::Exists(false) => rest.headers.push(("if-none-match", "*".into())),
                Kind::Revision(revision) => rest.headers.push(("if-match", format!("\"{revision}\""))),
                Kind::Version(version) => rest.query.push(format!("if_version={version}")),
                Kind::Value(_) => panic!("REST has no condition on values"),
            }
        }
        if let Some(options) = options {
            match options.durability() {
                pb::Durability::Unspecified => {}
                pb::Durability::Written => rest.query.push("durability=written".into()),
                pb::Durability::Fsynced => rest.query.push("durability=fsynced".into()),
            }
            rest.flag("validate_only", options.validate_only);
            if !options.request_id.is_empty() {
                rest.headers.push(("idempotency-key", format!("\"{}\"", options.request_id)));
            }
        }
        rest
    }

    fn flag(&mut self, name: &str, set: bool) {
        if set {
            self.query.push(format!("{name}=true"));
        }
    }

    fn expiry(&mut self, expiry: Option<&pb::Expiry>) {
        use pb::expiry::Kind;
        match expiry.and_then(|expiry| expiry.kind.as_ref()) {
            None => {}
            Some(Kind::Ttl(ttl)) => {
                self.query.push(format!("ttl={}ms", ttl.seconds * 1_000 + i64::from(ttl.nanos) / 1_000_000));
            }
            Some(Kind::ExpireTime(time)) => {
                let time = jiff::Timestamp::new(time.seconds, time.nanos).unwrap();
                self.query.push(format!("expire_time={time:.3}"));
            }
            Some(Kind::Keep(_)) => self.query.push("keep_ttl".into()),
            Some(Kind::Never(_)) => self.query.push("ttl=never".into()),
        }
    }

    async fn send(self, client: &Client, method: &str, base: &str, kind: &str, body: &[u8]) -> Answer {
        let mut url = format!("{base}/v1/{kind}/{}", support::escape(&self.key));
        if !self.query.is_empty() {
            url = format!("{url}?{}", self.query.join("&"));
        }
        let headers: Vec<_> = self.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        send(client, method, &url, &headers, body).await
    }
}

fn number(answer: &Answer, name: &str) -> Option<u64> {
    answer.header(name).map(|value| value.parse().unwrap())
}

fn result(answer: &Answer) -> pb::WriteResult {
    let durability = match answer.header("kv-durability") {
        Some("fsynced") => pb::Durability::Fsynced,
        Some("written") => pb::Durability::Written,
        Some(other) => panic!("no durability: {other}"),
        None => pb::Durability::Unspecified,
    };
    pb::WriteResult {
        revision: number(answer, "kv-revision").unwrap_or(0),
        durability: durability.into(),
        replayed: answer.header("kv-replayed") == Some("true"),
    }
}

/// Of the entry before, REST shows value, content type and revision.
fn previous(answer: &Answer) -> Option<pb::Entry> {
    let revision = number(answer, "kv-previous-revision")?;
    let content_type = answer.header("content-type").unwrap_or_default().to_owned();
    Some(pb::Entry { value: answer.body.clone(), revision, content_type, ..pb::Entry::default() })
}
