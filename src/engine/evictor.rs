//! Makes room when memory is short and configuration allows it: entries that were not used for a while are removed, through
//! the log like every other change. It only proposes; which ones is the choice of [the store](crate::store).

use std::{sync::Arc, time::Duration};

use super::{
    Core,
    apply::Applied,
    background::{Background, Stop},
    judge::Effect,
};
use crate::{
    config::SyncMode,
    error::Reason,
    limits::{EVICT_KEYS_MAX, Eviction},
    pb::storage::{Evict, ExpiredKey, log_record::Command},
    store::{Hand, Wanted},
};

/// How often it looks while there is room.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long it rests when nothing may go, or the log takes nothing.
const REST: Duration = Duration::from_millis(100);

/// Starts the thread.
pub fn start(core: Arc<Core>, eviction: Eviction) -> std::io::Result<Background> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    core.store.track_use();
    let expiring_only = eviction == Eviction::Expiring;
    Background::start("tandem-evictor", move |stop| runtime.block_on(run(&core, expiring_only, stop)))
}

async fn run(core: &Core, expiring_only: bool, stop: &Stop) {
    let mut hand = Hand::default();
    let mut found_nothing = false;
    while !stop.requested() {
        let bytes = core.shared.memory.excess_bytes();
        if bytes == 0 {
            stop.pause(LOOK_EVERY);
            continue;
        }
        let picked = core.store.pick(&mut hand, Wanted { expiring_only, entries_max: EVICT_KEYS_MAX, bytes });
        if picked.entries.is_empty() {
            // The first time round all may have been used; when the second finds nothing either, nothing may go.
            if std::mem::replace(&mut found_nothing, true) {
                stop.pause(REST);
            }
            continue;
        }
        found_nothing = false;
        let keys = picked.entries.into_iter().map(|(key, revision)| ExpiredKey { key, revision }).collect();
        // Waiting for the answer keeps the same entries from being proposed twice.
        // No read may show an absence that a crash could undo, unless all writes are weak.
        let fsynced = core.sync == SyncMode::Always;
        match core.propose_internal(Command::Evict(Evict { keys }), fsynced).await {
            Ok(Applied { effect: Effect::Range { deleted, .. }, .. }) => core.shared.metrics.evicted(deleted),
            Ok(_) => {}
            Err(error) if error.reason == Reason::WalFailed || error.reason == Reason::Draining => return,
            // Overloaded or out of disk: until it is better, growth is refused at the limit.
            Err(_) => stop.pause(REST),
        }
    }
}
