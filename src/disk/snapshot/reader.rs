//! Reads a snapshot, by as many threads as like to: each takes the next frame.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use prost::Message as _;

use super::{
    FOOTER_BLOCK_BYTES, FORMAT,
    codec::{HEAD_BYTES, Head, Kind, framed_bytes, share_of_checksum},
};
use crate::{
    disk::{
        file_system::{File, FileSystem},
        header::{self, Fields, HEADER_BYTES, HeaderProblem, StoreId},
        recovery::{RecoveryError, RecoveryErrorKind},
    },
    limits::SNAPSHOT_FRAME_BYTES_MAX,
    pb::storage::{SnapshotFooter, SnapshotHeader},
};

/// A snapshot whose header and footer were read and are good. Its frames are checked as they are read.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    file: Arc<dyn File>,
    fields: Fields,
    header: SnapshotHeader,
    /// Where the frames behind the header's begin.
    frames_begin: u64,
    header_checksum: u64,
    footer: SnapshotFooter,
    bytes: u64,
}

/// A frame that was read and is good.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'buffer> {
    /// What it holds.
    pub kind: Kind,
    /// Messages in its list.
    pub items: u32,
    /// Its number.
    pub number: u64,
    /// Where it begins in the file.
    pub offset: u64,
    /// Its payload.
    pub payload: &'buffer [u8],
}

impl Reader {
    /// Opens a snapshot.
    pub fn open(file_system: &dyn FileSystem, path: &Path) -> Result<Self, RecoveryError> {
        let file = file_system.open_to_read(path).map_err(|error| RecoveryError::io(path, error))?;
        let bytes = file.length().map_err(|error| RecoveryError::io(path, error))?;
        let source = Source { path, file: &*file };
        let fields = source.header()?;
        let (footer_offset, footer) = source.footer(bytes)?;
        if footer.frames_end > footer_offset {
            return Err(source.damaged(footer_offset, "the footer says that the frames go on behind it"));
        }
        let mut buffer = Vec::new();
        let frame = source.frame(HEADER_BYTES as u64, footer.frames_end, &mut buffer)?;
        if frame.kind != Kind::Header || frame.number != 0 {
            return Err(source.damaged(frame.offset, "the first frame is not the header"));
        }
        let header = SnapshotHeader::decode(frame.payload)
            .map_err(|error| source.damaged(frame.offset, &format!("the header cannot be read: {error}")))?;
        if header.last.is_none_or(|last| last.index != fields.index) {
            return Err(source.damaged(frame.offset, "the two headers name different records"));
        }
        let frames_begin = frame.offset + framed_bytes(frame.payload.len()) as u64;
        let header_checksum = share_of_checksum(&buffer);
        Ok(Self { path: path.to_owned(), file, fields, header, frames_begin, header_checksum, footer, bytes })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whose snapshot it is.
    pub fn store_id(&self) -> StoreId {
        self.fields.store_id
    }

    /// The last record that it contains.
    pub fn index(&self) -> u64 {
        self.fields.index
    }

    /// The state besides entries and answers.
    pub fn header(&self) -> &SnapshotHeader {
        &self.header
    }

    /// What it must hold to be whole.
    pub fn footer(&self) -> &SnapshotFooter {
        &self.footer
    }

    /// Length of the file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The open file, to be streamed as it is: it stays readable even if its name goes.
    pub fn file(&self) -> Arc<dyn File> {
        Arc::clone(&self.file)
    }

    /// An error about this snapshot.
    pub fn damaged(&self, offset: u64, reason: &str) -> RecoveryError {
        self.source().damaged(offset, reason)
    }

    /// All frames behind the header's, to be taken one by one by any number of threads.
    pub fn frames(&self) -> Frames<'_> {
        Frames {
            reader: self,
            next: Mutex::new((1, self.frames_begin)),
            checksum: AtomicU64::new(self.header_checksum),
            entries: AtomicU64::new(0),
            answers: AtomicU64::new(0),
            events: AtomicU64::new(0),
        }
    }

    fn source(&self) -> Source<'_> {
        Source { path: &self.path, file: &*self.file }
    }
}

/// Hands the frames out, and knows at the end whether they were all.
#[derive(Debug)]
pub struct Frames<'reader> {
    reader: &'reader Reader,
    /// Number and offset of the next frame.
    next: Mutex<(u64, u64)>,
    checksum: AtomicU64,
    entries: AtomicU64,
    answers: AtomicU64,
    events: AtomicU64,
}

