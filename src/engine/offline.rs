//! Looking at the files of a stopped server, and making a data directory out of a backup. Nothing here needs a running
//! engine; what reads changes nothing.

mod log;
mod parts;

pub use self::{
    log::{LogReader, LoggedRecord},
    parts::{Part, read_parts},
};
pub use crate::disk::{DataDirectory, SegmentSummary, in_log_order};

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use prost::Message as _;

use super::{
    restoring::{Restoring, read_record},
    snapshot::{Captured, Kept, Pace, Stop, WriteError, check, load, write},
    state_hash::state_hash,
};
use crate::{
    disk::{
        self, FileSystem, FirstRecord, Progress, RESTORING, Recovering, Recovery, RecoveryError, RecoveryErrorKind,
        Refused, Replayed, Tear,
        snapshot::{Reader, Writer, folder},
    },
    limits::OFFSET_STEP_RESTORE,
    pb::storage::{LogRecord, Open, log_record::Command},
};

/// What a snapshot says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotSummary {
    /// The file.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// The last record that it contains.
    pub index: u64,
    /// The store's revision then.
    pub revision: u64,
    /// The time of the state.
    pub time_ms: u64,
    /// Entries.
    pub entries: u64,
    /// Remembered answers.
    pub answers: u64,
    /// Events of the watch history.
    pub events: u64,
    /// Hash of the state, as hexadecimal digits.
    pub state_hash: String,
    /// The version of the program that wrote it.
    pub program_version: String,
}

impl SnapshotSummary {
    /// Reads header and footer.
    pub fn read(file_system: &dyn FileSystem, path: &Path) -> Result<Self, RecoveryError> {
        Reader::open(file_system, path).map(|snapshot| Self::of(&snapshot))
    }

    fn of(snapshot: &Reader) -> Self {
        let (header, footer) = (snapshot.header(), snapshot.footer());
        Self {
            path: snapshot.path().to_owned(),
            bytes: snapshot.bytes(),
            index: snapshot.index(),
            revision: snapshot.index() + header.offset,
            time_ms: header.time_ms,
            entries: footer.entries,
            answers: footer.answers,
            events: footer.events,
            state_hash: footer.state_hash.iter().map(|byte| format!("{byte:02x}")).collect(),
            program_version: header.program_version.clone(),
        }
    }
}

/// The snapshots in a data directory, oldest first: what each says of itself, or why it says nothing.
pub fn list_snapshots(
    file_system: &dyn FileSystem,
    data_directory: &Path,
) -> Result<Vec<Result<SnapshotSummary, RecoveryError>>, RecoveryError> {
    let directory = data_directory.join(folder::FOLDER);
    let found = folder::list(file_system, &directory).map_err(|error| RecoveryError::io(&directory, error))?;
    Ok(found.snapshots.iter().map(|(_, path)| SnapshotSummary::read(file_system, path)).collect())
}

/// Reads a snapshot whole and checks it: every frame, every count, the state's hash.
pub fn verify_snapshot(
    file_system: &dyn FileSystem,
    path: &Path,
    progress: &Progress,
) -> Result<SnapshotSummary, RecoveryError> {
    let snapshot = Reader::open(file_system, path)?;
    load(&snapshot, progress)?;
    Ok(SnapshotSummary::of(&snapshot))
}

/// The same without loading it, which takes little memory: every frame, every count, the state's hash. `advance` gets the
/// bytes that were read now.
pub fn check_snapshot(
    file_system: &dyn FileSystem,
    path: &Path,
    mut advance: impl FnMut(u64),
) -> Result<SnapshotSummary, RecoveryError> {
    let snapshot = Reader::open(file_system, path)?;
    check(&snapshot, &mut |bytes| {
        advance(bytes);
        true
    })?;
    Ok(SnapshotSummary::of(&snapshot))
}

/// What a whole data directory leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectorySummary {
    /// What a start would find. Damaged snapshots that it would do without are named in it.
    pub recovery: Recovery,
    /// Entries.
    pub keys: u64,
    /// The store's revision.
    pub revision: u64,
    /// Hash of the state.
    pub state_hash: u128,
}

