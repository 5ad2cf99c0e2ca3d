//! An entry as protobuf bytes, straight from and to where it lies: what a snapshot reads and writes by the million, without
//! an allocation for each. The bytes are those of the schema's `Entry`, canonical.

use prost::encoding::{decode_varint, encode_varint, encoded_len_varint};

use super::{EntryRef, Metadata, ValueRef};

/// Tags: field number and wire type. 0: a number, 2: bytes.
const KEY: u64 = 1 << 3 | 2;
const VALUE: u64 = 2 << 3 | 2;
const REVISION: u64 = 3 << 3;
const CREATE_REVISION: u64 = 4 << 3;
const VERSION: u64 = 5 << 3;
const EXPIRE_TIME: u64 = 6 << 3 | 2;
const UPDATE_TIME: u64 = 7 << 3 | 2;
const CONTENT_TYPE: u64 = 8 << 3 | 2;
/// Of a timestamp.
const SECONDS: u64 = 1 << 3;
const NANOS: u64 = 2 << 3;

/// Every tag takes one byte.
fn bytes_length(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { 1 + encoded_len_varint(bytes as u64) + bytes }
}

fn number_length(number: u64) -> usize {
    if number == 0 { 0 } else { 1 + encoded_len_varint(number) }
}

fn time_length(time_ms: u64) -> usize {
    number_length(time_ms / 1_000) + number_length(time_ms % 1_000 * 1_000_000)
}

fn put_bytes(tag: u64, bytes: &[u8], buffer: &mut Vec<u8>) {
    if !bytes.is_empty() {
        encode_varint(tag, buffer);
        encode_varint(bytes.len() as u64, buffer);
        buffer.extend_from_slice(bytes);
    }
}

fn put_number(tag: u64, number: u64, buffer: &mut Vec<u8>) {
    if number != 0 {
        encode_varint(tag, buffer);
        encode_varint(number, buffer);
    }
}

fn put_time(tag: u64, time_ms: u64, buffer: &mut Vec<u8>) {
    encode_varint(tag, buffer);
    encode_varint(time_length(time_ms) as u64, buffer);
    put_number(SECONDS, time_ms / 1_000, buffer);
    put_number(NANOS, time_ms % 1_000 * 1_000_000, buffer);
}

impl<'bytes> EntryRef<'bytes> {
    /// Bytes that [`Self::encode`] appends.
    pub fn encoded_bytes(&self) -> usize {
        let metadata = &self.metadata;
        let time = |time_ms| 2 + time_length(time_ms);
        bytes_length(self.key.len())
            + bytes_length(self.value.as_slice().len())
            + number_length(metadata.revision)
            + number_length(metadata.create_revision)
            + number_length(metadata.version)
            + metadata.expire_time_ms.map_or(0, time)
            + time(metadata.update_time_ms)
            + bytes_length(self.content_type.len())
    }

    /// Appends the schema's `Entry`.
    pub fn encode(&self, buffer: &mut Vec<u8>) {
        let metadata = &self.metadata;
        put_bytes(KEY, self.key, buffer);
        put_bytes(VALUE, self.value.as_slice(), buffer);
        put_number(REVISION, metadata.revision, buffer);
        put_number(CREATE_REVISION, metadata.create_revision, buffer);
        put_number(VERSION, metadata.version, buffer);
        if let Some(expire_time_ms) = metadata.expire_time_ms {
            put_time(EXPIRE_TIME, expire_time_ms, buffer);
        }
        put_time(UPDATE_TIME, metadata.update_time_ms, buffer);
        put_bytes(CONTENT_TYPE, self.content_type.as_bytes(), buffer);
    }

    /// Reads the schema's `Entry`; `None` for what this version would not write.
    pub fn decode(mut bytes: &'bytes [u8]) -> Option<Self> {
        let metadata =
            Metadata { revision: 0, create_revision: 0, version: 0, update_time_ms: 0, expire_time_ms: None };
        let mut entry = EntryRef { key: &[], value: ValueRef::Inline(&[]), content_type: "", metadata };
        while !bytes.is_empty() {
            match take_number(&mut bytes)? {
                KEY => entry.key = take_bytes(&mut bytes)?,
                VALUE => entry.value = ValueRef::Inline(take_bytes(&mut bytes)?),
                REVISION => entry.metadata.revision = take_number(&mut bytes)?,
                CREATE_REVISION => entry.metadata.create_revision = take_number(&mut bytes)?,
                VERSION => entry.metadata.version = take_number(&mut bytes)?,
                EXPIRE_TIME => entry.metadata.expire_time_ms = Some(take_time(take_bytes(&mut bytes)?)?),
                UPDATE_TIME => entry.metadata.update_time_ms = take_time(take_bytes(&mut bytes)?)?,
                CONTENT_TYPE => entry.content_type = std::str::from_utf8(take_bytes(&mut bytes)?).ok()?,
                _ => return None,
            }
        }
        (!entry.key.is_empty()).then_some(entry)
    }
}

