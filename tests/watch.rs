//! Watching over HTTP as browsers and shells do it: server-sent events byte by byte, resuming, slow readers, stops.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod support;

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use self::support::{Server, client, send};

/// A response that is read as it comes.
struct Reader {
    stream: TcpStream,
    text: Vec<u8>,
}

impl Reader {
    async fn get(address: &str, path: &str, headers: &str) -> Self {
        Self::get_with(address, path, headers, None).await
    }

    /// `receive_bytes` keeps the kernel from buffering for a reader that does not read.
    async fn get_with(address: &str, path: &str, headers: &str, receive_bytes: Option<u32>) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        if let Some(bytes) = receive_bytes {
            socket.set_recv_buffer_size(bytes).unwrap();
        }
        let mut stream = socket.connect(address.parse().unwrap()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        Self { stream, text: Vec::new() }
    }

    async fn more(&mut self) -> bool {
        let mut piece = vec![0; 64 * 1024];
        let read = tokio::time::timeout(Duration::from_secs(30), self.stream.read(&mut piece));
        let bytes = read.await.expect("something within 30 s").unwrap_or(0);
        self.text.extend_from_slice(&piece[..bytes]);
        bytes > 0
    }

    /// Reads on until `part` is there, which is taken with all that comes before it.
    async fn until(&mut self, part: &str) -> String {
        let mut searched = 0;
        loop {
            let found = self.text[searched..].windows(part.len()).position(|window| window == part.as_bytes());
            if let Some(at) = found {
                let taken: Vec<_> = self.text.drain(..searched + at + part.len()).collect();
                return String::from_utf8(taken).unwrap();
            }
            searched = (self.text.len() + 1).saturating_sub(part.len());
            assert!(self.more().await, "ended before {part:?}: {}", String::from_utf8_lossy(&self.text));
        }
    }

    /// The next chunk of a chunked body.
    async fn chunk(&mut self) -> String {
        let size = self.until("\r\n").await;
        let bytes = usize::from_str_radix(size.trim(), 16).unwrap_or_else(|_| panic!("no chunk size: {size:?}"));
        while self.text.len() < bytes + 2 {
            assert!(self.more().await, "ended within a chunk");
        }
        let chunk: Vec<_> = self.text.drain(..bytes + 2).collect();
        String::from_utf8(chunk[..bytes].to_vec()).unwrap()
    }

    async fn rest(mut self) -> String {
        while self.more().await {}
        String::from_utf8_lossy(&self.text).into_owned()
    }
}

const SSE: &str = "accept: text/event-stream\r\n";

async fn put(server: &Server, key: &str, value: &[u8]) -> u64 {
    let answer = send(&client(), "PUT", &server.url(&format!("/v1/kv/{key}")), &[], value).await;
    answer.header("kv-revision").unwrap().parse().unwrap()
}

#[tokio::test]
async fn server_sent_events_are_as_a_browser_wants_them() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let mut reader = Reader::get(&server.http, "/v1/watch?prefix=a", SSE).await;
    let head = reader.until("\r\n\r\n").await.to_lowercase();
    for line in ["http/1.1 200", "content-type: text/event-stream", "cache-control: no-store", "x-accel-buffering: no"]
    {
        assert!(head.contains(line), "{line} in {head}");
    }
    assert!(!head.contains("content-encoding"));
    let hello = reader.chunk().await;
    let begin: u64 = hello.strip_prefix("id: ").unwrap().strip_suffix("\n\n").unwrap().parse().unwrap();
    let revision = put(&server, "a1", b"line\nbreak").await;
    assert!(revision > begin);
    let message = reader.chunk().await;
    let (id, data) = message.split_once("\ndata: ").unwrap();
    assert_eq!(id, format!("id: {revision}"), "a change is of the default type");
    let json: serde_json::Value = serde_json::from_str(data.strip_suffix("\n\n").unwrap()).unwrap();
    assert_eq!(json["revision"], revision);
    assert_eq!(json["events"][0]["kind"], "put");
    assert_eq!(json["events"][0]["entry"]["value"], "line\nbreak");
    assert!(json.get("partial").is_none());
    send(&client(), "DELETE", &server.url("/v1/kv/a1"), &[], b"").await;
    let message = reader.chunk().await;
    let removed =
        format!("\"events\":[{{\"kind\":\"delete\",\"entry\":{{\"key\":\"a1\",\"revision\":{}}}}}]", revision + 1);
    assert!(message.contains(&removed), "{message}");
}

