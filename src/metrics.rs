//! Every instrument in one catalogue. Call sites use verbs; names, units and labels stand here alone.
//!
//! Instruments are OpenTelemetry's, exported for Prometheus from a registry of this server's own. What is recorded for
//! each request costs little: operations are counted in a table of atomics that the exporter reads, and histograms are
//! bound to their labels once. No label ever carries a key, a raw path or a client's text.

mod alarms;
mod connections;
mod cores;
mod gauges;
mod requests;

pub use self::{
    alarms::ALARMS,
    connections::{Door, OpenConnection, Turned},
    gauges::State,
    requests::StreamTimer,
};

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{Method, StatusCode};
use opentelemetry::{
    KeyValue,
    metrics::{BoundHistogram, Histogram, Meter, MeterProvider as _},
};
use opentelemetry_sdk::{Resource, metrics::SdkMeterProvider};
use parking_lot::RwLock;
use prometheus::{Encoder as _, Registry, TextEncoder};

use self::{
    alarms::Raised,
    connections::Connections,
    cores::Cores,
    gauges::Gauges,
    requests::{Operations, Rejected, SlowRequests, Streams},
};

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
    /// Tells an operator how the server is.
    Status,
    /// Takes a snapshot.
    CreateSnapshot,
    /// Lists the snapshots.
    ListSnapshots,
    /// Streams a snapshot.
    Backup,
    /// Checks the files of the store.
    VerifyIntegrity,
    /// Brings everything that is written to disk.
    Sync,
    /// Tells of the last slow requests.
    SlowRequests,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 20] = [
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
        Self::Status,
        Self::CreateSnapshot,
        Self::ListSnapshots,
        Self::Backup,
        Self::VerifyIntegrity,
        Self::Sync,
        Self::SlowRequests,
    ];

    /// Whether it writes.
    pub fn is_write(self) -> bool {
        match self {
            Self::Get | Self::BatchGet | Self::List | Self::Scan | Self::Count | Self::Watch => false,
            Self::Put | Self::Delete | Self::Increment | Self::Touch => true,
            Self::BatchWrite | Self::Txn | Self::DeleteRange => true,
            Self::Status | Self::CreateSnapshot | Self::ListSnapshots | Self::Sync => false,
            Self::Backup | Self::VerifyIntegrity | Self::SlowRequests => false,
        }
    }

    /// Whether it lasts as long as files are long, which no request timeout bounds.
    pub fn is_lengthy(self) -> bool {
        matches!(self, Self::CreateSnapshot | Self::Backup | Self::VerifyIntegrity)
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
            Self::Status => "status",
            Self::CreateSnapshot => "create_snapshot",
            Self::ListSnapshots => "list_snapshots",
            Self::Backup => "backup",
            Self::VerifyIntegrity => "verify_integrity",
            Self::Sync => "sync",
            Self::SlowRequests => "slow_requests",
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

struct Inner {
    enabled: bool,
    registry: Registry,
    /// Its readers live as long as it does.
    _provider: SdkMeterProvider,
    operations: Arc<Operations>,
    slow_requests: Arc<SlowRequests>,
    rejected: Arc<Rejected>,
    streams: Arc<Streams>,
    connections: Arc<Connections>,
    cores: Cores,
    core_lag: BoundHistogram<f64>,
    alarms: Arc<Raised>,
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
        let operations = Arc::new(Operations::default());
        let slow_requests = Arc::new(SlowRequests::default());
        let rejected = Arc::new(Rejected::default());
        let (streams, connections, cores, alarms) = (Arc::default(), Arc::default(), Cores::default(), Arc::default());
        let gauges = Arc::new(Gauges::default());
        requests::observe_operations(&meter, &operations);
        requests::observe_slow_requests(&meter, &slow_requests);
        requests::observe_rejected(&meter, &rejected);
        requests::observe_streams(&meter, &streams);
        connections::observe(&meter, &connections);
        cores::observe(&meter, &cores);
        alarms::observe(&meter, &alarms);
        gauges::observe(&meter, &gauges);
        observe_process(&meter);
        let seconds = |name: &'static str, help: &'static str, bounds: &[f64]| {
            meter.f64_histogram(name).with_unit("s").with_description(help).with_boundaries(bounds.to_vec()).build()
        };
        let inner = Inner {
            enabled,
            registry,
            operations,
            slow_requests,
            rejected,
            streams,
            connections,
            cores,
            core_lag: seconds(
                "tandem.core.lag",
                "How long what is ready waits for its turn on a serving core, twice a second.",
                &SECONDS,
            )
            .bind(&[]),
            alarms,
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

    /// A group of records was committed.
    pub fn committed(&self, records: u64) {
        self.0.group.record(records);
    }

    /// A step of giving memory back held a part of the store for so long.
    pub fn evacuated(&self, elapsed: Duration) {
        self.0.evacuation.record(elapsed.as_secs_f64());
    }

    /// A snapshot was taken.
    pub fn snapshot_taken(&self, elapsed: Duration, bytes: u64) {
        self.0.snapshot.record(elapsed.as_secs_f64());
        self.0.gauges.snapshot_written_bytes.fetch_add(bytes, Ordering::Relaxed);
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

/// Memory of the process that is in RAM, if the operating system tells.
pub fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
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
            if let Some(bytes) = resident_bytes() {
                observer.observe(bytes, &[]);
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
mod tests;
