//! A file system in memory that can crash, for tests: it tells what is durable from what is only written, fails where it
//! is told to, and shows what a restarted machine could find.
//!
//! File contents become durable by `sync_data`, names by `sync_directory`. A sync that failed never makes the data of
//! before durable, whatever later ones say.

mod contents;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

use self::contents::Contents;
use super::file_system::{File, FileSystem, LockGuard, Space};

/// What kind of operation is about to happen; each counts as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A file is created or emptied.
    Create,
    /// An existing file is opened.
    Open,
    /// Bytes are written.
    Write,
    /// A file is synced.
    Sync,
    /// A file gets another name.
    Rename,
    /// A file is removed.
    Remove,
    /// A file is cut; one that was removed has no name to tell.
    Cut,
    /// A folder is synced.
    SyncDirectory,
    /// Bytes are read. Nothing stops there, it can only fail: it is not counted.
    Read,
}

/// What survives a crash of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survives {
    /// Nothing.
    Nothing,
    /// Everything.
    Everything,
    /// What came first, the last of it cut at any byte.
    Prefix,
    /// Any of it: each sector and each name on its own.
    Anything,
}

impl Survives {
    /// Whether the change at this place among the pending ones does, where the first `whole` of them came first.
    fn keeps(self, place: usize, whole: usize, random: &mut SmallRng) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Prefix => place < whole,
            Self::Anything => random.random(),
        }
    }
}

type Fault = Box<dyn FnMut(Operation, &Path) -> Option<io::Error> + Send>;

#[derive(Clone, Debug)]
enum NameChange {
    Link(PathBuf, u64),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf, u64),
}

#[derive(Default)]
struct Disk {
    files: BTreeMap<u64, Contents>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    pending_names: Vec<NameChange>,
    directories: BTreeSet<PathBuf>,
    locks: BTreeMap<PathBuf, String>,
    operations: u64,
    crash_at: Option<u64>,
    crashed: bool,
    fault: Option<Fault>,
    capacity_bytes: Option<usize>,
}

/// The file system; clones share the disk.
#[derive(Clone, Default)]
pub struct SimulatedFileSystem {
    disk: Arc<Mutex<Disk>>,
}

impl fmt::Debug for SimulatedFileSystem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SimulatedFileSystem").field("operations", &self.operations()).finish_non_exhaustive()
    }
}

fn crashed() -> io::Error {
    io::Error::other("the machine stopped")
}

impl SimulatedFileSystem {
    /// How many operations there were.
    pub fn operations(&self) -> u64 {
        self.disk.lock().operations
    }

    /// The machine stops at this operation, counted from 1 and from now: it is half done, and every later one fails.
    pub fn crash_at(&self, operation: u64) {
        let mut disk = self.disk.lock();
        disk.crash_at = Some(disk.operations + operation);
    }

    /// Whether the machine stopped.
    pub fn crashed(&self) -> bool {
        self.disk.lock().crashed
    }

    /// Asks `fault` before each operation; the error it gives happens.
    pub fn inject(&self, fault: impl FnMut(Operation, &Path) -> Option<io::Error> + Send + 'static) {
        self.disk.lock().fault = Some(Box::new(fault));
    }

    /// No more faults.
    pub fn heal(&self) {
        self.disk.lock().fault = None;
    }

    /// Bytes that all files together may have.
    pub fn set_capacity_bytes(&self, bytes: Option<usize>) {
        self.disk.lock().capacity_bytes = bytes;
    }

    /// Bytes that all files together have.
    pub fn used_bytes(&self) -> usize {
        self.disk.lock().used_bytes()
    }

    /// Changes a file behind everybody's back, as rot does.
    pub fn corrupt(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut disk = self.disk.lock();
        if let Some(id) = disk.names.get(path).copied()
            && let Some(contents) = disk.files.get_mut(&id)
        {
            contents.rot(change);
        }
    }

    /// Puts a file there, durable.
    pub fn put_file(&self, path: &Path, bytes: Vec<u8>) {
        let mut disk = self.disk.lock();
        let id = disk.new_id();
        disk.files.insert(id, Contents::durable(bytes));
        disk.names.insert(path.to_owned(), id);
        disk.durable_names.insert(path.to_owned(), id);
    }

