//! The table of what bad input gets, on both doors. Nothing is lost by any of it: one good key stays as it was.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]
#![allow(clippy::type_complexity)]

mod support;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::{client::legacy, rt::TokioExecutor};
use support::{Client, Server, send};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Method, path, headers, body; status and reason.
type Row = (&'static str, &'static str, &'static [(&'static str, &'static str)], &'static [u8], u16, &'static str);

const REST: &[Row] = &[
    // Keys.
    ("GET", "/v1/kv/", &[], b"", 400, "KEY_EMPTY"),
    ("PUT", "/v1/kv/", &[], b"x", 400, "KEY_EMPTY"),
    ("POST", "/v1/kv/", &[], b"x", 400, "KEY_EMPTY"),
    ("OPTIONS", "/v1/kv/", &[], b"", 400, "KEY_EMPTY"),
    ("POST", "/v1/counters/", &[], b"", 400, "KEY_EMPTY"),
    ("GET", "/v1/counters/", &[], b"", 400, "KEY_EMPTY"),
    ("PUT", "/v1/kv/a%2", &[], b"x", 400, "MALFORMED"),
    ("PUT", "/v1/kv/a%zz", &[], b"x", 400, "MALFORMED"),
    ("PUT", "/v1/kv/%2E%2E/a", &[], b"x", 400, "INVALID_FIELD"),
    ("PUT", "/v1/kv/a/%2e", &[], b"x", 400, "INVALID_FIELD"),
    // Paths and methods.
    ("GET", "/", &[], b"", 404, "ROUTE_NOT_FOUND"),
    ("GET", "/v1/kv:nothing", &[], b"", 404, "ROUTE_NOT_FOUND"),
    // Many keys.
    ("GET", "/v1/kv", &[], b"", 400, "INVALID_FIELD"),
    ("GET", "/v1/kv?prefix=a&all=true", &[], b"", 400, "INVALID_FIELD"),
    ("GET", "/v1/kv?prefix=a&page_size=-1", &[], b"", 400, "INVALID_FIELD"),
    ("GET", "/v1/kv?prefix=a&page_size=many", &[], b"", 400, "MALFORMED"),
    ("GET", "/v1/kv?prefix=a&page_token=!", &[], b"", 400, "PAGE_TOKEN_INVALID"),
    ("GET", "/v1/kv?prefix=a&page_token=AAAA", &[], b"", 400, "PAGE_TOKEN_INVALID"),
    ("GET", "/v1/kv:count?prefix=a&page_size=1", &[], b"", 400, "INVALID_FIELD"),
    ("PUT", "/v1/kv?prefix=a", &[], b"x", 405, "METHOD_NOT_ALLOWED"),
    ("GET", "/v1/kv:batchGet", &[], b"", 405, "METHOD_NOT_ALLOWED"),
    ("POST", "/v1/kv:batchGet", &[], b"not json", 400, "MALFORMED"),
    ("POST", "/v1/kv:batchGet", &[], b"{\"keys\":[\"\xff\"]}", 400, "MALFORMED"),
    ("POST", "/v1/kv:batchGet", &[], b"{\"keys\":[\"\\ud800\"]}", 400, "MALFORMED"),
    ("POST", "/v1/kv:batchGet", &[], b"{\"kyes\":[\"a\"]}", 400, "INVALID_FIELD"),
    ("POST", "/v1/kv:batchGet", &[], b"{}", 400, "INVALID_FIELD"),
    ("POST", "/v1/kv:batchGet", &[], b"{\"keys\":[\"a\"],\"keys_base64\":[]}", 400, "INVALID_FIELD"),
    ("POST", "/v1/kv:batchGet", &[], b"{\"keys_base64\":[\"?\"]}", 400, "MALFORMED"),
    ("POST", "/v1/kv:batchGet", &[], b"{\"keys\":[\"\"]}", 400, "KEY_EMPTY"),
    ("POST", "/v1/kv:batchWrite", &[], b"{\"writes\":[{}]}", 400, "INVALID_FIELD"),
    (
        "POST",
        "/v1/kv:batchWrite",
        &[],
        b"{\"writes\":[{\"put\":{\"key\":\"a\",\"value\":\"\"},\"get\":{}}]}",
        400,
        "INVALID_FIELD",
    ),
    ("POST", "/v1/kv:batchWrite", &[], b"{\"writes\":[{\"put\":{\"key\":\"a\",\"value\":1}}]}", 400, "INVALID_FIELD"),
    (
        "POST",
        "/v1/kv:batchWrite",
        &[],
        b"{\"writes\":[{\"increment\":{\"key\":\"a\",\"by\":1.5}}]}",
        400,
        "INVALID_FIELD",
    ),
    ("POST", "/v1/kv:txn", &[], b"{\"then\":[{\"put\":{\"key\":\"a\"}]}", 400, "MALFORMED"),
    ("GET", "/v2/kv/a", &[], b"", 404, "ROUTE_NOT_FOUND"),
    ("GET", "/tandem.v1.KvService/Get", &[], b"", 404, "ROUTE_NOT_FOUND"),
    ("POST", "/v1/kv/a", &[], b"x", 405, "METHOD_NOT_ALLOWED"),
    ("BREW", "/v1/kv/a", &[], b"", 405, "METHOD_NOT_ALLOWED"),
    ("PUT", "/v1/counters/a", &[], b"", 405, "METHOD_NOT_ALLOWED"),
    // Queries.
    ("PUT", "/v1/kv/a?tll=60s", &[], b"x", 400, "INVALID_FIELD"),
    ("PUT", "/v1/kv/a?ttl=60s&ttl=60s", &[], b"x", 400, "INVALID_FIELD"),
    ("PUT", "/v1/kv/a?ttl=60", &[], b"x", 400, "MALFORMED"),
    ("PUT", "/v1/kv/a?ttl=-1s", &[], b"x", 400, "MALFORMED"),
    ("PUT", "/v1/kv/a?ttl=0s", &[], b"x", 400, "INVALID_FIELD"),
    ("PUT", "/v1/kv/a?ttl=99999d", &[], b"x", 400, "INVALID_FIELD"),
    ("PUT", "/v1/kv/a?ttl=%", &[], b"x", 400, "MALFORMED"),
    ("PUT", "/v1/kv/a?ttl=60s&keep_ttl", &[], b"x", 400, "INVALID_FIELD"),
    ("PUT", "/v1/kv/a?expire_time=tomorrow", &[], b"x", 400, "MALFORMED"),
    ("PUT", "/v1/kv/a?expire_time=2001-01-01T00:00:00Z", &[], b"x", 400, "INVALID_FIELD"),
    ("PUT", "/v1/kv/a?durability=maybe", &[], b"x", 400, "INVALID_FIELD"),
    ("PUT", "/v1/kv/a?validate_only=perhaps", &[], b"x", 400, "MALFORMED"),
    ("PUT", "/v1/kv/a?if_version=one", &[], b"x", 400, "MALFORMED"),
    ("GET", "/v1/kv/a?ttl=60s", &[], b"", 400, "INVALID_FIELD"),
    ("GET", "/v1/kv/a?format=xml", &[], b"", 400, "INVALID_FIELD"),
    ("GET", "/v1/kv/a?wait=61s", &[], b"", 400, "INVALID_FIELD"),
    ("GET", "/v1/kv/a?wait=1", &[], b"", 400, "MALFORMED"),
    ("PATCH", "/v1/kv/a", &[], b"", 400, "INVALID_FIELD"),
    ("PATCH", "/v1/kv/a?keep_ttl=false", &[], b"", 400, "INVALID_FIELD"),
    ("PATCH", "/v1/kv/a?keep_ttl&ttl=1s", &[], b"", 400, "INVALID_FIELD"),
    ("POST", "/v1/counters/a?by=1.5", &[], b"", 400, "MALFORMED"),
    ("POST", "/v1/counters/a?by=9223372036854775808", &[], b"", 400, "MALFORMED"),
    ("POST", "/v1/counters/a?return_previous", &[], b"", 400, "INVALID_FIELD"),
    ("POST", "/v1/counters/a", &[], b"5", 400, "INVALID_FIELD"),
    // Headers.
    ("PUT", "/v1/kv/a", &[("if-match", "7")], b"x", 400, "MALFORMED"),
    ("PUT", "/v1/kv/a", &[("if-match", "\"1\", \"2\"")], b"x", 400, "INVALID_FIELD"),
    ("PUT", "/v1/kv/a", &[("if-none-match", "\"1\"")], b"x", 400, "INVALID_FIELD"),
    ("PUT", "/v1/kv/a", &[("if-match", "*"), ("if-none-match", "*")], b"x", 400, "INVALID_FIELD"),
    ("PUT", "/v1/kv/good", &[("if-match", "\"foreign\"")], b"x", 412, "CONDITION_FAILED"),
    ("GET", "/v1/kv/good", &[("if-match", "\"999\"")], b"", 412, "CONDITION_FAILED"),
    ("GET", "/v1/kv/good", &[("if-none-match", "bare")], b"", 400, "MALFORMED"),
    ("PUT", "/v1/kv/a", &[("idempotency-key", "\"\"")], b"x", 400, "INVALID_FIELD"),
    ("PUT", "/v1/kv/a", &[("idempotency-key", "a b")], b"x", 400, "INVALID_FIELD"),
    ("PUT", "/v1/kv/a", &[("idempotency-key", "a"), ("idempotency-key", "b")], b"x", 400, "INVALID_FIELD"),
    ("PUT", "/v1/kv/a", &[("content-type", "multipart/form-data; boundary=x")], b"x", 415, "MEDIA_TYPE_UNSUPPORTED"),
    ("PUT", "/v1/kv/a", &[("content-encoding", "gzip")], b"x", 415, "MEDIA_TYPE_UNSUPPORTED"),
    ("POST", "/v1/kv:batchGet", &[("content-encoding", "gzip")], b"{\"keys\":[]}", 415, "MEDIA_TYPE_UNSUPPORTED"),
    ("POST", "/v1/kv:batchWrite", &[("content-encoding", "br")], b"{}", 415, "MEDIA_TYPE_UNSUPPORTED"),
    (
        "POST",
        "/v1/kv:txn",
        &[("content-type", "multipart/form-data; boundary=x")],
        b"{}",
        415,
        "MEDIA_TYPE_UNSUPPORTED",
    ),
    // Conditions that would guard nothing.
    ("DELETE", "/v1/kv?prefix=a", &[("if-match", "\"1\"")], b"", 400, "INVALID_FIELD"),
    ("DELETE", "/v1/kv?prefix=a", &[("if-none-match", "*")], b"", 400, "INVALID_FIELD"),
    ("POST", "/v1/kv:batchWrite", &[("if-match", "*")], b"{\"writes\":[]}", 400, "INVALID_FIELD"),
    ("POST", "/v1/kv:txn", &[("if-none-match", "*")], b"{}", 400, "INVALID_FIELD"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rest_answers_bad_input_with_its_reason() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let client = support::client();
    send(&client, "PUT", &server.url("/v1/kv/good"), &[], b"kept").await;
    for (method, path, headers, body, status, reason) in REST {
        let answer = send(&client, method, &server.url(path), headers, body).await;
        let what = format!("{method} {path} {headers:?}: {}", answer.text());
        assert_eq!((answer.status, answer.header("kv-reason")), (*status, Some(*reason)), "{what}");
        assert_eq!(answer.header("kv-trace-id").map(str::len), Some(32), "{what}");
        let problem = answer.json();
        assert_eq!(
            (problem["reason"].as_str(), problem["status"].as_u64()),
            (Some(*reason), Some((*status).into())),
            "{what}"
        );
        let reads = ["GET", "OPTIONS", "BREW"].contains(method) || path.ends_with(":batchGet");
        let writes = !reads && *status != 404 && *status != 405;
        if writes && *reason != "KEY_EMPTY" {
            assert_eq!(problem["outcome"], "NOT_APPLIED", "{what}");
        }
        if *status == 405 {
            assert!(answer.header("allow").is_some(), "{what}");
        }
    }
    let long_key = format!("/v1/kv/{}", "k".repeat(1_025));
    let long_type = "t".repeat(256);
    let rows: [(&str, &str, &[(&str, &str)], usize, u16, &str); 4] = [
        ("PUT", &long_key, &[], 1, 400, "KEY_TOO_LONG"),
        ("PUT", "/v1/kv/a", &[("content-type", &long_type)], 1, 400, "INVALID_FIELD"),
        ("PUT", "/v1/kv/a", &[], (1 << 20) + 1, 413, "VALUE_TOO_LARGE"),
        ("PUT", "/v1/kv/a", &[], 12 << 20, 413, "VALUE_TOO_LARGE"),
    ];
    for (method, path, headers, body_bytes, status, reason) in rows {
        let answer = send(&client, method, &server.url(path), headers, &vec![b'x'; body_bytes]).await;
        assert_eq!((answer.status, answer.header("kv-reason")), (status, Some(reason)), "{}", answer.text());
    }
    let head = send(&client, "HEAD", &server.url("/v1/kv/nothing"), &[], b"").await;
    assert_eq!((head.status, head.header("kv-reason")), (404, Some("KEY_NOT_FOUND")), "HEAD has no body to say it");
    header_bombs(&client, &server).await;
    dots_as_they_are(&server).await;
    let good = send(&client, "GET", &server.url("/v1/kv/good"), &[], b"").await;
    assert_eq!(good.text(), "kept");
}

async fn header_bombs(client: &Client, server: &Server) {
    let bomb = "b".repeat(20_000);
    let answer = send(client, "GET", &server.url("/v1/kv/good"), &[("bomb", &bomb)], b"").await;
    assert_eq!((answer.status, answer.header("kv-reason")), (431, Some("HEADER_TOO_LARGE")));
    // Past what the parser takes at all: refused bare, by the status alone.
    let bomb = "b".repeat(200_000);
    let answer = support::try_send(client, "GET", &server.url("/v1/kv/good"), &[("bomb", &bomb)], b"").await;
    assert!(answer.is_err() || answer.unwrap().status == 431);
}

/// Clients rewrite dot segments before they send: here they come as a hostile or careless one would send them.
async fn dots_as_they_are(server: &Server) {
    for (line, reason) in [
        ("GET /v1/kv/../secret HTTP/1.1", "INVALID_FIELD"),
        ("PUT /v1/kv/a/./b HTTP/1.1", "INVALID_FIELD"),
        ("GET /v1/kv/\u{ff}\u{fe} HTTP/1.1", "KEY_NOT_FOUND"),
    ] {
        let mut stream = tokio::net::TcpStream::connect(&server.http).await.unwrap();
        stream.write_all(format!("{line}\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains(&format!("kv-reason: {reason}")), "{line}: {answer}");
    }
}

/// A gRPC call by hand: what no generated client would send.
struct RawGrpc {
    client: legacy::Client<legacy::connect::HttpConnector, Full<Bytes>>,
    address: String,
}

impl RawGrpc {
    async fn call(&self, path: &str, headers: &[(&str, &str)], message: &[u8]) -> (u32, String, String) {
        let mut framed = vec![0];
        framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
        framed.extend_from_slice(message);
        self.call_framed(path, headers, framed).await
    }

    async fn call_framed(&self, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> (u32, String, String) {
        let mut request = http::Request::post(format!("http://{}{path}", self.address)).header("te", "trailers");
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/grpc");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.client.request(request.body(Full::new(body.into())).unwrap()).await.unwrap();
        let status = response.headers().clone();
        let trailers = response.into_body().collect().await.unwrap().trailers().cloned().unwrap_or_default();
        let found = tonic::Status::from_header_map(&status)
            .or_else(|| tonic::Status::from_header_map(&trailers))
            .unwrap_or_else(|| panic!("no status for {path}: {status:?}"));
        let info = tonic_types::StatusExt::get_details_error_info(&found);
        let outcome = info.as_ref().and_then(|info| info.metadata.get("outcome").cloned()).unwrap_or_default();
        assert!(status.contains_key("kv-trace-id"), "{status:?}");
        (found.code() as u32, info.map(|info| info.reason).unwrap_or_default(), outcome)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_answers_bad_input_with_its_reason() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let client = legacy::Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let raw = RawGrpc { client, address: server.grpc.clone() };
    let (put, get) = ("/tandem.v1.KvService/Put", "/tandem.v1.KvService/Get");
    let invalid = 3;
    // Field 1, one byte "a": a good key.
    let key_a: &[u8] = &[0x0a, 1, b'a'];
    let rows: &[(&str, &[(&str, &str)], &[u8], u32, &str)] = &[
        (put, &[], b"", invalid, "KEY_EMPTY"),
        (get, &[], b"", invalid, "KEY_EMPTY"),
        (put, &[], b"\xff\xff\xff\xff", invalid, "MALFORMED"),
        (get, &[], b"\x0a\x7fshort", invalid, "MALFORMED"),
        (put, &[("grpc-timeout", "soon")], key_a, invalid, "MALFORMED"),
        (put, &[("grpc-encoding", "br")], key_a, invalid, "MEDIA_TYPE_UNSUPPORTED"),
        (put, &[("content-type", "text/plain")], key_a, invalid, "MEDIA_TYPE_UNSUPPORTED"),
        ("/tandem.v1.KvService/Nothing", &[], b"", 12, "ROUTE_NOT_FOUND"),
        ("/no.such.Service/Get", &[], b"", 12, "ROUTE_NOT_FOUND"),
        (get, &[], key_a, 5, "KEY_NOT_FOUND"),
        ("/tandem.v1.KvService/Touch", &[], key_a, invalid, "INVALID_FIELD"),
        // Durability 9, in options (field 15).
        (put, &[], &[0x0a, 1, b'a', 0x7a, 2, 0x10, 9], invalid, "INVALID_FIELD"),
        // An empty condition (field 5).
        (put, &[], &[0x0a, 1, b'a', 0x2a, 0], invalid, "INVALID_FIELD"),
        // A ttl of minus one second.
        (
            put,
            &[],
            &[0x0a, 1, b'a', 0x1a, 13, 0x0a, 11, 8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
            invalid,
            "INVALID_FIELD",
        ),
    ];
    for (path, headers, message, code, reason) in rows {
        let (found_code, found_reason, outcome) = raw.call(path, headers, message).await;
        assert_eq!((found_code, found_reason.as_str()), (*code, *reason), "{path} {headers:?} {message:?}");
        if *path == put {
            assert_eq!(outcome, "NOT_APPLIED", "{path} {headers:?} {message:?}");
        }
    }
    let bomb = "b".repeat(20_000);
    assert_eq!(raw.call(get, &[("bomb", &bomb)], key_a).await.1, "HEADER_TOO_LARGE");
    let mut large = vec![0x12];
    let value_bytes = 12_u32 << 20;
    prost::encoding::encode_varint(value_bytes.into(), &mut large);
    large.resize(large.len() + value_bytes as usize, b'x');
    assert_eq!(raw.call(put, &[], &large).await.1, "VALUE_TOO_LARGE");
    assert_eq!(raw.call("/tandem.v1.KvService/Delete", &[], &large).await.1, "REQUEST_TOO_LARGE");
    let mut half = vec![0x0a, 1, b'a', 0x12];
    prost::encoding::encode_varint((2_u64 << 20) + 1, &mut half);
    half.resize(half.len() + (2 << 20) + 1, b'x');
    assert_eq!(raw.call(put, &[], &half).await.1, "VALUE_TOO_LARGE");
    let broken = raw.call_framed(put, &[], vec![0, 0, 0, 1, 0, 1, 2, 3]).await;
    assert!(["MALFORMED", "INTERNAL"].contains(&broken.1.as_str()), "{broken:?}");
    // A timeout that leaves no time is a deadline, and the write did not happen or is told to be unknown.
    let (code, reason, outcome) = raw.call(put, &[("grpc-timeout", "1n")], key_a).await;
    assert!(code == 0 || (reason == "DEADLINE" && !outcome.is_empty()), "{code} {reason} {outcome}");
}
