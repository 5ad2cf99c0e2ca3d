//! What the doors do around a request, whatever it asks: gRPC-Web, sharing with other origins, compression,
//! timing, trace ids, reasons of refusals, deadlines of streams, silent peers.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod support;

use std::{
    collections::HashMap,
    io::{Read as _, Write as _},
    time::{Duration, Instant},
};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper_util::{client::legacy, rt::TokioExecutor};
use prost::Message as _;
use support::{Answer, Client, Server, client, send};
use tandem::pb::{self, kv_service_client::KvServiceClient};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_stream::StreamExt as _;
use tonic::{Code, codec::CompressionEncoding, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus};
use tonic_types::StatusExt as _;

const PUT: &str = "/tandem.v1.KvService/Put";
const GET: &str = "/tandem.v1.KvService/Get";
const WEB: &str = "application/grpc-web+proto";
const WEB_TEXT: &str = "application/grpc-web-text";

type Headers = &'static [(&'static str, &'static str)];

/// A message as gRPC frames it.
fn framed(message: &impl prost::Message) -> Vec<u8> {
    let mut frame = vec![0];
    frame.extend_from_slice(&(message.encoded_len() as u32).to_be_bytes());
    message.encode(&mut frame).unwrap();
    frame
}

/// The frames of an answer: messages, and then the trailers.
fn unframed(mut body: &[u8]) -> (Vec<Vec<u8>>, HashMap<String, String>) {
    let (mut messages, mut trailers) = (Vec::new(), HashMap::new());
    while let Some((head, rest)) = body.split_first_chunk::<5>() {
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let (frame, rest) = rest.split_at(length);
        body = rest;
        if head[0] & 0x80 == 0 {
            messages.push(frame.to_vec());
        } else {
            let lines = String::from_utf8(frame.to_vec()).unwrap();
            let pairs = lines.lines().map(|line| line.split_once(':').unwrap());
            trailers = pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
        }
    }
    (messages, trailers)
}

struct Web<'server> {
    client: Client,
    server: &'server Server,
}

impl Web<'_> {
    async fn call(&self, path: &str, content_type: &str, body: &[u8]) -> Answer {
        let url = format!("http://{}{path}", self.server.grpc);
        send(&self.client, "POST", &url, &[("content-type", content_type), ("x-grpc-web", "1")], body).await
    }
}

async fn channel(server: &Server) -> Channel {
    tonic::transport::Endpoint::from_shared(format!("http://{}", server.grpc)).unwrap().connect().await.unwrap()
}

/// The text of `Server-Timing`: each name with its milliseconds.
fn timing(text: &str) -> HashMap<String, f64> {
    let part = |part: &str| {
        let (name, duration) = part.trim().split_once(";dur=").unwrap_or_else(|| panic!("{text}"));
        (name.to_owned(), duration.parse().unwrap())
    };
    text.split(',').map(part).collect()
}

fn reason_of(answer: &Answer) -> String {
    let status = tonic::Status::from_header_map(&answer.headers).unwrap_or_else(|| panic!("{answer:?}"));
    status.get_details_error_info().unwrap_or_else(|| panic!("{answer:?}")).reason
}

fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() }
}

