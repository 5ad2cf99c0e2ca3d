//! Where changes meet watchers. The log thread only notes what it published and asks whether that concerns anyone; a
//! thread of its own hands the records out, so that a crowd of watchers, or a slow one, costs the writers nothing.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

use parking_lot::{Condvar, Mutex, RwLock};

use super::{
    changes::Changes,
    history::{Bounds, History},
    inbox::{Filter, Inbox},
    matching::Matching,
};
use crate::{
    error::{Error, Reason, Result},
    limits::{CATCH_UP_RECORDS_MAX, DISPATCH_RECORDS_MAX, Limits},
    metrics::Metrics,
};

/// Published records on their way to the watchers.
#[derive(Debug, Default)]
struct Dispatch {
    waiting: VecDeque<Arc<Changes>>,
    /// Up to here changes are on disk: watchers may see them.
    published_revision: u64,
    /// Up to here every inbox has what it wants.
    dispatched_revision: u64,
    /// The thread is handing out what it took.
    busy: bool,
    /// More was published than could wait: every watcher missed something.
    lost: bool,
    stopped: bool,
}

/// The history, and the live watchers.
#[derive(Debug)]
pub struct Hub {
    history: Mutex<History>,
    matching: RwLock<Matching>,
    dispatch: Mutex<Dispatch>,
    published: Condvar,
    seats: AtomicUsize,
    seats_max: usize,
    inbox_revisions_max: usize,
    inbox_bytes_max: usize,
}

/// What the history has for a watcher that catches up.
#[derive(Debug)]
pub struct CatchUp {
    /// Records after the revision it knows.
    pub records: Vec<Arc<Changes>>,
    /// With these the watcher knows everything up to here.
    pub until_revision: u64,
}

impl Hub {
    /// No history, no watchers.
    pub fn new(limits: &Limits) -> Self {
        let bounds = Bounds { events: limits.watch_history_events, bytes: limits.watch_history_bytes };
        Self {
            history: Mutex::new(History::new(bounds, 0)),
            matching: RwLock::default(),
            dispatch: Mutex::default(),
            published: Condvar::new(),
            seats: AtomicUsize::new(0),
            seats_max: limits.watches,
            inbox_revisions_max: limits.watcher_buffer_revisions,
            inbox_bytes_max: limits.watcher_buffer_bytes,
        }
    }

    /// The history begins anew after a revision, with what is known of the time until another one.
    pub fn begin_with(&self, after_revision: u64, records: Vec<Arc<Changes>>, until_revision: u64) {
        let mut history = self.history.lock();
        *history = History::new(history.bounds(), after_revision);
        for record in records {
            history.add(record.revision(), Some(record));
        }
        history.add(until_revision, None);
    }

    /// A record was applied; `None`: it changed nothing.
    pub fn add(&self, revision: u64, changes: Option<Changes>) {
        self.history.lock().add(revision, changes.map(Arc::new));
    }

    /// Everything up to a revision is on disk.
    pub fn publish(&self, revision: u64) {
        let mut dispatch = self.dispatch.lock();
        if revision <= dispatch.published_revision {
            return;
        }
        let after_revision = std::mem::replace(&mut dispatch.published_revision, revision);
        self.queue_what_concerns(&mut dispatch, after_revision, revision);
        if dispatch.waiting.is_empty() && !dispatch.lost && !dispatch.busy {
            dispatch.dispatched_revision = revision;
        } else {
            drop(dispatch);
            self.published.notify_one();
        }
    }

    fn queue_what_concerns(&self, dispatch: &mut Dispatch, after_revision: u64, until_revision: u64) {
        let matching = self.matching.read();
        if matching.is_empty() {
            return;
        }
        let history = self.history.lock();
        match history.between(after_revision, until_revision) {
            Some(records) => {
                let concerning =
                    records.filter(|record| record.list().iter().any(|change| matching.of(change).next().is_some()));
                dispatch.waiting.extend(concerning.map(Arc::clone));
            }
            // One group outgrew the whole history.
            None => dispatch.lost = true,
        }
        if dispatch.waiting.len() > DISPATCH_RECORDS_MAX {
            dispatch.lost = true;
            dispatch.waiting = VecDeque::new();
        }
    }

    /// How many watchers there are.
    pub fn watchers(&self) -> usize {
        self.seats.load(Ordering::Relaxed)
    }

    /// Revision up to which changes are on disk.
    pub fn published_revision(&self) -> u64 {
        self.dispatch.lock().published_revision
    }

    /// Revision up to which every inbox has what it wants.
    pub fn dispatched_revision(&self) -> u64 {
        self.dispatch.lock().dispatched_revision
    }

