//! How an entry lies in the arena: one piece, as short as what it says. Little-endian. Most entries are plain: written once
//! with a short key, a value inside, no content type and no deadline. These say it with one bit:
//!
//! ```text
//! u8             bits 0–1 the arena's · 2 PLAIN · 3–7 value length, its high bits
//! u8             value length, its low bits
//! u8             key length
//! …              key
//! 4              revision
//! 5              update time, ms; counts from 2020
//! …              value
//! ```
//!
//! All others:
//!
//! ```text
//! u16            flags, below
//! 1–2            key length
//! 1, 2 or 4      value length; of a value outside: its slot
//! 0–2            number of the content type: none for number 0
//! …              key
//! 4, 5, 6 or 8   revision
//! 5 or 8         update time, ms; the short one counts from 2020
//! like revision  create revision     only if flag HISTORY: otherwise it is the revision …
//! varint         version             … and this is 1
//! like time      deadline            only if flag EXPIRES
//! u8 + …         content type        only if flag OWN_TYPE
//! …              value               unless flag OUTSIDE
//! ```
//!
//! Flags, from the lowest bit: 0–1 the arena's · 2 not PLAIN · 3 EXPIRES · 4 OUTSIDE · 5 OWN_TYPE · 6 HISTORY ·
//! 7 WIDE_TIME · 8 bytes of the key length, less 1 · 9–10 width of the revision · 11–12 width of the value length · 13–14
//! bytes of the content type's number.

use bytes::Bytes;

use super::{
    content_types::ContentTypes,
    page::{ARENA_BITS, LIVE},
};
use crate::model::{EntryRef, Metadata, ValueRef};

const PLAIN: u16 = 1 << 2;
const EXPIRES: u16 = 1 << 3;
const OUTSIDE: u16 = 1 << 4;
const OWN_TYPE: u16 = 1 << 5;
const HISTORY: u16 = 1 << 6;
const WIDE_TIME: u16 = 1 << 7;
const KEY_WIDTH_SHIFT: u16 = 8;
const REVISION_WIDTH_SHIFT: u16 = 9;
const VALUE_WIDTH_SHIFT: u16 = 11;
const TYPE_WIDTH_SHIFT: u16 = 13;

/// Bytes before the key of a plain record.
const PLAIN_HEAD_BYTES: usize = 3;
const PLAIN_VALUE_SHIFT: u32 = 3;
/// The longest value of a plain record has as many bits in the first byte as the flags leave, and a byte.
const PLAIN_VALUE_MAX: usize = (1 << (16 - PLAIN_VALUE_SHIFT)) - 1;

const REVISION_WIDTHS: [usize; 4] = [4, 5, 6, 8];
const VALUE_WIDTHS: [usize; 4] = [1, 2, 4, 4];
/// Short times count from 2020-01-01 and last until 2054.
const EPOCH_MS: u64 = 1_577_836_800_000;
const SHORT_TIME_BYTES: usize = 5;

/// Where a value goes.
#[derive(Clone, Copy, Debug)]
pub enum Placed<'value> {
    /// Into the record.
    Inside(&'value [u8]),
    /// Outside, at this slot.
    Outside(u32),
}

/// A record about to be written.
#[derive(Debug)]
pub struct Draft<'entry> {
    /// The key.
    pub key: &'entry [u8],
    /// The value.
    pub value: Placed<'entry>,
    /// Number of the content type, or the content type itself.
    pub content_type: Result<u16, &'entry str>,
    /// The rest.
    pub metadata: Metadata,
}

fn is_short(time_ms: u64) -> bool {
    time_ms.checked_sub(EPOCH_MS).is_some_and(|since_ms| since_ms >> (8 * SHORT_TIME_BYTES) == 0)
}

fn bytes_of(number: u64) -> usize {
    8 - number.leading_zeros() as usize / 8
}

fn varint_bytes(number: u64) -> usize {
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
}

fn put_bytes(piece: &mut [u8], at: &mut usize, bytes: &[u8]) {
    piece[*at..*at + bytes.len()].copy_from_slice(bytes);
    *at += bytes.len();
}

