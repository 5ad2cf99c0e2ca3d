//! The gRPC door: `tandem.v1.KvService`, `grpc.health.v1` and reflection on one port, in gRPC and gRPC-Web. The ops
//! listener's gRPC goes through a door of the same make.

mod closing;
mod compression;
mod counted;
mod dialect;
mod health;
mod method;
mod outermost;
mod refusal;
mod routed;
mod sharing;
mod status;
mod unary;

use std::pin::Pin;

use futures_util::stream::{Stream, unfold};
use tonic::{Request, Response, Status, service::Routes};

use crate::{
    config::Cors,
    pb::{
        self,
        kv_service_server::{KvService, KvServiceServer},
    },
    service::{Call, Service},
};

pub(in crate::api) use self::status::to_status;
pub use self::{health::follow_health, outermost::Door};
use self::{
    routed::{Routed, Served},
    sharing::of_grpc,
    unary::ANSWER_BYTES_MAX,
};

/// Where the time went, for those who ask.
const SERVER_TIMING: http::HeaderName = http::HeaderName::from_static("server-timing");
/// A message may be this much larger than the request limit: the service then says by itself what is too large.
const MESSAGE_SLACK_BYTES: usize = 64 * 1024;

/// What a service of tonic's could not be built from.
pub type BuildError = Box<dyn std::error::Error + Send + Sync>;

/// A door to a service, and the reporter that [`follow_health`] keeps up to date.
pub type Reported<M> = (Door<M>, tonic_health::server::HealthReporter);

/// The store's door.
pub fn door(service: &Service, cors: &Cors) -> Result<Reported<KvServiceServer<Kv>>, BuildError> {
    let limits = service.limits();
    let kv = KvServiceServer::new(Kv { service: service.clone() })
        .max_decoding_message_size(limits.request_bytes + MESSAGE_SLACK_BYTES)
        .max_encoding_message_size(ANSWER_BYTES_MAX);
    door_to(service, kv, pb::PUBLIC_DESCRIPTORS, cors)
}

/// A door to this service, with health and with reflection of what it speaks.
pub(in crate::api) fn door_to<M: Served>(
    service: &Service,
    main: M,
    descriptors: &[u8],
    cors: &Cors,
) -> Result<Reported<M>, BuildError> {
    let (reporter, health) = tonic_health::server::health_reporter();
    let reflection = || {
        // The public schema and what errors and health speak of. Storage stays out.
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(descriptors)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };
    let others =
        Routes::new(health).add_service(reflection().build_v1()?).add_service(reflection().build_v1alpha()?).prepare();
    Ok((Door::new(service.clone(), Routed::new(main, others), of_grpc(cors)), reporter))
}

/// The service, as tonic calls it.
#[derive(Clone, Debug)]
pub struct Kv {
    service: Service,
}

/// The call that the outermost layer has set up.
pub(in crate::api) fn call_of<T>(request: &Request<T>) -> Result<Call, Status> {
    request
        .extensions()
        .get::<Call>()
        .copied()
        .ok_or_else(|| Status::internal("a request came around the outermost layer"))
}

/// Answers that come one after another.
pub(in crate::api) type Streaming<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl KvService for Kv {
    async fn get(&self, request: Request<pb::GetRequest>) -> Result<Response<pb::GetResponse>, Status> {
        let call = call_of(&request)?;
        self.service.get(&call, request.into_inner()).await.map(Response::new).map_err(to_status)
    }

    async fn batch_get(&self, request: Request<pb::BatchGetRequest>) -> Result<Response<pb::BatchGetResponse>, Status> {
        let call = call_of(&request)?;
        self.service.batch_get(&call, request.into_inner()).await.map(Response::new).map_err(to_status)
    }

    async fn list(&self, request: Request<pb::ListRequest>) -> Result<Response<pb::ListResponse>, Status> {
        let call = call_of(&request)?;
        self.service.list(&call, request.into_inner()).await.map(Response::new).map_err(to_status)
    }

    async fn count(&self, request: Request<pb::CountRequest>) -> Result<Response<pb::CountResponse>, Status> {
        let call = call_of(&request)?;
        self.service.count(&call, request.into_inner()).await.map(Response::new).map_err(to_status)
    }

    async fn put(&self, request: Request<pb::PutRequest>) -> Result<Response<pb::PutResponse>, Status> {
        let call = call_of(&request)?;
        self.service.put(&call, request.into_inner()).await.map(Response::new).map_err(to_status)
    }

    async fn delete(&self, request: Request<pb::DeleteRequest>) -> Result<Response<pb::DeleteResponse>, Status> {
        let call = call_of(&request)?;
        self.service.delete(&call, request.into_inner()).await.map(Response::new).map_err(to_status)
    }

    async fn increment(
        &self,
        request: Request<pb::IncrementRequest>,
    ) -> Result<Response<pb::IncrementResponse>, Status> {
        let call = call_of(&request)?;
        self.service.increment(&call, request.into_inner()).await.map(Response::new).map_err(to_status)
    }

    async fn touch(&self, request: Request<pb::TouchRequest>) -> Result<Response<pb::TouchResponse>, Status> {
        let call = call_of(&request)?;
        self.service.touch(&call, request.into_inner()).await.map(Response::new).map_err(to_status)
    }

    async fn batch_write(
        &self,
        request: Request<pb::BatchWriteRequest>,
    ) -> Result<Response<pb::BatchWriteResponse>, Status> {
        let call = call_of(&request)?;
        self.service.batch_write(&call, request.into_inner()).await.map(Response::new).map_err(to_status)
    }

    async fn txn(&self, request: Request<pb::TxnRequest>) -> Result<Response<pb::TxnResponse>, Status> {
        let call = call_of(&request)?;
        self.service.txn(&call, request.into_inner()).await.map(Response::new).map_err(to_status)
    }

    type ScanStream = Streaming<pb::ScanResponse>;

    async fn scan(&self, request: Request<pb::ScanRequest>) -> Result<Response<Self::ScanStream>, Status> {
        let call = call_of(&request)?;
        let scanning = self.service.scan(&call, request.into_inner()).await.map_err(to_status)?;
        let batches = unfold(scanning, |mut scanning| async {
            let batch = scanning.next().await?;
            Some((batch.map_err(to_status), scanning))
        });
        Ok(Response::new(Box::pin(batches)))
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let call = call_of(&request)?;
        self.service.delete_range(&call, request.into_inner()).await.map(Response::new).map_err(to_status)
    }

    type WatchStream = Streaming<pb::WatchResponse>;

    async fn watch(&self, request: Request<pb::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let call = call_of(&request)?;
        let watching = self.service.watch(&call, request.into_inner()).await.map_err(to_status)?;
        let messages = unfold(watching, |mut watching| async {
            let message = watching.next().await?;
            Some((message.map_err(to_status), watching))
        });
        Ok(Response::new(Box::pin(messages)))
    }
}
