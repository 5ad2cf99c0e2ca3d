//! Looks into the files of a stopped server, and into segments wherever they lie. Changes nothing.

use std::path::{Path, PathBuf};

use super::{
    RecoveryError, RecoveryErrorKind, Tear,
    segments::{self, Ended, Visit, check_damage, check_follows, check_header, check_order},
    sort_out,
};
use crate::disk::{
    file_system::{FileSystem, LockGuard, read_whole},
    frame::Kind,
    header::StoreId,
    lock_file,
    progress::{Phase, Progress},
    segment::{self, HEADER_BYTES, Header},
    snapshot::folder,
};

/// A data directory that no server uses while this lives.
#[derive(Debug)]
pub struct DataDirectory<'fs> {
    file_system: &'fs dyn FileSystem,
    path: PathBuf,
    _lock: Box<dyn LockGuard>,
}

impl<'fs> DataDirectory<'fs> {
    /// Takes the lock that a running server holds.
    pub fn open(file_system: &'fs dyn FileSystem, path: &Path) -> Result<Self, RecoveryError> {
        let folders = [path.join("wal"), path.join(folder::FOLDER)];
        if folders.iter().all(|folder| file_system.list(folder).is_err()) {
            let reason = "there is no store: it has neither the folder wal nor the folder snapshots".to_owned();
            let remedy = "name the --data-dir of a server that may be read, or the files themselves".into();
            return Err(RecoveryError { remedy, ..RecoveryError::new(RecoveryErrorKind::Foreign, path, None, reason) });
        }
        let lock = lock_file::take(file_system, path).map_err(|error| {
            let remedy = match error.kind {
                RecoveryErrorKind::Locked => {
                    "stop that server, or name the files themselves: they may be read any time"
                }
                _ => "name the files themselves: only a whole directory needs its lock file written",
            };
            RecoveryError { remedy: remedy.into(), ..error }
        })?;
        Ok(Self { file_system, path: path.to_owned(), _lock: lock })
    }

    /// The segments of the log, in order.
    pub fn segments(&self) -> Result<Vec<PathBuf>, RecoveryError> {
        let directory = self.path.join("wal");
        let (names, _) = sort_out(self.file_system, &directory)?;
        Ok(names.into_iter().map(|(_, name)| directory.join(name)).collect())
    }

    /// The snapshots, oldest first. Those that were put aside as damaged are left out.
    pub fn snapshots(&self) -> Result<Vec<PathBuf>, RecoveryError> {
        let directory = self.path.join(folder::FOLDER);
        let found = folder::list(self.file_system, &directory).map_err(|error| RecoveryError::io(&directory, error))?;
        Ok(found.snapshots.into_iter().map(|(_, path)| path).collect())
    }

    /// Whether the log reaches from its snapshots, or from the beginning, to its end in this last segment.
    pub fn check_reach(&self, last: Option<&SegmentSummary>) -> Result<(), RecoveryError> {
        let directory = self.path.join(folder::FOLDER);
        let found = folder::list(self.file_system, &directory).map_err(|error| RecoveryError::io(&directory, error))?;
        let (names, _) = sort_out(self.file_system, &self.path.join("wal"))?;
        let begins = names.first().map(|(first_index, _)| *first_index);
        let newest = found.snapshots.last().map(|(index, _)| *index);
        let reason = match (begins, newest) {
            (None, Some(_)) => "the log is missing: there are snapshots, and not one segment".to_owned(),
            (Some(begins), None) if begins > 1 => {
                format!("the log begins at index {begins}, and no snapshot holds what came before")
            }
            (Some(begins), Some(index)) if begins > index + 1 => {
                format!("the log begins at index {begins}, and the newest snapshot ends at {index}")
            }
            (Some(_), Some(index)) if last.is_some_and(|last| last.next_index() <= index) => {
                format!("the log ends before index {index}, which a snapshot holds")
            }
            _ => return Ok(()),
        };
        Err(RecoveryError::new(RecoveryErrorKind::Gap, &self.path.join("wal"), None, reason))
    }
}

