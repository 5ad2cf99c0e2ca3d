//! Answers of the administration as JSON for people: the schema's names, times as RFC 3339 writes them, durations with a
//! unit.

use std::time::Duration;

use serde::Serialize;

use crate::{
    api::rest::time_text,
    model::ms_from_duration,
    notation::show_duration,
    pb::admin::{
        CreateSnapshotResponse, FileCheck, FileKind, Health, ListSnapshotsResponse, SlowRequest, SlowRequestsResponse,
        Snapshot, SnapshotState, StatusResponse, SyncResponse, VerifyIntegrityResponse,
    },
};

/// How the server is.
#[derive(Debug, Serialize)]
pub struct StatusJson<'answer> {
    version: &'answer str,
    #[serde(skip_serializing_if = "str::is_empty")]
    store_id: &'answer str,
    health: &'static str,
    start_time: Option<String>,
    uptime: Option<String>,
    alarms: Vec<AlarmJson<'answer>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    loading: Option<LoadingJson<'answer>>,
    #[serde(flatten)]
    store: Option<StoreJson>,
}

#[derive(Debug, Serialize)]
struct AlarmJson<'answer> {
    name: &'answer str,
    detail: &'answer str,
}

#[derive(Debug, Serialize)]
struct LoadingJson<'answer> {
    phase: &'answer str,
    done_bytes: u64,
    total_bytes: u64,
}

/// What is known once the data is read.
#[derive(Debug, Serialize)]
struct StoreJson {
    store_revision: u64,
    synced_revision: u64,
    keys: u64,
    expiring_keys: u64,
    watchers: u64,
    queued_writes: u64,
    memory: Option<MemoryJson>,
    disk: Option<DiskJson>,
    snapshots: Option<SnapshotStateJson>,
}

#[derive(Debug, Serialize)]
struct MemoryJson {
    data_bytes: u64,
    used_bytes: u64,
    allocated_bytes: u64,
    resident_bytes: u64,
    limit_bytes: u64,
    full: bool,
}

#[derive(Debug, Serialize)]
struct DiskJson {
    free_bytes: u64,
    reserve_bytes: u64,
    full: bool,
}

#[derive(Debug, Serialize)]
struct SnapshotStateJson {
    last_index: u64,
    last_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_age: Option<String>,
    running: bool,
}

impl<'answer> StatusJson<'answer> {
    /// The JSON of a status.
    pub fn new(status: &'answer StatusResponse) -> Self {
        Self {
            version: &status.version,
            store_id: &status.store_id,
            health: health_text(status.health()),
            start_time: status.start_time.as_ref().and_then(time_text),
            uptime: duration_text(status.uptime.as_ref()),
            alarms: status.alarms.iter().map(|alarm| AlarmJson { name: &alarm.name, detail: &alarm.detail }).collect(),
            loading: status.loading.as_ref().map(|loading| LoadingJson {
                phase: &loading.phase,
                done_bytes: loading.done_bytes,
                total_bytes: loading.total_bytes,
            }),
            store: status.loading.is_none().then(|| StoreJson::new(status)),
        }
    }
}

impl StoreJson {
    fn new(status: &StatusResponse) -> Self {
        Self {
            store_revision: status.store_revision,
            synced_revision: status.synced_revision,
            keys: status.keys,
            expiring_keys: status.expiring_keys,
            watchers: status.watchers,
            queued_writes: status.queued_writes,
            memory: status.memory.as_ref().map(|memory| MemoryJson {
                data_bytes: memory.data_bytes,
                used_bytes: memory.used_bytes,
                allocated_bytes: memory.allocated_bytes,
                resident_bytes: memory.resident_bytes,
                limit_bytes: memory.limit_bytes,
                full: memory.full,
            }),
            disk: status.disk.as_ref().map(|disk| DiskJson {
                free_bytes: disk.free_bytes,
                reserve_bytes: disk.reserve_bytes,
                full: disk.full,
            }),
            snapshots: status.snapshots.as_ref().map(SnapshotStateJson::new),
        }
    }
}

impl SnapshotStateJson {
    fn new(state: &SnapshotState) -> Self {
        Self {
            last_index: state.last_index,
            last_bytes: state.last_bytes,
            last_time: state.last_time.as_ref().and_then(time_text),
            last_age: duration_text(state.last_age.as_ref()),
            running: state.running,
        }
    }
}

/// The snapshot that was taken.
#[derive(Debug, Serialize)]
pub struct CreatedJson<'answer> {
    snapshot: Option<SnapshotJson<'answer>>,
    elapsed: Option<String>,
}

impl<'answer> CreatedJson<'answer> {
    /// The JSON of a snapshot that was taken.
    pub fn new(taken: &'answer CreateSnapshotResponse) -> Self {
        Self {
            snapshot: taken.snapshot.as_ref().map(SnapshotJson::new),
            elapsed: duration_text(taken.elapsed.as_ref()),
        }
    }
}

/// The snapshots on disk.
#[derive(Debug, Serialize)]
pub struct SnapshotsJson<'answer> {
    snapshots: Vec<SnapshotJson<'answer>>,
}

impl<'answer> SnapshotsJson<'answer> {
    /// The JSON of the snapshots on disk.
    pub fn new(listed: &'answer ListSnapshotsResponse) -> Self {
        Self { snapshots: listed.snapshots.iter().map(SnapshotJson::new).collect() }
    }
}

