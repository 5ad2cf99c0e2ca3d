//! Raw settings to checked settings: one catalogue of keys, with default, range and meaning, drives everything.
//!
//! Defaults in the program < `config/tandem.yml` or `--config FILE` < environment (`TANDEM__WAL__SYNC`) < flags. Unknown keys
//! and bad values are collected and reported together, each with where it came from.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use config::{Config, File, FileFormat, Map, Value, ValueKind};

use crate::limits::{
    KEY_BYTES_MAX, Limits, RECORD_OVERHEAD_BYTES_MAX, REQUEST_BYTES_MAX, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN,
    VALUE_BYTES_MAX,
};

/// The file that is read if it is there and no other is named.
pub const FILE_DEFAULT: &str = "config/tandem.yml";
/// What environment variables begin with.
const ENVIRONMENT_PREFIX: &str = "TANDEM__";

/// What a write gets that does not ask for a durability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMode {
    /// Answered once it is on disk.
    Always,
    /// Answered once it is written; synced within an interval.
    Interval,
    /// Answered once it is written; synced when the operating system pleases.
    Never,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// Text.
    Text,
    /// JSON.
    Json,
}

/// Section `server`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Where the data is.
    pub data_dir: PathBuf,
    /// REST.
    pub http_address: SocketAddr,
    /// gRPC.
    pub grpc_address: SocketAddr,
    /// Probes and metrics.
    pub ops_address: SocketAddr,
    /// Serving threads; 0: one for each core.
    pub threads: usize,
}

/// Section `wal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wal {
    /// When writes are synced.
    pub sync: SyncMode,
    /// How soon weak writes are synced.
    pub sync_interval: Duration,
    /// Size of a segment.
    pub segment_bytes: u64,
    /// How long the process stays up after the log failed.
    pub failed_exit_after: Duration,
}

/// Section `telemetry`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telemetry {
    /// What is logged.
    pub log_level: String,
    /// How it looks.
    pub log_format: LogFormat,
    /// Whether instruments record.
    pub metrics: bool,
}

/// Everything, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Section `server`.
    pub server: Server,
    /// Section `wal`.
    pub wal: Wal,
    /// Section `limits`.
    pub limits: Limits,
    /// Section `telemetry`.
    pub telemetry: Telemetry,
}

impl Default for Settings {
    fn default() -> Self {
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            server: Server {
                data_dir: "data".into(),
                http_address: loopback(16_700),
                grpc_address: loopback(16_701),
                ops_address: loopback(16_702),
                threads: 0,
            },
            wal: Wal {
                sync: SyncMode::Always,
                sync_interval: Duration::from_secs(1),
                segment_bytes: 64 << 20,
                failed_exit_after: Duration::from_secs(60),
            },
            limits: Limits::default(),
            telemetry: Telemetry { log_level: "info".into(), log_format: LogFormat::Auto, metrics: true },
        }
    }
}

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
    Format,
    Streams,
}

/// One key of the configuration.
struct Key {
    path: &'static str,
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
const KEYS: &[Key] = &[
    key("server.data_dir", Kind::Path(|s| &mut s.server.data_dir), "Where the data is; created where missing."),
    key("server.http_address", Kind::Address(|s| &mut s.server.http_address), "REST: address and port."),
    key("server.grpc_address", Kind::Address(|s| &mut s.server.grpc_address), "gRPC: address and port."),
    key("server.ops_address", Kind::Address(|s| &mut s.server.ops_address), "Probes and metrics: address and port."),
    key("server.threads", Kind::Count(|s| &mut s.server.threads, 0, 256), "Serving threads; 0: one for each core."),
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
    key("limits.waits", Kind::Count(|s| &mut s.limits.waits, 0, 1_000_000), "Requests held by ?wait= at once at most."),
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
    key("telemetry.metrics", Kind::Switch(|s| &mut s.telemetry.metrics), "Whether instruments record."),
];

/// Where settings come from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A file that must be there; otherwise [`FILE_DEFAULT`] where it is.
    pub file: Option<PathBuf>,
    /// The environment.
    pub environment: Vec<(String, String)>,
    /// Flags: the key's path, the flag and its value.
    pub flags: Vec<(&'static str, &'static str, String)>,
}

