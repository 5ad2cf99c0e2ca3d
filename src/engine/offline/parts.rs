//! What a snapshot holds, frame by frame, without a store to load it into.

use std::path::Path;

use prost::Message;

use super::SnapshotSummary;
use crate::{
    disk::{
        FileSystem, RecoveryError,
        snapshot::{Frame, Kind, Reader},
    },
    pb::{
        self,
        storage::{RememberedAnswer, SnapshotAnswers, SnapshotEntries, SnapshotHistory},
    },
};

/// What a frame of a snapshot holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// Entries, in no particular order.
    Entries(Vec<pb::Entry>),
    /// Remembered answers, in the order in which they were given.
    Answers(Vec<RememberedAnswer>),
    /// Events of the watch history, in the order in which they happened.
    History(Vec<pb::Event>),
}

/// Reads a snapshot frame by frame, checks each and at the end their counts, and shows them to `visit`. The hash of the
/// state is not looked at: that takes a state.
pub fn read_parts<E: From<RecoveryError>>(
    file_system: &dyn FileSystem,
    path: &Path,
    mut visit: impl FnMut(Part) -> Result<(), E>,
) -> Result<SnapshotSummary, E> {
    let snapshot = Reader::open(file_system, path)?;
    let frames = snapshot.frames();
    let mut buffer = Vec::new();
    while let Some(frame) = frames.next(&mut buffer)? {
        let part = part_of(&frame).ok_or_else(|| snapshot.damaged(frame.offset, "a frame does not hold what it says"));
        visit(part?)?;
    }
    frames.finish()?;
    Ok(SnapshotSummary::of(&snapshot))
}

fn part_of(frame: &Frame<'_>) -> Option<Part> {
    let (part, items) = match frame.kind {
        Kind::Entries => {
            let entries = SnapshotEntries::decode(frame.payload).ok()?.entries;
            let items = entries.len();
            (Part::Entries(entries), items)
        }
        Kind::Answers => {
            let answers = SnapshotAnswers::decode(frame.payload).ok()?.answers;
            let items = answers.len();
            (Part::Answers(answers), items)
        }
        Kind::History => {
            let events = SnapshotHistory::decode(frame.payload).ok()?.events;
            let items = events.len();
            (Part::History(events), items)
        }
        // Refused where frames are read.
        Kind::Header | Kind::Footer | Kind::Reserved(_) => return None,
    };
    (items == frame.items as usize).then_some(part)
}