    /// Whether anyone watches, or is about to.
    pub fn is_watched(&self) -> bool {
        self.seats.load(Ordering::Relaxed) > 0
    }

    /// Runs `read` on the history.
    pub fn with_history<R>(&self, read: impl FnOnce(&History) -> R) -> R {
        read(&self.history.lock())
    }

    /// Events in the history, and the bytes they take.
    pub fn history_size(&self) -> (usize, usize) {
        self.history.lock().size()
    }

    /// Published records after a revision, some at a time; `None` when some of them are gone.
    pub fn catch_up(&self, after_revision: u64) -> Option<CatchUp> {
        let published_revision = self.published_revision();
        let history = self.history.lock();
        let records: Vec<_> =
            history.between(after_revision, published_revision)?.take(CATCH_UP_RECORDS_MAX).map(Arc::clone).collect();
        let until_revision = match records.last() {
            Some(last) if records.len() == CATCH_UP_RECORDS_MAX => last.revision(),
            _ => published_revision.max(after_revision),
        };
        Some(CatchUp { records, until_revision })
    }

    /// Makes a watcher live that knows everything up to a revision; `None` when more was published meanwhile.
    pub fn go_live(&self, filter: &Filter, known_revision: u64) -> Option<Arc<Inbox>> {
        let dispatch = self.dispatch.lock();
        if dispatch.published_revision > known_revision {
            return None;
        }
        let inbox =
            Arc::new(Inbox::new(filter.clone(), known_revision, self.inbox_revisions_max, self.inbox_bytes_max));
        self.matching.write().insert(Arc::clone(&inbox));
        drop(dispatch);
        Some(inbox)
    }

    /// Takes a watcher out.
    pub fn retire(&self, inbox: &Arc<Inbox>) {
        self.matching.write().remove(inbox);
    }

    /// A place for one more watcher. OVERLOADED when there are too many.
    pub fn enter(self: &Arc<Self>, metrics: &Metrics) -> Result<Seat> {
        let limit = self.seats_max;
        let free = |taken: usize| (taken < limit).then_some(taken + 1);
        match self.seats.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free) {
            Ok(before) => {
                metrics.watchers(before as u64 + 1);
                Ok(Seat { hub: Arc::clone(self), metrics: metrics.clone() })
            }
            Err(_) => {
                let text =
                    format!("{limit} watchers are there already: retry later, share one, or raise limits.watches");
                Err(Error::new(Reason::Overloaded, text).with(|details| details.limit = Some(limit as u64)))
            }
        }
    }

    /// Starts the thread that hands out.
    pub fn start(self: &Arc<Self>) -> std::io::Result<Dispatcher> {
        let hub = Arc::clone(self);
        let thread = std::thread::Builder::new().name("tandem-watch".into()).spawn(move || hub.hand_out())?;
        Ok(Dispatcher { hub: Arc::clone(self), thread: Some(thread) })
    }

    fn hand_out(&self) {
        let mut dispatch = self.dispatch.lock();
        while !dispatch.stopped {
            if dispatch.waiting.is_empty() && !dispatch.lost {
                dispatch.dispatched_revision = dispatch.published_revision;
                self.published.wait(&mut dispatch);
                continue;
            }
            let records = std::mem::take(&mut dispatch.waiting);
            let lost = std::mem::take(&mut dispatch.lost);
            let until_revision = dispatch.published_revision;
            dispatch.busy = true;
            drop(dispatch);
            if lost {
                let everyone: Vec<_> = self.matching.read().all().map(Arc::clone).collect();
                for inbox in everyone {
                    inbox.overflow();
                }
            }
            for record in &records {
                self.hand_out_record(record);
            }
            dispatch = self.dispatch.lock();
            dispatch.busy = false;
            dispatch.dispatched_revision = until_revision;
        }
    }

    fn hand_out_record(&self, record: &Arc<Changes>) {
        for change in record.list() {
            // Collected first: who comes and goes does not wait for the crowd to be served, nor does the log thread.
            let concerned: Vec<_> = self.matching.read().of(change).map(Arc::clone).collect();
            for inbox in concerned {
                inbox.put(record);
            }
        }
    }
}

/// A watcher's place among the watchers; given back when dropped.
#[derive(Debug)]
pub struct Seat {
    hub: Arc<Hub>,
    metrics: Metrics,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let before = self.hub.seats.fetch_sub(1, Ordering::Relaxed);
        self.metrics.watchers(before as u64 - 1);
    }
}

/// The thread that hands out; ends when dropped.
#[derive(Debug)]
pub struct Dispatcher {
    hub: Arc<Hub>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        self.hub.dispatch.lock().stopped = true;
        self.hub.published.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by its own message; there is nothing to add.
            let _ = thread.join();
        }
    }
}
