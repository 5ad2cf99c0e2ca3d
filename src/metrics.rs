//! Every instrument in one catalogue. Call sites use verbs; names, units and labels stand here alone.
//!
//! Instruments are OpenTelemetry's, exported for Prometheus from a registry of this server's own. What is recorded for
//! each request costs little: operations are counted in a table of atomics that the exporter reads, and histograms are
//! bound to their labels once. No label ever carries a key, a raw path or a client's text.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use http::{Method, StatusCode};
use opentelemetry::{
    KeyValue,
    metrics::{BoundHistogram, Histogram, Meter, MeterProvider as _},
};
use opentelemetry_sdk::{Resource, metrics::SdkMeterProvider};
use parking_lot::RwLock;
use prometheus::{Encoder as _, Registry, TextEncoder};

use crate::error::Reason;

/// An operation of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Reads a key.
    Get,
    /// Reads many keys.
    BatchGet,
    /// Reads a page of a range.
    List,
    /// Reads all of a range.
    Scan,
    /// Counts a range.
    Count,
    /// Writes a key.
    Put,
    /// Removes a key.
    Delete,
    /// Adds to a number.
    Increment,
    /// Changes an expiry.
    Touch,
    /// Writes many keys, each on its own.
    BatchWrite,
    /// Writes many keys, all or none.
    Txn,
    /// Removes a range.
    DeleteRange,
    /// Hears of changes.
    Watch,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Get,
        Self::BatchGet,
        Self::List,
        Self::Scan,
        Self::Count,
        Self::Put,
        Self::Delete,
        Self::Increment,
        Self::Touch,
        Self::BatchWrite,
        Self::Txn,
        Self::DeleteRange,
        Self::Watch,
    ];

    /// Whether it writes.
    pub fn is_write(self) -> bool {
        match self {
            Self::Get | Self::BatchGet | Self::List | Self::Scan | Self::Count | Self::Watch => false,
            Self::Put | Self::Delete | Self::Increment | Self::Touch => true,
            Self::BatchWrite | Self::Txn | Self::DeleteRange => true,
        }
    }

    /// As metrics and logs name it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::BatchGet => "batch_get",
            Self::List => "list",
            Self::Scan => "scan",
            Self::Count => "count",
            Self::Put => "put",
            Self::Delete => "delete",
            Self::Increment => "increment",
            Self::Touch => "touch",
            Self::BatchWrite => "batch_write",
            Self::Txn => "txn",
            Self::DeleteRange => "delete_range",
            Self::Watch => "watch",
        }
    }

    /// As metrics and logs name what a request asked for; `None`: none of the store's operations.
    pub fn label_of(operation: Option<Self>) -> &'static str {
        operation.map_or("_OTHER", Self::label)
    }
}

/// A door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC.
    Grpc,
    /// REST.
    Http,
}

impl Protocol {
    const ALL: [Self; 2] = [Self::Grpc, Self::Http];

    /// As metrics and logs name it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http",
        }
    }
}

/// What the store holds, as of the last group.
#[derive(Clone, Copy, Debug, Default)]
pub struct State {
    /// Entries.
    pub keys: u64,
    /// Bytes of keys and values.
    pub data_bytes: u64,
    /// Bytes that entries and indexes use.
    pub used_bytes: u64,
    /// Bytes that the store holds for them.
    pub allocated_bytes: u64,
    /// Revision of the last applied record.
    pub revision: u64,
    /// How far back the retry window reaches.
    pub request_window: Duration,
}

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

/// Reasons are few and small: one place each, `OK` at 0.
const REASONS: usize = 64;

struct Operations([[[AtomicU64; REASONS]; Protocol::ALL.len()]; Operation::ALL.len()]);

/// The last place: what is none of the store's operations.
#[derive(Default)]
struct SlowRequests([[AtomicU64; Protocol::ALL.len()]; Operation::ALL.len() + 1]);

