//! `tandem.admin.v1.AdminService`.

use tonic::{Request, Response, Status, service::Routes};

use crate::{
    api::grpc::{BuildError, Reported, call_of, door_to, to_status},
    config::Cors,
    pb::{
        self,
        admin::{
            CreateSnapshotRequest, CreateSnapshotResponse, ListSnapshotsRequest, ListSnapshotsResponse, StatusRequest,
            StatusResponse, SyncRequest, SyncResponse,
            admin_service_server::{AdminService, AdminServiceServer},
        },
    },
    service::Admin,
};

/// The door, and the reporter of its health. Pages of other origins have no business here.
pub fn door(admin: &Admin) -> Result<Reported, BuildError> {
    let routes = Routes::new(AdminServiceServer::new(Called { admin: admin.clone() }));
    door_to(admin.service(), routes, pb::ADMIN_DESCRIPTORS, &Cors::default())
}

/// The administration, as tonic calls it.
#[derive(Clone, Debug)]
struct Called {
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

    async fn sync(&self, request: Request<SyncRequest>) -> Result<Response<SyncResponse>, Status> {
        let call = call_of(&request)?;
        self.admin.sync(&call, request.into_inner()).await.map(Response::new).map_err(to_status)
    }
}
