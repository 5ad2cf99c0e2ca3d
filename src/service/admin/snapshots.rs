//! Snapshots on demand, and which there are.

use std::path::Path;

use super::{Admin, elsewhere};
use crate::{
    disk::RecoveryError,
    engine::SnapshotSummary,
    error::Result,
    metrics::Operation,
    model::{duration_to_pb, timestamp_from_ms},
    pb::admin::{CreateSnapshotRequest, CreateSnapshotResponse, ListSnapshotsRequest, ListSnapshotsResponse, Snapshot},
    service::Call,
};

impl Admin {
    /// Takes a snapshot, or joins one that has not begun yet, and waits until it is on disk.
    pub async fn create_snapshot(&self, call: &Call, _: CreateSnapshotRequest) -> Result<CreateSnapshotResponse> {
        let answer = async {
            self.check_allowed()?;
            let taken = self.service().engine()?.snapshot().await?;
            let elapsed = Some(duration_to_pb(taken.elapsed));
            let service = self.service().clone();
            let described = elsewhere(move || Ok(service.engine()?.describe_snapshot(&taken))).await?;
            Ok(CreateSnapshotResponse { snapshot: Some(snapshot_to_pb(described)), elapsed })
        };
        self.service().counted(call, Operation::CreateSnapshot, answer.await)
    }

    /// The snapshots on disk.
    pub async fn list_snapshots(&self, call: &Call, _: ListSnapshotsRequest) -> Result<ListSnapshotsResponse> {
        let answer = async {
            self.check_allowed()?;
            let service = self.service().clone();
            let listed = elsewhere(move || service.engine()?.list_snapshots()).await?;
            Ok(ListSnapshotsResponse { snapshots: listed.into_iter().map(snapshot_to_pb).collect() })
        };
        self.service().counted(call, Operation::ListSnapshots, answer.await)
    }
}

/// What a snapshot says of itself, or why it says nothing.
fn snapshot_to_pb(described: Result<SnapshotSummary, RecoveryError>) -> Snapshot {
    match described {
        Ok(summary) => Snapshot {
            file: file_name(&summary.path),
            bytes: summary.bytes,
            damage: String::new(),
            index: summary.index,
            revision: summary.revision,
            time: Some(timestamp_from_ms(summary.time_ms)),
            keys: summary.entries,
            answers: summary.answers,
            events: summary.events,
            state_hash: summary.state_hash,
            program_version: summary.program_version,
        },
        Err(error) => Snapshot { file: file_name(&error.file), damage: error.to_string(), ..Snapshot::default() },
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
