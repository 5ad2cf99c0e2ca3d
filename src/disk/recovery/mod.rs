//! What a start makes of the files it finds. Each row names its test; a test in `recovery/tests.rs` holds that it is there.
//!
//! | found in `wal/` | done | test |
//! |---|---|---|
//! | nothing, and no snapshot, or leftovers of a first start that was cut short | a new store | `leftovers_of_a_first_start_make_a_new_store` |
//! | nothing, but a snapshot | missing: refuse | `snapshots_without_a_log_are_refused` |
//! | the last frame is CLOSE | go on behind it | `a_closed_log_goes_on_where_it_ended` |
//! | frames, then nothing | unclean: rewrite the last segment, go on | `a_killed_log_is_rewritten_and_goes_on` |
//! | a bad frame in the last segment, and no whole later frame there knew its index to be synced | torn: cut there, say so, rewrite, go on | `a_tear_is_cut_and_told` |
//! | a bad frame, and a later frame knew its index to be synced | corrupt: refuse | `damage_below_a_synced_index_refuses_the_start` |
//! | a bad frame, and a later segment begins behind it | corrupt: refuse | `damage_in_a_segment_that_has_a_successor_refuses_the_start` |
//! | a bad frame, or the end, and a snapshot holds its index | corrupt: refuse | `a_log_that_ends_before_its_snapshot_has_lost_something` |
//! | a damaged header, an empty file | corrupt: refuse | `a_damaged_header_or_an_empty_file_is_refused` |
//! | the last segment has no frame yet | go on in it | `a_segment_without_frames_is_gone_on_in` |
//! | a segment is missing, the first included | missing: refuse | `a_missing_segment_is_a_gap` |
//! | a record is missing within a segment | missing: refuse | `a_record_that_is_missing_or_duplicate_within_a_segment_is_refused` |
//! | two segments hold the same index | duplicate: refuse | `overlapping_segments_are_refused` |
//! | a segment holds an index twice | duplicate: refuse | `a_record_that_is_missing_or_duplicate_within_a_segment_is_refused` |
//! | a file that is not Tandem's, another store's, or another one under this name | foreign: refuse | `foreign_files_are_refused_by_name` |
//! | a newer format | future: refuse | `a_newer_format_is_refused_by_name` |
//! | a frame of a newer kind | future: refuse | `a_frame_of_a_newer_kind_is_refused` |
//! | a record of newer rules of apply, or with a newer command | future: refuse | `a_record_of_a_newer_version_is_future_and_no_damage` |
//! | a record that cannot be read | corrupt: refuse | `a_record_that_the_engine_refuses_stops_the_start` |
//! | a segment wholly behind the snapshot that is loaded | not needed: not read | `a_segment_that_is_needed_for_the_fallback_must_be_whole` |
//! | `next`, `*.tmp` | leftovers: removed | `leftovers_of_a_first_start_make_a_new_store` |
//! | the directory is in use | locked: refuse | `a_second_opening_is_refused_by_the_lock` |
//! | the mark of a restore lies beside them | missing: refuse | `the_mark_of_a_restore_that_was_cut_short_refuses_the_start` |
//!
//! | found in `snapshots/` | done | test |
//! |---|---|---|
//! | whole snapshots | load the newest, replay what follows | `the_newest_snapshot_is_loaded_and_what_follows_is_replayed` |
//! | none, and the log begins at index 1 | replay it all | `a_missing_snapshot_costs_only_time_while_the_log_reaches_back` |
//! | none, or none new enough, and the log begins later | missing: refuse | `a_missing_snapshot_that_the_log_cannot_replace_refuses_the_start` |
//! | the newest has no footer, or ends too early | torn: as corrupt | `a_torn_or_corrupt_snapshot_falls_back_on_the_older_one_loudly` |
//! | the newest has a bad frame | corrupt: load the next older one, or replay from index 1, if the log reaches back that far; say so loudly, put the damaged one aside | `a_torn_or_corrupt_snapshot_falls_back_on_the_older_one_loudly` |
//! | the newest lacks a frame, or has one twice | corrupt: the same | `a_snapshot_that_is_not_what_its_footer_says_is_corrupt` |
//! | the newest gives another state hash than it says | corrupt: the same | `a_snapshot_of_another_state_hash_is_corrupt` |
//! | the newest and the older ones are corrupt, and the log begins at index 1 | corrupt: replay it all | `corrupt_snapshots_fall_back_on_the_whole_log` |
//! | the same, and the log does not reach back | corrupt: refuse | `a_corrupt_snapshot_that_nothing_can_replace_refuses_the_start` |
//! | a snapshot under another one's name | duplicate: refuse | `a_snapshot_under_another_ones_name_is_refused` |
//! | a file that is not Tandem's, or another store's | foreign: refuse | `foreign_files_and_another_stores_snapshots_are_refused_by_name` |
//! | a newer format | future: refuse | `a_snapshot_of_a_newer_format_is_refused_and_not_fallen_back_from` |
//! | newer rules of apply | future: refuse | `a_snapshot_by_newer_rules_is_future_and_not_fallen_back_from` |
//! | a frame of a newer kind | future: refuse | `a_snapshot_with_a_frame_of_a_newer_kind_is_future` |
//! | `*.tmp` | leftovers: removed | `leftovers_go_and_damaged_ones_that_were_put_aside_stay` |
//! | `*.damaged` | put aside by an earlier start: left alone | `leftovers_go_and_damaged_ones_that_were_put_aside_stay` |
//!
//! Refusing means exit code 2 with file, offset, reason and remedy, and nothing changed on disk.
//!
//! After an unclean stop the page cache may show bytes that never reached the disk (a failed sync leaves such). So the
//! valid part of the last segment is written anew under a new sequence, synced, and renamed over the old file before
//! anything is served.

