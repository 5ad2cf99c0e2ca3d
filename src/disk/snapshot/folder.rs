//! The folder of snapshots: what lies in it, and under which names.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::disk::file_system::FileSystem;

/// The folder within the data directory.
pub const FOLDER: &str = "snapshots";
/// What a snapshot is renamed to that turned out to be damaged, and was not needed.
const DAMAGED: &str = "damaged";

/// The file name of the snapshot as of record `index`.
pub fn file_name(index: u64) -> String {
    format!("{index:020}.snap")
}

/// What lies in the folder.
#[derive(Debug, Default)]
pub struct Found {
    /// Snapshots by their index, oldest first.
    pub snapshots: Vec<(u64, PathBuf)>,
    /// Damaged ones that were put aside.
    pub damaged: Vec<(u64, PathBuf)>,
    /// What an unfinished run left.
    pub leftovers: Vec<PathBuf>,
    /// What is not Tandem's.
    pub strange: Vec<PathBuf>,
}

/// Looks into the folder. One that is not there is empty.
pub fn list(file_system: &dyn FileSystem, directory: &Path) -> io::Result<Found> {
    let mut found = Found::default();
    let names = match file_system.list(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        names => names?,
    };
    for name in names {
        let path = directory.join(&name);
        match name.split_once('.').map(|(stem, extension)| (index_of(stem), extension)) {
            Some((Some(index), "snap")) => found.snapshots.push((index, path)),
            Some((Some(index), DAMAGED)) => found.damaged.push((index, path)),
            Some((_, "tmp")) => found.leftovers.push(path),
            _ => found.strange.push(path),
        }
    }
    found.snapshots.sort();
    Ok(found)
}

fn index_of(digits: &str) -> Option<u64> {
    let plain = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

/// Puts a damaged snapshot aside: never read again, kept to be looked at until two newer ones are there.
pub fn put_aside(file_system: &dyn FileSystem, directory: &Path, path: &Path) -> io::Result<()> {
    file_system.rename(path, &path.with_extension(DAMAGED))?;
    file_system.sync_directory(directory)
}
