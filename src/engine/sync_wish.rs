//! Syncs on demand: whoever wishes for one waits until the log thread has brought everything that is written to disk.

use std::{
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use tokio::sync::Notify;

use super::{Engine, Health};
use crate::error::{Error, Reason, Result};

/// A wish for a sync: anyone wishes, the log thread grants between two groups.
#[derive(Debug, Default)]
pub struct SyncWish {
    /// What the log thread looks at, once a group.
    made: AtomicBool,
    granted: Notify,
}

impl SyncWish {
    /// Takes the wish, if there is one; it is to be granted then.
    pub fn take(&self) -> bool {
        self.made.load(Ordering::Relaxed) && self.made.swap(false, Ordering::AcqRel)
    }

    /// Everything that was written when the wish was taken is on disk.
    pub fn grant(&self) {
        self.granted.notify_waiters();
    }
}

impl Engine {
    /// Revision up to which everything is on disk.
    pub fn synced_revision(&self) -> u64 {
        self.core.hub().published_revision()
    }

    /// Waits until every write that was acknowledged before is on disk, and gives the revision up to which that is so.
    pub async fn sync(&self, deadline: Instant) -> Result<u64> {
        let shared = &self.core.shared;
        let wanted_revision = self.revision();
        let mut health = self.health();
        loop {
            let granted = shared.sync_wish.granted.notified();
            let mut granted = pin!(granted);
            // Listening before looking: a grant in between is not missed.
            granted.as_mut().enable();
            let synced_revision = self.synced_revision();
            if synced_revision >= wanted_revision {
                return Ok(synced_revision);
            }
            shared.sync_wish.made.store(true, Ordering::Release);
            shared.queue.nudge();
            tokio::select! {
                () = granted => {}
                _ = health.wait_for(|health| *health == Health::WalFailed) => {
                    let text = "the write-ahead log failed: what is not on disk yet may be lost; restart the server once \
                                the disk is well";
                    return Err(Error::new(Reason::WalFailed, text));
                }
                () = tokio::time::sleep_until(deadline.into()) => {
                    let text = "the time for this request ran out before everything was on disk: look at the disk's \
                                latency, and ask again";
                    return Err(Error::new(Reason::Deadline, text));
                }
            }
        }
    }
}
