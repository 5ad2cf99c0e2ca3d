//! `tandem wal`: what the write-ahead log holds, and whether it is whole.

mod cat;
mod stat;
mod verify;

use clap::Subcommand;

use super::Done;

/// What can be asked of the log.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the records of the log, one a line.
    #[command(after_help = "\
With --json each line is a tandem.storage.v1.LogRecord of the schema as ProtoJSON, as any protobuf library reads it: bytes \
as base64, 64-bit numbers as strings, times in milliseconds since 1970. Exit code 1 on damage, behind what was whole.

Examples:
  tandem wal cat --data-dir data
  tandem wal cat --data-dir data --from 1200 --to 1250    a part, by revisions
  tandem wal cat --json archive/*.wal | jq -c 'select(.put) | [.index, (.put.key | @base64d)]'")]
    Cat(cat::Cat),
    /// Check that the log is whole: every checksum, every record, none missing, none there twice.
    #[command(after_help = "\
Exit code 1 on damage or where something is missing, with the file, the offset and what to do. The torn tail that a crash \
leaves is told and is no damage: the next start cuts it off, and no acknowledged write is in it. A running server reads its \
snapshots and its log in one go, at the rate at which it writes snapshots, and tells of both.

Examples:
  tandem wal verify --data-dir data
  tandem wal verify --endpoint http://127.0.0.1:16702      a running server
  tandem wal verify --data-dir data --replay      what a start would come to, and its state hash
  tandem wal verify archive/*.wal --json")]
    Verify(verify::Verify),
    /// Count what the log holds: segments, records and bytes by command, revisions and times.
    #[command(after_help = "Examples:
  tandem wal stat --data-dir data
  tandem wal stat archive/*.wal --json | jq .commands")]
    Stat(stat::Stat),
}

impl Command {
    /// Carries the command out.
    pub fn run(self) -> Done {
        match self {
            Self::Cat(cat) => cat.run(),
            Self::Verify(verify) => verify.run(),
            Self::Stat(stat) => stat.run(),
        }
    }
}
