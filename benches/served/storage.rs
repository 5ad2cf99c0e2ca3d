//! Snapshots, recovery and cold starts. Recovery stands beside `redis-server` loading the same data where that is installed,
//! and, as root, beside the disk's own reading speed with nothing cached.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tandem::pb;
use tokio::runtime::Runtime;

use crate::server::{Server, fill, median, name, put, quantile};

const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(6);
/// Callers of the load: half of them write.
const CALLERS: u64 = 32;

fn cold_starts() {
    let starts = (0..9).map(|_| {
        let started = Instant::now();
        let server = Server::start(&[]);
        server.until_ready();
        started.elapsed().as_secs_f64() * 1e3
    });
    println!("cold start to ready on an empty directory: {:.1} ms", median(starts.collect()));
}

/// Latencies of writes and of reads.
#[derive(Default)]
struct Latencies {
    writes: Vec<Duration>,
    reads: Vec<Duration>,
}

/// Requests until `stop`, half writes and half reads, at so many a second in all if that is given. Each is due at its time:
/// one that has to wait for the one before counts the wait.
async fn load(server: &Server, keys: u64, rate: Option<f64>, stop: Arc<AtomicBool>) -> Latencies {
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..CALLERS {
        let (mut store, stop) = (server.connect().await, Arc::clone(&stop));
        let pause = rate.map(|rate| Duration::from_secs_f64(CALLERS as f64 / rate));
        callers.spawn(async move {
            let (mut times, mut number) = (Vec::new(), caller * 7_919);
            let mut due = Instant::now() + pause.unwrap_or_default() * (caller as u32) / (CALLERS as u32);
            while !stop.load(Ordering::Relaxed) {
                match pause {
                    Some(pause) => {
                        tokio::time::sleep_until(due.into()).await;
                        due += pause;
                    }
                    None => due = Instant::now(),
                }
                let begun = pause.map_or(due, |pause| due - pause);
                number = (number + 104_729) % keys;
                if caller % 2 == 0 {
                    store.put(put(name(number))).await.unwrap();
                } else {
                    store.get(pb::GetRequest { key: name(number), metadata_only: false }).await.unwrap();
                }
                times.push(begun.elapsed());
            }
            (caller % 2 == 0, times)
        });
    }
    let mut latencies = Latencies::default();
    while let Some(done) = callers.join_next().await {
        let (writes, times) = done.unwrap();
        if writes { &mut latencies.writes } else { &mut latencies.reads }.extend(times);
    }
    latencies.writes.sort_unstable();
    latencies.reads.sort_unstable();
    latencies
}

async fn load_for(server: &Server, keys: u64, rate: Option<f64>, time: Duration) -> Latencies {
    let stop = Arc::new(AtomicBool::new(false));
    let (latencies, ()) = tokio::join!(load(server, keys, rate, Arc::clone(&stop)), async {
        tokio::time::sleep(time).await;
        stop.store(true, Ordering::Relaxed);
    });
    latencies
}

fn newest(directory: &Path, ending: &str) -> PathBuf {
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|found| found == ending)).max().unwrap()
}

/// Takes a snapshot; how long that took.
fn snapshot(server: &Server) -> Duration {
    let started = Instant::now();
    let answer = server.ask("POST", "/v1/admin/snapshots");
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    started.elapsed()
}

