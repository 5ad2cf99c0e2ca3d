//! What a simulated file holds: what its readers see, what is durable, and every change in between.

use rand::{RngExt as _, rngs::SmallRng};

use super::Survives;

/// Pieces in which the disk keeps or loses what was not synced.
const SECTOR_BYTES: usize = 512;

/// A file's contents.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    durable: Vec<u8>,
    /// As readers see it.
    pub current: Vec<u8>,
    pending: Vec<Change>,
    /// How many have it open only to read it.
    pub readers: usize,
}

/// A change that is not durable yet.
#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Cut(usize),
}

impl Contents {
    /// These bytes, durable.
    pub fn durable(bytes: Vec<u8>) -> Self {
        Self { durable: bytes.clone(), current: bytes, ..Self::default() }
    }

    /// Bytes are written.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        put(&mut self.current, offset, bytes);
        self.pending.push(Change::Write(offset, bytes.to_vec()));
    }

    /// All behind so many bytes goes.
    pub fn cut(&mut self, length: usize) {
        self.current.truncate(length);
        self.pending.push(Change::Cut(length));
    }

    /// What was changed is durable.
    pub fn sync(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            match change {
                Change::Write(offset, written) => put(&mut self.durable, offset, &written),
                Change::Cut(length) => self.durable.truncate(length),
            }
        }
    }

    /// What was changed counts as clean from now on, though it never reached the disk.
    pub fn fail_sync(&mut self) {
        self.pending.clear();
    }

    /// Changes behind everybody's back, for good.
    pub fn rot(&mut self, change: impl FnOnce(&mut Vec<u8>)) {
        change(&mut self.current);
        self.durable.clone_from(&self.current);
        self.pending.clear();
    }

    /// What a machine that stopped here could find again.
    pub fn after_crash(&self, survives: Survives, random: &mut SmallRng) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        let whole = random.random_range(0..=self.pending.len());
        for (place, change) in self.pending.iter().enumerate() {
            match change {
                Change::Cut(length) if survives.keeps(place, whole, random) => bytes.truncate(*length),
                Change::Cut(_) => {}
                Change::Write(offset, written) => match survives {
                    Survives::Prefix if place == whole => {
                        put(&mut bytes, *offset, &written[..random.random_range(0..=written.len())]);
                    }
                    Survives::Anything => put_some_sectors(&mut bytes, *offset, written, random),
                    _ if survives.keeps(place, whole, random) => put(&mut bytes, *offset, written),
                    _ => {}
                },
            }
        }
        bytes
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, written: &[u8]) {
    if bytes.len() < offset + written.len() {
        bytes.resize(offset + written.len(), 0);
    }
    bytes[offset..offset + written.len()].copy_from_slice(written);
}

fn put_some_sectors(bytes: &mut Vec<u8>, offset: usize, written: &[u8], random: &mut SmallRng) {
    let mut at = 0;
    while at < written.len() {
        // Sectors are those of the disk, not of the write.
        let piece = (SECTOR_BYTES - (offset + at) % SECTOR_BYTES).min(written.len() - at);
        if random.random() {
            put(bytes, offset + at, &written[at..at + piece]);
        }
        at += piece;
    }
}
