//! Histograms: times of requests, waits, syncs and snapshots, and sizes of groups.

use std::{collections::HashMap, hash::Hash, sync::atomic::Ordering, time::Duration};

use http::{Method, StatusCode};
use opentelemetry::{
    KeyValue,
    metrics::{BoundHistogram, Histogram, Meter},
};
use parking_lot::RwLock;

use super::{
    Metrics,
    labels::{code_label, method_label},
};

/// Upper bounds of times: a store that answers in 20 µs and syncs in 200 µs, up to the request timeout.
const SECONDS: [f64; 19] = [
    0.00001, 0.00002, 0.00005, 0.0001, 0.0002, 0.0003, 0.0005, 0.00075, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1,
    0.25, 0.5, 1.0, 10.0,
];
/// Upper bounds of streams: from a scan of a few keys to a watcher of days.
const STREAM_SECONDS: [f64; 10] = [0.001, 0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3_600.0, 21_600.0, 86_400.0];
/// Upper bounds of waits, which last a minute at most.
const WAIT_SECONDS: [f64; 8] = [0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 30.0, 60.0];
/// Upper bounds of times of snapshots: from a small store to hundreds of gigabytes.
const SNAPSHOT_SECONDS: [f64; 12] = [0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0];
/// Upper bounds of records in a group.
const RECORDS: [f64; 13] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0, 16384.0];

/// A histogram of times by its labels, each set bound at its first use.
pub(super) struct ByLabels<Labels> {
    histogram: Histogram<f64>,
    bound: RwLock<HashMap<Labels, BoundHistogram<f64>>>,
}

impl<Labels: Copy + Eq + Hash> ByLabels<Labels> {
    fn new(histogram: Histogram<f64>) -> Self {
        Self { histogram, bound: RwLock::default() }
    }

    /// Records a time under these labels, which `told` gives in full if it is their first time.
    pub(super) fn record(&self, labels: Labels, elapsed: Duration, told: impl FnOnce() -> Vec<KeyValue>) {
        if let Some(bound) = self.bound.read().get(&labels) {
            bound.record(elapsed.as_secs_f64());
            return;
        }
        let mut bound = self.bound.write();
        bound.entry(labels).or_insert_with(|| self.histogram.bind(&told())).record(elapsed.as_secs_f64());
    }
}

/// All of them.
pub(super) struct Histograms {
    /// Method, route, status.
    http: ByLabels<(u8, Option<&'static str>, u16)>,
    /// Method, code.
    rpc: ByLabels<(&'static str, i32)>,
    /// Operation, protocol.
    pub(super) stream: ByLabels<(&'static str, &'static str)>,
    pub(super) core_lag: BoundHistogram<f64>,
    wait: BoundHistogram<f64>,
    sync: BoundHistogram<f64>,
    apply: BoundHistogram<f64>,
    read_lock: BoundHistogram<f64>,
    evacuation: BoundHistogram<f64>,
    group: BoundHistogram<u64>,
    snapshot: BoundHistogram<f64>,
}

impl Histograms {
    /// All of them, empty.
    pub(super) fn new(meter: &Meter) -> Self {
        let seconds = |name: &'static str, help: &'static str, bounds: &[f64]| {
            meter.f64_histogram(name).with_unit("s").with_description(help).with_boundaries(bounds.to_vec()).build()
        };
        let bound = |name, help, bounds| seconds(name, help, bounds).bind(&[]);
        Self {
            http: ByLabels::new(seconds("http.server.request.duration", "Time of each unary HTTP request.", &SECONDS)),
            rpc: ByLabels::new(seconds("rpc.server.call.duration", "Time of each unary gRPC call.", &SECONDS)),
            stream: ByLabels::new(seconds(
                "tandem.stream.duration",
                "Time of each stream, by operation and protocol.",
                &STREAM_SECONDS,
            )),
            core_lag: bound(
                "tandem.core.lag",
                "How long what is ready waits for its turn on a serving core, twice a second.",
                &SECONDS,
            ),
            wait: bound("tandem.wait.duration", "Time of requests held by ?wait=.", &WAIT_SECONDS),
            sync: bound("tandem.wal.sync.duration", "Time of each sync of the write-ahead log.", &SECONDS),
            apply: bound(
                "tandem.apply.duration",
                "Time of applying each record: an upper bound of how long it locks what it writes.",
                &SECONDS,
            ),
            read_lock: bound(
                "tandem.read.lock.duration",
                "Time for which each read of several keys locks them.",
                &SECONDS,
            ),
            evacuation: bound(
                "tandem.evacuation.step.duration",
                "Time that each step held a part of the store to give memory back.",
                &SECONDS,
            ),
            group: meter
                .u64_histogram("tandem.commit.group.records")
                .with_unit("{record}")
                .with_description("Records committed together by one write and one sync.")
                .with_boundaries(RECORDS.to_vec())
                .build()
                .bind(&[]),
            snapshot: bound("tandem.snapshot.duration", "Time that each snapshot took.", &SNAPSHOT_SECONDS),
        }
    }
}

impl Metrics {
    /// A unary HTTP request was answered. `route` is a route's template, never a path.
    pub fn http_request(&self, method: &Method, route: Option<&'static str>, status: StatusCode, elapsed: Duration) {
        if !self.0.enabled {
            return;
        }
        let (number, label) = method_label(method);
        self.0.histograms.http.record((number, route, status.as_u16()), elapsed, || {
            let mut labels = vec![
                KeyValue::new("http.request.method", label),
                KeyValue::new("url.scheme", "http"),
                KeyValue::new("http.response.status_code", i64::from(status.as_u16())),
            ];
            labels.extend(route.map(|route| KeyValue::new("http.route", route)));
            labels
        });
    }

    /// A unary gRPC call was answered. `method` is one of the schema's, or `_OTHER`.
    pub fn rpc_call(&self, method: &'static str, code: tonic::Code, elapsed: Duration) {
        if !self.0.enabled {
            return;
        }
        self.0.histograms.rpc.record((method, code as i32), elapsed, || {
            vec![
                KeyValue::new("rpc.system.name", "grpc"),
                KeyValue::new("rpc.method", method),
                KeyValue::new("rpc.response.status_code", code_label(code)),
            ]
        });
    }

    /// A request that was held by `?wait=` was answered.
    pub fn waited(&self, elapsed: Duration) {
        self.0.histograms.wait.record(elapsed.as_secs_f64());
    }

    /// The log was synced.
    pub fn synced(&self, elapsed: Duration) {
        self.0.histograms.sync.record(elapsed.as_secs_f64());
    }

    /// A record was applied.
    pub fn applied(&self, elapsed: Duration) {
        if self.0.enabled {
            self.0.histograms.apply.record(elapsed.as_secs_f64());
        }
    }

    /// A read of several keys let its locks go.
    pub fn read_locked(&self, elapsed: Duration) {
        if self.0.enabled {
            self.0.histograms.read_lock.record(elapsed.as_secs_f64());
        }
    }

    /// A group of records was committed.
    pub fn committed(&self, records: u64) {
        self.0.histograms.group.record(records);
    }

    /// A step of giving memory back held a part of the store for so long.
    pub fn evacuated(&self, elapsed: Duration) {
        self.0.histograms.evacuation.record(elapsed.as_secs_f64());
    }

    /// A snapshot was taken.
    pub fn snapshot_taken(&self, elapsed: Duration, bytes: u64) {
        self.0.histograms.snapshot.record(elapsed.as_secs_f64());
        self.0.gauges.snapshot_written_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}
