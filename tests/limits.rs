//! Memory and disk that run short: what is refused, what goes on, and that it clears itself, through both doors.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod support;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use support::{Server, client, eventually, send};
use tandem::{
    config::{SnapshotPolicy, SyncMode},
    disk::{FileSystem as _, simulated::SimulatedFileSystem},
    engine::{Engine, Options, clock::SystemTimeSource, completion::Committed},
    error::{Error, Reason},
    limits::{Eviction, Limits},
    metrics::Metrics,
    pb::{self, kv_service_client::KvServiceClient, storage::log_record::Command},
};

fn open(disk: &SimulatedFileSystem, set: impl FnOnce(&mut Limits)) -> (Engine, Metrics) {
    let mut limits = Limits::default();
    set(&mut limits);
    let options = Options {
        data_directory: "data".into(),
        segment_bytes: 16 << 20,
        sync: SyncMode::Never,
        sync_interval: Duration::from_secs(1),
        limits,
        snapshot: SnapshotPolicy::default(),
        progress: Arc::default(),
    };
    let metrics = Metrics::new(true).unwrap();
    let time = Box::new(SystemTimeSource::default());
    (Engine::open(Arc::new(disk.clone()), &options, time, metrics.clone()).unwrap().0, metrics)
}

fn put(key: &str, value_bytes: usize) -> Command {
    let value = "v".repeat(value_bytes).into();
    Command::Put(pb::PutRequest { key: key.to_owned().into(), value, ..Default::default() })
}

fn put_with_ttl(key: &str, value_bytes: usize) -> Command {
    let Command::Put(request) = put(key, value_bytes) else { unreachable!() };
    Command::Put(pb::PutRequest { expiry: Some(expiry()), ..request })
}

fn expiry() -> pb::Expiry {
    let ttl = prost_types::Duration { seconds: 3_600, nanos: 0 };
    pb::Expiry { kind: Some(pb::expiry::Kind::Ttl(ttl)) }
}

fn delete(key: &str) -> Command {
    Command::Delete(pb::DeleteRequest { key: key.to_owned().into(), ..Default::default() })
}

fn touch(key: &str) -> Command {
    Command::Touch(pb::TouchRequest { key: key.to_owned().into(), expiry: Some(expiry()), ..Default::default() })
}

async fn write(engine: &Engine, command: Command, request_id: &str) -> Result<Committed, Error> {
    let options = pb::WriteOptions { request_id: request_id.into(), ..Default::default() };
    engine.propose(command, options, Instant::now() + Duration::from_secs(30)).await
}

/// Writes keys until one is refused; gives how many were taken.
async fn fill(engine: &Engine, value_bytes: usize) -> (usize, Error) {
    for number in 0..100_000 {
        if let Err(error) = write(engine, put(&format!("key-{number}"), value_bytes), "").await {
            return (number, error);
        }
    }
    panic!("never refused");
}

const MIB: u64 = 1 << 20;

#[tokio::test]
async fn growth_is_refused_at_the_memory_limit_and_what_shrinks_goes_on() {
    let (engine, _) = open(&SimulatedFileSystem::default(), |limits| limits.memory_bytes = 2 * MIB);
    write(&engine, put("counted", 100), "first").await.unwrap();
    let (taken, error) = fill(&engine, 1_000).await;
    assert_eq!((error.reason, error.details.unwrap().limit), (Reason::MemoryLimit, Some(2 * MIB)));
    let (used_bytes, limit_bytes, full) = engine.memory();
    assert!(full && used_bytes >= limit_bytes && used_bytes < limit_bytes + 10_000, "{used_bytes}");
    let reason = |result: Result<Committed, Error>| result.map(|_| ()).map_err(|error| error.reason);
    let refused = Err(Reason::MemoryLimit);
    assert_eq!(reason(write(&engine, put("key-0", 1_001), "").await), refused, "larger");
    assert_eq!(reason(write(&engine, put("new", 1), "other").await), refused, "new, and by request id");
    assert_eq!(reason(write(&engine, put("key-0", 10), "").await), Ok(()), "smaller");
    assert_eq!(reason(write(&engine, touch("key-1"), "").await), Ok(()));
    assert_eq!(reason(write(&engine, delete("key-2"), "").await), Ok(()));
    assert!(write(&engine, put("counted", 100), "first").await.unwrap().applied.replayed, "a retry finds its answer");
    let replaces = pb::BatchWriteRequest {
        writes: [delete("key-3"), put("instead", 900)]
            .map(|command| match command {
                Command::Put(request) => pb::WriteOp { op: Some(pb::write_op::Op::Put(request)) },
                Command::Delete(request) => pb::WriteOp { op: Some(pb::write_op::Op::Delete(request)) },
                _ => unreachable!(),
            })
            .into(),
        options: None,
    };
    assert_eq!(reason(write(&engine, Command::BatchWrite(replaces), "").await), Ok(()), "less in all");
    assert_eq!(reason(write(&engine, put("new", 1), "").await), refused, "until it is below nine tenths");
    for number in 4..taken / 8 {
        write(&engine, delete(&format!("key-{number}")), "").await.unwrap();
    }
    assert_eq!(reason(write(&engine, put("new", 1), "").await), Ok(()));
    assert!(engine.close());
}

