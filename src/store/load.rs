//! Fills an empty store from many threads, much faster than one write after another: nothing is looked up, each thread fills
//! pages of its own without a lock, and the indexes are built at the end: that of keys in order from rows that are sorted
//! already for the most part.

use parking_lot::Mutex;

use super::{
    SHARDS, Store,
    arena::Arena,
    filling::Filling,
    hash_of,
    record::{Draft, Placed},
    rows::Rows,
    shard::{INSIDE_BYTES_MAX, full},
    sizes::Sizes,
};
use crate::{error::Result, model::EntryRef};

/// What one thread has put into the store.
#[derive(Debug)]
pub struct Loader<'store> {
    store: &'store Store,
    /// Of each shard what was put there.
    parts: Vec<Part>,
}

#[derive(Debug, Default)]
struct Part {
    rows: Rows,
    sizes: Sizes,
    /// The page that is being filled.
    filling: Option<Filling>,
    /// The content type of the last entry and its number, if it has one.
    content_type: Option<(Box<str>, Option<u16>)>,
}

/// What all threads have put, by shard.
#[derive(Debug)]
pub struct Loaded(Vec<Mutex<Vec<Rows>>>);

impl Default for Loaded {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| Mutex::default()).collect())
    }
}

impl<'store> Loader<'store> {
    /// A loader for one thread, which will put about so many entries. The store is empty but for what loaders put into it,
    /// and nobody reads or writes it.
    pub fn new(store: &'store Store, entries: usize) -> Self {
        let of_shard = entries / SHARDS;
        // Chance gives some shards more; room that is left over is never touched.
        let part = |_| Part { rows: Rows::with_room(of_shard + of_shard / 8), ..Part::default() };
        Self { store, parts: (0..SHARDS).map(part).collect() }
    }

    /// Puts an entry into the store. No key may come twice, here or from another thread.
    pub fn add(&mut self, entry: &EntryRef<'_>) -> Result<()> {
        let hash = hash_of(self.store.hash_seed, entry.key);
        let number = Store::shard_number(hash);
        let (part, shard) = (&mut self.parts[number], &self.store.shards[number]);
        let content_type = match &part.content_type {
            Some((last, number)) if **last == *entry.content_type => *number,
            _ => {
                let number = shard.write().types.number(entry.content_type);
                part.content_type = Some((entry.content_type.into(), number));
                number
            }
        };
        let value = entry.value.as_slice();
        let value_placed = match value.len() {
            0..=INSIDE_BYTES_MAX => Placed::Inside(value),
            _ => Placed::Outside(shard.write().keep_outside(value)),
        };
        let content_type = content_type.ok_or(entry.content_type);
        let draft = Draft { key: entry.key, value: value_placed, content_type, metadata: entry.metadata };
        let units = Arena::units_for(draft.length());
        if !part.filling.as_ref().is_some_and(|filling| filling.has_room(units)) {
            let records = &mut shard.write().records;
            if let Some(filled) = part.filling.take() {
                records.take_in(filled);
            }
            part.filling = records.lend();
        }
        let (handle, piece) = part.filling.as_mut().ok_or_else(full)?.add(units);
        draft.write(piece);
        part.sizes.add(entry.key.len() + value.len());
        part.rows.push(hash, handle, entry.key, entry.metadata.expire_time_ms.is_some());
        Ok(())
    }

    /// This thread has put everything into the store.
    pub fn finish(self, loaded: &Loaded) {
        let all = loaded.0.iter().zip(&self.store.shards);
        for (part, (rows, shard)) in self.parts.into_iter().zip(all) {
            shard.write().take_in(part.filling, &part.sizes);
            rows.lock().push(part.rows);
        }
    }
}

impl Loaded {
    /// How many shards are to be put in order.
    pub fn shards(&self) -> usize {
        self.0.len()
    }

    /// Puts a shard in order when all loaders have finished. False if a key is there twice, or no memory is left for it.
    pub fn order(&self, store: &Store, shard_number: usize) -> bool {
        let rows = std::mem::take(&mut *self.0[shard_number].lock());
        let mut shard = store.shards[shard_number].write();
        let in_order = shard.order(&rows).unwrap_or(false);
        store.account(shard_number, &shard);
        in_order
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Metadata, ValueRef},
        store::Step,
    };

    fn entries<'a>(keys: &'a [Vec<u8>], value: &'a [u8]) -> Vec<EntryRef<'a>> {
        let metadata = |revision| Metadata {
            revision,
            create_revision: revision,
            version: 1,
            update_time_ms: 7,
            expire_time_ms: revision.is_multiple_of(3).then_some(revision),
        };
        let entry = |(number, key): (usize, &'a Vec<u8>)| EntryRef {
            key,
            value: ValueRef::Inline(value),
            content_type: "a/b",
            metadata: metadata(number as u64 + 1),
        };
        keys.iter().enumerate().map(entry).collect()
    }

    #[test]
    fn a_store_filled_by_two_threads_is_the_store_that_writes_would_have_made() {
        let keys: Vec<_> =
            (0..20_000_u32).map(|number| (number.wrapping_mul(2_654_435_761)).to_be_bytes().to_vec()).collect();
        let large = vec![5; 9_000];
        let (first, second) = (entries(&keys[..15_000], b"small"), entries(&keys[15_000..], &large));
        let (loaded, loading) = (Loaded::default(), Store::new());
        std::thread::scope(|scope| {
            for part in [&first, &second] {
                let (loading, loaded) = (&loading, &loaded);
                scope.spawn(move || {
                    let mut loader = Loader::new(loading, part.len());
                    part.iter().for_each(|entry| loader.add(entry).unwrap());
                    loader.finish(loaded);
                });
            }
        });
        for shard in 0..loaded.shards() {
            assert!(loaded.order(&loading, shard));
        }
        let writing = Store::new();
        for entry in first.iter().chain(&second) {
            writing
                .write(entry.key, |place| place.put(&entry.value.to_bytes(), entry.content_type, entry.metadata))
                .unwrap();
        }
        let walked = |store: &Store| {
            let mut walked = Vec::new();
            store.walk(
                b"",
                None,
                false,
                || {},
                |entry| {
                    walked.push(entry.to_pb(true));
                    Step::Next
                },
            );
            walked
        };
        assert!(walked(&loading) == walked(&writing));
        let totals = |store: &Store| (store.totals().keys, store.totals().data_bytes, store.totals().expiring);
        assert_eq!(totals(&loading), totals(&writing));
        assert_eq!(loading.sizes(|| {}), writing.sizes(|| {}));
        assert_eq!(loading.next_deadline_ms(), writing.next_deadline_ms());
        // And it goes on like any other.
        for key in &keys {
            assert!(loading.write(key, |place| place.remove()));
        }
        assert_eq!(totals(&loading), (0, 0, 0));
    }

    #[test]
    fn a_key_that_comes_twice_is_found() {
        let keys: Vec<_> = [7_u32, 1, 9, 7].iter().map(|number| number.to_be_bytes().to_vec()).collect();
        let (store, loaded) = (Store::new(), Loaded::default());
        let mut loader = Loader::new(&store, 0);
        entries(&keys, b"v").iter().for_each(|entry| loader.add(entry).unwrap());
        loader.finish(&loaded);
        assert_eq!((0..loaded.shards()).filter(|shard| !loaded.order(&store, *shard)).count(), 1);
    }
}
