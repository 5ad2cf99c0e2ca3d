//! Bytes on disk: the file-system seam, frames, segments, the write-ahead log and the decisions of recovery. Knows neither
//! stores nor commands; a record is bytes with an index.

pub mod file_system;
pub mod frame;
mod lock_file;
mod preparer;
mod recovery;
mod segment;
pub mod simulated;
mod wal;

pub use self::{
    file_system::{File, FileSystem, RealFileSystem},
    recovery::{Recovery, RecoveryError, RecoveryErrorKind, Replayed, Tear, open},
    wal::{Syncer, Wal, WalError, WalOptions, Written},
};

#[cfg(test)]
mod tests;
