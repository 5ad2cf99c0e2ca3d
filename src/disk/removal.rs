//! The way out of what snapshots make superfluous: older snapshots, and the log behind the oldest of the kept. First the
//! names go, for good; then the room is given back piece by piece, at the pace of whoever asks for the next step.
//!
//! For as long as a disk is told what is free (ext4 and XFS with `discard`), a sync of the log waits: on a virtual disk 0.17
//! ms a mebibyte, so some tenths of a second for a snapshot that is unlinked in one go. Beside 5,000 writes a second the
//! slowest write met 195 to 240 ms when 1.4 GB went that way, and 6 ms when they went as here. Syncs of 4 KiB meanwhile,
//! 5,000 a second, beside 2 GiB (ext4, ms):
//!
//! ```text
//!                                       99%     99.9%
//! nothing is removed                    0.2     0.3
//! unlinked                             40 each, ten of them
//! cut by 64 MiB, every 20 ms            1.4    11
//! cut by 16 MiB, every 20 ms            0.8     3.8
//! cut by 1 MiB and synced, every 5 ms   0.4     1.0
//! ```
//!
//! The sync of each cut is for file systems with a journal: they tell the disk after each commit, and so little at once.
//!
//! Who reads one of these files (a backup, a check, another process) reads it to its end: it is not cut before.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    file_system::{File, FileSystem},
    segment,
    snapshot::folder,
};
use crate::limits::{REMOVAL_STEP_BYTES, REMOVED_WAITING_MAX};

/// What is on its way out.
#[derive(Debug)]
pub struct Removal {
    file_system: Arc<dyn FileSystem>,
    store_directory: PathBuf,
    /// Files without a name; their room is given back when nobody reads them.
    nameless: Vec<Arc<dyn File>>,
    /// Segments that are to lose their names, oldest first, so that the log never has a gap.
    segments: VecDeque<PathBuf>,
    removed: Removed,
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Snapshots.
    pub snapshots: usize,
    /// Segments of the log.
    pub segments: usize,
}

impl Removal {
    /// Nothing yet.
    pub fn new(file_system: Arc<dyn FileSystem>, store_directory: &Path) -> Self {
        Self {
            file_system,
            store_directory: store_directory.to_owned(),
            nameless: Vec::new(),
            segments: VecDeque::new(),
            removed: Removed::default(),
        }
    }

    /// Keeps the newest `keep` snapshots and takes the names of older ones; the segments of the log that lie wholly behind
    /// the oldest of the kept lose theirs step by step. To be called when the newest is durable. Nothing of the log goes
    /// before there are `keep`.
    pub fn begin(&mut self, keep: usize) -> io::Result<()> {
        let directory = self.store_directory.join(folder::FOLDER);
        let found = folder::list(&*self.file_system, &directory)?;
        let Some(first_kept) = found.snapshots.len().checked_sub(keep.max(1)) else { return Ok(()) };
        let oldest_index = found.snapshots[first_kept].0;
        let damaged = found.damaged.into_iter().filter(|(index, _)| *index < oldest_index);
        let superfluous = found.snapshots.into_iter().take(first_kept).chain(damaged);
        self.removed.snapshots += self.take_names(&directory, superfluous.map(|(_, path)| path))?;
        let directory = self.store_directory.join("wal");
        let mut segments: Vec<_> = self
            .file_system
            .list(&directory)?
            .into_iter()
            .filter_map(|name| Some((segment::first_index_of(&name)?, directory.join(name))))
            .collect();
        segments.sort();
        let behind = segments.windows(2).take_while(|pair| pair[1].0 <= oldest_index + 1);
        self.segments = behind.map(|pair| pair[0].1.clone()).collect();
        Ok(())
    }

    /// Takes the next step, and says how many bytes it gave back. `None`: there is nothing to do, or not yet, since all that
    /// is left is read.
    pub fn step(&mut self) -> io::Result<Option<u64>> {
        if let Some(unread) = self.nameless.iter().position(|file| file.is_unread()) {
            // What fails is not tried again: with the file closed the rest of it goes in one piece.
            let file = self.nameless.swap_remove(unread);
            let bytes = file.length()?;
            let left = bytes.saturating_sub(REMOVAL_STEP_BYTES);
            file.cut(left)?;
            file.sync_data()?;
            if left > 0 {
                self.nameless.push(file);
            }
            return Ok(Some(bytes - left));
        }
        if self.nameless.len() < REMOVED_WAITING_MAX
            && let Some(oldest) = self.segments.pop_front()
        {
            match self.take_names(&self.store_directory.join("wal"), [oldest].into_iter()) {
                Ok(segments) => self.removed.segments += segments,
                Err(error) => {
                    self.segments.clear();
                    return Err(error);
                }
            }
            return Ok(Some(0));
        }
        Ok(None)
    }

