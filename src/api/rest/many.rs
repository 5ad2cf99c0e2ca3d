//! Batches and transactions: many writes in one request.

use axum::{
    extract::{Request, State},
    response::Response,
};
use http::{HeaderValue, Method, StatusCode, header::CONTENT_TYPE};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use utoipa::ToSchema;

use super::{
    collection::{force_base64, from_json, to_json},
    conditions,
    content::{self, Bound},
    handlers::{Failure, call, finish, options, show_write},
    openapi::{
        answers::{BatchWriteAnswers, TxnAnswers},
        headers::BatchHeaders,
    },
    operations::{GuardBody, OperationBody, ResultJson, WriteBody, objects},
    parameters::BatchQuery,
    problem,
    query::Query,
    routes,
};
use crate::{
    error::Result,
    limits::{BATCH_WRITES_MAX, TXN_OPERATIONS_MAX},
    metrics::Operation,
    pb::{self, txn_op},
    service::{Service, Share},
};

// As the document says.
const _: () = assert!(BATCH_WRITES_MAX == 1_000 && TXN_OPERATIONS_MAX == 128);

/// Independent writes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = BatchWriteRequest, examples(json!({
    "writes": [
        {"put": {"key": "user/1", "value": "Ada", "content_type": "text/plain", "expiry": {"ttl": "60s"}}},
        {"increment": {"key": "users", "by": "1"}},
        {"delete": {"key": "absent"}},
    ],
})))]
pub struct BatchWriteBody {
    /// No key twice.
    #[serde(default)]
    #[schema(max_items = 1000)]
    writes: Vec<WriteBody>,
}

/// Guards, and what happens if they hold and if they do not.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TxnRequest, examples(json!({
    "guards": [{"key": "users", "conditions": [{"value": "1"}]}],
    "then": [{"put": {"key": "user/2", "value": "Grace"}}, {"increment": {"key": "users"}}],
    "otherwise": [{"get": {"key": "users"}}],
})))]
pub struct TxnBody {
    #[serde(default, deserialize_with = "objects")]
    #[schema(max_items = 128)]
    guards: Vec<GuardBody>,
    /// What happens if every guard holds. No key twice.
    #[serde(default)]
    #[schema(max_items = 128)]
    then: Vec<OperationBody>,
    /// What happens if not. No key twice.
    #[serde(default)]
    #[schema(max_items = 128)]
    otherwise: Vec<OperationBody>,
}

/// What became of a batch.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BatchWriteResponse, examples(json!({
    "revision": 3,
    "results": [
        {"put": {"created": true, "version": 1}},
        {"increment": {"created": true, "version": 1, "value": "1"}},
        {"error": {"reason": "KEY_NOT_FOUND", "message": "the key is absent"}},
    ],
})))]
pub struct BatchWriteJson<'answer> {
    /// Revision of all of them; 0 when only validated.
    revision: u64,
    /// One for each write, in the request's order.
    results: Vec<ResultJson<'answer>>,
}

/// What became of a transaction.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TxnResponse, examples(json!({
    "revision": 4,
    "succeeded": true,
    "results": [
        {"put": {"created": true, "version": 1}},
        {"increment": {"created": false, "version": 2, "value": "2"}},
    ],
})))]
pub struct TxnJson<'answer> {
    /// Its revision; 0 when only validated.
    revision: u64,
    /// Whether every guard held.
    succeeded: bool,
    /// One for each operation of the branch, in the request's order.
    results: Vec<ResultJson<'answer>>,
}

/// `POST /v1/kv:batchWrite`.
pub async fn batch_write(State(service): State<Service>, request: Request) -> Response {
    if request.method() != Method::POST {
        return problem::method_not_allowed(&routes::BATCH_WRITE);
    }
    let answer = write_batch(&service, request).await;
    finish(&service, Operation::BatchWrite, answer)
}

/// `POST /v1/kv:txn`.
pub async fn txn(State(service): State<Service>, request: Request) -> Response {
    if request.method() != Method::POST {
        return problem::method_not_allowed(&routes::TXN);
    }
    let answer = write_txn(&service, request).await;
    finish(&service, Operation::Txn, answer)
}

