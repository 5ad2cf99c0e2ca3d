//! `/v1/admin/`: the administration over HTTP. Each handler in four steps: check, call, map the error, answer.

use std::time::Instant;

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::any,
};
use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Method, StatusCode,
    header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS},
};
use serde::Serialize;

use super::{
    json::{CreatedJson, SlowRequestsJson, SnapshotsJson, StatusJson, SyncedJson, VerifiedJson},
    keyspace_json::KeyspaceJson,
};
use crate::{
    api::rest::{
        Door, Known, Query, Route, SlowRequestsQuery, problem,
        stream::{self, Piece},
        written,
    },
    config::Cors,
    error::{Error, Reason},
    metrics::{Operation, Protocol},
    pb::admin::{
        BackupRequest, CreateSnapshotRequest, KeyspaceStatsRequest, ListSnapshotsRequest, SlowRequestsRequest,
        StatusRequest, SyncRequest, VerifyIntegrityRequest,
    },
    service::{Admin, BackingUp, Call},
};

const KV_REVISION: HeaderName = HeaderName::from_static("kv-revision");
const KV_SNAPSHOT_INDEX: HeaderName = HeaderName::from_static("kv-snapshot-index");
const KV_STATE_HASH: HeaderName = HeaderName::from_static("kv-state-hash");
const KV_STORE_ID: HeaderName = HeaderName::from_static("kv-store-id");

const STATUS: Route = Route {
    template: "/v1/admin/status",
    allow: "GET, HEAD",
    remedy: "the status is only read",
    operation: |_| Some(Operation::Status),
};
const SNAPSHOTS: Route = Route {
    template: "/v1/admin/snapshots",
    allow: "GET, HEAD, POST",
    remedy: "snapshots are listed by GET and taken by POST",
    operation: |method| match *method {
        Method::POST => Some(Operation::CreateSnapshot),
        _ => Some(Operation::ListSnapshots),
    },
};
const SYNC: Route = Route {
    template: "/v1/admin/sync",
    allow: "POST",
    remedy: "a sync takes POST, without a body",
    operation: |_| Some(Operation::Sync),
};
const BACKUP: Route = Route {
    template: "/v1/admin/backup",
    allow: "GET",
    remedy: "a backup is downloaded by GET",
    operation: |_| Some(Operation::Backup),
};
const VERIFY: Route = Route {
    template: "/v1/admin/verify",
    allow: "POST",
    remedy: "verifying takes POST, without a body",
    operation: |_| Some(Operation::VerifyIntegrity),
};
const SLOW: Route = Route {
    template: "/v1/admin/slow",
    allow: "GET, HEAD",
    remedy: "slow requests are only read",
    operation: |_| Some(Operation::SlowRequests),
};

const KEYSPACE: Route = Route {
    template: "/v1/admin/keyspace",
    allow: "GET, HEAD",
    remedy: "what the keys take is only read",
    operation: |_| Some(Operation::KeyspaceStats),
};

const ROUTES: [&Route; 7] = [&STATUS, &SNAPSHOTS, &BACKUP, &VERIFY, &SYNC, &SLOW, &KEYSPACE];

/// How a handler ends.
type Answer = Result<Response, Refusal>;

/// The answer of an error.
// Large, and moved a few times: in a box.
#[derive(Debug)]
struct Refusal(Box<Response>);

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self(Box::new(problem::to_response(&error)))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        *self.0
    }
}

/// The door. Pages of other origins have no business here.
pub fn door(admin: &Admin) -> Door {
    let routes = Router::new()
        .route(STATUS.template, any(status))
        .route(SNAPSHOTS.template, any(snapshots))
        .route(BACKUP.template, any(backup))
        .route(VERIFY.template, any(verify))
        .route(SYNC.template, any(sync))
        .route(SLOW.template, any(slow))
        .route(KEYSPACE.template, any(keyspace))
        .fallback(nowhere)
        .with_state(admin.clone());
    Door::to(admin.service().clone(), routes, &ROUTES, &Cors::default())
}

async fn nowhere() -> Response {
    let there: Vec<_> = ROUTES.iter().map(|route| route.template).collect();
    problem::to_response(&Error::new(Reason::RouteNotFound, format!("no such path: here are {}", there.join(", "))))
}

async fn status(State(admin): State<Admin>, request: Request) -> Answer {
    let (call, _) = admit(&admin, &request, &STATUS, &[])?;
    let status = admin.status(&call, StatusRequest {}).await?;
    answer(StatusCode::OK, status, |status| to_json(&StatusJson::new(status))).await
}