/// Settings with the origin of each key that is not a default.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    origins: BTreeMap<&'static str, String>,
}

/// Everything that is wrong, at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<String>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the configuration has {} error(s):", self.0.len())?;
        self.0.iter().try_for_each(|error| write!(formatter, "\n  {error}"))
    }
}

impl std::error::Error for ConfigErrors {}

/// Reads, merges and checks all sources.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigErrors> {
    let mut errors = Vec::new();
    let mut found: BTreeMap<String, (String, Value)> = BTreeMap::new();
    if let Some(file) = read_file(sources.file.as_deref(), &mut errors) {
        flatten(String::new(), file, &mut found);
    }
    for (name, value) in &sources.environment {
        if let Some(rest) = name.strip_prefix(ENVIRONMENT_PREFIX) {
            let path = rest.to_lowercase().replace("__", ".");
            found.insert(path, (format!("environment {name}"), Value::new(None, value.as_str())));
        }
    }
    for (path, flag, value) in &sources.flags {
        found.insert((*path).to_owned(), (format!("flag {flag}"), Value::new(None, value.as_str())));
    }
    let mut settings = Settings::default();
    let mut origins = BTreeMap::new();
    for (path, (origin, value)) in found {
        let Some(key) = KEYS.iter().find(|key| key.path == path) else {
            errors.push(format!("{path} ({origin}): no such key{}", suggestion(&path)));
            continue;
        };
        match key.set(&mut settings, &value) {
            Ok(()) => {
                origins.insert(key.path, origin);
            }
            Err(problem) => errors.push(format!("{path} ({origin}): {problem}; it takes {}", key.takes())),
        }
    }
    check_relations(&settings, &mut errors);
    if errors.is_empty() { Ok(Loaded { settings, origins }) } else { Err(ConfigErrors(errors)) }
}

fn read_file(file: Option<&Path>, errors: &mut Vec<String>) -> Option<Value> {
    let path = file.unwrap_or(Path::new(FILE_DEFAULT));
    let source = File::from(path).format(FileFormat::Yaml).required(file.is_some());
    let built = Config::builder().add_source(source).build();
    match built {
        Ok(built) => Some(built.cache),
        Err(error) => {
            errors.push(format!("{}: {error}", path.display()));
            None
        }
    }
}

fn flatten(path: String, value: Value, found: &mut BTreeMap<String, (String, Value)>) {
    match value.kind {
        ValueKind::Table(table) => {
            let table: Map<String, Value> = table;
            for (name, value) in table {
                let path = if path.is_empty() { name } else { format!("{path}.{name}") };
                flatten(path, value, found);
            }
        }
        // A section without keys is a file with everything commented out.
        ValueKind::Nil if !path.contains('.') => {}
        _ => {
            let origin = format!("file {}", value.origin().unwrap_or("given"));
            found.insert(path, (origin, value));
        }
    }
}

