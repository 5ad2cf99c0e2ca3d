//! Bytes on disk: the file-system seam, frames, segments, the write-ahead log, snapshots and the decisions of recovery. Knows neither
//! stores nor commands; a record is bytes with an index.

pub mod file_system;
pub mod frame;
mod header;
mod lock_file;
mod preparer;
mod progress;
mod recovery;
mod removal;
mod restored;
mod segment;
pub mod simulated;
pub mod snapshot;
mod wal;
mod whole_file;

pub use self::{
    file_system::{File, FileSystem, RealFileSystem, Space},
    header::StoreId,
    progress::{Phase, Progress, Step},
    recovery::{
        DataDirectory, Recovering, Recovery, RecoveryError, RecoveryErrorKind, Refused, Replayed, SegmentCheck,
        SegmentSummary, SnapshotUsed, Tear, check, check_running, in_log_order, is_gone, open, read_log, read_segment,
    },
    removal::{Removal, Removed},
    restored::{FirstRecord, RESTORING, begin_restoring, create_log, end_restoring},
    wal::{Syncer, Wal, WalError, WalOptions, Written},
    whole_file::WholeFile,
};

#[cfg(test)]
mod tests;
