//! `tandem snapshot cat`: what a snapshot holds.

use clap::{Args, ValueEnum};
use prost::Message;

use super::super::{
    Done,
    columns::Columns,
    record,
    schema::{ANSWER, ENTRY, EVENT, Line},
    source::Source,
    time_text_ms,
};
use crate::{
    api::rest::ScanItem,
    cli::client::{
        failure::{Failure, Result, say},
        output::{Format, Output},
    },
    disk::RealFileSystem,
    engine::offline::{Part, read_parts},
};

/// A part of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Wanted {
    /// The entries.
    Entries,
    /// Remembered answers to request ids.
    Answers,
    /// Events that can be watched again.
    History,
}

/// What to print.
#[derive(Args, Debug)]
pub struct Cat {
    #[command(flatten)]
    source: Source,
    /// What of it.
    #[arg(long, value_enum, value_name = "PART", default_value = "entries")]
    part: Wanted,
    /// One message of the schema a line, as ProtoJSON.
    #[arg(long)]
    json: bool,
}

impl Cat {
    pub fn run(self) -> Done {
        let found = self.source.snapshots()?;
        // Of a data directory only the newest.
        let first = if found.held.is_some() { found.files.len().saturating_sub(1) } else { 0 };
        if found.files.is_empty() {
            say("there is no snapshot yet");
        }
        let mut output = Output::new(if self.json { Format::Json } else { Format::Text });
        let mut answers = Columns::new([" REVISION", "TIME", "WHAT", "REQUEST ID"]);
        let mut events = Columns::new([" REVISION", "KIND", "WHAT"]);
        for path in &found.files[first..] {
            let read = read_parts(&RealFileSystem, path, |part| match part {
                Part::Entries(entries) if self.part == Wanted::Entries => match self.json {
                    true => lines(&mut output, ENTRY, &entries),
                    false => output.items(&entries.iter().map(ScanItem::Entry).collect::<Vec<_>>(), true),
                },
                Part::Answers(given) if self.part == Wanted::Answers => match self.json {
                    true => lines(&mut output, ANSWER, &given),
                    false => rows(&mut output, &mut answers, &given.iter().map(answer_row).collect::<Vec<_>>()),
                },
                Part::History(happened) if self.part == Wanted::History => match self.json {
                    true => lines(&mut output, EVENT, &happened),
                    false => rows(&mut output, &mut events, &happened.iter().map(record::event).collect::<Vec<_>>()),
                },
                Part::Entries(_) | Part::Answers(_) | Part::History(_) => Ok::<_, Failure>(()),
            });
            output.flush()?;
            read?;
        }
        Ok(())
    }
}

fn lines(output: &mut Output, name: &str, messages: &[impl Message]) -> Result<()> {
    messages.iter().try_for_each(|message| output.json(&Line::of(name, message)?))
}

fn rows<const N: usize>(output: &mut Output, columns: &mut Columns<N>, rows: &[[String; N]]) -> Result<()> {
    columns.lines(rows).iter().try_for_each(|line| output.line(line))
}

fn answer_row(answer: &crate::pb::storage::RememberedAnswer) -> [String; 4] {
    [
        answer.revision.to_string(),
        time_text_ms(answer.answered_ms),
        record::effect(answer),
        answer.request_id.escape_debug().to_string(),
    ]
}
