//! What one thread has loaded into one shard, and how the rows of all threads become one row in the order of keys.
//!
//! A snapshot walks the shards that were, each in key order, and each shard to be gets keys of all of them: so entries come
//! in long runs that are in order already. Runs are noticed while their keys are at hand and merged at the end, which looks
//! each key up once; a sort would look keys up all over memory, again and again.

use itertools::{Either, Itertools as _};

/// Entries that are in order already, so many or more, are a run.
const RUN_MIN: usize = 64;
/// Keys of a run that are looked up at once: the processor waits for their memory together, not for one after another.
const LOOK_UP: usize = 32;

/// Entries in the order of their coming.
#[derive(Debug, Default)]
pub struct Rows {
    /// Hashes of keys, and handles.
    rows: Vec<(u64, u32)>,
    /// Where runs begin.
    runs: Vec<usize>,
    last_key: Vec<u8>,
    any_expires: bool,
}

/// Handles in the order of their keys.
#[derive(Debug)]
pub struct InOrder {
    pub handles: Vec<u32>,
    /// No key is there twice.
    pub unique: bool,
}

impl Rows {
    /// Adds an entry.
    pub fn push(&mut self, hash: u64, handle: u32, key: &[u8], expires: bool) {
        if self.rows.is_empty() || key < &self.last_key[..] {
            self.runs.push(self.rows.len());
        }
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        self.rows.push((hash, handle));
        self.any_expires |= expires;
    }

    /// Hashes and handles.
    pub fn hashed(&self) -> &[(u64, u32)] {
        &self.rows
    }

    /// Whether any of the entries expires.
    pub fn any_expires(&self) -> bool {
        self.any_expires
    }

    fn runs(&self) -> impl Iterator<Item = &[(u64, u32)]> {
        let ends = self.runs.iter().skip(1).copied().chain([self.rows.len()]);
        self.runs.iter().zip(ends).map(|(start, end)| &self.rows[*start..end])
    }
}

/// Puts the rows of several threads in order.
pub fn in_order<'key>(all: &[Rows], key_of: impl Fn(u32) -> &'key [u8]) -> InOrder {
    let with_key = |(_, handle): &(u64, u32)| (key_of(*handle), *handle);
    let (long, short): (Vec<_>, Vec<_>) = all.iter().flat_map(Rows::runs).partition(|run| run.len() >= RUN_MIN);
    let mut single: Vec<_> = short.into_iter().flatten().map(with_key).collect();
    single.sort_unstable();
    let looked_up = |some: &[(u64, u32)]| some.iter().map(with_key).collect::<Vec<_>>();
    let runs = long.into_iter().map(|run| Either::Left(run.chunks(LOOK_UP).flat_map(looked_up)));
    let runs = runs.chain([Either::Right(single.into_iter())]);
    let mut ordered =
        InOrder { handles: Vec::with_capacity(all.iter().map(|rows| rows.rows.len()).sum()), unique: true };
    let mut last: Option<&[u8]> = None;
    for (key, handle) in runs.kmerge_by(|(left, _), (right, _)| left < right) {
        ordered.unique &= last.is_none_or(|last| last < key);
        ordered.handles.push(handle);
        last = Some(key);
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(keys: &[[u8; 4]], numbers: impl Iterator<Item = u32>) -> Rows {
        let mut rows = Rows::default();
        numbers.for_each(|number| rows.push(0, number, &keys[number as usize], number == 7));
        rows
    }

    #[test]
    fn runs_and_what_is_between_them_are_put_in_order() {
        let keys: Vec<_> = (0..10_000_u32).map(u32::to_be_bytes).collect();
        let first = rows(&keys, (0..5).flat_map(|first| (first..8_000).step_by(10)));
        let second = rows(&keys, (5..10).flat_map(|first| (first..8_000).step_by(10)).chain((8_000..10_000).rev()));
        assert_eq!((first.runs().count(), second.runs().count()), (5, 5 + 1_999));
        assert_eq!((first.any_expires(), second.any_expires()), (false, true));
        let ordered = in_order(&[first, second], |handle| &keys[handle as usize]);
        assert!(ordered.handles == (0..10_000).collect::<Vec<_>>() && ordered.unique);
        let nothing = in_order(&[Rows::default()], |handle| &keys[handle as usize]);
        assert!(nothing.handles.is_empty() && nothing.unique);
    }

    #[test]
    fn a_key_that_is_there_twice_is_noticed_in_runs_and_between_them() {
        let keys: Vec<_> = (0..1_000_u32).map(u32::to_be_bytes).collect();
        let unique = |all: &[Rows]| in_order(all, |handle| &keys[handle as usize]).unique;
        assert!(!unique(&[rows(&keys, 0..500), rows(&keys, 499..1_000)]));
        assert!(!unique(&[rows(&keys, (0..500).chain([499]).chain(500..1_000))]));
        assert!(!unique(&[rows(&keys, (0..10).rev()), rows(&keys, [3].into_iter())]));
        assert!(unique(&[rows(&keys, 0..499), rows(&keys, 499..1_000)]));
    }
}
