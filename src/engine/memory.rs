//! The memory limit: growth is refused while the store uses all that it may, before a write is logged. `apply` knows
//! nothing of it, so that the same log gives the same state on any machine.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use tokio::sync::Notify;

use super::judge::KeyWrite;
use crate::{
    error::{Error, Reason},
    limits::Eviction,
    notation::show_bytes,
    pb::{self, storage::log_record::Command},
    store::Store,
};

/// From this part of the limit on there is a warning, in hundredths …
const WARN_PERCENT: u64 = 80;
/// … and growth that was refused is taken again below this one.
const CLEAR_PERCENT: u64 = 90;
/// Where entries may be evicted, that begins this part of the limit below it, in hundredths …
const HEADROOM_PERCENT: u64 = 5;
/// … or so many bytes, but no more than a quarter: writes that come fast must not outrun the evictor.
const HEADROOM_BYTES: u64 = 16 << 20;
/// How long a write waits for the evictor before it is refused.
const EVICTION_WAIT: Duration = Duration::from_secs(1);
/// What a new entry takes besides key and value: head, places in the indexes, and slack.
const ENTRY_OVERHEAD_BYTES: i64 = 48;

/// What the store uses against what it may.
#[derive(Debug)]
pub struct Memory {
    limit_bytes: u64,
    /// Entries are evicted to make room.
    evicts: bool,
    used_bytes: AtomicU64,
    high: AtomicBool,
    full: AtomicBool,
    /// There is room again.
    cleared: Notify,
}

impl Memory {
    /// An empty store that may use so much.
    pub fn new(limit_bytes: u64, eviction: Eviction) -> Self {
        Self {
            limit_bytes,
            evicts: eviction != Eviction::None,
            used_bytes: AtomicU64::new(0),
            high: AtomicBool::new(false),
            full: AtomicBool::new(false),
            cleared: Notify::new(),
        }
    }

    /// The limit.
    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// What the store used when it was last looked at.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// Growth is refused.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// The limit is near.
    pub fn is_high(&self) -> bool {
        self.high.load(Ordering::Relaxed)
    }

    /// The store uses so much now: raises and clears the alarms.
    pub fn observe(&self, used_bytes: u64) {
        self.used_bytes.store(used_bytes, Ordering::Relaxed);
        let (limit_bytes, is_full) = (self.limit_bytes, self.is_full());
        let full = used_bytes >= if is_full { self.clear_bytes() } else { limit_bytes };
        if full != is_full {
            self.full.store(full, Ordering::Relaxed);
            if !full {
                self.cleared.notify_waiters();
            }
            if self.evicts {
                tracing::debug!(used_bytes, limit_bytes, full, "growth waits for the evictor while memory is full");
            } else if full {
                tracing::error!(used_bytes, limit_bytes, "the memory limit is reached: growth is refused");
            } else {
                tracing::info!(used_bytes, limit_bytes, "the store is below its memory limit again: growth is taken");
            }
        }
        let high = used_bytes >= self.percent(WARN_PERCENT);
        if high != self.is_high() {
            self.high.store(high, Ordering::Relaxed);
            if high && !full {
                tracing::warn!(used_bytes, limit_bytes, "the store nears its memory limit");
            }
        }
    }

    /// Bytes by which the store may still grow. Where entries are evicted, writes wait before the queue; what is in it is
    /// taken.
    pub fn room_bytes(&self) -> u64 {
        match (self.evicts, self.is_full()) {
            (true, _) => u64::MAX,
            (false, true) => 0,
            (false, false) => self.limit_bytes.saturating_sub(self.used_bytes()),
        }
    }

    /// Bytes that are to be evicted, where that is allowed.
    pub fn excess_bytes(&self) -> u64 {
        self.used_bytes().saturating_sub(self.limit_bytes - self.headroom_bytes())
    }

    /// Where entries are evicted, waits a while for room.
    pub async fn wait_for_eviction(&self) {
        if self.evicts {
            let cleared = self.cleared.notified();
            if self.is_full() {
                // Without room by then the write is refused.
                let _ = tokio::time::timeout(EVICTION_WAIT, cleared).await;
            }
        }
    }

    fn headroom_bytes(&self) -> u64 {
        self.percent(HEADROOM_PERCENT).max(HEADROOM_BYTES.min(self.limit_bytes / 4))
    }

    /// Growth that was refused is taken again below this.
    fn clear_bytes(&self) -> u64 {
        // An evictor keeps making room, so that there is no need to wait for much of it.
        if self.evicts { self.limit_bytes - self.headroom_bytes() / 8 } else { self.percent(CLEAR_PERCENT) }
    }

