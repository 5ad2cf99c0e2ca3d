//! Memory a key next to Redis, what comes back after deletes, and the longest step while a store grows.
//!
//!   cargo bench --bench memory [-- KEYS]
//!
//! Needs redis-server (Debian's). Each load runs in a process of its own, which prints how its resident memory grew.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    process::{Command as Process, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tandem::{
    config::{SnapshotPolicy, SyncMode},
    disk::RealFileSystem,
    engine::{Engine, Options, clock::SystemTimeSource},
    limits::Limits,
    metrics::Metrics,
    pb::{self, storage::log_record::Command},
};

/// The program's: memory that it keeps counts too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SIZES: [(usize, usize); 3] = [(32, 256), (32, 16), (40, 300)];
const KEYS: u64 = 5_000_000;
/// Writes at once.
const CLIENTS: u64 = 1_024;

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [role, key_bytes, value_bytes, keys] = &arguments[..] {
        let numbers = [key_bytes, value_bytes, keys].map(|number| number.parse::<u64>().unwrap());
        return load(role, numbers[0] as usize, numbers[1] as usize, numbers[2]);
    }
    let keys = arguments.first().map_or(KEYS, |keys| keys.parse().unwrap());
    println!("{keys} keys");
    for (key_bytes, value_bytes) in SIZES {
        let (tandem, steps) = run("grow", key_bytes, value_bytes, keys);
        let redis = redis(key_bytes, value_bytes, keys);
        let each = |bytes: u64| bytes as f64 / keys as f64;
        println!(
            "{key_bytes}+{value_bytes}: tandem {:.1} B a key, redis {:.1} B a key, ratio {:.3}; {steps}",
            each(tandem),
            each(redis),
            tandem as f64 / redis as f64
        );
    }
    for (key_bytes, value_bytes) in SIZES {
        let (thinned, steps) = run("thin", key_bytes, value_bytes, keys);
        let (fresh, _) = run("fresh", key_bytes, value_bytes, keys);
        let ratio = thinned as f64 / fresh as f64;
        println!("{key_bytes}+{value_bytes}: 90% deleted {thinned} B, fresh {fresh} B, ratio {ratio:.2}; {steps}");
    }
}

fn run(role: &str, key_bytes: usize, value_bytes: usize, keys: u64) -> (u64, String) {
    let numbers = [key_bytes as u64, value_bytes as u64, keys].map(|number| number.to_string());
    let child = Process::new(std::env::current_exe().unwrap()).arg(role).args(numbers).output().unwrap();
    let text = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{text}{}", String::from_utf8_lossy(&child.stderr));
    let (bytes, steps) = text.trim().split_once(' ').unwrap();
    (bytes.parse().unwrap(), steps.to_owned())
}

fn resident_bytes(process: u32) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{process}/statm")).unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * rustix::param::page_size() as u64
}

/// A key of `bytes`; consecutive numbers lie far from each other in key order.
fn key(number: u64, bytes: usize) -> Bytes {
    let scattered = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    Bytes::from(format!("{scattered:016x}{number:0width$}", width = bytes - 16))
}

/// One key in ten, at random.
fn stays(number: u64) -> bool {
    (number.wrapping_mul(0xD6E8_FEB8_6659_FD93) >> 32).is_multiple_of(10)
}

