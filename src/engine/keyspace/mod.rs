//! What the keys are and what they take, for operators. Counts and size classes are live, kept with every write; prefixes
//! and the largest keys are found by a walk, which goes on beside the traffic in short steps with long pauses, and of
//! which the last that came to its end is told.

mod prefixes;
mod top;

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::RwLock;

pub use self::prefixes::{Level, Prefix};
use self::{prefixes::Prefixes, top::Top};
use super::{
    Core, Engine,
    background::{Background, Stop},
};
use crate::{
    config::KeyspacePolicy,
    store::{Inventory, Sizes, Tally},
};

/// It pauses this many times as long as a step took: a fiftieth of one core at most.
const PAUSE_FACTOR: u32 = 49;

/// What a walk found.
#[derive(Debug)]
pub struct Walk {
    /// The revision when it began: what was not written since, it shows as it is.
    pub revision: u64,
    /// When it ended, in milliseconds since 1970 UTC …
    pub finish_time_ms: u64,
    /// … and by the monotonic clock.
    pub finished: Instant,
    /// How long it took.
    pub elapsed: Duration,
    /// All entries that it came by.
    pub entries: Tally,
    /// Prefixes by depth, from 1 on.
    pub levels: Vec<Level>,
    /// The largest entries: their keys, and bytes of key and value.
    pub largest: Vec<(Bytes, u64)>,
}

/// The last walk that came to its end.
pub type LastWalk = Arc<RwLock<Option<Arc<Walk>>>>;

impl Engine {
    /// Walks the keys from now on, as often as the policy says.
    pub fn follow_keyspace(&self, policy: KeyspacePolicy) -> io::Result<()> {
        if policy.interval.is_zero() {
            return Ok(());
        }
        let (core, last) = (Arc::clone(&self.core), Arc::clone(&self.last_walk));
        let walker = Background::start("tandem-keyspace", move |stop| run(&core, &policy, &last, stop))?;
        self.threads.lock().background.push(walker);
        Ok(())
    }

    /// How large the entries are, and the revision of that.
    pub fn sizes(&self) -> (Sizes, u64) {
        let mut revision = 0;
        let begun = Instant::now();
        // Under the locks: exactly what they show.
        let sizes = self.core.store.sizes(|| revision = self.revision());
        self.core.shared.metrics.read_locked(begun.elapsed());
        (sizes, revision)
    }

    /// What the last walk found; `None`: none has come to its end.
    pub fn last_walk(&self) -> Option<Arc<Walk>> {
        self.last_walk.read().clone()
    }
}

fn run(core: &Core, policy: &KeyspacePolicy, last: &LastWalk, stop: &Stop) {
    while !stop.requested() {
        let mut rest = policy.interval;
        // Nothing was written since: there would be nothing new.
        let revision = core.shared.revision.load(Ordering::Acquire);
        let known = last.read().as_ref().is_some_and(|walk| walk.revision == revision);
        if !known && let Some(walk) = walk(core, policy, stop) {
            // A large store is walked half of the time at most.
            rest = rest.max(walk.elapsed);
            *last.write() = Some(Arc::new(walk));
        }
        stop.pause(rest);
    }
}

/// Walks all keys once; `None`: the engine ends before that.
fn walk(core: &Core, policy: &KeyspacePolicy, stop: &Stop) -> Option<Walk> {
    let (started, revision) = (Instant::now(), core.shared.revision.load(Ordering::Acquire));
    let mut prefixes = Prefixes::new(policy.delimiters.as_bytes(), policy.depth, policy.prefixes_max);
    let mut largest = Top::new(policy.largest_max);
    let mut entries = Tally::default();
    let mut inventory = Inventory::new(&core.store);
    loop {
        let begun = Instant::now();
        let goes_on = inventory.step(|item| {
            entries.add(item.bytes);
            prefixes.add(&item);
            largest.offer(item.bytes, item.key, item.bytes);
        });
        if !goes_on {
            break;
        }
        stop.pause(begun.elapsed() * PAUSE_FACTOR);
        if stop.requested() {
            return None;
        }
    }
    Some(Walk {
        revision,
        finish_time_ms: core.shared.clock.now_ms(),
        finished: Instant::now(),
        elapsed: started.elapsed(),
        entries,
        levels: prefixes.finish(),
        largest: largest.into_sorted().collect(),
    })
}
