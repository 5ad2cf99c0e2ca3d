//! The disk reserve: growth is refused while the disk has less room left than the log, a snapshot and recovery need, so
//! that it is never really full when they need it. The alarm clears itself.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{background::Background, log::Shared, snapshot::Snapshots};
use crate::{
    disk::{FileSystem, Space},
    error::{Error, Reason},
    limits::{DISK_RESERVE_BYTES_MAX, DISK_RESERVE_PERCENT},
    notation::show_bytes,
};

/// How often the disk is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The alarm clears when so many hundredths of the reserve are free again.
const CLEAR_PERCENT: u64 = 110;

/// What the disk has left against the reserve.
#[derive(Debug)]
pub struct DiskRoom {
    /// What configuration asks for; `None`: as much as the disk and the log's segments call for.
    fixed_bytes: Option<u64>,
    segment_bytes: u64,
    free_bytes: AtomicU64,
    reserve_bytes: AtomicU64,
    low: AtomicBool,
}

impl DiskRoom {
    /// Nothing is known of the disk yet.
    pub fn new(fixed_bytes: Option<u64>, segment_bytes: u64) -> Self {
        Self {
            fixed_bytes,
            segment_bytes,
            free_bytes: AtomicU64::new(u64::MAX),
            reserve_bytes: AtomicU64::new(0),
            low: AtomicBool::new(false),
        }
    }

    /// Growth is refused.
    pub fn is_low(&self) -> bool {
        self.low.load(Ordering::Relaxed)
    }

    /// Bytes that are free, when it was last looked at.
    pub fn free_bytes(&self) -> u64 {
        self.free_bytes.load(Ordering::Relaxed)
    }

    /// Bytes that are kept free.
    pub fn reserve_bytes(&self) -> u64 {
        self.reserve_bytes.load(Ordering::Relaxed)
    }

    /// The disk has so much room now, and the last snapshot took so much: raises and clears the alarm.
    pub fn observe(&self, space: Space, snapshot_bytes: u64) {
        let reserve_bytes = self.fixed_bytes.unwrap_or_else(|| self.reserve_for(space.total_bytes, snapshot_bytes));
        self.free_bytes.store(space.free_bytes, Ordering::Relaxed);
        self.reserve_bytes.store(reserve_bytes, Ordering::Relaxed);
        let was_low = self.is_low();
        let needed_bytes = if was_low { reserve_bytes / 100 * CLEAR_PERCENT } else { reserve_bytes };
        let low = space.free_bytes < needed_bytes;
        if low == was_low {
            return;
        }
        self.low.store(low, Ordering::Relaxed);
        let free_bytes = space.free_bytes;
        if low {
            tracing::error!(free_bytes, reserve_bytes, "the disk has less room than the reserve: growth is refused");
        } else {
            tracing::info!(free_bytes, reserve_bytes, "the disk has room again: growth is taken");
        }
    }

    /// The error of a write that would add to what is on disk.
    pub fn refusal(&self) -> Error {
        let text = format!(
            "the disk has {} free, less than the reserve of {} (wal.disk_reserve): free space on it; deletes go on, and \
             writes resume by themselves",
            show_bytes(self.free_bytes()),
            show_bytes(self.reserve_bytes())
        );
        Error::new(Reason::DiskFull, text).with(|details| details.limit = Some(self.reserve_bytes()))
    }

    /// The next segments of the log and a part of the disk, and room for the next snapshot to be somewhat larger than the
    /// last one.
    fn reserve_for(&self, total_bytes: u64, snapshot_bytes: u64) -> u64 {
        let part = DISK_RESERVE_BYTES_MAX.min(total_bytes / 100 * DISK_RESERVE_PERCENT);
        part.max(2 * self.segment_bytes) + snapshot_bytes / 5 * 6
    }
}

/// Looks at the disk again and again.
#[derive(Debug)]
pub struct Watch {
    file_system: Arc<dyn FileSystem>,
    directory: PathBuf,
    shared: Arc<Shared>,
    snapshots: Arc<Snapshots>,
}

impl Watch {
    /// A look-out for the disk that holds a directory.
    pub fn new(
        file_system: Arc<dyn FileSystem>,
        directory: &Path,
        shared: &Arc<Shared>,
        snapshots: &Arc<Snapshots>,
    ) -> Self {
        let (shared, snapshots) = (Arc::clone(shared), Arc::clone(snapshots));
        Self { file_system, directory: directory.to_owned(), shared, snapshots }
    }

    /// Looks once.
    pub fn look(&self) {
        let snapshot_bytes = self.snapshots.status().last.map_or(0, |last| last.bytes);
        match self.file_system.space(&self.directory) {
            Ok(space) => {
                self.shared.disk_room.observe(space, snapshot_bytes);
                self.shared.metrics.disk(space.free_bytes, self.shared.disk_room.reserve_bytes());
            }
            // What was seen last stays true until something else is seen.
            Err(error) => tracing::debug!(%error, "the disk's free space could not be read"),
        }
    }

    /// Starts the thread.
    pub fn start(self) -> std::io::Result<Background> {
        Background::start("tandem-disk", move |stop| {
            while !stop.requested() {
                self.look();
                stop.pause(LOOK_EVERY);
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn reserve(total_bytes: u64, snapshot_bytes: u64) -> u64 {
        let room = DiskRoom::new(None, 64 * MIB);
        room.observe(Space { free_bytes: total_bytes, total_bytes }, snapshot_bytes);
        room.reserve_bytes()
    }

    #[test]
    fn the_reserve_follows_segments_disk_and_snapshot() {
        assert_eq!(reserve(100 * MIB, 0), 128 * MIB, "two segments at least");
        assert_eq!(reserve(10_000 * MIB, 0), 500 * MIB, "a twentieth of the disk");
        assert_eq!(reserve(1_000_000 * MIB, 0), 1_024 * MIB, "a gibibyte at most");
        assert_eq!(reserve(1_000_000 * MIB, 100 * MIB), 1_144 * MIB, "and the next snapshot");
    }

    #[test]
    fn the_alarm_rises_below_the_reserve_and_clears_a_tenth_above_it() {
        let room = DiskRoom::new(Some(100 * MIB), 64 * MIB);
        let low = [200, 100, 99, 105, 109, 110, 105, 0].map(|free| {
            room.observe(Space { free_bytes: free * MIB, total_bytes: 1_000 * MIB }, 0);
            room.is_low()
        });
        assert_eq!(low, [false, false, true, true, true, false, false, true]);
        let error = room.refusal();
        assert_eq!(error.reason, Reason::DiskFull);
        assert!(error.message.contains("reserve of 100MiB (wal.disk_reserve): free space"), "{}", error.message);
    }

    #[test]
    fn a_reserve_of_nothing_never_raises_the_alarm() {
        let room = DiskRoom::new(Some(0), 64 * MIB);
        room.observe(Space { free_bytes: 0, total_bytes: MIB }, 0);
        assert!(!room.is_low());
    }
}
