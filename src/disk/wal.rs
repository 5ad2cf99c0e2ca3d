//! The write-ahead log: groups of frames, one write and one sync each; segments that follow one another.
//!
//! How a group gets to the disk was chosen by measurement (ext4 on a virtual disk, 2 cores, medians of 5 interleaved rounds
//! of 300 groups; microseconds a group, in brackets those of the thread's own processor time):
//!
//! ```text
//! group       write, fdatasync   O_DSYNC      O_DIRECT|O_DSYNC   io_uring, linked   fdatasync, only fallocated
//!   8,200 B   149 (38)           181 (57)     181 (49)           191 (3)            255 (72)
//!  65,544 B   193 (52)           214 (64)     196 (51)           217 (4)            294 (90)
//! 262,152 B   312 (94)           312 (100)    237 (53)           314 (5)            429 (143)
//! ```
//!
//! So: plain writes and `fdatasync` over space that was written before. O_DIRECT wins only for groups of a quarter of a
//! mebibyte, which bulk loads make; io_uring spares the log's thread and gives the work to one of the kernel's.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

use super::{
    file_system::{File, FileSystem, LockGuard},
    frame::{self, Head, Kind, PREFIX_BYTES, framed_bytes},
    preparer::{NotReady, Preparer},
    segment::{self, HEADER_BYTES, Header, StoreId},
};

/// Each segment of a new log is this many times as large as the one before, up to the configured size.
const GROWTH: u64 = 4;
/// Kept free at the end of a segment, so that a CLOSE always fits.
const CLOSE_BYTES: u64 = frame::HEAD_BYTES as u64;

/// How a log is to be opened.
#[derive(Clone, Debug)]
pub struct WalOptions {
    /// Size of a segment.
    pub segment_bytes: u64,
    /// The data directory: the log is in its folder `wal`.
    pub store_directory: PathBuf,
}

/// Why the log did not take something.
#[derive(Debug)]
pub enum WalError {
    /// The active segment is full and the disk has no room for the next. Nothing was staged; the log is well.
    Full,
    /// A write, a sync or a rotation failed: fail-stop. A failed sync is never tried again on the same file, since the
    /// second one may succeed with the data gone.
    Failed(Box<str>),
}

impl fmt::Display for WalError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => formatter.write_str("the disk has no room for the next segment"),
            Self::Failed(text) => formatter.write_str(text),
        }
    }
}

impl std::error::Error for WalError {}

/// What a write handed over.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// Bytes, head and padding included.
    pub bytes: u64,
}

/// Syncs the active segment from another thread.
#[derive(Clone, Debug)]
pub struct Syncer(Arc<dyn File>);

impl Syncer {
    /// Makes what was written until now durable.
    pub fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// The active segment, as recovery hands it over.
#[derive(Debug)]
pub(super) struct Active {
    pub file: Arc<dyn File>,
    pub sequence: u32,
    pub bytes: u64,
    /// Where the next frame goes.
    pub position: u64,
}

/// The log, open for writing.
#[derive(Debug)]
pub struct Wal {
    file_system: Arc<dyn FileSystem>,
    directory: PathBuf,
    store_id: StoreId,
    segment_bytes: u64,
    active: Active,
    /// Frames of the group that is being staged.
    group: Vec<u8>,
    staged_index: u64,
    written_index: u64,
    synced_index: u64,
    preparer: Preparer,
    failed: Option<Box<str>>,
    _lock: Box<dyn LockGuard>,
}

impl Wal {
    pub(super) fn new(
        file_system: Arc<dyn FileSystem>,
        directory: PathBuf,
        store_id: StoreId,
        segment_bytes: u64,
        active: Active,
        last_index: u64,
        lock: Box<dyn LockGuard>,
    ) -> io::Result<Self> {
        let preparer = Preparer::start(Arc::clone(&file_system), directory.join("next"))?;
        preparer.want(next_bytes(active.bytes, segment_bytes));
        Ok(Self {
            file_system,
            directory,
            store_id,
            segment_bytes,
            active,
            group: Vec::new(),
            staged_index: last_index,
            written_index: last_index,
            synced_index: last_index,
            preparer,
            failed: None,
            _lock: lock,
        })
    }

    /// Adds a record to the group: `body` is the caller's encoded rest of the `LogRecord`. Gives its index.
    pub fn stage(&mut self, term: u64, time_ms: u64, body: &[u8]) -> Result<u64, WalError> {
        self.check()?;
        let bytes = framed_bytes(PREFIX_BYTES + body.len()) as u64;
        if self.active.position + self.group.len() as u64 + bytes + CLOSE_BYTES > self.active.bytes {
            self.rotate(bytes)?;
        }
        let index = self.staged_index + 1;
        let prefix = frame::prefix(index, term, time_ms);
        let head = self.head(Kind::Record, index);
        frame::encode(&mut self.group, head, &[&prefix, body]);
        self.staged_index = index;
        Ok(index)
    }

