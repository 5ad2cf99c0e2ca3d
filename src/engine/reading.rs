//! Reads: each shows one revision exactly, and no entry whose time has passed.

use std::{sync::atomic::Ordering, time::Instant};

use bytes::Bytes;

use super::{Core, Engine};
use crate::{
    model::{EntryRef, KeySpan},
    store::Step,
};

impl Engine {
    /// To be passed before every read. Nothing to wait for on a single node: what is acknowledged is applied.
    pub fn read_barrier(&self) {}

    /// Reads a key: `read` gets what it holds, or `None` where it is absent or expired.
    pub fn get<R>(&self, key: &[u8], read: impl FnOnce(Option<&EntryRef<'_>>) -> R) -> R {
        self.core.get(key, |entry, _| read(entry))
    }

    /// The same, with the revision of the state that shows it.
    pub fn get_with_revision<R>(&self, key: &[u8], read: impl FnOnce(Option<&EntryRef<'_>>, u64) -> R) -> R {
        self.core.get(key, read)
    }

    /// Reads many keys at one revision, which it gives; `visit` gets each key's place and what it holds.
    pub fn get_many(&self, keys: &[Bytes], mut visit: impl FnMut(usize, Option<&EntryRef<'_>>)) -> u64 {
        let mut time_ms = None;
        let mut revision = None;
        let begun = Instant::now();
        self.core.store.read_many(keys, |place, entry| {
            // Under the locks: exactly what they show. Once, so that the time is looked at after it.
            revision.get_or_insert_with(|| self.revision());
            visit(place, entry.filter(|entry| !self.core.expired(entry, &mut time_ms)).as_ref());
        });
        self.core.shared.metrics.read_locked(begun.elapsed());
        revision.unwrap_or_else(|| self.revision())
    }

    /// Visits a span's entries in key order at one revision, which it gives.
    pub fn walk(&self, span: &KeySpan, descending: bool, mut visit: impl FnMut(&EntryRef<'_>) -> Step) -> u64 {
        let mut time_ms = None;
        self.core.walk_all(span, descending, |entry| {
            // Expired ones are passed over, the visitor being none the wiser: few, since the expirer follows closely.
            if self.core.expired(entry, &mut time_ms) { Step::Next } else { visit(entry) }
        })
    }

    /// How many entries a span holds, and the revision of that.
    pub fn count(&self, span: &KeySpan) -> (u64, u64) {
        let mut revision = 0;
        let begun = Instant::now();
        let locked = || {
            revision = self.revision();
            self.core.time_ms()
        };
        let count = self.core.store.count(&span.start, span.end.as_deref(), locked);
        self.core.shared.metrics.read_locked(begun.elapsed());
        (count, revision)
    }
}

impl Core {
    /// Visits all entries of a span in key order, expired ones too, at one revision, which it gives.
    pub fn walk_all(&self, span: &KeySpan, descending: bool, mut visit: impl FnMut(&EntryRef<'_>) -> Step) -> u64 {
        let mut revision = 0;
        let begun = Instant::now();
        // Under the locks: exactly what they show.
        let locked = || revision = self.shared.revision.load(Ordering::Acquire);
        self.store.walk(&span.start, span.end.as_deref(), descending, locked, |entry| visit(&entry));
        self.shared.metrics.read_locked(begun.elapsed());
        revision
    }

    /// Reads a key, with the revision of the state that shows it.
    pub fn get<R>(&self, key: &[u8], read: impl FnOnce(Option<&EntryRef<'_>>, u64) -> R) -> R {
        self.store.read(key, |entry| {
            // Under the lock: exactly what it shows.
            let revision = self.shared.revision.load(Ordering::Acquire);
            read(entry.filter(|entry| !self.expired(entry, &mut None)).as_ref(), revision)
        })
    }

    /// Whether a read takes an entry for expired. Only one that can expire costs a look at the time, once per read, under
    /// its locks and after its revision: an earlier time could lie before that of a record which the read shows, and to
    /// which the entry was absent.
    fn expired(&self, entry: &EntryRef<'_>, time_ms: &mut Option<u64>) -> bool {
        entry.metadata.expire_time_ms.is_some()
            && entry.metadata.expired_at(*time_ms.get_or_insert_with(|| self.time_ms()))
    }

    /// The time by which reads judge expiry.
    pub fn time_ms(&self) -> u64 {
        self.shared.visible_time.read(&self.shared.clock)
    }
}
