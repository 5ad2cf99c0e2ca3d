//! The log of a store that begins behind a snapshot, as a restore makes it, and the mark of a restore at work.

use std::{io, path::Path};

use super::{
    file_system::FileSystem,
    frame::{self, Head, Kind},
    header::StoreId,
    segment::{self, Header},
};
use crate::limits::SEGMENT_FIRST_BYTES;

/// A file of this name lies in a data directory while it is restored: no server starts there.
pub const RESTORING: &str = "restoring";

/// Makes the data directory, where it is missing, and marks it before anything else is in it.
pub fn begin_restoring(file_system: &dyn FileSystem, store_directory: &Path) -> io::Result<()> {
    file_system.create_directory(store_directory)?;
    file_system.create(&store_directory.join(RESTORING))?.sync_data()?;
    file_system.sync_directory(store_directory)?;
    match store_directory.parent() {
        Some(above) if !above.as_os_str().is_empty() => file_system.sync_directory(above),
        _ => Ok(()),
    }
}

/// Takes the mark away: the store is whole.
pub fn end_restoring(file_system: &dyn FileSystem, store_directory: &Path) -> io::Result<()> {
    file_system.remove(&store_directory.join(RESTORING))?;
    file_system.sync_directory(store_directory)
}

/// A record that is to be logged.
#[derive(Clone, Copy, Debug)]
pub struct FirstRecord<'body> {
    /// Its index.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// Its time.
    pub time_ms: u64,
    /// The rest of the encoded `LogRecord`.
    pub body: &'body [u8],
}

/// Makes the log: one segment with one record, closed. It is there whole or not at all.
pub fn create_log(
    file_system: &dyn FileSystem,
    store_directory: &Path,
    store_id: StoreId,
    record: FirstRecord<'_>,
) -> io::Result<()> {
    let directory = store_directory.join("wal");
    file_system.create_directory(&directory)?;
    file_system.sync_directory(store_directory)?;
    let FirstRecord { index, term, time_ms, body } = record;
    let mut bytes = Header { sequence: 1, store_id, first_index: index }.encode();
    let head = Head { kind: Kind::Record, sequence: 1, index, synced_index: index - 1 };
    frame::encode(&mut bytes, head, &[&frame::prefix(index, term, time_ms), body]);
    frame::encode(&mut bytes, Head { kind: Kind::Close, synced_index: index, ..head }, &[]);
    let path = directory.join(segment::file_name(index));
    let temporary = path.with_extension("tmp");
    let file = file_system.create(&temporary)?;
    file.write_all_at(&bytes, 0)?;
    segment::fill(&*file, bytes.len() as u64, SEGMENT_FIRST_BYTES)?;
    file.sync_data()?;
    file_system.rename(&temporary, &path)?;
    file_system.sync_directory(&directory)
}