/// Most numbers are tags and lengths of one byte, nearly all others have up to eight: those are told from what follows and
/// put together without asking byte by byte.
#[inline]
fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    if let Some((&number @ ..128, rest)) = bytes.split_first() {
        *bytes = rest;
        return Some(u64::from(number));
    }
    let Some(word) = bytes.first_chunk().copied().map(u64::from_le_bytes) else { return decode_varint(bytes).ok() };
    // The number ends with the first byte whose highest bit is not set.
    let ends = !word & 0x8080_8080_8080_8080;
    if ends == 0 {
        return decode_varint(bytes).ok();
    }
    let length_bits = ends.trailing_zeros() + 1;
    *bytes = bytes.get(length_bits as usize / 8..)?;
    // Seven bits of each byte, joined to fourteen, to 28, to 56.
    let sevens = word & (u64::MAX >> (64 - length_bits)) & 0x7F7F_7F7F_7F7F_7F7F;
    let pairs = (sevens & 0x007F_007F_007F_007F) | (sevens & 0x7F00_7F00_7F00_7F00) >> 1;
    let fours = (pairs & 0x0000_3FFF_0000_3FFF) | (pairs & 0x3FFF_0000_3FFF_0000) >> 2;
    Some((fours & 0x0000_0000_0FFF_FFFF) | (fours & 0x0FFF_FFFF_0000_0000) >> 4)
}

/// Takes a length and so many bytes.
pub fn take_bytes<'bytes>(bytes: &mut &'bytes [u8]) -> Option<&'bytes [u8]> {
    let length = usize::try_from(take_number(bytes)?).ok()?;
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn take_time(mut bytes: &[u8]) -> Option<u64> {
    let (mut seconds, mut nanos) = (0, 0);
    while !bytes.is_empty() {
        match take_number(&mut bytes)? {
            SECONDS => seconds = take_number(&mut bytes)?,
            NANOS => nanos = take_number(&mut bytes)?,
            _ => return None,
        }
    }
    seconds.checked_mul(1_000)?.checked_add(nanos / 1_000_000)
}

/// Tag of the list in a `SnapshotEntries`.
const ENTRIES: u8 = 1 << 3 | 2;

/// Appends an entry to the list of a `SnapshotEntries`.
pub fn append_to_list(entry: &EntryRef<'_>, buffer: &mut Vec<u8>) {
    buffer.push(ENTRIES);
    encode_varint(entry.encoded_bytes() as u64, buffer);
    entry.encode(buffer);
}

/// The entries of a `SnapshotEntries`; `None` in place of one that cannot be read, and then no more.
pub fn list(bytes: &[u8]) -> impl Iterator<Item = Option<EntryRef<'_>>> {
    let mut rest = Some(bytes);
    std::iter::from_fn(move || {
        let mut bytes = rest.filter(|bytes| !bytes.is_empty())?;
        let entry = match bytes.split_first() {
            Some((&ENTRIES, behind)) => {
                bytes = behind;
                take_bytes(&mut bytes).and_then(EntryRef::decode)
            }
            _ => None,
        };
        rest = entry.map(|_| bytes);
        Some(entry)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;
    use crate::pb;

    proptest! {
        #[test]
        fn an_entry_is_written_as_the_schema_says_and_reads_back(
            key in proptest::collection::vec(any::<u8>(), 1..300),
            value in proptest::collection::vec(any::<u8>(), 0..300),
            content_type in "[a-z]{0,4}/é?[a-z]{0,140}",
            numbers in (any::<u64>(), 0_u64..300, any::<u64>()),
            update_time_ms in 0_u64..1 << 48,
            expire_time_ms in proptest::option::of(0_u64..1 << 48),
        ) {
            let (revision, create_revision, version) = numbers;
            let metadata = Metadata { revision, create_revision, version, update_time_ms, expire_time_ms };
            let entry = EntryRef { key: &key, value: ValueRef::Inline(&value), content_type: &content_type, metadata };
            let mut bytes = Vec::new();
            append_to_list(&entry, &mut bytes);
            append_to_list(&entry, &mut bytes);
            let list_of_two = pb::storage::SnapshotEntries { entries: vec![entry.to_pb(true); 2] };
            prop_assert_eq!(&bytes, &list_of_two.encode_to_vec());
            for read in list(&bytes) {
                prop_assert_eq!(read.unwrap().to_pb(true), entry.to_pb(true));
            }
            prop_assert_eq!(list(&bytes).count(), 2);
        }

        #[test]
        fn a_number_is_taken_as_any_decoder_takes_it(
            number in (any::<u64>(), 0_u32..64).prop_map(|(number, shift)| number >> shift),
            padding in 0_usize..3,
            behind in proptest::collection::vec(any::<u8>(), 0..12),
        ) {
            let mut bytes = Vec::new();
            encode_varint(number, &mut bytes);
            // Others may write zeros in front of the highest bits.
            for _ in 0..padding.min(10 - bytes.len()) {
                *bytes.last_mut().unwrap() |= 128;
                bytes.push(0);
            }
            bytes.extend_from_slice(&behind);
            for end in 0..=bytes.len() {
                let (mut mine, mut others) = (&bytes[..end], &bytes[..end]);
                let taken = take_number(&mut mine);
                prop_assert_eq!(taken, decode_varint(&mut others).ok());
                prop_assert!(taken.is_none() || mine == others);
            }
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            list(&bytes).for_each(drop);
            let _ = EntryRef::decode(&bytes);
        }
    }
}
