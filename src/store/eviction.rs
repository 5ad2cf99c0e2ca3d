//! Which entries go when memory is short: a SIEVE over the order of the hash index.
//!
//! SIEVE (Zhang et al., NSDI 2024) keeps entries in a queue, marks those that are used, and moves a hand from the oldest to
//! the youngest: a marked entry loses its mark and stays where it is, an unmarked one goes. It does better than LRU on most
//! traces of caches, since what is used once goes soon and what is used again is not moved at all. Its queue would cost
//! eight bytes a key; but all that matters of its order is that survivors keep their place, and that a new entry waits for
//! the hand between no time and a whole round. Places by hash give just that, for no memory. A mark is a bit beside the page
//! (see [`super::page`]), set under a read lock; walks set none, so that a scan keeps nothing alive.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::{SHARDS, Store, record::Record, shard::Shard};

/// Entries that are looked at under one lock at most.
const STEP_ENTRIES: usize = 256;

/// What is sought: candidates are picked until there are enough.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Only entries that have a deadline.
    pub expiring_only: bool,
    /// So many entries at most.
    pub entries_max: usize,
    /// No more once these bytes are reached.
    pub bytes: u64,
}

/// Where the hand is: in each shard a table, and a tag within it.
#[derive(Debug, Default)]
pub struct Hand {
    shard: usize,
    places: [(usize, u32); SHARDS],
}

/// What is to go.
#[derive(Debug, Default)]
pub struct Picked {
    /// Keys and the revisions that were seen.
    pub entries: Vec<(Bytes, u64)>,
    bytes: u64,
}

impl Store {
    /// From now on reads mark what they find.
    pub fn track_use(&self) {
        self.shards.iter().for_each(|shard| shard.write().records.tracks_use = true);
    }

    /// Moves the hand on, through all shards in turn, until enough is picked or it has come round: what lost its mark then
    /// may go the next time.
    pub fn pick(&self, hand: &mut Hand, wanted: Wanted) -> Picked {
        let mut picked = Picked::default();
        let mut came_round = [false; SHARDS];
        while came_round.contains(&false) {
            let number = hand.shard;
            hand.shard = (number + 1) % SHARDS;
            if came_round[number] {
                continue;
            }
            let (next, flow) = self.shards[number].read().pick(hand.places[number], wanted, &mut picked);
            came_round[number] = next == (0, 0);
            hand.places[number] = next;
            if flow.is_break() {
                break;
            }
        }
        picked
    }
}

