//! A server's life: starting, waiting, limits on connections and time, stopping, exit codes.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod support;

use std::{
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use support::{Server, client, eventually, send};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

fn tandem(directory: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(support::binary())
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(directory)
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_wrong_configuration_is_told_whole_and_exits_with_64() {
    let directory = tempfile::tempdir().unwrap();
    let bad = [("TANDEM__WAL__SNYC", "always"), ("TANDEM__LIMITS__KEY_BYTES", "9GiB")];
    for arguments in [&["serve"][..], &[], &["config", "check"], &["config", "show"]] {
        let output = tandem(directory.path(), arguments, &bad);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        let text = stderr(&output);
        assert!(text.contains("wal.snyc") && text.contains("limits.key_bytes") && text.contains("wal.sync?"), "{text}");
    }
    assert!(!directory.path().join("data").exists(), "nothing was touched");
    for wrong in
        [&["--no-such-flag"][..], &["no-such-command"], &["--http-address", "nowhere"], &["--log-level", "info=x=y"]]
    {
        assert_eq!(tandem(directory.path(), wrong, &[]).status.code(), Some(64), "{wrong:?}");
    }
}

#[test]
fn help_version_and_configuration_are_shown() {
    let directory = tempfile::tempdir().unwrap();
    for arguments in
        [&["--help"][..], &["--version"], &["config", "show"], &["config", "check"], &["healthcheck", "--help"]]
    {
        let output = tandem(directory.path(), arguments, &[]);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(!output.stdout.is_empty());
    }
    let help = String::from_utf8(tandem(directory.path(), &["--help"], &[]).stdout).unwrap();
    for part in ["Examples:", "Exit codes:", "--data-dir", "64", "config", "healthcheck"] {
        assert!(help.contains(part), "{part} in {help}");
    }
    let shown = tandem(directory.path(), &["config", "show", "--data-dir", "/x"], &[("TANDEM__WAL__SYNC", "never")]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("sync: never  # environment TANDEM__WAL__SYNC"), "{shown}");
    assert!(shown.contains("data_dir: /x  # flag --data-dir") && shown.contains("# default"), "{shown}");
}

#[test]
fn a_second_server_on_the_same_data_is_refused_with_2() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let refused = Server::try_start(data.path(), &[], &[]).map(|_| ()).unwrap_err();
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains(&format!("process {}", server.child.id())), "{}", refused.stderr);
}

#[test]
fn damaged_data_is_refused_with_2_and_a_message_that_helps() {
    let data = tempfile::tempdir().unwrap();
    assert_eq!(Server::start(data.path()).stop(), Some(0));
    let segment = data.path().join("wal/00000000000000000001.wal");
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[4096 + 40] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let refused = Server::try_start(data.path(), &[], &[]).map(|_| ()).unwrap_err();
    assert_eq!(refused.code, Some(2));
    for part in ["00000000000000000001.wal", "at offset 4096", "damaged", "Remedy: "] {
        assert!(refused.stderr.contains(part), "{part} in {}", refused.stderr);
    }
}

