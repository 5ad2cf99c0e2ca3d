//! One behaviour suite, run through the service, gRPC and REST; and a parity test that compares the doors answer by answer.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[path = "../support/mod.rs"]
mod support;

mod cases;
#[path = "../support/doors/mod.rs"]
mod doors;
mod parity;
mod ranges;

use std::sync::Arc;

use tandem::{
    disk::RealFileSystem,
    engine::{Engine, Options, clock::SystemTimeSource},
    metrics::Metrics,
    service::Service,
    traces::Traces,
};

use self::doors::Door;

/// The service itself, over a directory.
pub fn service(data: &std::path::Path) -> Service {
    let settings = tandem::config::Settings::default();
    let options = Options {
        data_directory: data.to_owned(),
        segment_bytes: settings.wal.segment_bytes,
        sync: settings.wal.sync,
        sync_interval: settings.wal.sync_interval,
        limits: settings.limits.clone(),
        snapshot: tandem::config::SnapshotPolicy::default(),
        progress: Arc::default(),
    };
    let metrics = Metrics::new(true).unwrap();
    let service = Service::new(settings.limits, metrics.clone(), Traces::off());
    let time = Box::new(SystemTimeSource::default());
    service.open(Engine::open(Arc::new(RealFileSystem), &options, time, metrics).unwrap().0);
    service
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_holds_through_the_service() {
    let data = tempfile::tempdir().unwrap();
    let door = Door::Service(service(data.path()));
    cases::all(&door).await;
    ranges::all(&door).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_holds_through_grpc() {
    let data = tempfile::tempdir().unwrap();
    let server = support::Server::start(data.path());
    let door = Door::over_grpc(&server.grpc).await;
    cases::all(&door).await;
    ranges::all(&door).await;
    drop(door);
    assert_eq!(server.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_holds_through_rest() {
    let data = tempfile::tempdir().unwrap();
    let server = support::Server::start(data.path());
    let door = Door::over_rest(&server.http);
    cases::all(&door).await;
    ranges::all(&door).await;
    drop(door);
    assert_eq!(server.stop(), Some(0));
}
