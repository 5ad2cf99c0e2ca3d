//! The commands that look into the files of a stopped server, have a running one look into its own, and make a data directory
//! out of a backup.

mod columns;
mod progress;
mod record;
mod restore;
mod running;
mod schema;
mod snapshot;
mod source;
mod verdict;
mod wal;

use std::process::ExitCode;

use clap::Subcommand;

use super::client::failure::{Failure, Result};
use crate::{
    api::rest::time_text,
    disk::{RecoveryError, RecoveryErrorKind},
    model::timestamp_from_ms,
};

/// What can be done without a server.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Look into the write-ahead log of a stopped server, or into segments anywhere.
    #[command(subcommand)]
    Wal(wal::Command),
    /// Look into snapshots and backups.
    #[command(subcommand)]
    Snapshot(snapshot::Command),
    /// Make a data directory out of a backup, up to a point in time where its log is given.
    #[command(after_help = "\
The new store is one of its own: its revisions lie 2^40 above all that the old one gave, so that no ETag and no watcher \
takes new data for old. Watch history begins anew. The backup is checked before anything is made, and what was made is \
read back. A restore that was cut short leaves a directory that no server and no restore takes: remove it and restore again.

Examples:
  tandem restore backup.snap --data-dir data               as the backup has it
  tandem restore backup.snap --data-dir data --wal old/wal     and everything that was logged since
  tandem restore backup.snap --data-dir data --wal old/wal --to-revision 120345
  tandem restore backup.snap --data-dir data --wal old/wal --to-time 2026-11-25T08:59:59Z")]
    Restore(restore::Restore),
}

impl Command {
    /// Carries the command out.
    pub fn run(self) -> ExitCode {
        let done = match self {
            Self::Wal(command) => command.run(),
            Self::Snapshot(command) => command.run(),
            Self::Restore(restore) => restore.run(),
        };
        done.map_or_else(Failure::report, |()| ExitCode::SUCCESS)
    }
}

/// Whether files are not what they were, rather than not for this program to read.
fn is_damage(error: &RecoveryError) -> bool {
    match error.kind {
        RecoveryErrorKind::Damaged | RecoveryErrorKind::Gap => true,
        RecoveryErrorKind::Foreign | RecoveryErrorKind::Future | RecoveryErrorKind::Locked | RecoveryErrorKind::Io => {
            false
        }
    }
}

impl From<RecoveryError> for Failure {
    fn from(error: RecoveryError) -> Self {
        if is_damage(&error) { Self::condition(error.to_string()) } else { Self::refused(error.to_string()) }
    }
}

/// Whether a command is done.
type Done = Result<()>;

/// A time of a record or a state.
fn time_text_ms(time_ms: u64) -> String {
    time_text(&timestamp_from_ms(time_ms)).unwrap_or_else(|| format!("{time_ms} ms"))
}
