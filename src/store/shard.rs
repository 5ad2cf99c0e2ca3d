//! One shard: arena, index, deadlines and values outside, kept consistent by [`Place`].

use std::sync::Arc;

use bytes::Bytes;

use super::{
    Totals,
    arena::Arena,
    block::Kind,
    content_types::ContentTypes,
    filling::Filling,
    hash_of,
    index::Index,
    ordered::{Cursor, Ordered},
    record::{Draft, Placed, Record},
    rows::{InOrder, Rows, in_order},
    sizes::{Sizes, Tally},
    view::View,
};
use crate::{
    error::{Error, Reason, Result},
    model::{EntryRef, Metadata},
};

/// Larger values live outside the arena and are shared with readers instead of copied.
pub const INSIDE_BYTES_MAX: usize = 8 * 1024;

/// A part of the map.
#[derive(Debug)]
pub struct Shard {
    pub(super) records: Arena,
    /// What the indexes are made of.
    pub(super) blocks: Arena,
    pub(super) index: Index,
    pub(super) ordered: Ordered,
    /// By deadline, then by key: entries that have one.
    pub(super) deadlines: Ordered,
    pub(super) types: ContentTypes,
    values: Vec<Option<Bytes>>,
    free_values: Vec<u32>,
    outside_bytes: usize,
    sizes: Sizes,
    pub(super) hash_seed: u64,
    /// A view of the store that is being walked, and this shard's number: it gets entries before they change.
    pub(super) view: Option<(Arc<View>, usize)>,
}

impl Shard {
    pub fn new(hash_seed: u64) -> Self {
        Self {
            records: Arena::default(),
            blocks: Arena::default(),
            index: Index::default(),
            ordered: Ordered::new(Kind::Keys),
            deadlines: Ordered::new(Kind::Deadlines),
            types: ContentTypes::default(),
            values: Vec::new(),
            free_values: Vec::new(),
            outside_bytes: 0,
            sizes: Sizes::default(),
            hash_seed,
            view: None,
        }
    }

    pub fn totals(&self) -> Totals {
        let beside = self.index.allocated_bytes()
            + self.ordered.allocated_bytes()
            + self.deadlines.allocated_bytes()
            + self.values.capacity() * size_of::<Option<Bytes>>()
            + self.outside_bytes;
        let Tally { keys, bytes: data_bytes } = self.sizes.total();
        Totals {
            keys,
            data_bytes,
            expiring: self.deadlines.len() as u64,
            used_bytes: (self.records.live_bytes() + self.blocks.live_bytes() + beside) as u64,
            allocated_bytes: (self.records.allocated_bytes() + self.blocks.allocated_bytes() + beside) as u64,
        }
    }

