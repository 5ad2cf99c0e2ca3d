//! Writes a captured state into a snapshot, at a limited rate: walks the view shard by shard and takes what writes hand
//! over meanwhile.

use std::{io, time::Duration, time::Instant};

use prost::Message as _;

use super::{
    answers,
    capture::{Captured, header},
    history::Kept,
};
use crate::{
    disk::snapshot::{Draft, Kind, Writer},
    engine::state_hash::StateHash,
    limits::SNAPSHOT_FRAME_BYTES,
    model::{EntryRef, ValueRef, wire},
    pb,
    store::Overrun,
};

/// How long the writer rests at once when it is ahead of its rate.
const REST: Duration = Duration::from_millis(1);

/// Why a snapshot was not written.
#[derive(Debug)]
pub enum WriteError {
    /// Writes overtook the walk faster than it could write: it may work faster.
    Overrun,
    /// The server stops.
    Stopped,
    /// The disk refused.
    Io(io::Error),
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Overrun> for WriteError {
    fn from(Overrun: Overrun) -> Self {
        Self::Overrun
    }
}

/// How fast a snapshot is written, and whether it goes on.
#[derive(Clone, Copy, Debug)]
pub struct Pace<'stop> {
    /// Bytes a second; `None`: as fast as it goes.
    pub bytes_per_second: Option<u64>,
    /// Asked now and then.
    pub stopped: &'stop dyn Stop,
}

/// Says whether a long piece of work is to be broken off.
pub trait Stop: std::fmt::Debug + Sync {
    /// It is.
    fn stopped(&self) -> bool;
}

/// Writes everything but the footer. Gives the hash of the state.
pub fn write(captured: &Captured, history: &Kept, writer: &mut Writer, pace: Pace<'_>) -> Result<u128, WriteError> {
    let mut writing = Writing { writer, hash: StateHash::default(), entries: Draft::default(), count: 0 };
    let mut draft = Draft::default();
    draft.payload().extend(header(&captured.marks, history.after_revision).encode_to_vec());
    writing.writer.frame(Kind::Header, 1, &mut draft)?;
    let started = Instant::now();
    writing.walk(captured, pace, started)?;
    writing.answers(captured, pace, started)?;
    writing.history(history, pace, started)?;
    writing.hash.rest(&captured.marks);
    Ok(writing.hash.sum())
}

struct Writing<'writer> {
    writer: &'writer mut Writer,
    hash: StateHash,
    /// The frame of entries that is being filled.
    entries: Draft,
    count: u32,
}

impl Writing<'_> {
    fn walk(&mut self, captured: &Captured, pace: Pace<'_>, started: Instant) -> Result<(), WriteError> {
        let store = &captured.store;
        // Values that are shared with the store are encoded when its lock is let go.
        let mut shared: Vec<pb::Entry> = Vec::new();
        for shard in 0..store.view_shards() {
            let mut more = true;
            while more {
                self.take_overtaken(captured)?;
                if pace.rests(self.writer.bytes(), started)? {
                    continue;
                }
                more = store.walk_view(&captured.view, shard, |entry| match entry.value {
                    ValueRef::Inline(_) => self.add(&entry),
                    ValueRef::Shared(_) => shared.push(entry.to_pb(true)),
                });
                self.flush_if_full()?;
                for entry in shared.drain(..) {
                    self.add(&EntryRef::of_pb(&entry));
                    self.flush_if_full()?;
                }
            }
        }
        self.take_overtaken(captured)?;
        self.flush()?;
        Ok(())
    }

    fn take_overtaken(&mut self, captured: &Captured) -> Result<(), WriteError> {
        if captured.view.has_overtaken() {
            for entry in captured.view.take_overtaken()?.into_iter().flatten() {
                self.add(&EntryRef::of_pb(&entry));
                self.flush_if_full()?;
            }
        }
        Ok(())
    }

    fn answers(&mut self, captured: &Captured, pace: Pace<'_>, started: Instant) -> Result<(), WriteError> {
        let mut list = List::default();
        for (id, answered_ms, remembered) in captured.answers.iter() {
            self.hash.answer(id, answered_ms, remembered);
            list.push(&answers::to_pb(id, answered_ms, remembered));
            list.flush_if_full(Kind::Answers, self.writer, pace, started)?;
        }
        list.flush(Kind::Answers, self.writer)?;
        Ok(())
    }

    fn history(&mut self, history: &Kept, pace: Pace<'_>, started: Instant) -> Result<(), WriteError> {
        let mut list = List::default();
        for record in &history.records {
            for change in record.list() {
                list.push(&change.to_event(record.revision(), true));
                list.flush_if_full(Kind::History, self.writer, pace, started)?;
            }
        }
        list.flush(Kind::History, self.writer)?;
        Ok(())
    }

    fn add(&mut self, entry: &EntryRef<'_>) {
        self.hash.entry(entry);
        wire::append_to_list(entry, self.entries.payload());
        self.count += 1;
    }

    fn flush_if_full(&mut self) -> io::Result<()> {
        if self.entries.payload_bytes() >= SNAPSHOT_FRAME_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        match std::mem::take(&mut self.count) {
            0 => Ok(()),
            count => self.writer.frame(Kind::Entries, count, &mut self.entries),
        }
    }
}

/// A frame that is one list of messages, field 1.
#[derive(Default)]
struct List {
    draft: Draft,
    count: u32,
}

impl List {
    fn push(&mut self, message: &impl prost::Message) {
        prost::encoding::message::encode(1, message, self.draft.payload());
        self.count += 1;
    }

    fn flush_if_full(
        &mut self,
        kind: Kind,
        writer: &mut Writer,
        pace: Pace<'_>,
        started: Instant,
    ) -> Result<(), WriteError> {
        if self.draft.payload_bytes() >= SNAPSHOT_FRAME_BYTES {
            self.flush(kind, writer)?;
            while pace.rests(writer.bytes(), started)? {}
        }
        Ok(())
    }

    fn flush(&mut self, kind: Kind, writer: &mut Writer) -> io::Result<()> {
        match std::mem::take(&mut self.count) {
            0 => Ok(()),
            count => writer.frame(kind, count, &mut self.draft),
        }
    }
}

impl Pace<'_> {
    /// Rests a moment if `bytes` since `started` are more than the rate allows. False: there is no need.
    fn rests(&self, bytes: u64, started: Instant) -> Result<bool, WriteError> {
        if self.stopped.stopped() {
            return Err(WriteError::Stopped);
        }
        let Some(rate) = self.bytes_per_second else { return Ok(false) };
        let due = Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
        let ahead = due.saturating_sub(started.elapsed());
        if ahead.is_zero() {
            return Ok(false);
        }
        std::thread::sleep(ahead.min(REST));
        Ok(true)
    }
}
