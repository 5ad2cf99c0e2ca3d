//! Removes entries whose time has come, through the log like every other change: it only proposes.

use std::{sync::Arc, time::Duration};

use super::{
    Core,
    background::{Background, Stop},
};
use crate::{
    error::Reason,
    limits::EXPIRE_KEYS_MAX,
    pb::storage::{Expire, ExpiredKey, log_record::Command},
};

/// How often the expirer looks when it found nothing: well within the 100 ms in which an entry goes.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Starts the thread.
pub fn start(core: Arc<Core>) -> std::io::Result<Background> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    Background::start("tandem-expirer", move |stop| runtime.block_on(run(&core, stop)))
}

async fn run(core: &Core, stop: &Stop) {
    while !stop.requested() {
        // Only what every reader sees as gone: a record stamped from now on judges no earlier.
        let time_ms = core.time_ms();
        let due = core.store.due(time_ms, EXPIRE_KEYS_MAX);
        let oldest_ms = if due.is_empty() { None } else { core.store.next_deadline_ms() };
        let lag_ms = oldest_ms.map_or(0, |oldest_ms| time_ms.saturating_sub(oldest_ms));
        core.shared.metrics.expiry_lag(Duration::from_millis(lag_ms));
        if due.is_empty() {
            stop.pause(LOOK_EVERY);
            continue;
        }
        let count = due.len() as u64;
        let keys = due.into_iter().map(|(key, revision)| ExpiredKey { key, revision }).collect();
        // Waiting for the answer keeps the same entries from being proposed twice.
        // Reads see the absence by the clock already: nothing that a crash undoes.
        match core.propose_internal(Command::Expire(Expire { keys }), false).await {
            Ok(_) => core.shared.metrics.expired(count),
            Err(error) if error.reason == Reason::WalFailed || error.reason == Reason::Draining => return,
            // Overloaded or out of disk: the entries are invisible already, so there is time to try again.
            Err(_) => stop.pause(LOOK_EVERY),
        }
    }
}