/// The key that a misspelt one was meant to be.
fn suggestion(path: &str) -> String {
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

fn check_relations(settings: &Settings, errors: &mut Vec<String>) {
    let limits = &settings.limits;
    let record_bytes = (limits.request_bytes + RECORD_OVERHEAD_BYTES_MAX) as u64;
    if record_bytes > settings.wal.segment_bytes / 2 {
        errors.push(format!(
            "limits.request_bytes ({}) and wal.segment_bytes ({}): a record takes half a segment at most; lower the first or \
             raise the second",
            show_bytes(limits.request_bytes as u64),
            show_bytes(settings.wal.segment_bytes)
        ));
    }
    if limits.key_bytes + limits.value_bytes + RECORD_OVERHEAD_BYTES_MAX > limits.request_bytes {
        errors.push(format!(
            "limits.key_bytes ({}), limits.value_bytes ({}) and limits.request_bytes ({}): a request must hold the largest \
             key and value, and 1 KiB",
            show_bytes(limits.key_bytes as u64),
            show_bytes(limits.value_bytes as u64),
            show_bytes(limits.request_bytes as u64)
        ));
    }
    if limits.bodies_bytes < limits.request_bytes {
        errors.push(format!(
            "limits.bodies_bytes ({}) and limits.request_bytes ({}): the largest request must fit",
            show_bytes(limits.bodies_bytes as u64),
            show_bytes(limits.request_bytes as u64)
        ));
    }
    if limits.queue_bytes < limits.request_bytes {
        errors.push(format!(
            "limits.queue_bytes ({}) and limits.request_bytes ({}): the queue must hold the largest request",
            show_bytes(limits.queue_bytes as u64),
            show_bytes(limits.request_bytes as u64)
        ));
    }
}

impl Key {
    fn set(&self, settings: &mut Settings, value: &Value) -> Result<(), String> {
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
                let count = text.replace('_', "").parse().map_err(|_| format!("{text:?} is not a number"))?;
                *field(settings) = within(count, *least, *most, text)?;
            }
            Kind::Bytes(field, least, most) => {
                let bytes = usize::try_from(parse_bytes(text)?).unwrap_or(usize::MAX);
                *field(settings) = within(bytes, *least, *most, text)?;
            }
            Kind::Segment(field) => {
                *field(settings) = within(parse_bytes(text)?, SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX, text)?;
            }
            Kind::Time(field, least, most) => {
                *field(settings) = within(parse_duration(text)?, *least, *most, text)?;
            }
            Kind::Sync => {
                settings.wal.sync = match text {
                    "always" => SyncMode::Always,
                    "interval" => SyncMode::Interval,
                    "never" => SyncMode::Never,
                    _ => return Err(format!("{text:?} is no mode")),
                };
            }
            Kind::Format => {
                settings.telemetry.log_format = match text {
                    "auto" => LogFormat::Auto,
                    "text" => LogFormat::Text,
                    "json" => LogFormat::Json,
                    _ => return Err(format!("{text:?} is no format")),
                };
            }
            Kind::Streams => {
                let streams = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
                settings.limits.streams_per_connection = within(streams, 1, 65_536, text)?;
            }
        }
        Ok(())
    }

    /// What it takes, for people.
    fn takes(&self) -> String {
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
            Kind::Sync => "always, interval or never".into(),
            Kind::Format => "auto, text or json".into(),
            Kind::Streams => "1 to 65536".into(),
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
            Kind::Sync => match settings.wal.sync {
                SyncMode::Always => "always".into(),
                SyncMode::Interval => "interval".into(),
                SyncMode::Never => "never".into(),
            },
            Kind::Format => match settings.telemetry.log_format {
                LogFormat::Auto => "auto".into(),
                LogFormat::Text => "text".into(),
                LogFormat::Json => "json".into(),
            },
            Kind::Streams => settings.limits.streams_per_connection.to_string(),
        }
    }
}

fn within<T: PartialOrd>(value: T, least: T, most: T, text: &str) -> Result<T, String> {
    if value < least || value > most { Err(format!("{text:?} is out of range")) } else { Ok(value) }
}

fn split_unit(text: &str) -> (&str, &str) {
    let digits = text.find(|character: char| !character.is_ascii_digit() && character != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    (number, unit.trim())
}

/// A size: a number of bytes, or one with a unit.
fn parse_bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split_unit(text);
    let factor = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1_u64 << 30,
        _ => return Err(format!("{text:?} is not a size: units are KiB, MiB and GiB")),
    };
    let number: u64 = number.replace('_', "").parse().map_err(|_| format!("{text:?} is not a size"))?;
    number.checked_mul(factor).ok_or_else(|| format!("{text:?} is out of range"))
}

/// A time: a number with a unit.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(format!("{text:?} is not a time: it needs a unit, ms, s, m, h or d")),
    };
    let number: u64 = number.replace('_', "").parse().map_err(|_| format!("{text:?} is not a time"))?;
    Ok(Duration::from_millis(number.checked_mul(unit_ms).ok_or_else(|| format!("{text:?} is out of range"))?))
}

fn show_bytes(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", bytes / unit),
        None => bytes.to_string(),
    }
}

fn show_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    // A minute reads best as seconds: the field's habit.
    match units.iter().find(|(unit, _)| ms >= *unit && ms.is_multiple_of(*unit) && (ms > 60_000 || *unit == 1_000)) {
        Some((unit, name)) => format!("{}{name}", ms / unit),
        None => format!("{ms}ms"),
    }
}