/// Reads a data directory as a start would and changes nothing; an error is what would refuse the start. `None`: there is
/// no store.
pub fn verify_directory(
    file_system: &dyn FileSystem,
    data_directory: &Path,
    progress: &Progress,
) -> Result<Option<DirectorySummary>, RecoveryError> {
    let mut restoring = Restoring::offline();
    let recovery = disk::check(file_system, data_directory, &mut restoring, progress)?;
    let (store, state) = (restoring.applier.store(), restoring.applier.state());
    Ok(recovery.map(|recovery| DirectorySummary {
        recovery,
        keys: store.totals().keys,
        revision: state.revision(),
        state_hash: state_hash(store, state),
    }))
}

/// Where a restore ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// With the last record there is.
    End,
    /// With the last record at or before this revision.
    Revision(u64),
    /// With the last record at or before this time, in milliseconds since 1970 UTC.
    TimeMs(u64),
}

/// What a restore made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreSummary {
    /// Entries.
    pub keys: u64,
    /// The last revision of the old store that the new one contains.
    pub restored_revision: u64,
    /// The time of the state, in milliseconds since 1970 UTC.
    pub restored_time_ms: u64,
    /// Every revision that the new store gives lies above this one, and above all that the old one ever gave.
    pub next_revision: u64,
    /// Records replayed behind the backup.
    pub records: u64,
    /// What a crash left at the end of the log, and what no acknowledged write is in.
    pub tear: Option<Tear>,
}

/// Makes a data directory out of a backup and, where given, the log of its store in the folder `log`. The new store is one
/// of its own, and its revisions lie above all that the old one may have given. A directory that is not empty is refused.
pub fn restore(
    file_system: &Arc<dyn FileSystem>,
    backup: &Path,
    log: Option<&Path>,
    until: Until,
    data_directory: &Path,
    progress: &Progress,
) -> Result<RestoreSummary, RecoveryError> {
    let fs = &**file_system;
    must_be_empty(fs, data_directory)?;
    let snapshot = Reader::open(fs, backup)?;
    let mut bounded = Bounded { restoring: Restoring::offline(), until, past: false, records: 0 };
    bounded.load(&snapshot, progress)?;
    let state = bounded.restoring.applier.state();
    if until.is_before(state.revision(), state.time_ms) {
        let reason = format!("the backup ends at revision {}, behind the point that was asked for", state.revision());
        return Err(RecoveryError {
            remedy: "restore an older backup with the log behind it; nothing was made".into(),
            ..RecoveryError::new(RecoveryErrorKind::Gap, backup, None, reason)
        });
    }
    let mut tear = None;
    if let Some(directory) = log {
        let (store_id, recovery) = disk::read_log(fs, directory, snapshot.index(), &mut bounded, progress)?;
        if store_id != snapshot.store_id() {
            let reason = "the log belongs to another store than the backup".to_owned();
            return Err(RecoveryError::new(RecoveryErrorKind::Foreign, directory, None, reason));
        }
        bounded.must_have_reached(directory)?;
        tear = recovery.tear.filter(|_| !bounded.past);
    }
    let made = make(file_system, data_directory, &bounded);
    let made = made.map_err(|error| RecoveryError {
        remedy: "remove what lies there, make room, and restore again".into(),
        ..RecoveryError::io(data_directory, error)
    })?;
    Ok(RestoreSummary { tear, ..made })
}

/// What a new file system has in its uppermost folder.
const LOST_AND_FOUND: &str = "lost+found";

