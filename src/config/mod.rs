//! Raw settings to checked settings: one catalogue of keys, with default, range and meaning, drives everything.
//!
//! Defaults in the program < `config/tandem.yml` or `--config FILE` < environment (`TANDEM__WAL__SYNC`) < flags. Unknown keys
//! and bad values are collected and reported together, each with where it came from.

mod catalogue;
mod choice;
mod keyspace;
mod parse;

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use config::{Config, File, FileFormat, Map, Value, ValueKind};

use self::catalogue::{KEYS, render, suggestion};
pub use self::{catalogue::example, keyspace::KeyspacePolicy};
use crate::{
    limits::{Limits, MEMORY_PERCENT_DEFAULT, RECORD_OVERHEAD_BYTES_MAX},
    notation::show_bytes,
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

/// Whether the ops listener serves the administration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminAccess {
    /// Where that listener is on loopback.
    Auto,
    /// To whoever reaches it.
    On,
    /// To nobody.
    Off,
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
    /// Probes, metrics and administration.
    pub ops_address: SocketAddr,
    /// Whether the ops listener serves the administration.
    pub admin: AdminAccess,
    /// Serving threads; 0: one for each core.
    pub threads: usize,
}

impl Server {
    /// Whether the administration is allowed.
    pub fn allows_admin(&self) -> bool {
        match self.admin {
            AdminAccess::Auto => self.ops_address.ip().to_canonical().is_loopback(),
            AdminAccess::On => true,
            AdminAccess::Off => false,
        }
    }
}

/// Section `cors`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cors {
    /// Whose pages a browser lets call REST and gRPC-Web: none, these, or `*` for everybody's.
    pub allowed_origins: Vec<String>,
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

/// Section `snapshot`: when snapshots are taken, and how many are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotPolicy {
    /// So many are kept.
    pub keep: usize,
    /// At least so often, if anything was written; zero: not by time.
    pub interval: Duration,
    /// After so many bytes of log, or as many as the last snapshot has if that is more.
    pub log_bytes: usize,
    /// How fast one is written.
    pub bytes_per_second: usize,
}

impl Default for SnapshotPolicy {
    fn default() -> Self {
        Self { keep: 2, interval: Duration::ZERO, log_bytes: 256 << 20, bytes_per_second: 128 << 20 }
    }
}

/// How much memory the store may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryLimit {
    /// So many hundredths of the cgroup's limit, or of the machine's memory.
    Percent(u8),
    /// So many bytes.
    Bytes(u64),
}

/// Section `store`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// How much memory it may use.
    pub memory_limit: MemoryLimit,
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
    /// The collector of traces; `None`: nothing is traced.
    pub otlp_endpoint: Option<String>,
    /// Of requests whose callers do not say, so many millionths are traced.
    pub trace_sample_millionths: u32,
}

/// Everything, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Section `server`.
    pub server: Server,
    /// Section `cors`.
    pub cors: Cors,
    /// Section `wal`.
    pub wal: Wal,
    /// Section `snapshot`.
    pub snapshot: SnapshotPolicy,
    /// Section `store`.
    pub store: Store,
    /// Section `keyspace`.
    pub keyspace: KeyspacePolicy,
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
                admin: AdminAccess::Auto,
                threads: 0,
            },
            cors: Cors::default(),
            wal: Wal {
                sync: SyncMode::Always,
                sync_interval: Duration::from_secs(1),
                segment_bytes: 64 << 20,
                failed_exit_after: Duration::from_secs(60),
            },
            snapshot: SnapshotPolicy::default(),
            store: Store { memory_limit: MemoryLimit::Percent(MEMORY_PERCENT_DEFAULT) },
            keyspace: KeyspacePolicy::default(),
            limits: Limits::default(),
            telemetry: Telemetry {
                log_level: "info".into(),
                log_format: LogFormat::Auto,
                metrics: true,
                otlp_endpoint: None,
                trace_sample_millionths: 10_000,
            },
        }
    }
}

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

impl Loaded {
    /// The values in force and where each came from, as YAML that can be loaded again.
    pub fn show(&self) -> String {
        render(&self.settings, |key| self.origins.get(key.path).map_or("default", String::as_str).to_owned())
    }
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
        let mut sources = environment(&[
            ("TANDEM__WAL__SYNC", "interval"),
            ("TANDEM__LIMITS__VALUE_BYTES", "2MiB"),
            ("TANDEM__CORS__ALLOWED_ORIGINS", "https://a.example,https://b.example"),
        ]);
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
    fn origins_are_a_list_in_a_file_and_text_in_the_environment() {
        let origins = |loaded: Result<Loaded, ConfigErrors>| loaded.unwrap().settings.cors.allowed_origins;
        let both = ["https://a.example", "http://localhost:8080"];
        let from_environment = load(&environment(&[("TANDEM__CORS__ALLOWED_ORIGINS", &both.join(", "))]));
        assert_eq!(origins(from_environment), both);
        assert_eq!(origins(from_text(&format!("cors:\n  allowed_origins: {both:?}\n"))), both);
        assert_eq!(origins(from_text("cors:\n  allowed_origins: \"*\"\n")), ["*"]);
        assert!(origins(from_text("cors:\n  allowed_origins: []\n")).is_empty());
        for bad in ["a.example", "https://a.example/", "https://a.example/x", "HTTPS://a.example", "https://"] {
            let errors = load(&environment(&[("TANDEM__CORS__ALLOWED_ORIGINS", bad)])).unwrap_err();
            assert!(errors.to_string().contains("is not an origin"), "{bad}: {errors}");
        }
    }

    #[test]
    fn a_memory_limit_is_auto_a_size_or_a_percentage() {
        let limit = |text| {
            let loaded = load(&environment(&[("TANDEM__STORE__MEMORY_LIMIT", text)]));
            loaded.map(|loaded| (loaded.settings.store.memory_limit, loaded.show()))
        };
        for (text, expected) in [
            ("auto", MemoryLimit::Percent(70)),
            ("512MiB", MemoryLimit::Bytes(512 << 20)),
            ("1GiB", MemoryLimit::Bytes(1 << 30)),
            ("25%", MemoryLimit::Percent(25)),
        ] {
            let (found, shown) = limit(text).unwrap();
            assert_eq!(found, expected);
            assert!(shown.contains(&format!("memory_limit: {text}  #")), "{shown}");
        }
        for bad in ["", "0%", "101%", "-1%", "1.5%", "%", "1023KiB", "lots", "1GB"] {
            let errors = limit(bad).unwrap_err().to_string();
            assert!(errors.contains("store.memory_limit") && errors.contains("it takes auto"), "{bad}: {errors}");
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
