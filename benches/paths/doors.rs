//! A whole request through a door, over a pipe in memory: hyper, the door, the service, the store. The client is made of
//! bytes, so that nearly all of what is measured is the server.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tandem::{
    api::{grpc, rest},
    config::{Cors, SnapshotPolicy, SyncMode},
    disk::simulated::SimulatedFileSystem,
    engine::{Engine, Options, clock::SystemTimeSource},
    limits::Limits,
    metrics::Metrics,
    pb::{self, storage::log_record::Command},
    service::Service,
    traces::Traces,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    runtime::Runtime,
};

use super::{Path, VALUE, key};

const KEYS: u64 = 1_000;
const PIPE_BYTES: usize = 64 << 10;

/// A service over a store with some keys, on a disk in memory.
fn service(runtime: &Runtime, with_metrics: bool) -> Service {
    let options = Options {
        data_directory: "data".into(),
        segment_bytes: 16 << 20,
        sync: SyncMode::Never,
        sync_interval: Duration::from_secs(1),
        limits: Limits::default(),
        snapshot: SnapshotPolicy::default(),
        progress: Arc::default(),
    };
    let metrics = Metrics::new(with_metrics).unwrap();
    let disk = Arc::new(SimulatedFileSystem::default());
    let (engine, _) = Engine::open(disk, &options, Box::new(SystemTimeSource::default()), metrics.clone()).unwrap();
    let service = Service::new(options.limits, metrics, Traces::off());
    service.open(engine);
    runtime.block_on(async {
        for number in 0..KEYS {
            let put = pb::PutRequest { key: key(number), value: Bytes::from_static(&VALUE), ..Default::default() };
            let deadline = std::time::Instant::now() + Duration::from_secs(60);
            let engine = service.engine().unwrap();
            engine.propose(Command::Put(put), pb::WriteOptions::default(), deadline).await.unwrap();
        }
    });
    service
}

/// Serves one connection, whose other end this is.
fn serve<A, F, B>(runtime: &Runtime, answer: A) -> DuplexStream
where
    A: Fn(Request<Incoming>) -> F + Send + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (client, server) = tokio::io::duplex(PIPE_BYTES);
    runtime.spawn(async move {
        let answer = service_fn(move |request| {
            let answered = answer(request);
            async { Ok::<_, std::convert::Infallible>(answered.await) }
        });
        // It ends with the process.
        let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(server), answer).await;
    });
    client
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

pub fn rest_get(with_metrics: bool) -> Path {
    let runtime = runtime();
    let door = rest::Door::new(service(&runtime, with_metrics), &Cors::default());
    let mut client = serve(&runtime, move |request| door.answer(request));
    let path = String::from_utf8(key(7).to_vec()).unwrap();
    let request = format!("GET /v1/kv/{path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n");
    let mut answer = Vec::with_capacity(PIPE_BYTES);
    Box::new(move || {
        runtime.block_on(async {
            client.write_all(request.as_bytes()).await.unwrap();
            answer.clear();
            while !answer.ends_with(&VALUE) {
                client.read_buf(&mut answer).await.unwrap();
            }
            assert!(answer.starts_with(b"HTTP/1.1 200"));
        });
    })
}

pub fn grpc_get(with_metrics: bool) -> Path {
    let runtime = runtime();
    let (door, _reporter) = grpc::door(&service(&runtime, with_metrics), &Cors::default()).unwrap();
    let mut client = serve(&runtime, move |request| door.answer(request));
    // The preface, no settings, and a window that is never used up.
    let mut opening = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    opening.extend(frame(SETTINGS, 0, 0, &[]));
    opening.extend(frame(WINDOW_UPDATE, 0, 0, &(u32::MAX / 2 - 65_535).to_be_bytes()));
    runtime.block_on(client.write_all(&opening)).unwrap();
    let (headers, message, mut stream) = (headers(), message(&key(7)), 1);
    Box::new(move || {
        let mut request = frame(HEADERS, END_HEADERS, stream, &headers);
        request.extend(frame(DATA, END_STREAM, stream, &message));
        runtime.block_on(async {
            client.write_all(&request).await.unwrap();
            until_end_of(&mut client, stream).await;
        });
        stream += 2;
    })
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The header block of a call: indexed names of HPACK's static table, and literals that are not added to the other one.
fn headers() -> Vec<u8> {
    const POST: u8 = 0x83;
    const HTTP: u8 = 0x86;
    const LITERAL: u8 = 0x00;
    let text = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
    let mut block = vec![POST, HTTP];
    for (name, value) in [
        (":path", "/tandem.v1.KvService/Get"),
        (":authority", "127.0.0.1"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        block.push(LITERAL);
        block.extend(text(name));
        block.extend(text(value));
    }
    block
}

/// A request in gRPC's framing.
fn message(key: &Bytes) -> Vec<u8> {
    let request = prost::Message::encode_to_vec(&pb::GetRequest { key: key.clone(), metadata_only: false });
    [&[0], &(request.len() as u32).to_be_bytes()[..], &request].concat()
}

/// Reads frames until the stream ends, and checks that the answer carried a value.
async fn until_end_of(client: &mut DuplexStream, stream: u32) {
    let (mut head, mut payload, mut bytes) = ([0; 9], Vec::new(), 0);
    loop {
        client.read_exact(&mut head).await.unwrap();
        payload.resize(u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize, 0);
        client.read_exact(&mut payload).await.unwrap();
        let of = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        if of == stream && head[3] == DATA {
            bytes += payload.len();
        }
        if of == stream && head[4] & END_STREAM != 0 && head[3] <= HEADERS {
            return assert!(bytes > VALUE.len());
        }
    }
}
