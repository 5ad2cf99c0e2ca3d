//! `tandem snapshot verify`: whether snapshots are whole.

use clap::Args;

use super::{
    super::{Done, progress::shown, running, source::SourceOrServer, verdict::Verdict},
    SnapshotJson,
};
use crate::{disk::RealFileSystem, engine::offline::verify_snapshot};

/// Which snapshots.
#[derive(Args, Debug)]
pub struct Verify {
    #[command(flatten)]
    source: SourceOrServer,
    /// One JSON document for each.
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub fn run(self) -> Done {
        let mut verdict = Verdict::new(self.json);
        if let Some(server) = self.source.server() {
            running::verify(&server, &mut verdict)?;
            return verdict.end();
        }
        let found = self.source.source().snapshots()?;
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
