//! What a start makes of the files it finds. Each row has a test in `tests.rs`:
//!
//! | found | done |
//! |---|---|
//! | nothing, or leftovers of a first start that was cut short | a new store |
//! | the last frame is CLOSE | go on behind it |
//! | frames, then nothing | unclean: rewrite the last segment, go on |
//! | a bad frame in the last segment, and no whole later frame there knew its index to be synced | tear: cut there, say so, rewrite, go on |
//! | a bad frame, and a later frame or segment knew its index to be synced | damage: refuse |
//! | the last segment has no frame yet | go on in it |
//! | a segment or a record is missing, the first included | gap: refuse |
//! | two segments hold the same index | overlap: refuse |
//! | a file that is not Tandem's, or another store's | foreign: refuse |
//! | a newer format, or a frame of a newer kind | future: refuse |
//! | a damaged header, an empty file | damage: refuse |
//! | `next`, `*.tmp` | leftovers: removed |
//! | the directory is in use | locked: refuse |
//!
//! Refusing means exit code 2 with file, offset, reason and remedy, and nothing changed on disk.
//!
//! After an unclean stop the page cache may show bytes that never reached the disk (a failed sync leaves such). So the
//! valid part of the last segment is written anew under a new sequence, synced, and renamed over the old file before
//! anything is served.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    file_system::{FileSystem, read_whole},
    frame::{self, Head, Kind},
    lock_file,
    segment::{self, HEADER_BYTES, Header, HeaderProblem, StoreId},
    wal::{Active, Wal, WalOptions},
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

/// What recovery found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Records replayed.
    pub records: u64,
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

/// Why a start was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoveryErrorKind {
    /// Bytes that were on disk are not what they were.
    Damaged,
    /// Something is missing, or there twice.
    Gap,
    /// Not this store's.
    Foreign,
    /// Of a newer version.
    Future,
    /// Another server uses the directory.
    Locked,
    /// The operating system refused.
    Io,
}

/// A refused start: names the file, the place, the reason and the remedy.
#[derive(Clone, Debug)]
pub struct RecoveryError {
    /// What kind of trouble.
    pub kind: RecoveryErrorKind,
    /// The file.
    pub file: PathBuf,
    /// Where in it.
    pub offset: Option<u64>,
    /// What is wrong.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

impl RecoveryError {
    /// An error of the operating system, or a failed first write.
    pub fn io(file: &Path, error: impl fmt::Display) -> Self {
        Self {
            kind: RecoveryErrorKind::Io,
            file: file.to_owned(),
            offset: None,
            reason: error.to_string(),
            remedy: "check that the directory is there, writable and has room, then start again".into(),
        }
    }

    fn new(kind: RecoveryErrorKind, file: &Path, offset: Option<u64>, reason: String) -> Self {
        let remedy = match kind {
            RecoveryErrorKind::Damaged => {
                "keep a copy of the data directory, check the disk, and restore the newest backup; nothing was changed"
            }
            RecoveryErrorKind::Gap => "bring the missing file back or restore a backup; nothing was changed",
            RecoveryErrorKind::Foreign => {
                "move the file away if it does not belong here, or choose another --data-dir; nothing was changed"
            }
            RecoveryErrorKind::Future => {
                "start the version of Tandem that wrote it, or a newer one; nothing was changed"
            }
            RecoveryErrorKind::Locked => "stop the other server, or choose another --data-dir",
            RecoveryErrorKind::Io => "check the disk and its permissions, then start again",
        };
        Self { kind, file: file.to_owned(), offset, reason, remedy: remedy.into() }
    }
}

impl fmt::Display for RecoveryError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.file.display())?;
        if let Some(offset) = self.offset {
            write!(formatter, " at offset {offset}")?;
        }
        write!(formatter, ": {}. Remedy: {}", self.reason, self.remedy)
    }
}

impl std::error::Error for RecoveryError {}