    /// The error of a write that there is no room for.
    pub fn refusal(&self) -> Error {
        let limit = show_bytes(self.limit_bytes);
        let resumes = if self.evicts { "once enough is evicted".into() } else { format!("below {CLEAR_PERCENT}%") };
        let text = format!(
            "the store uses its memory limit of {limit} (store.memory_limit): delete keys, or raise the limit; deletes, \
             touches and smaller values go on, and growth resumes by itself {resumes}"
        );
        Error::new(Reason::MemoryLimit, text).with(|details| details.limit = Some(self.limit_bytes))
    }

    fn percent(&self, percent: u64) -> u64 {
        self.limit_bytes / 100 * percent
    }
}

/// By how many bytes a command makes the store grow, as it looks now; of a transaction the branch that grows more.
pub fn growth_of(store: &Store, command: &Command) -> i64 {
    match command {
        Command::BatchWrite(batch) => growth_bytes(store, batch.writes.iter().filter_map(KeyWrite::of_op)),
        Command::Txn(txn) => {
            let of_branch = |branch: &[pb::TxnOp]| growth_bytes(store, branch.iter().filter_map(KeyWrite::of_txn_op));
            of_branch(&txn.then).max(of_branch(&txn.otherwise))
        }
        command => growth_bytes(store, KeyWrite::of(command).into_iter()),
    }
}

/// By how many bytes writes make the store grow together.
pub fn growth_bytes<'write>(store: &Store, writes: impl Iterator<Item = KeyWrite<'write>>) -> i64 {
    writes.map(|write| of_one(store, write)).sum()
}

fn of_one(store: &Store, write: KeyWrite<'_>) -> i64 {
    let held = |key: &[u8]| store.read(key, |entry| entry.map(|entry| entry.value.as_slice().len() as i64));
    let new = |value: i64| write.key().len() as i64 + value + ENTRY_OVERHEAD_BYTES;
    match write {
        KeyWrite::Put(request) => {
            let value = request.value.len() as i64;
            held(write.key()).map_or_else(|| new(value), |before| value - before)
        }
        // A counter that is there changes by a digit.
        KeyWrite::Increment(_) => held(write.key()).map_or_else(|| new(20), |_| 0),
        KeyWrite::Touch(_) => 0,
        KeyWrite::Delete(_) => -held(write.key()).map_or(0, new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_refused_at_the_limit_and_taken_again_below_nine_tenths_of_it() {
        let memory = Memory::new(1_000, Eviction::None);
        let seen = [700, 800, 999, 1_000, 950, 900, 899, 950, 1_200, 0].map(|used_bytes| {
            memory.observe(used_bytes);
            (memory.is_high(), memory.is_full(), memory.room_bytes())
        });
        let expected = [
            (false, false, 300),
            (true, false, 200),
            (true, false, 1),
            (true, true, 0),
            (true, true, 0),
            (true, true, 0),
            (true, false, 101),
            (true, false, 50),
            (true, true, 0),
            (false, false, 1_000),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_refusal_names_the_limit_and_the_remedy() {
        let error = Memory::new(512 << 20, Eviction::None).refusal();
        assert_eq!(error.reason, Reason::MemoryLimit);
        for part in ["512MiB", "store.memory_limit", "delete keys", "below 90%"] {
            assert!(error.message.contains(part), "{part} in {}", error.message);
        }
        assert_eq!(error.details.and_then(|details| details.limit), Some(512 << 20));
    }

    #[tokio::test(start_paused = true)]
    async fn with_eviction_growth_waits_for_room_before_it_is_refused() {
        let memory = Memory::new(1_000, Eviction::All);
        memory.wait_for_eviction().await;
        memory.observe(760);
        assert_eq!(memory.excess_bytes(), 10, "a quarter is kept free of so little");
        memory.observe(1_000);
        let started = tokio::time::Instant::now();
        memory.wait_for_eviction().await;
        assert!(memory.is_full() && started.elapsed() >= EVICTION_WAIT);
        let started = tokio::time::Instant::now();
        tokio::join!(memory.wait_for_eviction(), async { memory.observe(900) });
        assert!(!memory.is_full() && started.elapsed() < EVICTION_WAIT);
    }

    #[test]
    fn no_limit_is_never_reached() {
        let memory = Memory::new(u64::MAX, Eviction::None);
        memory.observe(1 << 50);
        assert!(!memory.is_high() && memory.room_bytes() > 1 << 60);
    }
}