    /// Takes a file away, durably.
    pub fn take_file(&self, path: &Path) -> Vec<u8> {
        let mut disk = self.disk.lock();
        disk.durable_names.remove(path);
        let id = disk.names.remove(path);
        id.and_then(|id| disk.files.remove(&id)).map(|contents| contents.current).unwrap_or_default()
    }

    /// The disk as a machine that stopped here could find it again.
    pub fn after_crash(&self, survives: Survives, seed: u64) -> Self {
        let disk = self.disk.lock();
        let mut random = SmallRng::seed_from_u64(seed);
        let mut names = disk.durable_names.clone();
        let kept_names = random.random_range(0..=disk.pending_names.len());
        for (place, change) in disk.pending_names.iter().enumerate() {
            if survives.keeps(place, kept_names, &mut random) {
                apply_name(&mut names, change);
            }
        }
        let mut files = BTreeMap::new();
        for id in names.values() {
            if let Some(contents) = disk.files.get(id) {
                files.insert(*id, Contents::durable(contents.after_crash(survives, &mut random)));
            }
        }
        let restarted = Disk {
            files,
            durable_names: names.clone(),
            names,
            directories: disk.directories.clone(),
            ..Disk::default()
        };
        Self { disk: Arc::new(Mutex::new(restarted)) }
    }
}

fn apply_name(names: &mut BTreeMap<PathBuf, u64>, change: &NameChange) {
    match change {
        NameChange::Link(path, id) => {
            names.insert(path.clone(), *id);
        }
        NameChange::Unlink(path) => {
            names.remove(path);
        }
        NameChange::Rename(from, to, id) => {
            names.remove(from);
            names.insert(to.clone(), *id);
        }
    }
}

impl Disk {
    fn new_id(&self) -> u64 {
        self.files.keys().next_back().map_or(1, |last| last + 1)
    }

    fn used_bytes(&self) -> usize {
        self.names.values().filter_map(|id| self.files.get(id)).map(|contents| contents.current.len()).sum()
    }

    /// Counts an operation; `Err` if it fails without effect, `Ok(true)` if the machine stops half-way through it.
    fn count(&mut self, operation: Operation, path: &Path) -> io::Result<bool> {
        if self.crashed {
            return Err(crashed());
        }
        self.operations += 1;
        self.ask(operation, path)?;
        self.crashed = self.crash_at == Some(self.operations);
        Ok(self.crashed)
    }

    /// `Err` if this is to fail.
    fn ask(&mut self, operation: Operation, path: &Path) -> io::Result<()> {
        self.fault.as_mut().and_then(|fault| fault(operation, path)).map_or(Ok(()), Err)
    }

    fn change_name(&mut self, change: NameChange) {
        apply_name(&mut self.names, &change);
        self.pending_names.push(change);
    }

    fn path_of(&self, id: u64) -> PathBuf {
        self.names.iter().find(|(_, other)| **other == id).map(|(path, _)| path.clone()).unwrap_or_default()
    }
}

fn done(stopped: bool) -> io::Result<()> {
    if stopped { Err(crashed()) } else { Ok(()) }
}

fn missing(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, path.display().to_string())
}

