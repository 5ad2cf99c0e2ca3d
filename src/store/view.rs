//! All entries as of one revision, walked in short steps while writes go on: what a snapshot needs, without a fork and
//! without a pause.
//!
//! Each shard is walked in key order. A write that would change an entry which the walk has not passed hands the old entry
//! over first. Entries younger than the view are passed over by both, so every entry of the view comes out exactly once.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{SHARDS, Store};
use crate::{
    model::{EntryRef, ValueRef},
    pb,
};

/// Entries that are visited under one lock at most.
const STEP_ENTRIES: usize = 256;
/// Bytes of values after which a step ends.
const STEP_BYTES: usize = 64 * 1024;
/// Entries that are handed over come in rows of this many: no row ever moves to grow.
const ROW_ENTRIES: usize = 1_024;
/// What a handed over entry costs besides its key and value.
const ENTRY_OVERHEAD_BYTES: usize = 256;

/// How far the walk through a shard has come.
#[derive(Debug)]
enum Passed {
    Nothing,
    UpTo(Vec<u8>),
    All,
}

/// Entries that writes have handed over.
#[derive(Debug, Default)]
struct Overtaken {
    rows: Vec<Vec<pb::Entry>>,
    bytes: usize,
    /// There were too many: the view is not whole any more.
    overrun: bool,
}

/// The view, shared between its walker and the shards.
#[derive(Debug)]
pub struct View {
    revision: u64,
    passed: Vec<Mutex<Passed>>,
    overtaken: Mutex<Overtaken>,
    overtaken_bytes_max: usize,
}

/// Too much was overtaken before it could be taken away: this view is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overrun;

impl View {
    /// What writes have handed over since the last call.
    pub fn take_overtaken(&self) -> Result<Vec<Vec<pb::Entry>>, Overrun> {
        let mut overtaken = self.overtaken.lock();
        if overtaken.overrun {
            return Err(Overrun);
        }
        overtaken.bytes = 0;
        Ok(std::mem::take(&mut overtaken.rows))
    }

    /// Whether writes have handed something over.
    pub fn has_overtaken(&self) -> bool {
        self.overtaken.lock().bytes > 0
    }

    /// An entry is about to change, under its shard's write lock.
    pub(super) fn overtake(&self, shard: usize, entry: &EntryRef<'_>) {
        if entry.metadata.revision > self.revision {
            return;
        }
        let passed = match &*self.passed[shard].lock() {
            Passed::Nothing => false,
            Passed::UpTo(last) => entry.key <= &last[..],
            Passed::All => true,
        };
        let mut overtaken = self.overtaken.lock();
        if passed || overtaken.overrun {
            return;
        }
        overtaken.bytes += entry.key.len() + entry.value.as_slice().len() + ENTRY_OVERHEAD_BYTES;
        if overtaken.bytes > self.overtaken_bytes_max {
            // What is there is freed by the walker, not by a write.
            overtaken.overrun = true;
            return;
        }
        if overtaken.rows.last().is_none_or(|row| row.len() == ROW_ENTRIES) {
            overtaken.rows.push(Vec::with_capacity(ROW_ENTRIES));
        }
        if let Some(row) = overtaken.rows.last_mut() {
            row.push(entry.to_pb(true));
        }
    }
}

impl Store {
    /// Begins the view of all entries as they are now, at `revision`. To be called by the only writer, between two records.
    pub fn begin_view(&self, revision: u64, overtaken_bytes_max: usize) -> Arc<View> {
        let view = Arc::new(View {
            revision,
            passed: (0..SHARDS).map(|_| Mutex::new(Passed::Nothing)).collect(),
            overtaken: Mutex::default(),
            overtaken_bytes_max,
        });
        for (number, shard) in self.shards.iter().enumerate() {
            shard.write().view = Some((Arc::clone(&view), number));
        }
        view
    }

    /// Ends the view: writes hand nothing over any more.
    pub fn end_view(&self) {
        for shard in &self.shards {
            shard.write().view = None;
        }
    }

    /// How many shards a view has.
    pub fn view_shards(&self) -> usize {
        SHARDS
    }

