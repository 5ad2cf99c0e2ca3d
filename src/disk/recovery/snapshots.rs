//! Which snapshot a start loads: the newest that is whole, if the log goes on from it.

use std::path::{Path, PathBuf};

use super::{Recovering, RecoveryError, RecoveryErrorKind, SnapshotUsed, segments};
use crate::disk::{
    file_system::FileSystem,
    header::StoreId,
    progress::{Phase, Progress},
    snapshot::{Reader, folder::Found},
};

/// What the log says that a snapshot must agree with.
#[derive(Clone, Debug)]
pub struct LogFound {
    /// Index of its first record.
    pub begins: u64,
    /// Its first segment.
    pub first_segment: PathBuf,
    /// Whose log it is, where its last segment says so.
    pub store_id: Option<StoreId>,
}

/// Loads the newest whole snapshot from which the log goes on, and gives it with what was wrong with newer ones.
pub fn load_newest(
    fs: &dyn FileSystem,
    found: &Found,
    log: &LogFound,
    state: &mut dyn Recovering,
    progress: &Progress,
) -> Result<(Option<SnapshotUsed>, Vec<RecoveryError>), RecoveryError> {
    let mut damaged = Vec::new();
    for (index, path) in found.snapshots.iter().rev().take_while(|(index, _)| log.begins <= index + 1) {
        match load(fs, path, *index, log, state, progress) {
            Ok(used) => return Ok((Some(used), damaged)),
            Err(error) if matches!(error.kind, RecoveryErrorKind::Foreign | RecoveryErrorKind::Future) => {
                return Err(error);
            }
            Err(error) => damaged.push(error),
        }
    }
    if log.begins == 1 {
        state.reset();
        return Ok((None, damaged));
    }
    Err(cannot_be_whole(fs, found, log, damaged))
}

fn load(
    fs: &dyn FileSystem,
    path: &Path,
    index: u64,
    log: &LogFound,
    state: &mut dyn Recovering,
    progress: &Progress,
) -> Result<SnapshotUsed, RecoveryError> {
    let snapshot = Reader::open(fs, path)?;
    let foreign = |reason: String| Err(RecoveryError::new(RecoveryErrorKind::Foreign, path, Some(0), reason));
    if snapshot.index() != index {
        return foreign(format!("the file's name says it ends at index {index}, its header {}", snapshot.index()));
    }
    if log.store_id.is_some_and(|store_id| store_id != snapshot.store_id()) {
        return foreign("the snapshot belongs to another store than the log".into());
    }
    progress.begin(Phase::Snapshot, snapshot.bytes());
    state.load(&snapshot, progress)?;
    Ok(SnapshotUsed { index, bytes: snapshot.bytes(), time_ms: snapshot.header().time_ms })
}

fn cannot_be_whole(fs: &dyn FileSystem, found: &Found, log: &LogFound, damaged: Vec<RecoveryError>) -> RecoveryError {
    let begins = log.begins;
    if let Some(newest) = damaged.into_iter().next() {
        let reason =
            format!("{}; nothing older can take its place, since the log begins at index {begins} only", newest.reason);
        return RecoveryError { reason, ..newest };
    }
    // Perhaps it is not what its name says.
    if let Err(error) = segments::read_header(fs, &log.first_segment, begins) {
        return error;
    }
    let reason = match found.snapshots.last() {
        Some((index, _)) => {
            format!("the log begins at index {begins}, and the newest snapshot ends at {index}: segments are missing")
        }
        None => format!("the log begins at index {begins}, and no snapshot holds what came before"),
    };
    RecoveryError::new(RecoveryErrorKind::Gap, &log.first_segment, None, reason)
}
