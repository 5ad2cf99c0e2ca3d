//! Every key of the configuration: what it takes, where it goes, what it means. Parsing, showing, the example file and
//! suggestions for misspelt keys all read this one list.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use config::Value;

use super::{
    AdminAccess, LogFormat, MemoryLimit, Settings, SyncMode,
    choice::{Choice as _, choice_of, words_of},
    parse::{bytes_of, delimiters_of, duration_of, endpoint_of, memory_of, origins_of, within},
};
use crate::{
    limits::{
        Eviction, KEY_BYTES_MAX, KEYSPACE_DELIMITERS_MAX, KEYSPACE_DEPTH_MAX, KEYSPACE_LARGEST_MAX,
        KEYSPACE_PREFIXES_MAX, MEMORY_BYTES_MIN, MEMORY_PERCENT_DEFAULT, REQUEST_BYTES_MAX, SEGMENT_BYTES_MAX,
        SEGMENT_BYTES_MIN, VALUE_BYTES_MAX,
    },
    notation::{parse_millionths, show_bytes, show_duration, show_millionths},
};

/// What a key takes, and where it goes.
enum Kind {
    Text(fn(&mut Settings) -> &mut String),
    Path(fn(&mut Settings) -> &mut PathBuf),
    Address(fn(&mut Settings) -> &mut SocketAddr),
    Switch(fn(&mut Settings) -> &mut bool),
    Count(fn(&mut Settings) -> &mut usize, usize, usize),
    Bytes(fn(&mut Settings) -> &mut usize, usize, usize),
    Segment(fn(&mut Settings) -> &mut u64),
    Time(fn(&mut Settings) -> &mut Duration, Duration, Duration),
    Sync,
    Memory,
    Reserve,
    Eviction,
    Delimiters,
    Admin,
    Format,
    Streams,
    Origins,
    Endpoint,
    Ratio,
}

/// One key of the configuration.
pub struct Key {
    /// Section and name.
    pub path: &'static str,
    kind: Kind,
    meaning: &'static str,
}

