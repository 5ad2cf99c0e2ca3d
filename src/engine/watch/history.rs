//! The last changes, so that a watcher can begin in the past or catch up. Bounded by events and by bytes.

use std::{collections::VecDeque, sync::Arc};

use super::changes::Changes;

/// How far back the history may reach.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Changes at most.
    pub events: usize,
    /// Bytes they take at most.
    pub bytes: usize,
}

/// Records that changed something, in the order of their revisions.
#[derive(Debug)]
pub struct History {
    records: VecDeque<Arc<Changes>>,
    events: usize,
    bytes: usize,
    bounds: Bounds,
    /// Up to here changes may be missing.
    compacted_revision: u64,
    applied_revision: u64,
}

impl History {
    /// An empty history that begins after a revision.
    pub fn new(bounds: Bounds, after_revision: u64) -> Self {
        Self {
            records: VecDeque::new(),
            events: 0,
            bytes: 0,
            bounds,
            compacted_revision: after_revision,
            applied_revision: after_revision,
        }
    }

    /// How far it may reach.
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// A record was applied; `None`: it changed nothing.
    pub fn add(&mut self, revision: u64, changes: Option<Arc<Changes>>) {
        self.applied_revision = revision;
        let Some(changes) = changes else { return };
        self.events += changes.list().len();
        self.bytes += changes.bytes();
        self.records.push_back(changes);
        while self.events > self.bounds.events || self.bytes > self.bounds.bytes {
            let Some(oldest) = self.records.pop_front() else { return };
            self.events -= oldest.list().len();
            self.bytes -= oldest.bytes();
            self.compacted_revision = oldest.revision();
        }
    }

    /// The oldest revision from which on nothing is missing.
    pub fn oldest_revision(&self) -> u64 {
        self.compacted_revision + 1
    }

    /// Revision of the last applied record: the history is whole up to here.
    pub fn applied_revision(&self) -> u64 {
        self.applied_revision
    }

    /// The records after one revision up to another; `None` when some are gone.
    pub fn between(&self, after: u64, until: u64) -> Option<impl Iterator<Item = &Arc<Changes>>> {
        if after < self.compacted_revision {
            return None;
        }
        let first = self.records.partition_point(|changes| changes.revision() <= after);
        Some(self.records.range(first..).take_while(move |changes| changes.revision() <= until))
    }

    /// Events, and bytes they take.
    pub fn size(&self) -> (usize, usize) {
        (self.events, self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::changes::samples::puts, *};

    fn revisions(history: &History, after: u64, until: u64) -> Option<Vec<u64>> {
        Some(history.between(after, until)?.map(|changes| changes.revision()).collect())
    }

    #[test]
    fn history_is_bounded_in_events_and_says_how_far_it_reaches() {
        let mut history = History::new(Bounds { events: 3, bytes: usize::MAX }, 0);
        for revision in 1..=5 {
            history.add(revision, (revision != 3).then(|| puts(revision, &["k"])));
        }
        assert_eq!(revisions(&history, 1, 9), Some(vec![2, 4, 5]));
        assert_eq!(revisions(&history, 2, 4), Some(vec![4]));
        assert_eq!(revisions(&history, 0, 9), None, "revision 1 is gone");
        assert_eq!((history.oldest_revision(), history.applied_revision()), (2, 5));
        history.add(6, Some(puts(6, &["a", "b", "c", "d"])));
        assert_eq!((history.oldest_revision(), history.size().0), (7, 0), "a record past the bound alone is not kept");
    }

    #[test]
    fn history_is_bounded_in_bytes() {
        let each = puts(1, &["k"]).bytes();
        let mut history = History::new(Bounds { events: usize::MAX, bytes: 3 * each }, 0);
        for revision in 1..=10 {
            history.add(revision, Some(puts(revision, &["k"])));
        }
        assert_eq!(history.size(), (3, 3 * each));
        assert_eq!(history.oldest_revision(), 8);
    }
}
