//! A segment: one file of the log. Its [`super::header`] takes the first 4,096 bytes, frames follow.
//!
//! The file is called `<first index, 20 digits>.wal`. It is written full of zeros before it is used: space that is only
//! reserved costs a journal commit at its first write, with each sync.

use std::{io, path::Path};

use super::{
    file_system::{File, FileSystem},
    header::{self, Fields, Format},
};

pub use super::header::{HEADER_BYTES, HeaderProblem, StoreId};

/// The format that this program writes, and the newest it reads.
pub const FORMAT: Format = Format { magic: *b"TANDEMWL", version: 1 };
static ZEROS: [u8; 256 * 1024] = [0; 256 * 1024];

/// A segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Sequence of the file: higher than that of every file before it.
    pub sequence: u32,
    /// Whose segment it is.
    pub store_id: StoreId,
    /// Index of its first record.
    pub first_index: u64,
}

impl Header {
    /// The header as it is written.
    pub fn encode(&self) -> Vec<u8> {
        let Self { sequence, store_id, first_index } = *self;
        header::encode(FORMAT, &Fields { sequence, store_id, index: first_index })
    }

    /// Reads a header.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderProblem> {
        let Fields { sequence, store_id, index } = header::decode(FORMAT, bytes)?;
        Ok(Self { sequence, store_id, first_index: index })
    }
}

/// The file name of the segment that begins at `first_index`.
pub fn file_name(first_index: u64) -> String {
    format!("{first_index:020}.wal")
}

/// The first index that a file name says; `None` if it is not a segment's name.
pub fn first_index_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".wal")?;
    let plain = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

/// Writes a file of `bytes` zeros behind `from`, in pieces.
pub fn fill(file: &dyn File, from: u64, bytes: u64) -> io::Result<()> {
    let mut offset = from;
    while offset < bytes {
        let piece = (bytes - offset).min(ZEROS.len() as u64);
        file.write_all_at(&ZEROS[..piece as usize], offset)?;
        offset += piece;
    }
    Ok(())
}

/// A blank segment is written and synced by so many bytes, since a sync of the log waits for what the disk was given before
/// it.
const BLANK_PIECE_BYTES: usize = ZEROS.len();

/// Makes a file of zeros under a temporary name, synced, and gives it its name. What it left behind on an error is gone.
/// Between two pieces `rest` is told how much there is; its error ends it.
pub fn make_blank(
    file_system: &dyn FileSystem,
    path: &Path,
    bytes: u64,
    mut rest: impl FnMut(u64) -> io::Result<()>,
) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let made = file_system.create(&temporary).and_then(|file| {
        for from in (0..bytes).step_by(BLANK_PIECE_BYTES) {
            if from > 0 {
                rest(from)?;
            }
            fill(&*file, from, bytes.min(from + BLANK_PIECE_BYTES as u64))?;
            file.sync_data()?;
        }
        file_system.rename(&temporary, path)
    });
    if made.is_err() {
        // Room is given back at once; an error here adds nothing to the first one.
        let _ = file_system.remove(&temporary);
    }
    made
}
