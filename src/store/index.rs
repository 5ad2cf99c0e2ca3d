//! A hash index of handles that grows step by step: extendible hashing.
//!
//! A directory points to small tables; a full table splits in two, and only the directory of 4-byte numbers ever doubles.
//! So the longest step rehashes under a thousand handles, however many keys there are: a single table of ten million
//! would stop every reader of its shard for the time of its doubling.
//!
//! Bits of a hash: 0–31 place within a table, 32–35 shard, 36–56 directory, 57–63 tags of the tables.

use hashbrown::HashTable;

/// A table with this many handles splits: seven eighths of 1,024 places, the most that hashbrown puts into them.
const SPLIT_AT: usize = 896;
const DIRECTORY_SHIFT: u32 = 36;
const DEPTH_MAX: u32 = 21;

#[derive(Debug, Default)]
struct Table {
    depth: u32,
    handles: HashTable<u32>,
}

/// The index.
#[derive(Debug)]
pub struct Index {
    directory: Vec<u32>,
    tables: Vec<Table>,
    depth: u32,
    table_bytes: usize,
}

impl Default for Index {
    fn default() -> Self {
        Self { directory: vec![0], tables: vec![Table::default()], depth: 0, table_bytes: 0 }
    }
}

fn directory_bits(hash: u64, depth: u32) -> usize {
    (hash >> DIRECTORY_SHIFT) as usize & ((1 << depth) - 1)
}

impl Index {
    fn table_of(&self, hash: u64) -> usize {
        self.directory[directory_bits(hash, self.depth)] as usize
    }

    /// The handle with this hash that `is_it`.
    pub fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        self.tables[self.table_of(hash)].handles.find(hash, |handle| is_it(*handle)).copied()
    }

    /// Adds a handle that is not there. `hash_of` gives the hash of any handle.
    pub fn insert(&mut self, hash: u64, handle: u32, hash_of: impl Fn(u32) -> u64) {
        loop {
            let number = self.table_of(hash);
            let table = &self.tables[number];
            if table.handles.len() < SPLIT_AT || table.depth == DEPTH_MAX {
                break;
            }
            self.split(number, &hash_of);
        }
        let number = self.table_of(hash);
        let table = &mut self.tables[number].handles;
        let before = table.allocation_size();
        table.insert_unique(hash, handle, |handle| hash_of(*handle));
        self.table_bytes = self.table_bytes - before + table.allocation_size();
    }

    /// Puts `new` in the place of `old`, which has the same hash.
    pub fn replace(&mut self, hash: u64, old: u32, new: u32) {
        let number = self.table_of(hash);
        if let Some(handle) = self.tables[number].handles.find_mut(hash, |handle| *handle == old) {
            *handle = new;
        }
    }

    /// Takes a handle out.
    pub fn remove(&mut self, hash: u64, handle: u32) {
        let number = self.table_of(hash);
        if let Ok(found) = self.tables[number].handles.find_entry(hash, |other| *other == handle) {
            found.remove();
        }
    }

    /// Every handle.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.tables.iter().flat_map(|table| table.handles.iter().copied())
    }

    /// Bytes that the index holds.
    pub fn allocated_bytes(&self) -> usize {
        self.table_bytes + self.directory.len() * 4 + self.tables.len() * size_of::<Table>()
    }

    fn split(&mut self, number: usize, hash_of: impl Fn(u32) -> u64) {
        let depth = self.tables[number].depth;
        if depth == self.depth {
            self.directory.extend_from_within(..);
            self.depth += 1;
        }
        let new_number = self.tables.len() as u32;
        let full = std::mem::take(&mut self.tables[number].handles);
        self.table_bytes -= full.allocation_size();
        let mut halves = [HashTable::with_capacity(SPLIT_AT), HashTable::with_capacity(SPLIT_AT)];
        for handle in full {
            let hash = hash_of(handle);
            let half = directory_bits(hash, depth + 1) >> depth;
            halves[half].insert_unique(hash, handle, |handle| hash_of(*handle));
        }
        self.table_bytes += halves.iter().map(HashTable::allocation_size).sum::<usize>();
        let [low, high] = halves;
        self.tables[number] = Table { depth: depth + 1, handles: low };
        self.tables.push(Table { depth: depth + 1, handles: high });
        // Directory entries of the old table whose new bit is set point to the new one.
        for (bits, entry) in self.directory.iter_mut().enumerate() {
            if *entry as usize == number && (bits >> depth) & 1 == 1 {
                *entry = new_number;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::hash_of;

    #[test]
    fn tables_split_and_lose_nothing() {
        let hash = |handle: u32| hash_of(7, &handle.to_le_bytes());
        let mut index = Index::default();
        for handle in 0..100_000 {
            index.insert(hash(handle), handle, hash);
        }
        assert!(index.tables.iter().all(|table| table.handles.len() <= SPLIT_AT));
        assert_eq!(index.iter().count(), 100_000);
        for handle in (0..100_000).step_by(2) {
            index.remove(hash(handle), handle);
        }
        for handle in 0..100_000 {
            assert_eq!(index.find(hash(handle), |other| other == handle).is_some(), handle % 2 == 1);
        }
    }
}