#[tokio::test]
async fn a_store_that_starts_above_its_memory_limit_reads_everything_and_takes_deletes() {
    let disk = SimulatedFileSystem::default();
    let (engine, _) = open(&disk, |_| {});
    for number in 0..200 {
        write(&engine, put(&format!("key-{number}"), 20_000), "").await.unwrap();
    }
    drop(engine);
    let (engine, _) = open(&disk, |limits| limits.memory_bytes = MIB);
    assert_eq!(engine.totals().keys, 200, "no limit makes the log mean something else");
    assert_eq!(write(&engine, put("new", 1), "").await.unwrap_err().reason, Reason::MemoryLimit);
    write(&engine, delete("key-0"), "").await.unwrap();
    assert!(engine.get(b"key-1", |entry| entry.is_some()));
    assert!(engine.close());
}

#[tokio::test]
async fn eviction_makes_room_for_growth_and_goes_through_the_log() {
    let disk = SimulatedFileSystem::default();
    let limited = |limits: &mut Limits| {
        limits.memory_bytes = 4 * MIB;
        limits.eviction = Eviction::All;
    };
    let (engine, metrics) = open(&disk, limited);
    write(&engine, put("hot", 1_000), "").await.unwrap();
    for number in 0..20_000 {
        write(&engine, put(&format!("key-{number}"), 1_000), "").await.unwrap();
        assert!(engine.get(b"hot", |entry| entry.is_some()), "what is read all the time stays");
    }
    let (used_bytes, limit_bytes, full) = engine.memory();
    assert!(!full && used_bytes < limit_bytes);
    let keys = engine.totals().keys;
    let text = String::from_utf8(metrics.render().unwrap().1).unwrap();
    let evicted = text.lines().find_map(|line| line.strip_prefix("tandem_evictions_total ")).unwrap();
    assert!(keys + evicted.parse::<u64>().unwrap() >= 20_001, "{keys} left, {evicted} evicted");
    assert!(engine.close());
    let (again, _) = open(&disk, |_| {});
    assert!(again.totals().keys <= keys, "the log knows what went");
}

#[tokio::test]
async fn eviction_of_what_expires_leaves_the_rest_and_refuses_growth_when_nothing_may_go() {
    let (engine, _) = open(&SimulatedFileSystem::default(), |limits| {
        limits.memory_bytes = 4 * MIB;
        limits.eviction = Eviction::Expiring;
    });
    for number in 0..1_000 {
        write(&engine, put(&format!("kept-{number}"), 1_000), "").await.unwrap();
    }
    for number in 0..10_000 {
        write(&engine, put_with_ttl(&format!("cached-{number}"), 1_000), "").await.unwrap();
    }
    assert!((0..1_000).all(|number| engine.get(format!("kept-{number}").as_bytes(), |entry| entry.is_some())));
    assert_eq!(fill(&engine, 1_000).await.1.reason, Reason::MemoryLimit);
    assert!(engine.close());
}