#[tokio::test]
async fn a_browser_resumes_by_itself_where_it_left_off() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let first = put(&server, "a", b"1").await;
    let second = put(&server, "a", b"2").await;
    let third = put(&server, "a", b"3").await;
    // The header wins over what the address asks for.
    let resume = format!("{SSE}last-event-id: {first}\r\n");
    let path = format!("/v1/watch?prefix=a&initial_state&start_revision={third}");
    let mut reader = Reader::get(&server.http, &path, &resume).await;
    reader.until("\r\n\r\n").await;
    assert_eq!(reader.chunk().await, format!("id: {first}\n\n"));
    for revision in [second, third] {
        assert!(reader.chunk().await.starts_with(&format!("id: {revision}\ndata: {{\"revision\":{revision},")));
    }
    let bad = format!("{SSE}last-event-id: x\r\nconnection: close\r\n");
    let refused = Reader::get(&server.http, "/v1/watch?prefix=a", &bad).await.rest().await;
    assert!(refused.starts_with("HTTP/1.1 400") && refused.contains("MALFORMED"), "{refused}");
}

#[tokio::test]
async fn the_state_comes_first_then_synced_and_only_that_can_be_resumed_from() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    put(&server, "a", b"1").await;
    let last = put(&server, "b", b"2").await;
    let mut reader = Reader::get(&server.http, "/v1/watch?all&initial_state", SSE).await;
    reader.until("\r\n\r\n").await;
    let state = reader.chunk().await;
    let json: serde_json::Value = serde_json::from_str(state.strip_prefix("data: ").unwrap().trim_end()).unwrap();
    assert_eq!((json["revision"].as_u64(), json["partial"].as_bool()), (Some(last), Some(true)));
    assert_eq!(json["events"].as_array().unwrap().len(), 2);
    let synced = format!("event: synced\nid: {last}\ndata: {{\"revision\":{last},\"synced\":true}}\n\n");
    assert_eq!(reader.chunk().await, synced);
    let next = put(&server, "c", b"3").await;
    assert!(reader.chunk().await.starts_with(&format!("id: {next}\n")));
}

#[tokio::test]
async fn history_that_is_gone_is_410_before_the_stream_or_a_reset_and_the_state() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &[("TANDEM__LIMITS__WATCH_HISTORY_EVENTS", "2")]);
    let mut revisions = Vec::new();
    for number in 0..5 {
        revisions.push(put(&server, "a", number.to_string().as_bytes()).await);
    }
    let url = server.url(&format!("/v1/watch?prefix=a&start_revision={}", revisions[1]));
    let gone = send(&client(), "GET", &url, &[("accept", "text/event-stream")], b"").await;
    assert_eq!((gone.status, gone.header("kv-reason")), (410, Some("REVISION_COMPACTED")));
    assert_eq!(gone.json()["oldest_revision"], revisions[3]);
    let future = send(&client(), "GET", &server.url("/v1/watch?all&start_revision=999999"), &[], b"").await;
    assert_eq!((future.status, future.header("kv-reason")), (400, Some("REVISION_FUTURE")));
    let path = format!("/v1/watch?prefix=a&initial_state&start_revision={}", revisions[1]);
    let mut reader = Reader::get(&server.http, &path, SSE).await;
    reader.until("\r\n\r\n").await;
    let reset = reader.chunk().await;
    assert!(reset.starts_with("event: reset\ndata: {") && !reset.contains("id:"), "{reset}");
    assert!(reader.chunk().await.contains("\"value\":\"4\""));
    assert!(reader.chunk().await.starts_with("event: synced\n"));
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_ended_with_the_revision_to_resume_from() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &[("TANDEM__LIMITS__WATCHER_BUFFER_REVISIONS", "4")]);
    for headers in ["", SSE] {
        let mut reader = Reader::get_with(&server.http, "/v1/watch?prefix=a", headers, Some(4_096)).await;
        reader.until("\r\n\r\n").await;
        let dropped = async || {
            let metrics = send(&client(), "GET", &format!("http://{}/metrics", server.ops), &[], b"").await.text();
            let line = metrics.lines().find(|line| line.starts_with("tandem_watch_dropped_total ")).unwrap();
            line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
        };
        let before = dropped().await;
        let value = vec![b'x'; 300_000];
        // The writers go on unharmed while the watcher's buffer, and the kernel's, are full.
        for _ in 0..48 {
            put(&server, "a", &value).await;
        }
        let newest = put(&server, "a", b"last").await;
        let text = reader.rest().await;
        let end = text.rsplit('\n').find(|line| line.contains("WATCHER_TOO_SLOW")).expect("the last words say why");
        let json = &end[end.find('{').unwrap()..];
        let json: serde_json::Value = serde_json::from_str(json).unwrap();
        let problem = json.get("error").unwrap_or(&json);
        let resume = problem["resume_revision"].as_u64().unwrap();
        assert!(resume > 1 && resume <= newest);
        assert_eq!(text.contains("event: problem\n"), headers == SSE);
        assert!(!text.ends_with("0\r\n\r\n"), "the body is broken off: nobody takes it for whole");
        assert_eq!(dropped().await, before + 1);
        let path = format!("/v1/watch?prefix=a&start_revision={resume}");
        let mut again = Reader::get(&server.http, &path, "").await;
        again.until(&format!("{{\"revision\":{newest},")).await;
    }
}

