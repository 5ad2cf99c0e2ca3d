//! How long a write spent where, for callers who ask. The log looks at the clock three times for each group, whatever its
//! size; everything else happens only within [`observed`].

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

/// When a group passed through the log.
#[derive(Clone, Copy, Debug)]
pub struct GroupTimes {
    /// Out of the queue.
    pub taken: Instant,
    /// Written.
    pub written: Instant,
    /// Synced, if it had to be; otherwise as `written`.
    pub synced: Instant,
}

/// The time that a request's writes spent in each phase, all of its records together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    /// Waiting for the log.
    pub queue: Duration,
    /// Being framed and written.
    pub commit: Duration,
    /// Waiting for the disk.
    pub sync: Duration,
    /// Being applied, and the answer finding its caller.
    pub apply: Duration,
}

tokio::task_local! {
    static OBSERVED: Cell<Option<Phases>>;
}

/// Does `work` and notes where its writes spend their time, for [`so_far`].
pub async fn observed<W: Future>(work: W) -> W::Output {
    OBSERVED.scope(Cell::new(None), work).await
}

/// Within [`observed`]: the phases up to now, `Some(None)` if nothing was written.
pub fn so_far() -> Option<Option<Phases>> {
    OBSERVED.try_with(Cell::get).ok()
}

/// The time at which a record goes into the queue, if anybody asks.
pub(super) fn begin() -> Option<Instant> {
    OBSERVED.try_with(|_| Instant::now()).ok()
}

/// A record that went into the queue at `begun` is back.
pub(super) fn end(begun: Option<Instant>, times: GroupTimes) {
    let Some(begun) = begun else { return };
    // Outside of `observed` nothing was begun.
    let _ = OBSERVED.try_with(|observed| {
        let before = observed.get().unwrap_or_default();
        observed.set(Some(Phases {
            queue: before.queue + times.taken.saturating_duration_since(begun),
            commit: before.commit + times.written.saturating_duration_since(times.taken),
            sync: before.sync + times.synced.saturating_duration_since(times.written),
            apply: before.apply + times.synced.elapsed(),
        }));
    });
}
