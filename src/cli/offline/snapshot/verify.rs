//! `tandem snapshot verify`: whether snapshots are whole.

use clap::Args;

use super::{
    super::{Done, progress::shown, source::Source, verdict::Verdict},
    SnapshotJson,
};
use crate::{disk::RealFileSystem, engine::offline::verify_snapshot};

/// Which snapshots.
#[derive(Args, Debug)]
pub struct Verify {
    #[command(flatten)]
    source: Source,
    /// One JSON document for each.
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub fn run(self) -> Done {
        let mut verdict = Verdict::new(self.json);
        let found = self.source.snapshots()?;
        for path in &found.files {
            match shown(|progress| verify_snapshot(&RealFileSystem, path, progress)) {
                Ok(summary) if verdict.is_json() => verdict.output.json(&SnapshotJson::of(&summary))?,
                Ok(summary) => verdict.output.line(format_args!(
                    "{}: whole, {} keys at revision {}, state hash {}",
                    path.display(),
                    summary.entries,
                    summary.revision,
                    summary.state_hash
                ))?,
                Err(error) => verdict.bad(&error)?,
            }
        }
        verdict.end()
    }
}