impl Frames<'_> {
    /// The next frame, in a buffer of the caller's; `None` behind the last one.
    pub fn next<'buffer>(&self, buffer: &'buffer mut Vec<u8>) -> Result<Option<Frame<'buffer>>, RecoveryError> {
        let source = self.reader.source();
        let end = self.reader.footer.frames_end;
        let (number, offset) = {
            let mut next = self.next.lock();
            let (number, offset) = *next;
            if offset >= end {
                return Ok(None);
            }
            // The head is checked with its frame. A wrong length leads the others astray, but not further than the error
            // that its own frame gives.
            let head = source.head(offset, end)?;
            *next = (number + 1, offset + framed_bytes(head.payload_bytes) as u64);
            (number, offset)
        };
        let frame = source.frame(offset, end, buffer)?;
        if frame.number != number {
            let reason = format!("a frame says number {}, and {number} was to come", frame.number);
            return Err(source.damaged(offset, &reason));
        }
        let counter = match frame.kind {
            Kind::Entries => &self.entries,
            Kind::Answers => &self.answers,
            Kind::History => &self.events,
            Kind::Header | Kind::Footer => return Err(source.damaged(offset, "a frame in a place not its own")),
            Kind::Reserved(kind) => {
                let reason = format!("a frame of kind {kind}, which a newer version writes");
                return Err(RecoveryError::new(RecoveryErrorKind::Future, source.path, Some(offset), reason));
            }
        };
        counter.fetch_add(u64::from(frame.items), Ordering::Relaxed);
        let (kind, items, payload) = (frame.kind, frame.items, frame.payload.len());
        self.checksum.fetch_add(share_of_checksum(buffer), Ordering::Relaxed);
        Ok(Some(Frame { kind, items, number, offset, payload: &buffer[HEAD_BYTES..HEAD_BYTES + payload] }))
    }

    /// How far the reading has come in the file.
    pub fn position(&self) -> u64 {
        self.next.lock().1
    }

    /// Whether everything that was written was read. To be asked when all threads are done.
    pub fn finish(self) -> Result<(), RecoveryError> {
        let footer = &self.reader.footer;
        let (frames, end) = *self.next.lock();
        let counted = (self.entries.into_inner(), self.answers.into_inner(), self.events.into_inner());
        if (frames, end, self.checksum.into_inner()) != (footer.frames, footer.frames_end, footer.checksum)
            || counted != (footer.entries, footer.answers, footer.events)
        {
            return Err(self.reader.damaged(end, "the frames are not those that the footer counted"));
        }
        Ok(())
    }
}

/// A file to read from, and its name for errors.
struct Source<'file> {
    path: &'file Path,
    file: &'file dyn File,
}

impl Source<'_> {
    fn damaged(&self, offset: u64, reason: &str) -> RecoveryError {
        RecoveryError::new(RecoveryErrorKind::Damaged, self.path, Some(offset), reason.to_owned())
    }

    fn read_exact(&self, buffer: &mut [u8], offset: u64) -> Result<(), RecoveryError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => return Err(self.damaged(offset, "the snapshot is cut short")),
                Ok(read) => filled += read,
                Err(error) => return Err(RecoveryError::io(self.path, error)),
            }
        }
        Ok(())
    }

    fn header(&self) -> Result<Fields, RecoveryError> {
        let mut bytes = vec![0; HEADER_BYTES];
        self.read_exact(&mut bytes, 0)?;
        header::decode(FORMAT, &bytes).map_err(|problem| match problem {
            HeaderProblem::Foreign => {
                let reason = "not a snapshot of a Tandem store".to_owned();
                RecoveryError::new(RecoveryErrorKind::Foreign, self.path, Some(0), reason)
            }
            HeaderProblem::Future(version) => {
                let reason = format!("format version {version} is newer than {}", FORMAT.version);
                RecoveryError::new(RecoveryErrorKind::Future, self.path, Some(0), reason)
            }
            HeaderProblem::Damaged => self.damaged(0, "the snapshot's header is damaged or missing"),
        })
    }

    fn footer(&self, bytes: u64) -> Result<(u64, SnapshotFooter), RecoveryError> {
        let torn = |offset| self.damaged(offset, "the snapshot is torn: its footer is missing or damaged");
        let offset = bytes.checked_sub(FOOTER_BLOCK_BYTES).ok_or_else(|| torn(0))?;
        let mut buffer = Vec::new();
        let frame = self.frame(offset, bytes, &mut buffer).map_err(|_| torn(offset))?;
        if frame.kind != Kind::Footer {
            return Err(torn(offset));
        }
        SnapshotFooter::decode(frame.payload).map(|footer| (offset, footer)).map_err(|_| torn(offset))
    }

    fn head(&self, offset: u64, end: u64) -> Result<Head, RecoveryError> {
        if offset + HEAD_BYTES as u64 > end {
            return Err(self.damaged(offset, "a frame is damaged: it has no room"));
        }
        let mut bytes = [0; HEAD_BYTES];
        self.read_exact(&mut bytes, offset)?;
        let head = Head::decode(&bytes);
        let fits = offset + framed_bytes(head.payload_bytes) as u64 <= end;
        if head.payload_bytes > SNAPSHOT_FRAME_BYTES_MAX || !fits {
            return Err(self.damaged(offset, "a frame is damaged: its length cannot be"));
        }
        Ok(head)
    }

    /// Reads and checks the frame at `offset`.
    fn frame<'buffer>(
        &self,
        offset: u64,
        end: u64,
        buffer: &'buffer mut Vec<u8>,
    ) -> Result<Frame<'buffer>, RecoveryError> {
        let head = self.head(offset, end)?;
        buffer.resize(framed_bytes(head.payload_bytes), 0);
        self.read_exact(buffer, offset)?;
        if !head.agrees_with(buffer) {
            return Err(self.damaged(offset, "a frame is damaged: its checksum does not agree"));
        }
        let payload = &buffer[HEAD_BYTES..HEAD_BYTES + head.payload_bytes];
        Ok(Frame { kind: head.kind, items: head.items, number: head.number, offset, payload })
    }
}