impl FileSystem for SimulatedFileSystem {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.disk.lock().directories.insert(path.to_owned());
        Ok(())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let disk = self.disk.lock();
        if disk.crashed {
            return Err(crashed());
        }
        let inside = disk.names.keys().filter(|path| path.parent() == Some(directory));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut disk = self.disk.lock();
        done(disk.count(Operation::Open, path)?)?;
        let id = *disk.names.get(path).ok_or_else(|| missing(path))?;
        Ok(Arc::new(SimulatedFile { disk: Arc::clone(&self.disk), id, reads: false }))
    }

    fn open_to_read(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut disk = self.disk.lock();
        done(disk.count(Operation::Open, path)?)?;
        let id = *disk.names.get(path).ok_or_else(|| missing(path))?;
        disk.files.entry(id).or_default().readers += 1;
        Ok(Arc::new(SimulatedFile { disk: Arc::clone(&self.disk), id, reads: true }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut disk = self.disk.lock();
        let stopped = disk.count(Operation::Create, path)?;
        let id = disk.new_id();
        disk.files.insert(id, Contents::default());
        disk.change_name(NameChange::Link(path.to_owned(), id));
        done(stopped)?;
        Ok(Arc::new(SimulatedFile { disk: Arc::clone(&self.disk), id, reads: false }))
    }

    fn create_streamed(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.create(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let stopped = disk.count(Operation::Rename, from)?;
        let id = *disk.names.get(from).ok_or_else(|| missing(from))?;
        disk.change_name(NameChange::Rename(from.to_owned(), to.to_owned(), id));
        done(stopped)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let stopped = disk.count(Operation::Remove, path)?;
        disk.change_name(NameChange::Unlink(path.to_owned()));
        done(stopped)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        done(disk.count(Operation::SyncDirectory, path)?)?;
        let (inside, outside) = std::mem::take(&mut disk.pending_names).into_iter().partition(|change| {
            let (NameChange::Link(name, _) | NameChange::Unlink(name) | NameChange::Rename(_, name, _)) = change;
            name.parent() == Some(path)
        });
        disk.pending_names = outside;
        let inside: Vec<NameChange> = inside;
        inside.iter().for_each(|change| apply_name(&mut disk.durable_names, change));
        Ok(())
    }

    fn space(&self, _directory: &Path) -> io::Result<Space> {
        let disk = self.disk.lock();
        let total = disk.capacity_bytes.unwrap_or(1 << 40);
        Ok(Space { free_bytes: total.saturating_sub(disk.used_bytes()) as u64, total_bytes: total as u64 })
    }

    fn lock(&self, path: &Path, note: &str) -> io::Result<Box<dyn LockGuard>> {
        let mut disk = self.disk.lock();
        if let Some(holder) = disk.locks.get(path) {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, holder.clone()));
        }
        disk.locks.insert(path.to_owned(), note.to_owned());
        Ok(Box::new(SimulatedLock { disk: Arc::clone(&self.disk), path: path.to_owned() }))
    }
}

struct SimulatedLock {
    disk: Arc<Mutex<Disk>>,
    path: PathBuf,
}

impl fmt::Debug for SimulatedLock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SimulatedLock").field("path", &self.path).finish_non_exhaustive()
    }
}

impl LockGuard for SimulatedLock {}

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        self.disk.lock().locks.remove(&self.path);
    }
}

struct SimulatedFile {
    disk: Arc<Mutex<Disk>>,
    id: u64,
    /// It was opened only to be read.
    reads: bool,
}

impl Drop for SimulatedFile {
    fn drop(&mut self) {
        if self.reads
            && let Some(contents) = self.disk.lock().files.get_mut(&self.id)
        {
            contents.readers = contents.readers.saturating_sub(1);
        }
    }
}

impl fmt::Debug for SimulatedFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SimulatedFile").field("id", &self.id).finish_non_exhaustive()
    }
}