    /// Visits the next entries of a shard, under its read lock and so without a long stay; `visit` gets large values
    /// shared. False once the walk has passed the whole shard.
    pub fn walk_view(&self, view: &View, shard_number: usize, mut visit: impl FnMut(EntryRef<'_>)) -> bool {
        let Some(shard) = self.shards.get(shard_number).map(|shard| shard.read()) else { return false };
        let mut passed = view.passed[shard_number].lock();
        let mut cursor = match &*passed {
            Passed::Nothing => shard.before(Some(&[])),
            Passed::UpTo(last) => shard.behind(last),
            Passed::All => return false,
        };
        let mut last = None;
        let mut bytes = 0;
        for _ in 0..STEP_ENTRIES {
            let Some((entry, next)) = shard.step(cursor, false) else {
                *passed = Passed::All;
                return false;
            };
            if entry.metadata.revision <= view.revision {
                visit(entry);
                bytes += if let ValueRef::Inline(value) = entry.value { value.len() } else { 0 };
            }
            last = Some(entry.key);
            cursor = next;
            if bytes >= STEP_BYTES {
                break;
            }
        }
        if let Some(last) = last {
            *passed = Passed::UpTo(last.to_vec());
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::model::Metadata;

    fn put(store: &Store, key: u16, length: usize, revision: u64) {
        let metadata =
            Metadata { revision, create_revision: revision, version: 1, update_time_ms: 1, expire_time_ms: None };
        let value = Bytes::from(vec![key as u8; length]);
        store.write(&key.to_be_bytes(), |place| place.put(&value, "a/b", metadata)).unwrap();
    }

    fn touch(store: &Store, key: u16, revision: u64) {
        let metadata =
            Metadata { revision, create_revision: 1, version: 1, update_time_ms: 2, expire_time_ms: Some(revision) };
        store.write(&key.to_be_bytes(), |place| place.touch(metadata));
    }

    fn take(view: &View, seen: &mut Vec<pb::Entry>) {
        seen.extend(view.take_overtaken().unwrap().into_iter().flatten());
    }

    #[derive(Clone, Debug)]
    enum Act {
        Put(u16, usize),
        Touch(u16),
        Remove(u16),
        Step(usize),
        Take,
    }

    fn act() -> impl Strategy<Value = Act> {
        let length = prop_oneof![9 => 0_usize..200, 1 => 9_000_usize..30_000];
        prop_oneof![
            6 => (0_u16..2_000, length).prop_map(|(key, length)| Act::Put(key, length)),
            1 => (0_u16..2_000).prop_map(Act::Touch),
            3 => (0_u16..2_000).prop_map(Act::Remove),
            3 => (0..SHARDS).prop_map(Act::Step),
            1 => Just(Act::Take),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn a_view_is_the_store_as_it_was_whatever_is_written_meanwhile(
            lengths in proptest::collection::vec(0_usize..300, 0..1_500),
            acts in proptest::collection::vec(act(), 0..600),
        ) {
            let store = Store::new();
            for (key, length) in lengths.iter().enumerate() {
                put(&store, key as u16, *length, key as u64 + 1);
            }
            let mut expected = BTreeMap::new();
            store.for_each(|entry| {
                expected.insert(entry.key.to_vec(), entry.to_pb(true));
            });
            let mut revision = lengths.len() as u64;
            let view = store.begin_view(revision, usize::MAX);
            let mut seen = Vec::new();
            for act in acts {
                revision += 1;
                match act {
                    Act::Put(key, length) => put(&store, key, length, revision),
                    Act::Touch(key) => touch(&store, key, revision),
                    Act::Remove(key) => drop(store.write(&key.to_be_bytes(), |place| place.remove())),
                    Act::Step(shard) => {
                        store.walk_view(&view, shard, |entry| seen.push(entry.to_pb(true)));
                    }
                    Act::Take => take(&view, &mut seen),
                }
            }
            for shard in 0..store.view_shards() {
                while store.walk_view(&view, shard, |entry| seen.push(entry.to_pb(true))) {}
            }
            take(&view, &mut seen);
            prop_assert_eq!(seen.len(), expected.len(), "each entry once");
            let found: BTreeMap<_, _> = seen.into_iter().map(|entry| (entry.key.to_vec(), entry)).collect();
            prop_assert_eq!(found, expected);
            store.end_view();
            put(&store, 1, 1, revision + 1);
            prop_assert!(!view.has_overtaken(), "an ended view costs writes nothing");
        }
    }

    #[test]
    fn a_view_that_is_overtaken_too_often_is_lost_and_holds_nothing_more() {
        let store = Store::new();
        (0..1_000).for_each(|key| put(&store, key, 100, 1));
        let view = store.begin_view(1, 10_000);
        (0..1_000).for_each(|key| put(&store, key, 100, 2));
        assert_eq!(view.take_overtaken(), Err(Overrun));
        assert!(view.overtaken.lock().rows.iter().map(Vec::len).sum::<usize>() < 100);
    }
}