/// A segment, and what its frames say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentSummary {
    /// The file.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// Its sequence: rises from segment to segment.
    pub sequence: u32,
    /// Whose segment it is.
    pub store_id: StoreId,
    /// Index of the first record that it is for.
    pub first_index: u64,
    /// Records in it.
    pub records: u64,
    /// Where its whole frames end.
    pub frames_end: u64,
    /// Highest index that a frame of it knew to be on disk.
    pub synced_index: u64,
    /// It ends with the mark of a clean stop.
    pub closed: bool,
    /// What a crash left behind the last whole frame: the next start cuts it off, and no acknowledged write is in it.
    pub tear: Option<Tear>,
}

impl SegmentSummary {
    /// Index that follows on the last record.
    pub fn next_index(&self) -> u64 {
        self.first_index + self.records
    }

    /// Whether this segment goes on where the one before ends.
    pub fn check_follows(&self, before: &Self) -> Result<(), RecoveryError> {
        let ended = Ended {
            path: before.path.clone(),
            end: usize::try_from(before.frames_end).unwrap_or(usize::MAX),
            torn: before.tear.is_some(),
        };
        check_follows(&self.path, &self.header(), Some(&before.header()))?;
        check_order(&self.path, self.first_index, before.next_index(), Some(&ended))
    }

    fn header(&self) -> Header {
        Header { sequence: self.sequence, store_id: self.store_id, first_index: self.first_index }
    }
}

/// Segments in the order of the log, by their headers; those without a good one come first.
pub fn in_log_order(fs: &dyn FileSystem, mut paths: Vec<PathBuf>) -> Vec<PathBuf> {
    paths.sort_by_cached_key(|path| header_of(fs, path).map_or(0, |header| header.first_index));
    paths
}

/// Reads a segment whole and shows each of its frames, with its offset, to `visit`.
pub fn read_segment(
    fs: &dyn FileSystem,
    path: &Path,
    progress: &Progress,
    visit: &mut Visit<'_>,
) -> Result<SegmentSummary, RecoveryError> {
    // First the header: a file that is something else may be of any size.
    let header = header_of(fs, path)?;
    let bytes = fs.open_to_read(path).and_then(|file| read_whole(&*file));
    let bytes = bytes.map_err(|error| RecoveryError::io(path, error))?;
    progress.begin(Phase::Log, bytes.len() as u64);
    progress.advance(HEADER_BYTES as u64);
    let (mut records, mut synced_index) = (0, 0);
    let scan = segments::scan(path, &bytes, &header, progress, &mut |offset, frame| {
        records += u64::from(frame.head.kind == Kind::Record);
        synced_index = synced_index.max(frame.head.synced_index);
        visit(offset, frame)
    })?;
    check_damage(path, &bytes[scan.end..], scan.end, &header, scan.next_index)?;
    let tear = segments::tear(path, &bytes[scan.end..], scan.end);
    Ok(SegmentSummary {
        path: path.to_owned(),
        bytes: bytes.len() as u64,
        sequence: header.sequence,
        store_id: header.store_id,
        first_index: header.first_index,
        records,
        frames_end: scan.end as u64,
        synced_index,
        closed: scan.closed && tear.is_none(),
        tear,
    })
}

/// The header of a file that is called like a segment, and then must be that one, or anything else.
fn header_of(fs: &dyn FileSystem, path: &Path) -> Result<Header, RecoveryError> {
    let mut bytes = vec![0; HEADER_BYTES];
    let read = fs.open_to_read(path).and_then(|file| file.read_at(&mut bytes, 0));
    bytes.truncate(read.map_err(|error| RecoveryError::io(path, error))?);
    let named = path.file_name().and_then(|name| segment::first_index_of(name.to_str()?));
    let own = Header::decode(&bytes).map_or(0, |header| header.first_index);
    check_header(path, &bytes, named.unwrap_or(own), None)
}