#[tokio::test]
async fn a_stop_ends_watchers_with_draining_and_does_not_wait_for_them() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let mut lines = Reader::get(&server.http, "/v1/watch?all", "").await;
    let mut events = Reader::get(&server.http, "/v1/watch?all", SSE).await;
    lines.until("\r\n\r\n").await;
    events.until("\r\n\r\n").await;
    let started = std::time::Instant::now();
    assert_eq!(server.stop(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(15), "the drain timeout was not needed");
    assert!(lines.rest().await.contains("{\"error\":{"));
    let text = events.rest().await;
    assert!(text.contains("event: problem\n") && text.contains("\"reason\":\"DRAINING\""), "{text}");
}

#[tokio::test]
async fn a_scan_that_its_reader_leaves_stops() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let value = "x".repeat(2_000);
    for batch in 0..20 {
        let writes: Vec<_> = (0..500)
            .map(|number| serde_json::json!({"put": {"key": format!("s/{batch:02}/{number:03}"), "value": value}}))
            .collect();
        let body = serde_json::json!({ "writes": writes }).to_string();
        assert_eq!(send(&client(), "POST", &server.url("/v1/kv:batchWrite"), &[], body.as_bytes()).await.status, 200);
    }
    let sent = async || {
        let answer = send(&client(), "GET", &server.url("/v1/kv:count?prefix=s/"), &[], b"").await;
        answer.json()["count"].as_u64().unwrap()
    };
    let mut reader =
        Reader::get_with(&server.http, "/v1/kv?prefix=s/", "accept: application/x-ndjson\r\n", Some(4_096)).await;
    let head = reader.until("\r\n\r\n").await.to_lowercase();
    assert!(
        head.contains("content-type: application/x-ndjson") && head.contains("transfer-encoding: chunked"),
        "{head}"
    );
    let first = reader.chunk().await;
    assert!(first.starts_with("{\"key\":\"s/00/000\"") && first.ends_with("}\n"));
    drop(reader);
    assert_eq!(sent().await, 10_000, "the server goes on");
    let all =
        send(&client(), "GET", &server.url("/v1/kv?prefix=s/&keys_only"), &[("accept", "application/x-ndjson")], b"")
            .await;
    assert_eq!(all.text().lines().count(), 10_001);
    let removed = send(&client(), "DELETE", &server.url("/v1/kv?prefix=s/"), &[], b"").await;
    assert_eq!((removed.status, removed.json()["deleted"].as_u64()), (200, Some(10_000)));
    assert!(removed.header("kv-revision").is_some() && removed.header("kv-durability") == Some("fsynced"));
}