async fn snapshots(State(admin): State<Admin>, request: Request) -> Answer {
    let (call, _) = admit(&admin, &request, &SNAPSHOTS, &[])?;
    if request.method() == Method::POST {
        let taken = admin.create_snapshot(&call, CreateSnapshotRequest {}).await?;
        return answer(StatusCode::CREATED, taken, |taken| to_json(&CreatedJson::new(taken))).await;
    }
    let listed = admin.list_snapshots(&call, ListSnapshotsRequest {}).await?;
    answer(StatusCode::OK, listed, |listed| to_json(&SnapshotsJson::new(listed))).await
}

async fn verify(State(admin): State<Admin>, request: Request) -> Answer {
    let (call, _) = admit(&admin, &request, &VERIFY, &[])?;
    let verified = admin.verify_integrity(&call, VerifyIntegrityRequest {}).await?;
    answer(StatusCode::OK, verified, |verified| to_json(&VerifiedJson::new(verified))).await
}

async fn sync(State(admin): State<Admin>, request: Request) -> Answer {
    let (call, _) = admit(&admin, &request, &SYNC, &[])?;
    let synced = admin.sync(&call, SyncRequest {}).await?;
    answer(StatusCode::OK, synced, |synced| to_json(&SyncedJson::new(synced))).await
}

async fn slow(State(admin): State<Admin>, request: Request) -> Answer {
    let (call, query) = admit(&admin, &request, &SLOW, SlowRequestsQuery::KNOWN)?;
    let limit = query.number("limit").map_err(|error| refuse(&admin, Operation::SlowRequests, error))?;
    let slow = admin.slow_requests(&call, SlowRequestsRequest { limit: limit.unwrap_or_default() })?;
    answer(StatusCode::OK, slow, |slow| to_json(&SlowRequestsJson::new(slow))).await
}

async fn keyspace(State(admin): State<Admin>, request: Request) -> Answer {
    let (call, _) = admit(&admin, &request, &KEYSPACE, &[])?;
    let stats = admin.keyspace_stats(&call, KeyspaceStatsRequest {})?;
    answer(StatusCode::OK, stats, |stats| to_json(&KeyspaceJson::new(stats))).await
}

async fn backup(State(admin): State<Admin>, request: Request) -> Answer {
    let (call, _) = admit(&admin, &request, &BACKUP, &[])?;
    let backing_up = admin.backup(&call, BackupRequest {}).await?;
    Ok(download(&admin, backing_up))
}

/// The file as it is. One that breaks off has fewer bytes than the headers say, so that nobody takes it for whole.
fn download(admin: &Admin, backing_up: BackingUp) -> Response {
    let head = backing_up.head().clone();
    let timer = admin.service().metrics().stream_begins(Some(Operation::Backup), Protocol::Http);
    let mut response = stream::response("application/octet-stream", timer, backing_up, |mut backing_up| async {
        match backing_up.next().await? {
            Ok(chunk) => Some((Piece::More(chunk), backing_up)),
            Err(_) => Some((Piece::Failed(Bytes::new()), backing_up)),
        }
    });
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(head.bytes));
    headers.insert(KV_REVISION, HeaderValue::from(head.revision));
    headers.insert(KV_SNAPSHOT_INDEX, HeaderValue::from(head.index));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let name = format!("attachment; filename=\"tandem-{}.snap\"", head.revision);
    // Digits always make a header.
    let texts = [(CONTENT_DISPOSITION, name), (KV_STATE_HASH, head.state_hash), (KV_STORE_ID, head.store_id)];
    headers.extend(texts.into_iter().filter_map(|(name, text)| Some((name, HeaderValue::try_from(text).ok()?))));
    response
}

/// Lets a request in by its method and its parameters, which its route knows: its call, and the parameters.
fn admit<'request>(
    admin: &Admin,
    request: &'request Request,
    route: &'static Route,
    known: Known,
) -> Result<(Call, Query<'request>), Refusal> {
    let method = request.method();
    let operation = (route.operation)(method).filter(|_| route.allow.split(", ").any(|allowed| allowed == method));
    let Some(operation) = operation else { return Err(Refusal(Box::new(problem::method_not_allowed(route)))) };
    let query = Query::parse(request.uri().query(), known).map_err(|error| refuse(admin, operation, error))?;
    let deadline = Instant::now() + admin.service().limits().request_timeout;
    Ok((Call { protocol: Protocol::Http, deadline }, query))
}

/// Counts what the administration did not come to see.
fn refuse(admin: &Admin, operation: Operation, error: Error) -> Refusal {
    admin.service().refuse(Protocol::Http, operation, error).into()
}

async fn answer<A: prost::Message + 'static>(
    status: StatusCode,
    answer: A,
    json: impl FnOnce(&A) -> Vec<u8> + Send + 'static,
) -> Answer {
    let mut response = Response::new(Body::from(written(answer, |answer| json(answer).into()).await));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn to_json(json: &impl Serialize) -> Vec<u8> {
    // Strings and numbers always serialise.
    let mut text = serde_json::to_vec(json).unwrap_or_default();
    text.push(b'\n');
    text
}
