//! Frames of a snapshot, in memory.

use crc_fast::{CrcAlgorithm, checksum};
use twox_hash::XxHash3_64;

use crate::disk::frame::{u32_at, u64_at};

/// Bytes before the payload.
pub const HEAD_BYTES: usize = 24;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A `SnapshotHeader`.
    Header,
    /// A `SnapshotEntries`.
    Entries,
    /// A `SnapshotAnswers`.
    Answers,
    /// A `SnapshotHistory`.
    History,
    /// A `SnapshotFooter`.
    Footer,
    /// What a later version writes.
    Reserved(u8),
}

impl Kind {
    fn number(self) -> u8 {
        match self {
            Self::Header => 1,
            Self::Entries => 2,
            Self::Answers => 3,
            Self::History => 4,
            Self::Footer => 5,
            Self::Reserved(number) => number,
        }
    }

    fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Header,
            2 => Self::Entries,
            3 => Self::Answers,
            4 => Self::History,
            5 => Self::Footer,
            _ => Self::Reserved(number),
        }
    }
}

/// A frame in the making: its payload is appended to, then it is sealed.
#[derive(Debug)]
pub struct Draft(Vec<u8>);

impl Default for Draft {
    fn default() -> Self {
        Self(vec![0; HEAD_BYTES])
    }
}

impl Draft {
    /// Where the payload goes: append only.
    pub fn payload(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }

    /// Bytes of the payload so far.
    pub fn payload_bytes(&self) -> usize {
        self.0.len() - HEAD_BYTES
    }

    /// Empty again, with its memory.
    pub(super) fn clear(&mut self) {
        self.0.truncate(HEAD_BYTES);
    }

    /// The whole frame.
    pub(super) fn seal(&mut self, kind: Kind, items: u32, number: u64) -> &[u8] {
        let payload_bytes = self.payload_bytes();
        let bytes = &mut self.0;
        bytes.resize(framed_bytes(payload_bytes), 0);
        // Payloads are bounded far below 4 GiB.
        bytes[4..8].copy_from_slice(&(payload_bytes as u32).to_le_bytes());
        bytes[8..12].copy_from_slice(&[kind.number(), 0, 0, 0]);
        bytes[12..16].copy_from_slice(&items.to_le_bytes());
        bytes[16..24].copy_from_slice(&number.to_le_bytes());
        let crc = checksum(CrcAlgorithm::Crc32Iscsi, &bytes[4..]) as u32;
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }
}

/// The fixed head of a frame, not yet checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    crc: u32,
    /// Bytes of the payload.
    pub payload_bytes: usize,
    /// What the frame holds.
    pub kind: Kind,
    /// Messages in the payload's list.
    pub items: u32,
    /// Its number.
    pub number: u64,
}

impl Head {
    /// Reads a head.
    pub fn decode(bytes: &[u8; HEAD_BYTES]) -> Self {
        Self {
            crc: u32_at(bytes, 0),
            payload_bytes: u32_at(bytes, 4) as usize,
            kind: Kind::from_number(bytes[8]),
            items: u32_at(bytes, 12),
            number: u64_at(bytes, 16),
        }
    }

    /// Whether these bytes of the whole frame are what was written.
    pub fn agrees_with(&self, frame: &[u8]) -> bool {
        frame.len() == framed_bytes(self.payload_bytes)
            && frame[9..12] == [0; 3]
            && checksum(CrcAlgorithm::Crc32Iscsi, &frame[4..]) as u32 == self.crc
    }
}

/// Bytes that a frame with this payload takes.
pub fn framed_bytes(payload_bytes: usize) -> usize {
    HEAD_BYTES + payload_bytes.next_multiple_of(8)
}

/// What a frame adds to the checksum of all.
pub fn share_of_checksum(frame: &[u8]) -> u64 {
    XxHash3_64::oneshot(&frame[..HEAD_BYTES])
}