mod error;
mod inspect;
mod running;
mod segments;
mod snapshots;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use self::snapshots::LogFound;
pub use self::{
    error::{RecoveryError, RecoveryErrorKind},
    inspect::{DataDirectory, SegmentSummary, in_log_order, read_segment},
    running::{SegmentCheck, check_running, is_gone},
};
use super::{
    file_system::FileSystem,
    lock_file,
    progress::Progress,
    restored::RESTORING,
    segment::{self, Header, StoreId},
    snapshot::{Reader, folder},
    wal::{Wal, WalOptions},
};
use crate::limits::SEGMENT_FIRST_BYTES;

/// A record on its way back into the store.
#[derive(Clone, Copy, Debug)]
pub struct Replayed<'bytes> {
    /// Its index.
    pub index: u64,
    /// The whole `LogRecord`.
    pub payload: &'bytes [u8],
}

/// The state that a start brings back.
pub trait Recovering {
    /// Takes a snapshot's state in place of what it held. After an error it may hold anything.
    fn load(&mut self, snapshot: &Reader, progress: &Progress) -> Result<(), RecoveryError>;
    /// Goes back to holding nothing.
    fn reset(&mut self);
    /// Applies the next record, or says why it cannot be.
    fn replay(&mut self, record: Replayed<'_>) -> Result<(), Refused>;
}

/// Why a record cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Damaged, or of a newer version.
    pub kind: RecoveryErrorKind,
    /// What is wrong.
    pub reason: String,
}

impl Refused {
    /// The record is not what was written.
    pub fn damaged(reason: impl Into<String>) -> Self {
        Self { kind: RecoveryErrorKind::Damaged, reason: reason.into() }
    }

    /// A newer version wrote the record.
    pub fn future(reason: impl Into<String>) -> Self {
        Self { kind: RecoveryErrorKind::Future, reason: reason.into() }
    }
}

/// What recovery found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// The snapshot that was loaded.
    pub snapshot: Option<SnapshotUsed>,
    /// What was wrong with newer snapshots, newest first. They are put aside.
    pub damaged: Vec<RecoveryError>,
    /// Records replayed.
    pub records: u64,
    /// Bytes of their frames.
    pub replayed_bytes: u64,
    /// Index of the last one.
    pub last_index: u64,
    /// The store was stopped cleanly, or is new.
    pub clean: bool,
    /// There was nothing.
    pub new_store: bool,
    /// What was cut off.
    pub tear: Option<Tear>,
    /// Segments read.
    pub segments: usize,
}

/// A snapshot that a start went on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotUsed {
    /// The last record that it contains.
    pub index: u64,
    /// Length of the file.
    pub bytes: u64,
    /// Time of its state.
    pub time_ms: u64,
}

/// A tail that a crash left, cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tear {
    /// Where.
    pub file: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// From there to the last byte that was not zero.
    pub bytes_cut: u64,
}

