//! What the benchmarks of a running server share: the server itself, loading it, and reading its figures.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use tandem::pb::{self, kv_service_client::KvServiceClient};
use tonic::transport::{Channel, Endpoint};

pub type Store = KvServiceClient<Channel>;

/// A server in a temporary directory, which stays over restarts.
pub struct Server {
    child: Child,
    grpc: String,
    ops: String,
    settings: Vec<(String, String)>,
    data: tempfile::TempDir,
}

impl Server {
    /// Starts with these settings in its environment.
    pub fn start(settings: &[(&str, &str)]) -> Self {
        let parent = std::env::var_os("TANDEM_BENCH_DIRECTORY").unwrap_or_else(|| ".".into());
        let data = tempfile::Builder::new().prefix("bench.").tempdir_in(parent).unwrap();
        let settings: Vec<_> = settings.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let (child, grpc, ops) = spawn(data.path(), &settings);
        Self { child, grpc, ops, settings, data }
    }

    /// Ends the process, kindly, and starts another on the same data.
    pub fn restart(&mut self, between: impl FnOnce()) -> Duration {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.child.wait().unwrap();
        between();
        let started = Instant::now();
        (self.child, self.grpc, self.ops) = spawn(self.data.path(), &self.settings);
        self.until_ready();
        started.elapsed()
    }

    /// Waits until it serves.
    pub fn until_ready(&self) {
        while !self.ask("GET", "/readyz").starts_with("HTTP/1.1 200") {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Where the data lies.
    pub fn directory(&self) -> PathBuf {
        self.data.path().join("data")
    }

    /// A line of `/proc/PID/status`, in bytes.
    pub fn memory_bytes(&self, line: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let found = status.lines().find_map(|found| found.strip_prefix(line)).unwrap();
        found.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    /// One request on the ops port: the whole answer.
    pub fn ask(&self, method: &str, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.ops).unwrap();
        let length = if method == "GET" { "" } else { "content-length: 0\r\n" };
        write!(stream, "{method} {path} HTTP/1.1\r\nhost: x\r\n{length}connection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    pub async fn connect(&self) -> Store {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.grpc)).unwrap();
        KvServiceClient::new(endpoint.connect().await.unwrap()).max_decoding_message_size(16 << 20)
    }

    /// Upper bounds and cumulative counts of a histogram.
    pub fn histogram(&self, name: &str) -> Vec<(f64, u64)> {
        let text = self.ask("GET", "/metrics");
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

pub fn name(number: u64) -> Bytes {
    // Scattered, so that neither loading nor reading follows the order.
    format!("{:08x}/{number:023}", number.wrapping_mul(2_654_435_761) as u32).into()
}

pub fn put(key: Bytes) -> pb::PutRequest {
    pb::PutRequest { key, value: Bytes::from_static(&[b'x'; 256]), ..Default::default() }
}

pub async fn fill(server: &Server, prefix: &'static str, keys: u64) {
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

/// A process, once it has said where it listens.
fn spawn(data: &Path, settings: &[(String, String)]) -> (Child, String, String) {
    let free = "127.0.0.1:0";
    let mut child = Command::new(env!("CARGO_BIN_EXE_tandem"))
        .args(["--http-address", free, "--grpc-address", free, "--ops-address", free, "--data-dir"])
        .arg(data.join("data"))
        .envs(settings.iter().cloned())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let banner = BufReader::new(child.stdout.take().unwrap()).lines().next().unwrap().unwrap();
    let address = |name: &str| {
        let rest = banner.split(name).nth(1).unwrap().trim_start_matches("http://");
        rest.split([',', ' ']).next().unwrap().to_owned()
    };
    (child, address("gRPC "), address("ops "))
}

pub fn quantile(times: &[Duration], quantile: f64) -> f64 {
    times[((times.len() - 1) as f64 * quantile) as usize].as_secs_f64() * 1e6
}

pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