/// Puts the lowest `width` bytes of a number. Eight are put where they have room, since a copy of a length known ahead is
/// one instruction: what comes next is written over the rest.
fn put_number(piece: &mut [u8], at: &mut usize, number: u64, width: usize) {
    let bytes = number.to_le_bytes();
    match piece[*at..].first_chunk_mut() {
        Some(eight) => *eight = bytes,
        None => piece[*at..*at + width].copy_from_slice(&bytes[..width]),
    }
    *at += width;
}

impl Draft<'_> {
    fn value_field(&self) -> u32 {
        match self.value {
            Placed::Inside(value) => value.len() as u32,
            Placed::Outside(slot) => slot,
        }
    }

    fn is_plain(&self) -> bool {
        let Metadata { revision, create_revision, version, update_time_ms, expire_time_ms } = self.metadata;
        let value_fits = matches!(self.value, Placed::Inside(value) if value.len() <= PLAIN_VALUE_MAX);
        let metadata_fits = expire_time_ms.is_none() && is_short(update_time_ms) && u32::try_from(revision).is_ok();
        let first = version == 1 && create_revision == revision;
        value_fits && metadata_fits && first && self.content_type == Ok(0) && self.key.len() <= 255
    }

    fn flags(&self) -> u16 {
        if self.is_plain() {
            return u16::from(LIVE) | PLAIN;
        }
        let Metadata { revision, create_revision, version, update_time_ms, expire_time_ms } = self.metadata;
        let flag = |flag: u16, is_set: bool| if is_set { flag } else { 0 };
        let width = |widths: &[usize], bytes: usize| {
            widths.iter().position(|width| *width >= bytes).unwrap_or(widths.len() - 1) as u16
        };
        let type_bytes = self.content_type.map_or(0, |number| bytes_of(u64::from(number)));
        u16::from(LIVE)
            | flag(EXPIRES, expire_time_ms.is_some())
            | flag(OUTSIDE, matches!(self.value, Placed::Outside(_)))
            | flag(OWN_TYPE, self.content_type.is_err())
            | flag(HISTORY, version != 1 || create_revision != revision)
            | flag(WIDE_TIME, !is_short(update_time_ms) || expire_time_ms.is_some_and(|time_ms| !is_short(time_ms)))
            | flag(1 << KEY_WIDTH_SHIFT, self.key.len() > 255)
            | width(&REVISION_WIDTHS, bytes_of(revision.max(create_revision))) << REVISION_WIDTH_SHIFT
            | width(&VALUE_WIDTHS[..3], bytes_of(u64::from(self.value_field()))) << VALUE_WIDTH_SHIFT
            | (type_bytes as u16) << TYPE_WIDTH_SHIFT
    }

    /// Bytes that the record takes.
    pub fn length(&self) -> usize {
        let shape = Shape(self.flags());
        shape.key_at()
            + self.key.len()
            + shape.fixed_bytes()
            + if shape.has(HISTORY) { varint_bytes(self.metadata.version) } else { 0 }
            + self.content_type.err().map_or(0, |own| 1 + own.len())
            + match self.value {
                Placed::Inside(value) => value.len(),
                Placed::Outside(_) => 0,
            }
    }

    /// Writes the record into its piece.
    pub fn write(&self, piece: &mut [u8]) {
        let metadata = &self.metadata;
        let flags = self.flags();
        let shape = Shape(flags);
        let arena_bits = piece[0] & ARENA_BITS;
        let mut at = 2;
        if shape.has(PLAIN) {
            let length = self.value_field();
            let high = (length >> 8 << PLAIN_VALUE_SHIFT) as u8;
            piece[..PLAIN_HEAD_BYTES].copy_from_slice(&[flags as u8 | high, length as u8, self.key.len() as u8]);
            at = PLAIN_HEAD_BYTES;
        } else {
            piece[..2].copy_from_slice(&flags.to_le_bytes());
            put_number(piece, &mut at, self.key.len() as u64, shape.key_width());
            put_number(piece, &mut at, u64::from(self.value_field()), shape.value_width());
            put_number(piece, &mut at, u64::from(self.content_type.unwrap_or(0)), shape.type_width());
        }
        piece[0] = piece[0] & !ARENA_BITS | arena_bits;
        put_bytes(piece, &mut at, self.key);
        put_number(piece, &mut at, metadata.revision, shape.revision_width());
        let base_ms = if shape.has(WIDE_TIME) { 0 } else { EPOCH_MS };
        put_number(piece, &mut at, metadata.update_time_ms - base_ms, shape.time_width());
        if shape.has(HISTORY) {
            put_number(piece, &mut at, metadata.create_revision, shape.revision_width());
            let mut rest = metadata.version;
            while rest >= 128 {
                put_bytes(piece, &mut at, &[rest as u8 | 128]);
                rest >>= 7;
            }
            put_bytes(piece, &mut at, &[rest as u8]);
        }
        if let Some(deadline_ms) = metadata.expire_time_ms {
            put_number(piece, &mut at, deadline_ms - base_ms, shape.time_width());
        }
        if let Err(own) = self.content_type {
            put_bytes(piece, &mut at, &[own.len() as u8]);
            put_bytes(piece, &mut at, own.as_bytes());
        }
        if let Placed::Inside(value) = self.value {
            put_bytes(piece, &mut at, value);
        }
    }
}