const NOTHING: Recovery = Recovery {
    snapshot: None,
    damaged: Vec::new(),
    records: 0,
    replayed_bytes: 0,
    last_index: 0,
    clean: false,
    new_store: false,
    tear: None,
    segments: 0,
};

/// Opens or creates the log, handing the newest whole snapshot and every record behind it to `state`.
pub fn open(
    file_system: Arc<dyn FileSystem>,
    options: WalOptions,
    state: &mut dyn Recovering,
    progress: &Progress,
) -> Result<(Wal, Recovery), RecoveryError> {
    let directory = options.store_directory.join("wal");
    let fs = &*file_system;
    fs.create_directory(&directory).map_err(|error| RecoveryError::io(&directory, error))?;
    for above in [Some(&*options.store_directory), options.store_directory.parent()].into_iter().flatten() {
        let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        fs.sync_directory(above).map_err(|error| RecoveryError::io(above, error))?;
    }
    let lock = lock_file::take(fs, &options.store_directory)?;
    let (header, active, recovery, leftovers) = match look(fs, &options.store_directory, state, progress)? {
        Looked { found: None, leftovers } => {
            let header = Header { sequence: 1, store_id: rand::random(), first_index: 1 };
            let bytes = SEGMENT_FIRST_BYTES.min(options.segment_bytes);
            let active = segments::create_first(fs, &directory, &header, bytes)
                .map_err(|error| RecoveryError::io(&directory, error))?;
            (header, active, Recovery { clean: true, new_store: true, ..NOTHING }, leftovers)
        }
        Looked { found: Some(found), leftovers } => {
            let (header, recovery) = (found.header, found.recovery.clone());
            (header, segments::activate(fs, &directory, found)?, recovery, leftovers)
        }
    };
    // Only now: a start that is refused changes nothing.
    tidy(fs, &leftovers)?;
    for damaged in &recovery.damaged {
        let snapshots = options.store_directory.join(folder::FOLDER);
        folder::put_aside(fs, &snapshots, &damaged.file).map_err(|error| RecoveryError::io(&damaged.file, error))?;
    }
    let wal = Wal::new(
        Arc::clone(&file_system),
        directory.clone(),
        header.store_id,
        options.segment_bytes,
        active,
        recovery.last_index,
        lock,
    );
    let mut wal = wal.map_err(|error| RecoveryError::io(&directory, error))?;
    if !recovery.clean {
        // All that was recovered is on disk now: say so, for the recovery after the next crash.
        wal.mark().map_err(|error| RecoveryError::io(&directory, error))?;
    }
    Ok((wal, recovery))
}

/// Reads everything that a start would read and changes nothing. `None`: there is no store yet. The server is stopped.
pub fn check(
    fs: &dyn FileSystem,
    store_directory: &Path,
    state: &mut dyn Recovering,
    progress: &Progress,
) -> Result<Option<Recovery>, RecoveryError> {
    let _lock = lock_file::take(fs, store_directory)?;
    Ok(look(fs, store_directory, state, progress)?.found.map(|found| found.recovery))
}

/// Reads the segments in a folder, which may be an archive, behind record `base_index`. Gives the store they belong to.
pub fn read_log(
    fs: &dyn FileSystem,
    directory: &Path,
    base_index: u64,
    state: &mut dyn Recovering,
    progress: &Progress,
) -> Result<(StoreId, Recovery), RecoveryError> {
    let (names, _) = sort_out(fs, directory)?;
    match names.first() {
        Some((begins, _)) if *begins <= base_index + 1 => {
            let found = segments::recover(fs, directory, &names, base_index, state, progress)?;
            Ok((found.header.store_id, found.recovery))
        }
        Some((begins, first)) => {
            let reason =
                format!("the log begins at index {begins}, and {} was to come: segments are missing", base_index + 1);
            Err(RecoveryError::new(RecoveryErrorKind::Gap, &directory.join(first), None, reason))
        }
        None => {
            let reason = "there is not one segment of a log".to_owned();
            Err(RecoveryError::new(RecoveryErrorKind::Gap, directory, None, reason))
        }
    }
}

/// What lies in a data directory.
struct Looked {
    /// The log and what came of it; `None`: there is no store yet.
    found: Option<segments::Found>,
    leftovers: Vec<PathBuf>,
}

