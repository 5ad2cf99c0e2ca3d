//! `tandem wal cat`: the records of the log.

use clap::Args;

use super::super::{
    Done,
    columns::Columns,
    record,
    schema::{LOG_RECORD, Line},
    source::Source,
    time_text_ms,
};
use crate::{
    cli::client::{
        failure::say,
        output::{Format, Output},
    },
    disk::{Progress, RealFileSystem},
    engine::offline::{LogReader, LoggedRecord},
};

/// Which records.
#[derive(Args, Debug)]
pub struct Cat {
    #[command(flatten)]
    source: Source,
    /// From this revision on.
    #[arg(long, value_name = "REVISION")]
    from: Option<u64>,
    /// Up to this revision.
    #[arg(long, value_name = "REVISION")]
    to: Option<u64>,
    /// One LogRecord a line, as ProtoJSON.
    #[arg(long)]
    json: bool,
}

impl Cat {
    pub fn run(self) -> Done {
        let found = self.source.segments()?;
        let mut log = LogReader::knowing(&RealFileSystem, &found.snapshots);
        let mut printed = Printed {
            output: Output::new(if self.json { Format::Json } else { Format::Text }),
            columns: Columns::new([" REVISION", " INDEX", "TIME", "COMMAND", "WHAT"]),
            unknown: 0,
        };
        for path in &found.files {
            let mut done = Ok(());
            let read = log.read(&RealFileSystem, path, &Progress::default(), |record| {
                // After a failed write there is nobody to print to.
                if done.is_ok() && self.wants(&record, &mut printed.unknown) {
                    done = printed.record(&record);
                }
            });
            done?;
            printed.output.flush()?;
            if let Some(tear) = read?.tear {
                say(format_args!(
                    "{} at offset {}: a torn tail, which the next start cuts off",
                    tear.file.display(),
                    tear.offset
                ));
            }
        }
        if printed.unknown > 0 {
            say(format_args!(
                "{} records were left out, whose revisions nothing here tells: name the segments before them too",
                printed.unknown
            ));
        }
        Ok(())
    }

    fn wants(&self, record: &LoggedRecord<'_>, unknown: &mut u64) -> bool {
        if self.from.is_none() && self.to.is_none() {
            return true;
        }
        *unknown += u64::from(record.revision.is_none());
        record.revision.is_some_and(|revision| {
            self.from.is_none_or(|from| revision >= from) && self.to.is_none_or(|to| revision <= to)
        })
    }
}

struct Printed {
    output: Output,
    columns: Columns<5>,
    /// Records that were left out because their revision is not known.
    unknown: u64,
}

impl Printed {
    fn record(&mut self, logged: &LoggedRecord<'_>) -> Done {
        if self.output.format() == Format::Json {
            return self.output.json(&Line::stored(LOG_RECORD, logged.payload)?);
        }
        let record = &logged.record;
        let command = record.command.as_ref();
        let mut what = command.map(record::describe).unwrap_or_default();
        if !record.request_id.is_empty() {
            what = format!("{what}, id {}", record.request_id.escape_debug());
        }
        let row = [
            logged.revision.map_or_else(|| "?".to_owned(), |revision| revision.to_string()),
            record.index.to_string(),
            time_text_ms(record.time_ms),
            command.map_or("?", record::name).to_owned(),
            what,
        ];
        self.columns.lines(&[row]).iter().try_for_each(|line| self.output.line(line))
    }
}