fn must_be_empty(fs: &dyn FileSystem, data_directory: &Path) -> Result<(), RecoveryError> {
    match fs.list(data_directory) {
        Ok(names) if names.iter().all(|name| name == LOST_AND_FOUND) => Ok(()),
        Ok(names) => {
            let reason = match names.iter().any(|name| name == RESTORING) {
                true => "the directory is not empty: a restore into it runs, or was cut short",
                false => "the directory is not empty",
            };
            Err(RecoveryError {
                remedy: "restore into a new directory, or remove what lies in this one; nothing was changed".into(),
                ..RecoveryError::new(RecoveryErrorKind::Foreign, data_directory, None, reason.to_owned())
            })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(RecoveryError::io(data_directory, error)),
    }
}

/// Never.
#[derive(Debug)]
struct Unstopped;

impl Stop for Unstopped {
    fn stopped(&self) -> bool {
        false
    }
}

/// First the snapshot, then the log: only with both, and without the mark of a restore at work, it is a store.
fn make(file_system: &Arc<dyn FileSystem>, data_directory: &Path, bounded: &Bounded) -> io::Result<RestoreSummary> {
    let applier = &bounded.restoring.applier;
    let state = applier.state();
    let store_id = rand::random();
    disk::begin_restoring(&**file_system, data_directory)?;
    let directory = data_directory.join(folder::FOLDER);
    let mut writer = Writer::create(Arc::clone(file_system), &directory, store_id, state.index)?;
    let captured = Captured::of(applier, None);
    let history = Kept { after_revision: state.revision(), records: Vec::new() };
    let pace = Pace { bytes_per_second: None, stopped: &Unstopped };
    let hash = write(&captured, &history, &mut writer, pace).map_err(|error| match error {
        WriteError::Io(error) => error,
        WriteError::Overrun | WriteError::Stopped => io::Error::other("a restore that nobody disturbs was disturbed"),
    })?;
    writer.seal(hash)?;
    writer.publish()?;
    let (index, term, offset) = (state.index + 1, state.term + 1, state.offset + OFFSET_STEP_RESTORE);
    let open = Command::Open(Open { term, offset, apply_version: state.apply_version });
    let body = LogRecord { command: Some(open), ..LogRecord::default() }.encode_to_vec();
    let record = FirstRecord { index, term, time_ms: state.time_ms, body: &body };
    disk::create_log(&**file_system, data_directory, store_id, record)?;
    disk::end_restoring(&**file_system, data_directory)?;
    Ok(RestoreSummary {
        keys: applier.store().totals().keys,
        restored_revision: state.revision(),
        restored_time_ms: state.time_ms,
        next_revision: index + offset,
        records: bounded.records,
        tear: None,
    })
}

impl Until {
    /// Whether a record of this revision and time lies beyond it.
    fn is_before(self, revision: u64, time_ms: u64) -> bool {
        match self {
            Self::End => false,
            Self::Revision(last) => revision > last,
            Self::TimeMs(last_ms) => time_ms > last_ms,
        }
    }
}

/// A state that takes no record beyond a point.
struct Bounded {
    restoring: Restoring,
    until: Until,
    /// The point is passed: nothing more is taken.
    past: bool,
    records: u64,
}

impl Bounded {
    /// Refuses if the log ends before the revision that was asked for: what is missing would be missed in silence.
    fn must_have_reached(&self, log: &Path) -> Result<(), RecoveryError> {
        let ends = self.restoring.applier.state().revision();
        match self.until {
            Until::Revision(wanted) if !self.past && ends < wanted => {
                let reason = format!("the log ends at revision {ends}, before {wanted}, which was asked for");
                Err(RecoveryError {
                    remedy: "bring the segments behind it, or restore without --to-revision; nothing was made".into(),
                    ..RecoveryError::new(RecoveryErrorKind::Gap, log, None, reason)
                })
            }
            Until::Revision(_) | Until::TimeMs(_) | Until::End => Ok(()),
        }
    }
}

impl Recovering for Bounded {
    fn load(&mut self, snapshot: &Reader, progress: &Progress) -> Result<(), RecoveryError> {
        self.restoring.load(snapshot, progress)
    }

    fn reset(&mut self) {
        self.restoring.reset();
    }

    fn replay(&mut self, replayed: Replayed<'_>) -> Result<(), Refused> {
        if self.past {
            return Ok(());
        }
        let record = read_record(replayed)?;
        let offset = match &record.command {
            Some(Command::Open(open)) => open.offset,
            _ => self.restoring.applier.state().offset,
        };
        self.past = self.until.is_before(record.index + offset, record.time_ms);
        if !self.past {
            self.records += 1;
            self.restoring.applier.apply(&record);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
