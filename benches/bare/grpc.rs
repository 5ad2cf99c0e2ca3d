//! A bare tonic server: the schema's service with preset answers.

use bytes::Bytes;
use futures_util::stream::{Empty, empty};
use tandem::pb::{
    self, BatchGetRequest, BatchGetResponse, BatchWriteRequest, BatchWriteResponse, CountRequest, CountResponse,
    DeleteRangeRequest, DeleteRangeResponse, DeleteRequest, DeleteResponse, GetRequest, GetResponse, IncrementRequest,
    IncrementResponse, ListRequest, ListResponse, PutRequest, PutResponse, ScanRequest, ScanResponse, TouchRequest,
    TouchResponse, TxnRequest, TxnResponse, WatchRequest, WatchResponse,
    kv_service_server::{KvService, KvServiceServer},
};
use tonic::{Request, Response, Status, service::Routes};

use super::{REVISION, VALUE};

type Answer<T> = Result<Response<T>, Status>;

struct Preset {
    entry: pb::Entry,
    put: PutResponse,
}

pub fn routes() -> axum::Router {
    let entry = pb::Entry {
        key: Bytes::from_static(&[b'k'; 32]),
        value: Bytes::from_static(&VALUE),
        revision: REVISION,
        create_revision: REVISION / 10,
        version: 7,
        update_time: Some(prost_types::Timestamp { seconds: 1_800_000_000, nanos: 123_000_000 }),
        content_type: "application/octet-stream".into(),
        ..Default::default()
    };
    let put = PutResponse { result: Some(result()), version: 7, ..Default::default() };
    let service = KvServiceServer::new(Preset { entry, put }).max_decoding_message_size(16 << 20);
    Routes::new(service).prepare().into_axum_router()
}

fn result() -> pb::WriteResult {
    pb::WriteResult { revision: REVISION, durability: pb::Durability::Fsynced.into(), replayed: false }
}

/// What this server does not do.
fn nothing<T>() -> Answer<T> {
    Err(Status::unimplemented("a bare server"))
}

#[tonic::async_trait]
impl KvService for Preset {
    async fn get(&self, _: Request<GetRequest>) -> Answer<GetResponse> {
        Ok(Response::new(GetResponse { entry: Some(self.entry.clone()), store_revision: REVISION }))
    }

    async fn put(&self, _: Request<PutRequest>) -> Answer<PutResponse> {
        Ok(Response::new(self.put.clone()))
    }

    async fn batch_get(&self, request: Request<BatchGetRequest>) -> Answer<BatchGetResponse> {
        let entry = || pb::ReadResult { kind: Some(pb::read_result::Kind::Entry(self.entry.clone())) };
        let results = request.get_ref().keys.iter().map(|_| entry()).collect();
        Ok(Response::new(BatchGetResponse { results, store_revision: REVISION }))
    }

    async fn batch_write(&self, request: Request<BatchWriteRequest>) -> Answer<BatchWriteResponse> {
        let put = || pb::OpResult { kind: Some(pb::op_result::Kind::Put(self.put.clone())) };
        let results = request.get_ref().writes.iter().map(|_| put()).collect();
        Ok(Response::new(BatchWriteResponse { result: Some(result()), results }))
    }

    async fn list(&self, _: Request<ListRequest>) -> Answer<ListResponse> {
        nothing()
    }

    /// By which `tandem bench` tells whether a Tandem is there.
    async fn count(&self, _: Request<CountRequest>) -> Answer<CountResponse> {
        Ok(Response::new(CountResponse { count: 1, store_revision: REVISION }))
    }

    async fn delete(&self, _: Request<DeleteRequest>) -> Answer<DeleteResponse> {
        nothing()
    }

    async fn increment(&self, _: Request<IncrementRequest>) -> Answer<IncrementResponse> {
        nothing()
    }

    async fn touch(&self, _: Request<TouchRequest>) -> Answer<TouchResponse> {
        nothing()
    }

    async fn txn(&self, _: Request<TxnRequest>) -> Answer<TxnResponse> {
        nothing()
    }

    async fn delete_range(&self, _: Request<DeleteRangeRequest>) -> Answer<DeleteRangeResponse> {
        nothing()
    }

    type ScanStream = Empty<Result<ScanResponse, Status>>;

    async fn scan(&self, _: Request<ScanRequest>) -> Answer<Self::ScanStream> {
        Ok(Response::new(empty()))
    }

    type WatchStream = Empty<Result<WatchResponse, Status>>;

    async fn watch(&self, _: Request<WatchRequest>) -> Answer<Self::WatchStream> {
        Ok(Response::new(empty()))
    }
}