/// The flags of a record, and what follows from them alone.
#[derive(Clone, Copy, Debug)]
struct Shape(u16);

impl Shape {
    fn has(self, flag: u16) -> bool {
        self.0 & flag != 0
    }

    fn key_width(self) -> usize {
        1 + usize::from(self.0 >> KEY_WIDTH_SHIFT & 1)
    }

    fn revision_width(self) -> usize {
        REVISION_WIDTHS[usize::from(self.0 >> REVISION_WIDTH_SHIFT & 3)]
    }

    fn value_width(self) -> usize {
        VALUE_WIDTHS[usize::from(self.0 >> VALUE_WIDTH_SHIFT & 3)]
    }

    fn type_width(self) -> usize {
        usize::from(self.0 >> TYPE_WIDTH_SHIFT & 3)
    }

    fn time_width(self) -> usize {
        if self.has(WIDE_TIME) { 8 } else { SHORT_TIME_BYTES }
    }

    fn key_at(self) -> usize {
        if self.has(PLAIN) {
            return PLAIN_HEAD_BYTES;
        }
        2 + self.key_width() + self.value_width() + self.type_width()
    }

    /// Bytes between key and value, but for those of the version and of a content type of its own.
    fn fixed_bytes(self) -> usize {
        self.revision_width()
            + self.time_width()
            + if self.has(HISTORY) { self.revision_width() } else { 0 }
            + if self.has(EXPIRES) { self.time_width() } else { 0 }
    }
}

/// A record where it lies: bytes from its beginning on.
#[derive(Clone, Copy, Debug)]
pub struct Record<'arena>(pub &'arena [u8]);

/// A number of up to eight bytes. Eight are read at once where there are so many: nearly always, and in one instruction.
fn number_at(bytes: &[u8], at: usize, width: usize) -> u64 {
    let mut wide = [0; 8];
    match bytes[at..].first_chunk() {
        Some(eight) => wide = *eight,
        None => wide[..width].copy_from_slice(&bytes[at..at + width]),
    }
    u64::from_le_bytes(wide) & u64::MAX.checked_shr(64 - 8 * width as u32).unwrap_or(0)
}

fn varint_at(bytes: &[u8], at: usize) -> (u64, usize) {
    let (mut number, mut length) = (0, 0);
    loop {
        let byte = bytes[at + length];
        number |= u64::from(byte & 127) << (7 * length);
        length += 1;
        if byte < 128 || length == 10 {
            return (number, length);
        }
    }
}

impl<'arena> Record<'arena> {
    fn shape(self) -> Shape {
        match u16::from(self.0[0]) & PLAIN {
            0 => Shape(u16::from_le_bytes([self.0[0], self.0[1]])),
            _ => Shape(PLAIN),
        }
    }

    fn key_length(self) -> usize {
        let shape = self.shape();
        if shape.has(PLAIN) { usize::from(self.0[2]) } else { number_at(self.0, 2, shape.key_width()) as usize }
    }

    fn value_field(self) -> u32 {
        let shape = self.shape();
        if shape.has(PLAIN) {
            return u32::from(self.0[0] >> PLAIN_VALUE_SHIFT) << 8 | u32::from(self.0[1]);
        }
        number_at(self.0, 2 + shape.key_width(), shape.value_width()) as u32
    }

