//! An ordered index of handles: leaves of a few hundred, each a [block](super::block), and a vector of leaves above them.
//!
//! Little more than four bytes a key, where a B-tree of keys would hold each key a second time. Adding and removing moves
//! part of a leaf, or of the vector of leaves: a few kilobytes at ten million keys. The order is the caller's: a place is
//! found by `is_before`, which says whether a handle's entry lies before it.

use super::{
    arena::Arena,
    block::{Block, Kind},
};

/// Handles in a leaf at most.
const LEAF_MAX: usize = 512;
/// Neighbours that have so few together become one.
const MERGE_MAX: usize = LEAF_MAX / 2;

#[derive(Clone, Copy, Debug)]
struct Leaf {
    block: Block,
    /// Its first handle: searching the vector of leaves looks at no block.
    first: u32,
}

/// The index.
#[derive(Debug)]
pub struct Ordered {
    leaves: Vec<Leaf>,
    length: usize,
    kind: Kind,
}

/// A place between two entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    leaf: usize,
    slot: usize,
}

/// Handles in a leaf of an index that is built at once: room for some more before it splits.
const LEAF_BUILT: usize = LEAF_MAX / 8 * 7;

impl Ordered {
    /// An empty index of this kind.
    pub fn new(kind: Kind) -> Self {
        Self { leaves: Vec::new(), length: 0, kind }
    }

    /// An index of handles that are in order. `None` when no memory is left.
    pub fn from_sorted(arena: &mut Arena, kind: Kind, handles: &[u32]) -> Option<Self> {
        let mut leaves = Vec::with_capacity(handles.len().div_ceil(LEAF_BUILT));
        for some in handles.chunks(LEAF_BUILT) {
            let entries: Vec<_> = some.iter().map(|handle| (*handle, 0)).collect();
            let mut block = Block::EMPTY;
            block.fill(arena, kind, &entries)?;
            leaves.push(Leaf { block, first: some[0] });
        }
        Some(Self { leaves, length: handles.len(), kind })
    }

    /// How many handles it holds.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Adds a handle at a place. `None` when no memory is left; then nothing changes.
    pub fn insert(&mut self, arena: &mut Arena, place: Cursor, handle: u32) -> Option<()> {
        let in_last = place.leaf + 1 >= self.leaves.len();
        match self.leaves.get_mut(place.leaf) {
            Some(leaf) if leaf.block.len() < LEAF_MAX => {
                leaf.block.insert(arena, self.kind, place.slot, handle, 0)?;
                leaf.first = leaf.block.at(arena, 0);
            }
            Some(_) if !(in_last && place.slot == LEAF_MAX) => {
                self.split(arena, place.leaf)?;
                let place = match place.slot.checked_sub(LEAF_MAX / 2) {
                    Some(slot) if slot > 0 => Cursor { leaf: place.leaf + 1, slot },
                    _ => place,
                };
                return self.insert(arena, place, handle);
            }
            // The first leaf; and keys that come in order fill one leaf after another.
            _ => {
                let mut block = Block::EMPTY;
                block.insert(arena, self.kind, 0, handle, 0)?;
                self.leaves.push(Leaf { block, first: handle });
            }
        }
        self.length += 1;
        Some(())
    }

    fn split(&mut self, arena: &mut Arena, number: usize) -> Option<()> {
        let mut lower = self.leaves[number].block;
        let all: Vec<_> = lower.handles(arena).map(|handle| (handle, 0)).collect();
        let mut upper = Block::EMPTY;
        upper.fill(arena, self.kind, &all[LEAF_MAX / 2..])?;
        if lower.fill(arena, self.kind, &all[..LEAF_MAX / 2]).is_none() {
            upper.release(arena, self.kind);
            return None;
        }
        self.leaves[number].block = lower;
        self.leaves.insert(number + 1, Leaf { block: upper, first: all[LEAF_MAX / 2].0 });
        Some(())
    }

    /// Takes out the handle behind a place.
    pub fn remove(&mut self, arena: &mut Arena, place: Cursor) {
        let Some((_, Cursor { leaf: number, slot })) = self.next(arena, place) else { return };
        let leaf = &mut self.leaves[number];
        leaf.block.remove(arena, self.kind, slot - 1);
        self.length -= 1;
        if leaf.block.len() == 0 {
            self.forget(number);
            return;
        }
        leaf.first = leaf.block.at(arena, 0);
        if !self.merge(arena, number) && number > 0 {
            self.merge(arena, number - 1);
        }
    }

    /// Makes a leaf and the next one, where they are small, one.
    fn merge(&mut self, arena: &mut Arena, number: usize) -> bool {
        let (Some(lower), Some(upper)) = (self.leaves.get(number), self.leaves.get(number + 1)) else { return false };
        let (mut lower, mut upper) = (lower.block, upper.block);
        if lower.len() + upper.len() > MERGE_MAX {
            return false;
        }
        let all: Vec<_> = lower.handles(arena).chain(upper.handles(arena)).map(|handle| (handle, 0)).collect();
        // Without memory for the common leaf the two stay.
        if lower.fill(arena, self.kind, &all).is_none() {
            return false;
        }
        upper.release(arena, self.kind);
        self.leaves[number].block = lower;
        self.forget(number + 1);
        true
    }

    fn forget(&mut self, number: usize) {
        self.leaves.remove(number);
        if self.leaves.len() < self.leaves.capacity() / 4 {
            self.leaves.shrink_to(self.leaves.len() * 2);
        }
    }

    /// Puts another handle in the stead of the one behind a place.
    pub fn replace(&mut self, arena: &mut Arena, place: Cursor, handle: u32) {
        let Some((_, Cursor { leaf: number, slot })) = self.next(arena, place) else { return };
        let leaf = &mut self.leaves[number];
        leaf.block.set(arena, self.kind, slot - 1, handle);
        if slot == 1 {
            leaf.first = handle;
        }
    }

