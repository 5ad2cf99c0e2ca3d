//! Batches and transactions as JSON: the schema's field names, written for people.

use axum::{
    extract::{Request, State},
    response::Response,
};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header::CONTENT_TYPE};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    collection::{ReadJson, bad_json, force_base64, to_json},
    content::{self, Bound},
    handlers::{Failure, call, finish, options, show_write},
    json::EntryJson,
    problem,
    query::Query,
};
use crate::{
    error::{Error, Result},
    metrics::Operation,
    model::duration_to_pb,
    notation::parse_duration,
    pb::{self, op_result::Kind, txn_op, write_op},
    service::Service,
};

/// `POST /v1/kv:batchWrite`.
pub async fn batch_write(State(service): State<Service>, request: Request) -> Response {
    if request.method() != Method::POST {
        return problem::method_not_allowed("POST", "a batch takes POST, with the writes as JSON in the body");
    }
    let answer = write_batch(&service, request).await;
    finish(&service, Operation::BatchWrite, answer)
}

/// `POST /v1/kv:txn`.
pub async fn txn(State(service): State<Service>, request: Request) -> Response {
    if request.method() != Method::POST {
        return problem::method_not_allowed(
            "POST",
            "a transaction takes POST, with guards and operations as JSON in the body",
        );
    }
    let answer = write_txn(&service, request).await;
    finish(&service, Operation::Txn, answer)
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct BatchBody {
    writes: Vec<OpBody>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TxnBody {
    guards: Vec<GuardBody>,
    then: Vec<OpBody>,
    otherwise: Vec<OpBody>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct GuardBody {
    key: Option<String>,
    key_base64: Option<String>,
    conditions: Vec<ConditionBody>,
}

/// One operation: `{"put": {…}}`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum OpBody {
    Put(WriteBody),
    Delete(WriteBody),
    Increment(WriteBody),
    Touch(WriteBody),
    Get(WriteBody),
}

/// Fields of all kinds of operation; [`WriteBody::only`] refuses those that a kind does not have.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WriteBody {
    key: Option<String>,
    key_base64: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
    expiry: Option<ExpiryBody>,
    content_type: Option<String>,
    conditions: Option<Vec<ConditionBody>>,
    return_previous: Option<bool>,
    by: Option<IntegerBody>,
    initial: Option<IntegerBody>,
    metadata_only: Option<bool>,
}

/// A signed 64-bit number: as a string, since JSON's numbers lose the last digits of large ones, or as a number.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum IntegerBody {
    Number(i64),
    Text(String),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum ExpiryBody {
    Ttl(String),
    ExpireTime(String),
    Keep(bool),
    Never(bool),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum ConditionBody {
    Exists(bool),
    Revision(u64),
    Version(u64),
    Value(String),
    ValueBase64(String),
}

#[derive(Debug, Serialize)]
struct BatchJson<'answer> {
    revision: u64,
    results: Vec<OpJson<'answer>>,
}

/// What a transaction did.
#[derive(Debug, Serialize)]
pub struct TxnJson<'answer> {
    revision: u64,
    succeeded: bool,
    results: Vec<OpJson<'answer>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum OpJson<'answer> {
    Put(DoneJson<'answer>),
    Delete(DoneJson<'answer>),
    Increment(DoneJson<'answer>),
    Touch(DoneJson<'answer>),
    Get(ReadJson<'answer>),
    Error(ErrorJson<'answer>),
}

#[derive(Debug, Default, Serialize)]
struct DoneJson<'answer> {
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<EntryJson<'answer>>,
    /// A string: JSON's numbers lose the last digits of large ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
}

#[derive(Debug, Serialize)]
struct ErrorJson<'answer> {
    reason: &'answer str,
    message: &'answer str,
}

async fn write_batch(service: &Service, request: Request) -> Result<Response, Failure> {
    let share = service.body_share();
    let (body, options, force_base64) = read_body::<BatchBody>(service, request, &share).await?;
    let writes = body
        .writes
        .into_iter()
        .enumerate()
        .map(|(number, op)| op.into_write().map_err(|error| at_operation(error, number)));
    let request = pb::BatchWriteRequest { writes: writes.collect::<Result<_>>()?, options: Some(options) };
    let done = service.batch_write(&call(service), request).await.map_err(Failure::Service)?;
    let result = done.result.unwrap_or_default();
    let results = done.results.iter().map(|result| op_json(result, true, force_base64)).collect();
    Ok(json_answer(result, &BatchJson { revision: result.revision, results }))
}

async fn write_txn(service: &Service, request: Request) -> Result<Response, Failure> {
    let share = service.body_share();
    let (body, options, force_base64) = read_body::<TxnBody>(service, request, &share).await?;
    let request = pb::TxnRequest { options: Some(options), ..body.into_pb()? };
    let asked = ValuesAsked::of(&request);
    let done = service.txn(&call(service), request).await.map_err(Failure::Service)?;
    Ok(json_answer(done.result.unwrap_or_default(), &TxnJson::new(&done, &asked, force_base64)))
}

/// The transaction that a JSON document asks for.
pub fn txn_from_json(json: &[u8]) -> Result<pb::TxnRequest> {
    serde_json::from_slice::<TxnBody>(json).map_err(bad_json)?.into_pb()
}

impl TxnBody {
    fn into_pb(self) -> Result<pb::TxnRequest> {
        let branch = |ops: Vec<OpBody>| -> Result<Vec<pb::TxnOp>> {
            let ops = ops
                .into_iter()
                .enumerate()
                .map(|(number, op)| op.into_txn_op().map_err(|error| at_operation(error, number)));
            ops.collect()
        };
        let guards = self.guards.into_iter().map(GuardBody::into_pb).collect::<Result<_>>()?;
        Ok(pb::TxnRequest { guards, then: branch(self.then)?, otherwise: branch(self.otherwise)?, options: None })
    }
}

/// Of each branch's operations, whether a read asked for the value: an answer without one does not say so itself.
#[derive(Debug)]
pub struct ValuesAsked {
    then: Vec<bool>,
    otherwise: Vec<bool>,
}

impl ValuesAsked {
    /// What a request asks for.
    pub fn of(request: &pb::TxnRequest) -> Self {
        let branch = |ops: &[pb::TxnOp]| ops.iter().map(reads_value).collect();
        Self { then: branch(&request.then), otherwise: branch(&request.otherwise) }
    }
}

impl<'answer> TxnJson<'answer> {
    /// The JSON of what a transaction did.
    pub fn new(done: &'answer pb::TxnResponse, asked: &ValuesAsked, force_base64: bool) -> Self {
        let with_values = if done.succeeded { &asked.then } else { &asked.otherwise };
        let results = done.results.iter().zip(with_values);
        let results = results.map(|(result, with_value)| op_json(result, *with_value, force_base64)).collect();
        Self { revision: done.result.unwrap_or_default().revision, succeeded: done.succeeded, results }
    }
}

async fn read_body<T: DeserializeOwned>(
    service: &Service,
    request: Request,
    share: &crate::service::Share,
) -> Result<(T, pb::WriteOptions, bool)> {
    let (parts, body) = request.into_parts();
    let query = Query::parse(parts.uri.query(), &["durability", "validate_only", "encoding"])?;
    let options = options(&parts, &query)?;
    let force_base64 = force_base64(&query)?;
    let body = content::read(&parts.headers, body, Bound::request(service.limits()), share).await?;
    Ok((serde_json::from_slice(&body).map_err(bad_json)?, options, force_base64))
}

fn json_answer(result: pb::WriteResult, json: &impl Serialize) -> Response {
    let mut response = show_write(StatusCode::OK, Some(result), None, None);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    *response.body_mut() = to_json(json).into();
    response
}

fn at_operation(error: Error, number: usize) -> Error {
    error.with(|details| details.operation_index = Some(number as u64))
}

/// Exactly one of a text and its base64.
pub fn bytes_from_json(name: &'static str, text: Option<String>, base64: Option<String>) -> Result<Bytes> {
    match (text, base64) {
        (Some(text), None) => Ok(text.into()),
        (None, Some(base64)) => BASE64_STANDARD
            .decode(base64)
            .map(Bytes::from)
            .map_err(|_| Error::malformed(name, format!("`{name}_base64` is not base64"))),
        _ => Err(Error::invalid_field(name, format!("send exactly one of `{name}` and `{name}_base64`"))),
    }
}

impl IntegerBody {
    fn read(self, name: &'static str) -> Result<i64> {
        match self {
            Self::Number(number) => Ok(number),
            Self::Text(text) => {
                text.parse().map_err(|_| Error::malformed(name, format!("`{name}` is not a whole number that fits")))
            }
        }
    }
}

impl ExpiryBody {
    fn into_pb(self) -> Result<pb::Expiry> {
        use pb::expiry::Kind as Expires;
        let kind = match self {
            Self::Ttl(text) => {
                let ttl = parse_duration(&text).ok_or_else(|| {
                    Error::malformed("expiry.ttl", "`ttl` is digits and a unit, ms, s, m, h or d, such as 60s")
                })?;
                Expires::Ttl(duration_to_pb(ttl))
            }
            Self::ExpireTime(text) => {
                let time: jiff::Timestamp = text.parse().map_err(|_| {
                    Error::malformed(
                        "expiry.expire_time",
                        "`expire_time` is as RFC 3339 writes it, such as 2030-01-01T00:00:00Z",
                    )
                })?;
                let (seconds, nanos) = (time.as_second(), time.subsec_nanosecond());
                Expires::ExpireTime(prost_types::Timestamp { seconds, nanos })
            }
            Self::Keep(keep) => Expires::Keep(keep),
            Self::Never(never) => Expires::Never(never),
        };
        Ok(pb::Expiry { kind: Some(kind) })
    }
}

impl ConditionBody {
    fn into_pb(self) -> Result<pb::Condition> {
        use pb::condition::Kind as Is;
        let kind = match self {
            Self::Exists(exists) => Is::Exists(exists),
            Self::Revision(revision) => Is::Revision(revision),
            Self::Version(version) => Is::Version(version),
            Self::Value(text) => Is::Value(text.into()),
            Self::ValueBase64(base64) => Is::Value(bytes_from_json("value", None, Some(base64))?),
        };
        Ok(pb::Condition { kind: Some(kind) })
    }
}

fn conditions(conditions: Option<Vec<ConditionBody>>) -> Result<Vec<pb::Condition>> {
    conditions.unwrap_or_default().into_iter().map(ConditionBody::into_pb).collect()
}

impl GuardBody {
    fn into_pb(self) -> Result<pb::Guard> {
        let key = bytes_from_json("key", self.key, self.key_base64)?;
        Ok(pb::Guard { key, conditions: conditions(Some(self.conditions))? })
    }
}

impl WriteBody {
    /// Refuses fields that the kind of operation does not have.
    fn only(&self, known: &[&str]) -> Result<()> {
        let present = [
            ("value", self.value.is_some()),
            ("value_base64", self.value_base64.is_some()),
            ("expiry", self.expiry.is_some()),
            ("content_type", self.content_type.is_some()),
            ("conditions", self.conditions.is_some()),
            ("return_previous", self.return_previous.is_some()),
            ("by", self.by.is_some()),
            ("initial", self.initial.is_some()),
            ("metadata_only", self.metadata_only.is_some()),
        ];
        match present.into_iter().find(|(name, there)| *there && !known.contains(name)) {
            None => Ok(()),
            Some((name, _)) => Err(Error::invalid_field(name, format!("this operation has no field `{name}`"))),
        }
    }
}

impl OpBody {
    fn into_write(self) -> Result<pb::WriteOp> {
        let op = match self {
            Self::Put(body) => {
                body.only(&["value", "value_base64", "expiry", "content_type", "conditions", "return_previous"])?;
                write_op::Op::Put(pb::PutRequest {
                    key: bytes_from_json("key", body.key, body.key_base64)?,
                    value: bytes_from_json("value", body.value, body.value_base64)?,
                    expiry: body.expiry.map(ExpiryBody::into_pb).transpose()?,
                    content_type: body.content_type.unwrap_or_default(),
                    conditions: conditions(body.conditions)?,
                    return_previous: body.return_previous.unwrap_or(false),
                    options: None,
                })
            }
            Self::Delete(body) => {
                body.only(&["conditions", "return_previous"])?;
                write_op::Op::Delete(pb::DeleteRequest {
                    key: bytes_from_json("key", body.key, body.key_base64)?,
                    conditions: conditions(body.conditions)?,
                    return_previous: body.return_previous.unwrap_or(false),
                    options: None,
                })
            }
            Self::Increment(body) => {
                body.only(&["expiry", "conditions", "return_previous", "by", "initial"])?;
                write_op::Op::Increment(pb::IncrementRequest {
                    key: bytes_from_json("key", body.key, body.key_base64)?,
                    by: body.by.map(|by| by.read("by")).transpose()?,
                    expiry: body.expiry.map(ExpiryBody::into_pb).transpose()?,
                    conditions: conditions(body.conditions)?,
                    return_previous: body.return_previous.unwrap_or(false),
                    initial: body.initial.map(|initial| initial.read("initial")).transpose()?.unwrap_or(0),
                    options: None,
                })
            }
            Self::Touch(body) => {
                body.only(&["expiry", "conditions", "return_previous"])?;
                write_op::Op::Touch(pb::TouchRequest {
                    key: bytes_from_json("key", body.key, body.key_base64)?,
                    expiry: body.expiry.map(ExpiryBody::into_pb).transpose()?,
                    conditions: conditions(body.conditions)?,
                    return_previous: body.return_previous.unwrap_or(false),
                    options: None,
                })
            }
            Self::Get(_) => {
                return Err(Error::invalid_field("get", "a batch of writes reads nothing: use :batchGet or :txn"));
            }
        };
        Ok(pb::WriteOp { op: Some(op) })
    }

    fn into_txn_op(self) -> Result<pb::TxnOp> {
        let op = match self {
            Self::Get(body) => {
                body.only(&["metadata_only"])?;
                let key = bytes_from_json("key", body.key, body.key_base64)?;
                txn_op::Op::Get(pb::GetRequest { key, metadata_only: body.metadata_only.unwrap_or(false) })
            }
            write => txn_op::Op::Write(write.into_write()?),
        };
        Ok(pb::TxnOp { op: Some(op) })
    }
}

/// Whether an operation, if it reads, asked for the value.
fn reads_value(op: &pb::TxnOp) -> bool {
    !matches!(&op.op, Some(txn_op::Op::Get(get)) if get.metadata_only)
}

fn op_json(result: &pb::OpResult, with_value: bool, force_base64: bool) -> OpJson<'_> {
    fn shown(entry: &Option<pb::Entry>, force_base64: bool) -> Option<EntryJson<'_>> {
        entry.as_ref().map(|entry| EntryJson::new(entry, true, force_base64))
    }
    match &result.kind {
        Some(Kind::Put(done)) => OpJson::Put(DoneJson {
            created: Some(done.created),
            version: Some(done.version),
            previous: shown(&done.previous, force_base64),
            value: None,
        }),
        Some(Kind::Delete(done)) => {
            OpJson::Delete(DoneJson { previous: shown(&done.previous, force_base64), ..DoneJson::default() })
        }
        Some(Kind::Increment(done)) => OpJson::Increment(DoneJson {
            created: Some(done.created),
            version: Some(done.version),
            previous: shown(&done.previous, force_base64),
            value: Some(done.value.to_string()),
        }),
        Some(Kind::Touch(done)) => OpJson::Touch(DoneJson {
            version: Some(done.version),
            previous: shown(&done.previous, force_base64),
            ..DoneJson::default()
        }),
        Some(Kind::Get(read)) => OpJson::Get(ReadJson::new(read, with_value, force_base64)),
        Some(Kind::Error(error)) => OpJson::Error(ErrorJson { reason: &error.reason, message: &error.message }),
        None => OpJson::Error(ErrorJson { reason: "INTERNAL", message: "an empty result" }),
    }
}
