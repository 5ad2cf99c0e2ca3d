//! A snapshot: the whole state as of one record, in one file, `snapshots/<index of that record, 20 digits>.snap`.
//!
//! ```text
//! 0      header, 4,096 bytes, see `disk::header`
//! 4,096  frames, one behind another, each a multiple of 8 bytes
//! …      zeros up to the last block
//! the last 4,096 bytes: the frame FOOTER, then zeros
//! ```
//!
//! A frame, little-endian:
//!
//! ```text
//!  0  u32  CRC-32C of everything behind it, padding included
//!  4  u32  length of the payload
//!  8  u8   kind: 1 HEADER, 2 ENTRIES, 3 ANSWERS, 4 HISTORY, 5 FOOTER
//!  9  u8×3 zero
//! 12  u32  messages in the payload's list: entries, answers or events
//! 16  u64  number of the frame: 0, 1, 2, … without a gap
//! 24  …    payload, padded with zeros to a multiple of 8
//! ```
//!
//! Payloads are messages of `proto/tandem/storage/v1/snapshot.proto`, each named like its kind. HEADER comes first. The
//! frames of ENTRIES come in any order and so can be read by many threads; those of ANSWERS and of HISTORY come in theirs.
//!
//! A snapshot is written under a temporary name, synced, renamed, and its folder synced. Only one with a footer that
//! agrees with its frames is whole.

mod codec;
pub mod folder;
mod reader;
mod writer;

pub use self::{
    codec::{Draft, Kind},
    reader::{Frame, Frames, Reader},
    writer::Writer,
};
use super::header::{self, Format};

/// The format that this program writes, and the newest it reads.
pub const FORMAT: Format = Format { magic: *b"TANDEMSN", version: 1 };
/// Where the frame HEADER begins.
pub const HEADER_AT: u64 = header::HEADER_BYTES as u64;
/// The footer's block.
const FOOTER_BLOCK_BYTES: u64 = 4096;

#[cfg(test)]
mod tests;
