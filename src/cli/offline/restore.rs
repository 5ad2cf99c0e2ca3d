//! `tandem restore`: a data directory out of a backup.

use std::{path::PathBuf, sync::Arc};

use clap::Args;
use indicatif::HumanCount;

use super::{Done, progress::shown, time_text_ms};
use crate::{
    cli::client::{
        arguments::time,
        failure::{Failure, say},
    },
    disk::{FileSystem, Progress, RealFileSystem, RecoveryError},
    engine::offline::{DirectorySummary, RestoreSummary, Until, restore, verify_directory},
    model::ms_from_timestamp,
};

/// What to restore, where to, and up to where.
#[derive(Args, Debug)]
pub struct Restore {
    /// The backup: what `tandem backup` wrote, or a snapshot.
    #[arg(value_name = "FILE")]
    backup: PathBuf,
    /// Where the new store goes: a directory that is empty or not there.
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: PathBuf,
    /// A folder with segments of the backup's log, archived or a stopped server's: what they hold is applied too.
    #[arg(long, value_name = "DIRECTORY")]
    wal: Option<PathBuf>,
    /// End with the last write at or before this revision.
    #[arg(long, value_name = "REVISION", requires = "wal", conflicts_with = "to_time")]
    to_revision: Option<u64>,
    /// End with the last write at or before this time, such as 2026-11-25T08:59:59Z.
    #[arg(long, value_name = "TIME", requires = "wal", value_parser = time)]
    to_time: Option<prost_types::Timestamp>,
}

impl Restore {
    pub fn run(self) -> Done {
        let until = self.until()?;
        let (restored, read) = shown(|progress| self.restore(until, progress)).map_err(refused)?;
        if let Some(tear) = &restored.tear {
            say(format_args!(
                "{} at offset {}: a torn tail of {} bytes was left out; no acknowledged write is in it",
                tear.file.display(),
                tear.offset,
                tear.bytes_cut
            ));
        }
        let directory = self.data_dir.display();
        say(format_args!(
            "restored {} keys as of revision {}, {} ({} records behind the backup); new revisions lie above {}",
            HumanCount(restored.keys),
            restored.restored_revision,
            time_text_ms(restored.restored_time_ms),
            HumanCount(restored.records),
            restored.next_revision,
        ));
        say(format_args!(
            "{directory} was read back and is whole, state hash {:032x}; start a server with: tandem --data-dir {directory}",
            read.state_hash
        ));
        Ok(())
    }

    fn until(&self) -> Result<Until, Failure> {
        Ok(match (self.to_revision, &self.to_time) {
            (Some(revision), _) => Until::Revision(revision),
            (None, Some(time)) => {
                let time_ms = ms_from_timestamp(time);
                Until::TimeMs(time_ms.ok_or_else(|| Failure::usage("--to-time lies before 1970"))?)
            }
            (None, None) => Until::End,
        })
    }

    /// Restores, and reads back what was made.
    fn restore(&self, until: Until, progress: &Progress) -> Result<(RestoreSummary, DirectorySummary), RecoveryError> {
        let file_system: Arc<dyn FileSystem> = Arc::new(RealFileSystem);
        let restored = restore(&file_system, &self.backup, self.wal.as_deref(), until, &self.data_dir, progress)?;
        let read = verify_directory(&*file_system, &self.data_dir, progress)?;
        let nothing = || RecoveryError::io(&self.data_dir, "what was restored is not there");
        Ok((restored, read.ok_or_else(nothing)?))
    }
}

/// A backup, a log or a directory that cannot be taken.
fn refused(error: RecoveryError) -> Failure {
    Failure::refused(error.to_string())
}