    /// How large the entries are.
    pub fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    pub fn find(&self, hash: u64, key: &[u8]) -> Option<EntryRef<'_>> {
        let handle = self.find_handle(hash, key)?;
        self.records.mark(handle);
        Some(self.entry(handle))
    }

    pub fn place<'shard>(&'shard mut self, hash: u64, key: &'shard [u8]) -> Place<'shard> {
        let handle = self.find_handle(hash, key);
        Place { shard: self, hash, key, handle }
    }

    /// Adds up to `limit` entries whose deadline is at or before `time_ms`, oldest first.
    pub fn due(&self, time_ms: u64, limit: usize, due: &mut Vec<(Bytes, u64)>) {
        let oldest = self.due_at(time_ms).take(limit);
        due.extend(oldest.map(|record| (Bytes::copy_from_slice(record.key()), record.revision())));
    }

    fn due_at(&self, time_ms: u64) -> impl Iterator<Item = Record<'_>> {
        let records = self.deadlines.iter(&self.blocks).map(|handle| Record(self.records.get(handle)));
        records.take_while(move |record| record.expire_time_ms().is_some_and(|deadline_ms| deadline_ms <= time_ms))
    }

    pub fn next_deadline_ms(&self) -> Option<u64> {
        let first = self.deadlines.iter(&self.blocks).next()?;
        Record(self.records.get(first)).expire_time_ms()
    }

    pub fn for_each(&self, visit: &mut impl FnMut(EntryRef<'_>)) {
        for handle in self.index.iter(&self.blocks) {
            visit(self.entry(handle));
        }
    }

    /// The place before `key`, and behind all smaller keys; `None`: behind the last key.
    pub fn before(&self, key: Option<&[u8]>) -> Cursor {
        match key {
            Some(key) => self.place_of_key(key),
            None => self.ordered.end(),
        }
    }

    /// The place behind a key, which may be gone.
    pub fn behind(&self, key: &[u8]) -> Cursor {
        let before = self.before(Some(key));
        match self.step(before, false) {
            Some((entry, behind)) if entry.key == key => behind,
            _ => before,
        }
    }

    /// The entry next to a place, and the place on its other side.
    pub fn step(&self, cursor: Cursor, descending: bool) -> Option<(EntryRef<'_>, Cursor)> {
        let stepped = match descending {
            true => self.ordered.previous(&self.blocks, cursor),
            false => self.ordered.next(&self.blocks, cursor),
        };
        stepped.map(|(handle, cursor)| (self.entry(handle), cursor))
    }

    /// How many entries lie in `[start, end)`, of those that are not past their deadline at `time_ms`.
    pub fn count(&self, start: &[u8], end: Option<&[u8]>, time_ms: u64) -> usize {
        let all = self.ordered.count(self.before(Some(start)), self.before(end));
        let inside = |key: &[u8]| key >= start && end.is_none_or(|end| key < end);
        // Few: the expirer removes them within milliseconds.
        all - self.due_at(time_ms).filter(|record| inside(record.key())).count()
    }

    pub(super) fn place_of_key(&self, key: &[u8]) -> Cursor {
        self.ordered.place(&self.blocks, |handle| Record(self.records.get(handle)).key() < key)
    }

    /// The place before an entry that is in order.
    pub(super) fn place_of_entry(&self, handle: u32) -> Cursor {
        let key_of = |handle| Record(self.records.get(handle)).key();
        let key = key_of(handle);
        self.ordered.place_of(&self.blocks, handle, |other| key_of(other) < key)
    }

    pub(super) fn place_of_deadline(&self, deadline_ms: u64, key: &[u8]) -> Cursor {
        self.deadlines.place(&self.blocks, |handle| {
            let record = Record(self.records.get(handle));
            (record.expire_time_ms().unwrap_or(0), record.key()) < (deadline_ms, key)
        })
    }

    /// Takes entries in that a loader put into a page of its own, but to no index: [`Self::order`] builds those.
    pub fn take_in(&mut self, filling: Option<Filling>, sizes: &Sizes) {
        if let Some(filling) = filling {
            self.records.take_in(filling);
        }
        self.sizes.merge(sizes);
    }

    /// Builds the indexes of all loaded entries. False if a key is there twice; `None` when no memory is left.
    pub fn order(&mut self, rows: &[Rows]) -> Option<bool> {
        let records = &self.records;
        let record = |handle: u32| Record(records.get(handle));
        let (count, hashed) = (rows.iter().map(Rows::len).sum(), || rows.iter().flat_map(Rows::hashed));
        self.index =
            Index::of(&mut self.blocks, count, hashed, |handle| hash_of(self.hash_seed, record(handle).key()))?;
        let InOrder { mut handles, unique } = in_order(rows, |handle| record(handle).key());
        self.ordered = Ordered::from_sorted(&mut self.blocks, Kind::Keys, &handles)?;
        if rows.iter().any(Rows::any_expires) {
            handles.retain(|handle| record(*handle).expire_time_ms().is_some());
            // They are in the order of their keys, and stay so where deadlines are the same.
            handles.sort_by_key(|handle| record(*handle).expire_time_ms());
            self.deadlines = Ordered::from_sorted(&mut self.blocks, Kind::Deadlines, &handles)?;
        }
        Some(unique)
    }

    /// An entry is about to change: a walk that has not come to it yet gets it as it is.
    fn hand_over(&self, handle: u32) {
        if let Some((view, number)) = &self.view {
            view.overtake(*number, &self.entry(handle));
        }
    }

    fn find_handle(&self, hash: u64, key: &[u8]) -> Option<u32> {
        self.index.find(&self.blocks, hash, |handle| Record(self.records.get(handle)).key() == key)
    }

    fn entry(&self, handle: u32) -> EntryRef<'_> {
        Record(self.records.get(handle)).entry(&self.types, &self.values)
    }

    /// Bytes of key, value and head.
    pub(super) fn entry_bytes(&self, handle: u32) -> usize {
        let record = Record(self.records.get(handle));
        let outside = record.outside().and_then(|slot| self.values.get(slot as usize)?.as_ref().map(Bytes::len));
        record.length() + outside.unwrap_or(0)
    }

    pub(super) fn units(&self, handle: u32) -> usize {
        Arena::units_for(Record(self.records.get(handle)).length())
    }

    pub(super) fn keep_outside(&mut self, value: &[u8]) -> u32 {
        // An allocation of its own: what was received may be a small part of a large buffer.
        let value = Bytes::copy_from_slice(value);
        self.outside_bytes += value.len();
        match self.free_values.pop() {
            Some(slot) => {
                self.values[slot as usize] = Some(value);
                slot
            }
            None => {
                self.values.push(Some(value));
                (self.values.len() - 1) as u32
            }
        }
    }

    fn drop_outside(&mut self, slot: u32) {
        if let Some(value) = self.values.get_mut(slot as usize).and_then(Option::take) {
            self.outside_bytes -= value.len();
            self.free_values.push(slot);
        }
    }

    /// Forgets what hangs on a record besides the record itself.
    fn detach(&mut self, handle: u32, with_value: bool) {
        let record = Record(self.records.get(handle));
        let outside = record.outside();
        if let Some(deadline_ms) = record.expire_time_ms() {
            let place = self.place_of_deadline(deadline_ms, record.key());
            self.deadlines.remove(&mut self.blocks, place);
        }
        if let Some(slot) = outside.filter(|_| with_value) {
            self.drop_outside(slot);
        }
    }

    /// Adds a new record to the indexes.
    fn attach(&mut self, hash: u64, key: &[u8], handle: u32) -> Option<()> {
        let (seed, records) = (self.hash_seed, &self.records);
        let place = self.place_of_key(key);
        let hash_of_handle = |handle| hash_of(seed, Record(records.get(handle)).key());
        self.index.insert(&mut self.blocks, hash, handle, hash_of_handle)?;
        self.ordered.insert(&mut self.blocks, place, handle)
    }
}

