//! Memory comes back after deletes: the emptiest pages of an arena are emptied, piece by piece in short steps, and go.
//!
//! Nobody notices but by the lock, which a step holds for some tens of microseconds: a piece keeps its bytes, and the
//! handles that name it are exchanged.

use std::time::{Duration, Instant};

use super::{
    Store,
    block::{self, Kind},
    hash_of,
    record::Record,
    shard::Shard,
};

/// How long a step holds a shard's lock. A piece takes a few microseconds to move, a large one some more.
const STEP: Duration = Duration::from_micros(40);

impl Store {
    /// Whether any shard holds much more memory than it uses.
    pub fn is_sparse(&self) -> bool {
        self.shards.iter().any(|shard| shard.read().is_sparse())
    }

    /// Takes one step of evacuation in every shard that holds much more memory than it uses, and hands each step's time to
    /// `pause`. Gives how many steps it took: none when there is nothing to do.
    pub fn evacuate(&self, mut pause: impl FnMut(Duration)) -> usize {
        let mut steps = 0;
        for (number, shard) in self.shards.iter().enumerate() {
            if !shard.read().is_sparse() {
                continue;
            }
            let mut shard = shard.write();
            let started = Instant::now();
            shard.evacuate(started + STEP);
            self.account(number, &shard);
            drop(shard);
            steps += 1;
            pause(started.elapsed());
        }
        steps
    }
}

impl Shard {
    fn is_sparse(&self) -> bool {
        self.records.is_sparse() || self.blocks.is_sparse()
    }

    /// Moves pieces out of the emptiest pages until the time is over or enough is done.
    fn evacuate(&mut self, until: Instant) {
        while self.move_record().or_else(|| self.move_block()).is_some() {
            if Instant::now() >= until {
                return;
            }
        }
    }

    fn move_record(&mut self) -> Option<()> {
        let old = self.records.next_to_move()?;
        let units = self.units(old);
        let new = self.records.allocate(units)?;
        self.records.copy(old, new, units);
        if self.records.take_mark(old) {
            self.records.mark(new);
        } else {
            self.records.take_mark(new);
        }
        let record = Record(self.records.get(new));
        let hash = hash_of(self.hash_seed, record.key());
        let by_key = self.place_of_entry(old);
        let by_deadline = record.expire_time_ms().map(|deadline_ms| self.place_of_deadline(deadline_ms, record.key()));
        self.index.replace(&mut self.blocks, hash, old, new);
        self.ordered.replace(&mut self.blocks, by_key, new);
        if let Some(place) = by_deadline {
            self.deadlines.replace(&mut self.blocks, place, new);
        }
        self.records.release(old, units);
        Some(())
    }

    fn move_block(&mut self) -> Option<()> {
        let old = self.blocks.next_to_move()?;
        let piece = self.blocks.get(old);
        let kind = Kind::of(piece);
        let units = kind.units(block::room_of(piece));
        let new = self.blocks.allocate(units)?;
        self.blocks.copy(old, new, units);
        let piece = self.blocks.get(new);
        let first = Record(self.records.get(block::first_of(piece)));
        match kind {
            Kind::Table => self.index.moved(block::table_of(piece), new),
            Kind::Keys => self.ordered.moved(self.place_of_key(first.key()), old, new),
            Kind::Deadlines => {
                let place = self.place_of_deadline(first.expire_time_ms().unwrap_or(0), first.key());
                self.deadlines.moved(place, old, new);
            }
        }
        self.blocks.release(old, units);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

    use super::*;
    use crate::{model::Metadata, store::Step};

    type Model = BTreeMap<Vec<u8>, (Vec<u8>, Option<u64>)>;

    fn put(store: &Store, model: &mut Model, random: &mut SmallRng) {
        let key = format!("{:032}", random.random_range(0..1_000_000_u32)).into_bytes();
        let length =
            if random.random_bool(0.01) { random.random_range(0..20_000) } else { random.random_range(0..400) };
        let value = vec![random.random(); length];
        let expire_time_ms = random.random_bool(0.3).then(|| random.random_range(0..1 << 45));
        let metadata =
            Metadata { revision: 7, create_revision: 7, version: 1, update_time_ms: 1 << 41, expire_time_ms };
        store.write(&key, |place| place.put(&Bytes::from(value.clone()), "text/plain", metadata)).unwrap();
        model.insert(key, (value, expire_time_ms));
    }

    fn remove(store: &Store, model: &mut Model, random: &mut SmallRng) {
        let bound = format!("{:032}", random.random_range(0..1_000_000_u32)).into_bytes();
        let Some(key) = model.range(bound..).next().map(|(key, _)| key.clone()) else { return };
        assert!(store.write(&key, |place| place.remove()));
        model.remove(&key);
    }

    /// By hash, by key and by deadline, every entry is found and is what it was.
    fn compare(store: &Store, model: &Model) {
        for (key, (value, _)) in model {
            store.read(key, |entry| assert_eq!(entry.unwrap().value.as_slice(), &value[..]));
        }
        let mut walked = model.iter();
        store.walk(
            b"",
            None,
            false,
            || {},
            |entry| {
                let (key, (value, expire_time_ms)) = walked.next().unwrap();
                assert_eq!((entry.key, entry.value.as_slice()), (&key[..], &value[..]));
                assert_eq!(entry.metadata.expire_time_ms, *expire_time_ms);
                Step::Next
            },
        );
        assert!(walked.next().is_none());
        let deadlines = model.values().filter_map(|(_, expire_time_ms)| *expire_time_ms);
        assert_eq!(store.next_deadline_ms(), deadlines.clone().min());
        let due = deadlines.filter(|deadline_ms| *deadline_ms <= 1 << 44).count() as u64;
        assert_eq!(store.count(b"", None, || 1 << 44), model.len() as u64 - due);
    }

    #[test]
    fn memory_comes_back_after_deletes_at_random_and_every_index_still_finds_everything() {
        let mut random = SmallRng::seed_from_u64(5);
        let (store, mut model) = (Store::new(), Model::new());
        while model.len() < 150_000 {
            put(&store, &mut model, &mut random);
        }
        let full = store.totals();
        while model.len() > 15_000 {
            remove(&store, &mut model, &mut random);
        }
        assert!(store.is_sparse() && store.totals().allocated_bytes * 2 > full.allocated_bytes);
        let mut longest = Duration::ZERO;
        let mut steps = 0;
        while store.evacuate(|elapsed| longest = longest.max(elapsed)) > 0 {
            // Life goes on beside it.
            put(&store, &mut model, &mut random);
            remove(&store, &mut model, &mut random);
            steps += 1;
            if steps % 5_000 == 0 {
                compare(&store, &model);
            }
        }
        compare(&store, &model);
        let left = store.totals();
        assert!(left.allocated_bytes * 4 < full.allocated_bytes, "{left:?} of {full:?}");
        assert!(steps > 10, "in small steps, the longest {longest:?}");
        while !model.is_empty() {
            remove(&store, &mut model, &mut random);
        }
        assert!(store.totals().allocated_bytes < 9 << 20, "{:?}", store.totals());
    }

    #[test]
    fn a_full_store_is_left_alone() {
        let mut random = SmallRng::seed_from_u64(6);
        let (store, mut model) = (Store::new(), Model::new());
        // Enough for six pages in each shard: of three or four, one that was just begun is a quarter, and is moved.
        while model.len() < 100_000 {
            put(&store, &mut model, &mut random);
        }
        assert_eq!(store.evacuate(|_| {}), 0);
    }
}
