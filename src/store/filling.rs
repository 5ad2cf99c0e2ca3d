//! A page on loan from an arena: whoever has it puts one piece behind another into it, and needs no lock for that.

use super::{
    arena::join,
    page::{FIRST_SLOT, PAGE_UNITS, Page, UNIT_BYTES},
};

/// So much memory is asked for at once: the processor's second cache holds that of some shards until it is filled.
const POPULATED_UNITS: usize = 64 * 1024 / UNIT_BYTES;
const _: () = assert!(PAGE_UNITS.is_multiple_of(POPULATED_UNITS));

/// A page that is being filled.
#[derive(Debug)]
pub struct Filling {
    number: usize,
    page: Page,
    /// Where the next piece begins.
    slot: usize,
    /// Up to here there is memory.
    populated: usize,
}

impl Filling {
    /// Nothing is in this page yet.
    pub fn new(number: usize, page: Page) -> Self {
        Self { number, page, slot: FIRST_SLOT, populated: 0 }
    }

    /// Whether a piece of so many units still fits.
    pub fn has_room(&self, units: usize) -> bool {
        units <= PAGE_UNITS - self.slot
    }

    /// The next piece, for which there is room, to write to: all but [`ARENA_BITS`](super::page::ARENA_BITS) of its first
    /// byte.
    pub fn add(&mut self, units: usize) -> (u32, &mut [u8]) {
        let slot = self.slot;
        self.slot += units;
        while self.slot > self.populated {
            self.page.populate(self.populated, POPULATED_UNITS);
            self.populated += POPULATED_UNITS;
        }
        self.page.take(slot);
        self.page.live_units += units;
        (join(self.number, slot), self.page.piece_mut(slot, units))
    }

    /// The page's number, the page, and where in it nothing is.
    pub fn into_parts(self) -> (usize, Page, usize) {
        (self.number, self.page, self.slot)
    }
}
