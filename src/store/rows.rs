//! What one thread has loaded into one shard, and how the rows of all threads become one row in the order of keys.
//!
//! A snapshot walks the shards that were, each in key order, and each shard to be gets keys of all of them: so entries come
//! in long runs that are in order already, and sorting merges those. Keys are looked up once, one behind another as they lie
//! in memory; a sort that asked for them would look them up all over memory, again and again. Nor does it compare them for
//! the most part: what all have in common was noticed while they were at hand, and the eight bytes behind that tell them
//! apart.

use std::cmp::Ordering;

/// Entries in the order of their coming.
#[derive(Debug, Default)]
pub struct Rows {
    /// Hashes of keys.
    hashes: Vec<u64>,
    handles: Vec<u32>,
    /// What all keys begin with; its length and the first key.
    common: Vec<u8>,
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
    /// None yet, with room for so many.
    pub fn with_room(entries: usize) -> Self {
        Self { hashes: Vec::with_capacity(entries), handles: Vec::with_capacity(entries), ..Self::default() }
    }

    /// Adds an entry.
    pub fn push(&mut self, hash: u64, handle: u32, key: &[u8], expires: bool) {
        if self.handles.is_empty() {
            self.common = key.to_vec();
        } else if !key.starts_with(&self.common) {
            self.common.truncate(common_bytes(&self.common, key));
        }
        self.hashes.push(hash);
        self.handles.push(handle);
        self.any_expires |= expires;
    }

    /// Hashes and handles.
    pub fn hashed(&self) -> impl Iterator<Item = (u64, u32)> {
        self.hashes.iter().copied().zip(self.handles.iter().copied())
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.handles.len()
    }

    /// Whether any of the entries expires.
    pub fn any_expires(&self) -> bool {
        self.any_expires
    }
}

fn common_bytes(left: &[u8], right: &[u8]) -> usize {
    left.iter().zip(right).take_while(|(left, right)| left == right).count()
}

/// A key with the eight bytes that follow what all keys begin with, as a number: where two such numbers differ, they are in
/// the order of the keys.
#[derive(Clone, Copy)]
struct Row<'key> {
    part: u64,
    handle: u32,
    key: &'key [u8],
}

impl<'key> Row<'key> {
    fn new(key: &'key [u8], handle: u32, common: usize) -> Self {
        let rest = key.get(common..).unwrap_or_default();
        let part = rest.first_chunk().copied().unwrap_or_else(|| {
            let mut part = [0; 8];
            part[..rest.len()].copy_from_slice(rest);
            part
        });
        Self { part: u64::from_be_bytes(part), handle, key }
    }

    fn compare(&self, other: &Self) -> Ordering {
        self.part.cmp(&other.part).then_with(|| self.key.cmp(other.key))
    }
}

/// Puts the rows of several threads in order.
pub fn in_order<'key>(all: &[Rows], key_of: impl Fn(u32) -> &'key [u8]) -> InOrder {
    let mut common = all.iter().filter(|rows| !rows.handles.is_empty()).map(|rows| &rows.common[..]);
    let first = common.next().unwrap_or_default();
    let common = common.map(|other| common_bytes(first, other)).min().unwrap_or(first.len());
    let handles = all.iter().flat_map(|rows| &rows.handles).copied();
    let mut rows = Vec::with_capacity(all.iter().map(Rows::len).sum());
    rows.extend(handles.map(|handle| Row::new(key_of(handle), handle, common)));
    rows.sort_by(Row::compare);
    InOrder {
        unique: rows.is_sorted_by(|row, next| row.compare(next).is_lt()),
        handles: rows.iter().map(|row| row.handle).collect(),
    }
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
        assert_eq!((first.any_expires(), second.any_expires()), (false, true));
        let ordered = in_order(&[first, second], |handle| &keys[handle as usize]);
        assert!(ordered.handles == (0..10_000).collect::<Vec<_>>() && ordered.unique);
        let nothing = in_order(&[Rows::default()], |handle| &keys[handle as usize]);
        assert!(nothing.handles.is_empty() && nothing.unique);
    }

    #[test]
    fn keys_that_go_on_alike_or_end_early_are_put_in_order() {
        let mut keys = Vec::new();
        for begin in ["", "a", "tenant/", "tenant/1234567", "tenant/12345678", "tenant/\0"] {
            for end in ["", "\0", "\0\0", "8", "88", "8\0", "890123456", "89012345", "\u{7f}"] {
                keys.push(format!("{begin}{end}").into_bytes());
            }
        }
        keys.sort();
        keys.dedup();
        for begin in [&b""[..], b"t", b"tenant/", b"tenant/1"] {
            let chosen = || (0_u32..).zip(&keys).filter(|(_, key)| key.starts_with(begin));
            let (mut one, mut other) = (Rows::default(), Rows::default());
            for (number, key) in chosen() {
                let rows = if number * 7 % 5 < 2 { &mut one } else { &mut other };
                rows.push(0, number, key, false);
            }
            let ordered = in_order(&[Rows::default(), other, one], |handle| &keys[handle as usize]);
            assert!(ordered.handles.into_iter().eq(chosen().map(|(number, _)| number)) && ordered.unique);
        }
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
