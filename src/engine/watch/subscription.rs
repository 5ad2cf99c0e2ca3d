//! One watcher's way through the changes: first from the history, then live, without a gap and without a double.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::{
    changes::Changes,
    hub::{CatchUp, Hub, Seat},
    inbox::{Filter, Inbox, Look},
};
use crate::error::{Error, Reason, Result};

/// What a watcher hears.
#[derive(Debug)]
pub enum Heard {
    /// A record, some of whose changes it wants.
    Changes(Arc<Changes>),
    /// Nothing up to this revision.
    Progress(u64),
}

/// A watcher. Ends when dropped.
#[derive(Debug)]
pub struct Subscription {
    hub: Arc<Hub>,
    filter: Filter,
    /// Everything up to here was told.
    known_revision: u64,
    ahead: VecDeque<Arc<Changes>>,
    /// Everything up to here was told or is in `ahead`.
    read_revision: u64,
    inbox: Option<Arc<Inbox>>,
    _seat: Seat,
}

impl Subscription {
    /// A watcher of what comes after a revision.
    pub fn new(hub: Arc<Hub>, filter: Filter, after_revision: u64, seat: Seat) -> Self {
        Self {
            hub,
            filter,
            known_revision: after_revision,
            ahead: VecDeque::new(),
            read_revision: after_revision,
            inbox: None,
            _seat: seat,
        }
    }

    /// What it watches.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Everything up to here was told.
    pub fn known_revision(&self) -> u64 {
        self.known_revision
    }

    /// The next record that it wants, or after `patience` how far it has come. WATCHER_TOO_SLOW, with the revision to
    /// resume from, when more came than could wait.
    pub async fn next(&mut self, patience: Duration) -> Result<Heard> {
        let until = tokio::time::Instant::now() + patience;
        loop {
            if let Some(changes) = self.ahead.pop_front() {
                self.known_revision = changes.revision();
                return Ok(Heard::Changes(changes));
            }
            let Some(inbox) = self.inbox.clone() else {
                self.catch_up()?;
                // Others have their turn: a long history is read in short steps.
                tokio::task::yield_now().await;
                continue;
            };
            // Before the look: what was handed out up to here is in the inbox, or was never wanted.
            let dispatched_revision = self.hub.dispatched_revision();
            match inbox.take() {
                Look::Changes(changes) => self.ahead.push_back(changes),
                Look::Overflown => return Err(self.too_slow()),
                Look::Empty => {
                    if tokio::time::timeout_at(until, inbox.filled()).await.is_err() {
                        self.known_revision = self.known_revision.max(dispatched_revision);
                        return Ok(Heard::Progress(self.known_revision));
                    }
                }
            }
        }
    }

    fn catch_up(&mut self) -> Result<()> {
        let Some(CatchUp { records, until_revision }) = self.hub.catch_up(self.read_revision) else {
            return Err(self.too_slow());
        };
        let last_revision = records.last().map(|changes| changes.revision());
        self.ahead.extend(records.into_iter().filter(|changes| self.filter.wants_some(changes)));
        self.read_revision = until_revision;
        if self.ahead.is_empty() {
            self.known_revision = until_revision;
        }
        if last_revision.is_none() {
            self.inbox = self.hub.go_live(&self.filter, until_revision);
        }
        Ok(())
    }

    fn too_slow(&self) -> Error {
        let resume_revision = self.known_revision + 1;
        let text = format!(
            "this watcher reads more slowly than changes come: watch again with start_revision {resume_revision}, read \
             faster, or watch less"
        );
        Error::new(Reason::WatcherTooSlow, text).with(|details| details.resume_revision = Some(resume_revision))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(inbox) = &self.inbox {
            self.hub.retire(inbox);
        }
    }
}
