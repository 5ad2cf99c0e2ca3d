//! What a record changed, kept for watchers: of each key the entry before and after, in one piece of memory that all
//! watchers and the history share.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::{
    model::{EntryRef, Metadata, ValueRef},
    pb::{self, EventKind},
    store::INSIDE_BYTES_MAX,
};

/// What a change costs in the history besides its bytes.
const CHANGE_OVERHEAD_BYTES: usize = size_of::<Change>() + 64;

/// Changes for which the list that gathers them keeps room.
const GATHERED_KEPT: usize = 64;

/// A key and what happened to it.
#[derive(Clone, Debug)]
pub struct Change {
    kind: EventKind,
    /// The key, then what the sides have of their own.
    body: Bytes,
    key_bytes: u32,
    before: Option<Side>,
    after: Option<Side>,
}

/// An entry before or after.
#[derive(Clone, Debug)]
struct Side {
    metadata: Metadata,
    content_type: Range<u32>,
    value: Value,
}

#[derive(Clone, Debug)]
enum Value {
    /// Within the body.
    Inside(Range<u32>),
    /// A large one, shared with the store.
    Outside(Bytes),
}

/// A change of which the entry before is known: made before the store is written, done after.
#[derive(Debug)]
pub struct Draft {
    body: BytesMut,
    key_bytes: u32,
    before: Option<Side>,
}

impl Draft {
    /// A change of `key`, whose entry after it will take `after_bytes` at most.
    pub fn new(key: &[u8], before: Option<&EntryRef<'_>>, after_bytes: usize) -> Self {
        let mut body = BytesMut::with_capacity(key.len() + before.map_or(0, EntryRef::inline_bytes) + after_bytes);
        append(&mut body, key);
        let before = before.map(|entry| Side::copy(entry, &mut body));
        Self { body, key_bytes: key.len() as u32, before }
    }

    /// The change, with the entry as it is now.
    pub fn done(mut self, kind: EventKind, after: Option<&EntryRef<'_>>) -> Change {
        let after = after.map(|entry| Side::copy(entry, &mut self.body));
        Change { kind, body: self.body.freeze(), key_bytes: self.key_bytes, before: self.before, after }
    }
}

/// Positions fit in 32 bits: keys, content types and values within the body are short.
fn append(body: &mut BytesMut, bytes: &[u8]) -> Range<u32> {
    let start = body.len() as u32;
    body.extend_from_slice(bytes);
    start..body.len() as u32
}

impl Side {
    fn copy(entry: &EntryRef<'_>, body: &mut BytesMut) -> Self {
        let content_type = append(body, entry.content_type.as_bytes());
        let value = match entry.value {
            ValueRef::Inline(value) => Value::Inside(append(body, value)),
            ValueRef::Shared(value) => Value::Outside(value.clone()),
        };
        Self { metadata: entry.metadata, content_type, value }
    }

    fn to_pb(&self, key: Bytes, body: &Bytes) -> pb::Entry {
        let content_type = String::from_utf8_lossy(slice(body, &self.content_type)).into_owned();
        let value = match &self.value {
            Value::Inside(range) => body.slice(range.start as usize..range.end as usize),
            Value::Outside(value) => value.clone(),
        };
        self.metadata.to_pb(key, value, content_type)
    }

    fn bytes(&self) -> usize {
        match &self.value {
            Value::Inside(_) => 0,
            Value::Outside(value) => value.len(),
        }
    }
}

fn slice<'body>(body: &'body Bytes, range: &Range<u32>) -> &'body [u8] {
    &body[range.start as usize..range.end as usize]
}

/// An entry with a small value in place, as the store would give it.
fn as_stored(entry: &pb::Entry) -> EntryRef<'_> {
    let shared = EntryRef::of_pb(entry);
    match entry.value.len() {
        0..=INSIDE_BYTES_MAX => EntryRef { value: ValueRef::Inline(&entry.value), ..shared },
        _ => shared,
    }
}

impl Change {
    /// A change as a snapshot holds it; `None` for what this version would not write.
    pub fn of_event(event: &pb::Event) -> Option<Self> {
        let entry = event.entry.as_ref()?;
        let after = match event.kind() {
            EventKind::Put | EventKind::Touch => Some(as_stored(entry)),
            EventKind::Delete | EventKind::Expire | EventKind::Evict => None,
            EventKind::Unspecified => return None,
        };
        let before = event.previous.as_ref().map(as_stored);
        let after_bytes = after.as_ref().map_or(0, EntryRef::inline_bytes);
        Some(Draft::new(&entry.key, before.as_ref(), after_bytes).done(event.kind(), after.as_ref()))
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        &self.body[..self.key_bytes as usize]
    }

    /// What happened.
    pub fn kind(&self) -> EventKind {
        self.kind
    }

    /// The entry before, if there was one.
    pub fn before(&self) -> Option<pb::Entry> {
        self.before.as_ref().map(|side| side.to_pb(self.shared_key(), &self.body))
    }

