//! `/v1/admin/`: the administration over HTTP. Each handler in four steps: check, call, map the error, answer.

use std::time::Instant;

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::Response,
    routing::any,
};
use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Method, StatusCode,
    header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS},
};
use serde::Serialize;

use super::json::{CreatedJson, SlowRequestsJson, SnapshotsJson, StatusJson, SyncedJson, VerifiedJson};
use crate::{
    api::rest::{
        Door, Query, Route, problem,
        stream::{self, Piece},
    },
    config::Cors,
    error::{Error, Reason, Result},
    metrics::{Operation, Protocol},
    pb::admin::{
        BackupRequest, CreateSnapshotRequest, ListSnapshotsRequest, SlowRequestsRequest, StatusRequest, SyncRequest,
        VerifyIntegrityRequest,
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

const ROUTES: [&Route; 6] = [&STATUS, &SNAPSHOTS, &BACKUP, &VERIFY, &SYNC, &SLOW];

/// The door. Pages of other origins have no business here.
pub fn door(admin: &Admin) -> Door {
    let routes = Router::new()
        .route(STATUS.template, any(status))
        .route(SNAPSHOTS.template, any(snapshots))
        .route(BACKUP.template, any(backup))
        .route(VERIFY.template, any(verify))
        .route(SYNC.template, any(sync))
        .route(SLOW.template, any(slow))
        .fallback(nowhere)
        .with_state(admin.clone());
    Door::to(admin.service().clone(), routes, &ROUTES, &Cors::default())
}

async fn nowhere() -> Response {
    let there: Vec<_> = ROUTES.iter().map(|route| route.template).collect();
    problem::to_response(&Error::new(Reason::RouteNotFound, format!("no such path: here are {}", there.join(", "))))
}

async fn status(State(admin): State<Admin>, request: Request) -> Response {
    if !reads(&request) {
        return problem::method_not_allowed(&STATUS);
    }
    let call = match check(&admin, &request, Operation::Status) {
        Ok(call) => call,
        Err(refusal) => return refusal,
    };
    answer(admin.status(&call, StatusRequest {}).await, StatusCode::OK, |status| to_json(&StatusJson::new(status)))
}

async fn snapshots(State(admin): State<Admin>, request: Request) -> Response {
    if request.method() == Method::POST {
        let call = match check(&admin, &request, Operation::CreateSnapshot) {
            Ok(call) => call,
            Err(refusal) => return refusal,
        };
        let taken = admin.create_snapshot(&call, CreateSnapshotRequest {}).await;
        return answer(taken, StatusCode::CREATED, |taken| to_json(&CreatedJson::new(taken)));
    }
    if !reads(&request) {
        return problem::method_not_allowed(&SNAPSHOTS);
    }
    let call = match check(&admin, &request, Operation::ListSnapshots) {
        Ok(call) => call,
        Err(refusal) => return refusal,
    };
    let listed = admin.list_snapshots(&call, ListSnapshotsRequest {}).await;
    answer(listed, StatusCode::OK, |listed| to_json(&SnapshotsJson::new(listed)))
}

async fn verify(State(admin): State<Admin>, request: Request) -> Response {
    if request.method() != Method::POST {
        return problem::method_not_allowed(&VERIFY);
    }
    let call = match check(&admin, &request, Operation::VerifyIntegrity) {
        Ok(call) => call,
        Err(refusal) => return refusal,
    };
    let verified = admin.verify_integrity(&call, VerifyIntegrityRequest {}).await;
    answer(verified, StatusCode::OK, |verified| to_json(&VerifiedJson::new(verified)))
}

async fn backup(State(admin): State<Admin>, request: Request) -> Response {
    if request.method() != Method::GET {
        return problem::method_not_allowed(&BACKUP);
    }
    let call = match check(&admin, &request, Operation::Backup) {
        Ok(call) => call,
        Err(refusal) => return refusal,
    };
    match admin.backup(&call, BackupRequest {}).await {
        Ok(backing_up) => download(&admin, backing_up),
        Err(error) => problem::to_response(&error),
    }
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

async fn sync(State(admin): State<Admin>, request: Request) -> Response {
    if request.method() != Method::POST {
        return problem::method_not_allowed(&SYNC);
    }
    let call = match check(&admin, &request, Operation::Sync) {
        Ok(call) => call,
        Err(refusal) => return refusal,
    };
    answer(admin.sync(&call, SyncRequest {}).await, StatusCode::OK, |synced| to_json(&SyncedJson::new(synced)))
}

async fn slow(State(admin): State<Admin>, request: Request) -> Response {
    if !reads(&request) {
        return problem::method_not_allowed(&SLOW);
    }
    let call = match check(&admin, &request, Operation::SlowRequests) {
        Ok(call) => call,
        Err(refusal) => return refusal,
    };
    let slow = admin.slow_requests(&call, SlowRequestsRequest::default());
    answer(slow, StatusCode::OK, |slow| to_json(&SlowRequestsJson::new(slow)))
}

fn reads(request: &Request) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD)
}

/// The call of a request that takes no parameters.
// A refusal is an answer, which is large; it is made once and handed through.
#[expect(clippy::result_large_err)]
fn check(admin: &Admin, request: &Request, operation: Operation) -> Result<Call, Response> {
    let service = admin.service();
    match Query::parse(request.uri().query(), &[]) {
        Ok(_) => Ok(Call { protocol: Protocol::Http, deadline: Instant::now() + service.limits().request_timeout }),
        Err(error) => Err(problem::to_response(&service.refuse(Protocol::Http, operation, error))),
    }
}

fn answer<A>(answer: Result<A>, status: StatusCode, body: impl FnOnce(&A) -> Vec<u8>) -> Response {
    match answer {
        Ok(answer) => {
            let mut response = Response::new(Body::from(body(&answer)));
            *response.status_mut() = status;
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        Err(error) => problem::to_response(&error),
    }
}

fn to_json(json: &impl Serialize) -> Vec<u8> {
    // Strings and numbers always serialise.
    let mut text = serde_json::to_vec(json).unwrap_or_default();
    text.push(b'\n');
    text
}
