//! The first 60 bytes of a segment and of a snapshot; the rest of their first 4,096 is zeros. Little-endian:
//!
//! ```text
//!  0  u8×8   magic: "TANDEMWL" a segment, "TANDEMSN" a snapshot
//!  8  u32    format version
//! 12  u32    of a segment: its sequence; otherwise zero
//! 16  u8×16  id of the store
//! 32  u64    of a segment: index of its first record; of a snapshot: of the last record it contains
//! 40  u8×16  room for the last vote: zero
//! 56  u32    CRC-32C of bytes 0–55
//! ```

use crc_fast::{CrcAlgorithm, checksum};

use super::frame::{u32_at, u64_at};

/// Bytes of the header.
pub const HEADER_BYTES: usize = 4096;
const CHECKED_BYTES: usize = 56;

/// Identity of a store: all its files bear it.
pub type StoreId = [u8; 16];

/// A kind of file.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// What its files begin with.
    pub magic: [u8; 8],
    /// The version that this program writes, and the newest it reads.
    pub version: u32,
}

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// Sequence of a segment.
    pub sequence: u32,
    /// Whose file it is.
    pub store_id: StoreId,
    /// First or last index.
    pub index: u64,
}

/// Why bytes are no header that this program can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderProblem {
    /// Not such a file at all.
    Foreign,
    /// Of a newer version.
    Future(u32),
    /// Too short, or its checksum is wrong.
    Damaged,
}

/// The header as it is written.
pub fn encode(format: Format, fields: &Fields) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES];
    bytes[..8].copy_from_slice(&format.magic);
    bytes[8..12].copy_from_slice(&format.version.to_le_bytes());
    bytes[12..16].copy_from_slice(&fields.sequence.to_le_bytes());
    bytes[16..32].copy_from_slice(&fields.store_id);
    bytes[32..40].copy_from_slice(&fields.index.to_le_bytes());
    let crc = checksum(CrcAlgorithm::Crc32Iscsi, &bytes[..CHECKED_BYTES]) as u32;
    bytes[56..60].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Reads a header.
pub fn decode(format: Format, bytes: &[u8]) -> Result<Fields, HeaderProblem> {
    let Some(bytes) = bytes.get(..HEADER_BYTES) else { return Err(HeaderProblem::Damaged) };
    if bytes[..8] != format.magic {
        // A file of zeros was one once; anything else never was.
        let empty = bytes.iter().all(|byte| *byte == 0);
        return Err(if empty { HeaderProblem::Damaged } else { HeaderProblem::Foreign });
    }
    let version = u32_at(bytes, 8);
    if version > format.version {
        return Err(HeaderProblem::Future(version));
    }
    let crc = checksum(CrcAlgorithm::Crc32Iscsi, &bytes[..CHECKED_BYTES]) as u32;
    if crc != u32_at(bytes, 56) || version == 0 {
        return Err(HeaderProblem::Damaged);
    }
    let mut store_id = [0; 16];
    store_id.copy_from_slice(&bytes[16..32]);
    Ok(Fields { sequence: u32_at(bytes, 12), store_id, index: u64_at(bytes, 32) })
}