#[tokio::test]
async fn the_disk_reserve_refuses_growth_before_the_disk_is_full_and_clears_itself() {
    let disk = SimulatedFileSystem::default();
    let (engine, _) = open(&disk, |limits| limits.disk_reserve_bytes = Some(MIB));
    write(&engine, put("kept", 1), "").await.unwrap();
    // Made ready before, as it is long before a disk fills: else it is what there is no room for.
    let ready = async || disk.open(Path::new("data/wal/next")).ok();
    eventually("the next segment is ready", ready).await;
    disk.set_capacity_bytes(Some(disk.used_bytes() + MIB as usize / 2));
    let refused = async || write(&engine, put("grows", 1), "").await.err();
    let error = eventually("the alarm", refused).await;
    assert_eq!((error.reason, engine.disk_full()), (Reason::DiskFull, true));
    assert!(error.message.contains("wal.disk_reserve"), "{}", error.message);
    assert!(engine.get(b"kept", |entry| entry.is_some()));
    write(&engine, delete("kept"), "").await.unwrap();
    disk.set_capacity_bytes(None);
    eventually("the alarm clears", async || write(&engine, put("grows", 1), "").await.ok()).await;
    assert!(disk.open(Path::new("data/wal/next")).is_ok(), "the log was never in danger");
    assert!(engine.close());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_hear_of_what_is_evicted() {
    let data = tempfile::tempdir().unwrap();
    let settings = [("TANDEM__STORE__MEMORY_LIMIT", "2MiB"), ("TANDEM__STORE__EVICTION", "all")];
    let server = Server::start_with(data.path(), &settings);
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", server.grpc)).unwrap();
    let mut grpc = KvServiceClient::new(channel.connect().await.unwrap());
    let range = Some(pb::KeyRange { kind: Some(pb::key_range::Kind::All(true)) });
    let kinds = vec![pb::EventKind::Evict.into()];
    let request = pb::WatchRequest { range, kinds, ..Default::default() };
    let mut heard = grpc.watch(request).await.unwrap().into_inner();
    let client = client();
    for number in 0..60 {
        let answer = send(&client, "PUT", &server.url(&format!("/v1/kv/key-{number}")), &[], &[7; 50_000]).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
    loop {
        let message = tokio::time::timeout(Duration::from_secs(30), heard.message()).await.unwrap();
        if let Some(event) = message.unwrap().unwrap().events.into_iter().next() {
            let entry = event.entry.clone().unwrap();
            assert_eq!(event.kind(), pb::EventKind::Evict);
            assert!(entry.key.starts_with(b"key-") && entry.revision > 0 && entry.value.is_empty(), "{entry:?}");
            return;
        }
    }
}

async fn check_line(server: &Server, name: &str) -> String {
    let answer = send(&client(), "GET", &format!("http://{}/readyz?verbose", server.ops), &[], b"").await;
    assert_eq!(answer.status, 200, "an alarm is no reason to send no requests");
    answer.text().lines().find(|line| line[3..].starts_with(name)).unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_doors_tell_of_the_memory_limit() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &[("TANDEM__STORE__MEMORY_LIMIT", "2MiB")]);
    let client = client();
    assert!(check_line(&server, "memory").await.starts_with("[+]memory ok"));
    let value = vec![7; 200_000];
    let mut taken = 0;
    let refused = loop {
        let answer = send(&client, "PUT", &server.url(&format!("/v1/kv/key-{taken}")), &[], &value).await;
        if answer.status != 201 {
            break answer;
        }
        taken += 1;
    };
    assert_eq!((refused.status, refused.header("kv-reason")), (507, Some("MEMORY_LIMIT")));
    assert_eq!(refused.header("retry-after"), Some("10"));
    let problem = refused.json();
    assert_eq!((&problem["limit"], &problem["outcome"]), (&(2_u64 << 20).into(), &"NOT_APPLIED".into()), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("2MiB (store.memory_limit): delete keys"), "{problem}");
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", server.grpc)).unwrap();
    let mut grpc = KvServiceClient::new(channel.connect().await.unwrap());
    let request = pb::PutRequest { key: "new".into(), value: "v".into(), ..Default::default() };
    for validate_only in [false, true] {
        let options = Some(pb::WriteOptions { validate_only, ..Default::default() });
        let status = grpc.put(pb::PutRequest { options, ..request.clone() }).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        assert!(status.message().starts_with("MEMORY_LIMIT: "), "{status:?}");
    }
    assert!(check_line(&server, "memory").await.starts_with("[-]memory failed"));
    let metrics = send(&client, "GET", &format!("http://{}/metrics", server.ops), &[], b"").await.text();
    assert!(metrics.contains("\ntandem_memory_limit_bytes 2097152\n"), "{metrics}");
    assert_eq!(send(&client, "PUT", &server.url("/v1/kv/key-0"), &[], b"smaller").await.status, 200);
    assert_eq!(send(&client, "PATCH", &server.url("/v1/kv/key-1?ttl=1h"), &[], b"").await.status, 204);
    assert_eq!(send(&client, "DELETE", &server.url("/v1/kv/key-1"), &[], b"").await.status, 204);
    assert_eq!(grpc.put(request).await.unwrap().into_inner().version, 1);
    assert!(check_line(&server, "memory").await.starts_with("[+]memory ok"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_doors_tell_of_the_disk_reserve() {
    let data = tempfile::tempdir().unwrap();
    let before = Server::start(data.path());
    let client = client();
    assert_eq!(send(&client, "PUT", &before.url("/v1/kv/kept"), &[], b"v").await.status, 201);
    assert_eq!(before.stop(), Some(0));
    let server = Server::start_with(data.path(), &[("TANDEM__WAL__DISK_RESERVE", "1000000GiB")]);
    let refused = send(&client, "PUT", &server.url("/v1/kv/new"), &[], b"v").await;
    assert_eq!((refused.status, refused.header("kv-reason")), (507, Some("DISK_FULL")));
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", server.grpc)).unwrap();
    let mut grpc = KvServiceClient::new(channel.connect().await.unwrap());
    let request = pb::PutRequest { key: "new".into(), value: "v".into(), ..Default::default() };
    let status = grpc.put(request).await.unwrap_err();
    assert!(status.message().starts_with("DISK_FULL: the disk has "), "{status:?}");
    assert!(check_line(&server, "disk").await.starts_with("[-]disk failed"));
    assert_eq!(send(&client, "GET", &server.url("/v1/kv/kept"), &[], b"").await.text(), "v");
    assert_eq!(send(&client, "DELETE", &server.url("/v1/kv/kept"), &[], b"").await.status, 204);
}
