//! Requests that wait for a key to change. Costs a writer one load while nobody waits.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::error::{Error, Reason, Result};

/// Who waits for which key.
#[derive(Debug)]
pub struct Waiters {
    keys: Mutex<HashMap<Bytes, Waiting>>,
    count: AtomicUsize,
    count_max: usize,
}

#[derive(Debug)]
struct Waiting {
    changed: Arc<Notify>,
    count: usize,
}

/// One request's interest in a key; ends when dropped.
#[derive(Debug)]
pub struct Waiter {
    waiters: Arc<Waiters>,
    key: Bytes,
    changed: Arc<Notify>,
}

impl Waiters {
    /// Nobody, and at most `count_max` later.
    pub fn new(count_max: usize) -> Self {
        Self { keys: Mutex::default(), count: AtomicUsize::new(0), count_max }
    }

    /// Waits for changes of `key` from now on. OVERLOADED when too many wait already.
    pub fn wait_for(self: &Arc<Self>, key: &Bytes) -> Result<Waiter> {
        let mut keys = self.keys.lock();
        if self.count.load(Ordering::Relaxed) >= self.count_max {
            let text = format!("{} requests wait for changes already: retry later, or without `wait`", self.count_max);
            return Err(
                Error::new(Reason::Overloaded, text).with(|details| details.limit = Some(self.count_max as u64))
            );
        }
        self.count.fetch_add(1, Ordering::SeqCst);
        let waiting = keys.entry(key.clone()).or_insert_with(|| Waiting { changed: Arc::default(), count: 0 });
        waiting.count += 1;
        Ok(Waiter { waiters: Arc::clone(self), key: key.clone(), changed: Arc::clone(&waiting.changed) })
    }

    /// Wakes those who wait for `key`.
    pub fn changed(&self, key: &[u8]) {
        // The store's lock was released since: a waiter that registered before it read the key is seen here.
        if self.count.load(Ordering::SeqCst) > 0
            && let Some(waiting) = self.keys.lock().get(key)
        {
            waiting.changed.notify_waiters();
        }
    }
}

impl Waiter {
    /// The next change. Begin to wait (`enable`) before reading the key, so that none is missed.
    pub fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut keys = self.waiters.keys.lock();
        if let Entry::Occupied(mut waiting) = keys.entry(self.key.clone()) {
            waiting.get_mut().count -= 1;
            if waiting.get().count == 0 {
                waiting.remove();
            }
        }
        self.waiters.count.fetch_sub(1, Ordering::SeqCst);
    }
}
