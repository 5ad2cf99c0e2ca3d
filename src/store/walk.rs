//! Reads and writes of several keys. Each holds the locks it needs together, taken in ascending order, so that it sees, or
//! leaves, one state.

use std::ops::Deref;

use bytes::Bytes;
use parking_lot::{RwLockReadGuard, RwLockWriteGuard};

use super::{Place, SHARDS, Store, hash_of, ordered::Cursor, shard::Shard};
use crate::model::EntryRef;

/// Where a walk goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// At the next key.
    Next,
    /// At the first key from this one on; descending: at the last one before it.
    Jump(Bytes),
    /// Nowhere.
    Stop,
}

/// The places of several keys, whose shards are locked together.
#[derive(Debug)]
pub struct Places<'store> {
    guards: Vec<Option<RwLockWriteGuard<'store, Shard>>>,
    places: Vec<(u64, usize)>,
}

impl Places<'_> {
    /// Runs `write` on the place of one of the keys, by its number among them.
    pub fn at<R>(&mut self, number: usize, key: &Bytes, write: impl FnOnce(&mut Place<'_>) -> R) -> Option<R> {
        let (hash, shard) = *self.places.get(number)?;
        let shard = self.guards.get_mut(shard)?.as_mut()?;
        Some(write(&mut shard.place(hash, key)))
    }
}

impl Store {
    /// Of each key its hash, and the number of its shard.
    fn places<'keys>(&self, keys: impl Iterator<Item = &'keys Bytes>) -> Vec<(u64, usize)> {
        let hashes = keys.map(|key| hash_of(self.hash_seed, key));
        hashes.map(|hash| (hash, Self::shard_number(hash))).collect()
    }

    /// Visits many keys in the order given, under their shards' read locks.
    pub fn read_many(&self, keys: &[Bytes], mut visit: impl FnMut(usize, Option<EntryRef<'_>>)) {
        let places = self.places(keys.iter());
        let mut guards: Vec<Option<RwLockReadGuard<'_, Shard>>> = Vec::with_capacity(SHARDS);
        for (number, shard) in self.shards.iter().enumerate() {
            guards.push(places.iter().any(|(_, needed)| *needed == number).then(|| shard.read()));
        }
        for (place, (key, (hash, shard))) in keys.iter().zip(places).enumerate() {
            visit(place, guards[shard].as_ref().and_then(|shard| shard.find(hash, key)));
        }
    }

    /// Locks the shards of all these keys together, in ascending order, and hands their places out one by one: nobody
    /// sees a part of what `write` does.
    pub fn write_many<R>(&self, keys: &[&Bytes], write: impl FnOnce(&mut Places<'_>) -> R) -> R {
        let places = self.places(keys.iter().copied());
        let mut guards: Vec<Option<RwLockWriteGuard<'_, Shard>>> = Vec::with_capacity(SHARDS);
        for (number, shard) in self.shards.iter().enumerate() {
            guards.push(places.iter().any(|(_, needed)| *needed == number).then(|| shard.write()));
        }
        let mut locked = Places { guards, places };
        let result = write(&mut locked);
        for (number, guard) in locked.guards.iter().enumerate() {
            if let Some(shard) = guard {
                self.account(number, shard);
            }
        }
        result
    }

    /// Visits the entries of `[start, end)` in key order, under all read locks: to be kept short by `visit`. `locked` runs
    /// first, even if there is nothing to visit.
    pub fn walk(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        descending: bool,
        locked: impl FnOnce(),
        visit: impl FnMut(EntryRef<'_>) -> Step,
    ) {
        let guards: Vec<_> = self.shards.iter().map(|shard| shard.read()).collect();
        locked();
        walk_shards(&guards, start, end, descending, visit);
    }

    /// Runs `write` on the places of the first `limit` entries of `[start, end)`, all shards being locked together; gives
    /// the key of the first entry behind them.
    pub fn write_first(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        limit: usize,
        mut write: impl FnMut(&mut Place<'_>),
    ) -> Option<Bytes> {
        let mut guards: Vec<_> = self.shards.iter().map(|shard| shard.write()).collect();
        let mut keys: Vec<Bytes> = Vec::with_capacity(limit);
        let mut next = None;
        walk_shards(&guards, start, end, false, |entry| {
            let key = Bytes::copy_from_slice(entry.key);
            if keys.len() == limit {
                next = Some(key);
                return Step::Stop;
            }
            keys.push(key);
            Step::Next
        });
        for key in &keys {
            let hash = hash_of(self.hash_seed, key);
            write(&mut guards[Self::shard_number(hash)].place(hash, key));
        }
        for (number, shard) in guards.iter().enumerate() {
            self.account(number, shard);
        }
        next
    }

    /// How many entries lie in `[start, end)`, of those that are not past their deadline at the time that `locked` gives,
    /// which runs under the locks.
    pub fn count(&self, start: &[u8], end: Option<&[u8]>, locked: impl FnOnce() -> u64) -> u64 {
        let guards: Vec<_> = self.shards.iter().map(|shard| shard.read()).collect();
        let time_ms = locked();
        guards.iter().map(|shard| shard.count(start, end, time_ms) as u64).sum()
    }
}

/// Visits entries of locked shards in key order.
fn walk_shards<Guard: Deref<Target = Shard>>(
    guards: &[Guard],
    start: &[u8],
    end: Option<&[u8]>,
    descending: bool,
    mut visit: impl FnMut(EntryRef<'_>) -> Step,
) {
    let seek = |key: Option<&[u8]>| -> Vec<_> {
        guards.iter().map(|shard| shard.step(shard.before(key), descending)).collect()
    };
    // The next entry of each shard. Sixteen of them: a scan for the first one beats a heap.
    let mut heads: Vec<Option<(EntryRef<'_>, Cursor)>> = seek(if descending { end } else { Some(start) });
    loop {
        let keys = heads.iter().enumerate().filter_map(|(shard, head)| head.map(|(entry, _)| (entry.key, shard)));
        let first = if descending { keys.max() } else { keys.min() };
        let Some((key, shard)) = first else { return };
        if key < start || end.is_some_and(|end| key >= end) {
            return;
        }
        let Some((entry, cursor)) = heads[shard] else { return };
        match visit(entry) {
            Step::Next => heads[shard] = guards[shard].step(cursor, descending),
            Step::Jump(to) => heads = seek(Some(&to)),
            Step::Stop => return,
        }
    }
}
