//! Records of the log as they lie in segments, with the revisions they gave.

use std::{collections::BTreeMap, path::Path};

use crate::{
    disk::{self, FileSystem, Progress, RecoveryError, Replayed, SegmentSummary, frame::Kind, snapshot::Reader},
    engine::restoring::read_record,
    pb::storage::{LogRecord, log_record::Command},
};

/// A record in a segment.
#[derive(Debug)]
pub struct LoggedRecord<'bytes> {
    /// Where its frame begins in the file.
    pub offset: u64,
    /// Bytes of its frame.
    pub frame_bytes: u64,
    /// Its revision; `None` where nothing that was read says which offset held.
    pub revision: Option<u64>,
    /// The record.
    pub record: LogRecord,
    /// The same as it is stored.
    pub payload: &'bytes [u8],
}

/// Reads segments in their order. It knows a revision once it has read the start of the server that gave it, or a snapshot
/// of that time.
#[derive(Debug, Default)]
pub struct LogReader {
    /// Revision = index + offset: a term has one.
    offsets: BTreeMap<u64, u64>,
}

impl LogReader {
    /// A reader that has looked at these snapshots. Those that cannot be read tell nothing.
    pub fn knowing(file_system: &dyn FileSystem, snapshots: &[impl AsRef<Path>]) -> Self {
        let read = snapshots.iter().filter_map(|path| Reader::open(file_system, path.as_ref()).ok());
        let offsets = read.filter_map(|snapshot| Some((snapshot.header().last?.term, snapshot.header().offset)));
        Self { offsets: offsets.collect() }
    }

    /// Reads a segment whole, checks each record, and shows it to `visit`.
    pub fn read(
        &mut self,
        file_system: &dyn FileSystem,
        path: &Path,
        progress: &Progress,
        mut visit: impl FnMut(LoggedRecord<'_>),
    ) -> Result<SegmentSummary, RecoveryError> {
        disk::read_segment(file_system, path, progress, &mut |offset, frame| {
            if frame.head.kind != Kind::Record {
                return Ok(());
            }
            let record = read_record(Replayed { index: frame.head.index, payload: frame.payload })?;
            if let Some(Command::Open(open)) = &record.command {
                self.offsets.insert(open.term, open.offset);
            }
            let revision = self.offsets.get(&record.term).map(|offset| record.index + offset);
            let (frame_bytes, payload) = (frame.length as u64, frame.payload);
            visit(LoggedRecord { offset, frame_bytes, revision, record, payload });
            Ok(())
        })
    }
}
