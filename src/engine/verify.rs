//! Verifies the files of a running store: every snapshot, and the log up to what is on disk. At the rate at which snapshots
//! are written, and with little memory.

use std::{
    io,
    path::PathBuf,
    time::{Duration, Instant},
};

use super::{Engine, snapshot::check};
use crate::{
    disk::{RecoveryError, check_running, is_gone, snapshot::Reader},
    error::{Error, Reason, Result},
};

/// How often the log says how far it has come.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// A file that was read.
#[derive(Clone, Debug)]
pub struct FileCheck {
    /// The file.
    pub path: PathBuf,
    /// Whether it is a snapshot or a segment of the log.
    pub kind: FileKind,
    /// Bytes that were read.
    pub bytes: u64,
    /// Keys of a snapshot, records of a segment.
    pub items: u64,
    /// Hash of a snapshot's state, as hexadecimal digits.
    pub state_hash: String,
    /// What is wrong.
    pub damage: Option<RecoveryError>,
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A snapshot.
    Snapshot,
    /// A segment of the log.
    Segment,
}

impl Engine {
    /// Reads every file and checks it. Blocks for as long as that takes, unless `stopped` says so; then DRAINING.
    pub fn verify(&self, stopped: &dyn Fn() -> bool) -> Result<Vec<FileCheck>> {
        // What is on disk now must be there in whatever is read later.
        let synced_index = self.synced_revision() - self.offset;
        let mut stride = Stride::new(self.snapshot_bytes_per_second(), stopped);
        let mut checks = self.verify_snapshots(&mut stride)?;
        let directory = self.snapshots.store_directory().join("wal");
        let checked =
            check_running(self.snapshots.file_system(), &directory, synced_index, &mut |bytes| stride.advance(bytes));
        let segments = checked.map_err(|error| unreadable(&error))?.ok_or_else(broken_off)?;
        checks.extend(segments.into_iter().map(|segment| FileCheck {
            path: segment.path,
            kind: FileKind::Segment,
            bytes: segment.bytes,
            items: segment.records,
            state_hash: String::new(),
            damage: segment.damage,
        }));
        let damaged = checks.iter().filter(|check| check.damage.is_some()).count();
        for damage in checks.iter().filter_map(|check| check.damage.as_ref()) {
            tracing::error!(error = %damage, "verifying found damage");
        }
        tracing::info!(files = checks.len(), bytes = stride.done_bytes, damaged, "verified the files of the store");
        Ok(checks)
    }

    fn verify_snapshots(&self, stride: &mut Stride<'_>) -> Result<Vec<FileCheck>> {
        let fs = self.snapshots.file_system();
        let mut checks = Vec::new();
        for listed in self.list_snapshots()? {
            let path = match &listed {
                Ok(summary) => summary.path.clone(),
                Err(error) => error.file.clone(),
            };
            let mut check_of = FileCheck {
                path,
                kind: FileKind::Snapshot,
                bytes: 0,
                items: 0,
                state_hash: String::new(),
                damage: None,
            };
            let read = listed.and_then(|summary| {
                check_of.bytes = summary.bytes;
                check_of.items = summary.entries;
                check_of.state_hash = summary.state_hash;
                check(&Reader::open(fs, &summary.path)?, &mut |bytes| stride.advance(bytes))
            });
            match read {
                Ok(true) => {}
                Ok(false) => return Err(broken_off()),
                // A newer one made it superfluous meanwhile.
                Err(_) if is_gone(fs, &check_of.path) => continue,
                Err(error) => check_of.damage = Some(error),
            }
            checks.push(check_of);
        }
        Ok(checks)
    }
}

fn broken_off() -> Error {
    Error::new(Reason::Draining, "the verification was broken off: the server stops, or nobody waits for it any more")
}

fn unreadable(error: &io::Error) -> Error {
    Error::internal(format!("the folder of the log cannot be read: {error}: check the disk"))
}

/// Reads no faster than snapshots are written, says how far it has come, and can be stopped.
struct Stride<'stop> {
    bytes_per_second: u64,
    started: Instant,
    said: Instant,
    done_bytes: u64,
    stopped: &'stop dyn Fn() -> bool,
}

impl<'stop> Stride<'stop> {
    fn new(bytes_per_second: u64, stopped: &'stop dyn Fn() -> bool) -> Self {
        let started = Instant::now();
        Self { bytes_per_second, started, said: started, done_bytes: 0, stopped }
    }

    /// So many bytes were read; false: stop.
    fn advance(&mut self, bytes: u64) -> bool {
        self.done_bytes += bytes;
        let due = Duration::from_secs_f64(self.done_bytes as f64 / self.bytes_per_second as f64);
        // Never more than one step ahead, which is a few milliseconds' worth.
        std::thread::sleep(due.saturating_sub(self.started.elapsed()));
        if self.said.elapsed() >= SAY_EVERY {
            self.said = Instant::now();
            tracing::info!(bytes = self.done_bytes, "verifying the files of the store");
        }
        !(self.stopped)()
    }
}