#[test]
fn a_port_in_use_is_an_error_that_names_it() {
    let data = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = tandem(data.path(), &["--http-address", &address], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains(&address) && stderr(&output).contains("server.http_address"),
        "{}",
        stderr(&output)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_and_healthcheck_tell_whether_it_is_ready() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let ops = format!("http://{}", server.ops);
    let client = client();
    assert_eq!(send(&client, "GET", &format!("{ops}/livez"), &[], b"").await.status, 200);
    assert_eq!(send(&client, "GET", &format!("{ops}/readyz"), &[], b"").await.text(), "ok\n");
    let verbose = send(&client, "GET", &format!("{ops}/readyz?verbose"), &[], b"").await.text();
    assert!(verbose.contains("[+]log ok") && verbose.contains("[+]disk ok") && verbose.ends_with("ok\n"), "{verbose}");
    assert_eq!(tandem(data.path(), &["healthcheck", "--endpoint", &ops], &[]).status.code(), Some(0));
    assert_eq!(tandem(data.path(), &["healthcheck", "--ops-address", &server.ops], &[]).status.code(), Some(0));
    assert_eq!(server.stop(), Some(0));
    let output = tandem(data.path(), &["healthcheck", "--endpoint", &ops], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(!output.stderr.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_finishes_what_is_in_flight_and_restarts_clean() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &[("TANDEM__LIMITS__WAITS", "1")]);
    // A put whose body is half there when the stop comes.
    let mut stream = half_a_put(&server).await;
    // And a held get, which is answered at once.
    let client = client();
    let held = tokio::spawn({
        let (client, url) = (client.clone(), server.url("/v1/kv/never?wait=60s"));
        // The probe below may take the only place for a moment.
        async move {
            loop {
                let answer = send(&client, "GET", &url, &[], b"").await;
                if answer.status != 429 {
                    return answer;
                }
            }
        }
    });
    eventually("the get is held", async || {
        let second = send(&client, "GET", &server.url("/v1/kv/never?wait=1ms"), &[], b"").await;
        (second.status == 429).then_some(())
    })
    .await;
    let ready = format!("http://{}/readyz", server.ops);
    server.signal("TERM");
    eventually("readiness turns false", async || {
        let answer = send(&client, "GET", &ready, &[], b"").await;
        (answer.status == 503 && answer.text() == "DRAINING\n").then_some(())
    })
    .await;
    eventually("it accepts no more", async || refuses(&server.http).await.then_some(())).await;
    assert_eq!(held.await.unwrap().status, 404);
    stream.write_all(b"lf").await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 201"), "{answer:?}");
    let mut server = server;
    assert_eq!(server.exit_code(), Some(0));
    let server = Server::start(data.path());
    assert!(server.banner[2].contains("clean stop") && !server.banner[2].contains("unclean"), "{}", server.banner[2]);
    assert_eq!(send(&client, "GET", &server.url("/v1/kv/slow"), &[], b"").await.text(), "half");
}

/// A put in flight: the server has begun to read its body, and half of it is still to come.
async fn half_a_put(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(&server.http).await.unwrap();
    let head = "PUT /v1/kv/slow HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"ha").await.unwrap();
    stream
}

/// Whether a connection is closed without an answer.
async fn refuses(address: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(address).await else { return true };
    let _ = stream.write_all(b"GET /v1/kv/a HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut answer = Vec::new();
    matches!(stream.read_to_end(&mut answer).await, Ok(0) | Err(_))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_it_at_once() {
    let data = tempfile::tempdir().unwrap();
    let mut server = Server::start(data.path());
    let _stream = half_a_put(&server).await;
    let client = client();
    let ready = format!("http://{}/readyz", server.ops);
    server.signal("INT");
    eventually("it drains", async || (send(&client, "GET", &ready, &[], b"").await.status == 503).then_some(())).await;
    let started = Instant::now();
    server.signal("TERM");
    assert_eq!(server.exit_code(), Some(130));
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_get_is_answered_by_the_change_it_waits_for() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let client = client();
    let url = server.url("/v1/kv/key");
    let wait = format!("{url}?wait=30s");
    let held = tokio::spawn({
        let (client, wait) = (client.clone(), wait.clone());
        async move { send(&client, "GET", &wait, &[], b"").await }
    });
    send(&client, "PUT", &url, &[], b"1").await;
    let first = held.await.unwrap();
    assert_eq!((first.status, first.text().as_str()), (200, "1"));
    let tag = first.header("etag").unwrap().to_owned();
    let unchanged = send(&client, "GET", &format!("{url}?wait=20ms"), &[("if-none-match", &tag)], b"").await;
    assert_eq!((unchanged.status, unchanged.header("etag")), (304, Some(tag.as_str())));
    let held = tokio::spawn({
        let (client, wait, tag) = (client.clone(), wait.clone(), tag.clone());
        async move { send(&client, "GET", &wait, &[("if-none-match", &tag)], b"").await }
    });
    send(&client, "DELETE", &url, &[], b"").await;
    assert_eq!(held.await.unwrap().status, 404, "to one who knew it, its end is news");
    let nothing = send(&client, "GET", &format!("{url}?wait=20ms"), &[], b"").await;
    assert_eq!((nothing.status, nothing.header("kv-store-revision").is_some()), (404, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_and_slow_connections_are_dropped() {
    let data = tempfile::tempdir().unwrap();
    let limits = [("TANDEM__LIMITS__HEADER_TIMEOUT", "200ms"), ("TANDEM__LIMITS__BODY_TIMEOUT", "200ms")];
    let server = Server::start_with(data.path(), &limits);
    let starts: [(&str, &[u8]); 5] = [
        (&server.http, b""),
        (&server.http, b"GET /v1/kv/a HTTP/1.1\r\nhos"),
        (&server.grpc, b""),
        (&server.grpc, b"PRI * HTTP/2.0\r\n"),
        (&server.grpc, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"),
    ];
    for (address, start) in starts {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(start).await.unwrap();
        let mut answer = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
        assert!(closed.is_ok(), "{start:?} keeps its connection");
    }
    let mut stream = TcpStream::connect(&server.http).await.unwrap();
    stream.write_all(b"PUT /v1/kv/a HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nha").await.unwrap();
    let mut answer = vec![0; 600];
    let read = stream.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]);
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("kv-reason: BODY_TIMEOUT"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_too_many_is_told_so() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &[("TANDEM__LIMITS__CONNECTIONS", "2")]);
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(&server.http).await.unwrap();
        stream.write_all(b"GET /v1/kv/a HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut answer = [0; 100];
        assert!(stream.read(&mut answer).await.unwrap() > 0);
        held.push(stream);
    }
    let mut stream = TcpStream::connect(&server.http).await.unwrap();
    // Also to one who does not wait to be heard.
    stream.write_all(&[b'x'; 300_000]).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 429") && answer.contains("OVERLOADED"), "{answer}");
    assert!(answer.contains("\r\nkv-trace-id: "), "{answer}");
    drop(held);
    eventually("a place is free again", async || {
        let mut stream = TcpStream::connect(&server.http).await.ok()?;
        stream.write_all(b"GET /v1/kv/a HTTP/1.1\r\nhost: x\r\n\r\n").await.ok()?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.ok()?;
        (&answer == b"HTTP/1.1 404").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_says_overloaded() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &[("TANDEM__LIMITS__QUEUE_ITEMS", "1")]);
    let client = client();
    let overloaded = eventually("the queue is full once", async || {
        let puts = (0..32).map(|number| {
            let (client, url) = (client.clone(), server.url(&format!("/v1/kv/{number}")));
            tokio::spawn(async move { send(&client, "PUT", &url, &[], b"x").await })
        });
        let mut refused = None;
        for put in puts.collect::<Vec<_>>() {
            let answer = put.await.unwrap();
            match answer.status {
                200 | 201 => {}
                _ => refused = Some(answer),
            }
        }
        refused
    })
    .await;
    assert_eq!((overloaded.status, overloaded.header("kv-reason")), (429, Some("OVERLOADED")));
    assert!(overloaded.header("retry-after").is_some());
    assert_eq!(overloaded.json()["outcome"], "NOT_APPLIED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_entries_are_removed_through_the_log_within_their_time() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let client = client();
    for number in 0..500 {
        let url = server.url(&format!("/v1/kv/{number}?ttl=300ms&durability=written"));
        assert_eq!(send(&client, "PUT", &url, &[], b"x").await.status, 201);
    }
    send(&client, "PUT", &server.url("/v1/kv/kept"), &[], b"x").await;
    let metrics = format!("http://{}/metrics", server.ops);
    eventually("only the one without a ttl is left", async || {
        send(&client, "GET", &metrics, &[], b"").await.text().contains("\ntandem_keys 1\n").then_some(())
    })
    .await;
    assert_eq!(server.stop(), Some(0));
    let server = Server::start(data.path());
    assert!(server.banner[2].contains(": 1 keys"), "{}", server.banner[2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_log_refuses_writes_goes_on_reading_and_ends_the_process() {
    let data = tempfile::tempdir().unwrap();
    // No file may grow past 2 MiB: the second segment cannot be made, which is no full disk but a failure.
    let mut limited = Command::new("bash");
    let script = "trap '' XFSZ; ulimit -f 2048; exec \"$0\" \"$@\"";
    limited.args(["-c", script]).arg(support::binary());
    let environment = [("TANDEM__WAL__FAILED_EXIT_AFTER", "2s")];
    let server = Server::try_start_by(limited, data.path(), &[], &environment);
    let mut server = server.unwrap_or_else(|error| panic!("{error:?}"));
    let client = client();
    let value = vec![b'x'; 100_000];
    let mut acknowledged = 0;
    let failed = loop {
        let url = server.url(&format!("/v1/kv/{acknowledged}"));
        let answer = send(&client, "PUT", &url, &[], &value).await;
        if answer.status != 201 {
            break answer;
        }
        acknowledged += 1;
        assert!(acknowledged < 100, "never failed");
    };
    assert_eq!((failed.status, failed.header("kv-reason")), (503, Some("WAL_FAILED")), "{}", failed.text());
    assert_eq!(failed.json()["outcome"], "NOT_APPLIED");
    let again = send(&client, "DELETE", &server.url("/v1/kv/0"), &[], b"").await;
    assert_eq!((again.status, again.header("kv-reason")), (503, Some("WAL_FAILED")));
    let read = send(&client, "GET", &server.url("/v1/kv/0"), &[], b"").await;
    assert_eq!((read.status, read.body.len()), (200, value.len()), "reads go on");
    let ready = send(&client, "GET", &format!("http://{}/readyz?verbose", server.ops), &[], b"").await;
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains("[-]log failed") && ready.text().ends_with("WAL_FAILED\n"), "{}", ready.text());
    assert_eq!(server.exit_code(), Some(1), "ends by itself, and not as if all were well");
    let server = Server::start(data.path());
    for key in 0..acknowledged {
        assert_eq!(send(&client, "GET", &server.url(&format!("/v1/kv/{key}")), &[], b"").await.body.len(), value.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_sent_bodies_are_bounded_together() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &[("TANDEM__LIMITS__BODIES_BYTES", "8MiB")]);
    let client = client();
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", server.grpc)).unwrap();
    let grpc = tandem::pb::kv_service_client::KvServiceClient::new(channel.connect().await.unwrap());
    let put = || tandem::pb::PutRequest { key: "more".into(), value: vec![b'x'; 900_000].into(), ..Default::default() };
    let mut half_sent = Vec::new();
    let (refused, status) = loop {
        assert!(half_sent.len() < 100, "the memory for bodies is never used up");
        let mut stream = TcpStream::connect(&server.http).await.unwrap();
        stream.write_all(b"PUT /v1/kv/half HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n").await.unwrap();
        // One too many is refused before it has sent it all.
        let _ = stream.write_all(&vec![b'x'; 999_999]).await;
        half_sent.push(stream);
        // Both: a body that still arrives may have refused the first, and been refused itself.
        let answer = send(&client, "PUT", &server.url("/v1/kv/more"), &[], &vec![b'x'; 900_000]).await;
        if answer.status == 429
            && let Err(status) = grpc.clone().put(put()).await
        {
            break (answer, status);
        }
    };
    assert_eq!(refused.header("kv-reason"), Some("OVERLOADED"));
    let info = tonic_types::StatusExt::get_details_error_info(&status).unwrap();
    assert_eq!((info.reason.as_str(), info.metadata["outcome"].as_str()), ("OVERLOADED", "NOT_APPLIED"));
    drop(half_sent);
    eventually("it is given back", async || grpc.clone().put(put()).await.ok()).await;
}
