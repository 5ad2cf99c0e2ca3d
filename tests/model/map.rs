//! The model: an ordered map, and what happened to it, revision by revision.

use std::collections::BTreeMap;

use bytes::Bytes;
use tandem::pb::{self, EventKind, key_range::Kind as Range};

use crate::{reference::Done, steps::Query};

#[derive(Debug, Default)]
pub struct Map {
    pub entries: BTreeMap<Bytes, pb::Entry>,
    /// Each event with the entry before.
    pub log: Vec<(u64, Vec<pb::Event>)>,
}

pub fn contains(range: &pb::KeyRange, key: &[u8]) -> bool {
    match range.kind.as_ref().unwrap() {
        Range::Prefix(prefix) => key.starts_with(prefix),
        Range::Span(span) => *key >= span.start[..] && (span.end.is_empty() || *key < span.end[..]),
        Range::Key(only) => key == only,
        Range::All(_) => true,
    }
}

/// An entry or a common prefix.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    Entry(pb::Entry),
    Folder(Bytes),
}

impl Map {
    pub fn get(&self, key: &Bytes) -> Option<pb::Entry> {
        self.entries.get(key).cloned()
    }

    /// What a record did, in its order. The entries as they are seen after it complete what only the server knows: times.
    pub fn happen(&mut self, revision: u64, done: &[Done], seen: impl Fn(&Bytes) -> Option<pb::Entry>) {
        let mut events = Vec::new();
        for done in done {
            let (key, after) = (done.key.clone(), seen(&done.key));
            done.check(after.as_ref()).unwrap_or_else(|why| panic!("{why}"));
            events.push(self.change(revision, done.kind, key, after));
        }
        self.note(revision, events);
    }

    /// Keys that a record removed, in their order.
    pub fn remove(&mut self, revision: u64, kind: EventKind, keys: Vec<Bytes>) {
        let events = keys.into_iter().map(|key| self.change(revision, kind, key, None)).collect();
        self.note(revision, events);
    }

    fn change(&mut self, revision: u64, kind: EventKind, key: Bytes, after: Option<pb::Entry>) -> pb::Event {
        let previous = match &after {
            Some(entry) => self.entries.insert(key.clone(), entry.clone()),
            None => self.entries.remove(&key),
        };
        let entry = Some(after.unwrap_or(pb::Entry { key, revision, ..Default::default() }));
        pb::Event { kind: kind.into(), entry, previous }
    }

    fn note(&mut self, revision: u64, events: Vec<pb::Event>) {
        assert!(revision > self.newest(), "revision {revision} after {}", self.newest());
        if !events.is_empty() {
            self.log.push((revision, events));
        }
    }

    /// The newest revision of which anything is known to have happened.
    pub fn newest(&self) -> u64 {
        self.log.last().map_or(0, |(revision, _)| *revision)
    }

    /// Keys of a range, in order.
    pub fn keys(&self, range: &pb::KeyRange) -> Vec<Bytes> {
        self.entries.keys().filter(|key| contains(range, key)).cloned().collect()
    }

    /// All that pages or a scan give, in order.
    pub fn find(&self, query: &Query) -> Vec<Item> {
        let prefix_bytes = match &query.range.kind {
            Some(Range::Prefix(prefix)) => prefix.len(),
            _ => 0,
        };
        let after = |key: &[u8]| match (&query.start_after, query.descending) {
            (start, _) if start.is_empty() => true,
            (start, false) => *key > start[..],
            (start, true) => *key < start[..],
        };
        let mut items = Vec::new();
        for (key, entry) in &self.entries {
            if !contains(&query.range, key) || !after(key) {
                continue;
            }
            let folder = key[prefix_bytes..].iter().position(|byte| query.folded && *byte == b'/');
            let item = match folder {
                Some(at) => Item::Folder(key.slice(..prefix_bytes + at + 1)),
                None if query.keys_only => Item::Entry(pb::Entry { value: Bytes::new(), ..entry.clone() }),
                None => Item::Entry(entry.clone()),
            };
            if items.last() != Some(&item) {
                items.push(item);
            }
        }
        if query.descending {
            items.reverse();
        }
        items
    }
}
