//! How an entry lies in the arena. Little-endian, one piece, a multiple of 16 bytes:
//!
//! ```text
//!  0  u16  units of 16 bytes          (written by the arena, of free pieces too)
//!  2  u8   flags                      0: a free piece
//!  3  u8   length of a content type kept here
//!  4  u16  key length
//!  6  u16  number of the content type
//!  8  u32  value length; of a value outside: its slot
//! 12  u48  update time, ms
//! 18  u64  revision
//! 26  u64 u64  create revision, version     only if flag HISTORY: otherwise they are the revision and 1
//!     u64  deadline, ms                     only if flag EXPIRES
//!     …    content type                     only if flag OWN_TYPE
//!     …    key
//!     …    value                            unless flag OUTSIDE
//! ```

use bytes::Bytes;

use super::content_types::ContentTypes;
use crate::model::{EntryRef, Metadata, ValueRef};

const LIVE: u8 = 1;
const EXPIRES: u8 = 2;
const OUTSIDE: u8 = 4;
const OWN_TYPE: u8 = 8;
const HISTORY: u8 = 16;
const HEAD_BYTES: usize = 26;

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

impl Draft<'_> {
    fn has_history(&self) -> bool {
        self.metadata.version != 1 || self.metadata.create_revision != self.metadata.revision
    }

    /// Bytes that the record takes.
    pub fn length(&self) -> usize {
        HEAD_BYTES
            + if self.has_history() { 16 } else { 0 }
            + if self.metadata.expire_time_ms.is_some() { 8 } else { 0 }
            + self.content_type.err().map_or(0, str::len)
            + self.key.len()
            + match self.value {
                Placed::Inside(value) => value.len(),
                Placed::Outside(_) => 0,
            }
    }

    /// Writes the record into its piece, all but the units.
    pub fn write(&self, piece: &mut [u8]) {
        let metadata = &self.metadata;
        let mut flags = LIVE;
        let value_field = match self.value {
            Placed::Inside(value) => value.len() as u32,
            Placed::Outside(slot) => {
                flags |= OUTSIDE;
                slot
            }
        };
        let mut at = HEAD_BYTES;
        let mut append = |bytes: &[u8]| {
            piece[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        if self.has_history() {
            flags |= HISTORY;
            append(&metadata.create_revision.to_le_bytes());
            append(&metadata.version.to_le_bytes());
        }
        if let Some(deadline_ms) = metadata.expire_time_ms {
            flags |= EXPIRES;
            append(&deadline_ms.to_le_bytes());
        }
        if let Err(own) = self.content_type {
            flags |= OWN_TYPE;
            append(own.as_bytes());
        }
        append(self.key);
        if let Placed::Inside(value) = self.value {
            append(value);
        }
        piece[2] = flags;
        piece[3] = self.content_type.err().map_or(0, str::len) as u8;
        piece[4..6].copy_from_slice(&(self.key.len() as u16).to_le_bytes());
        piece[6..8].copy_from_slice(&self.content_type.unwrap_or(0).to_le_bytes());
        piece[8..12].copy_from_slice(&value_field.to_le_bytes());
        piece[12..18].copy_from_slice(&metadata.update_time_ms.to_le_bytes()[..6]);
        piece[18..26].copy_from_slice(&metadata.revision.to_le_bytes());
    }
}

/// A record where it lies.
#[derive(Clone, Copy, Debug)]
pub struct Record<'arena>(pub &'arena [u8]);

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut wide = [0; 8];
    wide.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(wide)
}

impl<'arena> Record<'arena> {
    fn flag(self, flag: u8) -> bool {
        self.0[2] & flag != 0
    }

    fn expiry_at(self) -> usize {
        HEAD_BYTES + if self.flag(HISTORY) { 16 } else { 0 }
    }

    fn type_at(self) -> usize {
        self.expiry_at() + if self.flag(EXPIRES) { 8 } else { 0 }
    }

    fn key_at(self) -> usize {
        self.type_at() + usize::from(self.0[3])
    }

    /// The key.
    pub fn key(self) -> &'arena [u8] {
        let at = self.key_at();
        &self.0[at..at + usize::from(u16_at(self.0, 4))]
    }

    /// Bytes of the value, where it lies here.
    fn inside(self) -> &'arena [u8] {
        let at = self.key_at() + usize::from(u16_at(self.0, 4));
        &self.0[at..at + u32_at(self.0, 8) as usize]
    }

    /// Slot of a value outside.
    pub fn outside(self) -> Option<u32> {
        self.flag(OUTSIDE).then(|| u32_at(self.0, 8))
    }

    /// The deadline.
    pub fn expire_time_ms(self) -> Option<u64> {
        self.flag(EXPIRES).then(|| u64_at(self.0, self.expiry_at()))
    }

    /// The revision.
    pub fn revision(self) -> u64 {
        u64_at(self.0, 18)
    }

    fn metadata(self) -> Metadata {
        let revision = self.revision();
        let (create_revision, version) = match self.flag(HISTORY) {
            true => (u64_at(self.0, HEAD_BYTES), u64_at(self.0, HEAD_BYTES + 8)),
            false => (revision, 1),
        };
        let mut time = [0; 8];
        time[..6].copy_from_slice(&self.0[12..18]);
        let expire_time_ms = self.expire_time_ms();
        Metadata { revision, create_revision, version, update_time_ms: u64::from_le_bytes(time), expire_time_ms }
    }

    /// The entry.
    pub fn entry(self, types: &'arena ContentTypes, values: &'arena [Option<Bytes>]) -> EntryRef<'arena> {
        let value = match self.outside() {
            // An empty slot cannot be: it lives as long as the record that names it.
            Some(slot) => match values.get(slot as usize).and_then(Option::as_ref) {
                Some(shared) => ValueRef::Shared(shared),
                None => ValueRef::Inline(&[]),
            },
            None => ValueRef::Inline(self.inside()),
        };
        let content_type = if self.flag(OWN_TYPE) {
            let at = self.type_at();
            std::str::from_utf8(&self.0[at..at + usize::from(self.0[3])]).unwrap_or_default()
        } else {
            types.name(u16_at(self.0, 6))
        };
        EntryRef { key: self.key(), value, content_type, metadata: self.metadata() }
    }
}
