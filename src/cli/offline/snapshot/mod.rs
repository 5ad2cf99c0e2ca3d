//! `tandem snapshot`: what snapshots and backups hold, and whether they are whole.

mod cat;
mod list;
mod verify;

use clap::Subcommand;
use serde::Serialize;

use super::{Done, time_text_ms};
use crate::engine::offline::SnapshotSummary;

/// What can be asked of snapshots.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print what each snapshot says of itself: index, revision, time, keys, state hash.
    #[command(
        name = "ls",
        after_help = "Examples:
  tandem snapshot ls --data-dir data
  tandem snapshot ls backup.snap --json"
    )]
    List(list::List),
    /// Print the entries of a snapshot, or what else it holds.
    #[command(after_help = "\
Of a data directory the newest snapshot. With --json each line is a message of the schema as ProtoJSON, as any protobuf \
library reads it: a tandem.v1.Entry, a tandem.storage.v1.RememberedAnswer or a tandem.v1.Event. Entries come in no \
particular order. Exit code 1 on damage, behind what was whole.

Examples:
  tandem snapshot cat backup.snap
  tandem snapshot cat --data-dir data --json | jq -r '.key | @base64d'
  tandem snapshot cat backup.snap --part history      the events that can be watched again")]
    Cat(cat::Cat),
    /// Check that snapshots are whole: every checksum, every count, the hash of the state.
    #[command(after_help = "\
A snapshot is loaded as a start would load it, so it takes as much memory. Exit code 1 on damage, with the file, the offset \
and what to do. A running server reads its snapshots and its log in one go, at the rate at which it writes snapshots and in \
little memory, and tells of both.

Examples:
  tandem snapshot verify backup.snap
  tandem snapshot verify --endpoint http://127.0.0.1:16702      a running server
  tandem snapshot verify --data-dir data --json")]
    Verify(verify::Verify),
}

impl Command {
    /// Carries the command out.
    pub fn run(self) -> Done {
        match self {
            Self::List(list) => list.run(),
            Self::Cat(cat) => cat.run(),
            Self::Verify(verify) => verify.run(),
        }
    }
}

/// What a snapshot says of itself, as JSON: by the names of the schema's Snapshot.
#[derive(Debug, Serialize)]
struct SnapshotJson<'summary> {
    file: String,
    ok: bool,
    bytes: u64,
    index: u64,
    revision: u64,
    time: String,
    keys: u64,
    answers: u64,
    events: u64,
    state_hash: &'summary str,
    program_version: &'summary str,
}

impl<'summary> SnapshotJson<'summary> {
    fn of(summary: &'summary SnapshotSummary) -> Self {
        Self {
            file: summary.path.display().to_string(),
            ok: true,
            bytes: summary.bytes,
            index: summary.index,
            revision: summary.revision,
            time: time_text_ms(summary.time_ms),
            keys: summary.entries,
            answers: summary.answers,
            events: summary.events,
            state_hash: &summary.state_hash,
            program_version: &summary.program_version,
        }
    }
}