const fn key(path: &'static str, kind: Kind, meaning: &'static str) -> Key {
    Key { path, kind, meaning }
}

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// Every key there is.
pub const KEYS: &[Key] = &[
    key("server.data_dir", Kind::Path(|s| &mut s.server.data_dir), "Where the data is; created where missing."),
    key("server.http_address", Kind::Address(|s| &mut s.server.http_address), "REST: address and port."),
    key("server.grpc_address", Kind::Address(|s| &mut s.server.grpc_address), "gRPC: address and port."),
    key(
        "server.ops_address",
        Kind::Address(|s| &mut s.server.ops_address),
        "Probes, metrics and administration: address and port.",
    ),
    key(
        "server.admin",
        Kind::Admin,
        "Whether the ops listener serves the administration (AdminService, /v1/admin/): auto = if it is on loopback; on; off.",
    ),
    key("server.threads", Kind::Count(|s| &mut s.server.threads, 0, 256), "Serving threads; 0: one for each core."),
    key(
        "cors.allowed_origins",
        Kind::Origins,
        "Origins whose pages a browser lets call REST and gRPC-Web; [] = none, \"*\" = any.",
    ),
    key(
        "wal.sync",
        Kind::Sync,
        "When a write that does not ask is answered: always = once it is on disk; interval = once it is written, synced within wal.sync_interval; never = once it is written.",
    ),
    key(
        "wal.sync_interval",
        Kind::Time(|s| &mut s.wal.sync_interval, MS, MINUTE),
        "How soon writes that nobody waits for are synced (not with wal.sync: never).",
    ),
    key(
        "wal.segment_bytes",
        Kind::Segment(|s| &mut s.wal.segment_bytes),
        "Size of a log segment; a record takes half of one at most.",
    ),
    key(
        "wal.failed_exit_after",
        Kind::Time(|s| &mut s.wal.failed_exit_after, Duration::ZERO, HOUR),
        "How long the process stays up, serving reads, after the log failed.",
    ),
    key(
        "wal.disk_reserve",
        Kind::Reserve,
        "Disk space that is kept free; growth gets DISK_FULL below it. auto = two segments or 5% of the disk up to 1GiB, whichever is more, and 1.2 times the last snapshot.",
    ),
    key(
        "snapshot.keep",
        Kind::Count(|s| &mut s.snapshot.keep, 1, 100),
        "How many snapshots are kept; the log goes back to the oldest of them.",
    ),
    key(
        "snapshot.interval",
        Kind::Time(|s| &mut s.snapshot.interval, Duration::ZERO, DAY),
        "How often a snapshot is taken at least, if anything was written; 0ms: only by snapshot.log_bytes.",
    ),
    key(
        "snapshot.log_bytes",
        Kind::Bytes(|s| &mut s.snapshot.log_bytes, 64 << 10, 1 << 40),
        "A snapshot is taken after so many bytes of log, or as many as the last snapshot has if that is more.",
    ),
    key(
        "snapshot.bytes_per_second",
        Kind::Bytes(|s| &mut s.snapshot.bytes_per_second, 1 << 20, 1 << 40),
        "How fast a snapshot is written: slow enough to leave the disk to the log.",
    ),
    key(
        "store.memory_limit",
        Kind::Memory,
        "Memory that entries and indexes may use; growth past it gets MEMORY_LIMIT. auto = 70% of the cgroup's limit, else of the machine's memory.",
    ),
    key(
        "store.eviction",
        Kind::Eviction,
        "What goes when memory is short: none = nothing, growth is refused; all = entries that were not used for a while; expiring = of these only such as expire.",
    ),
    key(
        "keyspace.delimiters",
        Kind::Delimiters,
        "Each of these characters ends a prefix of a key: /v1/admin/keyspace tells what begins with each prefix.",
    ),
    key(
        "keyspace.depth",
        Kind::Count(|s| &mut s.keyspace.depth, 0, KEYSPACE_DEPTH_MAX),
        "Prefixes with up to so many delimiters are counted.",
    ),
    key(
        "keyspace.prefixes_max",
        Kind::Count(|s| &mut s.keyspace.prefixes_max, 0, KEYSPACE_PREFIXES_MAX),
        "So many of each depth are told, the largest; the others together.",
    ),
    key(
        "keyspace.largest_max",
        Kind::Count(|s| &mut s.keyspace.largest_max, 0, KEYSPACE_LARGEST_MAX),
        "So many of the largest keys are told.",
    ),
    key(
        "keyspace.interval",
        Kind::Time(|s| &mut s.keyspace.interval, Duration::ZERO, DAY),
        "How long the walk that finds prefixes and largest keys rests before it begins again, if anything was written; as long as it took at least. 0ms: nothing is walked.",
    ),
    key("limits.key_bytes", Kind::Bytes(|s| &mut s.limits.key_bytes, 1, KEY_BYTES_MAX), "Longest key."),
    key("limits.value_bytes", Kind::Bytes(|s| &mut s.limits.value_bytes, 1, VALUE_BYTES_MAX), "Longest value."),
    key(
        "limits.request_bytes",
        Kind::Bytes(|s| &mut s.limits.request_bytes, 4 << 10, REQUEST_BYTES_MAX),
        "Largest request.",
    ),
    key(
        "limits.header_bytes",
        Kind::Bytes(|s| &mut s.limits.header_bytes, 8 << 10, 48 << 10),
        "Largest header section of a request.",
    ),
    key(
        "limits.queue_items",
        Kind::Count(|s| &mut s.limits.queue_items, 1, 1 << 24),
        "Writes that wait for the log at most; past it OVERLOADED.",
    ),
    key(
        "limits.queue_bytes",
        Kind::Bytes(|s| &mut s.limits.queue_bytes, 1 << 20, 4 << 30),
        "Bytes of writes that wait for the log at most.",
    ),
    key(
        "limits.bodies_bytes",
        Kind::Bytes(|s| &mut s.limits.bodies_bytes, 1 << 20, 64 << 30),
        "Bytes of request bodies that are being read or answered at most, over all connections; past it OVERLOADED.",
    ),
    key(
        "limits.request_timeout",
        Kind::Time(|s| &mut s.limits.request_timeout, MS, HOUR),
        "Time a request may take; a shorter grpc-timeout wins.",
    ),
    key(
        "limits.header_timeout",
        Kind::Time(|s| &mut s.limits.header_timeout, MS, HOUR),
        "Time in which a connection's next request must bring its headers.",
    ),
    key(
        "limits.body_timeout",
        Kind::Time(|s| &mut s.limits.body_timeout, MS, HOUR),
        "Time in which a request's body must arrive.",
    ),
    key(
        "limits.connections",
        Kind::Count(|s| &mut s.limits.connections, 1, 1_000_000),
        "Connections of each listener at most.",
    ),
    key("limits.streams_per_connection", Kind::Streams, "Requests at once on one HTTP/2 connection at most."),
    key(
        "limits.keepalive_interval",
        Kind::Time(|s| &mut s.limits.keepalive_interval, MS, HOUR),
        "How often HTTP/2 pings a silent peer.",
    ),
    key(
        "limits.keepalive_timeout",
        Kind::Time(|s| &mut s.limits.keepalive_timeout, MS, HOUR),
        "How long a peer may take to answer a ping before its connection is dropped.",
    ),
    key("limits.waits", Kind::Count(|s| &mut s.limits.waits, 0, 1_000_000), "Requests held by ?wait= at once at most."),
    key("limits.watches", Kind::Count(|s| &mut s.limits.watches, 0, 10_000_000), "Watchers at once at most."),
    key(
        "limits.watcher_buffer_revisions",
        Kind::Count(|s| &mut s.limits.watcher_buffer_revisions, 1, 1 << 20),
        "Revisions that wait for a slow watcher at most; past it the watcher is ended with WATCHER_TOO_SLOW.",
    ),
    key(
        "limits.watcher_buffer_bytes",
        Kind::Bytes(|s| &mut s.limits.watcher_buffer_bytes, 64 << 10, 1 << 30),
        "Bytes that wait for a slow watcher at most.",
    ),
    key(
        "limits.watch_history_events",
        Kind::Count(|s| &mut s.limits.watch_history_events, 0, 100_000_000),
        "Events that are kept for watchers that begin in the past.",
    ),
    key(
        "limits.watch_history_bytes",
        Kind::Bytes(|s| &mut s.limits.watch_history_bytes, 0, 64 << 30),
        "Bytes that these events take at most.",
    ),
    key(
        "limits.slow_requests",
        Kind::Count(|s| &mut s.limits.slow_requests, 0, 100_000),
        "Slow requests that are kept for /v1/admin/slow.",
    ),
    key(
        "limits.drain_timeout",
        Kind::Time(|s| &mut s.limits.drain_timeout, Duration::ZERO, HOUR),
        "How long a stop waits for requests in flight.",
    ),
    key(
        "limits.request_window",
        Kind::Time(|s| &mut s.limits.request_window, S, DAY),
        "How long answers to request ids are remembered.",
    ),
    key(
        "limits.request_window_ids",
        Kind::Count(|s| &mut s.limits.request_window_ids, 1, 100_000_000),
        "How many of them are remembered at most.",
    ),
    key(
        "limits.request_window_bytes",
        Kind::Bytes(|s| &mut s.limits.request_window_bytes, 1 << 20, 16 << 30),
        "How many bytes they may take at most.",
    ),
    key(
        "telemetry.log_level",
        Kind::Text(|s| &mut s.telemetry.log_level),
        "What is logged: error, warn, info, debug, trace, or a filter such as info,tandem::engine=debug.",
    ),
    key(
        "telemetry.log_format",
        Kind::Format,
        "How log lines look: auto = text on a terminal, JSON elsewhere; text; json.",
    ),
    key(
        "telemetry.slow_request_threshold",
        Kind::Time(|s| &mut s.limits.slow_request_threshold, Duration::ZERO, HOUR),
        "A request that takes this long is counted, logged and kept as slow; streams and ?wait= never are. 0ms: every request; 1h: none.",
    ),
    key("telemetry.metrics", Kind::Switch(|s| &mut s.telemetry.metrics), "Whether instruments record."),
    key(
        "telemetry.otlp_endpoint",
        Kind::Endpoint,
        "Collector that traces are sent to, by OTLP over gRPC, usually on port 4317; empty: nothing is traced.",
    ),
    key(
        "telemetry.trace_sample_ratio",
        Kind::Ratio,
        "Part of the requests without a traceparent that are traced; the others are as their callers decided.",
    ),
];

