//! How large entries are: counted by class with every write, so that nobody has to walk to know.

use crate::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

/// The first class takes entries of up to 16 bytes, and each next one twice as much.
const FIRST_BITS: u32 = 4;
const CLASSES: usize = 21;

// The largest entry has its class.
const _: () = assert!(KEY_BYTES_MAX + VALUE_BYTES_MAX <= 1 << (FIRST_BITS as usize + CLASSES - 1));

/// Entries, and the bytes of their keys and values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub keys: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
}

impl Tally {
    /// One more entry.
    pub fn add(&mut self, bytes: u64) {
        self.keys += 1;
        self.bytes += bytes;
    }

    /// All of these as well.
    pub fn merge(&mut self, other: Self) {
        self.keys += other.keys;
        self.bytes += other.bytes;
    }

    fn remove(&mut self, bytes: u64) {
        self.keys -= 1;
        self.bytes -= bytes;
    }
}

/// Entries by the bytes of their keys and values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    total: Tally,
    classes: [Tally; CLASSES],
}

impl Sizes {
    /// All entries.
    pub fn total(&self) -> Tally {
        self.total
    }

    /// The classes that have entries: bytes of the largest that each takes, and what it holds.
    pub fn classes(&self) -> impl Iterator<Item = (u64, Tally)> {
        let bounds = (FIRST_BITS..).map(|bits| 1 << bits);
        bounds.zip(self.classes).filter(|(_, class)| class.keys > 0)
    }

    /// An entry of so many bytes came.
    pub(super) fn add(&mut self, bytes: usize) {
        self.total.add(bytes as u64);
        self.classes[class_of(bytes)].add(bytes as u64);
    }

    /// An entry of so many bytes went.
    pub(super) fn remove(&mut self, bytes: usize) {
        self.total.remove(bytes as u64);
        self.classes[class_of(bytes)].remove(bytes as u64);
    }

    /// All of these as well.
    pub(super) fn merge(&mut self, other: &Self) {
        self.total.merge(other.total);
        for (class, more) in self.classes.iter_mut().zip(other.classes) {
            class.merge(more);
        }
    }
}

/// The class whose bound is the first that is not below.
fn class_of(bytes: usize) -> usize {
    let bits = bytes.next_power_of_two().trailing_zeros();
    (bits.saturating_sub(FIRST_BITS) as usize).min(CLASSES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_takes_entries_up_to_its_bound_and_above_the_one_before() {
        let mut sizes = Sizes::default();
        let largest = KEY_BYTES_MAX + VALUE_BYTES_MAX;
        for bytes in [1, 16, 17, 32, 33, 1_024, 1_025, largest] {
            sizes.add(bytes);
        }
        let classes: Vec<_> = sizes.classes().map(|(bound, class)| (bound, class.keys, class.bytes)).collect();
        let expected = [
            (16, 2, 17),
            (32, 2, 49),
            (64, 1, 33),
            (1_024, 1, 1_024),
            (2_048, 1, 1_025),
            (16 << 20, 1, largest as u64),
        ];
        assert_eq!(classes, expected);
        assert_eq!(sizes.total().keys, 8);
        sizes.remove(33);
        assert!(sizes.classes().all(|(bound, _)| bound != 64), "an empty class is left out");
    }
}
