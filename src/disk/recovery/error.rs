//! A refused start: what is wrong, where, and what to do.

use std::{
    fmt,
    path::{Path, PathBuf},
};

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
#[derive(Clone, Debug, PartialEq, Eq)]
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

    /// A refusal, with the remedy of its kind.
    pub fn new(kind: RecoveryErrorKind, file: &Path, offset: Option<u64>, reason: String) -> Self {
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
