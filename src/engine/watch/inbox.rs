//! What one watcher wants, and the changes that wait for it: a bounded queue, whose overflow ends the watcher and costs
//! the writers nothing.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::changes::{Change, Changes};
use crate::{
    error::{Error, Result},
    model::KeySpan,
    pb::EventKind,
};

/// Keys and kinds that a watcher wants.
#[derive(Clone, Debug)]
pub struct Filter {
    /// The keys.
    pub span: KeySpan,
    /// One bit for each kind.
    kinds: u32,
}

impl Filter {
    /// These kinds of changes in this range; none given: all.
    pub fn new(span: KeySpan, kinds: &[i32]) -> Result<Self> {
        let mut bits = 0;
        for kind in kinds {
            match EventKind::try_from(*kind) {
                Ok(EventKind::Unspecified) => bits = u32::MAX,
                Ok(kind) => bits |= 1 << kind as u32,
                Err(_) => {
                    let text = "no such kind of event: there are PUT, TOUCH, DELETE, EXPIRE and EVICT";
                    return Err(Error::invalid_field("kinds", text));
                }
            }
        }
        Ok(Self { span, kinds: if kinds.is_empty() { u32::MAX } else { bits } })
    }

    /// Whether it wants a change.
    pub fn wants(&self, change: &Change) -> bool {
        self.kinds & (1 << change.kind() as u32) != 0 && self.span.contains(change.key())
    }

    /// Whether it wants one of a record's changes.
    pub fn wants_some(&self, changes: &Changes) -> bool {
        changes.list().iter().any(|change| self.wants(change))
    }
}

#[derive(Debug, Default)]
struct Waiting {
    changes: VecDeque<Arc<Changes>>,
    bytes: usize,
    /// Of the last record that came in.
    last_revision: u64,
    overflown: bool,
}

/// The changes that wait for one watcher.
#[derive(Debug)]
pub struct Inbox {
    filter: Filter,
    waiting: Mutex<Waiting>,
    filled: Notify,
    revisions_max: usize,
    bytes_max: usize,
}

/// What a look into an inbox found.
#[derive(Debug)]
pub enum Look {
    /// The next record.
    Changes(Arc<Changes>),
    /// Nothing.
    Empty,
    /// More came than was taken: changes are lost.
    Overflown,
}

impl Inbox {
    /// An inbox for what comes after a revision.
    pub fn new(filter: Filter, after_revision: u64, revisions_max: usize, bytes_max: usize) -> Self {
        let waiting = Mutex::new(Waiting { last_revision: after_revision, ..Waiting::default() });
        Self { filter, waiting, filled: Notify::new(), revisions_max, bytes_max }
    }

    /// What the watcher wants.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Puts a record in, once, however many of its changes are wanted. True if that ends the watcher. A single record
    /// always fits.
    pub fn put(&self, changes: &Arc<Changes>) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.overflown || changes.revision() <= waiting.last_revision {
            return false;
        }
        waiting.last_revision = changes.revision();
        let bytes = waiting.bytes + changes.bytes();
        let full = waiting.changes.len() >= self.revisions_max || bytes > self.bytes_max;
        if full && !waiting.changes.is_empty() {
            drop(waiting);
            return self.overflow();
        }
        waiting.bytes = bytes;
        waiting.changes.push_back(Arc::clone(changes));
        drop(waiting);
        self.filled.notify_one();
        false
    }

    /// Ends the watcher; true if it had not ended before.
    pub fn overflow(&self) -> bool {
        let mut waiting = self.waiting.lock();
        let first = !std::mem::replace(&mut waiting.overflown, true);
        waiting.changes = VecDeque::new();
        waiting.bytes = 0;
        drop(waiting);
        self.filled.notify_one();
        first
    }

    /// Takes the next record.
    pub fn take(&self) -> Look {
        let mut waiting = self.waiting.lock();
        if waiting.overflown {
            return Look::Overflown;
        }
        match waiting.changes.pop_front() {
            Some(changes) => {
                waiting.bytes -= changes.bytes();
                Look::Changes(changes)
            }
            None => Look::Empty,
        }
    }

    /// Resolves when something may have come since the last look.
    pub async fn filled(&self) {
        self.filled.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::{super::changes::samples::puts, *};
    use crate::pb::{self, key_range::Kind};

    fn inbox(revisions_max: usize, bytes_max: usize) -> Inbox {
        let all = KeySpan::from_pb(Some(&pb::KeyRange { kind: Some(Kind::All(true)) })).unwrap();
        Inbox::new(Filter::new(all, &[]).unwrap(), 5, revisions_max, bytes_max)
    }

    #[test]
    fn a_record_comes_in_once_and_only_if_it_is_new() {
        let inbox = inbox(10, usize::MAX);
        for revision in [4, 5, 6, 6, 7] {
            assert!(!inbox.put(&puts(revision, &["k"])));
        }
        assert!(matches!(inbox.take(), Look::Changes(changes) if changes.revision() == 6));
        assert!(matches!(inbox.take(), Look::Changes(changes) if changes.revision() == 7));
        assert!(matches!(inbox.take(), Look::Empty));
    }

    #[test]
    fn a_full_inbox_ends_the_watcher_once_and_lets_its_memory_go() {
        let inbox = inbox(2, usize::MAX);
        assert!(!inbox.put(&puts(6, &["k"])) && !inbox.put(&puts(7, &["k"])));
        assert!(inbox.put(&puts(8, &["k"])), "the third is one too many");
        assert!(!inbox.put(&puts(9, &["k"])) && !inbox.overflow(), "told once");
        assert!(matches!(inbox.take(), Look::Overflown));
        assert_eq!(inbox.waiting.lock().bytes, 0);
    }

    #[test]
    fn one_record_larger_than_the_inbox_is_taken() {
        let inbox = inbox(2, 1);
        assert!(!inbox.put(&puts(6, &["k", "l"])));
        assert!(matches!(inbox.take(), Look::Changes(_)));
    }

    #[test]
    fn a_filter_wants_its_kinds_and_refuses_unknown_ones() {
        let all = || KeySpan::from_pb(Some(&pb::KeyRange { kind: Some(Kind::All(true)) })).unwrap();
        let change = super::super::changes::samples::put("k", 1);
        assert!(!Filter::new(all(), &[EventKind::Delete as i32]).unwrap().wants(&change));
        assert!(Filter::new(all(), &[EventKind::Delete as i32, EventKind::Put as i32]).unwrap().wants(&change));
        assert!(Filter::new(all(), &[99]).is_err());
    }
}
