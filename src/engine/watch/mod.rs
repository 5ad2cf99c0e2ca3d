//! Watching: what changed, for whom, and from when.
//!
//! `apply` notes each change ([`changes`]) into a bounded [`history`]. Once records are on disk the log thread publishes
//! them to the [`hub`], which finds the watchers they concern ([`matching`]) and fills their [`inbox`]es. A
//! [`subscription`] reads the history until it has caught up, then its inbox. [`initial`] reads a range as it was at one
//! revision, from which a subscription goes on.

pub mod changes;
pub mod history;
pub mod hub;
pub mod inbox;
pub mod initial;
pub mod matching;
pub mod subscription;

use std::sync::Arc;

use self::{inbox::Filter, initial::InitialState, subscription::Subscription};
use super::Engine;
use crate::error::{Error, Reason, Result};

impl Engine {
    /// Watches from a revision on, or from now. REVISION_COMPACTED, with the oldest revision that can be watched from,
    /// when the history does not reach back so far.
    pub fn watch(&self, filter: Filter, start_revision: Option<u64>) -> Result<Subscription> {
        let hub = self.core.hub();
        let seat = hub.enter(&self.core.shared.metrics)?;
        let store_revision = self.revision();
        let after_revision = match start_revision {
            None => store_revision,
            Some(start) if start > store_revision + 1 => {
                let text = format!(
                    "start_revision lies beyond the next one, {}: begin there, or at 0 for what comes from now on",
                    store_revision + 1
                );
                return Err(Error::new(Reason::RevisionFuture, text).with(|details| {
                    details.store_revision = Some(store_revision);
                    details.field = Some("start_revision".into());
                }));
            }
            Some(start) => start - 1,
        };
        let oldest_revision = hub.with_history(|history| history.oldest_revision());
        if after_revision + 1 < oldest_revision {
            let text = format!(
                "the history reaches back to revision {oldest_revision} only: read the state again and watch from there, or \
                 ask for initial_state"
            );
            return Err(Error::new(Reason::RevisionCompacted, text).with(|details| {
                details.oldest_revision = Some(oldest_revision);
                details.store_revision = Some(store_revision);
            }));
        }
        // The log may hold back syncs until somebody watches.
        self.core.shared.queue.nudge();
        Ok(Subscription::new(Arc::clone(hub), filter, after_revision, seat))
    }

    /// Reads a range as it is at one revision, and watches from there.
    pub fn watch_state(&self, filter: Filter) -> Result<(InitialState, Subscription)> {
        let seat = self.core.hub().enter(&self.core.shared.metrics)?;
        self.core.shared.queue.nudge();
        let state = InitialState::new(Arc::clone(&self.core), filter.span.clone());
        let subscription = Subscription::new(Arc::clone(self.core.hub()), filter, state.revision(), seat);
        Ok((state, subscription))
    }
}

#[cfg(test)]
mod tests;