/// The key that a misspelt one was meant to be.
pub fn suggestion(path: &str) -> String {
    let near = KEYS.iter().map(|key| (distance(path, key.path), key.path)).min();
    match near {
        Some((distance, near)) if distance <= 4 => format!("; did you mean {near}?"),
        _ => "; `tandem config show` lists them all".into(),
    }
}

/// Levenshtein's distance.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (at, byte) in left.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], at + 1);
        for (place, other) in right.bytes().enumerate() {
            let change = diagonal + usize::from(byte != other);
            diagonal = row[place + 1];
            row[place + 1] = change.min(row[place] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

impl Key {
    /// Sets the key to a value, or says what is wrong with it.
    pub fn set(&self, settings: &mut Settings, value: &Value) -> Result<(), String> {
        if let Kind::Origins = self.kind {
            settings.cors.allowed_origins = origins_of(value)?;
            return Ok(());
        }
        let text = value.clone().into_string().map_err(|_| "not a single value".to_owned())?;
        let text = text.trim();
        match &self.kind {
            Kind::Text(field) => *field(settings) = text.to_owned(),
            Kind::Path(_) if text.is_empty() => return Err("it is empty".into()),
            Kind::Path(field) => *field(settings) = text.into(),
            Kind::Address(field) => {
                *field(settings) = text.parse().map_err(|_| format!("{text:?} is not an address with a port"))?;
            }
            Kind::Switch(field) => {
                *field(settings) = text.parse().map_err(|_| format!("{text:?} is neither true nor false"))?;
            }
            Kind::Count(field, least, most) => {
                let count = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
                *field(settings) = within(count, *least, *most, text)?;
            }
            Kind::Bytes(field, least, most) => {
                let bytes = usize::try_from(bytes_of(text)?).unwrap_or(usize::MAX);
                *field(settings) = within(bytes, *least, *most, text)?;
            }
            Kind::Segment(field) => {
                *field(settings) = within(bytes_of(text)?, SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX, text)?;
            }
            Kind::Time(field, least, most) => {
                *field(settings) = within(duration_of(text)?, *least, *most, text)?;
            }
            Kind::Sync => settings.wal.sync = choice_of(text)?,
            Kind::Memory => settings.store.memory_limit = memory_of(text)?,
            Kind::Eviction => settings.limits.eviction = choice_of(text)?,
            Kind::Delimiters => settings.keyspace.delimiters = delimiters_of(text)?,
            Kind::Admin => settings.server.admin = choice_of(text)?,
            Kind::Reserve => {
                settings.limits.disk_reserve_bytes = if text == "auto" { None } else { Some(bytes_of(text)?) };
            }
            Kind::Format => settings.telemetry.log_format = choice_of(text)?,
            Kind::Endpoint => settings.telemetry.otlp_endpoint = endpoint_of(text)?,
            Kind::Ratio => {
                settings.telemetry.trace_sample_millionths =
                    parse_millionths(text).ok_or_else(|| format!("{text:?} is not from 0 to 1"))?;
            }
            // Set above: it may be a list.
            Kind::Origins => {}
            Kind::Streams => {
                let streams = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
                settings.limits.streams_per_connection = within(streams, 1, 65_536, text)?;
            }
        }
        Ok(())
    }

    /// What it takes, for people.
    pub fn takes(&self) -> String {
        match &self.kind {
            Kind::Text(_) => "text".into(),
            Kind::Path(_) => "a path".into(),
            Kind::Address(_) => "ADDRESS:PORT, such as 127.0.0.1:16700 or [::]:16700; port 0: any free one".into(),
            Kind::Switch(_) => "true or false".into(),
            Kind::Count(_, least, most) => format!("{least} to {most}"),
            Kind::Bytes(_, least, most) => format!("{} to {}", show_bytes(*least as u64), show_bytes(*most as u64)),
            Kind::Segment(_) => format!("{} to {}", show_bytes(SEGMENT_BYTES_MIN), show_bytes(SEGMENT_BYTES_MAX)),
            Kind::Time(_, least, most) => {
                format!("{} to {}; units ms, s, m, h, d", show_duration(*least), show_duration(*most))
            }
            Kind::Sync => words_of::<SyncMode>(),
            Kind::Eviction => words_of::<Eviction>(),
            Kind::Delimiters => format!("up to {KEYSPACE_DELIMITERS_MAX} visible ASCII characters; empty: none"),
            Kind::Admin => words_of::<AdminAccess>(),
            Kind::Reserve => "auto, or a size; 0: none".into(),
            Kind::Memory => format!("auto, 1% to 100%, or a size from {}", show_bytes(MEMORY_BYTES_MIN)),
            Kind::Format => words_of::<LogFormat>(),
            Kind::Streams => "1 to 65536".into(),
            Kind::Endpoint => "http://HOST:PORT, or nothing".into(),
            Kind::Ratio => "0 to 1, such as 0.01".into(),
            Kind::Origins => {
                "a list, or text with commas, such as [\"https://app.example\", \"http://localhost:8080\"]".into()
            }
        }
    }

    /// The value in force, as the file would say it.
    fn show(&self, settings: &Settings) -> String {
        // The accessors take a mutable borrow: one catalogue serves both ways.
        let mut copy = settings.clone();
        match &self.kind {
            Kind::Text(field) => field(&mut copy).clone(),
            Kind::Path(field) => field(&mut copy).display().to_string(),
            Kind::Address(field) => format!("\"{}\"", field(&mut copy)),
            Kind::Switch(field) => field(&mut copy).to_string(),
            Kind::Count(field, ..) => field(&mut copy).to_string(),
            Kind::Bytes(field, ..) => show_bytes(*field(&mut copy) as u64),
            Kind::Segment(field) => show_bytes(*field(&mut copy)),
            Kind::Time(field, ..) => show_duration(*field(&mut copy)),
            Kind::Sync => settings.wal.sync.word().into(),
            Kind::Eviction => settings.limits.eviction.word().into(),
            Kind::Delimiters => format!("{:?}", settings.keyspace.delimiters),
            Kind::Admin => settings.server.admin.word().into(),
            Kind::Reserve => settings.limits.disk_reserve_bytes.map_or("auto".into(), show_bytes),
            Kind::Memory => match settings.store.memory_limit {
                MemoryLimit::Percent(MEMORY_PERCENT_DEFAULT) => "auto".into(),
                MemoryLimit::Percent(percent) => format!("{percent}%"),
                MemoryLimit::Bytes(bytes) => show_bytes(bytes),
            },
            Kind::Format => settings.telemetry.log_format.word().into(),
            Kind::Streams => settings.limits.streams_per_connection.to_string(),
            Kind::Endpoint => format!("{:?}", settings.telemetry.otlp_endpoint.as_deref().unwrap_or_default()),
            Kind::Ratio => show_millionths(settings.telemetry.trace_sample_millionths),
            // Origins have no characters that would need an escape.
            Kind::Origins => format!("{:?}", settings.cors.allowed_origins),
        }
    }
}

/// Settings as YAML, with a comment on each key.
pub fn render(settings: &Settings, comment: impl Fn(&Key) -> String) -> String {
    let mut text = String::new();
    let mut section = "";
    for key in KEYS {
        let (of, name) = key.path.split_once('.').unwrap_or(("", key.path));
        if of != section {
            section = of;
            text.push_str(&format!("{section}:\n"));
        }
        text.push_str(&format!("  {name}: {}  # {}\n", key.show(settings), comment(key)));
    }
    text
}

/// The example file: every key with its meaning, its range and its default.
pub fn example() -> String {
    let mut text = String::from(
        "# Every key of Tandem's configuration, with its default. Copy it to config/tandem.yml and keep what you change.\n\
         # Environment (TANDEM__WAL__SYNC=interval) and flags win over this file. Times need a unit: ms, s, m, h, d.\n",
    );
    let defaults = Settings::default();
    let mut section = "";
    for key in KEYS {
        let (of, name) = key.path.split_once('.').unwrap_or(("", key.path));
        if of != section {
            section = of;
            text.push_str(&format!("\n{section}:\n"));
        }
        text.push_str(&format!("  # {}\n  # Takes {}.\n  {name}: {}\n", key.meaning, key.takes(), key.show(&defaults)));
    }
    text
}
