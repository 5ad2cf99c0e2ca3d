//! What clients know of their writes: for each key the last one that was acknowledged, and those tried since.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

/// What a key holds: a number, or nothing.
pub type Held = Option<u64>;

#[derive(Clone, Copy, Debug)]
struct Tried {
    held: Held,
    /// It may have expired since.
    lapses: bool,
}

/// One for all clients. Each key is written by one client alone, one write after another.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// The first is the one that was acknowledged.
    keys: Arc<Mutex<HashMap<String, Vec<Tried>>>>,
    acknowledged: Arc<AtomicU64>,
}

impl Ledger {
    pub fn tried(&self, key: &str, held: Held, lapses: bool) {
        let absent = || vec![Tried { held: None, lapses: false }];
        self.keys.lock().entry(key.to_owned()).or_insert_with(absent).push(Tried { held, lapses });
    }

    /// The one tried last happened.
    pub fn acknowledged(&self, key: &str) {
        if let Some(tried) = self.keys.lock().get_mut(key) {
            tried.drain(..tried.len() - 1);
        }
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
    }

    /// The one tried last did not happen, and will not.
    pub fn refused(&self, key: &str) {
        if let Some(tried) = self.keys.lock().get_mut(key) {
            tried.pop();
        }
    }

    /// Acknowledged writes.
    pub fn total(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Holds what was found against what is known. Gives the number of keys.
    pub fn check(&self, found: &HashMap<String, u64>, what: &str) -> usize {
        let keys = self.keys.lock();
        for (key, tried) in &*keys {
            let held = found.get(key).copied();
            let possible = |tried: &Tried| tried.held == held || (tried.lapses && held.is_none());
            assert!(tried.iter().any(possible), "{what}: {key} holds {held:?}; acknowledged, then tried: {tried:?}");
        }
        for key in found.keys() {
            assert!(keys.contains_key(key), "{what}: nobody ever wrote {key}");
        }
        keys.len()
    }
}