/// Finds out what a start can begin with, and hands it to `state`. Changes nothing on disk.
fn look(
    fs: &dyn FileSystem,
    store_directory: &Path,
    state: &mut dyn Recovering,
    progress: &Progress,
) -> Result<Looked, RecoveryError> {
    must_not_be_restoring(fs, store_directory)?;
    let directory = store_directory.join("wal");
    let (names, mut leftovers) = sort_out(fs, &directory)?;
    let snapshots = store_directory.join(folder::FOLDER);
    let found = folder::list(fs, &snapshots).map_err(|error| RecoveryError::io(&snapshots, error))?;
    if let Some(strange) = found.strange.first() {
        let reason = "a file that is not Tandem's lies in the folder of snapshots".to_owned();
        return Err(RecoveryError::new(RecoveryErrorKind::Foreign, strange, None, reason));
    }
    leftovers.extend(found.leftovers.iter().cloned());
    let Some((begins, first)) = names.first() else {
        if found.snapshots.is_empty() && found.damaged.is_empty() {
            return Ok(Looked { found: None, leftovers });
        }
        let reason = "the log is missing: there are snapshots, and not one segment".to_owned();
        return Err(RecoveryError::new(RecoveryErrorKind::Gap, &directory, None, reason));
    };
    let (last_begins, last) = names.last().map_or((begins, first), |(begins, name)| (begins, name));
    // If it cannot be read, the reading of the whole segment says why.
    let header = segments::read_header(fs, &directory.join(last), *last_begins).ok();
    let store_id = header.map(|header| header.store_id);
    let log = LogFound { begins: *begins, first_segment: directory.join(first), store_id };
    let (snapshot, damaged) = snapshots::load_newest(fs, &found, &log, state, progress)?;
    let base_index = snapshot.map_or(0, |snapshot| snapshot.index);
    let mut found = segments::recover(fs, &directory, &names, base_index, state, progress)?;
    found.recovery.snapshot = snapshot;
    found.recovery.damaged = damaged;
    Ok(Looked { found: Some(found), leftovers })
}

/// A directory in which a restore was cut short holds anything but a store.
fn must_not_be_restoring(fs: &dyn FileSystem, store_directory: &Path) -> Result<(), RecoveryError> {
    let names = fs.list(store_directory).map_err(|error| RecoveryError::io(store_directory, error))?;
    if !names.iter().any(|name| name == RESTORING) {
        return Ok(());
    }
    let reason = "a restore into this directory was cut short, or still runs".to_owned();
    Err(RecoveryError {
        remedy: "wait for it, or remove the directory and restore again: the backup is as it was".into(),
        ..RecoveryError::new(RecoveryErrorKind::Gap, &store_directory.join(RESTORING), None, reason)
    })
}

/// Removes leftovers. What recovery wrote anew under such a name has its right name by now.
fn tidy(fs: &dyn FileSystem, leftovers: &[PathBuf]) -> Result<(), RecoveryError> {
    for leftover in leftovers {
        let (Some(directory), Some(name)) = (leftover.parent(), leftover.file_name()) else { continue };
        let left = fs.list(directory).map_err(|error| RecoveryError::io(directory, error))?;
        if left.iter().any(|other| **other == *name) {
            fs.remove(leftover).map_err(|error| RecoveryError::io(leftover, error))?;
        }
    }
    Ok(())
}

/// The segments' names with their first indexes, in order; and the leftovers of an earlier run.
type Sorted = (Vec<(u64, String)>, Vec<PathBuf>);

fn sort_out(fs: &dyn FileSystem, directory: &Path) -> Result<Sorted, RecoveryError> {
    let mut segments = Vec::new();
    let mut leftovers = Vec::new();
    for name in fs.list(directory).map_err(|error| RecoveryError::io(directory, error))? {
        if let Some(first_index) = segment::first_index_of(&name) {
            segments.push((first_index, name));
        } else if name == "next" || name.ends_with(".tmp") {
            leftovers.push(directory.join(name));
        } else {
            let reason = "a file that is not Tandem's lies in the log's folder".to_owned();
            return Err(RecoveryError::new(RecoveryErrorKind::Foreign, &directory.join(name), None, reason));
        }
    }
    segments.sort();
    Ok((segments, leftovers))
}

#[cfg(test)]
mod tests;