/// Gauges that the log thread sets and a scrape reads.
#[derive(Default)]
struct Gauges {
    ready: AtomicU64,
    queue_depth: AtomicU64,
    written_bytes: AtomicU64,
    keys: AtomicU64,
    data_bytes: AtomicU64,
    used_bytes: AtomicU64,
    allocated_bytes: AtomicU64,
    memory_limit_bytes: AtomicU64,
    evicted_keys: AtomicU64,
    disk_free_bytes: AtomicU64,
    disk_reserve_bytes: AtomicU64,
    revision: AtomicU64,
    request_window_ms: AtomicU64,
    recovery_us: AtomicU64,
    recovery_cut_bytes: AtomicU64,
    watchers: AtomicU64,
    watch_events: AtomicU64,
    watch_dropped: AtomicU64,
    watch_history_events: AtomicU64,
    watch_history_bytes: AtomicU64,
    spans_sent: AtomicU64,
    spans_failed: AtomicU64,
    snapshot_written_bytes: AtomicU64,
    snapshot_failures: AtomicU64,
    snapshot_last_bytes: AtomicU64,
    snapshot_last_index: AtomicU64,
    snapshot_last_ms: AtomicU64,
}

struct Inner {
    enabled: bool,
    registry: Registry,
    /// Its readers live as long as it does.
    _provider: SdkMeterProvider,
    operations: Arc<Operations>,
    slow_requests: Arc<SlowRequests>,
    gauges: Arc<Gauges>,
    http: Histogram<f64>,
    http_bound: Bound<(u8, Option<&'static str>, u16)>,
    rpc: Histogram<f64>,
    rpc_bound: Bound<(&'static str, i32)>,
    stream: Histogram<f64>,
    stream_bound: Bound<(&'static str, &'static str)>,
    wait: BoundHistogram<f64>,
    sync: BoundHistogram<f64>,
    apply: BoundHistogram<f64>,
    read_lock: BoundHistogram<f64>,
    evacuation: BoundHistogram<f64>,
    group: BoundHistogram<u64>,
    snapshot: BoundHistogram<f64>,
}

/// A histogram by its labels, each set bound at its first use.
type Bound<Labels> = RwLock<HashMap<Labels, BoundHistogram<f64>>>;

/// The instruments. Cheap to clone.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

impl fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Metrics").field("enabled", &self.0.enabled).finish_non_exhaustive()
    }
}

/// The time of a stream, until dropped.
#[derive(Debug)]
pub struct StreamTimer {
    metrics: Metrics,
    operation: Option<Operation>,
    protocol: Protocol,
    started: Instant,
}

impl Drop for StreamTimer {
    fn drop(&mut self) {
        let Inner { enabled: true, stream, stream_bound, .. } = &*self.metrics.0 else { return };
        let labels = (Operation::label_of(self.operation), self.protocol.label());
        record(stream_bound, labels, self.started.elapsed(), || {
            stream.bind(&[KeyValue::new("operation", labels.0), KeyValue::new("protocol", labels.1)])
        });
    }
}

/// The exporter refused its set-up, or a scrape could not be written.
#[derive(Debug)]
pub struct MetricsError(String);

impl fmt::Display for MetricsError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "metrics: {}", self.0)
    }
}

impl std::error::Error for MetricsError {}

