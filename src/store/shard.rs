//! One shard: arena, index, deadlines and values outside, kept consistent by [`Place`].

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;

use super::{
    arena::Arena,
    content_types::ContentTypes,
    hash_of,
    index::Index,
    ordered::{Cursor, Ordered},
    record::{Draft, Placed, Record},
    view::View,
};
use crate::{
    error::{Error, Reason, Result},
    model::{EntryRef, Metadata},
};

/// Larger values live outside the arena and are shared with readers instead of copied.
pub const INSIDE_BYTES_MAX: usize = 8 * 1024;
/// What an entry of the deadline set costs, by the layout of the standard library's B-tree.
const DEADLINE_BYTES: usize = 24;

/// What a shard holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardTotals {
    pub keys: usize,
    pub data_bytes: usize,
    pub expiring: usize,
    pub allocated_bytes: usize,
}

/// A part of the map.
#[derive(Debug)]
pub struct Shard {
    arena: Arena,
    index: Index,
    ordered: Ordered,
    deadlines: BTreeSet<(u64, u32)>,
    types: ContentTypes,
    values: Vec<Option<Bytes>>,
    free_values: Vec<u32>,
    outside_bytes: usize,
    keys: usize,
    data_bytes: usize,
    hash_seed: u64,
    /// A view of the store that is being walked, and this shard's number: it gets entries before they change.
    pub(super) view: Option<(Arc<View>, usize)>,
}

impl Shard {
    pub fn new(hash_seed: u64) -> Self {
        Self {
            arena: Arena::default(),
            index: Index::default(),
            ordered: Ordered::default(),
            deadlines: BTreeSet::new(),
            types: ContentTypes::default(),
            values: Vec::new(),
            free_values: Vec::new(),
            outside_bytes: 0,
            keys: 0,
            data_bytes: 0,
            hash_seed,
            view: None,
        }
    }

    pub fn totals(&self) -> ShardTotals {
        ShardTotals {
            keys: self.keys,
            data_bytes: self.data_bytes,
            expiring: self.deadlines.len(),
            allocated_bytes: self.arena.allocated_bytes()
                + self.index.allocated_bytes()
                + self.ordered.allocated_bytes()
                + self.deadlines.len() * DEADLINE_BYTES
                + self.outside_bytes,
        }
    }

    pub fn find(&self, hash: u64, key: &[u8]) -> Option<EntryRef<'_>> {
        self.find_handle(hash, key).map(|handle| self.entry(handle))
    }

    pub fn place<'shard>(&'shard mut self, hash: u64, key: &'shard [u8]) -> Place<'shard> {
        let handle = self.find_handle(hash, key);
        Place { shard: self, hash, key, handle }
    }

    /// Adds up to `limit` entries whose deadline is at or before `time_ms`, oldest first.
    pub fn due(&self, time_ms: u64, limit: usize, due: &mut Vec<(Bytes, u64)>) {
        let oldest = self.deadlines.iter().take_while(|(deadline_ms, _)| *deadline_ms <= time_ms).take(limit);
        due.extend(oldest.map(|(_, handle)| {
            let record = Record(self.arena.get(*handle));
            (Bytes::copy_from_slice(record.key()), record.revision())
        }));
    }

    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.deadlines.first().map(|(deadline_ms, _)| *deadline_ms)
    }

    pub fn for_each(&self, visit: &mut impl FnMut(EntryRef<'_>)) {
        for handle in self.index.iter() {
            visit(self.entry(handle));
        }
    }

    /// The place before `key`, and behind all smaller keys; `None`: behind the last key.
    pub fn before(&self, key: Option<&[u8]>) -> Cursor {
        match key {
            Some(key) => self.ordered.before(key, |handle| Record(self.arena.get(handle)).key()),
            None => self.ordered.end(),
        }
    }

    /// The entry next to a place, and the place on its other side.
    pub fn step(&self, cursor: Cursor, descending: bool) -> Option<(EntryRef<'_>, Cursor)> {
        let stepped = if descending { self.ordered.previous(cursor) } else { self.ordered.next(cursor) };
        stepped.map(|(handle, cursor)| (self.entry(handle), cursor))
    }

    /// How many entries lie in `[start, end)`, of those that are not past their deadline at `time_ms`.
    pub fn count(&self, start: &[u8], end: Option<&[u8]>, time_ms: u64) -> usize {
        let all = self.ordered.count(self.before(Some(start)), self.before(end));
        let inside = |key: &[u8]| key >= start && end.is_none_or(|end| key < end);
        // Few: the expirer removes them within milliseconds.
        let due = self.deadlines.iter().take_while(|(deadline_ms, _)| *deadline_ms <= time_ms);
        all - due.filter(|(_, handle)| inside(Record(self.arena.get(*handle)).key())).count()
    }

    /// Adds an entry that is not there, to all but the ordered index, which [`Self::order`] builds. Gives its handle.
    pub fn load(&mut self, hash: u64, entry: &EntryRef<'_>) -> Result<u32> {
        let content_type = self.types.number(entry.content_type).ok_or(entry.content_type);
        let value = entry.value.as_slice();
        let value_placed = match value.len() {
            0..=INSIDE_BYTES_MAX => Placed::Inside(value),
            _ => Placed::Outside(self.keep_outside(value)),
        };
        let draft = Draft { key: entry.key, value: value_placed, content_type, metadata: entry.metadata };
        let handle = self.arena.allocate(Arena::units_for(draft.length())).ok_or_else(address_space_used_up)?;
        draft.write(self.arena.get_mut(handle));
        let (arena, seed) = (&self.arena, self.hash_seed);
        self.index.insert(hash, handle, |handle| hash_of(seed, Record(arena.get(handle)).key()));
        if let Some(deadline_ms) = entry.metadata.expire_time_ms {
            self.deadlines.insert((deadline_ms, handle));
        }
        self.keys += 1;
        self.data_bytes += entry.key.len() + value.len();
        Ok(handle)
    }

    /// Builds the ordered index from the handles of all loaded entries. False if a key is there twice.
    pub fn order(&mut self, mut handles: Vec<u32>) -> bool {
        let key_of = |handle: &u32| Record(self.arena.get(*handle)).key();
        // Stable, because that sort makes use of rows that are in order already.
        handles.sort_by(|left, right| key_of(left).cmp(key_of(right)));
        let unique = handles.windows(2).all(|pair| key_of(&pair[0]) < key_of(&pair[1]));
        self.ordered = Ordered::from_sorted(&handles);
        unique
    }

    /// An entry is about to change: a walk that has not come to it yet gets it as it is.
    fn hand_over(&self, handle: u32) {
        if let Some((view, number)) = &self.view {
            view.overtake(*number, &self.entry(handle));
        }
    }

    fn find_handle(&self, hash: u64, key: &[u8]) -> Option<u32> {
        self.index.find(hash, |handle| Record(self.arena.get(handle)).key() == key)
    }

    fn entry(&self, handle: u32) -> EntryRef<'_> {
        Record(self.arena.get(handle)).entry(&self.types, &self.values)
    }

    fn keep_outside(&mut self, value: &[u8]) -> u32 {
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
        let record = Record(self.arena.get(handle));
        let (deadline_ms, outside) = (record.expire_time_ms(), record.outside());
        if let Some(deadline_ms) = deadline_ms {
            self.deadlines.remove(&(deadline_ms, handle));
        }
        if let Some(slot) = outside.filter(|_| with_value) {
            self.drop_outside(slot);
        }
    }
}