/// Write many keys, each on its own
///
/// All writes stand in one record of the log: a crash keeps all or none, and no read sees a part of them. Conditions and
/// errors are judged write by write: the answer is 200 even if some fail.
#[utoipa::path(
    post, path = "/v1/kv:batchWrite", operation_id = "batchWrite", tag = "Many keys",
    params(BatchQuery, BatchHeaders), request_body = BatchWriteBody, responses(BatchWriteAnswers),
)]
pub(super) async fn write_batch(service: &Service, request: Request) -> Result<Response, Failure> {
    let share = service.body_share();
    let (body, options, force_base64) = read_body::<BatchWriteBody>(service, request, &share).await?;
    let writes = body.writes.into_iter().enumerate();
    let writes = writes.map(|(number, write)| write.into_pb().map_err(|error| error.at_operation(number)));
    let request = pb::BatchWriteRequest { writes: writes.collect::<Result<_>>()?, options: Some(options) };
    let done = service.batch_write(&call(service), request).await.map_err(Failure::Service)?;
    let result = done.result.unwrap_or_default();
    let results = done.results.iter().map(|result| ResultJson::new(result, true, force_base64)).collect();
    Ok(json_answer(result, &BatchWriteJson { revision: result.revision, results }))
}

/// Write and read many keys, whole or not at all
///
/// Guards, then one of two branches, judged against the state before it. An operation's error aborts all and names the
/// operation; a guard that does not hold is no error, `succeeded` is false then.
#[utoipa::path(
    post, path = "/v1/kv:txn", operation_id = "txn", tag = "Many keys",
    params(BatchQuery, BatchHeaders), request_body = TxnBody, responses(TxnAnswers),
)]
pub(super) async fn write_txn(service: &Service, request: Request) -> Result<Response, Failure> {
    let share = service.body_share();
    let (body, options, force_base64) = read_body::<TxnBody>(service, request, &share).await?;
    let request = pb::TxnRequest { options: Some(options), ..body.into_pb()? };
    let asked = ValuesAsked::of(&request);
    let done = service.txn(&call(service), request).await.map_err(Failure::Service)?;
    Ok(json_answer(done.result.unwrap_or_default(), &TxnJson::new(&done, &asked, force_base64)))
}

/// The transaction that a JSON document asks for.
pub fn txn_from_json(json: &[u8]) -> Result<pb::TxnRequest> {
    from_json::<TxnBody>(json)?.into_pb()
}

impl TxnBody {
    fn into_pb(self) -> Result<pb::TxnRequest> {
        let branch = |operations: Vec<OperationBody>| -> Result<Vec<pb::TxnOp>> {
            let operations = operations.into_iter().enumerate();
            operations.map(|(number, op)| op.into_pb().map_err(|error| error.at_operation(number))).collect()
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
        let results = results.map(|(result, with_value)| ResultJson::new(result, *with_value, force_base64)).collect();
        Self { revision: done.result.unwrap_or_default().revision, succeeded: done.succeeded, results }
    }
}

async fn read_body<T: DeserializeOwned>(
    service: &Service,
    request: Request,
    share: &Share,
) -> Result<(T, pb::WriteOptions, bool)> {
    let (parts, body) = request.into_parts();
    let query = Query::parse(parts.uri.query(), BatchQuery::KNOWN)?;
    let options = options(&parts, &query)?;
    let force_base64 = force_base64(&query)?;
    conditions::expect_none(&parts.headers)?;
    content::expect_plain(&parts.headers)?;
    let body = content::read(&parts.headers, body, Bound::request(service.limits()), share).await?;
    Ok((from_json(&body)?, options, force_base64))
}

fn json_answer(result: pb::WriteResult, json: &impl Serialize) -> Response {
    let mut response = show_write(StatusCode::OK, Some(result), None, None);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    *response.body_mut() = to_json(json).into();
    response
}

/// Whether an operation, if it reads, asked for the value.
fn reads_value(op: &pb::TxnOp) -> bool {
    !matches!(&op.op, Some(txn_op::Op::Get(get)) if get.metadata_only)
}
