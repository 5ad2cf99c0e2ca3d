//! A file that bears its name only when it is whole and on disk: a backup.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::file_system::{File, FileSystem};

/// A file in the making, beside the one that it becomes. Dropped before it is published, it leaves nothing.
#[derive(Debug)]
pub struct WholeFile {
    file_system: Arc<dyn FileSystem>,
    temporary: PathBuf,
    path: PathBuf,
    file: Arc<dyn File>,
    /// Where the next write goes.
    position: u64,
    published: bool,
}

impl WholeFile {
    /// Begins it under a temporary name in the same folder, which must be there.
    pub fn create(file_system: Arc<dyn FileSystem>, path: &Path) -> io::Result<Self> {
        let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        // Another program may write the same file: of the two one is there in the end, whole.
        name.push(format!(".{}.tmp", std::process::id()));
        let temporary = path.with_file_name(name);
        let file = file_system.create(&temporary)?;
        Ok(Self { file_system, temporary, path: path.to_owned(), file, position: 0, published: false })
    }

    /// Where it is until it is published.
    pub fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// Makes it durable, then gives it its name, in the place of what bore it, then makes the name durable.
    pub fn publish(mut self) -> io::Result<()> {
        self.file.sync_data()?;
        self.file_system.rename(&self.temporary, &self.path)?;
        self.published = true;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        self.file_system.sync_directory(folder.unwrap_or(Path::new(".")))
    }
}

impl io::Write for WholeFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all_at(bytes, self.position)?;
        self.position += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for WholeFile {
    fn drop(&mut self) {
        if !self.published {
            let _ = self.file_system.remove(&self.temporary);
        }
    }
}