fn address_space_used_up() -> Error {
    Error::new(Reason::MemoryLimit, "a shard's address space of 64 GiB is used up: delete keys")
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
        let record = Record(self.shard.arena.get(handle));
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
        // A record grows by 24 bytes at most; with the address space used up, the entry stays as it is.
        drop(stored);
    }

    /// Removes the entry; false if there is none.
    pub fn remove(&mut self) -> bool {
        let Some(handle) = self.handle.take() else { return false };
        self.shard.hand_over(handle);
        let entry = self.shard.entry(handle);
        self.shard.data_bytes -= entry.key.len() + entry.value.as_slice().len();
        self.shard.keys -= 1;
        self.shard.detach(handle, true);
        self.shard.index.remove(self.hash, handle);
        let arena = &self.shard.arena;
        self.shard.ordered.remove(self.key, |handle| Record(arena.get(handle)).key());
        self.shard.arena.release(handle);
        true
    }

    /// Writes a record in place of what the key holds; `new_value` says that a value outside of the old one goes.
    fn store(&mut self, draft: &Draft<'_>, value_bytes: usize, new_value: bool) -> Result<()> {
        let shard = &mut *self.shard;
        let units = Arena::units_for(draft.length());
        let old = self.handle;
        let handle = match old.filter(|old| shard.arena.units(*old) == units) {
            Some(same) => same,
            None => shard.arena.allocate(units).ok_or_else(address_space_used_up)?,
        };
        if let Some(old) = old {
            shard.hand_over(old);
            shard.data_bytes -= draft.key.len() + shard.entry(old).value.as_slice().len();
            shard.detach(old, new_value);
        }
        draft.write(shard.arena.get_mut(handle));
        match old {
            None => {
                shard.keys += 1;
                let (arena, seed) = (&shard.arena, shard.hash_seed);
                shard.index.insert(self.hash, handle, |handle| hash_of(seed, Record(arena.get(handle)).key()));
                shard.ordered.insert(self.key, handle, |handle| Record(arena.get(handle)).key());
            }
            Some(old) if old != handle => {
                shard.index.replace(self.hash, old, handle);
                let arena = &shard.arena;
                shard.ordered.replace(self.key, handle, |handle| Record(arena.get(handle)).key());
                shard.arena.release(old);
            }
            Some(_) => {}
        }
        shard.data_bytes += draft.key.len() + value_bytes;
        if let Some(deadline_ms) = draft.metadata.expire_time_ms {
            shard.deadlines.insert((deadline_ms, handle));
        }
        self.handle = Some(handle);
        Ok(())
    }
}
