//! Every key in order with what it takes, gathered beside the traffic: one shard at a time is looked into for a short
//! step, and its keys are copied out. Putting the shards' keys into one order happens without any lock.
//!
//! Not a view of one moment: of an entry that is written meanwhile it shows what it was, or what it became.

use super::{SHARDS, Store};

/// Entries that are copied under one lock at most.
const STEP_ENTRIES: usize = 256;
/// Bytes of keys after which a step ends.
const STEP_BYTES: usize = 64 * 1024;

/// What is told of an entry.
#[derive(Clone, Copy, Debug)]
pub struct Item<'row> {
    /// The key.
    pub key: &'row [u8],
    /// Bytes of key and value.
    pub bytes: u64,
    /// When it was last written.
    pub update_time_ms: u64,
}

/// A walk through all keys.
#[derive(Debug)]
pub struct Inventory<'store> {
    store: &'store Store,
    shards: [Rows; SHARDS],
}

/// What was copied out of a shard and is still to be told.
#[derive(Debug, Default)]
struct Rows {
    keys: Vec<u8>,
    rows: Vec<Row>,
    /// The first that is still to be told.
    next: usize,
    /// There is nothing behind them.
    ended: bool,
}

#[derive(Debug)]
struct Row {
    key_end: usize,
    bytes: u64,
    update_time_ms: u64,
}

impl<'store> Inventory<'store> {
    /// A walk from the first key on.
    pub fn new(store: &'store Store) -> Self {
        Self { store, shards: Default::default() }
    }

    /// Looks into one shard, and tells what is known to come next by then. False once everything is told.
    pub fn step(&mut self, visit: impl FnMut(Item<'_>)) -> bool {
        if let Some(number) = self.shards.iter().position(Rows::wants_more) {
            self.shards[number].copy_next(self.store, number);
        }
        if !self.shards.iter().any(Rows::wants_more) {
            self.tell(visit);
        }
        self.shards.iter().any(Rows::wants_more)
    }

    /// Tells keys in order until the next of some shard is not known.
    fn tell(&mut self, mut visit: impl FnMut(Item<'_>)) {
        loop {
            let heads = self.shards.iter().enumerate().filter_map(|(number, rows)| Some((rows.head()?, number)));
            let Some((item, number)) = heads.min_by_key(|(item, _)| item.key) else { return };
            visit(item);
            let rows = &mut self.shards[number];
            rows.next += 1;
            if rows.wants_more() {
                return;
            }
        }
    }
}

impl Rows {
    fn wants_more(&self) -> bool {
        self.next == self.rows.len() && !self.ended
    }

    fn head(&self) -> Option<Item<'_>> {
        let row = self.rows.get(self.next)?;
        Some(Item { key: self.key(self.next), bytes: row.bytes, update_time_ms: row.update_time_ms })
    }

    fn key(&self, number: usize) -> &[u8] {
        let start = number.checked_sub(1).map_or(0, |before| self.rows[before].key_end);
        &self.keys[start..self.rows[number].key_end]
    }

    /// All were told: copies the next ones.
    fn copy_next(&mut self, store: &Store, number: usize) {
        let last = self.rows.len().checked_sub(1).map(|last| self.key(last).to_vec());
        self.keys.clear();
        self.rows.clear();
        self.next = 0;
        let shard = store.shards[number].read();
        let mut cursor = match &last {
            Some(last) => shard.behind(last),
            None => shard.before(Some(&[])),
        };
        while self.rows.len() < STEP_ENTRIES && self.keys.len() < STEP_BYTES {
            let Some((entry, next)) = shard.step(cursor, false) else {
                self.ended = true;
                return;
            };
            self.keys.extend_from_slice(entry.key);
            self.rows.push(Row {
                key_end: self.keys.len(),
                bytes: (entry.key.len() + entry.value.as_slice().len()) as u64,
                update_time_ms: entry.metadata.update_time_ms,
            });
            cursor = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

    use super::*;
    use crate::model::Metadata;

    fn put(store: &Store, key: &[u8], value_bytes: usize) {
        let metadata = Metadata {
            revision: 1,
            create_revision: 1,
            version: 1,
            update_time_ms: 1_600_000_000_000,
            expire_time_ms: None,
        };
        store.write(key, |place| place.put(&Bytes::from(vec![7; value_bytes]), "", metadata)).unwrap();
    }

    fn key(random: &mut SmallRng) -> Vec<u8> {
        let length = if random.random_bool(0.1) { 2_000 } else { 4 };
        (0..length).map(|_| random.random()).collect()
    }

    #[test]
    fn every_key_is_told_once_in_order_with_what_it_takes() {
        let mut random = SmallRng::seed_from_u64(3);
        let (store, mut model) = (Store::new(), BTreeMap::new());
        for count in [0, 1, 20_000] {
            while model.len() < count {
                let (key, value_bytes) = (key(&mut random), random.random_range(0..500));
                put(&store, &key, value_bytes);
                model.insert(key, value_bytes);
            }
            let mut inventory = Inventory::new(&store);
            let mut expected = model.iter();
            let mut compare = |item: Item<'_>| {
                let (key, value_bytes) = expected.next().unwrap();
                assert_eq!((item.key, item.bytes), (&key[..], (key.len() + value_bytes) as u64));
                assert_eq!(item.update_time_ms, 1_600_000_000_000);
            };
            while inventory.step(&mut compare) {}
            assert!(expected.next().is_none(), "of {count}");
        }
    }

    #[test]
    fn what_is_written_meanwhile_disturbs_neither_order_nor_what_stays() {
        let mut random = SmallRng::seed_from_u64(4);
        let store = Store::new();
        let staying: Vec<_> = (0..5_000_u32).map(|number| (number * 2).to_be_bytes().to_vec()).collect();
        staying.iter().for_each(|key| put(&store, key, 10));
        let mut inventory = Inventory::new(&store);
        let mut told: Vec<Vec<u8>> = Vec::new();
        while inventory.step(|item| told.push(item.key.to_vec())) {
            for _ in 0..100 {
                let key = (random.random_range(0..5_000_u32) * 2 + 1).to_be_bytes();
                match random.random() {
                    true => put(&store, &key, 10),
                    false => drop(store.write(&key, |place| place.remove())),
                }
            }
        }
        assert!(told.is_sorted_by(|left, right| left < right), "in order, and none twice");
        assert!(told.iter().filter(|key| key[3] % 2 == 0).eq(&staying));
    }
}
