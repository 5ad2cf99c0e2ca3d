//! A hash index of handles that grows and shrinks step by step: extendible hashing over small sorted tables.
//!
//! A directory points to tables of up to 512 handles. A table is a [block](super::block) in which handles are sorted by 16
//! bits of their hash, the tag: its place is found by interpolation, within a cache line or two, and no place is empty, so
//! that a key costs little more than six bytes. A full table splits in two, two small neighbours become one again, and only
//! the directory of 4-byte numbers ever doubles or halves: the longest step looks at 512 handles, however many keys there are.
//!
//! Bits of a hash: 0–15 tag, 32–35 shard, 36–59 directory.

use super::{
    arena::Arena,
    block::{Block, Kind},
};

/// A table with this many handles splits.
const SPLIT_AT: usize = 512;
/// How many handles a table has on average, at most, when all are put in at once: room is left for more.
const BUILT: usize = 384;
/// Two tables with so many together become one.
const MERGE_AT: usize = SPLIT_AT / 2;
const DIRECTORY_SHIFT: u32 = 36;
const DEPTH_MAX: usize = 24;

#[derive(Clone, Copy, Debug)]
struct Table {
    block: Block,
    /// The directory bits that its handles share, `depth` of them.
    prefix: u32,
    depth: u8,
}

/// The index.
#[derive(Debug)]
pub struct Index {
    directory: Vec<u32>,
    tables: Vec<Table>,
    depth: usize,
    /// How many tables there are of each depth.
    at_depth: [u32; DEPTH_MAX + 1],
}

impl Default for Index {
    fn default() -> Self {
        let mut at_depth = [0; DEPTH_MAX + 1];
        at_depth[0] = 1;
        let first = Table { block: Block::EMPTY, prefix: 0, depth: 0 };
        Self { directory: vec![0], tables: vec![first], depth: 0, at_depth }
    }
}

fn directory_bits(hash: u64, depth: usize) -> u32 {
    (hash >> DIRECTORY_SHIFT) as u32 & ((1 << depth) - 1)
}

fn tag_of(hash: u64) -> u16 {
    hash as u16
}

fn tag_at(tags: &[u8], slot: usize) -> u16 {
    u16::from_le_bytes([tags[slot * 2], tags[slot * 2 + 1]])
}

/// The first slot whose tag is not below `tag`: tags are spread evenly, so it is near where it should be.
fn first_slot(tags: &[u8], tag: u16) -> usize {
    let length = tags.len() / 2;
    let mut slot = (usize::from(tag) * length) >> 16;
    while slot > 0 && tag_at(tags, slot - 1) >= tag {
        slot -= 1;
    }
    while slot < length && tag_at(tags, slot) < tag {
        slot += 1;
    }
    slot
}

impl Index {
    /// An index of handles with their hashes, in any order, which are gone through twice: dealt out to tables, sorted there
    /// and laid down, many times as fast as one insertion after another. `hash_of` gives the hash of any handle. `None` when
    /// no memory is left.
    pub fn of<Rows: Iterator<Item = (u64, u32)>>(
        arena: &mut Arena,
        count: usize,
        rows: impl Fn() -> Rows,
        hash_of: impl Fn(u32) -> u64,
    ) -> Option<Self> {
        let depth = (0..DEPTH_MAX).find(|depth| count >> depth <= BUILT).unwrap_or(DEPTH_MAX);
        let mut at_depth = [0; DEPTH_MAX + 1];
        at_depth[depth] = 1 << depth;
        let mut index = Self { directory: (0..1 << depth).collect(), tables: Vec::new(), depth, at_depth };
        index.tables.reserve_exact(1 << depth);
        // Where each table's rows go next: first where they begin, at last where they end.
        let mut places = vec![0; (1 << depth) + 1];
        rows().for_each(|(hash, _)| places[directory_bits(hash, depth) as usize + 1] += 1);
        (0..1 << depth).for_each(|number| places[number + 1] += places[number]);
        // Tags above handles.
        let mut dealt = vec![0; count];
        for (hash, handle) in rows() {
            let place = &mut places[directory_bits(hash, depth) as usize];
            dealt[*place] = u64::from(tag_of(hash)) << 32 | u64::from(handle);
            *place += 1;
        }
        let (mut rest, mut entries, mut begin) = (&mut dealt[..], Vec::with_capacity(SPLIT_AT), 0);
        for number in 0..1 << depth {
            let end = places[number as usize];
            let (mine, others) = rest.split_at_mut(end - begin);
            (rest, begin) = (others, end);
            mine.sort_unstable();
            entries.clear();
            entries.extend(mine.iter().map(|row| (*row as u32, (*row >> 32) as u16)));
            let mut block = Block::EMPTY;
            if !entries.is_empty() {
                block.fill(arena, Kind::Table, &entries)?;
                block.set_table(arena, number);
            }
            index.tables.push(Table { block, prefix: number, depth: depth as u8 });
        }
        // Chance fills a few tables more than they may be.
        let mut number = 0;
        while let Some(table) = index.tables.get(number) {
            if table.block.len() > SPLIT_AT && usize::from(table.depth) < DEPTH_MAX {
                index.split(arena, number, &hash_of)?;
            } else {
                number += 1;
            }
        }
        Some(index)
    }