pub(super) fn full() -> Error {
    Error::new(Reason::MemoryLimit, "no memory is left for this part of the store: delete keys")
}

/// A key's place in its shard, under the write lock.
#[derive(Debug)]
pub struct Place<'shard> {
    shard: &'shard mut Shard,
    hash: u64,
    key: &'shard [u8],
    handle: Option<u32>,
}

impl Place<'_> {
    /// The key.
    pub fn key(&self) -> &[u8] {
        self.key
    }

    /// What the key holds.
    pub fn entry(&self) -> Option<EntryRef<'_>> {
        self.handle.map(|handle| self.shard.entry(handle))
    }

    /// Creates or replaces the entry. MEMORY_LIMIT when the shard's address space is used up; then nothing changes.
    pub fn put(&mut self, value: &Bytes, content_type: &str, metadata: Metadata) -> Result<()> {
        let content_type = self.shard.types.number(content_type).ok_or(content_type);
        if value.len() <= INSIDE_BYTES_MAX {
            return self.store(
                &Draft { key: self.key, value: Placed::Inside(value), content_type, metadata },
                value.len(),
                true,
            );
        }
        let slot = self.shard.keep_outside(value);
        let draft = Draft { key: self.key, value: Placed::Outside(slot), content_type, metadata };
        self.store(&draft, value.len(), true).inspect_err(|_| self.shard.drop_outside(slot))
    }

    /// Gives the entry new metadata and leaves its value. Nothing happens to an absent key.
    pub fn touch(&mut self, metadata: Metadata) {
        let Some(handle) = self.handle else { return };
        let entry = self.shard.entry(handle);
        let value_bytes = entry.value.as_slice().len();
        let own_type = entry.content_type.to_owned();
        let content_type = self.shard.types.number(&own_type).ok_or(own_type.as_str());
        let record = Record(self.shard.records.get(handle));
        let stored = match record.outside() {
            Some(slot) => self.store(
                &Draft { key: self.key, value: Placed::Outside(slot), content_type, metadata },
                value_bytes,
                false,
            ),
            None => {
                let value = self.shard.entry(handle).value.to_bytes();
                self.store(
                    &Draft { key: self.key, value: Placed::Inside(&value), content_type, metadata },
                    value_bytes,
                    false,
                )
            }
        };
        // A record grows by a few bytes at most; when there is no memory at all, the entry stays as it is.
        drop(stored);
    }

    /// Removes the entry; false if there is none.
    pub fn remove(&mut self) -> bool {
        let Some(handle) = self.handle.take() else { return false };
        self.shard.hand_over(handle);
        let entry = self.shard.entry(handle);
        let bytes = entry.key.len() + entry.value.as_slice().len();
        self.shard.sizes.remove(bytes);
        self.shard.detach(handle, true);
        self.shard.index.remove(&mut self.shard.blocks, self.hash, handle);
        let place = self.shard.place_of_entry(handle);
        self.shard.ordered.remove(&mut self.shard.blocks, place);
        let units = self.shard.units(handle);
        self.shard.records.release(handle, units);
        true
    }

    /// Writes a record in place of what the key holds; `new_value` says that a value outside of the old one goes.
    fn store(&mut self, draft: &Draft<'_>, value_bytes: usize, new_value: bool) -> Result<()> {
        let shard = &mut *self.shard;
        let units = Arena::units_for(draft.length());
        let old = self.handle.map(|handle| (handle, shard.units(handle)));
        // What follows takes a page of each at most: from here on nothing can fail halfway.
        if !(shard.records.reserve() && shard.blocks.reserve()) {
            return Err(full());
        }
        let handle = match old {
            Some((same, old_units)) if old_units == units => same,
            _ => shard.records.allocate(units).ok_or_else(full)?,
        };
        if let Some((old, _)) = old {
            shard.hand_over(old);
            let bytes = draft.key.len() + shard.entry(old).value.as_slice().len();
            shard.sizes.remove(bytes);
            shard.detach(old, new_value);
        }
        draft.write(shard.records.get_mut(handle, units));
        match old {
            None => {
                // Whatever lay here before may have left its mark.
                shard.records.take_mark(handle);
                shard.attach(self.hash, draft.key, handle).ok_or_else(full)?;
            }
            Some((old, old_units)) if old != handle => {
                shard.index.replace(&mut shard.blocks, self.hash, old, handle);
                let place = shard.place_of_entry(old);
                shard.ordered.replace(&mut shard.blocks, place, handle);
                shard.records.release(old, old_units);
            }
            Some(_) => {}
        }
        if old.is_some() {
            shard.records.mark(handle);
        }
        shard.sizes.add(draft.key.len() + value_bytes);
        if let Some(deadline_ms) = draft.metadata.expire_time_ms {
            let place = shard.place_of_deadline(deadline_ms, draft.key);
            shard.deadlines.insert(&mut shard.blocks, place, handle).ok_or_else(full)?;
        }
        self.handle = Some(handle);
        Ok(())
    }
}
