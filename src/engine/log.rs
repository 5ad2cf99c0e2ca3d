//! The log thread: takes all that waits, gives each proposal its index, term and time, writes the group with one write,
//! syncs it once, applies it and answers. While one group syncs, the next gathers in the queue.
//!
//! Log and apply share a thread: applying a group costs a small part of its sync, and a hand-over to a second thread
//! costs a wake. A replicated log would keep this shape: append, wait until durable, apply in order.
//!
//! Two ways to use the time of a sync were tried, and lost (over gRPC, the load on the same two cores, medians of five rounds
//! in turns). To apply a group while a thread syncs the next one makes groups smaller: `BatchWrite`, 32 batches of 100 in
//! flight, took 660,000 keys a second without, 612,000 where groups of 128 KiB and more went that way, 540,000 where all did.
//! To wait 100 µs for a group to become as large as the last one: 622,000 without, 550,000 with. Single puts showed no
//! difference beyond the noise of 3%.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{
    Health,
    apply::Applier,
    background_sync::BackgroundSync,
    clock::{Clock, VisibleTime},
    completion::{Committed, Deliveries},
    disk_room::DiskRoom,
    memory::{Memory, growth_of},
    phases::GroupTimes,
    queue::{Proposal, Queue, Taken, closed_error},
    snapshot::{Captured, Wish},
    sync_wish::SyncWish,
    watch::hub::Hub,
};
use crate::{
    disk::{Wal, WalError},
    error::{Error, Outcome, Reason},
    limits::UNSYNCED_RECORDS_MAX,
    metrics::{Metrics, State as Gauges},
    pb::Durability,
};

/// A MARK follows the last record within this time when nothing more comes.
const MARK_AFTER: Duration = Duration::from_millis(500);

/// What the log thread shares with callers.
#[derive(Debug)]
pub struct Shared {
    /// Proposals that wait.
    pub queue: Queue,
    /// Revision of the last applied record.
    pub revision: Arc<AtomicU64>,
    /// The next segment cannot be made ready: growth is refused.
    pub disk_full: Arc<AtomicBool>,
    /// What the disk has left against the reserve.
    pub disk_room: DiskRoom,
    /// What the store uses against its limit.
    pub memory: Memory,
    /// How the engine is.
    pub health: watch::Sender<Health>,
    /// Who is told of changes.
    pub hub: Arc<Hub>,
    /// The clock of records.
    pub clock: Clock,
    /// The time by which reads judge expiry.
    pub visible_time: VisibleTime,
    /// Where the log reports.
    pub metrics: Metrics,
    /// Bytes written to the log since the start, and those that the start replayed.
    pub log_bytes: AtomicU64,
    /// A snapshot that is to begin.
    pub snapshot_wish: Wish,
    /// A sync that somebody waits for.
    pub sync_wish: SyncWish,
}

impl Shared {
    /// Fail-stop: nothing is written any more.
    fn fail(&self, error: &dyn std::fmt::Display) {
        tracing::error!(%error, "the write-ahead log failed: writes are refused from now on, reads go on");
        self.health.send_replace(Health::WalFailed);
        self.queue.fail(Reason::WalFailed);
        // What was stamped will never be applied: reads judge expiry by the clock again.
        self.visible_time.thaw();
    }
}

/// When records reach the disk that nobody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeakSync {
    /// At the latest this long after they were written.
    Within(Duration),
    /// When the operating system pleases; while anyone watches, at the latest this long after they were written, because
    /// watchers are told only of what is on disk.
    Watched(Duration),
}

/// What the log thread leaves.
#[derive(Debug)]
pub struct Ended {
    /// Everything is on disk, and CLOSE behind it.
    pub clean: bool,
    /// The state at the end.
    pub applier: Applier,
}

/// The log thread's own things.
#[derive(Debug)]
pub struct Log {
    wal: Wal,
    applier: Applier,
    shared: Arc<Shared>,
    background: BackgroundSync,
    weak_sync: WeakSync,
    term: u64,
    /// Since when records wait for a sync that nobody waits for.
    unsynced_since: Option<Instant>,
    /// When the last record was written, until a MARK follows it.
    unmarked_since: Option<Instant>,
}

/// Marks the engine as failed if the log thread dies of a fault of its own.
struct Alive<'log>(&'log Shared);

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(&"a fault of the server ended the log thread");
        }
    }
}

impl Log {
    /// A log that goes on after recovery, in a new term.
    pub fn new(wal: Wal, applier: Applier, shared: Arc<Shared>, weak_sync: WeakSync, term: u64) -> Self {
        let background = BackgroundSync::start(Arc::clone(&shared));
        Self { wal, applier, shared, background, weak_sync, term, unsynced_since: None, unmarked_since: None }
    }

