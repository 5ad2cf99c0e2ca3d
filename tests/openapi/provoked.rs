//! Every status that is described is provoked, with every header that is described: by requests where those can, else by
//! the state of the server.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    io,
    path::Path,
    sync::{Arc, mpsc},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use tandem::{
    api::rest::Door,
    config::{Cors, SnapshotPolicy, SyncMode},
    disk::simulated::{Operation as DiskOperation, SimulatedFileSystem},
    engine::{Engine, Options, clock::SystemTimeSource},
    limits::Limits,
    metrics::Metrics,
    service::Service,
    traces::Traces,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::{
    Operation, ask,
    cases::{Case, cases},
    good_requests, operation, operations,
    support::{Answer, Client, Server, client, described, send},
};

/// The header names that were seen, by operation and status.
type Seen = BTreeMap<(String, String), BTreeSet<String>>;

fn note(seen: &mut Seen, operation: &Operation, answer: &Answer) {
    let names = answer.headers.keys().map(|name| name.as_str().to_owned());
    seen.entry((operation.id.to_owned(), answer.status.to_string())).or_default().extend(names);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_described_status_and_header_is_provoked() {
    let mut seen = Seen::new();
    by_requests(&mut seen).await;
    by_slow_bodies(&mut seen).await;
    by_too_many_connections(&mut seen).await;
    by_a_store_that_loads(&mut seen).await;
    by_a_disk_that_is_slow(&mut seen).await;
    by_a_disk_that_is_full(&mut seen).await;
    for operation in operations() {
        for (status, response) in operation.json["responses"].as_object().unwrap() {
            if status == "500" {
                // A fault of the server, which nothing provokes.
                continue;
            }
            let what = format!("{} is described to answer {status}", operation.id);
            let Some(names) = seen.get(&(operation.id.to_owned(), status.clone())) else {
                panic!("{what}: never seen")
            };
            for name in response["headers"].as_object().unwrap().keys() {
                // A connection that is refused has no request, and so no trace.
                let named = status == "429" || names.contains(&name.to_ascii_lowercase());
                assert!(named, "{what} with {name}: never seen");
            }
        }
    }
}

/// Every request is traced, so that every answer says its span. Nobody listens there, which holds nothing up.
const TRACED: [(&str, &str); 2] =
    [("TANDEM__TELEMETRY__OTLP_ENDPOINT", "http://127.0.0.1:1"), ("TANDEM__TELEMETRY__TRACE_SAMPLE_RATIO", "1")];

fn traced_with(setting: (&'static str, &'static str)) -> [(&'static str, &'static str); 3] {
    [TRACED[0], TRACED[1], setting]
}

fn traced() -> Traces {
    Traces::to(TRACED[0].1, 1_000_000, Box::new(|_, _| {})).unwrap()
}

async fn by_requests(seen: &mut Seen) {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &traced_with(("TANDEM__LIMITS__WATCH_HISTORY_EVENTS", "1")));
    let client = client();
    for case in cases() {
        let operation = operation(&case.operation);
        let answer = ask(&client, &operation, &server.url(&case.path), &case.headers, &case.body).await;
        assert_eq!(
            answer.status,
            case.status,
            "{} {} {:?}: {}",
            case.operation,
            case.path,
            case.headers,
            answer.text()
        );
        note(seen, &operation, &answer);
    }
    let long = "x".repeat(20_000);
    for (operation, case) in good_requests() {
        let headers = [("x-long", long.as_str())];
        let answer = ask(&client, &operation, &server.url(&case.path), &headers, &case.body).await;
        assert_eq!(answer.status, 431, "{}", operation.id);
        note(seen, &operation, &answer);
    }
}

async fn by_slow_bodies(seen: &mut Seen) {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &traced_with(("TANDEM__LIMITS__BODY_TIMEOUT", "100ms")));
    for (operation, case) in good_requests() {
        if operation.json.get("requestBody").is_none() {
            continue;
        }
        let mut stream = TcpStream::connect(&server.http).await.unwrap();
        let head = format!(
            "{} {} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nkv-timing: 1\r\ncontent-length: 4\r\n\r\n",
            operation.method, case.path
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let answer = read_raw(&mut stream).await;
        assert_eq!(answer.status, 408, "{}", operation.id);
        described::check(&operation.method, &server.url(&case.path), &answer);
        note(seen, &operation, &answer);
    }
}

async fn by_too_many_connections(seen: &mut Seen) {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start_with(data.path(), &[("TANDEM__LIMITS__CONNECTIONS", "1")]);
    let client = client();
    send(&client, "GET", &server.url("/v1/kv/held"), &[], b"").await;
    // The client keeps its connection. Another is refused whatever it is for, before it could say.
    let mut stream = TcpStream::connect(&server.http).await.unwrap();
    let answer = read_raw(&mut stream).await;
    assert_eq!(answer.status, 429);
    for (operation, case) in good_requests() {
        // To HEAD as well it is told whole, since nobody knows that it is HEAD.
        if operation.method != "HEAD" {
            described::check(&operation.method, &server.url(&case.path), &answer);
        }
        note(seen, &operation, &answer);
    }
}

/// An answer that ends with its connection.
async fn read_raw(stream: &mut TcpStream) -> Answer {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let header = |line: &str| {
        let (name, value) = line.split_once(": ").unwrap();
        (name.parse::<http::HeaderName>().unwrap(), value.parse::<http::HeaderValue>().unwrap())
    };
    Answer { status, headers: lines.map(header).collect(), body: body.to_owned().into() }
}

/// A REST door in this process. Ends with the runtime.
async fn serve(service: Service) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let door = Door::new(service, &Cors::default());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let door = door.clone();
            let answer = hyper::service::service_fn(move |request| {
                let door = door.clone();
                async move { Ok::<_, Infallible>(door.answer(request).await) }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
        }
    });
    format!("http://{address}")
}

