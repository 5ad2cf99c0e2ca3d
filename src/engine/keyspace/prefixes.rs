//! Bytes by prefix, as a folder's size is told: a prefix ends with a delimiter, and all that begins with it counts.
//!
//! Keys come in order, so that all of one prefix come together: only the prefixes of the current key are open, one of each
//! depth, and of those that are closed the largest are kept. What is kept is exact, however many prefixes there are.

use bytes::Bytes;

use super::top::Top;
use crate::{
    limits::{KEYSPACE_DEPTH_MAX, KEYSPACE_PREFIX_BYTES_MAX},
    store::{Item, Tally},
};

/// A prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// Its bytes, the delimiter being the last.
    pub bytes: Bytes,
    /// All that begins with it.
    pub entries: Tally,
    /// When the last of them was written.
    pub update_time_ms: u64,
}

/// The prefixes with so many delimiters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// The largest.
    pub prefixes: Vec<Prefix>,
    /// How many there are besides.
    pub others: u64,
    /// What begins with these.
    pub other_entries: Tally,
    /// What has no prefix of this depth.
    pub bare_entries: Tally,
}

/// Counts keys that come in order.
#[derive(Debug)]
pub struct Prefixes {
    is_delimiter: [bool; 256],
    levels: Vec<Counted>,
    /// The longest prefix of the last key that counts …
    current: Vec<u8>,
    /// … and each shorter one in it.
    open: Vec<Open>,
}

#[derive(Debug)]
struct Counted {
    top: Top<Sum>,
    level: Level,
}

#[derive(Debug)]
struct Open {
    length: usize,
    sum: Sum,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Sum {
    bytes: u64,
    keys: u64,
    update_time_ms: u64,
}

impl Prefixes {
    /// Nothing yet. Of each depth up to `depth` the `prefixes_max` largest are to be kept.
    pub fn new(delimiters: &[u8], depth: usize, prefixes_max: usize) -> Self {
        let mut is_delimiter = [false; 256];
        delimiters.iter().for_each(|byte| is_delimiter[usize::from(*byte)] = true);
        let counted = || Counted { top: Top::new(prefixes_max), level: Level::default() };
        let levels = (0..depth.min(KEYSPACE_DEPTH_MAX)).map(|_| counted()).collect();
        Self { is_delimiter, levels, current: Vec::new(), open: Vec::new() }
    }

    /// Counts an entry, whose key lies behind all that came before.
    pub fn add(&mut self, item: &Item<'_>) {
        let same = self.open.iter().take_while(|open| item.key.starts_with(&self.current[..open.length])).count();
        self.close(same);
        let known = self.open.last().map_or(0, |open| open.length);
        let looked_at = &item.key[..item.key.len().min(KEYSPACE_PREFIX_BYTES_MAX)];
        let delimiters =
            looked_at.iter().enumerate().skip(known).filter(|(_, byte)| self.is_delimiter[usize::from(**byte)]);
        let new = delimiters.take(self.levels.len() - same).map(|(at, _)| Open { length: at + 1, sum: Sum::default() });
        self.open.extend(new);
        self.current.clear();
        self.current.extend_from_slice(&item.key[..self.open.last().map_or(0, |open| open.length)]);
        for Open { sum, .. } in &mut self.open {
            sum.keys += 1;
            sum.bytes += item.bytes;
            sum.update_time_ms = sum.update_time_ms.max(item.update_time_ms);
        }
        for Counted { level, .. } in &mut self.levels[self.open.len()..] {
            level.bare_entries.add(item.bytes);
        }
    }

    /// What was counted: a level for each depth, from 1 on.
    pub fn finish(mut self) -> Vec<Level> {
        self.close(0);
        let finished = self.levels.into_iter().map(|Counted { top, level }| {
            let prefixes = top.into_sorted().map(|(bytes, Sum { keys, bytes: sum, update_time_ms })| Prefix {
                bytes,
                entries: Tally { keys, bytes: sum },
                update_time_ms,
            });
            Level { prefixes: prefixes.collect(), ..level }
        });
        finished.collect()
    }

    /// Closes prefixes until so many are open.
    fn close(&mut self, remaining: usize) {
        while self.open.len() > remaining {
            let Some(Open { length, sum }) = self.open.pop() else { return };
            let Counted { top, level } = &mut self.levels[self.open.len()];
            if let Some(other) = top.offer(sum.bytes, &self.current[..length], sum) {
                level.others += 1;
                level.other_entries.merge(Tally { keys: other.keys, bytes: other.bytes });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn count(keys: &BTreeMap<Vec<u8>, u64>, depth: usize, prefixes_max: usize) -> Vec<Level> {
        let mut prefixes = Prefixes::new(b"/:", depth, prefixes_max);
        for (key, bytes) in keys {
            prefixes.add(&Item { key, bytes: *bytes, update_time_ms: 100 - *bytes });
        }
        prefixes.finish()
    }

    /// The prefix with so many delimiters.
    fn prefix_of(key: &[u8], depth: usize) -> Option<&[u8]> {
        let mut ends = key.iter().enumerate().filter(|(_, byte)| b"/:".contains(*byte)).map(|(at, _)| at + 1);
        ends.nth(depth - 1).map(|end| &key[..end])
    }

    proptest! {
        #[test]
        fn prefixes_are_what_counting_them_all_would_give(
            keys in proptest::collection::btree_map("[ab/:]{1,6}".prop_map(String::into_bytes), 1_u64..100, 0..80),
            depth in 0_usize..4,
            prefixes_max in 0_usize..6,
        ) {
            let levels = count(&keys, depth, prefixes_max);
            prop_assert_eq!(levels.len(), depth);
            for (level, depth) in levels.iter().zip(1..) {
                let mut all: BTreeMap<&[u8], (Tally, u64)> = BTreeMap::new();
                let mut bare = Tally::default();
                for (key, bytes) in &keys {
                    match prefix_of(key, depth) {
                        Some(prefix) => {
                            let (entries, time_ms) = all.entry(prefix).or_default();
                            entries.add(*bytes);
                            *time_ms = (*time_ms).max(100 - *bytes);
                        }
                        None => bare.add(*bytes),
                    }
                }
                let mut expected: Vec<_> = all
                    .into_iter()
                    .map(|(prefix, (entries, update_time_ms))| {
                        Prefix { bytes: Bytes::copy_from_slice(prefix), entries, update_time_ms }
                    })
                    .collect();
                // Stable: of equals the first by name stays.
                expected.sort_by_key(|prefix| std::cmp::Reverse(prefix.entries.bytes));
                let others = expected.split_off(prefixes_max.min(expected.len()));
                let mut other_entries = Tally::default();
                others.iter().for_each(|prefix| other_entries.merge(prefix.entries));
                let expected =
                    Level { prefixes: expected, others: others.len() as u64, other_entries, bare_entries: bare };
                prop_assert_eq!(level, &expected);
            }
        }
    }

    #[test]
    fn no_delimiter_is_looked_for_behind_the_longest_prefix() {
        let key = |delimiter_at: usize| [vec![b'a'; delimiter_at], b"/b".to_vec()].concat();
        for (delimiter_at, counts) in [(KEYSPACE_PREFIX_BYTES_MAX - 1, true), (KEYSPACE_PREFIX_BYTES_MAX, false)] {
            let level = count(&BTreeMap::from([(key(delimiter_at), 1)]), 1, 1).remove(0);
            assert_eq!((level.prefixes.len() == 1, level.bare_entries.keys == 0), (counts, counts));
        }
    }
}
