//! How far a start has come, for whoever watches it from another thread.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// What a start is busy with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Looking at what is there.
    #[default]
    Looking,
    /// Loading a snapshot.
    Snapshot,
    /// Replaying the log.
    Log,
}

impl Phase {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Looking => "looking at the data directory",
            Self::Snapshot => "loading the snapshot",
            Self::Log => "replaying the log",
        }
    }
}

/// The phase and how much of it is done, in bytes.
#[derive(Debug, Default)]
pub struct Progress {
    phase: AtomicU8,
    done_bytes: AtomicU64,
    total_bytes: AtomicU64,
}

/// What [`Progress`] shows at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The phase.
    pub phase: Phase,
    /// Bytes of it that are done.
    pub done_bytes: u64,
    /// Bytes of it in all.
    pub total_bytes: u64,
}

impl Step {
    /// How much of the phase is done.
    pub fn percent(&self) -> u64 {
        (self.done_bytes.min(self.total_bytes) * 100).checked_div(self.total_bytes).unwrap_or(0)
    }
}

impl Progress {
    /// A phase begins.
    pub fn begin(&self, phase: Phase, total_bytes: u64) {
        self.done_bytes.store(0, Ordering::Relaxed);
        self.total_bytes.store(total_bytes, Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// So much more of it is done.
    pub fn advance(&self, bytes: u64) {
        self.done_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Where it stands.
    pub fn read(&self) -> Step {
        let phase = match self.phase.load(Ordering::Relaxed) {
            1 => Phase::Snapshot,
            2 => Phase::Log,
            _ => Phase::Looking,
        };
        Step {
            phase,
            done_bytes: self.done_bytes.load(Ordering::Relaxed),
            total_bytes: self.total_bytes.load(Ordering::Relaxed),
        }
    }
}
