//! What is measured: latencies in histograms, errors by reason, and a point for each second.

use std::{
    collections::BTreeMap,
    io,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::Serialize;

use super::ask::Refusal;

/// Latencies are told apart by three digits, from 100 ns to an hour.
const SHORTEST_NS: u64 = 100;
const LONGEST_NS: u64 = 3_600_000_000_000;
const DIGITS: u8 = 3;

/// Latencies in nanoseconds.
pub type Latencies = Histogram<u64>;

fn latencies() -> io::Result<Latencies> {
    Histogram::new_with_bounds(SHORTEST_NS, LONGEST_NS, DIGITS).map_err(io::Error::other)
}

/// Errors of one reason.
#[derive(Clone, Debug, Default)]
pub struct Errors {
    pub count: u64,
    /// What the first one said.
    pub said: String,
}

/// What one thread measured since it was last asked, or all of them in all.
#[derive(Debug)]
pub struct Tally {
    pub reads: Latencies,
    pub writes: Latencies,
    /// Of an open loop: how long behind their times requests were sent though someone was free for them.
    pub late: Latencies,
    pub keys: u64,
    pub errors: BTreeMap<String, Errors>,
    pub last: Option<Instant>,
}

impl Tally {
    /// Nothing yet.
    pub fn new() -> io::Result<Self> {
        let (reads, writes, late) = (latencies()?, latencies()?, latencies()?);
        Ok(Self { reads, writes, late, keys: 0, errors: BTreeMap::new(), last: None })
    }

    /// Takes in what another holds, and empties it.
    pub fn take(&mut self, other: &mut Self) {
        let histograms = [
            (&mut self.reads, &mut other.reads),
            (&mut self.writes, &mut other.writes),
            (&mut self.late, &mut other.late),
        ];
        for (all, some) in histograms.into_iter().filter(|(_, some)| !some.is_empty()) {
            // Both have the same bounds.
            let _ = all.add(&*some);
            some.reset();
        }
        self.keys += std::mem::take(&mut other.keys);
        self.last = self.last.max(other.last.take());
        for (reason, errors) in std::mem::take(&mut other.errors) {
            let all = self.errors.entry(reason).or_default();
            all.count += errors.count;
            if all.said.is_empty() {
                all.said = errors.said;
            }
        }
    }

    /// Requests that were answered as they should be.
    pub fn requests(&self) -> u64 {
        self.reads.len() + self.writes.len()
    }

    /// Requests that were not.
    pub fn failed(&self) -> u64 {
        self.errors.values().map(|errors| errors.count).sum()
    }

    /// Latencies of reads and writes together.
    pub fn all(&self) -> Latencies {
        let mut all = self.reads.clone();
        let _ = all.add(&self.writes);
        all
    }

    fn add_errors(&mut self, reason: &str, said: impl Into<String>, count: u64) {
        match self.errors.get_mut(reason) {
            Some(errors) => errors.count += count,
            None => drop(self.errors.insert(reason.to_owned(), Errors { count, said: said.into() })),
        }
    }
}

/// Where one thread writes down what it measures.
#[derive(Debug)]
pub struct Recorder {
    tally: Mutex<Tally>,
    /// Requests that are on their way.
    in_flight: AtomicU64,
}

impl Recorder {
    /// Nothing yet.
    pub fn new() -> io::Result<Self> {
        Ok(Self { tally: Mutex::new(Tally::new()?), in_flight: AtomicU64::new(0) })
    }

    /// A request goes out.
    pub fn sent(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// A request was answered, or never will be.
    pub fn ended(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// It was answered as it should be.
    pub fn succeeded(&self, read: bool, latency: Duration, done: Instant, keys: u64) {
        let tally = &mut *self.tally.lock();
        let latencies = if read { &mut tally.reads } else { &mut tally.writes };
        latencies.saturating_record(nanoseconds(latency));
        tally.keys += keys;
        tally.last = tally.last.max(Some(done));
    }

    /// It was sent so long behind its time, which nobody but this program is to blame for.
    pub fn late(&self, by: Duration) {
        self.tally.lock().late.saturating_record(nanoseconds(by));
    }

    /// It was refused, or got lost.
    pub fn failed(&self, refusal: Refusal) {
        self.tally.lock().add_errors(&refusal.reason, refusal.message, 1);
    }

    /// The run is over, and so many requests were never sent; and those that are on their way have had their time.
    pub fn gave_up(&self, unsent: u64) {
        let mut tally = self.tally.lock();
        let in_flight = self.in_flight.swap(0, Ordering::Relaxed);
        if in_flight > 0 {
            tally.add_errors("DEADLINE", "no answer came within the time of --timeout", in_flight);
        }
        if unsent > 0 {
            tally.add_errors(
                "NOT_SENT",
                "the server is too slow for this --rate, or --connections are too few",
                unsent,
            );
        }
    }

    /// Hands over what was measured since the last time.
    pub fn hand_over(&self, to: &mut Tally) {
        to.take(&mut self.tally.lock());
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Percentiles in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Percentiles {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    #[serde(rename = "p99.9")]
    pub p99_9: f64,
    #[serde(rename = "p99.99")]
    pub p99_99: f64,
    pub max: f64,
    pub mean: f64,
}

impl Percentiles {
    /// Those of a histogram.
    pub fn of(latencies: &Latencies) -> Self {
        let at = |quantile| microseconds(latencies.value_at_quantile(quantile));
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            p99_99: at(0.9999),
            max: microseconds(latencies.max()),
            mean: microseconds(latencies.mean() as u64),
        }
    }
}

/// With one decimal: more is not known.
pub fn microseconds(ns: u64) -> f64 {
    (ns as f64 / 100.0).round() / 10.0
}

/// What was measured in about a second.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Point {
    /// Its end, since measuring began.
    pub at_s: f64,
    pub requests: u64,
    pub requests_per_second: f64,
    pub keys_per_second: f64,
    pub errors: u64,
    pub latency_us: Percentiles,
}

impl Point {
    /// What was measured between two times after measuring began.
    pub fn of(tally: &Tally, from: Duration, to: Duration) -> Self {
        let seconds = to.saturating_sub(from).as_secs_f64().max(f64::EPSILON);
        Self {
            at_s: (to.as_secs_f64() * 1e3).round() / 1e3,
            requests: tally.requests(),
            requests_per_second: rounded(tally.requests() as f64 / seconds),
            keys_per_second: rounded(tally.keys as f64 / seconds),
            errors: tally.failed(),
            latency_us: Percentiles::of(&tally.all()),
        }
    }
}

/// With one decimal.
pub fn rounded(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}
