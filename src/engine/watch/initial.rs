//! The entries of a range exactly as they were at one revision, read in short steps while writes go on: what a step shows
//! too new is put back by what the history knows of it.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use super::hub::Hub;
use crate::{
    engine::Core,
    limits::{CATCH_UP_RECORDS_MAX, INITIAL_STATE_BYTES_MAX, SCAN_BATCH_BYTES_MAX, SCAN_BATCH_ENTRIES_MAX},
    model::KeySpan,
    pb,
    store::Step,
};

/// How often a reader lets others run until the history has what the store shows: it follows within microseconds.
const HISTORY_TURNS_MAX: usize = 1_000_000;

/// What a step brought.
#[derive(Debug)]
pub enum Part {
    /// The next entries, in key order; perhaps none.
    Entries(Vec<pb::Entry>),
    /// That was all.
    Done,
    /// So much was written meanwhile that it cannot be put back any more: begin anew.
    PassedBy,
}

/// A reading in progress.
#[derive(Debug)]
pub struct InitialState {
    core: Arc<Core>,
    revision: u64,
    /// What is left to read; `None`: nothing.
    rest: Option<KeySpan>,
    /// Keys ahead that were changed since, and what they held at `revision`.
    earlier: BTreeMap<Bytes, Option<pb::Entry>>,
    earlier_bytes: usize,
    /// `earlier` is whole up to here.
    undone_revision: u64,
}

impl InitialState {
    /// The entries of a range at the newest revision that is on disk.
    pub(in crate::engine) fn new(core: Arc<Core>, span: KeySpan) -> Self {
        let revision = core.hub().published_revision();
        Self { core, revision, rest: Some(span), earlier: BTreeMap::new(), earlier_bytes: 0, undone_revision: revision }
    }

    /// The revision that it shows.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The next entries.
    pub async fn next(&mut self) -> Part {
        let Some(span) = self.rest.take() else { return Part::Done };
        let (entries, shown_revision, next) = self.read_step(&span);
        if !self.undo_until(shown_revision, &span).await {
            return Part::PassedBy;
        }
        let later = match &next {
            Some(next) => self.earlier.split_off(next),
            None => BTreeMap::new(),
        };
        let mut earlier = std::mem::replace(&mut self.earlier, later);
        self.earlier_bytes -= earlier.iter().map(|(key, entry)| cost(key, entry.as_ref())).sum::<usize>();
        let unchanged: Vec<_> = entries.into_iter().filter(|entry| !earlier.contains_key(&entry.key)).collect();
        earlier.retain(|_, entry| entry.is_some());
        let mut all: Vec<_> = unchanged.into_iter().chain(earlier.into_values().flatten()).collect();
        all.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        self.rest = next.map(|start| KeySpan { start, ..span });
        Part::Entries(all)
    }

    /// Some entries as they are now, the revision of that, and where the next step begins.
    fn read_step(&self, span: &KeySpan) -> (Vec<pb::Entry>, u64, Option<Bytes>) {
        let mut entries: Vec<pb::Entry> = Vec::new();
        let mut bytes = 0;
        let mut next = None;
        let shown_revision = self.core.walk_all(span, false, |entry| {
            let takes = entry.key.len() + entry.value.as_slice().len();
            let full = entries.len() == SCAN_BATCH_ENTRIES_MAX || bytes + takes > SCAN_BATCH_BYTES_MAX;
            if full && !entries.is_empty() {
                next = Some(Bytes::copy_from_slice(entry.key));
                return Step::Stop;
            }
            bytes += takes;
            entries.push(entry.to_pb(true));
            Step::Next
        });
        (entries, shown_revision, next)
    }

    /// Learns what keys of `span` held before they were changed; false if the history does not reach back.
    async fn undo_until(&mut self, shown_revision: u64, span: &KeySpan) -> bool {
        let hub = Arc::clone(self.core.hub());
        for _ in 0..HISTORY_TURNS_MAX {
            if shown_revision <= self.undone_revision {
                return true;
            }
            if self.undo_some(&hub, shown_revision, span).is_none() || self.earlier_bytes > INITIAL_STATE_BYTES_MAX {
                return false;
            }
            // The store shows a record a moment before the history has it.
            tokio::task::yield_now().await;
        }
        false
    }

    /// `None` if the history does not reach back.
    fn undo_some(&mut self, hub: &Hub, shown_revision: u64, span: &KeySpan) -> Option<()> {
        let (records, applied_revision) = hub.with_history(|history| {
            let records = history.between(self.undone_revision, shown_revision)?;
            let some: Vec<_> = records.take(CATCH_UP_RECORDS_MAX).map(Arc::clone).collect();
            Some((some, history.applied_revision()))
        })?;
        for change in records.iter().flat_map(|changes| changes.list()).filter(|change| span.contains(change.key())) {
            // The first change since is the one that knows.
            if !self.earlier.contains_key(change.key()) {
                let (key, before) = (Bytes::copy_from_slice(change.key()), change.before());
                self.earlier_bytes += cost(&key, before.as_ref());
                self.earlier.insert(key, before);
            }
        }
        let undone_revision = match records.last() {
            Some(last) if records.len() == CATCH_UP_RECORDS_MAX => last.revision(),
            _ => applied_revision.min(shown_revision),
        };
        self.undone_revision = self.undone_revision.max(undone_revision);
        Some(())
    }
}

/// What a key and what it held take in memory.
fn cost(key: &Bytes, entry: Option<&pb::Entry>) -> usize {
    size_of::<pb::Entry>() + key.len() + entry.map_or(0, |entry| entry.value.len())
}
