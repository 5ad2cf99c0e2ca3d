//! An ordered index of handles: leaves of a few hundred in key order, and a vector of leaves above them.
//!
//! Four bytes a key and a third of slack, where a B-tree of keys would hold each key a second time. Adding and removing
//! moves part of a leaf, or of the vector of leaves: a few kilobytes at ten million keys.

/// Handles in a leaf at most.
const LEAF_MAX: usize = 512;
/// Neighbours that have so few together become one.
const MERGE_MAX: usize = LEAF_MAX / 2;

/// The index.
#[derive(Debug, Default)]
pub struct Ordered {
    leaves: Vec<Vec<u32>>,
}

/// A place between two keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    leaf: usize,
    slot: usize,
}

/// Handles in a leaf of an index that is built at once: room for some more before it splits.
const LEAF_BUILT: usize = LEAF_MAX / 8 * 7;

impl Ordered {
    /// An index of handles that are in the order of their keys.
    pub fn from_sorted(handles: &[u32]) -> Self {
        let leaf = |some: &[u32]| {
            let mut leaf = Vec::with_capacity(LEAF_MAX);
            leaf.extend_from_slice(some);
            leaf
        };
        Self { leaves: handles.chunks(LEAF_BUILT).map(leaf).collect() }
    }

    /// Adds a handle whose key is not there.
    pub fn insert<'key>(&mut self, key: &[u8], handle: u32, key_of: impl Fn(u32) -> &'key [u8]) {
        let Cursor { leaf, slot } = self.before(key, key_of);
        let in_last = leaf + 1 == self.leaves.len();
        match self.leaves.get_mut(leaf) {
            None => {
                let mut first = Vec::with_capacity(LEAF_MAX);
                first.push(handle);
                self.leaves.push(first);
            }
            Some(handles) if handles.len() < LEAF_MAX => handles.insert(slot, handle),
            // Keys that come in order fill one leaf after another.
            Some(_) if slot == LEAF_MAX && in_last => {
                let mut last = Vec::with_capacity(LEAF_MAX);
                last.push(handle);
                self.leaves.push(last);
            }
            Some(handles) => {
                let mut upper = Vec::with_capacity(LEAF_MAX);
                upper.extend(handles.drain(LEAF_MAX / 2..));
                match slot.checked_sub(LEAF_MAX / 2) {
                    Some(slot) if slot > 0 => upper.insert(slot, handle),
                    _ => handles.insert(slot, handle),
                }
                self.leaves.insert(leaf + 1, upper);
            }
        }
    }

    /// Takes out the handle of a key that is there.
    pub fn remove<'key>(&mut self, key: &[u8], key_of: impl Fn(u32) -> &'key [u8]) {
        let Some(Cursor { leaf, slot }) = self.find(key, key_of) else { return };
        let handles = &mut self.leaves[leaf];
        handles.remove(slot);
        let length = handles.len();
        let joins = |other: Option<&Vec<u32>>| other.is_some_and(|other| length + other.len() <= MERGE_MAX);
        if length == 0 {
            self.leaves.remove(leaf);
        } else if joins(self.leaves.get(leaf + 1)) {
            let after = self.leaves.remove(leaf + 1);
            self.leaves[leaf].extend(after);
        } else if leaf > 0 && joins(self.leaves.get(leaf - 1)) {
            let handles = self.leaves.remove(leaf);
            self.leaves[leaf - 1].extend(handles);
        }
    }

    /// Puts another handle in the place of a key's.
    pub fn replace<'key>(&mut self, key: &[u8], handle: u32, key_of: impl Fn(u32) -> &'key [u8]) {
        if let Some(Cursor { leaf, slot }) = self.find(key, key_of) {
            self.leaves[leaf][slot] = handle;
        }
    }

    /// Where the handle of a key is.
    fn find<'key>(&self, key: &[u8], key_of: impl Fn(u32) -> &'key [u8]) -> Option<Cursor> {
        let (handle, behind) = self.next(self.before(key, &key_of))?;
        (key_of(handle) == key).then_some(Cursor { slot: behind.slot - 1, ..behind })
    }

    /// The place before `key` and behind all smaller keys.
    pub fn before<'key>(&self, key: &[u8], key_of: impl Fn(u32) -> &'key [u8]) -> Cursor {
        let leaf = self.leaves.partition_point(|handles| handles.first().is_some_and(|first| key_of(*first) < key));
        // The key may lie within the leaf before the first one that begins at or behind it.
        let leaf = leaf.saturating_sub(1);
        let slot = self.leaves.get(leaf).map_or(0, |handles| handles.partition_point(|handle| key_of(*handle) < key));
        Cursor { leaf, slot }
    }

    /// The place behind the last key.
    pub fn end(&self) -> Cursor {
        Cursor { leaf: self.leaves.len(), slot: 0 }
    }

    /// The handle behind a place, and the place behind it.
    pub fn next(&self, mut cursor: Cursor) -> Option<(u32, Cursor)> {
        loop {
            let handles = self.leaves.get(cursor.leaf)?;
            if let Some(handle) = handles.get(cursor.slot) {
                return Some((*handle, Cursor { slot: cursor.slot + 1, ..cursor }));
            }
            cursor = Cursor { leaf: cursor.leaf + 1, slot: 0 };
        }
    }

    /// The handle before a place, and the place before it.
    pub fn previous(&self, mut cursor: Cursor) -> Option<(u32, Cursor)> {
        while cursor.slot == 0 {
            cursor.leaf = cursor.leaf.checked_sub(1)?;
            cursor.slot = self.leaves.get(cursor.leaf)?.len();
        }
        let slot = cursor.slot - 1;
        let handle = self.leaves.get(cursor.leaf)?.get(slot)?;
        Some((*handle, Cursor { slot, ..cursor }))
    }

    /// How many handles lie between two places: adds up whole leaves.
    pub fn count(&self, from: Cursor, to: Cursor) -> usize {
        if (to.leaf, to.slot) <= (from.leaf, from.slot) {
            return 0;
        }
        let whole: usize = self.leaves[from.leaf..to.leaf.min(self.leaves.len())].iter().map(Vec::len).sum();
        whole + to.slot - from.slot
    }

    /// Bytes that the index holds.
    pub fn allocated_bytes(&self) -> usize {
        self.leaves.len() * (LEAF_MAX * 4 + size_of::<Vec<u32>>())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn it_is_an_ordered_map(steps in proptest::collection::vec((any::<bool>(), 0_u16..3_000), 1..6_000)) {
            let keys: Vec<[u8; 2]> = (0..3_000_u16).map(u16::to_be_bytes).collect();
            let key_of = |handle: u32| &keys[handle as usize][..];
            let mut ordered = Ordered::default();
            let mut model = BTreeMap::new();
            for (adds, number) in steps {
                let (key, handle) = (number.to_be_bytes(), u32::from(number));
                if adds || model.len() < 1_500 {
                    if model.insert(key, handle).is_none() {
                        ordered.insert(&key, handle, key_of);
                    }
                } else {
                    model.remove(&key);
                    ordered.remove(&key, key_of);
                }
            }
            let start = ordered.before(&[], key_of);
            let forward = std::iter::successors(ordered.next(start), |(_, cursor)| ordered.next(*cursor));
            prop_assert!(forward.map(|(handle, _)| handle).eq(model.values().copied()));
            let backward = std::iter::successors(ordered.previous(ordered.end()), |(_, cursor)| ordered.previous(*cursor));
            prop_assert!(backward.map(|(handle, _)| handle).eq(model.values().rev().copied()));
            for bound in (0..3_000_u16).step_by(77).map(u16::to_be_bytes) {
                let counted = ordered.count(ordered.before(&bound, key_of), ordered.end());
                prop_assert_eq!(counted, model.range(bound..).count());
            }
        }
    }
}
