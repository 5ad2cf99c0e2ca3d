//! `tandem wal verify`: whether the log is whole.

use clap::Args;
use serde::Serialize;

use super::super::{
    Done,
    progress::shown,
    running,
    source::{Found, Source, SourceOrServer},
    verdict::Verdict,
};
use crate::{
    cli::client::failure::Failure,
    disk::{RealFileSystem, SegmentSummary, Tear},
    engine::offline::{DirectorySummary, LogReader, verify_directory},
};

/// What to check.
#[derive(Args, Debug)]
pub struct Verify {
    #[command(flatten)]
    source: SourceOrServer,
    /// Apply the log to the newest snapshot as well, in memory, as a start would.
    #[arg(long, requires = "data_dir", conflicts_with = "endpoint")]
    replay: bool,
    /// One JSON document for each file.
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
        let source = self.source.source();
        let found = source.segments()?;
        let mut log = LogReader::default();
        let mut before: Option<SegmentSummary> = None;
        for path in &found.files {
            let read = shown(|progress| log.read(&RealFileSystem, path, progress, |_| {}));
            // Behind a bad one nothing is known of the order.
            let checked = read.and_then(|segment| {
                before.take().map_or(Ok(()), |before| segment.check_follows(&before)).map(|()| segment)
            });
            match checked {
                Ok(segment) => {
                    good(&mut verdict, &segment)?;
                    before = Some(segment);
                }
                Err(error) => verdict.bad(&error)?,
            }
        }
        if let Some(Err(error)) = found.held.as_ref().map(|held| held.check_reach(before.as_ref())) {
            verdict.bad(&error)?;
        }
        if self.replay {
            replay(&source, found, &mut verdict)?;
        }
        verdict.end()
    }
}

fn replay(source: &Source, found: Found, verdict: &mut Verdict) -> Done {
    let Some(directory) = source.data_dir() else {
        return Err(Failure::usage("--replay needs --data-dir"));
    };
    // It takes the lock itself.
    drop(found);
    match shown(|progress| verify_directory(&RealFileSystem, directory, progress)) {
        Ok(Some(summary)) => replayed(verdict, &summary),
        Ok(None) => verdict.output.line("there is no store yet"),
        Err(error) => verdict.bad(&error),
    }
}

/// A whole segment, as JSON.
#[derive(Debug, Serialize)]
struct SegmentJson {
    file: String,
    ok: bool,
    sequence: u32,
    first_index: u64,
    records: u64,
    synced_index: u64,
    closed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    torn_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    torn_bytes: Option<u64>,
}

/// What a start would come to, as JSON.
#[derive(Debug, Serialize)]
struct ReplayedJson {
    ok: bool,
    keys: u64,
    revision: u64,
    state_hash: String,
    records: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot_index: Option<u64>,
}

fn good(verdict: &mut Verdict, segment: &SegmentSummary) -> Done {
    let file = segment.path.display().to_string();
    if verdict.is_json() {
        return verdict.output.json(&SegmentJson {
            file,
            ok: true,
            sequence: segment.sequence,
            first_index: segment.first_index,
            records: segment.records,
            synced_index: segment.synced_index,
            closed: segment.closed,
            torn_at: segment.tear.as_ref().map(|tear| tear.offset),
            torn_bytes: segment.tear.as_ref().map(|tear| tear.bytes_cut),
        });
    }
    let end = match &segment.tear {
        Some(Tear { offset, bytes_cut, .. }) => {
            format!("; a torn tail of {bytes_cut} bytes at offset {offset}, which the next start cuts off")
        }
        None => String::new(),
    };
    verdict
        .output
        .line(format_args!("{file}: whole, {} records from index {}{end}", segment.records, segment.first_index))
}

fn replayed(verdict: &mut Verdict, summary: &DirectorySummary) -> Done {
    for damaged in &summary.recovery.damaged {
        verdict.bad(damaged)?;
    }
    let state_hash = format!("{:032x}", summary.state_hash);
    let snapshot_index = summary.recovery.snapshot.map(|used| used.index);
    let records = summary.recovery.records;
    if verdict.is_json() {
        let (keys, revision) = (summary.keys, summary.revision);
        return verdict.output.json(&ReplayedJson { ok: true, keys, revision, state_hash, records, snapshot_index });
    }
    let from = snapshot_index.map_or_else(String::new, |index| format!(" on the snapshot as of index {index}"));
    verdict.output.line(format_args!(
        "a start would come to {} keys at revision {}, by {records} records{from}; state hash {state_hash}",
        summary.keys, summary.revision
    ))
}