    /// Whether another snapshot may come first: not while so much is left that one after another would fill the disk.
    pub fn can_wait(&self) -> bool {
        self.nameless.len() < REMOVED_WAITING_MAX
    }

    /// What was removed since this was asked last.
    pub fn take_removed(&mut self) -> Removed {
        std::mem::take(&mut self.removed)
    }

    /// Takes the names of files in a folder, and only when those are gone for good are the files to be cut: after a crash
    /// a shortened one would look like damage.
    fn take_names(&mut self, directory: &Path, paths: impl Iterator<Item = PathBuf>) -> io::Result<usize> {
        let mut count = 0;
        let mut files = Vec::new();
        for path in paths {
            // What cannot be opened goes in one piece.
            files.extend(self.file_system.open(&path));
            self.file_system.remove(&path)?;
            count += 1;
        }
        if count > 0 {
            self.file_system.sync_directory(directory)?;
        }
        self.nameless.append(&mut files);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{
        file_system::read_whole,
        simulated::{Operation, SimulatedFileSystem, Survives},
    };

    fn name(index: u64, end: &str) -> String {
        format!("{index:020}.{end}")
    }

    fn put(disk: &SimulatedFileSystem, name: &str, bytes: u64) {
        disk.put_file(&Path::new("data").join(name), vec![1; bytes as usize]);
    }

    fn left(disk: &SimulatedFileSystem, folder: &str) -> Vec<String> {
        disk.list(Path::new(folder)).unwrap()
    }

    fn removal(disk: &SimulatedFileSystem) -> Removal {
        Removal::new(Arc::new(disk.clone()), Path::new("data"))
    }

    /// The bytes of each step until there is nothing more to do.
    fn steps(removal: &mut Removal) -> Vec<u64> {
        std::iter::from_fn(|| removal.step().unwrap()).collect()
    }

    /// Three snapshots of two steps and a half, and five segments of one byte.
    fn store() -> SimulatedFileSystem {
        let disk = SimulatedFileSystem::default();
        for index in [1, 11, 21, 31, 41] {
            put(&disk, &format!("wal/{}", name(index, "wal")), 1);
        }
        for index in [15, 20, 35] {
            put(&disk, &format!("snapshots/{}", name(index, "snap")), REMOVAL_STEP_BYTES * 5 / 2);
        }
        disk
    }

    #[test]
    fn what_lies_behind_the_oldest_kept_snapshot_goes_and_nothing_else() {
        let disk = store();
        let newer = [20, 35].map(|index| disk.take_file(&Path::new("data/snapshots").join(name(index, "snap"))));
        put(&disk, "wal/next", 1);
        let purge = |keep| {
            let mut removal = removal(&disk);
            removal.begin(keep).unwrap();
            steps(&mut removal);
            removal.take_removed()
        };
        assert_eq!(purge(2), Removed::default(), "with one snapshot the log is kept whole");
        for (index, bytes) in [20, 35].into_iter().zip(newer) {
            disk.put_file(&Path::new("data/snapshots").join(name(index, "snap")), bytes);
        }
        put(&disk, &format!("snapshots/{}", name(18, "damaged")), 1);
        put(&disk, &format!("snapshots/{}", name(25, "damaged")), 1);
        assert_eq!(purge(2), Removed { snapshots: 2, segments: 2 });
        assert_eq!(left(&disk, "data/wal"), [name(21, "wal"), name(31, "wal"), name(41, "wal"), "next".into()]);
        assert_eq!(left(&disk, "data/snapshots"), [name(20, "snap"), name(25, "damaged"), name(35, "snap")]);
        assert_eq!(purge(2), Removed::default());
        assert_eq!(purge(1), Removed { snapshots: 2, segments: 1 });
    }

    #[test]
    fn names_go_first_and_room_piece_by_piece() {
        let disk = store();
        let mut removal = removal(&disk);
        removal.begin(2).unwrap();
        assert_eq!(left(&disk, "data/snapshots"), [name(20, "snap"), name(35, "snap")]);
        let step = REMOVAL_STEP_BYTES;
        assert_eq!(steps(&mut removal), [step, step, step / 2, 0, 1, 0, 1]);
        assert_eq!(removal.take_removed(), Removed { snapshots: 1, segments: 2 });
        assert_eq!(removal.take_removed(), Removed::default());
    }

    #[test]
    fn who_reads_a_file_reads_it_whole_and_it_goes_after_that() {
        let disk = store();
        let read = [("snapshots", 15, "snap"), ("wal", 1, "wal")].map(|(folder, index, end)| {
            disk.open_to_read(&Path::new("data").join(folder).join(name(index, end))).unwrap()
        });
        let mut removal = removal(&disk);
        removal.begin(2).unwrap();
        assert_eq!(steps(&mut removal), [0, 0, 1], "all but what is read");
        assert_eq!(read.map(|file| read_whole(&*file).unwrap().len() as u64), [REMOVAL_STEP_BYTES * 5 / 2, 1]);
        let freed: u64 = steps(&mut removal).iter().sum();
        assert_eq!(freed, REMOVAL_STEP_BYTES * 5 / 2 + 1);
    }

    #[test]
    fn segments_keep_their_names_while_many_removed_files_are_read() {
        let disk = SimulatedFileSystem::default();
        let segments: Vec<_> = (0..20).map(|number| format!("data/wal/{}", name(1 + number * 10, "wal"))).collect();
        segments.iter().for_each(|path| disk.put_file(Path::new(path), vec![1]));
        put(&disk, &format!("snapshots/{}", name(500, "snap")), 1);
        let readers: Vec<_> = segments.iter().map(|path| disk.open_to_read(Path::new(path)).unwrap()).collect();
        let mut removal = removal(&disk);
        removal.begin(1).unwrap();
        steps(&mut removal);
        assert_eq!(left(&disk, "data/wal").len(), 20 - REMOVED_WAITING_MAX);
        drop(readers);
        steps(&mut removal);
        assert_eq!(left(&disk, "data/wal").len(), 1);
    }

    #[test]
    fn whatever_operation_the_machine_stops_at_no_file_is_found_shortened() {
        let whole = store();
        let length = |disk: &SimulatedFileSystem, path: &Path| disk.open(path).unwrap().length().unwrap();
        for operation in 1.. {
            let disk = whole.after_crash(Survives::Everything, 0);
            disk.crash_at(operation);
            let mut removal = removal(&disk);
            let mut result = removal.begin(2);
            while result.is_ok() {
                match removal.step() {
                    Ok(None) => break,
                    stepped => result = stepped.map(drop),
                }
            }
            for survives in [Survives::Nothing, Survives::Everything, Survives::Prefix, Survives::Anything] {
                for seed in 0..5 {
                    let found = disk.after_crash(survives, seed);
                    for folder in ["data/wal", "data/snapshots"] {
                        for name in left(&found, folder) {
                            let path = Path::new(folder).join(name);
                            assert_eq!(
                                length(&found, &path),
                                length(&whole, &path),
                                "{operation}: {path:?}, {survives:?}"
                            );
                        }
                    }
                }
            }
            if result.is_ok() {
                assert!(operation > 15, "only {operation} operations");
                break;
            }
        }
    }

    #[test]
    fn an_error_at_any_operation_leaves_the_log_without_a_gap_and_the_rest_to_the_next_time() {
        let whole = store();
        for failing in 1.. {
            let disk = whole.after_crash(Survives::Everything, 0);
            let mut left_until = failing;
            disk.inject(move |operation, _| {
                left_until -= u64::from(operation != Operation::Read && left_until > 0);
                (left_until == 0).then(|| io::Error::from_raw_os_error(5))
            });
            let mut removal = removal(&disk);
            let mut failed = removal.begin(2).is_err();
            while !failed {
                match removal.step() {
                    Ok(None) => break,
                    stepped => failed = stepped.is_err(),
                }
            }
            let segments = left(&disk, "data/wal");
            assert_eq!(
                segments[..],
                left(&whole, "data/wal")[5 - segments.len()..],
                "{failing}: the newest, without a gap"
            );
            disk.heal();
            removal.begin(2).unwrap();
            steps(&mut removal);
            assert_eq!((left(&disk, "data/wal").len(), left(&disk, "data/snapshots").len()), (3, 2), "{failing}");
            if !failed {
                return;
            }
        }
    }
}