    fn number_of(&self, hash: u64) -> usize {
        self.directory[directory_bits(hash, self.depth) as usize] as usize
    }

    /// Table and slot of the handle with this hash that `is_it`.
    fn locate(&self, arena: &Arena, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<(usize, usize)> {
        let number = self.number_of(hash);
        let block = &self.tables[number].block;
        let tags = block.tags(arena);
        let tag = tag_of(hash);
        (first_slot(tags, tag)..block.len())
            .take_while(|slot| tag_at(tags, *slot) == tag)
            .find(|slot| is_it(block.at(arena, *slot)))
            .map(|slot| (number, slot))
    }

    /// The handle with this hash that `is_it`.
    pub fn find(&self, arena: &Arena, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let (number, slot) = self.locate(arena, hash, is_it)?;
        Some(self.tables[number].block.at(arena, slot))
    }

    /// Adds a handle that is not there. `hash_of` gives the hash of any handle. `None` when no memory is left.
    pub fn insert(&mut self, arena: &mut Arena, hash: u64, handle: u32, hash_of: impl Fn(u32) -> u64) -> Option<()> {
        loop {
            let number = self.number_of(hash);
            let table = &mut self.tables[number];
            if table.block.len() < SPLIT_AT || usize::from(table.depth) == DEPTH_MAX {
                let slot = first_slot(table.block.tags(arena), tag_of(hash));
                table.block.insert(arena, Kind::Table, slot, handle, tag_of(hash))?;
                table.block.set_table(arena, number as u32);
                return Some(());
            }
            self.split(arena, number, &hash_of)?;
        }
    }

    /// Puts `new` in the place of `old`, which has the same hash.
    pub fn replace(&mut self, arena: &mut Arena, hash: u64, old: u32, new: u32) {
        if let Some((number, slot)) = self.locate(arena, hash, |handle| handle == old) {
            self.tables[number].block.set(arena, Kind::Table, slot, new);
        }
    }

    /// Takes a handle out.
    pub fn remove(&mut self, arena: &mut Arena, hash: u64, handle: u32) {
        let Some((number, slot)) = self.locate(arena, hash, |other| other == handle) else { return };
        let block = &mut self.tables[number].block;
        block.remove(arena, Kind::Table, slot);
        block.set_table(arena, number as u32);
        self.merge(arena, number);
    }

    /// A table's block has moved.
    pub fn moved(&mut self, number: u32, to: u32) {
        if let Some(table) = self.tables.get_mut(number as usize) {
            table.block.handle = to;
        }
    }

    /// How many tables there are.
    pub fn tables(&self) -> usize {
        self.tables.len()
    }

    /// Tags and handles of a table, in the order of their tags, from one on.
    pub fn table_from<'index>(
        &'index self,
        arena: &'index Arena,
        number: usize,
        tag: u16,
    ) -> impl Iterator<Item = (u16, u32)> + 'index {
        let block = self.tables.get(number).map_or(Block::EMPTY, |table| table.block);
        let tags = block.tags(arena);
        (first_slot(tags, tag)..block.len()).map(move |slot| (tag_at(tags, slot), block.at(arena, slot)))
    }

    /// Every handle.
    pub fn iter<'index>(&'index self, arena: &'index Arena) -> impl Iterator<Item = u32> + 'index {
        self.tables.iter().flat_map(|table| table.block.handles(arena))
    }

    /// Bytes that the index holds outside of the arena.
    pub fn allocated_bytes(&self) -> usize {
        self.directory.capacity() * 4 + self.tables.capacity() * size_of::<Table>()
    }

    fn split(&mut self, arena: &mut Arena, number: usize, hash_of: impl Fn(u32) -> u64) -> Option<()> {
        let Table { mut block, prefix, depth } = self.tables[number];
        let old_depth = usize::from(depth);
        let mut halves = [Vec::with_capacity(SPLIT_AT), Vec::with_capacity(SPLIT_AT)];
        for handle in block.handles(arena) {
            let hash = hash_of(handle);
            halves[(hash >> DIRECTORY_SHIFT >> old_depth) as usize & 1].push((handle, tag_of(hash)));
        }
        let mut high = Block::EMPTY;
        high.fill(arena, Kind::Table, &halves[1])?;
        if block.fill(arena, Kind::Table, &halves[0]).is_none() {
            high.release(arena, Kind::Table);
            return None;
        }
        if old_depth == self.depth {
            self.directory.extend_from_within(..);
            self.depth += 1;
        }
        let new_number = self.tables.len() as u32;
        block.set_table(arena, number as u32);
        high.set_table(arena, new_number);
        self.tables[number] = Table { block, prefix, depth: depth + 1 };
        let high = Table { block: high, prefix: prefix | 1 << old_depth, depth: depth + 1 };
        self.tables.push(high);
        self.at_depth[old_depth] -= 1;
        self.at_depth[old_depth + 1] += 2;
        self.point(high, new_number);
        Some(())
    }

    /// Lets every directory entry of a table point to it.
    fn point(&mut self, table: Table, number: u32) {
        for entry in self.directory.iter_mut().skip(table.prefix as usize).step_by(1 << table.depth) {
            *entry = number;
        }
    }

    /// Makes a table and the one that it was split from one again, where that is small.
    fn merge(&mut self, arena: &mut Arena, number: usize) {
        let table = self.tables[number];
        if table.depth == 0 {
            return;
        }
        let other_number = self.directory[(table.prefix ^ 1 << (table.depth - 1)) as usize] as usize;
        let other = self.tables[other_number];
        if other.depth != table.depth || table.block.len() + other.block.len() > MERGE_AT {
            return;
        }
        let mut entries = Vec::with_capacity(MERGE_AT);
        for block in [table.block, other.block] {
            let tags = block.tags(arena);
            entries.extend(block.handles(arena).enumerate().map(|(slot, handle)| (handle, tag_at(tags, slot))));
        }
        entries.sort_by_key(|(_, tag)| *tag);
        let mut block = Block::EMPTY;
        // Without memory for the common table the two stay.
        if !entries.is_empty() && block.fill(arena, Kind::Table, &entries).is_none() {
            return;
        }
        for mut old in [table.block, other.block] {
            old.release(arena, Kind::Table);
        }
        let depth = table.depth - 1;
        let merged = Table { block, prefix: table.prefix & ((1 << depth) - 1), depth };
        self.at_depth[usize::from(depth) + 1] -= 2;
        self.at_depth[usize::from(depth)] += 1;
        self.tables[number] = merged;
        merged.block.set_table(arena, number as u32);
        self.point(merged, number as u32);
        self.forget(arena, other_number);
        self.halve();
    }

    /// Takes a table out that nothing points to: the last one takes its number.
    fn forget(&mut self, arena: &mut Arena, number: usize) {
        self.tables.swap_remove(number);
        if let Some(moved) = self.tables.get(number).copied() {
            moved.block.set_table(arena, number as u32);
            self.point(moved, number as u32);
        }
        if self.tables.len() < self.tables.capacity() / 4 {
            self.tables.shrink_to(self.tables.len() * 2);
        }
    }

    fn halve(&mut self) {
        while self.depth > 0 && self.at_depth[self.depth] == 0 {
            self.depth -= 1;
            self.directory.truncate(1 << self.depth);
            self.directory.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

    use super::*;
    use crate::store::hash_of;

    fn hash(handle: u32) -> u64 {
        hash_of(7, &handle.to_le_bytes())
    }

    fn check(index: &Index, arena: &Arena, model: &BTreeSet<u32>) {
        assert!(index.iter(arena).collect::<BTreeSet<_>>() == *model);
        assert_eq!(index.directory.len(), 1 << index.depth);
        for (number, table) in index.tables.iter().enumerate() {
            assert!(table.block.len() <= SPLIT_AT);
            let tags = table.block.tags(arena);
            assert!((1..table.block.len()).all(|slot| tag_at(tags, slot - 1) <= tag_at(tags, slot)));
            assert_eq!(index.directory[table.prefix as usize] as usize, number);
            if table.block.room > 0 {
                assert_eq!(super::super::block::table_of(arena.get(table.block.handle)) as usize, number);
            }
        }
    }

    #[test]
    fn an_index_that_is_built_at_once_is_like_any_other() {
        for count in [0, 1, 384, 385, 100_000] {
            let mut arena = Arena::default();
            let rows = || (0..count).map(|handle| (hash(handle), handle));
            let mut index = Index::of(&mut arena, count as usize, rows, hash).unwrap();
            check(&index, &arena, &(0..count).collect());
            assert!((0..count).all(|handle| index.find(&arena, hash(handle), |other| other == handle).is_some()));
            for handle in count..count + 1_000 {
                index.insert(&mut arena, hash(handle), handle, hash).unwrap();
            }
            check(&index, &arena, &(0..count + 1_000).collect());
            for handle in 0..count + 1_000 {
                index.remove(&mut arena, hash(handle), handle);
            }
            check(&index, &arena, &BTreeSet::new());
            assert_eq!((arena.live_bytes(), index.tables.len(), index.depth), (0, 1, 0));
        }
    }

    #[test]
    fn tables_that_chance_made_too_full_are_split() {
        // The lowest bits of the directory are the same for all.
        let hash = |handle: u32| u64::from(handle) << 48 | u64::from(handle & 0xffff);
        let mut arena = Arena::default();
        let rows = || (0..5_000).map(|handle| (hash(handle), handle));
        let index = Index::of(&mut arena, 5_000, rows, hash).unwrap();
        check(&index, &arena, &(0..5_000).collect());
    }

    #[test]
    fn tables_split_and_join_and_lose_nothing() {
        let (mut arena, mut index, mut model) = (Arena::default(), Index::default(), BTreeSet::new());
        let mut random = SmallRng::seed_from_u64(3);
        for handle in 0..100_000 {
            index.insert(&mut arena, hash(handle), handle, hash).unwrap();
            model.insert(handle);
        }
        check(&index, &arena, &model);
        let each = (arena.live_bytes() + index.allocated_bytes()) as f64 / 100_000.0;
        assert!(each < 6.8, "{each} bytes a key");
        let full = index.tables.len();
        while model.len() > 1_000 {
            let handle = random.random_range(0..100_000);
            if model.remove(&handle) {
                index.remove(&mut arena, hash(handle), handle);
            }
            if model.len() % 10_000 == 0 {
                check(&index, &arena, &model);
            }
        }
        check(&index, &arena, &model);
        assert!(index.tables.len() * 20 < full, "{} of {full} tables", index.tables.len());
        for handle in 0..100_000 {
            let found = index.find(&arena, hash(handle), |other| other == handle);
            assert_eq!(found.is_some(), model.contains(&handle));
        }
        for handle in std::mem::take(&mut model) {
            index.remove(&mut arena, hash(handle), handle);
        }
        check(&index, &arena, &model);
        assert_eq!((arena.live_bytes(), index.tables.len(), index.depth), (0, 1, 0));
    }
}