    /// The block of the leaf around a place has moved.
    pub fn moved(&mut self, place: Cursor, from: u32, to: u32) {
        // The place before a leaf's first entry may be counted to the leaf before.
        let leaves = self.leaves.iter_mut().skip(place.leaf).take(2);
        for leaf in leaves.filter(|leaf| leaf.block.handle == from) {
            leaf.block.handle = to;
        }
    }

    /// The place before which everything is that `is_before`.
    pub fn place(&self, arena: &Arena, is_before: impl Fn(u32) -> bool) -> Cursor {
        let leaf = self.leaves.partition_point(|leaf| is_before(leaf.first));
        // It may lie within the leaf before the first one that begins behind it.
        let leaf = leaf.saturating_sub(1);
        let Some(block) = self.leaves.get(leaf).map(|leaf| leaf.block) else { return Cursor { leaf, slot: 0 } };
        let (mut low, mut high) = (0, block.len());
        while low < high {
            let middle = (low + high) / 2;
            if is_before(block.at(arena, middle)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Cursor { leaf, slot: low }
    }

    /// The place before a handle that is in the index. Order leads to its leaf only, and the handle to its slot: each entry that
    /// is looked at costs a miss of the cache, and a leaf lies in one piece.
    pub fn place_of(&self, arena: &Arena, handle: u32, is_before: impl Fn(u32) -> bool) -> Cursor {
        let behind = self.leaves.partition_point(|leaf| is_before(leaf.first));
        if self.leaves.get(behind).is_some_and(|leaf| leaf.first == handle) {
            return Cursor { leaf: behind, slot: 0 };
        }
        let leaf = behind.saturating_sub(1);
        match self.leaves.get(leaf).and_then(|found| found.block.slot_of(arena, handle)) {
            Some(slot) => Cursor { leaf, slot },
            None => self.place(arena, is_before),
        }
    }

    /// The place behind everything.
    pub fn end(&self) -> Cursor {
        Cursor { leaf: self.leaves.len(), slot: 0 }
    }

    /// The handle behind a place, and the place behind it.
    pub fn next(&self, arena: &Arena, mut cursor: Cursor) -> Option<(u32, Cursor)> {
        loop {
            let leaf = self.leaves.get(cursor.leaf)?;
            if cursor.slot < leaf.block.len() {
                let handle = leaf.block.at(arena, cursor.slot);
                return Some((handle, Cursor { slot: cursor.slot + 1, ..cursor }));
            }
            cursor = Cursor { leaf: cursor.leaf + 1, slot: 0 };
        }
    }

    /// The handle before a place, and the place before it.
    pub fn previous(&self, arena: &Arena, mut cursor: Cursor) -> Option<(u32, Cursor)> {
        while cursor.slot == 0 {
            cursor.leaf = cursor.leaf.checked_sub(1)?;
            cursor.slot = self.leaves.get(cursor.leaf)?.block.len();
        }
        let slot = cursor.slot - 1;
        let handle = self.leaves.get(cursor.leaf)?.block.at(arena, slot);
        Some((handle, Cursor { slot, ..cursor }))
    }

    /// Every handle in order.
    pub fn iter<'index>(&'index self, arena: &'index Arena) -> impl Iterator<Item = u32> + 'index {
        self.leaves.iter().flat_map(|leaf| leaf.block.handles(arena))
    }

    /// How many handles lie between two places: adds up whole leaves.
    pub fn count(&self, from: Cursor, to: Cursor) -> usize {
        if (to.leaf, to.slot) <= (from.leaf, from.slot) {
            return 0;
        }
        let whole: usize =
            self.leaves[from.leaf..to.leaf.min(self.leaves.len())].iter().map(|leaf| leaf.block.len()).sum();
        whole + to.slot - from.slot
    }

    /// Bytes that the index holds outside of the arena.
    pub fn allocated_bytes(&self) -> usize {
        self.leaves.capacity() * size_of::<Leaf>()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn it_is_an_ordered_set(steps in proptest::collection::vec((any::<bool>(), 0_u32..3_000), 1..6_000)) {
            let (mut arena, mut ordered, mut model) = (Arena::default(), Ordered::new(Kind::Keys), BTreeSet::new());
            for (adds, handle) in steps {
                let place = ordered.place(&arena, |other| other < handle);
                if adds || model.len() < 1_500 {
                    if model.insert(handle) {
                        ordered.insert(&mut arena, place, handle).unwrap();
                    }
                } else if model.remove(&handle) {
                    let place = ordered.place_of(&arena, handle, |other| other < handle);
                    prop_assert_eq!(ordered.next(&arena, place).map(|(found, _)| found), Some(handle));
                    ordered.remove(&mut arena, place);
                }
            }
            prop_assert_eq!(ordered.len(), model.len());
            prop_assert!(ordered.iter(&arena).eq(model.iter().copied()));
            let next = |cursor| ordered.next(&arena, cursor);
            let forward = std::iter::successors(next(ordered.place(&arena, |_| false)), |(_, cursor)| next(*cursor));
            prop_assert!(forward.map(|(handle, _)| handle).eq(model.iter().copied()));
            let previous = |cursor| ordered.previous(&arena, cursor);
            let backward = std::iter::successors(previous(ordered.end()), |(_, cursor)| previous(*cursor));
            prop_assert!(backward.map(|(handle, _)| handle).eq(model.iter().rev().copied()));
            for bound in (0..3_000).step_by(77) {
                let counted = ordered.count(ordered.place(&arena, |handle| handle < bound), ordered.end());
                prop_assert_eq!(counted, model.range(bound..).count());
            }
        }
    }
}
