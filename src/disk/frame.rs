//! The frame around each record of the log. Little-endian, 8-byte aligned:
//!
//! ```text
//!  0  u32  CRC-32C of everything behind it, padding included
//!  4  u32  length of the payload
//!  8  u8   kind: 1 RECORD, 2 MARK, 3 CLOSE; reserved: 4 VOTE, 5 COMMITTED, 6 TRUNCATE
//!  9  u8×3 zero
//! 12  u32  sequence of the segment: stale bytes of another one never pass for a frame
//! 16  u64  index of the record; of MARK and CLOSE: of the last record before
//! 24  u64  synced_index: highest index that was known to be on disk when this frame was written
//! 32  …    payload, padded with zeros to a multiple of 8
//! ```
//!
//! The payload of a RECORD is one `tandem.storage.v1.LogRecord`: fields 1–3 (index, term, time) as the log writes them,
//! then the caller's bytes. MARK and CLOSE have none.

use crc_fast::{CrcAlgorithm, checksum};

/// Bytes before the payload.
pub const HEAD_BYTES: usize = 32;
/// Bytes of the fields 1–3 that the log writes: a tag and a fixed64 each.
pub const PREFIX_BYTES: usize = 27;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A record.
    Record,
    /// Nothing but its `synced_index`.
    Mark,
    /// A clean stop.
    Close,
    /// A kind that a later version writes.
    Reserved(u8),
}

impl Kind {
    fn number(self) -> u8 {
        match self {
            Self::Record => 1,
            Self::Mark => 2,
            Self::Close => 3,
            Self::Reserved(number) => number,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Record),
            2 => Some(Self::Mark),
            3 => Some(Self::Close),
            4..=6 => Some(Self::Reserved(number)),
            _ => None,
        }
    }
}

/// The fixed head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// What the frame holds.
    pub kind: Kind,
    /// Sequence of its segment.
    pub sequence: u32,
    /// Index of the record.
    pub index: u64,
    /// Highest index known synced.
    pub synced_index: u64,
}

/// A whole frame where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'bytes> {
    /// The head.
    pub head: Head,
    /// The payload, without padding.
    pub payload: &'bytes [u8],
    /// Bytes of the whole frame.
    pub length: usize,
}

/// Bytes that a frame with this payload takes.
pub fn framed_bytes(payload_bytes: usize) -> usize {
    HEAD_BYTES + payload_bytes.next_multiple_of(8)
}

/// Appends a frame whose payload is the given parts, one after another.
pub fn encode(buffer: &mut Vec<u8>, head: Head, payload: &[&[u8]]) {
    let start = buffer.len();
    let payload_bytes: usize = payload.iter().map(|part| part.len()).sum();
    buffer.reserve(framed_bytes(payload_bytes));
    buffer.extend_from_slice(&[0; 4]);
    // Records are bounded far below 4 GiB.
    buffer.extend_from_slice(&(payload_bytes as u32).to_le_bytes());
    buffer.extend_from_slice(&[head.kind.number(), 0, 0, 0]);
    buffer.extend_from_slice(&head.sequence.to_le_bytes());
    buffer.extend_from_slice(&head.index.to_le_bytes());
    buffer.extend_from_slice(&head.synced_index.to_le_bytes());
    for part in payload {
        buffer.extend_from_slice(part);
    }
    buffer.resize(start + framed_bytes(payload_bytes), 0);
    let crc = checksum(CrcAlgorithm::Crc32Iscsi, &buffer[start + 4..]) as u32;
    buffer[start..start + 4].copy_from_slice(&crc.to_le_bytes());
}

/// Reads the frame at the beginning of `bytes`; `None` if there is no whole one of this segment.
pub fn decode(bytes: &[u8], sequence: u32) -> Option<Frame<'_>> {
    let head = bytes.get(..HEAD_BYTES)?;
    // Cheap tests first: a look-ahead asks at every eighth byte.
    let kind = Kind::from_number(head[8])?;
    if u32_at(head, 12) != sequence || head[9..12] != [0; 3] {
        return None;
    }
    let payload_bytes = u32_at(head, 4) as usize;
    let length = framed_bytes(payload_bytes);
    let whole = bytes.get(4..length)?;
    if checksum(CrcAlgorithm::Crc32Iscsi, whole) as u32 != u32_at(head, 0) {
        return None;
    }
    let head = Head { kind, sequence, index: u64_at(head, 16), synced_index: u64_at(head, 24) };
    Some(Frame { head, payload: &bytes[HEAD_BYTES..HEAD_BYTES + payload_bytes], length })
}

/// Fields 1–3 of a `LogRecord`.
pub fn prefix(index: u64, term: u64, time_ms: u64) -> [u8; PREFIX_BYTES] {
    let mut prefix = [0; PREFIX_BYTES];
    for (field, number) in [index, term, time_ms].into_iter().enumerate() {
        let at = field * 9;
        // Tag: field number and wire type 1, eight bytes.
        prefix[at] = ((field as u8 + 1) << 3) | 1;
        prefix[at + 1..at + 9].copy_from_slice(&number.to_le_bytes());
    }
    prefix
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut wide = [0; 8];
    wide.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(wide)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;
    use crate::pb::storage::LogRecord;

    fn sample(payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(&mut bytes, Head { kind: Kind::Record, sequence: 7, index: 9, synced_index: 8 }, &[payload]);
        bytes
    }

    #[test]
    fn the_prefix_is_the_schemas_first_three_fields() {
        let record = LogRecord { index: 1, term: 2, time_ms: 3 << 40, ..LogRecord::default() };
        assert_eq!(prefix(1, 2, 3 << 40).to_vec(), record.encode_to_vec());
    }

    #[test]
    fn empty_space_is_no_frame() {
        assert_eq!(decode(&[0; 4096], 0), None);
        assert_eq!(decode(&sample(b"stale"), 8), None);
    }

    proptest! {
        #[test]
        fn a_frame_reads_back(payload in proptest::collection::vec(any::<u8>(), 0..500)) {
            let bytes = sample(&payload);
            let frame = decode(&bytes, 7).unwrap();
            prop_assert_eq!(frame.payload, &payload[..]);
            prop_assert_eq!((frame.length, bytes.len() % 8), (bytes.len(), 0));
        }

        #[test]
        fn every_single_bit_flip_is_caught(payload in proptest::collection::vec(any::<u8>(), 0..64)) {
            let good = sample(&payload);
            for bit in 0..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                prop_assert_eq!(decode(&bad, 7), None, "bit {}", bit);
            }
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), sequence: u32) {
            decode(&bytes, sequence);
        }
    }
}