    /// The key.
    pub fn key(self) -> &'arena [u8] {
        &self.0[self.shape().key_at()..][..self.key_length()]
    }

    /// Slot of a value outside.
    pub fn outside(self) -> Option<u32> {
        self.shape().has(OUTSIDE).then(|| self.value_field())
    }

    fn behind_key(self) -> usize {
        self.shape().key_at() + self.key_length()
    }

    /// The revision.
    pub fn revision(self) -> u64 {
        number_at(self.0, self.behind_key(), self.shape().revision_width())
    }

    fn time_at(self, at: usize) -> u64 {
        match self.shape().has(WIDE_TIME) {
            true => number_at(self.0, at, 8),
            false => EPOCH_MS + number_at(self.0, at, SHORT_TIME_BYTES),
        }
    }

    fn history_at(self) -> usize {
        self.behind_key() + self.shape().revision_width() + self.shape().time_width()
    }

    fn deadline_at(self) -> usize {
        let (at, shape) = (self.history_at(), self.shape());
        match shape.has(HISTORY) {
            true => at + shape.revision_width() + varint_at(self.0, at + shape.revision_width()).1,
            false => at,
        }
    }

    /// The deadline.
    pub fn expire_time_ms(self) -> Option<u64> {
        self.shape().has(EXPIRES).then(|| self.time_at(self.deadline_at()))
    }

    fn own_type_at(self) -> usize {
        self.deadline_at() + if self.shape().has(EXPIRES) { self.shape().time_width() } else { 0 }
    }

    fn value_at(self) -> usize {
        let at = self.own_type_at();
        if self.shape().has(OWN_TYPE) { at + 1 + usize::from(self.0[at]) } else { at }
    }

    /// Bytes of the whole record.
    pub fn length(self) -> usize {
        self.value_at() + if self.shape().has(OUTSIDE) { 0 } else { self.value_field() as usize }
    }

    /// The entry. In one pass: the most frequent thing that is asked of a record.
    pub fn entry(self, types: &'arena ContentTypes, values: &'arena [Option<Bytes>]) -> EntryRef<'arena> {
        let (shape, bytes) = (self.shape(), self.0);
        let (key_at, key_length, value_field) = (shape.key_at(), self.key_length(), self.value_field());
        let key = &bytes[key_at..][..key_length];
        let mut at = key_at + key_length;
        let mut number = |width: usize| {
            at += width;
            number_at(bytes, at - width, width)
        };
        let (revision_width, time_width) = (shape.revision_width(), shape.time_width());
        let base_ms = if shape.has(WIDE_TIME) { 0 } else { EPOCH_MS };
        let revision = number(revision_width);
        let update_time_ms = base_ms + number(time_width);
        let (create_revision, version) = if shape.has(HISTORY) {
            let create_revision = number(revision_width);
            let (version, length) = varint_at(bytes, at);
            at += length;
            (create_revision, version)
        } else {
            (revision, 1)
        };
        let mut expire_time_ms = None;
        if shape.has(EXPIRES) {
            expire_time_ms = Some(base_ms + number_at(bytes, at, time_width));
            at += time_width;
        }
        let content_type = if shape.has(OWN_TYPE) {
            let own = &bytes[at + 1..][..usize::from(bytes[at])];
            at += 1 + own.len();
            std::str::from_utf8(own).unwrap_or_default()
        } else {
            let width = shape.type_width();
            types.name(number_at(bytes, key_at - width, width) as u16)
        };
        let value = if shape.has(OUTSIDE) {
            // An empty slot cannot be: it lives as long as the record that names it.
            match values.get(value_field as usize).and_then(Option::as_ref) {
                Some(shared) => ValueRef::Shared(shared),
                None => ValueRef::Inline(&[]),
            }
        } else {
            ValueRef::Inline(&bytes[at..][..value_field as usize])
        };
        let metadata = Metadata { revision, create_revision, version, update_time_ms, expire_time_ms };
        EntryRef { key, value, content_type, metadata }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_number() -> impl Strategy<Value = u64> {
        (any::<u64>(), 0_u32..64).prop_map(|(number, shift)| number >> shift)
    }

    fn any_time() -> impl Strategy<Value = u64> {
        prop_oneof![
            any_number(),
            EPOCH_MS - 2..EPOCH_MS + 2,
            Just(EPOCH_MS + (1 << 40) - 1),
            Just(EPOCH_MS + (1 << 40))
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            key in proptest::collection::vec(any::<u8>(), 1..300),
            value in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..300),
                proptest::collection::vec(any::<u8>(), PLAIN_VALUE_MAX - 1..PLAIN_VALUE_MAX + 2),
            ],
            slot in proptest::option::of(any::<u32>()),
            own in proptest::option::of("[a-z]{0,255}"),
            number in prop_oneof![Just(0_u16), 1..1_024_u16],
            (revision, create_revision, version) in prop_oneof![
                (any_number(), any_number(), any_number()),
                any_number().prop_map(|revision| (revision, revision, 1)),
            ],
            (update_time_ms, expire_time_ms) in (any_time(), prop_oneof![Just(None), any_time().prop_map(Some)]),
        ) {
            let metadata = Metadata { revision, create_revision, version, update_time_ms, expire_time_ms };
            let placed = slot.map_or(Placed::Inside(&value), Placed::Outside);
            let content_type = own.as_deref().map_or(Ok(number), Err);
            let draft = Draft { key: &key, value: placed, content_type, metadata };
            let mut piece = vec![0xFF; draft.length() + 9];
            let length = draft.length();
            draft.write(&mut piece[..length]);
            let record = Record(&piece);
            prop_assert_eq!(record.length(), length);
            prop_assert!(piece[length..].iter().all(|byte| *byte == 0xFF));
            prop_assert_eq!(piece[0] & ARENA_BITS, ARENA_BITS, "the arena's bits are left alone");
            prop_assert_eq!((record.key(), record.revision(), record.outside()), (&key[..], revision, slot));
            prop_assert_eq!(record.expire_time_ms(), expire_time_ms);
            let types = ContentTypes::default();
            let entry = record.entry(&types, &[]);
            prop_assert_eq!((entry.key, entry.metadata), (&key[..], metadata));
            prop_assert_eq!(entry.content_type, own.as_deref().unwrap_or_default());
            if slot.is_none() {
                prop_assert_eq!(entry.value.as_slice(), &value[..]);
            }
        }
    }

    #[test]
    fn plain_records_and_those_that_are_it_by_little_read_back() {
        let metadata =
            Metadata { revision: 7, create_revision: 7, version: 1, update_time_ms: EPOCH_MS, expire_time_ms: None };
        for key_bytes in [1, 255, 256] {
            for value_bytes in [0, 1, 255, 256, 2_048, PLAIN_VALUE_MAX, PLAIN_VALUE_MAX + 1] {
                for revision in [7, u64::from(u32::MAX), 1 << 32] {
                    let (key, value) = (vec![3; key_bytes], vec![5; value_bytes]);
                    let metadata = Metadata { revision, create_revision: revision, ..metadata };
                    let draft = Draft { key: &key, value: Placed::Inside(&value), content_type: Ok(0), metadata };
                    let mut piece = vec![0xFF; draft.length()];
                    draft.write(&mut piece);
                    let plain = key_bytes < 256 && value_bytes <= PLAIN_VALUE_MAX && revision >> 32 == 0;
                    assert_eq!(draft.is_plain(), plain, "{key_bytes} {value_bytes} {revision}");
                    let record = Record(&piece);
                    assert_eq!((record.length(), record.key()), (piece.len(), &key[..]));
                    let types = ContentTypes::default();
                    let entry = record.entry(&types, &[]);
                    assert_eq!((entry.value.as_slice(), entry.metadata), (&value[..], metadata));
                    assert_eq!(piece[0] & ARENA_BITS, ARENA_BITS, "the arena's bits are left alone");
                }
            }
        }
    }

    #[test]
    fn a_plain_record_costs_twelve_bytes() {
        let metadata =
            Metadata { revision: 7, create_revision: 7, version: 1, update_time_ms: EPOCH_MS, expire_time_ms: None };
        let draft = Draft { key: &[1; 32], value: Placed::Inside(&[2; 256]), content_type: Ok(0), metadata };
        assert_eq!(draft.length(), 32 + 256 + 12);
        let again = Draft { metadata: Metadata { version: 2, ..metadata }, ..draft };
        assert!(again.length() > draft.length());
    }
}
