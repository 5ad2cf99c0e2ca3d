//! `tandem wal stat`: what the log holds, counted.

use std::collections::BTreeMap;

use clap::Args;
use indicatif::{HumanBytes, HumanCount};
use serde::Serialize;

use super::super::{Done, columns::Columns, progress::shown, record, source::Source, time_text_ms, verdict::Verdict};
use crate::{
    disk::{RealFileSystem, SegmentSummary},
    engine::offline::{LogReader, LoggedRecord},
};

/// What to count.
#[derive(Args, Debug)]
pub struct Stat {
    #[command(flatten)]
    source: Source,
    /// One JSON document.
    #[arg(long)]
    json: bool,
}

/// All that was counted.
#[derive(Debug, Default, Serialize)]
struct Counted {
    segments: Vec<SegmentJson>,
    commands: BTreeMap<&'static str, Count>,
    records: u64,
    /// Highest index that a frame knew to be on disk.
    synced_index: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<Place>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<Place>,
}

/// Records of one command, and bytes of their frames.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Count {
    records: u64,
    bytes: u64,
}

/// A record's place.
#[derive(Clone, Debug, Serialize)]
struct Place {
    index: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<u64>,
    term: u64,
    time: String,
}

/// A segment.
#[derive(Debug, Serialize)]
struct SegmentJson {
    file: String,
    store_id: String,
    bytes: u64,
    sequence: u32,
    first_index: u64,
    records: u64,
    frames_end: u64,
    synced_index: u64,
    end: &'static str,
}

impl Stat {
    pub fn run(self) -> Done {
        let mut verdict = Verdict::new(self.json);
        let found = self.source.segments()?;
        let mut log = LogReader::knowing(&RealFileSystem, &found.snapshots);
        let mut counted = Counted::default();
        for path in &found.files {
            let read = shown(|progress| log.read(&RealFileSystem, path, progress, |record| counted.add(&record)));
            match read {
                Ok(segment) => counted.add_segment(&segment),
                Err(error) => verdict.bad(&error)?,
            }
        }
        if verdict.is_json() {
            verdict.output.json(&counted)?;
        } else {
            counted.lines().iter().try_for_each(|line| verdict.output.line(line))?;
        }
        verdict.end()
    }
}

impl Counted {
    fn add(&mut self, logged: &LoggedRecord<'_>) {
        let record = &logged.record;
        let count = self.commands.entry(record.command.as_ref().map_or("?", record::name)).or_default();
        count.records += 1;
        count.bytes += logged.frame_bytes;
        self.records += 1;
        let place = Place {
            index: record.index,
            revision: logged.revision,
            term: record.term,
            time: time_text_ms(record.time_ms),
        };
        self.first.get_or_insert_with(|| place.clone());
        self.last = Some(place);
    }

    fn add_segment(&mut self, segment: &SegmentSummary) {
        self.synced_index = self.synced_index.max(segment.synced_index);
        self.segments.push(SegmentJson {
            file: segment.path.display().to_string(),
            store_id: segment.store_id.iter().map(|byte| format!("{byte:02x}")).collect(),
            bytes: segment.bytes,
            sequence: segment.sequence,
            first_index: segment.first_index,
            records: segment.records,
            frames_end: segment.frames_end,
            synced_index: segment.synced_index,
            end: match (&segment.tear, segment.closed) {
                (Some(_), _) => "torn",
                (None, true) => "closed",
                (None, false) => "open",
            },
        });
    }

    fn lines(&self) -> Vec<String> {
        let segments = self.segments.iter().map(SegmentJson::row).collect::<Vec<_>>();
        let mut lines =
            Columns::new([" SEQUENCE", " FIRST INDEX", " RECORDS", " SYNCED", " WRITTEN", "END", "SEGMENT"])
                .lines(&segments);
        let mut by_bytes: Vec<_> = self.commands.iter().collect();
        by_bytes.sort_by_key(|(name, count)| (std::cmp::Reverse(count.bytes), **name));
        let bytes: u64 = by_bytes.iter().map(|(_, count)| count.bytes).sum();
        let row = |name: &str, count: Count| {
            let share = (count.bytes * 100).checked_div(bytes).unwrap_or(0);
            [
                name.to_owned(),
                HumanCount(count.records).to_string(),
                HumanBytes(count.bytes).to_string(),
                format!("{share}%"),
            ]
        };
        let mut rows: Vec<_> = by_bytes.into_iter().map(|(name, count)| row(name, *count)).collect();
        rows.push(row("all", Count { records: self.records, bytes }));
        lines.push(String::new());
        lines.extend(Columns::new(["COMMAND", " RECORDS", " BYTES", " SHARE"]).lines(&rows));
        if let (Some(first), Some(last)) = (&self.first, &self.last) {
            lines.push(String::new());
            lines.push(format!("from {}", first.text()));
            lines.push(format!("to   {}", last.text()));
            lines.push(format!("on disk for sure up to index {}", self.synced_index));
        }
        lines
    }
}

impl SegmentJson {
    fn row(&self) -> [String; 7] {
        [
            self.sequence.to_string(),
            self.first_index.to_string(),
            HumanCount(self.records).to_string(),
            self.synced_index.to_string(),
            format!("{} of {}", HumanBytes(self.frames_end), HumanBytes(self.bytes)),
            self.end.to_owned(),
            self.file.clone(),
        ]
    }
}

impl Place {
    fn text(&self) -> String {
        let revision = self.revision.map_or_else(|| "unknown".to_owned(), |revision| revision.to_string());
        format!("{}, index {}, revision {revision}, term {}", self.time, self.index, self.term)
    }
}