    /// The change as clients see it; `previous` asks for the entry before.
    pub fn to_event(&self, revision: u64, previous: bool) -> pb::Event {
        let entry = match &self.after {
            Some(side) => side.to_pb(self.shared_key(), &self.body),
            None => pb::Entry { key: self.shared_key(), revision, ..pb::Entry::default() },
        };
        let previous = if previous { self.before() } else { None };
        pb::Event { kind: self.kind.into(), entry: Some(entry), previous }
    }

    fn shared_key(&self) -> Bytes {
        self.body.slice(..self.key_bytes as usize)
    }

    fn bytes(&self) -> usize {
        let outside = [&self.before, &self.after].into_iter().flatten().map(Side::bytes).sum::<usize>();
        self.body.len() + outside + CHANGE_OVERHEAD_BYTES
    }
}

/// All that one record changed.
#[derive(Debug)]
pub struct Changes {
    revision: u64,
    list: List,
    bytes: usize,
}

/// Most records change one key: that one lies beside the rest.
#[derive(Debug)]
enum List {
    One(Change),
    Many(Box<[Change]>),
}

impl Changes {
    /// The changes of a revision, in the order in which they happened.
    pub fn new(revision: u64, list: impl IntoIterator<Item = Change, IntoIter: ExactSizeIterator>) -> Self {
        let mut list = list.into_iter();
        let list = match (list.len(), list.next()) {
            (1, Some(one)) => List::One(one),
            (_, first) => List::Many(first.into_iter().chain(list).collect()),
        };
        let mut changes = Self { revision, list, bytes: 0 };
        changes.bytes = changes.list().iter().map(Change::bytes).sum();
        changes
    }

    /// The changes of a revision, taken out of where they were gathered; `None`: there are none.
    pub fn take(revision: u64, gathered: &mut Vec<Change>) -> Option<Self> {
        let changes = (!gathered.is_empty()).then(|| Self::new(revision, gathered.drain(..)));
        // One large record must not hold its memory for ever.
        gathered.shrink_to(GATHERED_KEPT);
        changes
    }

    /// The record's revision.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The changes.
    pub fn list(&self) -> &[Change] {
        match &self.list {
            List::One(change) => std::slice::from_ref(change),
            List::Many(changes) => changes,
        }
    }

    /// What they take in memory.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
pub mod samples {
    //! Changes for the tests beside this file.

    use super::*;

    /// A put of `key` with its own name as the value.
    pub fn put(key: &str, revision: u64) -> Change {
        let metadata =
            Metadata { revision, create_revision: revision, version: 1, update_time_ms: 7, expire_time_ms: None };
        let entry = EntryRef {
            key: key.as_bytes(),
            value: ValueRef::Inline(key.as_bytes()),
            content_type: "text/plain",
            metadata,
        };
        Draft::new(key.as_bytes(), None, entry.inline_bytes()).done(EventKind::Put, Some(&entry))
    }

    /// A record that puts these keys.
    pub fn puts(revision: u64, keys: &[&str]) -> std::sync::Arc<Changes> {
        std::sync::Arc::new(Changes::new(revision, keys.iter().map(|key| put(key, revision))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_shows_both_sides_and_shares_large_values() {
        let large = Bytes::from(vec![7; 10_000]);
        let metadata = |revision| Metadata {
            revision,
            create_revision: 3,
            version: 2,
            update_time_ms: 9,
            expire_time_ms: Some(99),
        };
        let before =
            EntryRef { key: b"k", value: ValueRef::Inline(b"old"), content_type: "a/b", metadata: metadata(3) };
        let after = EntryRef { key: b"k", value: ValueRef::Shared(&large), content_type: "c/d", metadata: metadata(8) };
        let change = Draft::new(b"k", Some(&before), after.inline_bytes()).done(EventKind::Put, Some(&after));
        let event = change.to_event(8, true);
        assert_eq!(event.previous.unwrap(), before.to_pb(true));
        let entry = event.entry.unwrap();
        assert_eq!(entry, after.to_pb(true));
        assert_eq!(entry.value.as_ptr(), large.as_ptr());
        assert!(change.bytes() >= 10_000);
        let event = change.to_event(8, true);
        let read = Change::of_event(&event).unwrap();
        assert_eq!((read.to_event(8, true), read.bytes()), (event, change.bytes()));
    }

    #[test]
    fn a_removal_shows_key_and_revision_only() {
        let event = Draft::new(b"k", None, 0).done(EventKind::Delete, None).to_event(5, false);
        assert_eq!(Change::of_event(&event).unwrap().to_event(5, true), event);
        assert!(Change::of_event(&pb::Event { kind: 0, ..event.clone() }).is_none());
        assert_eq!(event.entry.unwrap(), pb::Entry { key: "k".into(), revision: 5, ..Default::default() });
        assert!(event.previous.is_none());
    }
}