impl File for SimulatedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut disk = self.disk.lock();
        if disk.crashed {
            return Err(crashed());
        }
        let path = disk.path_of(self.id);
        disk.ask(Operation::Read, &path)?;
        let current = disk.files.get(&self.id).map_or(&[][..], |contents| &contents.current);
        let from = current.get(offset as usize..).unwrap_or_default();
        let read = from.len().min(buffer.len());
        buffer[..read].copy_from_slice(&from[..read]);
        Ok(read)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let path = disk.path_of(self.id);
        let stopped = disk.count(Operation::Write, &path)?;
        let used_bytes = disk.used_bytes();
        let capacity_bytes = disk.capacity_bytes;
        let Some(contents) = disk.files.get_mut(&self.id) else { return Err(missing(&path)) };
        let grown_bytes = (offset as usize + bytes.len()).saturating_sub(contents.current.len());
        if capacity_bytes.is_some_and(|capacity_bytes| used_bytes + grown_bytes > capacity_bytes) {
            return Err(io::Error::from_raw_os_error(28));
        }
        contents.write(offset as usize, bytes);
        done(stopped)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let path = disk.path_of(self.id);
        match disk.count(Operation::Sync, &path) {
            Ok(stopped) => done(stopped)?,
            Err(error) => {
                if let Some(contents) = disk.files.get_mut(&self.id) {
                    contents.fail_sync();
                }
                return Err(error);
            }
        }
        if let Some(contents) = disk.files.get_mut(&self.id) {
            contents.sync();
        }
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.lock().files.get(&self.id).map_or(0, |contents| contents.current.len()) as u64)
    }

    fn is_unread(&self) -> bool {
        self.disk.lock().files.get(&self.id).is_none_or(|contents| contents.readers == 0)
    }

    fn cut(&self, bytes: u64) -> io::Result<()> {
        let mut disk = self.disk.lock();
        let path = disk.path_of(self.id);
        let stopped = disk.count(Operation::Cut, &path)?;
        let Some(contents) = disk.files.get_mut(&self.id) else { return Err(missing(&path)) };
        contents.cut(bytes as usize);
        done(stopped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(disk: &SimulatedFileSystem, path: &Path) -> Arc<dyn File> {
        let file = disk.create(path).unwrap();
        file.write_all_at(b"whole", 0).unwrap();
        file
    }

    fn found(disk: &SimulatedFileSystem, survives: Survives, name: &str) -> Option<Vec<u8>> {
        let restarted = disk.after_crash(survives, 7);
        let file = restarted.open(&Path::new("folder").join(name)).ok()?;
        Some(super::super::file_system::read_whole(&*file).unwrap())
    }

    #[test]
    fn a_file_that_is_renamed_before_its_sync_may_be_found_empty() {
        let disk = SimulatedFileSystem::default();
        written(&disk, Path::new("folder/a.tmp"));
        disk.rename(Path::new("folder/a.tmp"), Path::new("folder/a")).unwrap();
        disk.sync_directory(Path::new("folder")).unwrap();
        assert_eq!(found(&disk, Survives::Nothing, "a"), Some(Vec::new()), "as XFS does");
        assert_eq!(found(&disk, Survives::Everything, "a"), Some(b"whole".to_vec()), "as ext4 does");
    }

    #[test]
    fn a_name_may_be_lost_and_the_old_one_be_back_until_the_folder_is_synced() {
        let disk = SimulatedFileSystem::default();
        written(&disk, Path::new("folder/a.tmp")).sync_data().unwrap();
        assert_eq!(found(&disk, Survives::Nothing, "a.tmp"), None, "a synced file without a name");
        disk.sync_directory(Path::new("folder")).unwrap();
        disk.rename(Path::new("folder/a.tmp"), Path::new("folder/a")).unwrap();
        let after = |survives| (found(&disk, survives, "a.tmp"), found(&disk, survives, "a"));
        assert_eq!(after(Survives::Nothing), (Some(b"whole".to_vec()), None));
        assert_eq!(after(Survives::Everything), (None, Some(b"whole".to_vec())));
        disk.sync_directory(Path::new("elsewhere")).unwrap();
        assert_eq!(found(&disk, Survives::Nothing, "a"), None, "another folder's sync is no help");
        disk.sync_directory(Path::new("folder")).unwrap();
        assert_eq!(after(Survives::Nothing), (None, Some(b"whole".to_vec())));
    }

    #[test]
    fn a_sync_that_failed_once_never_makes_the_data_of_before_durable() {
        let disk = SimulatedFileSystem::default();
        let file = written(&disk, Path::new("folder/a"));
        disk.sync_directory(Path::new("folder")).unwrap();
        disk.inject(|operation, _| (operation == Operation::Sync).then(|| io::Error::from_raw_os_error(5)));
        assert!(file.sync_data().is_err());
        disk.heal();
        file.sync_data().unwrap();
        assert_eq!(found(&disk, Survives::Nothing, "a"), Some(Vec::new()));
    }
}
