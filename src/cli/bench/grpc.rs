//! The gRPC door: the generated client, straight on HTTP/2 connections without the layers that a channel puts between.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, uri::PathAndQuery};
use hyper::{body::Incoming, client::conn::http2};
use tonic::{Status, Streaming, body::Body};

use super::{
    ask::{Ask, Done, Refusal},
    line::{Line, Target},
    plan::Plan,
};
use crate::{
    cli::client::{failure::describe, write::durability_to_pb},
    limits::CLIENT_ANSWER_BYTES_MAX,
    pb::{self, key_range::Kind, kv_service_client::KvServiceClient, op_result, write_op::Op},
};

/// An HTTP/2 connection as a service.
#[derive(Clone, Debug)]
struct Calls(http2::SendRequest<Body>);

impl tower::Service<Request<Body>> for Calls {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// A connection that is shared.
#[derive(Clone, Debug)]
pub struct Lines {
    target: Target,
    line: Arc<Line<Body>>,
    options: pb::WriteOptions,
}

/// One place's way to the server.
#[derive(Debug)]
pub struct Grpc {
    lines: Lines,
    client: KvServiceClient<Calls>,
    /// The connection below, to be asked whether it still is one.
    sender: http2::SendRequest<Body>,
}

impl Lines {
    /// Connects.
    pub async fn connect(plan: &Plan, target: &Target) -> Result<Self, Refusal> {
        let durability = durability_to_pb(plan.durability).into();
        let options = pb::WriteOptions { durability, ..Default::default() };
        Ok(Self { target: target.clone(), line: Line::connect(target).await?, options })
    }

    /// A way for one place.
    pub async fn place(self) -> Grpc {
        let sender = self.line.sender().await;
        Grpc { client: self.client(sender.clone()), lines: self, sender }
    }

    fn client(&self, sender: http2::SendRequest<Body>) -> KvServiceClient<Calls> {
        let origin = self.target.uri(PathAndQuery::from_static("/"));
        KvServiceClient::with_origin(Calls(sender), origin).max_decoding_message_size(CLIENT_ANSWER_BYTES_MAX)
    }
}

impl Grpc {
    /// Connects again.
    pub async fn renew(&mut self) -> bool {
        let Some(sender) = self.lines.line.renewed().await else { return false };
        self.client = self.lines.client(sender.clone());
        self.sender = sender;
        true
    }

    /// Sends a request and reads its answer.
    pub async fn perform(&mut self, ask: Ask) -> Result<Done, Refusal> {
        // What the client makes of a connection that is gone differs with the moment.
        self.answer(ask).await.map_err(|refusal| match self.sender.is_closed() || refusal.broken {
            true => Refusal::broken(format!("the connection broke: {}", refusal.message)),
            false => refusal,
        })
    }

    async fn answer(&mut self, ask: Ask) -> Result<Done, Refusal> {
        let options = Some(self.lines.options.clone());
        match ask {
            Ask::Get(key) => {
                self.client.get(pb::GetRequest { key, metadata_only: false }).await?;
                Ok(Done { keys: 1, revision: 0 })
            }
            Ask::Put(key, value) => {
                let request = pb::PutRequest { options, ..put(key, value) };
                let done = self.client.put(request).await?.into_inner();
                Ok(Done { keys: 1, revision: done.result.unwrap_or_default().revision })
            }
            Ask::BatchGet(keys) => {
                let done = self.client.batch_get(pb::BatchGetRequest { keys, metadata_only: false }).await?;
                Ok(Done { keys: done.into_inner().results.len() as u64, revision: 0 })
            }
            Ask::BatchWrite(writes) => {
                let op = |(key, value)| pb::WriteOp { op: Some(Op::Put(put(key, value))) };
                let request = pb::BatchWriteRequest { writes: writes.into_iter().map(op).collect(), options };
                let results = self.client.batch_write(request).await?.into_inner().results;
                let keys = results.len() as u64;
                match results.into_iter().find_map(|result| error_of(result.kind?)) {
                    Some(error) => Err(Refusal { reason: error.reason, message: error.message, broken: false }),
                    None => Ok(Done { keys, revision: 0 }),
                }
            }
            Ask::Scan(first, behind) => {
                let request = pb::ScanRequest { range: Some(span(first, behind)), ..Default::default() };
                let mut batches = self.client.scan(request).await?.into_inner();
                let mut keys = 0;
                while let Some(batch) = batches.message().await? {
                    keys += batch.entries.len() as u64;
                }
                Ok(Done { keys, revision: 0 })
            }
            Ask::Count(first, behind) => {
                let counted = self.client.count(pb::CountRequest { range: Some(span(first, behind)) }).await?;
                Ok(Done { keys: counted.into_inner().count, revision: 0 })
            }
        }
    }

    /// Watches a range.
    pub async fn watch(&mut self, first: Bytes, behind: Bytes) -> Result<Streaming<pb::WatchResponse>, Refusal> {
        let request = pb::WatchRequest { range: Some(span(first, behind)), ..Default::default() };
        Ok(self.client.watch(request).await?.into_inner())
    }
}

fn put(key: Bytes, value: Bytes) -> pb::PutRequest {
    pb::PutRequest { key, value, ..Default::default() }
}

fn span(start: Bytes, end: Bytes) -> pb::KeyRange {
    pb::KeyRange { kind: Some(Kind::Span(pb::Span { start, end })) }
}

fn error_of(kind: op_result::Kind) -> Option<pb::OpError> {
    match kind {
        op_result::Kind::Error(error) => Some(error),
        _ => None,
    }
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        let text = describe(&status);
        let (reason, message) = text.split_once(": ").unwrap_or(("UNKNOWN", &text));
        // Only what tonic itself made of an error has a cause.
        let broken = std::error::Error::source(&status).is_some();
        Self { reason: reason.to_owned(), message: message.to_owned(), broken }
    }
}