impl Loaded {
    /// The values in force and where each came from, as YAML that can be loaded again.
    pub fn show(&self) -> String {
        render(&self.settings, |key| self.origins.get(key.path).map_or("default", String::as_str).to_owned())
    }
}

fn render(settings: &Settings, comment: impl Fn(&Key) -> String) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Sources {
        let environment = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Sources { environment, ..Sources::default() }
    }

    fn from_text(text: &str) -> Result<Loaded, ConfigErrors> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("tandem.yml");
        std::fs::write(&file, text).unwrap();
        load(&Sources { file: Some(file), ..Sources::default() })
    }

    #[test]
    fn the_example_file_is_complete_and_equals_the_defaults() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/tandem.example.yml");
        if std::env::var_os("TANDEM_WRITE_EXAMPLE").is_some() {
            std::fs::write(&path, example()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), example(), "run again with TANDEM_WRITE_EXAMPLE=1");
        let loaded = load(&Sources { file: Some(path), ..Sources::default() }).unwrap();
        assert_eq!(loaded.settings, Settings::default());
        assert_eq!(loaded.origins.len(), KEYS.len());
    }

    #[test]
    fn what_is_shown_can_be_loaded_again() {
        let mut sources = environment(&[("TANDEM__WAL__SYNC", "interval"), ("TANDEM__LIMITS__VALUE_BYTES", "2MiB")]);
        sources.flags.push(("server.data_dir", "--data-dir", "/elsewhere".into()));
        let loaded = load(&sources).unwrap();
        let shown = loaded.show();
        assert!(shown.contains("sync: interval  # environment TANDEM__WAL__SYNC"), "{shown}");
        assert!(shown.contains("data_dir: /elsewhere  # flag --data-dir"), "{shown}");
        assert_eq!(from_text(&shown).unwrap().settings, loaded.settings);
    }

    #[test]
    fn later_sources_win() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("tandem.yml");
        std::fs::write(&file, "wal:\n  sync: never\n  sync_interval: 5s\n").unwrap();
        let mut sources = environment(&[("TANDEM__WAL__SYNC", "interval")]);
        sources.file = Some(file);
        let settings = load(&sources).unwrap().settings;
        assert_eq!((settings.wal.sync, settings.wal.sync_interval), (SyncMode::Interval, Duration::from_secs(5)));
    }

    #[test]
    fn all_errors_are_told_at_once_with_their_origins() {
        let mut sources = environment(&[
            ("TANDEM__WAL__SNYC", "always"),
            ("TANDEM__WAL__SYNC_INTERVAL", "10"),
            ("TANDEM__LIMITS__KEY_BYTES", "1GiB"),
            ("TANDEM__SERVER__THREADS", "many"),
        ]);
        sources.flags.push(("server.http_address", "--http-address", "nowhere".into()));
        let ConfigErrors(errors) = load(&sources).unwrap_err();
        assert_eq!(errors.len(), 5, "{errors:#?}");
        for part in [
            "wal.snyc (environment TANDEM__WAL__SNYC): no such key; did you mean wal.sync?",
            "needs a unit",
            "it takes 1 to 4KiB",
            "is not a number",
            "flag --http-address",
        ] {
            assert!(errors.iter().any(|error| error.contains(part)), "{part} in {errors:#?}");
        }
    }

    #[test]
    fn relations_between_keys_are_checked() {
        let errors = load(&environment(&[("TANDEM__WAL__SEGMENT_BYTES", "1MiB")])).unwrap_err();
        assert!(errors.to_string().contains("limits.request_bytes (8MiB) and wal.segment_bytes (1MiB)"), "{errors}");
    }

    #[test]
    fn a_file_that_is_named_must_be_there_and_must_parse() {
        let missing = Sources { file: Some("/nowhere.yml".into()), ..Sources::default() };
        assert!(load(&missing).unwrap_err().to_string().contains("/nowhere.yml"));
        assert!(from_text("wal: [").is_err());
        assert!(from_text("unknown: 1\nserver:\n  data_dir: x\n").unwrap_err().to_string().contains("unknown"));
        assert!(from_text("server:\n  # nothing set\n").is_ok());
    }
}