impl Metrics {
    /// All instruments, in a registry of their own. With `enabled` false the verbs of requests do nothing.
    pub fn new(enabled: bool) -> Result<Self, MetricsError> {
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(false)
            .without_target_info()
            .build()
            .map_err(|error| MetricsError(error.to_string()))?;
        let provider =
            SdkMeterProvider::builder().with_reader(exporter).with_resource(Resource::builder_empty().build()).build();
        let meter = provider.meter("tandem");
        let operations = Arc::new(Operations(std::array::from_fn(|_| {
            std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0)))
        })));
        let slow_requests = Arc::new(SlowRequests::default());
        let gauges = Arc::new(Gauges::default());
        observe_operations(&meter, &operations);
        observe_slow_requests(&meter, &slow_requests);
        observe_gauges(&meter, &gauges);
        observe_process(&meter);
        let seconds = |name: &'static str, help: &'static str, bounds: &[f64]| {
            meter.f64_histogram(name).with_unit("s").with_description(help).with_boundaries(bounds.to_vec()).build()
        };
        let inner = Inner {
            enabled,
            registry,
            operations,
            slow_requests,
            gauges,
            http: seconds("http.server.request.duration", "Time of each unary HTTP request.", &SECONDS),
            http_bound: RwLock::default(),
            rpc: seconds("rpc.server.call.duration", "Time of each unary gRPC call.", &SECONDS),
            rpc_bound: RwLock::default(),
            stream: seconds(
                "tandem.stream.duration",
                "Time of each stream, by operation and protocol.",
                &STREAM_SECONDS,
            ),
            stream_bound: RwLock::default(),
            wait: seconds("tandem.wait.duration", "Time of requests held by ?wait=.", &WAIT_SECONDS).bind(&[]),
            sync: seconds("tandem.wal.sync.duration", "Time of each sync of the write-ahead log.", &SECONDS).bind(&[]),
            apply: seconds(
                "tandem.apply.duration",
                "Time of applying each record: an upper bound of how long it locks what it writes.",
                &SECONDS,
            )
            .bind(&[]),
            read_lock: seconds(
                "tandem.read.lock.duration",
                "Time for which each read of several keys locks them.",
                &SECONDS,
            )
            .bind(&[]),
            snapshot: seconds("tandem.snapshot.duration", "Time that each snapshot took.", &SNAPSHOT_SECONDS).bind(&[]),
            evacuation: seconds(
                "tandem.evacuation.step.duration",
                "Time that each step held a part of the store to give memory back.",
                &SECONDS,
            )
            .bind(&[]),
            group: meter
                .u64_histogram("tandem.commit.group.records")
                .with_unit("{record}")
                .with_description("Records committed together by one write and one sync.")
                .with_boundaries(RECORDS.to_vec())
                .build()
                .bind(&[]),
            _provider: provider,
        };
        Ok(Self(Arc::new(inner)))
    }

    /// An operation was answered; no reason: it went well.
    pub fn answered(&self, operation: Operation, protocol: Protocol, reason: Option<Reason>) {
        let place = reason.map_or(0, |reason| reason as usize);
        let counters = &self.0.operations.0[operation as usize][protocol as usize];
        if let Some(counter) = counters.get(place) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A request took long.
    pub fn slow_request(&self, operation: Option<Operation>, protocol: Protocol) {
        let place = operation.map_or(Operation::ALL.len(), |operation| operation as usize);
        self.0.slow_requests.0[place][protocol as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A unary HTTP request was answered. `route` is a route's template, never a path.
    pub fn http_request(&self, method: &Method, route: Option<&'static str>, status: StatusCode, elapsed: Duration) {
        if !self.0.enabled {
            return;
        }
        let (number, label) = method_label(method);
        record(&self.0.http_bound, (number, route, status.as_u16()), elapsed, || {
            let mut labels = vec![
                KeyValue::new("http.request.method", label),
                KeyValue::new("url.scheme", "http"),
                KeyValue::new("http.response.status_code", i64::from(status.as_u16())),
            ];
            labels.extend(route.map(|route| KeyValue::new("http.route", route)));
            self.0.http.bind(&labels)
        });
    }

    /// A unary gRPC call was answered. `method` is one of the schema's, or `_OTHER`.
    pub fn rpc_call(&self, method: &'static str, code: tonic::Code, elapsed: Duration) {
        if !self.0.enabled {
            return;
        }
        record(&self.0.rpc_bound, (method, code as i32), elapsed, || {
            self.0.rpc.bind(&[
                KeyValue::new("rpc.system.name", "grpc"),
                KeyValue::new("rpc.method", method),
                KeyValue::new("rpc.response.status_code", code_label(code)),
            ])
        });
    }

    /// A stream begins; its time is recorded when this is dropped, whoever ends it. No operation: none of the store's.
    pub fn stream_begins(&self, operation: Option<Operation>, protocol: Protocol) -> StreamTimer {
        StreamTimer { metrics: self.clone(), operation, protocol, started: Instant::now() }
    }

    /// A request that was held by `?wait=` was answered.
    pub fn waited(&self, elapsed: Duration) {
        self.0.wait.record(elapsed.as_secs_f64());
    }

    /// The log was synced.
    pub fn synced(&self, elapsed: Duration) {
        self.0.sync.record(elapsed.as_secs_f64());
    }

    /// A record was applied.
    pub fn applied(&self, elapsed: Duration) {
        if self.0.enabled {
            self.0.apply.record(elapsed.as_secs_f64());
        }
    }

    /// A read of several keys let its locks go.
    pub fn read_locked(&self, elapsed: Duration) {
        if self.0.enabled {
            self.0.read_lock.record(elapsed.as_secs_f64());
        }
    }

    /// Bytes were written to the log.
    pub fn written(&self, bytes: u64) {
        self.0.gauges.written_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A group of records was committed.
    pub fn committed(&self, records: u64) {
        self.0.group.record(records);
    }

    /// A step of giving memory back held a part of the store for so long.
    pub fn evacuated(&self, elapsed: Duration) {
        self.0.evacuation.record(elapsed.as_secs_f64());
    }

    /// So many bytes are allocated for the store.
    pub fn allocated(&self, bytes: u64) {
        self.0.gauges.allocated_bytes.store(bytes, Ordering::Relaxed);
    }

    /// So many writes wait for the log.
    pub fn queued(&self, depth: u64) {
        self.0.gauges.queue_depth.store(depth, Ordering::Relaxed);
    }

    /// What the store holds now.
    pub fn state(&self, state: State) {
        let gauges = &self.0.gauges;
        gauges.keys.store(state.keys, Ordering::Relaxed);
        gauges.data_bytes.store(state.data_bytes, Ordering::Relaxed);
        gauges.used_bytes.store(state.used_bytes, Ordering::Relaxed);
        self.allocated(state.allocated_bytes);
        gauges.revision.store(state.revision, Ordering::Relaxed);
        let window_ms = u64::try_from(state.request_window.as_millis()).unwrap_or(u64::MAX);
        gauges.request_window_ms.store(window_ms, Ordering::Relaxed);
    }

    /// So many entries were removed to make room.
    pub fn evicted(&self, keys: u64) {
        self.0.gauges.evicted_keys.fetch_add(keys, Ordering::Relaxed);
    }

    /// The disk has so much room, of which so much is kept free.
    pub fn disk(&self, free_bytes: u64, reserve_bytes: u64) {
        self.0.gauges.disk_free_bytes.store(free_bytes, Ordering::Relaxed);
        self.0.gauges.disk_reserve_bytes.store(reserve_bytes, Ordering::Relaxed);
    }

    /// The store may use so much.
    pub fn memory_limit(&self, bytes: u64) {
        self.0.gauges.memory_limit_bytes.store(bytes, Ordering::Relaxed);
    }

    /// So many watchers are there.
    pub fn watchers(&self, count: u64) {
        self.0.gauges.watchers.store(count, Ordering::Relaxed);
    }

    /// A watcher was sent events.
    pub fn watch_events(&self, count: u64) {
        self.0.gauges.watch_events.fetch_add(count, Ordering::Relaxed);
    }

    /// A watcher was ended because it read too slowly.
    pub fn watcher_dropped(&self) {
        self.0.gauges.watch_dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// What the watch history holds now.
    pub fn watch_history(&self, events: u64, bytes: u64) {
        self.0.gauges.watch_history_events.store(events, Ordering::Relaxed);
        self.0.gauges.watch_history_bytes.store(bytes, Ordering::Relaxed);
    }

    /// The start's recovery took this long, and cut so many torn bytes off the log.
    pub fn recovered(&self, elapsed: Duration, cut_bytes: u64) {
        let recovery_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        self.0.gauges.recovery_us.store(recovery_us, Ordering::Relaxed);
        self.0.gauges.recovery_cut_bytes.store(cut_bytes, Ordering::Relaxed);
    }

    /// A snapshot was taken.
    pub fn snapshot_taken(&self, elapsed: Duration, bytes: u64) {
        self.0.snapshot.record(elapsed.as_secs_f64());
        self.0.gauges.snapshot_written_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// This is the last snapshot: it ends at this record, whose time is `time_ms`.
    pub fn snapshot_there(&self, index: u64, bytes: u64, time_ms: u64) {
        let gauges = &self.0.gauges;
        gauges.snapshot_last_index.store(index, Ordering::Relaxed);
        gauges.snapshot_last_bytes.store(bytes, Ordering::Relaxed);
        gauges.snapshot_last_ms.store(time_ms, Ordering::Relaxed);
    }

    /// A snapshot failed.
    pub fn snapshot_failed(&self) {
        self.0.gauges.snapshot_failures.fetch_add(1, Ordering::Relaxed);
    }

    /// So many spans were sent to the collector, or could not be.
    pub fn spans(&self, count: u64, sent: bool) {
        let counter = if sent { &self.0.gauges.spans_sent } else { &self.0.gauges.spans_failed };
        counter.fetch_add(count, Ordering::Relaxed);
    }

    /// Whether requests may be sent here.
    pub fn ready(&self, ready: bool) {
        self.0.gauges.ready.store(u64::from(ready), Ordering::Relaxed);
    }

    /// Everything in Prometheus' text format, with its content type.
    pub fn render(&self) -> Result<(String, Vec<u8>), MetricsError> {
        let encoder = TextEncoder::new();
        let mut text = Vec::with_capacity(16 * 1024);
        encoder.encode(&self.0.registry.gather(), &mut text).map_err(|error| MetricsError(error.to_string()))?;
        Ok((encoder.format_type().to_owned(), text))
    }
}

/// Records into the histogram bound to these labels, which is bound now if it is their first time.
fn record<Labels: Copy + Eq + std::hash::Hash>(
    known: &Bound<Labels>,
    labels: Labels,
    elapsed: Duration,
    bind: impl FnOnce() -> BoundHistogram<f64>,
) {
    if let Some(bound) = known.read().get(&labels) {
        bound.record(elapsed.as_secs_f64());
        return;
    }
    known.write().entry(labels).or_insert_with(bind).record(elapsed.as_secs_f64());
}

/// A method as OpenTelemetry's conventions name it, and a number for it.
pub fn method_label(method: &Method) -> (u8, &'static str) {
    match *method {
        Method::GET => (1, "GET"),
        Method::HEAD => (2, "HEAD"),
        Method::PUT => (3, "PUT"),
        Method::PATCH => (4, "PATCH"),
        Method::DELETE => (5, "DELETE"),
        Method::POST => (6, "POST"),
        Method::OPTIONS => (7, "OPTIONS"),
        _ => (0, "_OTHER"),
    }
}

/// The code as gRPC's documents write it.
pub fn code_label(code: tonic::Code) -> &'static str {
    use tonic::Code;
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

fn observe_operations(meter: &Meter, operations: &Arc<Operations>) {
    let operations = Arc::clone(operations);
    meter
        .u64_observable_counter("tandem.operations")
        .with_unit("{operation}")
        .with_description("Operations answered, by operation, protocol and reason; OK: it went well.")
        .with_callback(move |observer| {
            for operation in Operation::ALL {
                for protocol in Protocol::ALL {
                    let counters = &operations.0[operation as usize][protocol as usize];
                    for (place, counter) in counters.iter().enumerate() {
                        let count = counter.load(Ordering::Relaxed);
                        let reason = match place {
                            0 => Some("OK"),
                            _ if count == 0 => None,
                            place => i32::try_from(place)
                                .ok()
                                .and_then(|number| Reason::try_from(number).ok())
                                .map(Reason::name),
                        };
                        if let Some(reason) = reason {
                            let labels = [
                                KeyValue::new("operation", operation.label()),
                                KeyValue::new("protocol", protocol.label()),
                                KeyValue::new("reason", reason),
                            ];
                            observer.observe(count, &labels);
                        }
                    }
                }
            }
        })
        .build();
}

fn observe_slow_requests(meter: &Meter, slow_requests: &Arc<SlowRequests>) {
    let slow_requests = Arc::clone(slow_requests);
    meter
        .u64_observable_counter("tandem.slow_requests")
        .with_unit("{request}")
        .with_description("Requests that took as long as telemetry.slow_request_threshold, by operation and protocol.")
        .with_callback(move |observer| {
            let operations = Operation::ALL.into_iter().map(Some).chain([None]);
            for (operation, counters) in operations.zip(&slow_requests.0) {
                for (protocol, counter) in Protocol::ALL.into_iter().zip(counters) {
                    let labels = [
                        KeyValue::new("operation", Operation::label_of(operation)),
                        KeyValue::new("protocol", protocol.label()),
                    ];
                    observer.observe(counter.load(Ordering::Relaxed), &labels);
                }
            }
        })
        .build();
}

fn observe_gauges(meter: &Meter, gauges: &Arc<Gauges>) {
    let gauge = |name: &'static str, unit: &'static str, help: &'static str, read: fn(&Gauges) -> &AtomicU64| {
        let gauges = Arc::clone(gauges);
        meter
            .u64_observable_gauge(name)
            .with_unit(unit)
            .with_description(help)
            .with_callback(move |observer| observer.observe(read(&gauges).load(Ordering::Relaxed), &[]))
            .build();
    };
    gauge("tandem.ready", "", "1 where requests may be sent here, as /readyz says; else 0.", |gauges| &gauges.ready);
    gauge("tandem.recovery.cut", "By", "Torn bytes that the start cut off the log.", |gauges| {
        &gauges.recovery_cut_bytes
    });
    gauge("tandem.commit.queue.depth", "{write}", "Writes that wait for the log.", |gauges| &gauges.queue_depth);
    gauge("tandem.keys", "{key}", "Entries in the store.", |gauges| &gauges.keys);
    gauge("tandem.data", "By", "Bytes of the keys and values in the store.", |gauges| &gauges.data_bytes);
    gauge("tandem.snapshot.last", "By", "Bytes of the last snapshot.", |gauges| &gauges.snapshot_last_bytes);
    gauge("tandem.snapshot.last.index", "{record}", "Last record that the last snapshot contains.", |gauges| {
        &gauges.snapshot_last_index
    });
    gauge("tandem.revision", "{revision}", "Revision of the last applied record.", |gauges| &gauges.revision);
    gauge("tandem.watchers", "{watcher}", "Watchers connected.", |gauges| &gauges.watchers);
    gauge("tandem.watch.history.events", "{event}", "Events kept for watchers that begin in the past.", |gauges| {
        &gauges.watch_history_events
    });
    gauge("tandem.watch.history", "By", "Bytes that these events take.", |gauges| &gauges.watch_history_bytes);
    gauge("tandem.memory.used", "By", "Bytes that entries and indexes use.", |gauges| &gauges.used_bytes);
    gauge("tandem.memory.allocated", "By", "Bytes that the store holds for entries and indexes.", |gauges| {
        &gauges.allocated_bytes
    });
    gauge("tandem.memory.limit", "By", "Bytes that entries and indexes may use.", |gauges| &gauges.memory_limit_bytes);
    gauge("tandem.disk.free", "By", "Bytes that are free on the disk of the data directory.", |gauges| {
        &gauges.disk_free_bytes
    });
    gauge("tandem.disk.reserve", "By", "Bytes of that disk below which growth is refused.", |gauges| {
        &gauges.disk_reserve_bytes
    });
    let overhead = Arc::clone(gauges);
    meter
        .u64_observable_gauge("tandem.memory.overhead")
        .with_unit("By")
        .with_description("What the store holds beyond the keys and values themselves.")
        .with_callback(move |observer| {
            let allocated = overhead.allocated_bytes.load(Ordering::Relaxed);
            observer.observe(allocated.saturating_sub(overhead.data_bytes.load(Ordering::Relaxed)), &[]);
        })
        .build();
    let seconds = |name: &'static str, help: &'static str, read: fn(&Gauges) -> f64| {
        let gauges = Arc::clone(gauges);
        meter
            .f64_observable_gauge(name)
            .with_unit("s")
            .with_description(help)
            .with_callback(move |observer| observer.observe(read(&gauges), &[]))
            .build();
    };
    seconds("tandem.request.window", "How far back answers to request ids are remembered.", |gauges| {
        gauges.request_window_ms.load(Ordering::Relaxed) as f64 / 1e3
    });
    seconds("tandem.recovery.duration", "Time that the start's recovery took.", |gauges| {
        gauges.recovery_us.load(Ordering::Relaxed) as f64 / 1e6
    });
    seconds(
        "tandem.snapshot.last.time",
        "Time of the last snapshot's state, in seconds since 1970 UTC; 0: none.",
        |gauges| gauges.snapshot_last_ms.load(Ordering::Relaxed) as f64 / 1e3,
    );
    let counter = |name: &'static str, unit: &'static str, help: &'static str, read: fn(&Gauges) -> &AtomicU64| {
        let gauges = Arc::clone(gauges);
        meter
            .u64_observable_counter(name)
            .with_unit(unit)
            .with_description(help)
            .with_callback(move |observer| observer.observe(read(&gauges).load(Ordering::Relaxed), &[]))
            .build();
    };
    counter("tandem.wal.written", "By", "Bytes written to the write-ahead log.", |gauges| &gauges.written_bytes);
    counter("tandem.evictions", "{key}", "Entries removed to make room.", |gauges| &gauges.evicted_keys);
    counter("tandem.watch.events", "{event}", "Events sent to watchers.", |gauges| &gauges.watch_events);
    counter("tandem.watch.dropped", "{watcher}", "Watchers ended because they read too slowly.", |gauges| {
        &gauges.watch_dropped
    });
    counter("tandem.trace.spans.sent", "{span}", "Spans sent to the collector.", |gauges| &gauges.spans_sent);
    counter("tandem.trace.spans.failed", "{span}", "Spans that the collector did not take.", |gauges| {
        &gauges.spans_failed
    });
    counter("tandem.snapshot.written", "By", "Bytes of the snapshots that were written.", |gauges| {
        &gauges.snapshot_written_bytes
    });
    counter("tandem.snapshot.failures", "{failure}", "Snapshots that failed.", |gauges| &gauges.snapshot_failures);
}

fn observe_process(meter: &Meter) {
    meter
        .u64_observable_gauge("tandem.build.info")
        .with_description("1, labelled with the server's version.")
        .with_callback(|observer| observer.observe(1, &[KeyValue::new("version", env!("CARGO_PKG_VERSION"))]))
        .build();
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    meter
        .f64_observable_gauge("process.start_time")
        .with_unit("s")
        .with_description("When the process started, in seconds since 1970 UTC.")
        .with_callback(move |observer| observer.observe(started, &[]))
        .build();
    meter
        .u64_observable_gauge("process.resident_memory")
        .with_unit("By")
        .with_description("Memory of the process that is in RAM.")
        .with_callback(|observer| {
            let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
            let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
            if let Some(pages) = pages {
                observer.observe(pages * rustix::param::page_size() as u64, &[]);
            }
        })
        .build();
    meter
        .f64_observable_counter("process.cpu")
        .with_unit("s")
        .with_description("Time that the process ran, user and system, all threads.")
        .with_callback(|observer| {
            let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
            // The name of the process may hold anything; behind its closing bracket field 14 and 15 are the 12th and 13th.
            let fields: Vec<_> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
            let ticks = |place: usize| fields.get(place).and_then(|ticks| ticks.parse::<u64>().ok());
            if let (Some(user), Some(system)) = (ticks(11), ticks(12)) {
                observer.observe((user + system) as f64 / rustix::param::clock_ticks_per_second() as f64, &[]);
            }
        })
        .build();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrape(metrics: &Metrics) -> String {
        String::from_utf8(metrics.render().unwrap().1).unwrap()
    }

    #[test]
    fn counters_and_gauges_are_there_from_the_first_scrape_by_their_contracted_names() {
        let text = scrape(&Metrics::new(true).unwrap());
        for name in [
            "tandem_operations_total{operation=\"put\",protocol=\"grpc\",reason=\"OK\"} 0",
            "tandem_wal_written_bytes_total 0",
            "tandem_ready 0",
            "tandem_recovery_cut_bytes 0",
            "tandem_commit_queue_depth 0",
            "tandem_keys 0",
            "tandem_data_bytes 0",
            "tandem_memory_used_bytes 0",
            "tandem_memory_allocated_bytes 0",
            "tandem_memory_limit_bytes 0",
            "tandem_evictions_total 0",
            "tandem_disk_free_bytes 0",
            "tandem_disk_reserve_bytes 0",
            "tandem_memory_overhead_bytes 0",
            "tandem_revision 0",
            "tandem_request_window_seconds 0",
            "tandem_recovery_duration_seconds 0",
            "tandem_watchers 0",
            "tandem_watch_events_total 0",
            "tandem_watch_dropped_total 0",
            "tandem_watch_history_events 0",
            "tandem_watch_history_bytes 0",
            "tandem_snapshot_written_bytes_total 0",
            "tandem_snapshot_failures_total 0",
            "tandem_snapshot_last_bytes 0",
            "tandem_snapshot_last_index 0",
            "tandem_snapshot_last_time_seconds 0",
            "tandem_build_info{version=",
            "process_resident_memory_bytes ",
            "process_cpu_seconds_total ",
            "process_start_time_seconds ",
        ] {
            assert!(text.contains(name), "{name} in\n{text}");
        }
        assert!(!text.contains("otel_scope") && !text.contains("target_info"));
    }

    #[test]
    fn verbs_show_up_under_their_contracted_names_and_labels() {
        let metrics = Metrics::new(true).unwrap();
        let elapsed = Duration::from_micros(150);
        metrics.answered(Operation::Put, Protocol::Http, Some(Reason::KeyExists));
        metrics.http_request(&Method::PUT, Some("/v1/kv/{key}"), StatusCode::CREATED, elapsed);
        metrics.http_request(&Method::from_bytes(b"BREW").unwrap(), None, StatusCode::NOT_FOUND, elapsed);
        metrics.rpc_call("tandem.v1.KvService/Get", tonic::Code::Ok, elapsed);
        metrics.synced(elapsed);
        metrics.evacuated(elapsed);
        metrics.waited(elapsed);
        drop(metrics.stream_begins(Some(Operation::Scan), Protocol::Http));
        metrics.committed(3);
        metrics.applied(elapsed);
        metrics.read_locked(elapsed);
        metrics.snapshot_taken(Duration::from_secs(20), 77);
        metrics.snapshot_there(5, 77, 1_500);
        metrics.snapshot_failed();
        let text = scrape(&metrics);
        for line in [
            "tandem_operations_total{operation=\"put\",protocol=\"http\",reason=\"KEY_EXISTS\"} 1",
            "http_server_request_duration_seconds_count{http_request_method=\"PUT\",http_response_status_code=\"201\",http_route=\"/v1/kv/{key}\",url_scheme=\"http\"} 1",
            "http_server_request_duration_seconds_count{http_request_method=\"_OTHER\",http_response_status_code=\"404\",url_scheme=\"http\"} 1",
            "rpc_server_call_duration_seconds_count{rpc_method=\"tandem.v1.KvService/Get\",rpc_response_status_code=\"OK\",rpc_system_name=\"grpc\"} 1",
            "tandem_wal_sync_duration_seconds_bucket{le=\"0.0002\"} 1",
            "tandem_evacuation_step_duration_seconds_count 1",
            "tandem_wait_duration_seconds_count 1",
            "tandem_apply_duration_seconds_count 1",
            "tandem_read_lock_duration_seconds_count 1",
            "tandem_stream_duration_seconds_count{operation=\"scan\",protocol=\"http\"} 1",
            "tandem_commit_group_records_bucket{le=\"2\"} 0",
            "tandem_commit_group_records_bucket{le=\"4\"} 1",
            "tandem_snapshot_duration_seconds_bucket{le=\"30\"} 1",
            "tandem_snapshot_written_bytes_total 77",
            "tandem_snapshot_last_bytes 77",
            "tandem_snapshot_last_index 5",
            "tandem_snapshot_last_time_seconds 1.5",
            "tandem_snapshot_failures_total 1",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}