    /// Hands the group to the operating system, with one write.
    pub fn write(&mut self) -> Result<Written, WalError> {
        self.check()?;
        let bytes = self.group.len() as u64;
        if bytes > 0 {
            let written = self.active.file.write_all_at(&self.group, self.active.position);
            self.fail_on("a write to the active segment failed", written)?;
            self.active.position += bytes;
            self.preparer.note_filled(self.active.position, self.active.bytes);
            self.group.clear();
            // One large group must not hold its memory for ever.
            self.group.shrink_to(1 << 20);
            self.written_index = self.staged_index;
        }
        Ok(Written { bytes })
    }

    /// Makes everything written durable.
    pub fn sync(&mut self) -> Result<(), WalError> {
        self.check()?;
        let synced = self.active.file.sync_data();
        self.fail_on("a sync of the active segment failed", synced)?;
        self.synced_index = self.written_index;
        Ok(())
    }

    /// Writes a MARK and syncs it: tells a later recovery what was on disk. Skipped where only a CLOSE fits.
    pub fn mark(&mut self) -> Result<(), WalError> {
        self.write()?;
        self.sync()?;
        if self.active.position + 2 * CLOSE_BYTES <= self.active.bytes {
            self.write_frame(Kind::Mark)?;
            self.sync()?;
        }
        Ok(())
    }

    /// Ends the log cleanly.
    pub fn close(mut self) -> Result<(), WalError> {
        self.write()?;
        self.sync()?;
        self.write_frame(Kind::Close)?;
        self.sync()
    }

    /// A handle to sync the active segment from another thread; report by [`Self::note_synced`].
    pub fn syncer(&self) -> Syncer {
        Syncer(Arc::clone(&self.active.file))
    }

    /// Another thread has synced everything up to `index`.
    pub fn note_synced(&mut self, index: u64) {
        self.synced_index = self.synced_index.max(index.min(self.written_index));
    }

    /// The last index that is on disk.
    pub fn synced_index(&self) -> u64 {
        self.synced_index
    }

    /// The last index that was handed to the operating system.
    pub fn written_index(&self) -> u64 {
        self.written_index
    }

    /// Whose log it is.
    pub fn store_id(&self) -> StoreId {
        self.store_id
    }

    /// The alarm that the disk has no room for the next segment; it clears itself.
    pub fn disk_full(&self) -> Arc<AtomicBool> {
        self.preparer.full()
    }

    fn head(&self, kind: Kind, index: u64) -> Head {
        Head { kind, sequence: self.active.sequence, index, synced_index: self.synced_index }
    }

    fn write_frame(&mut self, kind: Kind) -> Result<(), WalError> {
        let head = self.head(kind, self.written_index);
        frame::encode(&mut self.group, head, &[]);
        self.write().map(|_| ())
    }

    /// Goes on in the next segment, which has room for a frame of `frame_bytes`. The old one is synced whole first: so
    /// a segment that has a successor is complete.
    fn rotate(&mut self, frame_bytes: u64) -> Result<(), WalError> {
        let needed_bytes = HEADER_BYTES as u64 + frame_bytes + CLOSE_BYTES;
        let bytes_min = if needed_bytes > next_bytes(self.active.bytes, self.segment_bytes) {
            needed_bytes.max(self.segment_bytes).next_multiple_of(HEADER_BYTES as u64)
        } else {
            needed_bytes
        };
        let bytes = match self.preparer.take(bytes_min) {
            Ok(bytes) => bytes,
            Err(NotReady::Full) => return Err(WalError::Full),
            Err(NotReady::Failed(error)) => {
                return self.fail_on("the next segment could not be made ready", Err(error));
            }
        };
        self.write()?;
        self.sync()?;
        let header =
            Header { sequence: self.active.sequence + 1, store_id: self.store_id, first_index: self.staged_index + 1 };
        let activated = activate(&*self.file_system, &self.directory, &header);
        let file = self.fail_on("the next segment could not be activated", activated)?;
        self.active = Active { file, sequence: header.sequence, bytes, position: HEADER_BYTES as u64 };
        self.preparer.want(next_bytes(bytes, self.segment_bytes));
        Ok(())
    }

    fn check(&self) -> Result<(), WalError> {
        match &self.failed {
            Some(failed) => Err(WalError::Failed(failed.clone())),
            None => Ok(()),
        }
    }

    fn fail_on<T>(&mut self, what: &str, result: io::Result<T>) -> Result<T, WalError> {
        result.map_err(|error| {
            let text: Box<str> = format!("{what} (sequence {}): {error}", self.active.sequence).into();
            self.failed = Some(text.clone());
            WalError::Failed(text)
        })
    }
}

fn next_bytes(bytes: u64, segment_bytes: u64) -> u64 {
    (bytes * GROWTH).min(segment_bytes)
}

/// Gives the ready segment its header and its name.
fn activate(file_system: &dyn FileSystem, directory: &Path, header: &Header) -> io::Result<Arc<dyn File>> {
    let next = directory.join("next");
    let file = file_system.open(&next)?;
    file.write_all_at(&header.encode(), 0)?;
    file.sync_data()?;
    file_system.rename(&next, &directory.join(segment::file_name(header.first_index)))?;
    file_system.sync_directory(directory)?;
    Ok(file)
}
