//! Scans, watchers and range deletes beside ordinary requests.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tandem::pb::{self, key_range::Kind};

use crate::server::{Server, fill, median, name, put, quantile};

/// How long each load runs.
const ROUND: Duration = Duration::from_secs(4);
const ROUNDS: usize = 3;

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

pub async fn run(keys: u64) {
    let server = Server::start(&[]);
    watch(&server).await;
    fill(&server, "", keys).await;
    scan_alone(&server).await;
    scan_beside_gets(&server, keys).await;
    delete_range(&server, keys.min(1_000_000)).await;
}