/// Loads a store through its engine, and prints how resident memory grew and the longest steps.
fn load(role: &str, key_bytes: usize, value_bytes: usize, keys: u64) {
    let base = std::env::var_os("TANDEM_BENCH_DIRECTORY").unwrap_or_else(|| ".".into());
    let directory = tempfile::tempdir_in(base).unwrap();
    let options = Options {
        data_directory: directory.path().to_owned(),
        segment_bytes: 64 << 20,
        sync: SyncMode::Never,
        sync_interval: Duration::from_secs(1),
        limits: Limits::default(),
        snapshot: SnapshotPolicy::default(),
        progress: Arc::default(),
    };
    let metrics = Metrics::new(true).unwrap();
    let time = Box::new(SystemTimeSource::default());
    let (engine, _) = Engine::open(Arc::new(RealFileSystem), &options, time, metrics.clone()).unwrap();
    let engine = Arc::new(engine);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let before = resident_bytes(std::process::id());
    let value = Bytes::from(vec![7; value_bytes]);
    let put = move |number| {
        let request = pb::PutRequest { key: key(number, key_bytes), value: value.clone(), ..Default::default() };
        Command::Put(request)
    };
    let delete = move |number| Command::Delete(pb::DeleteRequest { key: key(number, key_bytes), ..Default::default() });
    match role {
        "fresh" => runtime.block_on(write(&engine, keys, stays, put)),
        _ => runtime.block_on(write(&engine, keys, |_| true, put)),
    }
    if role == "thin" {
        runtime.block_on(write(&engine, keys, |number| !stays(number), delete));
    }
    settle(&engine);
    let grown = resident_bytes(std::process::id()) - before;
    let text = String::from_utf8(metrics.render().unwrap().1).unwrap();
    let steps = ["tandem_apply_duration_seconds", "tandem_evacuation_step_duration_seconds"]
        .map(|name| format!("{name} {}", slowest(&text, name)));
    println!("{grown} {}", steps.join(", "));
    assert!(engine.close());
}

/// Writes one key after another, many at once.
async fn write(
    engine: &Arc<Engine>,
    keys: u64,
    chosen: impl Fn(u64) -> bool + Clone + Send + 'static,
    command: impl Fn(u64) -> Command + Clone + Send + 'static,
) {
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let (engine, chosen, command) = (Arc::clone(engine), chosen.clone(), command.clone());
        clients.spawn(async move {
            for number in (client..keys).step_by(CLIENTS as usize) {
                if !chosen(number) {
                    continue;
                }
                let deadline = Instant::now() + Duration::from_secs(60);
                engine.propose(command(number), pb::WriteOptions::default(), deadline).await.unwrap();
            }
        });
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
}

/// Waits until nothing is given back any more.
fn settle(engine: &Engine) {
    let mut allocated = u64::MAX;
    while engine.totals().allocated_bytes < allocated {
        allocated = engine.totals().allocated_bytes;
        std::thread::sleep(Duration::from_secs(2));
    }
}

/// How many steps took longer than each bound, of those that any did.
fn slowest(text: &str, name: &str) -> String {
    let buckets = text.lines().filter_map(|line| line.strip_prefix(&format!("{name}_bucket{{le=\"")));
    let counts: Vec<_> = buckets
        .filter_map(|line| line.split_once("\"} "))
        .map(|(bound, count)| (bound.to_owned(), count.parse::<u64>().unwrap()))
        .collect();
    let all = counts.last().map_or(0, |(_, count)| *count);
    let longer = counts.iter().filter(|(bound, count)| *count < all && bound.as_str() >= "0.0002");
    let longer: Vec<_> = longer.map(|(bound, count)| format!("{} > {bound} s", all - count)).collect();
    format!("{all} steps: {}", if longer.is_empty() { "none > 0.0002 s".into() } else { longer.join(", ") })
}

/// How the resident memory of a Redis server grows by as many keys.
fn redis(key_bytes: usize, value_bytes: usize, keys: u64) -> u64 {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("redis.sock");
    let mut server = Process::new("redis-server")
        .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
        .arg(&socket)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let started = Instant::now();
    let mut connection = loop {
        match UnixStream::connect(&socket) {
            Ok(connection) => break connection,
            Err(error) => assert!(started.elapsed() < Duration::from_secs(30), "{error}"),
        }
    };
    let before = resident_bytes(server.id());
    let value = "v".repeat(value_bytes);
    for first in (0..keys).step_by(1_000) {
        let numbers = first..keys.min(first + 1_000);
        let mut answers = vec![0; "+OK\r\n".len() * numbers.clone().count()];
        let mut request = Vec::new();
        for number in numbers {
            let key = key(number, key_bytes);
            write!(request, "*3\r\n$3\r\nSET\r\n${key_bytes}\r\n").unwrap();
            request.extend_from_slice(&key);
            write!(request, "\r\n${value_bytes}\r\n{value}\r\n").unwrap();
        }
        connection.write_all(&request).unwrap();
        connection.read_exact(&mut answers).unwrap();
    }
    // A table that still grows step by step holds two.
    std::thread::sleep(Duration::from_secs(3));
    let grown = resident_bytes(server.id()) - before;
    server.kill().unwrap();
    server.wait().unwrap();
    grown
}