/// Opens or creates the log, handing every record to `replay` in order.
pub fn open(
    file_system: Arc<dyn FileSystem>,
    options: WalOptions,
    replay: &mut dyn FnMut(Replayed<'_>) -> Result<(), String>,
) -> Result<(Wal, Recovery), RecoveryError> {
    let directory = options.store_directory.join("wal");
    let fs = &*file_system;
    fs.create_directory(&directory).map_err(|error| RecoveryError::io(&directory, error))?;
    for above in [Some(&*options.store_directory), options.store_directory.parent()].into_iter().flatten() {
        let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        fs.sync_directory(above).map_err(|error| RecoveryError::io(above, error))?;
    }
    let lock = lock_file::take(fs, &options.store_directory)?;
    let (names, leftovers) = sort_out(fs, &directory)?;
    let segment_bytes = options.segment_bytes;
    let (store_id, active, recovery) = if names.is_empty() {
        let header = Header { sequence: 1, store_id: rand::random(), first_index: 1 };
        let active = create_first(fs, &directory, &header, SEGMENT_FIRST_BYTES.min(segment_bytes))
            .map_err(|error| RecoveryError::io(&directory, error))?;
        (header.store_id, active, Recovery { clean: true, new_store: true, ..NOTHING })
    } else {
        recover(fs, &directory, &names, replay)?
    };
    // Only now: a start that is refused changes nothing.
    // What recovery wrote anew under such a name has its right name by now.
    let left = fs.list(&directory).map_err(|error| RecoveryError::io(&directory, error))?;
    for leftover in leftovers.into_iter().filter(|path| left.iter().any(|name| path.ends_with(name))) {
        fs.remove(&leftover).map_err(|error| RecoveryError::io(&leftover, error))?;
    }
    let wal = Wal::new(
        Arc::clone(&file_system),
        directory.clone(),
        store_id,
        segment_bytes,
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

const NOTHING: Recovery =
    Recovery { records: 0, last_index: 0, clean: false, new_store: false, tear: None, segments: 0 };

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

fn create_first(fs: &dyn FileSystem, directory: &Path, header: &Header, bytes: u64) -> io::Result<Active> {
    let path = directory.join(segment::file_name(header.first_index));
    let temporary = path.with_extension("tmp");
    let file = fs.create(&temporary)?;
    file.write_all_at(&header.encode(), 0)?;
    segment::fill(&*file, HEADER_BYTES as u64, bytes)?;
    file.sync_data()?;
    fs.rename(&temporary, &path)?;
    fs.sync_directory(directory)?;
    Ok(Active { file, sequence: header.sequence, bytes, position: HEADER_BYTES as u64 })
}

/// A segment that has a successor.
struct Ended {
    path: PathBuf,
    /// Where its whole frames end.
    end: usize,
    /// Something other than zeros lies behind them.
    torn: bool,
}

/// A segment that was read.
struct Scan {
    /// Where its frames end.
    end: usize,
    /// Index behind its last record.
    next_index: u64,
    /// The last frame is CLOSE.
    closed: bool,
}

fn recover(
    fs: &dyn FileSystem,
    directory: &Path,
    names: &[(u64, String)],
    replay: &mut dyn FnMut(Replayed<'_>) -> Result<(), String>,
) -> Result<(StoreId, Active, Recovery), RecoveryError> {
    let mut recovery = Recovery { segments: names.len(), ..NOTHING };
    let mut next_index = 1;
    let mut before: Option<Header> = None;
    // Where the segment before ended, in case its successor proves that more was there.
    let mut ended: Option<Ended> = None;
    for (position, (first_index, name)) in names.iter().enumerate() {
        let path = directory.join(name);
        let file = fs.open(&path).map_err(|error| RecoveryError::io(&path, error))?;
        let bytes = read_whole(&*file).map_err(|error| RecoveryError::io(&path, error))?;
        let header = check_header(&path, &bytes, *first_index, before.as_ref())?;
        check_order(&path, *first_index, next_index, ended.as_ref())?;
        let scan = scan(&path, &bytes, &header, replay)?;
        recovery.records += scan.next_index - next_index;
        next_index = scan.next_index;
        let last = position + 1 == names.len();
        if !last {
            let torn = bytes[scan.end..].iter().any(|byte| *byte != 0);
            ended = Some(Ended { path, end: scan.end, torn });
            before = Some(header);
            continue;
        }
        let rest = &bytes[scan.end..];
        check_damage(&path, rest, scan.end, &header, next_index)?;
        recovery.last_index = next_index - 1;
        recovery.tear = rest.iter().rposition(|byte| *byte != 0).map(|last_byte| Tear {
            file: path.clone(),
            offset: scan.end as u64,
            bytes_cut: last_byte as u64 + 1,
        });
        recovery.clean = scan.closed && recovery.tear.is_none();
        let active = if recovery.clean {
            Active { file, sequence: header.sequence, bytes: bytes.len() as u64, position: scan.end as u64 }
        } else {
            rewrite(fs, directory, &path, &bytes, scan.end, &header).map_err(|error| RecoveryError::io(&path, error))?
        };
        return Ok((header.store_id, active, recovery));
    }
    Err(RecoveryError::io(directory, "no segment to read"))
}

fn check_header(path: &Path, bytes: &[u8], first_index: u64, before: Option<&Header>) -> Result<Header, RecoveryError> {
    let refuse = |kind, reason: String| Err(RecoveryError::new(kind, path, Some(0), reason));
    let header = match Header::decode(bytes) {
        Ok(header) => header,
        Err(HeaderProblem::Foreign) => {
            return refuse(RecoveryErrorKind::Foreign, "not a segment of a Tandem log".into());
        }
        Err(HeaderProblem::Future(version)) => {
            let reason = format!("format version {version} is newer than {}", segment::FORMAT_VERSION);
            return refuse(RecoveryErrorKind::Future, reason);
        }
        Err(HeaderProblem::Damaged) => {
            return refuse(RecoveryErrorKind::Damaged, "the segment's header is damaged or missing".into());
        }
    };
    if header.first_index != first_index {
        let reason =
            format!("the file's name says it begins at index {first_index}, its header {}", header.first_index);
        return refuse(RecoveryErrorKind::Foreign, reason);
    }
    if before.is_some_and(|before| before.store_id != header.store_id) {
        return refuse(RecoveryErrorKind::Foreign, "the segment belongs to another store".into());
    }
    if before.is_some_and(|before| before.sequence >= header.sequence) {
        return refuse(RecoveryErrorKind::Damaged, "the segment's sequence does not follow the one before".into());
    }
    Ok(header)
}

/// The segment must begin where the one before ended.
fn check_order(path: &Path, first_index: u64, next_index: u64, ended: Option<&Ended>) -> Result<(), RecoveryError> {
    if first_index == next_index {
        return Ok(());
    }
    if first_index < next_index {
        let reason = format!("the segment begins at index {first_index}, which the one before holds already");
        return Err(RecoveryError::new(RecoveryErrorKind::Gap, path, None, reason));
    }
    match ended {
        // The segment before was synced whole before its successor began: a bad frame at its end is damage.
        Some(before) if before.torn => {
            let reason = format!(
                "the record with index {next_index} was on disk and is damaged: the next segment begins at index {first_index}"
            );
            Err(RecoveryError::new(RecoveryErrorKind::Damaged, &before.path, Some(before.end as u64), reason))
        }
        Some(_) => {
            let reason =
                format!("the segment begins at index {first_index}, and {next_index} was to come: one is missing");
            Err(RecoveryError::new(RecoveryErrorKind::Gap, path, None, reason))
        }
        None => {
            let reason = format!("the log begins at index {first_index}, and no snapshot holds what came before");
            Err(RecoveryError::new(RecoveryErrorKind::Gap, path, None, reason))
        }
    }
}

/// Replays the frames of a segment until the first bad one.
fn scan(
    path: &Path,
    bytes: &[u8],
    header: &Header,
    replay: &mut dyn FnMut(Replayed<'_>) -> Result<(), String>,
) -> Result<Scan, RecoveryError> {
    let mut scan = Scan { end: HEADER_BYTES, next_index: header.first_index, closed: false };
    while let Some(frame) = frame::decode(&bytes[scan.end..], header.sequence) {
        let refuse = |kind, reason| Err(RecoveryError::new(kind, path, Some(scan.end as u64), reason));
        let expected_index = match frame.head.kind {
            Kind::Record => scan.next_index,
            Kind::Mark | Kind::Close => scan.next_index - 1,
            Kind::Reserved(number) => {
                return refuse(
                    RecoveryErrorKind::Future,
                    format!("a frame of kind {number}, which a newer version writes"),
                );
            }
        };
        if frame.head.index != expected_index {
            let reason = format!("a frame says index {}, and {expected_index} was to come", frame.head.index);
            return refuse(RecoveryErrorKind::Gap, reason);
        }
        if frame.head.kind == Kind::Record {
            if let Err(reason) = replay(Replayed { index: frame.head.index, payload: frame.payload }) {
                return refuse(RecoveryErrorKind::Damaged, reason);
            }
            scan.next_index += 1;
        }
        scan.closed = frame.head.kind == Kind::Close;
        scan.end += frame.length;
    }
    Ok(scan)
}

/// Refuses if any whole frame behind the end knew the index at the end to be on disk.
fn check_damage(path: &Path, rest: &[u8], end: usize, header: &Header, next_index: u64) -> Result<(), RecoveryError> {
    let proof = (0..rest.len()).step_by(8).find_map(|at| {
        // Most of what lies there is zeros.
        if rest[at..].first_chunk::<16>().is_none_or(|head| head[8..16] == [0; 8]) {
            return None;
        }
        frame::decode(&rest[at..], header.sequence).filter(|frame| frame.head.synced_index >= next_index)
    });
    match proof {
        None => Ok(()),
        Some(frame) => {
            let reason = format!(
                "the record with index {next_index} was on disk and is damaged: a later frame knew everything up to index \
                 {} to be synced",
                frame.head.synced_index
            );
            Err(RecoveryError::new(RecoveryErrorKind::Damaged, path, Some(end as u64), reason))
        }
    }
}

/// Writes the valid part of the last segment anew, under a new sequence.
fn rewrite(
    fs: &dyn FileSystem,
    directory: &Path,
    path: &Path,
    bytes: &[u8],
    end: usize,
    header: &Header,
) -> io::Result<Active> {
    let header = Header { sequence: header.sequence + 1, ..*header };
    let temporary = path.with_extension("tmp");
    let file = fs.create(&temporary)?;
    file.write_all_at(&header.encode(), 0)?;
    let mut read = HEADER_BYTES;
    let mut written = HEADER_BYTES as u64;
    let mut buffer = Vec::new();
    while read < end {
        let Some(frame) = frame::decode(&bytes[read..end], header.sequence - 1) else {
            return Err(io::Error::other("a frame that was whole a moment ago is not"));
        };
        read += frame.length;
        frame::encode(&mut buffer, Head { sequence: header.sequence, ..frame.head }, &[frame.payload]);
        if buffer.len() >= 1 << 20 || read == end {
            file.write_all_at(&buffer, written)?;
            written += buffer.len() as u64;
            buffer.clear();
        }
    }
    segment::fill(&*file, written, bytes.len() as u64)?;
    file.sync_data()?;
    fs.rename(&temporary, path)?;
    fs.sync_directory(directory)?;
    Ok(Active { file, sequence: header.sequence, bytes: bytes.len() as u64, position: written })
}
