//! The seam between the log and the operating system: what a file system is to Tandem, and the real one.

use std::{
    fmt, fs, io,
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::Path,
    sync::Arc,
};

/// Files and folders. The simulated one is in [`super::simulated`].
pub trait FileSystem: Send + Sync + fmt::Debug {
    /// Creates a folder and those above it, and makes their names durable; no error if it is there.
    fn create_directory(&self, path: &Path) -> io::Result<()>;
    /// Names in a folder.
    fn list(&self, directory: &Path) -> io::Result<Vec<String>>;
    /// Opens an existing file to read and write.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Opens an existing file that may not be writable, only to read it: to its end, even if its name goes meanwhile.
    fn open_to_read(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Creates a file, or empties it.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Creates a file, or empties it, for one long write that nobody reads soon: past the page cache where the file system
    /// can do that. Writes begin at multiples of 4,096 bytes in memory and in the file, and so do their lengths.
    fn create_streamed(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Gives a file another name, replacing what bore it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file. Whoever has it open goes on with it.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
    /// Room on the disk that holds a folder.
    fn space(&self, directory: &Path) -> io::Result<Space>;
    /// Locks a file, created if need be, for as long as the guard lives. `WouldBlock` with the holder's note when
    /// somebody else has it; `note` becomes the file's content otherwise.
    fn lock(&self, path: &Path, note: &str) -> io::Result<Box<dyn LockGuard>>;
}

/// Room on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that may still be written.
    pub free_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
}

/// Holds a lock until it is dropped.
pub trait LockGuard: Send + Sync + fmt::Debug {}

/// An open file.
pub trait File: Send + Sync + fmt::Debug {
    /// Reads up to `buffer.len()` bytes; 0 at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all bytes.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes what was written durable.
    fn sync_data(&self) -> io::Result<()>;
    /// Length in bytes.
    fn length(&self) -> io::Result<u64>;
    /// Whether nobody reads what was removed, in any process: [`FileSystem::open_to_read`]. Then nobody will.
    fn is_unread(&self) -> bool;
    /// Cuts the file to so many bytes and gives the room behind them back.
    fn cut(&self, bytes: u64) -> io::Result<()>;
}

/// Reads a whole file.
pub fn read_whole(file: &dyn File) -> io::Result<Vec<u8>> {
    let length = usize::try_from(file.length()?).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match file.read_at(&mut bytes[filled..], filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// The machine's own.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFileSystem;

#[derive(Debug)]
struct RealFile(fs::File);

#[derive(Debug)]
struct RealLock {
    /// Closing it releases the lock.
    _file: fs::File,
}

impl LockGuard for RealLock {}

impl FileSystem for RealFileSystem {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        if path.as_os_str().is_empty() || path.is_dir() {
            return Ok(());
        }
        let above = path.parent().unwrap_or(Path::new(""));
        self.create_directory(above)?;
        match fs::create_dir(path) {
            // Somebody else was quicker.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            created => created?,
        }
        // Otherwise a power loss may take the folder away with all that is synced in it.
        self.sync_directory(if above.as_os_str().is_empty() { Path::new(".") } else { above })
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(RealFile(fs::File::options().read(true).write(true).open(path)?)))
    }

    fn open_to_read(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = fs::File::open(path)?;
        // First the lock, then the look: `is_unread` locks alone, when the name is gone. So one of the two sees the other.
        let _ = rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockShared);
        if file.metadata()?.nlink() == 0 {
            return Err(io::Error::new(io::ErrorKind::NotFound, "it was removed while it was opened"));
        }
        Ok(Arc::new(RealFile(file)))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = fs::File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn create_streamed(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut options = fs::File::options();
        options.read(true).write(true).create(true).truncate(true);
        let past_the_cache = rustix::fs::OFlags::DIRECT.bits().cast_signed();
        let file = match options.clone().custom_flags(past_the_cache).open(path) {
            // A file system without such a thing.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => options.open(path),
            opened => opened,
        };
        Ok(Arc::new(RealFile(file?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }

    fn space(&self, directory: &Path) -> io::Result<Space> {
        let disk = rustix::fs::statvfs(directory)?;
        let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        Ok(Space { free_bytes: bytes(disk.f_bavail), total_bytes: bytes(disk.f_blocks) })
    }

    fn lock(&self, path: &Path, note: &str) -> io::Result<Box<dyn LockGuard>> {
        let file = fs::File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let holder = fs::read_to_string(path).unwrap_or_default();
                return Err(io::Error::new(io::ErrorKind::WouldBlock, holder));
            }
            Err(error) => return Err(error.into()),
        }
        file.set_len(0)?;
        file.write_all_at(note.as_bytes(), 0)?;
        Ok(Box::new(RealLock { _file: file }))
    }
}

impl File for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn is_unread(&self) -> bool {
        // Where it cannot be told, somebody may.
        rustix::fs::flock(&self.0, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok()
    }

    fn cut(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_created_with_those_above_it_and_a_file_in_its_place_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("deep/er/still");
        for _ in 0..2 {
            RealFileSystem.create_directory(&deep).unwrap();
            assert!(deep.is_dir());
        }
        RealFileSystem.create(&deep.join("file")).unwrap();
        for below in ["file", "file/under"] {
            assert!(RealFileSystem.create_directory(&deep.join(below)).is_err(), "{below}");
        }
        RealFileSystem.create_directory(Path::new("")).unwrap();
    }

    #[test]
    fn what_is_removed_and_read_still_is_not_unread_and_what_was_removed_is_not_opened() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let file = RealFileSystem.create(&path).unwrap();
        file.write_all_at(b"whole", 0).unwrap();
        let readers = [(); 2].map(|()| RealFileSystem.open_to_read(&path).unwrap());
        RealFileSystem.remove(&path).unwrap();
        for reader in readers {
            assert!(!file.is_unread());
            assert_eq!(read_whole(&*reader).unwrap(), b"whole");
        }
        assert!(file.is_unread() && file.is_unread());
        file.cut(2).unwrap();
        assert_eq!(read_whole(&*file).unwrap(), b"wh");
    }

    #[test]
    fn a_reader_that_was_overtaken_by_the_removal_does_not_find_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let file = fs::File::create(&path).unwrap();
        RealFileSystem.remove(&path).unwrap();
        // The name that is left of a file without one, as it is to an opening that found it just before.
        let opened = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        let error = RealFileSystem.open_to_read(Path::new(&opened)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
