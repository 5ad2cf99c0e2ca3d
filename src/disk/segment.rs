//! A segment: one file of the log. Its header takes the first 4,096 bytes, frames follow. Little-endian:
//!
//! ```text
//!  0  u8×8   magic "TANDEMWL"
//!  8  u32    format version: 1
//! 12  u32    sequence: higher than that of every file before it
//! 16  u8×16  id of the store
//! 32  u64    first index
//! 40  u8×16  room for the last vote: zero
//! 56  u32    CRC-32C of bytes 0–55
//! 60  …      zero
//! ```
//!
//! The file is called `<first index, 20 digits>.wal`. It is written full of zeros before it is used: space that is only
//! reserved costs a journal commit at its first write, with each sync.

use std::{io, path::Path};

use crc_fast::{CrcAlgorithm, checksum};

use super::{
    file_system::{File, FileSystem},
    frame::{u32_at, u64_at},
};

/// Bytes of the header.
pub const HEADER_BYTES: usize = 4096;
/// The format that this program writes, and the newest it reads.
pub const FORMAT_VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"TANDEMWL";
const CHECKED_BYTES: usize = 56;
static ZEROS: [u8; 256 * 1024] = [0; 256 * 1024];

/// Identity of a store: all its files bear it.
pub type StoreId = [u8; 16];

/// A segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Sequence of the file.
    pub sequence: u32,
    /// Whose segment it is.
    pub store_id: StoreId,
    /// Index of its first record.
    pub first_index: u64,
}

/// Why bytes are no header that this program can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderProblem {
    /// Not a segment at all.
    Foreign,
    /// Of a newer version.
    Future(u32),
    /// Too short, or its checksum is wrong.
    Damaged,
}

impl Header {
    /// The header as it is written.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.store_id);
        bytes[32..40].copy_from_slice(&self.first_index.to_le_bytes());
        let crc = checksum(CrcAlgorithm::Crc32Iscsi, &bytes[..CHECKED_BYTES]) as u32;
        bytes[56..60].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderProblem> {
        let Some(bytes) = bytes.get(..HEADER_BYTES) else { return Err(HeaderProblem::Damaged) };
        if bytes[..8] != MAGIC {
            // A file of zeros was a segment once; anything else never was.
            let empty = bytes.iter().all(|byte| *byte == 0);
            return Err(if empty { HeaderProblem::Damaged } else { HeaderProblem::Foreign });
        }
        let version = u32_at(bytes, 8);
        if version > FORMAT_VERSION {
            return Err(HeaderProblem::Future(version));
        }
        let crc = checksum(CrcAlgorithm::Crc32Iscsi, &bytes[..CHECKED_BYTES]) as u32;
        if crc != u32_at(bytes, 56) || version == 0 {
            return Err(HeaderProblem::Damaged);
        }
        let mut store_id = [0; 16];
        store_id.copy_from_slice(&bytes[16..32]);
        Ok(Self { sequence: u32_at(bytes, 12), store_id, first_index: u64_at(bytes, 32) })
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

/// Makes a file of zeros under a temporary name, synced, and gives it its name. What it left behind on an error is gone.
pub fn make_blank(file_system: &dyn FileSystem, path: &Path, bytes: u64) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let made = file_system.create(&temporary).and_then(|file| {
        fill(&*file, 0, bytes)?;
        file.sync_data()?;
        file_system.rename(&temporary, path)
    });
    if made.is_err() {
        // Room is given back at once; an error here adds nothing to the first one.
        let _ = file_system.remove(&temporary);
    }
    made
}