impl Shard {
    /// Looks at the next entries of a table. Gives the hand's next place, which is (0, 0) after the last table.
    fn pick(
        &self,
        (table, from): (usize, u32),
        wanted: Wanted,
        picked: &mut Picked,
    ) -> ((usize, u32), ControlFlow<()>) {
        let first = u16::try_from(from).unwrap_or(u16::MAX);
        for (seen, (tag, handle)) in self.index.table_from(&self.blocks, table, first).enumerate() {
            if picked.entries.len() >= wanted.entries_max || picked.bytes >= wanted.bytes {
                return ((table, u32::from(tag)), ControlFlow::Break(()));
            }
            // Tags that are the same stay together: a step may be a little longer for that.
            if seen >= STEP_ENTRIES && u32::from(tag) != from {
                return ((table, u32::from(tag)), ControlFlow::Continue(()));
            }
            let record = Record(self.records.get(handle));
            let may_go = !wanted.expiring_only || record.expire_time_ms().is_some();
            if may_go && !self.records.take_mark(handle) {
                picked.bytes += self.entry_bytes(handle) as u64;
                picked.entries.push((Bytes::copy_from_slice(record.key()), record.revision()));
            }
        }
        let next = if table + 1 < self.index.tables() { (table + 1, 0) } else { (0, 0) };
        (next, ControlFlow::Continue(()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap, HashSet};

    use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

    use super::*;
    use crate::model::Metadata;

    fn put(store: &Store, key: &str, revision: u64, expire_time_ms: Option<u64>) {
        let metadata =
            Metadata { revision, create_revision: revision, version: 1, update_time_ms: 1 << 41, expire_time_ms };
        store.write(key.as_bytes(), |place| place.put(&Bytes::from_static(b"value"), "", metadata)).unwrap();
    }

    fn evict(store: &Store, hand: &mut Hand, expiring_only: bool, entries_max: usize) -> Vec<String> {
        let wanted = Wanted { expiring_only, entries_max, bytes: u64::MAX };
        let picked = store.pick(hand, wanted).entries.into_iter().map(|(key, _)| {
            assert!(store.write(&key, |place| place.remove()));
            String::from_utf8(key.to_vec()).unwrap()
        });
        picked.collect()
    }

    #[test]
    fn what_was_read_since_the_hand_came_by_stays_and_the_rest_goes() {
        let store = Store::new();
        store.track_use();
        (0..2_000).for_each(|number| put(&store, &format!("{number}"), number, None));
        let is_used = |number: u64| number.is_multiple_of(4);
        (0..2_000).filter(|number| is_used(*number)).for_each(|number| {
            store.read(format!("{number}").as_bytes(), |entry| assert!(entry.is_some()));
        });
        let mut hand = Hand::default();
        let gone: HashSet<_> = evict(&store, &mut hand, false, 1_500).into_iter().collect();
        assert_eq!(gone.len(), 1_500);
        assert!(
            gone.iter().all(|key| !is_used(key.parse().unwrap())),
            "each used one has lost its mark, not its place"
        );
        // The hand may have stopped before the last of them: these lose their mark first.
        let next = evict(&store, &mut hand, false, usize::MAX).len();
        let last = evict(&store, &mut hand, false, usize::MAX).len();
        assert_eq!(next + last, 500, "the next rounds take them");
    }

    #[test]
    fn only_entries_with_a_deadline_go_where_that_is_asked() {
        let store = Store::new();
        store.track_use();
        (0..1_000).for_each(|number| {
            put(&store, &format!("{number}"), number, number.is_multiple_of(2).then_some(1 << 42));
        });
        let gone = evict(&store, &mut Hand::default(), true, usize::MAX);
        assert_eq!(gone.len(), 500);
        assert!(gone.iter().all(|key| key.parse::<u64>().unwrap().is_multiple_of(2)));
        assert!(evict(&store, &mut Hand::default(), true, usize::MAX).is_empty());
    }

    #[test]
    fn a_pick_is_bounded_in_entries_and_bytes() {
        let store = Store::new();
        store.track_use();
        (0..1_000).for_each(|number| put(&store, &format!("{number:05}"), number, None));
        assert_eq!(evict(&store, &mut Hand::default(), false, 7).len(), 7);
        let wanted = Wanted { expiring_only: false, entries_max: usize::MAX, bytes: 500 };
        let picked = store.pick(&mut Hand::default(), wanted);
        assert!(picked.bytes >= 500 && picked.bytes < 600 && picked.entries.len() > 5, "{picked:?}");
    }

    /// Hits of an LRU cache of the same size.
    fn hits_of_lru(trace: &[u64], capacity: usize) -> usize {
        let (mut by_key, mut by_time, mut hits) = (HashMap::new(), BTreeMap::new(), 0);
        for (time, key) in trace.iter().enumerate() {
            if let Some(before) = by_key.insert(*key, time) {
                by_time.remove(&before);
                hits += 1;
            }
            by_time.insert(time, *key);
            if by_key.len() > capacity
                && let Some((_, oldest)) = by_time.pop_first()
            {
                by_key.remove(&oldest);
            }
        }
        hits
    }

    #[test]
    fn it_hits_more_often_than_lru_on_skewed_reads_with_scans_between_them() {
        let mut random = SmallRng::seed_from_u64(8);
        let mut once = 1_000_000;
        let trace: Vec<u64> = (0..120_000)
            .map(|_| {
                if random.random_bool(0.2) {
                    // Read once and never again.
                    once += 1;
                    once
                } else {
                    // Zipf-like: the logarithm of the rank is even.
                    (20_000_f64.powf(random.random::<f64>())) as u64
                }
            })
            .collect();
        let capacity = 1_000;
        let store = Store::new();
        store.track_use();
        let (mut hand, mut hits) = (Hand::default(), 0);
        for (time, key) in trace.iter().enumerate() {
            let key = format!("{key}");
            if store.read(key.as_bytes(), |entry| entry.is_some()) {
                hits += 1;
                continue;
            }
            put(&store, &key, time as u64 + 1, None);
            if store.totals().keys > capacity as u64 {
                evict(&store, &mut hand, false, 1);
            }
        }
        let lru = hits_of_lru(&trace, capacity);
        assert!(hits > lru, "{hits} hits, LRU {lru}");
    }
}