/// A store over a disk that can be made to fail.
fn store(disk: &SimulatedFileSystem, limits: Limits) -> Service {
    let metrics = Metrics::new(false).unwrap();
    let options = Options {
        data_directory: "data".into(),
        segment_bytes: 64 * 1024,
        sync: SyncMode::Always,
        sync_interval: Duration::from_secs(3_600),
        limits: limits.clone(),
        snapshot: SnapshotPolicy::default(),
        progress: Arc::default(),
    };
    let time = Box::new(SystemTimeSource::default());
    let service = Service::new(limits, metrics.clone(), traced());
    service.open(Engine::open(Arc::new(disk.clone()), &options, time, metrics).unwrap().0);
    service
}

/// Sends the good request of each operation that is described to answer so, and sees that it does.
async fn all_answer(seen: &mut Seen, client: &Client, base: &str, status: u16) {
    for (operation, case) in good_requests() {
        if operation.json["responses"].get(status.to_string()).is_none() {
            continue;
        }
        let Case { path, headers, body, .. } = case;
        let answer = ask(client, &operation, &format!("{base}{path}"), &headers, &body).await;
        assert_eq!(answer.status, status, "{} {}: {}", operation.id, path, answer.text());
        note(seen, &operation, &answer);
    }
}

async fn put(client: &Client, base: &str, key: &str, value: &[u8]) -> u16 {
    send(client, "PUT", &format!("{base}/v1/kv/{key}"), &[], value).await.status
}

async fn by_a_store_that_loads(seen: &mut Seen) {
    let base = serve(Service::new(Limits::default(), Metrics::new(false).unwrap(), traced())).await;
    all_answer(seen, &client(), &base, 503).await;
}

async fn by_a_disk_that_is_slow(seen: &mut Seen) {
    let disk = SimulatedFileSystem::default();
    let limits = Limits { request_timeout: Duration::from_millis(50), ..Limits::default() };
    let base = serve(store(&disk, limits)).await;
    let client = client();
    for key in ["greeting", "gone"] {
        assert_eq!(put(&client, &base, key, b"hello").await, 201);
    }
    let (release, held) = mpsc::channel::<()>();
    disk.inject(move |operation, _| {
        if operation == DiskOperation::Sync {
            // Until the other end is dropped.
            let _ = held.recv();
        }
        None
    });
    all_answer(seen, &client, &base, 504).await;
    drop(release);
}

async fn by_a_disk_that_is_full(seen: &mut Seen) {
    const ENOSPC: i32 = 28;
    let disk = SimulatedFileSystem::default();
    let base = serve(store(&disk, Limits::default())).await;
    let client = client();
    for key in ["greeting", "gone"] {
        assert_eq!(put(&client, &base, key, b"hello").await, 201);
    }
    // The next segment cannot be made ready.
    disk.inject(|operation, path| {
        let next = path == Path::new("data/wal/next.tmp");
        (operation == DiskOperation::Write && next).then(|| io::Error::from_raw_os_error(ENOSPC))
    });
    let mut puts = 0;
    while put(&client, &base, "grows", &[b'x'; 3_000]).await < 300 {
        puts += 1;
        assert!(puts < 100, "never full");
    }
    all_answer(seen, &client, &base, 507).await;
}
