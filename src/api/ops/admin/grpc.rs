//! `tandem.admin.v1.AdminService`.

use futures_util::{StreamExt as _, stream::unfold};
use tonic::{Request, Response, Status};

use crate::{
    api::grpc::{BuildError, Reported, Streaming, call_of, door_to, to_status},
    config::Cors,
    pb::{
        self,
        admin::{
            BackupRequest, BackupResponse, CreateSnapshotRequest, CreateSnapshotResponse, KeyspaceStatsRequest,
            KeyspaceStatsResponse, ListSnapshotsRequest, ListSnapshotsResponse, SlowRequestsRequest,
            SlowRequestsResponse, StatusRequest, StatusResponse, SyncRequest, SyncResponse, VerifyIntegrityRequest,
            VerifyIntegrityResponse,
            admin_service_server::{AdminService, AdminServiceServer},
            backup_response::Part,
        },
    },
    service::Admin,
};

/// The door's service.
pub type Administration = AdminServiceServer<Called>;

/// The door, and the reporter of its health. Pages of other origins have no business here.
pub fn door(admin: &Admin) -> Result<Reported<Administration>, BuildError> {
    let called = AdminServiceServer::new(Called { admin: admin.clone() });
    door_to(admin.service(), called, pb::ADMIN_DESCRIPTORS, &Cors::default())
}

/// The administration, as tonic calls it.
#[derive(Clone, Debug)]
pub struct Called {
    admin: Admin,
}

#[tonic::async_trait]
impl AdminService for Called {
    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let call = call_of(&request)?;
        self.admin.status(&call, request.into_inner()).await.map(Response::new).map_err(to_status)
    }

    async fn create_snapshot(
        &self,
        request: Request<CreateSnapshotRequest>,
    ) -> Result<Response<CreateSnapshotResponse>, Status> {
        let call = call_of(&request)?;
        self.admin.create_snapshot(&call, request.into_inner()).await.map(Response::new).map_err(to_status)
    }

    async fn list_snapshots(
        &self,
        request: Request<ListSnapshotsRequest>,
    ) -> Result<Response<ListSnapshotsResponse>, Status> {
        let call = call_of(&request)?;
        self.admin.list_snapshots(&call, request.into_inner()).await.map(Response::new).map_err(to_status)
    }

    type BackupStream = Streaming<BackupResponse>;

    async fn backup(&self, request: Request<BackupRequest>) -> Result<Response<Self::BackupStream>, Status> {
        let call = call_of(&request)?;
        let backing_up = self.admin.backup(&call, request.into_inner()).await.map_err(to_status)?;
        let head = Part::Head(backing_up.head().clone());
        let head = futures_util::stream::once(async { Ok(BackupResponse { part: Some(head) }) });
        let chunks = unfold(Some(backing_up), |backing_up| async {
            let mut backing_up = backing_up?;
            let chunk = backing_up.next().await?;
            // Nothing follows a failure.
            let rest = chunk.is_ok().then_some(backing_up);
            Some((chunk.map(|chunk| BackupResponse { part: Some(Part::Chunk(chunk)) }).map_err(to_status), rest))
        });
        Ok(Response::new(Box::pin(head.chain(chunks))))
    }

    async fn verify_integrity(
        &self,
        request: Request<VerifyIntegrityRequest>,
    ) -> Result<Response<VerifyIntegrityResponse>, Status> {
        let call = call_of(&request)?;
        self.admin.verify_integrity(&call, request.into_inner()).await.map(Response::new).map_err(to_status)
    }

    async fn sync(&self, request: Request<SyncRequest>) -> Result<Response<SyncResponse>, Status> {
        let call = call_of(&request)?;
        self.admin.sync(&call, request.into_inner()).await.map(Response::new).map_err(to_status)
    }

    async fn slow_requests(
        &self,
        request: Request<SlowRequestsRequest>,
    ) -> Result<Response<SlowRequestsResponse>, Status> {
        let call = call_of(&request)?;
        self.admin.slow_requests(&call, request.into_inner()).map(Response::new).map_err(to_status)
    }

    async fn keyspace_stats(
        &self,
        request: Request<KeyspaceStatsRequest>,
    ) -> Result<Response<KeyspaceStatsResponse>, Status> {
        let call = call_of(&request)?;
        self.admin.keyspace_stats(&call, request.into_inner()).map(Response::new).map_err(to_status)
    }
}