fn get(key: &str) -> pb::GetRequest {
    pb::GetRequest { key: key.to_owned().into(), metadata_only: false }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_web_calls_are_answered_over_http_1_in_binary_and_in_text() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let web = Web { client: client(), server: &server };
    let written = web.call(PUT, WEB, &framed(&put("a", "1"))).await;
    assert_eq!((written.status, written.header("content-type")), (200, Some(WEB)));
    assert!(written.header("kv-trace-id").is_some());
    let (messages, trailers) = unframed(&written.body);
    assert!(pb::PutResponse::decode(messages[0].as_slice()).unwrap().created);
    assert_eq!(trailers["grpc-status"], "0");

    let asked = BASE64_STANDARD.encode(framed(&get("a")));
    let read = web.call(GET, WEB_TEXT, asked.as_bytes()).await;
    assert_eq!((read.status, read.header("content-type")), (200, Some("application/grpc-web-text+proto")));
    // Each frame is base64 of its own.
    let text = read.text();
    let frames: Vec<u8> = text.as_bytes().chunks(4).flat_map(|four| BASE64_STANDARD.decode(four).unwrap()).collect();
    let (messages, trailers) = unframed(&frames);
    assert_eq!(pb::GetResponse::decode(messages[0].as_slice()).unwrap().entry.unwrap().value, "1");
    assert_eq!(trailers["grpc-status"], "0");
    // A parameter of the type is no other type.
    let read = web.call(GET, "application/grpc-web; charset=utf-8", &framed(&get("a"))).await;
    assert_eq!(unframed(&read.body).1["grpc-status"], "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_web_refusals_have_their_reason_in_the_headers() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &[("TANDEM__LIMITS__BODIES_BYTES", "8MiB")]);
    let web = Web { client: client(), server: &server };
    let large = "x".repeat((1 << 20) + 1);
    let rows: &[(&str, &str, Vec<u8>, &str)] = &[
        (GET, WEB, framed(&get("absent")), "KEY_NOT_FOUND"),
        (PUT, WEB, framed(&put("", "")), "KEY_EMPTY"),
        (PUT, WEB, framed(&put("a", &large)), "VALUE_TOO_LARGE"),
        // Refused by its length alone: the client is still sending then.
        (PUT, WEB, framed(&put("a", &large.repeat(12))), "VALUE_TOO_LARGE"),
        (PUT, WEB, vec![0, 0, 0, 0, 2, 0xff, 0xff], "MALFORMED"),
        (PUT, WEB_TEXT, b"no base64!".to_vec(), "MALFORMED"),
        ("/tandem.v1.KvService/Nothing", WEB, framed(&get("a")), "ROUTE_NOT_FOUND"),
    ];
    for (path, content_type, body, reason) in rows {
        let answer = web.call(path, content_type, body).await;
        assert_eq!((answer.status, reason_of(&answer).as_str()), (200, *reason), "{path} {content_type}");
        assert!(answer.header("content-type").unwrap().starts_with("application/grpc-web"), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grpc_web_stream_flows_while_it_lasts() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let request = http::Request::post(format!("http://{}/grpc.health.v1.Health/Watch", server.grpc))
        .header("content-type", WEB)
        .body(Full::new(Bytes::from(framed(&HealthCheckRequest { service: String::new() }))))
        .unwrap();
    let mut answer = client().request(request).await.unwrap();
    let mut told = Vec::new();
    for status in [ServingStatus::Serving, ServingStatus::NotServing] {
        let frame = answer.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
        let (messages, _) = unframed(&frame);
        told.push(HealthCheckResponse::decode(messages[0].as_slice()).unwrap().status());
        assert_eq!(told.last(), Some(&status));
        server.signal("TERM");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_http_on_the_grpc_port_is_told_what_the_port_speaks() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let client = client();
    let url = format!("http://{}{GET}", server.grpc);
    let rows: [(&str, Headers, &str); 6] = [
        ("GET", &[], "REST is on another port"),
        ("POST", &[("content-type", "application/json")], "REST is on another port"),
        ("POST", &[("content-type", "application/grpc+json")], "REST is on another port"),
        ("POST", &[("content-type", "application/grpc")], "gRPC needs HTTP/2"),
        ("PUT", &[("content-type", WEB)], "a POST"),
        ("OPTIONS", &[("origin", "https://a.example"), ("access-control-request-method", "POST")], "another port"),
    ];
    for (method, headers, part) in rows {
        let answer = send(&client, method, &url, headers, b"").await;
        assert_eq!((answer.status, answer.header("kv-reason")), (415, Some("MEDIA_TYPE_UNSUPPORTED")), "{method}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        let problem = answer.json();
        assert_eq!(problem["reason"], "MEDIA_TYPE_UNSUPPORTED");
        assert!(problem["detail"].as_str().unwrap().contains(part), "{method} {headers:?}: {problem}");
        assert!(answer.header("kv-trace-id").is_some());
    }
}

/// Reads one answer of a known length from a connection: its head, in lower case, and its body.
async fn read_answer(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let length = head.split("content-length: ").nth(1).map_or(0, |rest| rest.lines().next().unwrap().parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    (head, body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_reaches_whoever_still_sends_and_leaves_the_connection_usable() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let client = client();
    let large_header = format!("x-large: {}", "x".repeat(17 << 10));
    let web = format!("POST {PUT} HTTP/1.1\r\ncontent-type: {WEB}");
    let rows = [
        (&server.grpc, format!("POST {PUT} HTTP/1.1\r\ncontent-type: application/json"), "415 "),
        (&server.grpc, format!("POST {PUT} HTTP/1.1\r\ncontent-type: application/grpc"), "415 "),
        (&server.grpc, format!("{web}\r\ngrpc-timeout: soon"), "200 "),
        (&server.grpc, format!("{web}\r\n{large_header}"), "200 "),
        // Refused by the length that its frame names.
        (&server.grpc, web, "200 "),
        (&server.http, format!("PUT /v1/kv/a HTTP/1.1\r\n{large_header}"), "431 "),
        (&server.http, "PUT /nowhere HTTP/1.1".into(), "404 "),
        (&server.http, "POST /v1/kv/a HTTP/1.1".into(), "405 "),
        (&server.http, "PUT /v1/kv/a?tll=60s HTTP/1.1".into(), "400 "),
        (&server.http, "PUT /v1/kv/a HTTP/1.1\r\ncontent-encoding: gzip".into(), "415 "),
        (&server.http, "GET /v1/kv/a HTTP/1.1".into(), "404 "),
        // Refused by its length.
        (&server.http, "PUT /v1/kv/a HTTP/1.1".into(), "413 "),
    ];
    for (address, asked, status) in rows {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let (piece, pieces) = (vec![b'x'; 512 << 10], 16);
        let length = piece.len() * pieces;
        let head = format!("{asked}\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        for sent in 0..pieces {
            stream.write_all(&piece).await.unwrap_or_else(|error| panic!("{asked}: {error} after {sent} pieces"));
            // Slow, as seen by a server that could have ended the connection by now.
            assert_eq!(send(&client, "GET", &server.url("/v1/kv/absent"), &[], b"").await.status, 404);
        }
        let (head, _) = read_answer(&mut stream).await;
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{asked}: {head}");
        stream.write_all(b"GET /v1/kv/ HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let (head, _) = read_answer(&mut stream).await;
        assert!(head.starts_with("http/1.1 4"), "{asked}: {head}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_before_sending_a_body_is_refused_without_it() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let rows = [
        (&server.http, "PUT /v1/kv/a HTTP/1.1", "413 "),
        (&server.http, "PUT /v1/kv/a?tll=60s HTTP/1.1", "400 "),
        (&server.grpc, "PUT /v1/kv/a HTTP/1.1", "415 "),
    ];
    for (address, asked, status) in rows {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!("{asked}\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 8000000\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let (head, _) = read_answer(&mut stream).await;
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{asked}: {head}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_origins_are_let_in_only_where_the_configuration_says_so() {
    let preflight = async |url: &str, origin: &str, method: &str, headers: &str| {
        let asked = [
            ("origin", origin),
            ("access-control-request-method", method),
            ("access-control-request-headers", headers),
        ];
        send(&client(), "OPTIONS", url, &asked, b"").await
    };
    let data = tempfile::tempdir().unwrap();
    let app = "https://app.example";
    let server = Server::start(data.path());
    let answer = send(&client(), "GET", &server.url("/v1/kv/a"), &[("origin", app)], b"").await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (404, None), "off by default");
    assert_eq!(preflight(&server.url("/v1/kv/a"), app, "PUT", "if-match").await.status, 405);
    drop(server);

    let origins = [("TANDEM__CORS__ALLOWED_ORIGINS", "https://app.example,http://localhost:8080")];
    let server = Server::start_with(data.path(), &origins);
    let rest = server.url("/v1/kv/a");
    let grpc = format!("http://{}{GET}", server.grpc);
    let lists = |answer: &Answer, header: &str, name: &str| {
        let list = answer.header(header).unwrap_or_else(|| panic!("no {header}: {answer:?}")).to_lowercase();
        assert!(list.split(',').any(|found| found.trim() == name.to_lowercase()), "{name} in {list}");
    };
    for (url, method, header) in
        [(&rest, "PUT", "if-match"), (&rest, "PATCH", "Kv-Timing"), (&grpc, "POST", "x-grpc-web")]
    {
        for origin in [app, "http://localhost:8080"] {
            let answer = preflight(url, origin, method, header).await;
            assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some(origin)));
            lists(&answer, "access-control-allow-methods", method);
            lists(&answer, "access-control-allow-headers", header);
            assert!(answer.header("access-control-max-age").is_some() && answer.header("kv-trace-id").is_some());
        }
        let stranger = preflight(url, "https://evil.example", method, header).await;
        assert_eq!(stranger.header("access-control-allow-origin"), None);
    }
    let missing = send(&client(), "GET", &rest, &[("origin", app)], b"").await;
    assert_eq!((missing.status, missing.header("access-control-allow-origin")), (404, Some(app)), "refusals are shown");
    for name in ["ETag", "Link", "Kv-Revision", "Kv-Reason", "Kv-Store-Revision", "Kv-Trace-Id"] {
        lists(&missing, "access-control-expose-headers", name);
    }
    let url = format!("http://{}{GET}", server.grpc);
    let headers = [("origin", app), ("content-type", WEB)];
    let called = send(&client(), "POST", &url, &headers, &framed(&get("absent"))).await;
    assert_eq!(
        (reason_of(&called).as_str(), called.header("access-control-allow-origin")),
        ("KEY_NOT_FOUND", Some(app))
    );
    for name in ["grpc-status", "grpc-message", "grpc-status-details-bin", "kv-trace-id"] {
        lists(&called, "access-control-expose-headers", name);
    }
    drop(server);

    let server = Server::start_with(data.path(), &[("TANDEM__CORS__ALLOWED_ORIGINS", "*")]);
    let answer = send(&client(), "GET", &server.url("/v1/kv/a"), &[("origin", app)], b"").await;
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain).unwrap();
    plain
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    flate2::read::GzEncoder::new(bytes, flate2::Compression::fast()).read_to_end(&mut packed).unwrap();
    packed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_is_compressed_for_those_who_take_it_and_values_never_are() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let client = client();
    let get = async |path: &str, accepted: &str| {
        send(&client, "GET", &server.url(path), &[("accept-encoding", accepted)], b"").await
    };
    let value = br#"{"text":"a value that is JSON itself"}"#.repeat(200);
    for key in 0..60 {
        let url = server.url(&format!("/v1/kv/{key}"));
        let put = send(&client, "PUT", &url, &[("content-type", "application/json")], &value).await;
        assert_eq!(put.status, 201);
    }
    for path in ["/v1/kv?all=true&page_size=60", "/v1/kv?all=true&page_size=1", "/v1/kv/7?format=json"] {
        let plain = get(path, "br, identity").await;
        assert_eq!(plain.header("content-encoding"), None, "{path}");
        let packed = get(path, "br;q=0.9, gzip;q=0.5").await;
        assert_eq!((packed.status, packed.header("content-encoding")), (200, Some("gzip")), "{path}");
        for answer in [&plain, &packed] {
            assert!(answer.headers.get_all("vary").iter().any(|name| name == "accept-encoding"), "{answer:?}");
        }
        assert!(packed.body.len() * 5 < plain.body.len(), "{path}: {} of {}", packed.body.len(), plain.body.len());
        assert_eq!(gunzip(&packed.body), plain.body, "{path}");
        for name in ["etag", "kv-revision", "kv-store-revision", "link", "content-type"] {
            assert_eq!(packed.header(name), plain.header(name), "{path}: {name}");
        }
        // The bytes differ from those without gzip: a tag may not promise that they are the same.
        assert!(packed.header("etag").is_none_or(|tag| tag.starts_with("W/")), "{packed:?}");
    }
    let raw = get("/v1/kv/7", "gzip").await;
    assert_eq!((raw.header("content-encoding"), raw.header("vary")), (None, None), "a value is somebody's bytes");
    assert_eq!(raw.body, value);
    let small = get("/v1/kv:count?all=true", "gzip").await;
    assert_eq!(small.header("content-encoding"), None, "not worth it");
    // A scan too, and each change of a watched range at once; events for browsers never.
    let ask = |path: &str, media_type: &str| {
        let request =
            http::Request::get(server.url(path)).header("accept", media_type).header("accept-encoding", "gzip");
        client.request(request.body(Full::default()).unwrap())
    };
    let scan = ask("/v1/kv?all=true", "application/x-ndjson").await.unwrap();
    assert_eq!(scan.headers()["content-encoding"], "gzip");
    let lines = gunzip(&scan.into_body().collect().await.unwrap().to_bytes());
    assert_eq!(lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count(), 61);
    let mut watch = ask("/v1/watch?all=true", "application/x-ndjson").await.unwrap();
    assert_eq!(watch.headers()["content-encoding"], "gzip");
    let mut decoder = flate2::write::GzDecoder::new(Vec::new());
    for changes in 1..4 {
        send(&client, "PUT", &server.url("/v1/kv/changed"), &[], b"x").await;
        while decoder.get_ref().windows(6).filter(|window| window == b"\"put\",").count() < changes {
            let piece = watch.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
            decoder.write_all(&piece).unwrap();
            decoder.flush().unwrap();
        }
    }
    let events = ask("/v1/watch?all=true", "text/event-stream").await.unwrap();
    assert_eq!((events.status().as_u16(), events.headers().get("content-encoding")), (200, None));
    drop((watch, events));
    let ops = format!("http://{}/metrics", server.ops);
    support::eventually("streams that ended are timed", async || {
        // A watcher over HTTP/1 that went away is noticed when it is written to.
        send(&client, "PUT", &server.url("/v1/kv/changed"), &[], b"x").await;
        let metrics = send(&client, "GET", &ops, &[], b"").await.text();
        let timed = |operation: &str, count: u8| {
            let labels = format!("{{operation=\"{operation}\",protocol=\"http\"}} {count}");
            metrics.contains(&format!("tandem_stream_duration_seconds_count{labels}"))
        };
        (timed("scan", 1) && timed("watch", 2)).then_some(())
    })
    .await;
    let missing = get("/v1/kv/nothing", "*;q=0").await;
    assert_eq!(missing.status, 404, "whoever takes nothing is answered all the same");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_messages_are_compressed_as_client_and_server_agree() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let plain = KvServiceClient::new(channel(&server).await);
    let packed = plain.clone().send_compressed(CompressionEncoding::Gzip).accept_compressed(CompressionEncoding::Gzip);
    let value = "all the same ".repeat(70_000);
    for client in [&plain, &packed] {
        client.clone().put(put("large", &value)).await.unwrap();
        client.clone().put(put("small", "value")).await.unwrap();
    }
    for (client, encoding) in [(&plain, None), (&packed, Some("gzip"))] {
        for (key, value) in [("large", value.as_str()), ("small", "value")] {
            let answer = client.clone().get(get(key)).await.unwrap();
            let agreed = answer.metadata().get("grpc-encoding").map(|encoding| encoding.to_str().unwrap());
            assert_eq!(agreed, encoding);
            assert_eq!(answer.into_inner().entry.unwrap().value, value);
        }
        let missing = client.clone().get(get("missing")).await.unwrap_err();
        assert_eq!(missing.get_details_error_info().unwrap().reason, "KEY_NOT_FOUND");
    }
    // Over gRPC-Web too, where the sizes can be seen.
    let url = format!("http://{}{GET}", server.grpc);
    let headers = [("content-type", WEB), ("grpc-accept-encoding", "identity,deflate,gzip")];
    let answer = send(&support::client(), "POST", &url, &headers, &framed(&get("large"))).await;
    assert_eq!((answer.header("grpc-encoding"), answer.body[0]), (Some("gzip"), 1));
    assert!(answer.body.len() < value.len() / 50, "{} of {}", answer.body.len(), value.len());
    let (messages, trailers) = unframed(&answer.body);
    let message = pb::GetResponse::decode(gunzip(&messages[0]).as_slice()).unwrap();
    assert_eq!((message.entry.unwrap().value.len(), trailers["grpc-status"].as_str()), (value.len(), "0"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_inflates_past_the_limit_is_refused_and_so_is_an_unknown_encoding() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let call = async |path: &str, encoding: &str, flag: u8, message: &[u8]| {
        let frame = [&[flag][..], &(message.len() as u32).to_be_bytes(), message].concat();
        let headers = [("content-type", WEB), ("grpc-encoding", encoding)];
        send(&client(), "POST", &format!("http://{}{path}", server.grpc), &headers, &frame).await
    };
    let bomb = gzip(&vec![0; 200 << 20]);
    assert!(bomb.len() < 2 << 20);
    let before_bytes = resident_bytes(&server);
    for (path, reason) in [(PUT, "VALUE_TOO_LARGE"), ("/tandem.v1.KvService/Delete", "REQUEST_TOO_LARGE")] {
        assert_eq!(reason_of(&call(path, "gzip", 1, &bomb).await), reason);
    }
    let grown_bytes = resident_bytes(&server).saturating_sub(before_bytes);
    // A few times the limit, and what the allocator keeps of it: not the 400 MiB that the two would be.
    assert!(grown_bytes < 128 << 20, "{grown_bytes}");
    assert_eq!(reason_of(&call(PUT, "gzip", 1, b"not gzip").await), "MALFORMED");
    let good = gzip(&put("a", "1").encode_to_vec());
    let unknown = call(PUT, "br", 1, &good).await;
    assert_eq!(reason_of(&unknown), "MEDIA_TYPE_UNSUPPORTED");
    assert_eq!(unknown.header("grpc-accept-encoding"), Some("gzip,identity"));
    assert_eq!(reason_of(&call(PUT, "identity", 1, &good).await), "MALFORMED", "flagged, with no encoding named");
    assert_eq!(unframed(&call(PUT, "gzip", 1, &good).await.body).1["grpc-status"], (Code::Ok as i32).to_string());
    let not_packed = put("a", "1").encode_to_vec();
    assert_eq!(unframed(&call(PUT, "gzip", 0, &not_packed).await.body).1["grpc-status"], "0", "not all need be");
}

/// What the server takes of the machine's memory.
fn resident_bytes(server: &Server) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

fn phases_add_up(text: &str) {
    let told = timing(text);
    let phases = ["queue", "commit", "sync", "apply"].map(|name| told[name]);
    assert_eq!(told.len(), 5, "{text}");
    assert!(told["sync"] > 0.0, "the write was synced: {text}");
    // Each is rounded by itself.
    assert!(phases.iter().sum::<f64>() <= told["total"] + 0.01, "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timing_is_told_to_those_who_ask_and_to_nobody_else() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let client = client();
    let url = server.url("/v1/kv/a");
    let ask = [("kv-timing", "1")];
    let written = send(&client, "PUT", &url, &ask, b"1").await;
    phases_add_up(written.header("server-timing").unwrap());
    let read = send(&client, "GET", &url, &ask, b"").await;
    let told = timing(read.header("server-timing").unwrap());
    assert!(told.len() == 1 && told["total"] > 0.0, "a read has no phases: {told:?}");
    let refused = send(&client, "PUT", &url, &[("kv-timing", "1"), ("if-none-match", "*")], b"1").await;
    assert_eq!((refused.status, timing(refused.header("server-timing").unwrap()).len()), (412, 1));
    for headers in [&[][..], &[("kv-timing", "0")]] {
        assert_eq!(send(&client, "PUT", &url, headers, b"1").await.header("server-timing"), None);
    }

    let headers = [("content-type", WEB), ("kv-timing", "1")];
    let url = |path: &str| format!("http://{}{path}", server.grpc);
    let written = send(&client, "POST", &url(PUT), &headers, &framed(&put("a", "2"))).await;
    let (_, trailers) = unframed(&written.body);
    phases_add_up(&trailers["server-timing"]);
    let refused = send(&client, "POST", &url(GET), &headers, &framed(&get("absent"))).await;
    assert_eq!(timing(refused.header("server-timing").unwrap()).len(), 1);
    let unasked = send(&client, "POST", &url(PUT), &headers[..1], &framed(&put("a", "2"))).await;
    assert!(!unframed(&unasked.body).1.contains_key("server-timing"));

    let mut kv = KvServiceClient::new(channel(&server).await);
    let mut request = tonic::Request::new(put("a", "3"));
    request.metadata_mut().insert("kv-timing", "1".parse().unwrap());
    let answer = kv.put(request).await.unwrap();
    // A unary client puts trailing metadata beside the initial one.
    phases_add_up(answer.metadata().get("server-timing").unwrap().to_str().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_trace_id_is_in_the_header_the_error_and_the_log() {
    let data = tempfile::tempdir().unwrap();
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "exec \"$0\" \"$@\" 2>\"$LOG\""]).arg(support::binary());
    let environment = [("LOG", log.path().to_str().unwrap()), ("TANDEM__TELEMETRY__LOG_LEVEL", "debug")];
    let server = Server::try_start_by(shell, data.path(), &[], &environment).unwrap();
    let client = client();
    let given = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{given}-00f067aa0ba902b7-01");
    let traced = send(&client, "GET", &server.url("/v1/kv/absent"), &[("traceparent", &parent)], b"").await;
    assert_eq!((traced.header("kv-trace-id"), traced.json()["trace_id"].as_str()), (Some(given), Some(given)));
    let mut ids = vec![given.to_owned()];
    for path in ["/v1/kv/absent", "/nowhere", "/v1/kv?tll=1"] {
        let refused = send(&client, "GET", &server.url(path), &[], b"").await;
        let id = refused.header("kv-trace-id").unwrap().to_owned();
        assert_eq!(refused.json()["trace_id"].as_str(), Some(id.as_str()), "{path}");
        ids.push(id);
    }
    let mut kv = KvServiceClient::new(channel(&server).await);
    let refused = kv.get(get("absent")).await.unwrap_err();
    ids.push(refused.metadata().get("kv-trace-id").unwrap().to_str().unwrap().to_owned());
    let future = pb::WatchRequest { range: Some(all()), start_revision: 1 << 50, ..Default::default() };
    let refused = kv.watch(future).await.unwrap_err();
    ids.push(refused.metadata().get("kv-trace-id").unwrap().to_str().unwrap().to_owned());
    assert!(ids.iter().all(|id| id.len() == 32 && ids.iter().filter(|other| *other == id).count() == 1), "{ids:?}");
    assert_eq!(server.stop(), Some(0));
    let text = std::fs::read_to_string(log.path()).unwrap();
    for id in ids {
        assert!(text.lines().any(|line| line.contains(&id) && line.contains("was refused")), "{id} in {text}");
    }
}

fn all() -> pb::KeyRange {
    pb::KeyRange { kind: Some(pb::key_range::Kind::All(true)) }
}

fn with_timeout<T>(message: T, timeout: Duration) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    // By hand: the client's own `set_timeout` would give up by itself.
    request.metadata_mut().insert("grpc-timeout", format!("{}m", timeout.as_millis()).parse().unwrap());
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_does_not_arrive_in_time_is_refused_with_its_reason() {
    let data = tempfile::tempdir().unwrap();
    let limits = [("TANDEM__LIMITS__BODY_TIMEOUT", "100ms"), ("TANDEM__LIMITS__REQUEST_TIMEOUT", "100ms")];
    let server = Server::start_with(data.path(), &limits);
    let client = legacy::Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let whole = framed(&put("a", "value"));
    let starts: [(&str, &[u8], &str); 5] = [
        (PUT, &whole[..3], "application/grpc"),
        (PUT, &whole[..whole.len() - 1], "application/grpc"),
        // All of it is there, but the client does not say that it is.
        (PUT, &whole, "application/grpc"),
        ("/tandem.v1.KvService/Watch", &whole[..3], "application/grpc"),
        (PUT, &whole[..3], WEB),
    ];
    for (path, start, content_type) in starts {
        let frame: Result<_, std::io::Error> = Ok(Frame::data(Bytes::copy_from_slice(start)));
        let body = StreamBody::new(tokio_stream::iter([frame]).chain(tokio_stream::pending()));
        let request = http::Request::post(format!("http://{}{path}", server.grpc))
            .header("content-type", content_type)
            .header("te", "trailers")
            .body(body)
            .unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(20), client.request(request)).await.unwrap().unwrap();
        let status = tonic::Status::from_header_map(answer.headers()).unwrap_or_else(|| panic!("{answer:?}"));
        let info = status.get_details_error_info().unwrap();
        assert_eq!((status.code(), info.reason.as_str()), (Code::DeadlineExceeded, "BODY_TIMEOUT"), "{start:?}");
        assert!(path != PUT || info.metadata["outcome"] == "NOT_APPLIED", "{info:?}");
    }
    let scrape = send(&support::client(), "GET", &format!("http://{}/metrics", server.ops), &[], b"").await;
    let counted = "tandem_operations_total{operation=\"put\",protocol=\"grpc\",reason=\"BODY_TIMEOUT\"} 4";
    assert!(String::from_utf8_lossy(&scrape.body).contains(counted), "each is counted once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_in_pieces_is_answered_like_a_whole_one() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let client = legacy::Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let answer_to = async |path: &str, encoding: &str, pieces: Vec<&[u8]>| {
        let frames =
            pieces.into_iter().map(|piece| Ok::<_, std::io::Error>(Frame::data(Bytes::copy_from_slice(piece))));
        let body = StreamBody::new(tokio_stream::iter(frames.collect::<Vec<_>>()));
        let request = http::Request::post(format!("http://{}{path}", server.grpc))
            .header("content-type", "application/grpc")
            .header("grpc-encoding", encoding)
            .body(body)
            .unwrap();
        let (head, body) = client.request(request).await.unwrap().into_parts();
        let mut headers = head.headers;
        let body = body.collect().await.unwrap();
        let trailers = body.trailers().cloned();
        let status = tonic::Status::from_header_map(trailers.as_ref().unwrap_or(&headers)).unwrap();
        let reason = status.get_details_error_info().map_or("OK".into(), |info| info.reason);
        // The order within the details is left to chance.
        for differs in ["date", "kv-trace-id", "grpc-status-details-bin"] {
            headers.remove(differs);
        }
        (reason, headers, body.to_bytes(), trailers)
    };
    let got = framed(&get("a"));
    let rows = [
        ("Put", framed(&put("a", "value")), "OK"),
        ("Get", got.clone(), "OK"),
        ("Get", framed(&get("absent")), "KEY_NOT_FOUND"),
        ("Put", framed(&put("", "value")), "KEY_EMPTY"),
        ("Put", framed(&put("a", &"x".repeat(2 << 20))), "VALUE_TOO_LARGE"),
        ("Get", vec![0, 0, 0, 0, 1, 0xff], "MALFORMED"),
        ("Get", vec![0, 0, 0, 0, 9, 0x0a], "MALFORMED"),
        ("Get", vec![1, 0, 0, 0, 1, 0xff], "MALFORMED"),
        ("Get", [&got[..], b"more"].concat(), "MALFORMED"),
        ("Get", [&got[..], &got].concat(), "OK"),
        ("Get", vec![], "MALFORMED"),
        ("Watch", vec![0, 0, 0, 0, 1, 0xff], "MALFORMED"),
        ("Nothing", got.clone(), "ROUTE_NOT_FOUND"),
    ];
    for (method, message, reason) in &rows {
        let path = format!("/tandem.v1.KvService/{method}");
        let whole = answer_to(&path, "identity", vec![message]).await;
        let ended = answer_to(&path, "identity", vec![message, b""]).await;
        let (first, second) = message.split_at(message.len() / 2);
        let halves = answer_to(&path, "identity", vec![first, second]).await;
        assert_eq!(whole.0, *reason, "{method} {whole:?}");
        assert_eq!(whole.1["content-type"], "application/grpc");
        let revisions = *method == "Put" && *reason == "OK";
        assert!(revisions || (whole == ended && whole == halves), "{method} {whole:?}\n{ended:?}\n{halves:?}");
        let refused = answer_to(&path, "br", vec![message]).await;
        assert_eq!(refused, answer_to(&path, "br", vec![first, second]).await);
        assert_ne!(refused.0, "OK");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_when_its_grpc_timeout_is_over_idle_or_not() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let channel = channel(&server).await;
    let mut kv = KvServiceClient::new(channel.clone());
    let timeout = Duration::from_millis(300);
    let check = |status: tonic::Status, started: Instant| {
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
        assert_eq!(status.get_details_error_info().unwrap().reason, "DEADLINE");
        assert!(status.metadata().contains_key("kv-trace-id"));
        assert!(started.elapsed() >= timeout, "{:?}", started.elapsed());
    };
    // Idle: nothing changes, and health stays as it is.
    let started = Instant::now();
    let watch = pb::WatchRequest { range: Some(all()), ..Default::default() };
    let mut watching = kv.watch(with_timeout(watch.clone(), timeout)).await.unwrap().into_inner();
    let ended = loop {
        if let Err(status) = watching.next().await.unwrap() {
            break status;
        }
    };
    check(ended, started);
    let started = Instant::now();
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    let asked = with_timeout(HealthCheckRequest { service: String::new() }, timeout);
    let mut changes = health.watch(asked).await.unwrap().into_inner();
    assert!(changes.next().await.unwrap().is_ok());
    check(changes.next().await.unwrap().unwrap_err(), started);
    // Busy: there is always more to tell.
    let writer = tokio::spawn({
        let mut kv = kv.clone();
        async move {
            loop {
                kv.put(put("busy", "x")).await.unwrap();
            }
        }
    });
    let started = Instant::now();
    let mut watching = kv.watch(with_timeout(watch, timeout)).await.unwrap().into_inner();
    let mut heard = 0;
    let ended = loop {
        match watching.next().await.unwrap() {
            Ok(_) => heard += 1,
            Err(status) => break status,
        }
    };
    check(ended, started);
    assert!(heard > 3, "{heard}");
    writer.abort();
    let metrics = send(&client(), "GET", &format!("http://{}/metrics", server.ops), &[], b"").await.text();
    let counted = |labels: &str| metrics.contains(&format!("tandem_stream_duration_seconds_count{{{labels}}}"));
    assert!(counted("operation=\"watch\",protocol=\"grpc\"") && counted("operation=\"_OTHER\",protocol=\"grpc\""));
    for label in ["KvService/Watch", "Health/Watch"] {
        assert!(!metrics.lines().any(|line| line.starts_with("rpc_server") && line.contains(label)), "{label}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_of_every_service_and_of_the_framework_have_a_reason() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel(&server).await);
    let unknown = HealthCheckRequest { service: "no.such".into() };
    let status = health.check(unknown).await.unwrap_err();
    let info = status.get_details_error_info().unwrap();
    assert_eq!(
        (status.code(), info.reason.as_str(), info.domain.as_str()),
        (Code::NotFound, "ROUTE_NOT_FOUND", "tandem")
    );
    let web = Web { client: client(), server: &server };
    let rows: &[(&str, &[u8], &str)] = &[
        ("/grpc.health.v1.Health/Nothing", b"", "ROUTE_NOT_FOUND"),
        ("/grpc.reflection.v1.ServerReflection/Nothing", b"", "ROUTE_NOT_FOUND"),
        ("/grpc.health.v1.Health/Check", &[0, 0, 0, 0, 1, 0xff], "MALFORMED"),
        ("/tandem.v1.KvService/Watch", &[0, 0, 0, 0, 1, 0xff], "MALFORMED"),
        ("/tandem.v1.KvService/Scan", &[0, 0, 0, 0, 0], "INVALID_FIELD"),
        // Half a message, and none.
        ("/tandem.v1.KvService/Get", &[0, 0, 0, 0, 9, 0x0a], "MALFORMED"),
        ("/tandem.v1.KvService/Get", b"", "MALFORMED"),
    ];
    for (path, body, reason) in rows {
        let answer = web.call(path, WEB, body).await;
        assert_eq!(reason_of(&answer), *reason, "{path} {body:?}");
    }
    // The other listener serves these.
    let answer = web.call("/tandem.admin.v1.AdminService/Status", WEB, &[0, 0, 0, 0, 0]).await;
    assert_eq!(reason_of(&answer), "ROUTE_NOT_FOUND");
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", server.ops)).unwrap();
    let mut elsewhere = KvServiceClient::new(endpoint.connect().await.unwrap());
    let status = elsewhere.get(pb::GetRequest { key: "a".into(), ..Default::default() }).await.unwrap_err();
    assert!(
        status.message().starts_with("ROUTE_NOT_FOUND: ") && status.message().contains("gRPC listener"),
        "{status}"
    );
    // A message that breaks off under the server's eyes.
    let mut stream = TcpStream::connect(&server.grpc).await.unwrap();
    let head = format!("POST {GET} HTTP/1.1\r\nhost: x\r\ncontent-type: {WEB}\r\ncontent-length: 100\r\n\r\nhalf");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    assert!(answer.contains("grpc-message: MALFORMED"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http_2_peer_that_does_not_answer_pings_is_dropped_and_one_that_does_stays() {
    let data = tempfile::tempdir().unwrap();
    let keepalive = [("TANDEM__LIMITS__KEEPALIVE_INTERVAL", "50ms"), ("TANDEM__LIMITS__KEEPALIVE_TIMEOUT", "500ms")];
    let server = Server::start_with(data.path(), &keepalive);
    let mut peer = TcpStream::connect(&server.grpc).await.unwrap();
    peer.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    // Our settings: none. Then a ping is answered each time, until we have had enough of it.
    peer.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    let (mut answered, mut fallen_silent) = (0, None);
    loop {
        let mut head = [0; 9];
        if peer.read_exact(&mut head).await.is_err() {
            break;
        }
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        if peer.read_exact(&mut payload).await.is_err() {
            break;
        }
        let (ping, acknowledges) = (head[3] == 6, head[4] & 1 == 1);
        if ping && !acknowledges {
            // Twenty pings: longer than the time to answer one.
            if answered < 20 {
                let reply = [&[0, 0, 8, 6, 1, 0, 0, 0, 0][..], &payload].concat();
                peer.write_all(&reply).await.unwrap();
                answered += 1;
            } else {
                fallen_silent.get_or_insert_with(Instant::now);
            }
        }
    }
    assert_eq!(answered, 20, "it was kept as long as it answered");
    let waited = fallen_silent.unwrap().elapsed();
    assert!(waited >= Duration::from_millis(400) && waited < Duration::from_secs(20), "{waited:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compressed_stream_that_breaks_off_says_why_first() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let request = http::Request::get(server.url("/v1/watch?all=true")).header("accept-encoding", "gzip");
    let mut watch = client().request(request.body(Full::default()).unwrap()).await.unwrap();
    assert_eq!(watch.headers()["content-encoding"], "gzip");
    let (mut decoder, mut stops) = (flate2::write::GzDecoder::new(Vec::new()), false);
    let broken = loop {
        match watch.body_mut().frame().await {
            Some(Ok(piece)) => decoder.write_all(&piece.into_data().unwrap()).unwrap(),
            end => break end,
        }
        decoder.flush().unwrap();
        if !std::mem::replace(&mut stops, true) {
            server.signal("TERM");
        }
    };
    assert!(matches!(broken, Some(Err(_))), "nobody can take it for whole");
    let text = String::from_utf8(decoder.get_ref().clone()).unwrap();
    assert!(text.lines().last().unwrap().contains("DRAINING"), "{text}");
}