    /// Runs until the queue is closed, then closes the log cleanly.
    pub fn run(mut self) -> Ended {
        let shared = Arc::clone(&self.shared);
        let _alive = Alive(&shared);
        let mut deliveries = Deliveries::default();
        loop {
            let taken = shared.queue.take(self.next_duty());
            let outcome = match taken {
                Taken::Group(group) => self.commit(group, &mut deliveries),
                Taken::Idle => self.idle(),
                Taken::Closed => break,
            };
            if let Err(error) = outcome.and_then(|()| self.sync_if_wished()) {
                deliveries.send();
                shared.fail(&error);
                return Ended { clean: false, applier: self.applier };
            }
            shared.snapshot_wish.grant(|| self.capture());
        }
        self.close()
    }

    /// Syncs everything that is written, if somebody waits for that.
    fn sync_if_wished(&mut self) -> Result<(), WalError> {
        if !self.shared.sync_wish.take() {
            return Ok(());
        }
        if self.wal.synced_index() < self.wal.written_index() {
            let started = Instant::now();
            self.wal.sync()?;
            self.unsynced_since = None;
            self.shared.metrics.synced(started.elapsed());
            self.publish();
        }
        self.shared.sync_wish.grant();
        Ok(())
    }

    /// The state as it is between two groups, for a snapshot.
    fn capture(&self) -> Captured {
        let written = self.wal.written_index();
        // A snapshot may hold only what the log holds for good: otherwise a crash would leave a gap between the two.
        let unsynced = self.wal.synced_index() < written;
        let synced = unsynced.then(|| self.background.request_told(self.wal.syncer(), written));
        Captured::of(&self.applier, synced)
    }

    fn close(self) -> Ended {
        // The background thread's handle on the segment goes first, then the last sync and CLOSE.
        let failed = self.background.failed() || *self.shared.health.borrow() == Health::WalFailed;
        drop(self.background);
        let closed = if failed { Err(WalError::Failed("it had failed before".into())) } else { self.wal.close() };
        let clean = closed.inspect_err(|error| self.shared.fail(error)).is_ok();
        Ended { clean, applier: self.applier }
    }

    /// When the log thread has something to do even if no proposal comes.
    fn next_duty(&self) -> Option<Instant> {
        let sync = self.sync_interval().and_then(|interval| Some(self.unsynced_since? + interval));
        let mark = match self.weak_sync {
            WeakSync::Within(_) => self.unmarked_since.map(|since| since + MARK_AFTER),
            WeakSync::Watched(_) => None,
        };
        sync.into_iter().chain(mark).min()
    }

    /// How long records may stay unsynced that nobody waits for; `None`: as long as the operating system pleases.
    fn sync_interval(&self) -> Option<Duration> {
        match self.weak_sync {
            WeakSync::Within(interval) => Some(interval),
            WeakSync::Watched(interval) => self.shared.hub.is_watched().then_some(interval),
        }
    }

    /// Lets watchers know what is applied and on disk.
    fn publish(&self) {
        let state = self.applier.state();
        self.shared.hub.publish(self.wal.synced_index().min(state.index) + state.offset);
    }

    fn idle(&mut self) -> Result<(), WalError> {
        self.note_background()?;
        let now = Instant::now();
        if let (WeakSync::Within(_), Some(since)) = (self.weak_sync, self.unmarked_since)
            && now >= since + MARK_AFTER
        {
            self.unmarked_since = None;
            self.unsynced_since = None;
            let started = Instant::now();
            self.wal.mark()?;
            self.shared.metrics.synced(started.elapsed());
            self.publish();
        }
        self.sync_in_background_if_due(now);
        Ok(())
    }

    fn note_background(&mut self) -> Result<(), WalError> {
        if self.background.failed() {
            return Err(WalError::Failed("a sync in the background failed".into()));
        }
        self.wal.note_synced(self.background.synced_index());
        if self.wal.synced_index() == self.wal.written_index() {
            self.unsynced_since = None;
        }
        self.publish();
        Ok(())
    }

    fn sync_in_background_if_due(&mut self, now: Instant) {
        if let (Some(interval), Some(since)) = (self.sync_interval(), self.unsynced_since)
            && now >= since + interval
        {
            // Until the thread reports, the next one is due an interval from now.
            self.unsynced_since = Some(now);
            self.background.request(self.wal.syncer(), self.wal.written_index());
        }
    }

