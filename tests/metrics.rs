//! `/metrics` of a server that was used: well-formed, complete, and without anybody's keys.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod support;

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use support::{Server, client, send};
use tandem::pb::{self, kv_service_client::KvServiceClient};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_used_server_exports_clean_and_complete_metrics() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let client = client();
    for (method, path) in [
        ("PUT", "/v1/kv/secret-key?ttl=1h"),
        ("GET", "/v1/kv/secret-key"),
        ("GET", "/v1/kv/secret-key?wait=1ms"),
        ("GET", "/v1/kv/secret-missing"),
        ("PATCH", "/v1/kv/secret-key?ttl=never"),
        ("POST", "/v1/counters/secret-count"),
        ("DELETE", "/v1/kv/secret-key"),
        ("SECRET", "/secret-path"),
        ("PUT", "/v1/kv/secret-key?secret=1"),
    ] {
        send(&client, method, &server.url(path), &[("secret-header", "secret")], b"").await;
    }
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", server.grpc)).unwrap();
    let mut grpc = KvServiceClient::new(channel.connect().await.unwrap());
    grpc.get(pb::GetRequest { key: "secret-key".into(), metadata_only: false }).await.unwrap_err();
    let answer = send(&client, "GET", &format!("http://{}/metrics", server.ops), &[], b"").await;
    assert!(answer.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    let text = answer.text();
    assert!(!text.to_lowercase().contains("secret"), "no key, no path, no text of a client's");
    for line in [
        "tandem_operations_total{operation=\"get\",protocol=\"grpc\",reason=\"KEY_NOT_FOUND\"} 1",
        "tandem_operations_total{operation=\"put\",protocol=\"http\",reason=\"INVALID_FIELD\"} 1",
        "tandem_operations_total{operation=\"put\",protocol=\"http\",reason=\"OK\"} 1",
        "tandem_operations_total{operation=\"touch\",protocol=\"http\",reason=\"OK\"} 1",
        "rpc_server_call_duration_seconds_count{rpc_method=\"tandem.v1.KvService/Get\",rpc_response_status_code=\"NOT_FOUND\",rpc_system_name=\"grpc\"} 1",
        "tandem_wait_duration_seconds_count 1",
        "tandem_ready 1",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
    for name in [
        "http_server_request_duration_seconds_bucket",
        "tandem_wal_sync_duration_seconds_bucket",
        "tandem_commit_group_records_bucket",
    ] {
        assert!(text.contains(name), "{name}");
    }
    check_with_promtool(&text);
}

fn check_with_promtool(text: &str) {
    let started =
        Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut promtool = match started {
        Ok(promtool) => promtool,
        Err(error) => {
            assert!(std::env::var_os("TANDEM_REQUIRE_TOOLS").is_none(), "promtool: {error}");
            println!("skipped: promtool is not there ({error})");
            return;
        }
    };
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}
