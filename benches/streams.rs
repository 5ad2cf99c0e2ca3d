//! Scans, watchers and range deletes beside ordinary requests, over gRPC on loopback: figures, not assertions.
//!
//!     cargo bench --bench streams -- [KEYS]
//!
//! Starts a server of its own in a temporary directory (`TANDEM_BENCH_DIRECTORY` says where), fills it with KEYS keys of
//! 32 bytes with values of 256, and prints one line a figure. Compare figures of one run only.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use tandem::pb::{self, key_range::Kind, kv_service_client::KvServiceClient};
use tonic::transport::{Channel, Endpoint};

type Store = KvServiceClient<Channel>;

/// How long each load runs.
const ROUND: Duration = Duration::from_secs(4);
const ROUNDS: usize = 3;

struct Server {
    child: Child,
    grpc: String,
    ops: String,
    _data: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let parent = std::env::var_os("TANDEM_BENCH_DIRECTORY").unwrap_or_else(|| ".".into());
        let data = tempfile::Builder::new().prefix("bench.").tempdir_in(parent).unwrap();
        let free = "127.0.0.1:0";
        let mut child = Command::new(env!("CARGO_BIN_EXE_tandem"))
            .args(["--http-address", free, "--grpc-address", free, "--ops-address", free, "--data-dir"])
            .arg(data.path().join("data"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let banner = BufReader::new(child.stdout.take().unwrap()).lines().next().unwrap().unwrap();
        let address = |name: &str| {
            let rest = banner.split(name).nth(1).unwrap().trim_start_matches("http://");
            rest.split([',', ' ']).next().unwrap().to_owned()
        };
        Self { grpc: address("gRPC "), ops: address("ops "), child, _data: data }
    }

    async fn connect(&self) -> Store {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.grpc)).unwrap();
        KvServiceClient::new(endpoint.connect().await.unwrap()).max_decoding_message_size(16 << 20)
    }

    /// Upper bounds and cumulative counts of a histogram.
    fn histogram(&self, name: &str) -> Vec<(f64, u64)> {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(&self.ops).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let prefix = format!("{name}_bucket{{le=\"");
        let buckets = text.lines().filter_map(|line| line.strip_prefix(&prefix));
        let bucket = |line: &str| {
            let (bound, count) = line.split_once("\"} ")?;
            Some((bound.parse().unwrap_or(f64::INFINITY), count.parse().ok()?))
        };
        buckets.filter_map(bucket).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn name(number: u64) -> Bytes {
    // Scattered, so that neither loading nor reading follows the order.
    format!("{:08x}/{number:023}", number.wrapping_mul(2_654_435_761) as u32).into()
}

fn put(key: Bytes) -> pb::PutRequest {
    pb::PutRequest { key, value: Bytes::from_static(&[b'x'; 256]), ..Default::default() }
}

async fn fill(server: &Server, prefix: &'static str, keys: u64) {
    let started = Instant::now();
    let next = Arc::new(AtomicU64::new(0));
    let mut workers = Vec::new();
    for _ in 0..4 {
        let (mut store, next) = (server.connect().await, Arc::clone(&next));
        workers.push(tokio::spawn(async move {
            loop {
                let first = next.fetch_add(1_000, Ordering::Relaxed);
                if first >= keys {
                    return;
                }
                let key = |number| Bytes::from([prefix.as_bytes(), &name(number)].concat());
                let op = |number| pb::WriteOp { op: Some(pb::write_op::Op::Put(put(key(number)))) };
                let options =
                    Some(pb::WriteOptions { durability: pb::Durability::Written.into(), ..Default::default() });
                let writes = (first..keys.min(first + 1_000)).map(op).collect();
                store.batch_write(pb::BatchWriteRequest { writes, options }).await.unwrap();
            }
        }));
    }
    for worker in workers {
        worker.await.unwrap();
    }
    println!("filled {keys} keys: {:.0} keys/s", keys as f64 / started.elapsed().as_secs_f64());
}

/// Latencies of Gets by one caller at a time on each of two connections.
async fn gets(server: &Server, keys: u64) -> Vec<Duration> {
    let mut callers = Vec::new();
    for caller in 0..2 {
        let mut store = server.connect().await;
        callers.push(tokio::spawn(async move {
            let started = Instant::now();
            let mut times = Vec::new();
            let mut number = caller * 7_919;
            while started.elapsed() < ROUND {
                number = (number + 104_729) % keys;
                let begun = Instant::now();
                store.get(pb::GetRequest { key: name(number), metadata_only: false }).await.unwrap();
                times.push(begun.elapsed());
            }
            times
        }));
    }
    let mut times = Vec::new();
    for caller in callers {
        times.extend(caller.await.unwrap());
    }
    times.sort_unstable();
    times
}

fn quantile(times: &[Duration], quantile: f64) -> f64 {
    times[((times.len() - 1) as f64 * quantile) as usize].as_secs_f64() * 1e6
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

async fn scan_beside_gets(server: &Server, keys: u64) {
    let (mut alone, mut beside, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        alone.push(quantile(&gets(server, keys).await, 0.99));
        let stop = Arc::new(AtomicBool::new(false));
        let mut store = server.connect().await;
        let stopped = Arc::clone(&stop);
        let scanner = tokio::spawn(async move {
            let started = Instant::now();
            let mut seen = 0;
            while !stopped.load(Ordering::Relaxed) {
                let range = Some(pb::KeyRange { kind: Some(Kind::All(true)) });
                let mut batches =
                    store.scan(pb::ScanRequest { range, ..Default::default() }).await.unwrap().into_inner();
                while let Some(batch) = batches.message().await.unwrap() {
                    seen += batch.entries.len();
                    if stopped.load(Ordering::Relaxed) {
                        break;
                    }
                }
            }
            seen as f64 / started.elapsed().as_secs_f64()
        });
        beside.push(quantile(&gets(server, keys).await, 0.99));
        stop.store(true, Ordering::Relaxed);
        rates.push(scanner.await.unwrap());
    }
    let (alone, beside) = (median(alone), median(beside));
    println!("scan beside gets: {:.0} keys/s", median(rates));
    println!("get p99 alone {alone:.0} us, beside a scan {beside:.0} us, ratio {:.2}", beside / alone);
}

async fn scan_alone(server: &Server) {
    let mut store = server.connect().await;
    let started = Instant::now();
    let range = Some(pb::KeyRange { kind: Some(Kind::All(true)) });
    let mut batches = store.scan(pb::ScanRequest { range, ..Default::default() }).await.unwrap().into_inner();
    let mut seen = 0;
    while let Some(batch) = batches.message().await.unwrap() {
        seen += batch.entries.len();
    }
    println!("scan alone: {seen} keys, {:.0} keys/s", seen as f64 / started.elapsed().as_secs_f64());
}

/// Puts by 64 callers on four connections for a round: writes a second.
async fn puts(server: &Server) -> f64 {
    let mut callers = Vec::new();
    let started = Instant::now();
    for connection in 0..4_u64 {
        let store = server.connect().await;
        for caller in 0..16_u64 {
            let mut store = store.clone();
            callers.push(tokio::spawn(async move {
                let mut done = 0_u64;
                while started.elapsed() < ROUND {
                    let key = format!("watched/{connection}/{caller}/{}", done % 100).into();
                    store.put(put(key)).await.unwrap();
                    done += 1;
                }
                done
            }));
        }
    }
    let mut done = 0;
    for caller in callers {
        done += caller.await.unwrap();
    }
    done as f64 / started.elapsed().as_secs_f64()
}

/// Watchers of a prefix, each counting what it hears.
async fn watchers(
    server: &Server,
    count: usize,
    prefix: impl Fn(usize) -> String,
    heard: &Arc<AtomicU64>,
) -> Vec<tokio::task::JoinHandle<()>> {
    let mut watching = Vec::new();
    let mut store = server.connect().await;
    for number in 0..count {
        if number % 200 == 0 {
            store = server.connect().await;
        }
        let range = Some(pb::KeyRange { kind: Some(Kind::Prefix(prefix(number).into())) });
        let request = pb::WatchRequest { range, ..Default::default() };
        let mut messages = store.watch(request).await.unwrap().into_inner();
        messages.message().await.unwrap().unwrap();
        let heard = Arc::clone(heard);
        watching.push(tokio::spawn(async move {
            while let Ok(Some(message)) = messages.message().await {
                heard.fetch_add(message.events.len() as u64, Ordering::Relaxed);
            }
        }));
    }
    watching
}

async fn watch(server: &Server) {
    for (label, count, idle) in
        [("1", 1, false), ("100", 100, false), ("1000", 1_000, false), ("10000 idle", 10_000, true)]
    {
        let (mut without, mut with, mut events) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            without.push(puts(server).await);
            let heard = Arc::new(AtomicU64::new(0));
            let prefix = |number: usize| if idle { format!("idle/{number}") } else { "watched/".to_owned() };
            let watching = watchers(server, count, prefix, &heard).await;
            let started = Instant::now();
            with.push(puts(server).await);
            events.push(heard.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64());
            let ended = watching.iter().filter(|watcher| watcher.is_finished()).count();
            if ended > 0 {
                println!("  {ended} of {count} watchers were ended as too slow");
            }
            watching.into_iter().for_each(|watcher| watcher.abort());
        }
        let (without, with) = (median(without), median(with));
        let ratio = with / without;
        println!(
            "watchers {label}: {:.0} events/s; puts {without:.0}/s without, {with:.0}/s with, ratio {ratio:.2}",
            median(events)
        );
    }
}

async fn delete_range(server: &Server, keys: u64) {
    fill(server, "gone/", keys).await;
    let histograms = ["tandem_apply_duration_seconds", "tandem_read_lock_duration_seconds"];
    let before = histograms.map(|name| server.histogram(name));
    let mut store = server.connect().await;
    let started = Instant::now();
    let mut deleted = 0;
    loop {
        let range = Some(pb::KeyRange { kind: Some(Kind::Prefix("gone/".into())) });
        let done =
            store.delete_range(pb::DeleteRangeRequest { range, ..Default::default() }).await.unwrap().into_inner();
        deleted += done.deleted;
        if done.complete {
            break;
        }
    }
    println!("delete of {deleted} keys by prefix: {:.0} keys/s", deleted as f64 / started.elapsed().as_secs_f64());
    for (name, before) in histograms.iter().zip(before) {
        let after = server.histogram(name);
        let count = |buckets: &[(f64, u64)], place: usize| buckets.get(place).map_or(0, |(_, count)| *count);
        let steps: Vec<_> = after
            .iter()
            .enumerate()
            .map(|(place, (bound, count_after))| {
                let own =
                    |buckets: &[(f64, u64)], all: u64| all - if place > 0 { count(buckets, place - 1) } else { 0 };
                (*bound, own(&after, *count_after) - own(&before, count(&before, place)))
            })
            .filter(|(_, count)| *count > 0)
            .map(|(bound, count)| format!("{count} within {:.0} us", bound * 1e6))
            .collect();
        println!("{name} meanwhile: {}", steps.join(", "));
    }
}

fn main() {
    let keys = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(1_000_000_u64);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let server = Server::start();
        watch(&server).await;
        fill(&server, "", keys).await;
        scan_alone(&server).await;
        scan_beside_gets(&server, keys).await;
        delete_range(&server, keys.min(1_000_000)).await;
    });
}
