//! The largest of what is offered, so many at most: memory for these and no others.

use std::{cmp::Reverse, collections::BinaryHeap};

use bytes::Bytes;

/// What is kept: by bytes; of equals the first by name.
type Kept<T> = (u64, Reverse<Bytes>, T);

/// The largest, with something that is known of each.
#[derive(Debug)]
pub struct Top<T> {
    /// The smallest first.
    kept: BinaryHeap<Reverse<Kept<T>>>,
    max: usize,
}

impl<T: Ord> Top<T> {
    /// Nothing yet; so many at most.
    pub fn new(max: usize) -> Self {
        Self { kept: BinaryHeap::new(), max }
    }

    /// Takes it, if it belongs to the largest. Gives what is known of whatever does not, or not any more. Of equals the
    /// first that came stays.
    pub fn offer(&mut self, bytes: u64, name: &[u8], known: T) -> Option<T> {
        if self.kept.len() < self.max {
            self.kept.push(Reverse((bytes, Reverse(Bytes::copy_from_slice(name)), known)));
            return None;
        }
        match self.kept.peek_mut() {
            Some(mut smallest) if smallest.0.0 < bytes => {
                let new = (bytes, Reverse(Bytes::copy_from_slice(name)), known);
                Some(std::mem::replace(&mut smallest.0, new).2)
            }
            _ => Some(known),
        }
    }

    /// The largest first.
    pub fn into_sorted(self) -> impl Iterator<Item = (Bytes, T)> {
        self.kept.into_sorted_vec().into_iter().map(|Reverse((_, Reverse(name), known))| (name, known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(max: usize, offered: &[(u64, &str)]) -> (Vec<String>, usize) {
        let mut top = Top::new(max);
        let left = offered.iter().filter(|(bytes, name)| top.offer(*bytes, name.as_bytes(), *bytes).is_some()).count();
        (top.into_sorted().map(|(name, bytes)| format!("{}{bytes}", String::from_utf8_lossy(&name))).collect(), left)
    }

    #[test]
    fn the_largest_stay_and_of_equals_the_first() {
        let offered = [(1, "a"), (5, "b"), (3, "c"), (5, "d"), (4, "e"), (5, "f")];
        assert_eq!(kept(3, &offered), (vec!["b5".into(), "d5".into(), "f5".into()], 3));
        assert_eq!(kept(2, &offered), (vec!["b5".into(), "d5".into()], 4));
        assert_eq!(kept(9, &offered[..3]), (vec!["b5".into(), "c3".into(), "a1".into()], 0));
        assert_eq!(kept(0, &offered), (vec![], 6));
    }
}