async fn snapshots_under_load(server: &Server, keys: u64) {
    let all = load_for(server, keys, None, ROUND).await;
    let rate = (all.writes.len() + all.reads.len()) as f64 / ROUND.as_secs_f64() / 2.0;
    println!("half load: {rate:.0} requests/s, half of them writes");
    let mut ratios: [Vec<f64>; 4] = Default::default();
    let (mut took, mut grew, mut bytes) = (Vec::new(), Vec::new(), 0);
    for _ in 0..ROUNDS {
        let before = load_for(server, keys, Some(rate), ROUND).await;
        let resident = server.memory_bytes("VmRSS");
        let (stop, peak) = (Arc::new(AtomicBool::new(false)), AtomicU64::new(0));
        let (during, seconds) = std::thread::scope(|scope| {
            let taking = scope.spawn(|| {
                let seconds = snapshot(server).as_secs_f64();
                stop.store(true, Ordering::Relaxed);
                seconds
            });
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    peak.fetch_max(server.memory_bytes("VmRSS"), Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
            let loading = tokio::task::block_in_place(|| {
                tokio::runtime::Handle::current().block_on(load(server, keys, Some(rate), Arc::clone(&stop)))
            });
            (loading, taking.join().unwrap())
        });
        took.push(seconds);
        grew.push(peak.load(Ordering::Relaxed) as f64 / resident as f64 - 1.0);
        bytes = fs::metadata(newest(&server.directory().join("snapshots"), "snap")).unwrap().len();
        let pairs = [(&before.writes, &during.writes), (&before.reads, &during.reads)];
        for (place, (before, during)) in pairs.into_iter().enumerate() {
            for (quantile_place, at) in [0.99, 0.999].into_iter().enumerate() {
                let (before, during) = (quantile(before, at), quantile(during, at));
                let what = ["writes", "reads"][place];
                println!("  {what} p{}: {before:.0} us before, {during:.0} us during a snapshot", at * 100.0);
                ratios[2 * place + quantile_place].push(during / before);
            }
        }
    }
    let seconds = median(took);
    println!("snapshot under load: {bytes} bytes in {seconds:.1} s, {:.0} MB/s", bytes as f64 / seconds / 1e6);
    println!("resident memory meanwhile: +{:.1}%", median(grew) * 100.0);
    for (ratio, what) in ratios.into_iter().zip(["write p99", "write p99.9", "read p99", "read p99.9"]) {
        println!("{what} during a snapshot against before: {:.2}", median(ratio));
    }
}

/// Forgets what is cached of files; whether that was allowed.
fn drop_caches() -> bool {
    Command::new("sync").status().is_ok() && fs::write("/proc/sys/vm/drop_caches", "3").is_ok()
}

fn read_whole(path: &Path) -> f64 {
    let (mut file, mut piece, started) = (fs::File::open(path).unwrap(), vec![0; 1 << 20], Instant::now());
    while file.read(&mut piece).unwrap() > 0 {}
    started.elapsed().as_secs_f64()
}

/// Restarts with the snapshot cached: seconds until ready.
fn restarted(server: &mut Server, snapshot: &Path) -> f64 {
    server
        .restart(|| {
            read_whole(snapshot);
        })
        .as_secs_f64()
}

fn recovery(server: &mut Server, keys: u64, redis: Option<f64>) {
    let path = newest(&server.directory().join("snapshots"), "snap");
    let bytes = fs::metadata(&path).unwrap().len() as f64;
    let warm = (0..ROUNDS).map(|_| restarted(server, &path));
    let warm = keys as f64 / median(warm.collect());
    println!("recovery, cached: {warm:.0} keys/s");
    match redis {
        Some(redis) => println!("redis, cached: {redis:.0} keys/s; ratio {:.2}", warm / redis),
        None => println!("redis is not installed"),
    }
    if !drop_caches() {
        return println!("nothing cached: not measured, since caches can only be dropped by root");
    }
    let (mut cold, mut disk) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        assert!(drop_caches());
        disk.push(read_whole(&path));
        cold.push(server.restart(|| assert!(drop_caches())).as_secs_f64());
    }
    let (cold, disk) = (bytes / median(cold) / 1e6, bytes / median(disk) / 1e6);
    println!(
        "recovery, nothing cached: {cold:.0} MB/s; reading the file alone {disk:.0} MB/s; ratio {:.2}",
        cold / disk
    );
}

/// How fast Redis loads as many keys from its own snapshot, cached.
fn redis(keys: u64) -> Option<f64> {
    let directory =
        tempfile::tempdir_in(std::env::var_os("TANDEM_BENCH_DIRECTORY").unwrap_or_else(|| ".".into())).ok()?;
    let socket = directory.path().join("redis.sock");
    let start = || {
        let mut server = Command::new("redis-server");
        server.args(["--port", "0", "--save", "", "--unixsocket"]).arg(&socket).arg("--dir").arg(directory.path());
        server.stdout(Stdio::piped()).spawn().ok()
    };
    let mut server = start()?;
    // Read on, lest it blocks.
    let mut lines = BufReader::new(server.stdout.take()?).lines().map_while(Result::ok);
    lines.find(|line| line.contains("eady to accept"))?;
    std::thread::spawn(move || lines.count());
    let mut connection = UnixStream::connect(&socket).unwrap();
    for first in (0..keys).step_by(1_000) {
        let numbers = first..keys.min(first + 1_000);
        let mut answers = vec![0; "+OK\r\n".len() * numbers.clone().count()];
        let mut request = Vec::new();
        for number in numbers {
            request.extend_from_slice(b"*3\r\n$3\r\nSET\r\n$32\r\n");
            request.extend_from_slice(&name(number));
            write!(request, "\r\n$256\r\n{}\r\n", "x".repeat(256)).unwrap();
        }
        connection.write_all(&request).unwrap();
        connection.read_exact(&mut answers).unwrap();
    }
    connection.write_all(b"*1\r\n$4\r\nSAVE\r\n").unwrap();
    connection.read_exact(&mut [0; 5]).unwrap();
    server.kill().unwrap();
    server.wait().unwrap();
    let mut rates = Vec::new();
    for _ in 0..ROUNDS {
        read_whole(&directory.path().join("dump.rdb"));
        let mut server = start()?;
        let lines = BufReader::new(server.stdout.take()?).lines().map_while(Result::ok);
        let seconds =
            lines.filter_map(|line| line.split("DB loaded from disk: ").nth(1)?.split(' ').next()?.parse::<f64>().ok());
        rates.push(keys as f64 / seconds.take(1).next()?);
        server.kill().unwrap();
        server.wait().unwrap();
    }
    Some(median(rates))
}

pub fn run(runtime: &Runtime, keys: u64) {
    cold_starts();
    let redis = redis(keys);
    // No snapshot but those that are asked for.
    let mut server = Server::start(&[("TANDEM__SNAPSHOT__LOG_BYTES", "1024GiB")]);
    runtime.block_on(fill(&server, "", keys));
    let took = snapshot(&server).as_secs_f64();
    let bytes = fs::metadata(newest(&server.directory().join("snapshots"), "snap")).unwrap().len();
    println!("snapshot of {keys} keys: {bytes} bytes in {took:.1} s, {:.0} MB/s", bytes as f64 / took / 1e6);
    recovery(&mut server, keys, redis);
    runtime.block_on(snapshots_under_load(&server, keys));
}
