//! `tandem snapshot ls`: what each snapshot says of itself.

use clap::Args;
use indicatif::{HumanBytes, HumanCount};

use super::{
    super::{Done, columns::Columns, source::Source, time_text_ms, verdict::Verdict},
    SnapshotJson,
};
use crate::{disk::RealFileSystem, engine::offline::SnapshotSummary};

/// Which snapshots.
#[derive(Args, Debug)]
pub struct List {
    #[command(flatten)]
    source: Source,
    /// One JSON document for each.
    #[arg(long)]
    json: bool,
}

impl List {
    pub fn run(self) -> Done {
        let mut verdict = Verdict::new(self.json);
        let found = self.source.snapshots()?;
        let (mut whole, mut bad) = (Vec::new(), Vec::new());
        for path in &found.files {
            match SnapshotSummary::read(&RealFileSystem, path) {
                Ok(summary) => whole.push(summary),
                Err(error) => bad.push(error),
            }
        }
        if verdict.is_json() {
            whole.iter().try_for_each(|summary| verdict.output.json(&SnapshotJson::of(summary)))?;
        } else {
            let rows: Vec<_> = whole.iter().map(row).collect();
            let mut columns = Columns::new([" INDEX", " REVISION", "TIME", " KEYS", " SIZE", "STATE HASH", "SNAPSHOT"]);
            columns.lines(&rows).iter().try_for_each(|line| verdict.output.line(line))?;
        }
        bad.iter().try_for_each(|error| verdict.bad(error))?;
        verdict.end()
    }
}

fn row(summary: &SnapshotSummary) -> [String; 7] {
    [
        summary.index.to_string(),
        summary.revision.to_string(),
        time_text_ms(summary.time_ms),
        HumanCount(summary.entries).to_string(),
        HumanBytes(summary.bytes).to_string(),
        summary.state_hash.clone(),
        summary.path.display().to_string(),
    ]
}
