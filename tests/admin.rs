//! The administration of a real server: gRPC and REST on the ops listener say the same.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod support;

use std::process::Command;

use serde_json::json;
use support::{Answer, Server, binary, client, eventually, send};
use tandem::pb::admin::{
    CreateSnapshotRequest, FileKind, Health, KeyspaceStatsRequest, KeyspaceStatsResponse, KeyspaceWalk,
    ListSnapshotsRequest, SlowRequestsRequest, StatusRequest, SyncRequest, VerifyIntegrityRequest,
    admin_service_client::AdminServiceClient,
};
use tonic::{Code, transport::Channel};
use tonic_types::StatusExt as _;

async fn grpc(server: &Server) -> AdminServiceClient<Channel> {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", server.ops)).unwrap();
    AdminServiceClient::new(endpoint.connect().await.unwrap())
}

async fn rest(server: &Server, method: &str, path: &str) -> Answer {
    send(&client(), method, &format!("http://{}/v1/admin/{path}", server.ops), &[], b"").await
}

async fn put(server: &Server, key: &str, query: &str) {
    let url = server.url(&format!("/v1/kv/{key}?{query}"));
    assert_eq!(send(&client(), "PUT", &url, &[], b"value").await.status, 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_tells_what_an_operator_looks_at_first_and_both_ways_say_the_same() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    put(&server, "a", "ttl=1h").await;
    put(&server, "b", "").await;
    let mut grpc = grpc(&server).await;
    let told = grpc.status(StatusRequest {}).await.unwrap().into_inner();
    assert_eq!((told.health(), told.alarms.len(), told.keys, told.expiring_keys), (Health::Ready, 0, 2, 1));
    assert_eq!((told.version.as_str(), told.store_id.len()), (env!("CARGO_PKG_VERSION"), 32));
    assert_eq!(told.synced_revision, told.store_revision, "each write was synced");
    let memory = told.memory.unwrap();
    assert_eq!(memory.data_bytes, 12);
    assert!(memory.used_bytes > 12 && memory.resident_bytes > 0 && memory.limit_bytes > 0 && !memory.full);
    let disk = told.disk.unwrap();
    assert!(disk.free_bytes > 0 && disk.reserve_bytes > 0 && !disk.full);
    assert_eq!(told.snapshots.unwrap().last_index, 0);
    assert!(told.loading.is_none() && told.start_time.is_some());

    let answer = rest(&server, "GET", "status").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    assert_eq!(answer.header("kv-trace-id").unwrap().len(), 32);
    let json = answer.json();
    assert_eq!(json["health"], "ready");
    assert_eq!(json["alarms"], json!([]));
    assert_eq!((&json["store_id"], &json["version"]), (&json!(told.store_id), &json!(told.version)));
    assert_eq!((&json["keys"], &json["store_revision"]), (&json!(2), &json!(told.store_revision)));
    assert_eq!(json["memory"]["data_bytes"], 12);
    assert_eq!(json["snapshots"], json!({"last_index": 0, "last_bytes": 0, "running": false}));
    assert!(json["start_time"].as_str().unwrap().ends_with('Z') && json["uptime"].is_string(), "{json}");
    assert!(!answer.text().contains("loading"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_are_taken_and_listed_both_ways() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let mut grpc = grpc(&server).await;
    put(&server, "a", "").await;
    let first = rest(&server, "POST", "snapshots").await;
    assert_eq!(first.status, 201);
    put(&server, "b", "").await;
    let second = grpc.create_snapshot(CreateSnapshotRequest {}).await.unwrap().into_inner().snapshot.unwrap();
    assert_eq!((second.keys, second.damage.as_str(), second.state_hash.len()), (2, "", 32));
    assert!(data.path().join("snapshots").join(&second.file).exists());

    let listed = rest(&server, "GET", "snapshots").await.json();
    let list = listed["snapshots"].as_array().unwrap();
    assert_eq!(list.len(), 2);
    assert_eq!(list[0], first.json()["snapshot"], "the oldest comes first");
    assert_eq!(list[1]["state_hash"], json!(second.state_hash));
    let told = grpc.list_snapshots(ListSnapshotsRequest {}).await.unwrap().into_inner().snapshots;
    assert_eq!(told[1], second);
    for (json, told) in list.iter().zip(&told) {
        let said = [told.index, told.revision, told.bytes, told.keys, told.answers, told.events];
        let named =
            ["index", "revision", "bytes", "keys", "answers", "events"].map(|name| json[name].as_u64().unwrap());
        assert_eq!(named, said);
    }
    let status = grpc.status(StatusRequest {}).await.unwrap().into_inner().snapshots.unwrap();
    assert_eq!((status.last_index, status.last_bytes), (second.index, second.bytes));
    assert!(status.last_time.is_some() && status.last_age.is_some());

    std::fs::write(data.path().join("snapshots").join(&told[0].file), b"not a snapshot").unwrap();
    let damaged = rest(&server, "GET", "snapshots").await.json();
    let damaged = &damaged["snapshots"][0];
    assert!(damaged["damage"].as_str().unwrap().contains(&told[0].file) && damaged["index"].is_null(), "{damaged}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_brings_weak_writes_to_disk() {
    let data = tempfile::tempdir().unwrap();
    let never = [("TANDEM__WAL__SYNC", "never"), ("TANDEM__WAL__SYNC_INTERVAL", "60s")];
    let server = Server::start_with(data.path(), &never);
    let mut grpc = grpc(&server).await;
    for (key, by_grpc) in [("a", true), ("b", false)] {
        put(&server, key, "").await;
        let before = grpc.status(StatusRequest {}).await.unwrap().into_inner();
        assert!(before.synced_revision < before.store_revision, "{before:?}");
        let synced = match by_grpc {
            true => grpc.sync(SyncRequest {}).await.unwrap().into_inner().synced_revision,
            false => rest(&server, "POST", "sync").await.json()["synced_revision"].as_u64().unwrap(),
        };
        assert_eq!(synced, before.store_revision);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_administration_is_off_where_it_is_not_on_loopback_unless_it_is_switched_on() {
    let data = tempfile::tempdir().unwrap();
    for (address, admin, allowed) in
        [("0.0.0.0:0", "auto", false), ("0.0.0.0:0", "on", true), ("127.0.0.1:0", "off", false)]
    {
        let environment = [("TANDEM__SERVER__ADMIN", admin)];
        let mut server = Server::try_start_at(Command::new(binary()), data.path(), address, &[], &environment).unwrap();
        server.ops = server.ops.replace("0.0.0.0", "127.0.0.1");
        let answer = rest(&server, "GET", "status").await;
        let mut grpc = grpc(&server).await;
        if allowed {
            assert_eq!(answer.status, 200);
            grpc.status(StatusRequest {}).await.unwrap();
        } else {
            let problem = answer.json();
            assert_eq!((answer.status, &problem["reason"]), (403, &json!("PERMISSION_DENIED")));
            assert!(problem["detail"].as_str().unwrap().contains("set server.admin to on"), "{problem}");
            assert_eq!(problem["trace_id"].as_str(), answer.header("kv-trace-id"));
            let status = grpc.status(StatusRequest {}).await.unwrap_err();
            assert_eq!(status.code(), Code::PermissionDenied);
            assert_eq!(status.get_details_error_info().unwrap().reason, "PERMISSION_DENIED");
            assert_eq!(grpc.sync(SyncRequest {}).await.unwrap_err().code(), Code::PermissionDenied);
            let refused = grpc.keyspace_stats(KeyspaceStatsRequest {}).await.unwrap_err();
            assert_eq!(refused.code(), Code::PermissionDenied);
            assert_eq!(rest(&server, "GET", "keyspace").await.status, 403);
            assert_eq!(
                grpc.create_snapshot(CreateSnapshotRequest {}).await.unwrap_err().code(),
                Code::PermissionDenied
            );
        }
        let live = send(&client(), "GET", &format!("http://{}/livez", server.ops), &[], b"").await;
        assert_eq!(live.status, 200, "probes are for everybody");
        assert_eq!(server.stop(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_taken_is_refused_with_a_reason() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    for (method, path, status, reason) in [
        ("DELETE", "status", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "sync", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "statsu", 404, "ROUTE_NOT_FOUND"),
        ("GET", "status?vebose", 400, "INVALID_FIELD"),
        ("POST", "snapshots?name=x", 400, "INVALID_FIELD"),
        ("HEAD", "backup", 405, "METHOD_NOT_ALLOWED"),
        ("POST", "keyspace", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "keyspace?depth=3", 400, "INVALID_FIELD"),
        ("GET", "slow?limit=-1", 400, "INVALID_FIELD"),
        ("GET", "slow?limit=some", 400, "MALFORMED"),
        ("GET", "slow?limit=4294967296", 400, "MALFORMED"),
        ("GET", "slow?limit=1&limit=2", 400, "INVALID_FIELD"),
    ] {
        let answer = rest(&server, method, path).await;
        assert_eq!((answer.status, answer.header("kv-reason")), (status, Some(reason)), "{method} {path}");
        assert!(answer.header("kv-trace-id").is_some(), "{method} {path}");
        assert!(method == "HEAD" || answer.json()["detail"].is_string(), "{method} {path}");
    }
    let main = send(&client(), "GET", &server.url("/v1/admin/status"), &[], b"").await;
    assert_eq!(main.status, 404, "the store's own listener knows nothing of it");
    let other = send(&client(), "GET", &format!("http://{}/v1/kv/a", server.ops), &[], b"").await;
    assert_eq!(other.status, 404, "and this one nothing of keys");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn administration_is_counted_like_everything_else() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let mut grpc = grpc(&server).await;
    grpc.status(StatusRequest {}).await.unwrap();
    rest(&server, "GET", "status").await;
    rest(&server, "GET", "status?x").await;
    let metrics = send(&client(), "GET", &format!("http://{}/metrics", server.ops), &[], b"").await.text();
    for line in [
        "tandem_operations_total{operation=\"status\",protocol=\"grpc\",reason=\"OK\"} 1",
        "tandem_operations_total{operation=\"status\",protocol=\"http\",reason=\"OK\"} 1",
        "tandem_operations_total{operation=\"status\",protocol=\"http\",reason=\"INVALID_FIELD\"} 1",
        "http_route=\"/v1/admin/status\"",
        "rpc_method=\"tandem.admin.v1.AdminService/Status\"",
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reflection_and_health_on_the_ops_listener_speak_of_the_administration() {
    use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", server.ops)).unwrap();
    let channel = endpoint.connect().await.unwrap();
    let asked = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut stream = ServerReflectionClient::new(channel.clone())
        .server_reflection_info(tokio_stream::once(asked))
        .await
        .unwrap()
        .into_inner();
    let told = stream.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(services) = told else { panic!("{told:?}") };
    let names: Vec<_> = services.service.iter().map(|service| service.name.as_str()).collect();
    assert!(names.contains(&"tandem.admin.v1.AdminService") && !names.contains(&"tandem.v1.KvService"), "{names:?}");
    let health = HealthClient::new(channel).check(HealthCheckRequest { service: String::new() }).await.unwrap();
    assert_eq!(health.into_inner().status(), ServingStatus::Serving);
}

/// Runs the program to its end.
async fn run(arguments: &[&str], endpoint: &str) -> std::process::Output {
    let mut command = tokio::process::Command::new(binary());
    command.args(arguments).env("TANDEM_OPS_ENDPOINT", endpoint).output().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_taken_under_load_is_restored_to_what_was_acknowledged_before_it() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    for number in 0..50 {
        put(&server, &format!("before-{number}"), "").await;
    }
    let files = tempfile::tempdir().unwrap();
    let path = |name: &str| files.path().join(name).to_str().unwrap().to_owned();
    let endpoint = format!("http://{}", server.ops);
    let by_command = path("command.snap");
    let done = std::sync::atomic::AtomicBool::new(false);
    let load = async {
        let mut number = 0;
        while !done.load(std::sync::atomic::Ordering::Relaxed) {
            put(&server, &format!("beside-{number}"), "").await;
            number += 1;
        }
    };
    let backups = async {
        let ran = run(&["backup", &by_command], &endpoint).await;
        assert!(ran.status.success(), "{ran:?}");
        let downloaded = rest(&server, "GET", "backup").await;
        assert_eq!(downloaded.status, 200);
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        (ran, downloaded)
    };
    let ((ran, downloaded), ()) = tokio::join!(backups, load);
    let told = String::from_utf8(ran.stderr).unwrap();
    assert!(told.contains("state hash"), "{told}");
    assert_eq!(downloaded.header("content-length"), Some(downloaded.body.len().to_string().as_str()));
    let by_download = path("download.snap");
    std::fs::write(&by_download, &downloaded.body).unwrap();

    // What is there is not replaced unless that is asked for.
    let before = std::fs::read(&by_command).unwrap();
    let again = run(&["backup", &by_command], &endpoint).await;
    assert!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("--force"), "{again:?}");
    assert_eq!(std::fs::read(&by_command).unwrap(), before);
    assert!(run(&["backup", &by_command, "--force"], &endpoint).await.status.success());
    assert_ne!(std::fs::read(&by_command).unwrap(), before, "more was written since");
    // Told before a snapshot is taken for nothing.
    let onto_a_folder = run(&["backup", files.path().to_str().unwrap(), "--force"], &endpoint).await;
    assert!(String::from_utf8_lossy(&onto_a_folder.stderr).contains("is a directory"), "{onto_a_folder:?}");
    let left: Vec<_> = std::fs::read_dir(files.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "nothing unfinished is left: {left:?}");

    for backup in [&by_command, &by_download] {
        let new = tempfile::tempdir().unwrap();
        let directory = new.path().join("data");
        let ran = run(&["restore", backup, "--data-dir", directory.to_str().unwrap()], &endpoint).await;
        assert!(ran.status.success(), "{ran:?}");
        let restored = Server::start(&directory);
        for number in 0..50 {
            let url = restored.url(&format!("/v1/kv/before-{number}"));
            assert_eq!(send(&client(), "GET", &url, &[], b"").await.text(), "value");
        }
    }
    drop(server);
    let unreachable = run(&["backup", &path("none.snap")], &endpoint).await;
    assert_eq!(unreachable.status.code(), Some(69), "{unreachable:?}");
    assert!(!files.path().join("none.snap").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verifying_reads_every_file_and_names_the_damaged_one() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    put(&server, "a", "").await;
    let mut grpc = grpc(&server).await;
    let taken = grpc.create_snapshot(CreateSnapshotRequest {}).await.unwrap().into_inner().snapshot.unwrap();
    put(&server, "b", "").await;
    let verified = grpc.verify_integrity(VerifyIntegrityRequest {}).await.unwrap().into_inner();
    assert!(verified.intact && verified.bytes > 0, "{verified:?}");
    let kinds: Vec<_> = verified.files.iter().map(|file| file.kind()).collect();
    assert_eq!(kinds, [FileKind::Snapshot, FileKind::Segment]);
    assert_eq!((verified.files[0].items, &verified.files[0].state_hash), (1, &taken.state_hash));
    assert!(verified.files[1].items >= 2, "{verified:?}");

    let snapshot = data.path().join("snapshots").join(&taken.file);
    let mut bytes = std::fs::read(&snapshot).unwrap();
    let value = bytes.windows(5).position(|window| window == b"value").unwrap();
    bytes[value] ^= 1;
    std::fs::write(&snapshot, bytes).unwrap();
    let answer = rest(&server, "POST", "verify").await;
    assert_eq!(answer.status, 200);
    let json = answer.json();
    assert_eq!(json["intact"], false);
    assert!(json["files"][0]["damage"].as_str().unwrap().contains(&taken.file), "{json}");
    assert!(json["files"][1].get("damage").is_none_or(|damage| damage == ""), "{json}");
    assert_eq!(send(&client(), "GET", &server.url("/v1/kv/b"), &[], b"").await.status, 200, "reads go on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_requests_are_told_with_where_their_time_went_and_never_by_their_keys() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &[("TANDEM__TELEMETRY__SLOW_REQUEST_THRESHOLD", "0ms")]);
    put(&server, "secret-name", "").await;
    let missing = send(&client(), "GET", &server.url("/v1/kv/absent"), &[], b"").await;
    let answer = rest(&server, "GET", "slow").await;
    assert_eq!(answer.status, 200);
    let json = answer.json();
    let list = json["requests"].as_array().unwrap();
    let by_operation = |name: &str| list.iter().find(|request| request["operation"] == name).unwrap();
    let (read, written) = (by_operation("get"), by_operation("put"));
    assert_eq!((&read["reason"], &read["protocol"]), (&json!("KEY_NOT_FOUND"), &json!("http")));
    assert_eq!(read["trace_id"].as_str(), missing.header("kv-trace-id"));
    assert!(read.get("sync_ms").is_none(), "a read has no phases: {read}");
    let phases = ["queue_ms", "commit_ms", "sync_ms", "apply_ms"].map(|phase| written[phase].as_f64().unwrap());
    let total = written["total_ms"].as_f64().unwrap();
    assert!(phases.iter().all(|phase| *phase >= 0.0) && phases.iter().sum::<f64>() <= total + 0.01, "{written}");
    assert_eq!(written["reason"], "OK");
    assert!(!answer.text().contains("secret-name"));

    for (path, count) in [("slow?limit=1", 1), ("slow?limit=2", 2)] {
        let newest = rest(&server, "GET", path).await.json();
        assert_eq!(newest["requests"].as_array().unwrap().len(), count, "{newest}");
    }
    let all = rest(&server, "GET", "slow?limit=0").await.json();
    assert!(all["requests"].as_array().unwrap().len() > 3, "{all}");

    let mut grpc = grpc(&server).await;
    let newest = grpc.slow_requests(SlowRequestsRequest { limit: 1 }).await.unwrap().into_inner().requests;
    assert_eq!(newest.len(), 1);
    let all = grpc.slow_requests(SlowRequestsRequest { limit: 0 }).await.unwrap().into_inner().requests;
    let put = all.iter().find(|request| request.operation == "put").unwrap();
    assert!(put.sync.is_some() && put.total.is_some() && put.time.is_some(), "{put:?}");
    let refused = grpc.slow_requests(SlowRequestsRequest { limit: -1 }).await.unwrap_err();
    assert!(refused.message().starts_with("INVALID_FIELD: "), "{refused:?}");
}

async fn put_bytes(server: &Server, key: &str, bytes: usize) {
    let answer = send(&client(), "PUT", &server.url(&format!("/v1/kv/{key}")), &[], &vec![7; bytes]).await;
    assert!(matches!(answer.status, 200 | 201), "{answer:?}");
}

/// What the keys take, once a walk has seen what is there now.
async fn walked(grpc: &AdminServiceClient<Channel>) -> (KeyspaceStatsResponse, KeyspaceWalk) {
    let told = || async {
        let told = grpc.clone().keyspace_stats(KeyspaceStatsRequest {}).await.unwrap().into_inner();
        let walk = told.walk.clone().filter(|walk| walk.store_revision == told.store_revision)?;
        Some((told, walk))
    };
    eventually("a walk has seen what is there now", told).await
}

fn classes(told: &KeyspaceStatsResponse) -> Vec<(u64, u64, u64)> {
    told.size_classes.iter().map(|class| (class.bytes_max, class.keys, class.bytes)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sizes_are_told_as_they_are_now_after_overwrites_and_deletes() {
    let data = tempfile::tempdir().unwrap();
    // No walk is needed for them.
    let server = Server::start_with(data.path(), &[("TANDEM__KEYSPACE__INTERVAL", "0ms")]);
    let mut grpc = grpc(&server).await;
    let mut told = async || grpc.keyspace_stats(KeyspaceStatsRequest {}).await.unwrap().into_inner();
    let empty = told().await;
    assert_eq!((empty.keys, empty.data_bytes, classes(&empty)), (0, 0, vec![]));
    put_bytes(&server, "a", 15).await;
    put_bytes(&server, "b", 16).await;
    put_bytes(&server, "c", 20_000).await;
    let first = told().await;
    assert_eq!(classes(&first), [(16, 1, 16), (32, 1, 17), (32_768, 1, 20_001)]);
    assert_eq!((first.keys, first.data_bytes), (3, 20_034));
    assert!(first.store_revision > empty.store_revision && first.walk.is_none());
    put_bytes(&server, "a", 40).await;
    put_bytes(&server, "c", 3).await;
    assert_eq!(send(&client(), "PATCH", &server.url("/v1/kv/a?ttl=1h"), &[], b"").await.status, 204);
    assert_eq!(send(&client(), "DELETE", &server.url("/v1/kv/b"), &[], b"").await.status, 204);
    let changed = classes(&told().await);
    assert_eq!(changed, [(16, 1, 4), (64, 1, 41)]);
    server.kill();
    let server = Server::start_with(data.path(), &[("TANDEM__KEYSPACE__INTERVAL", "0ms")]);
    let json = rest(&server, "GET", "keyspace").await.json();
    let expected = json!([{"bytes_max": 16, "keys": 1, "bytes": 4}, {"bytes_max": 64, "keys": 1, "bytes": 41}]);
    assert_eq!((&json["size_classes"], &json["keys"], &json["data_bytes"]), (&expected, &json!(2), &json!(45)));
    assert!(json.get("walk").is_none(), "{json}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_by_prefix_and_the_largest_keys_are_told_and_both_ways_say_the_same() {
    let data = tempfile::tempdir().unwrap();
    let environment = [
        ("TANDEM__KEYSPACE__INTERVAL", "1ms"),
        ("TANDEM__KEYSPACE__PREFIXES_MAX", "2"),
        ("TANDEM__KEYSPACE__LARGEST_MAX", "3"),
    ];
    let server = Server::start_with(data.path(), &environment);
    let grpc = grpc(&server).await;
    for (key, bytes) in [
        ("users/1/name", 88),
        ("users/1/photo", 9_987),
        ("users/2/name", 188),
        ("users/all", 91),
        ("jobs:9:log", 490),
        ("carts/1", 13),
        ("plain", 5),
        ("%FF/x", 47),
    ] {
        put_bytes(&server, key, bytes).await;
    }
    let (told, walk) = walked(&grpc).await;
    assert_eq!((walk.keys, walk.bytes), (told.keys, told.data_bytes));
    assert!(walk.finish_time.is_some() && walk.age.is_some() && walk.elapsed.is_some());
    let [first, second] = &walk.levels[..] else { panic!("{walk:?}") };
    let prefixes = |level: &tandem::pb::admin::PrefixLevel| -> Vec<_> {
        let rows = level.prefixes.iter();
        rows.map(|row| (String::from_utf8_lossy(&row.prefix).into_owned(), row.keys, row.bytes)).collect()
    };
    assert_eq!(prefixes(first), [("users/".into(), 4, 10_400), ("jobs:".into(), 1, 500)]);
    assert_eq!((first.depth, first.other_prefixes, first.other_keys, first.other_bytes), (1, 2, 2, 70));
    assert_eq!((first.bare_keys, first.bare_bytes), (1, 10));
    assert_eq!(prefixes(second), [("users/1/".into(), 2, 10_100), ("jobs:9:".into(), 1, 500)]);
    assert_eq!((second.depth, second.other_prefixes, second.other_keys, second.other_bytes), (2, 1, 1, 200));
    assert_eq!((second.bare_keys, second.bare_bytes), (4, 180));
    assert!(first.prefixes.iter().chain(&second.prefixes).all(|row| row.update_time.is_some()));
    let largest: Vec<_> = walk.largest.iter().map(|large| (&large.key[..], large.bytes)).collect();
    assert_eq!(largest, [(&b"users/1/photo"[..], 10_000), (b"jobs:9:log", 500), (b"users/2/name", 200)]);

    let json = rest(&server, "GET", "keyspace").await.json();
    assert_eq!((&json["store_revision"], &json["keys"]), (&json!(told.store_revision), &json!(told.keys)));
    let walk_json = &json["walk"];
    assert_eq!((&walk_json["keys"], &walk_json["bytes"]), (&json!(walk.keys), &json!(walk.bytes)));
    assert!(walk_json["finish_time"].is_string() && walk_json["age"].is_string() && walk_json["elapsed"].is_string());
    for (json, level) in walk_json["levels"].as_array().unwrap().iter().zip(&walk.levels) {
        let rows = json["prefixes"].as_array().unwrap().iter();
        let row = |row: &serde_json::Value| {
            assert!(row["update_time"].as_str().unwrap().ends_with('Z'), "{row}");
            (row["prefix"].as_str().unwrap().to_owned(), row["keys"].as_u64().unwrap(), row["bytes"].as_u64().unwrap())
        };
        assert_eq!(rows.map(row).collect::<Vec<_>>(), prefixes(level));
        let counts = ["depth", "other_prefixes", "other_keys", "other_bytes", "bare_keys", "bare_bytes"];
        let depth = u64::from(level.depth);
        let said =
            [depth, level.other_prefixes, level.other_keys, level.other_bytes, level.bare_keys, level.bare_bytes];
        assert_eq!(counts.map(|name| json[name].as_u64().unwrap()), said);
    }
    assert_eq!(
        walk_json["largest"],
        json!([
            {"key": "users/1/photo", "bytes": 10_000},
            {"key": "jobs:9:log", "bytes": 500},
            {"key": "users/2/name", "bytes": 200}
        ])
    );

    // What goes is gone from the next walk; what is no text is base64.
    for key in ["users/1/name", "users/1/photo", "users/2/name", "users/all", "jobs:9:log"] {
        assert_eq!(send(&client(), "DELETE", &server.url(&format!("/v1/kv/{key}")), &[], b"").await.status, 204);
    }
    let (_, walk) = walked(&grpc).await;
    assert_eq!((walk.keys, walk.levels[0].other_prefixes, walk.levels[1].prefixes.len()), (3, 0, 0));
    let json = rest(&server, "GET", "keyspace").await.json();
    let base64 = |text: &str, bytes| json!({"prefix_base64": text, "keys": 1, "bytes": bytes});
    let mut first = json["walk"]["levels"][0]["prefixes"][0].clone();
    first.as_object_mut().unwrap().remove("update_time");
    assert_eq!(first, base64("/y8=", 50));
    assert_eq!(json["walk"]["largest"][0], json!({"key_base64": "/y94", "bytes": 50}));
}