    /// Logs, syncs, applies and answers one group.
    fn commit(&mut self, group: VecDeque<Proposal>, deliveries: &mut Deliveries) -> Result<(), WalError> {
        let shared = Arc::clone(&self.shared);
        let taken = Instant::now();
        self.note_background()?;
        let time_ms = shared.visible_time.stamp(&shared.clock);
        let mut staged = Vec::with_capacity(group.len());
        let mut fsynced = self.wal.written_index() - self.wal.synced_index() >= UNSYNCED_RECORDS_MAX;
        let mut group = group.into_iter();
        let mut room_bytes = shared.memory.room_bytes();
        for mut proposal in group.by_ref() {
            if !proposal.ticket.take() {
                continue;
            }
            if !self.fits(&proposal, &mut room_bytes) {
                deliveries.add(proposal.ticket, Err(shared.memory.refusal().with_outcome(Outcome::NotApplied)));
                continue;
            }
            match self.wal.stage(self.term, time_ms, &proposal.body) {
                Ok(index) => {
                    proposal.record.index = index;
                    proposal.record.term = self.term;
                    proposal.record.time_ms = time_ms;
                    fsynced |= proposal.fsynced;
                    staged.push(proposal);
                }
                Err(WalError::Full) => {
                    deliveries.add(proposal.ticket, Err(disk_full().with_outcome(Outcome::NotApplied)));
                }
                Err(failed) => {
                    staged.push(proposal);
                    staged.extend(group);
                    return Err(answer_unknown(staged, failed));
                }
            }
        }
        if !staged.is_empty() {
            match self.make_durable(taken, fsynced) {
                Ok(times) => self.apply(staged, times, deliveries),
                Err(failed) => return Err(answer_unknown(staged, failed)),
            }
        }
        shared.visible_time.thaw();
        // Before the answers: who begins to watch after one finds its write published.
        self.publish();
        deliveries.send();
        self.report();
        self.sync_in_background_if_due(Instant::now());
        Ok(())
    }

    /// Whether memory has room for what a proposal adds. Many may have been let into the queue at once: what counts is the
    /// room that those before it in the group leave.
    fn fits(&self, proposal: &Proposal, room_bytes: &mut u64) -> bool {
        if *room_bytes > 0 {
            *room_bytes = room_bytes.saturating_sub(proposal.body.len() as u64);
            return true;
        }
        let growth = proposal.record.command.as_ref().map_or(0, |command| growth_of(self.applier.store(), command));
        growth <= 0 || self.applier.state().window.find(&proposal.record.request_id).is_some()
    }

    fn make_durable(&mut self, taken: Instant, fsynced: bool) -> Result<GroupTimes, WalError> {
        let bytes = self.wal.write()?.bytes;
        self.shared.metrics.written(bytes);
        self.shared.log_bytes.fetch_add(bytes, Ordering::Relaxed);
        let written = Instant::now();
        let mut synced = written;
        self.unmarked_since = Some(written);
        if fsynced {
            self.wal.sync()?;
            self.unsynced_since = None;
            synced = Instant::now();
            self.shared.metrics.synced(synced - written);
        } else {
            self.unsynced_since.get_or_insert(written);
        }
        Ok(GroupTimes { taken, written, synced })
    }

    fn apply(&mut self, staged: Vec<Proposal>, times: GroupTimes, deliveries: &mut Deliveries) {
        let synced_index = self.wal.synced_index();
        self.shared.metrics.committed(staged.len() as u64);
        let mut begun = Instant::now();
        for proposal in staged {
            let applied = self.applier.apply(&proposal.record);
            let done = Instant::now();
            self.shared.metrics.applied(done - begun);
            begun = done;
            let durability =
                if proposal.record.index <= synced_index { Durability::Fsynced } else { Durability::Written };
            deliveries.add(proposal.ticket, Ok(Committed { applied, durability, times }));
        }
    }

    /// Sets the gauges.
    pub fn report(&self) {
        self.shared.metrics.queued(self.shared.queue.depth() as u64);
        let state = self.applier.state();
        let totals = self.applier.store().totals();
        self.shared.memory.observe(totals.used_bytes);
        let (events, bytes) = self.shared.hub.history_size();
        self.shared.metrics.watch_history(events as u64, bytes as u64);
        self.shared.metrics.state(Gauges {
            keys: totals.keys,
            data_bytes: totals.data_bytes,
            used_bytes: totals.used_bytes,
            allocated_bytes: totals.allocated_bytes,
            revision: state.revision(),
            request_window: Duration::from_millis(state.window.reach_ms(state.time_ms)),
        });
    }
}

/// The log failed under these: whether a restart finds them is not known.
fn answer_unknown(staged: Vec<Proposal>, failed: WalError) -> WalError {
    for proposal in staged {
        let taken = !proposal.ticket.take();
        let error = if taken && proposal.record.index > 0 {
            Error::new(
                Reason::CommitUnknown,
                "the write-ahead log failed while it wrote this: after a restart, read first, or retry with the same \
                 request id",
            )
            .with_outcome(Outcome::Unknown)
        } else {
            closed_error(Reason::WalFailed).with_outcome(Outcome::NotApplied)
        };
        proposal.ticket.answer(Err(error));
    }
    failed
}

/// The error of a write that the disk has no room for.
pub fn disk_full() -> Error {
    Error::new(
        Reason::DiskFull,
        "the disk has no room for the next segment of the log: free space on it; deletes go on, and writes resume by \
         themselves",
    )
}