#[derive(Debug, Serialize)]
struct SnapshotJson<'answer> {
    file: &'answer str,
    bytes: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    damage: &'answer str,
    #[serde(flatten)]
    holds: Option<HoldsJson<'answer>>,
}

/// What a snapshot holds that is not damaged.
#[derive(Debug, Serialize)]
struct HoldsJson<'answer> {
    index: u64,
    revision: u64,
    time: Option<String>,
    keys: u64,
    answers: u64,
    events: u64,
    state_hash: &'answer str,
    program_version: &'answer str,
}

impl<'answer> SnapshotJson<'answer> {
    fn new(snapshot: &'answer Snapshot) -> Self {
        let holds = || HoldsJson {
            index: snapshot.index,
            revision: snapshot.revision,
            time: snapshot.time.as_ref().and_then(time_text),
            keys: snapshot.keys,
            answers: snapshot.answers,
            events: snapshot.events,
            state_hash: &snapshot.state_hash,
            program_version: &snapshot.program_version,
        };
        Self {
            file: &snapshot.file,
            bytes: snapshot.bytes,
            damage: &snapshot.damage,
            holds: snapshot.damage.is_empty().then(holds),
        }
    }
}

/// What a check found.
#[derive(Debug, Serialize)]
pub struct VerifiedJson<'answer> {
    intact: bool,
    files: Vec<FileCheckJson<'answer>>,
    bytes: u64,
    elapsed: Option<String>,
}

#[derive(Debug, Serialize)]
struct FileCheckJson<'answer> {
    kind: &'static str,
    file: &'answer str,
    bytes: u64,
    items: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    state_hash: &'answer str,
    #[serde(skip_serializing_if = "str::is_empty")]
    damage: &'answer str,
}

impl<'answer> VerifiedJson<'answer> {
    /// The JSON of a check.
    pub fn new(verified: &'answer VerifyIntegrityResponse) -> Self {
        let file = |check: &'answer FileCheck| FileCheckJson {
            kind: match check.kind() {
                FileKind::Unspecified => "unspecified",
                FileKind::Snapshot => "snapshot",
                FileKind::Segment => "segment",
            },
            file: &check.file,
            bytes: check.bytes,
            items: check.items,
            state_hash: &check.state_hash,
            damage: &check.damage,
        };
        Self {
            intact: verified.intact,
            files: verified.files.iter().map(file).collect(),
            bytes: verified.bytes,
            elapsed: duration_text(verified.elapsed.as_ref()),
        }
    }
}

/// Everything is on disk up to here.
#[derive(Debug, Serialize)]
pub struct SyncedJson {
    synced_revision: u64,
}

impl SyncedJson {
    /// The JSON of a sync.
    pub fn new(synced: &SyncResponse) -> Self {
        Self { synced_revision: synced.synced_revision }
    }
}

fn health_text(health: Health) -> &'static str {
    match health {
        Health::Unspecified => "unspecified",
        Health::Loading => "loading",
        Health::Ready => "ready",
        Health::Draining => "draining",
        Health::WalFailed => "wal_failed",
    }
}

/// As queries and the configuration write it, in milliseconds at the finest.
pub fn duration_text(duration: Option<&prost_types::Duration>) -> Option<String> {
    duration.and_then(ms_from_duration).map(|ms| show_duration(Duration::from_millis(ms)))
}

/// The last slow requests.
#[derive(Debug, Serialize)]
pub struct SlowRequestsJson<'answer> {
    requests: Vec<SlowRequestJson<'answer>>,
}

#[derive(Debug, Serialize)]
struct SlowRequestJson<'answer> {
    time: Option<String>,
    protocol: &'answer str,
    operation: &'answer str,
    trace_id: &'answer str,
    /// Milliseconds, as are those that follow.
    total_ms: f64,
    #[serde(flatten)]
    phases: Option<PhasesJson>,
    reason: &'answer str,
}

#[derive(Debug, Serialize)]
struct PhasesJson {
    queue_ms: f64,
    commit_ms: f64,
    sync_ms: f64,
    apply_ms: f64,
}

impl<'answer> SlowRequestsJson<'answer> {
    /// The JSON of slow requests.
    pub fn new(slow: &'answer SlowRequestsResponse) -> Self {
        Self { requests: slow.requests.iter().map(SlowRequestJson::new).collect() }
    }
}

impl<'answer> SlowRequestJson<'answer> {
    fn new(request: &'answer SlowRequest) -> Self {
        let phases = request.queue.as_ref().map(|queue| PhasesJson {
            queue_ms: fractional_ms(Some(queue)),
            commit_ms: fractional_ms(request.commit.as_ref()),
            sync_ms: fractional_ms(request.sync.as_ref()),
            apply_ms: fractional_ms(request.apply.as_ref()),
        });
        Self {
            time: request.time.as_ref().and_then(time_text),
            protocol: &request.protocol,
            operation: &request.operation,
            trace_id: &request.trace_id,
            total_ms: fractional_ms(request.total.as_ref()),
            phases,
            reason: &request.reason,
        }
    }
}

/// Microseconds matter here.
fn fractional_ms(duration: Option<&prost_types::Duration>) -> f64 {
    duration.map_or(0.0, |duration| duration.seconds as f64 * 1e3 + f64::from(duration.nanos / 1_000) / 1e3)
}
