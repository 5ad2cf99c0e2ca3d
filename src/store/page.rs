//! One page of an arena: a row of pieces without gaps, records and free ones, each at a multiple of 4 bytes.
//!
//! A live piece owns its bytes but for two bits of the first one; a free piece says its length at both ends, so that a
//! neighbour that becomes free can join it:
//!
//! ```text
//!  0  u8   bit 0: live · bit 1, of live pieces: the piece before is free · bit 2, of free pieces: linked
//!  2  u16  units of 4 bytes          (free pieces)
//!  4  u32  next free piece           (free pieces of four units and more)
//!  8  u32  previous free piece
//!  …
//! -2  u16  units once more           (free pieces)
//! ```
//!
//! Beside a page that tracks use lies a bit for each 16 bytes of it: readers set it without a lock of their own.
//!
//! Pages come from the operating system one by one and go back to it one by one: a general allocator would keep them.

use std::{
    io,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use memmap2::MmapMut;

/// Granularity of pieces: fine, since at ten million keys each byte lost to it counts.
pub const UNIT_BYTES: usize = 4;
/// Bytes of a page.
pub const PAGE_BYTES: usize = 256 * 1024;
/// Slots of a page.
pub const PAGE_UNITS: usize = PAGE_BYTES / UNIT_BYTES;
/// The first slot is left out, so that handle 0 means nothing and the length of a whole page fits.
pub const FIRST_SLOT: usize = 1;
/// Units of the largest piece.
pub const PIECE_UNITS_MAX: usize = PAGE_UNITS - FIRST_SLOT;

/// Bit of a piece's first byte: it is in use.
pub const LIVE: u8 = 1;
/// Bit of a live piece's first byte: the piece before it is free.
const FREE_BEFORE: u8 = 2;
/// Bit of a free piece's first byte: it can be found by its size.
const LINKED: u8 = 4;
/// The bits of a live piece's first byte that are not its owner's.
pub const ARENA_BITS: u8 = LIVE | FREE_BEFORE;

/// Where a free piece keeps the handle of the next and of the previous one of its size.
pub const NEXT_AT: usize = 4;
pub const PREVIOUS_AT: usize = 8;
/// The smallest free piece that has room for both, and for its length at both ends.
pub const LINKED_UNITS_MIN: usize = 4;

/// Slots that share a mark: no record is shorter.
const MARK_SLOTS: usize = 4;

/// A page.
#[derive(Debug)]
pub struct Page {
    bytes: MmapMut,
    /// A bit for each [`MARK_SLOTS`], from the first mark on.
    marks: OnceLock<Box<[AtomicU64]>>,
    /// Units of live pieces.
    pub live_units: usize,
    /// Nothing is put here any more: its pieces are on their way to other pages.
    pub closed: bool,
}

impl Page {
    /// Fresh memory, which costs nothing until it is written to.
    pub fn new() -> io::Result<Self> {
        Ok(Self { bytes: MmapMut::map_anon(PAGE_BYTES)?, marks: OnceLock::new(), live_units: 0, closed: false })
    }

    /// Asks for the memory from a slot on, that it is there at once when it is written to: cheaper than piece by piece as
    /// writes meet it. Without that it comes so.
    pub fn populate(&self, slot: usize, units: usize) {
        #[cfg(target_os = "linux")]
        drop(self.bytes.advise_range(memmap2::Advice::PopulateWrite, slot * UNIT_BYTES, units * UNIT_BYTES));
    }

    /// Everything from a slot to the end of the page.
    pub fn from(&self, slot: usize) -> &[u8] {
        &self.bytes[slot * UNIT_BYTES..]
    }

    /// Bytes of a piece of so many units.
    pub fn piece_mut(&mut self, slot: usize, units: usize) -> &mut [u8] {
        &mut self.bytes[slot * UNIT_BYTES..][..units * UNIT_BYTES]
    }

    /// Whether no piece in use begins here.
    pub fn is_free(&self, slot: usize) -> bool {
        self.bytes[slot * UNIT_BYTES] & LIVE == 0
    }

    /// Units of a free piece.
    pub fn free_units(&self, slot: usize) -> usize {
        self.u16_at(slot * UNIT_BYTES + 2)
    }

    /// Where the free piece before a live one begins.
    pub fn free_before(&self, slot: usize) -> Option<usize> {
        let at = slot * UNIT_BYTES;
        (self.bytes[at] & FREE_BEFORE != 0).then(|| slot - self.u16_at(at - 2))
    }

    /// Makes a free piece a live one.
    pub fn take(&mut self, slot: usize) {
        self.bytes[slot * UNIT_BYTES] = LIVE;
    }

    /// Writes a free piece that is not linked yet, and tells the live one behind it.
    pub fn set_free(&mut self, slot: usize, units: usize) {
        let (at, end) = (slot * UNIT_BYTES, (slot + units) * UNIT_BYTES);
        let length = (units as u16).to_le_bytes();
        self.bytes[at] = 0;
        self.bytes[at + 2..at + 4].copy_from_slice(&length);
        self.bytes[end - 2..end].copy_from_slice(&length);
        self.tell_behind(slot + units, true);
    }

    /// Tells the live piece at `slot`, if the page has one there, whether the piece before it is free.
    pub fn tell_behind(&mut self, slot: usize, free: bool) {
        if slot < PAGE_UNITS {
            let first = &mut self.bytes[slot * UNIT_BYTES];
            *first = if free { *first | FREE_BEFORE } else { *first & !FREE_BEFORE };
        }
    }

    /// Whether a free piece can be found by its size.
    pub fn is_linked(&self, slot: usize) -> bool {
        self.bytes[slot * UNIT_BYTES] & LINKED != 0
    }

    /// Notes whether a free piece can be found by its size.
    pub fn set_linked(&mut self, slot: usize, linked: bool) {
        self.bytes[slot * UNIT_BYTES] = if linked { LINKED } else { 0 };
    }

    /// A link of a free piece.
    pub fn link(&self, slot: usize, at: usize) -> u32 {
        let at = slot * UNIT_BYTES + at;
        let bytes = &self.bytes;
        u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
    }

    /// Sets a link of a free piece.
    pub fn set_link(&mut self, slot: usize, at: usize, handle: u32) {
        let at = slot * UNIT_BYTES + at;
        self.bytes[at..at + 4].copy_from_slice(&handle.to_le_bytes());
    }

    /// Notes that a piece was used.
    pub fn mark(&self, slot: usize) {
        let words = PAGE_UNITS / MARK_SLOTS / 64;
        let marks = self.marks.get_or_init(|| (0..words).map(|_| AtomicU64::new(0)).collect());
        let (word, bit) = (slot / MARK_SLOTS / 64, 1 << (slot / MARK_SLOTS % 64));
        // Most that is read was read before: looking first keeps the cache line shared.
        if marks[word].load(Ordering::Relaxed) & bit == 0 {
            marks[word].fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// Whether a piece was used since this was last asked.
    pub fn take_mark(&self, slot: usize) -> bool {
        let (word, bit) = (slot / MARK_SLOTS / 64, 1 << (slot / MARK_SLOTS % 64));
        self.marks.get().is_some_and(|marks| marks[word].fetch_and(!bit, Ordering::Relaxed) & bit != 0)
    }

    fn u16_at(&self, at: usize) -> usize {
        usize::from(u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]]))
    }
}
