//! Pieces of memory by 32-bit handle, in pages of 64 KiB.
//!
//! A handle is a page number and a slot of 16 bytes within it, so one arena reaches 64 GiB. A page is a row of pieces
//! without gaps: records and free ones, each beginning with its length and its kind (see [`super::record`]), so that a page
//! can be walked. Free pieces are linked by size, and join their free neighbours at once; a page without a record is given
//! back. General allocators do the last only for whole slabs of one size, and cannot tell which pages are nearly empty.

/// Granularity of pieces.
pub const UNIT_BYTES: usize = 16;
/// Bytes of a page.
pub const PAGE_BYTES: usize = 64 * 1024;
const PAGE_UNITS: usize = PAGE_BYTES / UNIT_BYTES;
const SLOT_BITS: u32 = PAGE_UNITS.trailing_zeros();
const PAGES_MAX: usize = 1 << (32 - SLOT_BITS);
/// Bookkeeping of a page besides its bytes: the bit map of starts.
const PAGE_OVERHEAD_BYTES: usize = PAGE_UNITS / 8;
/// No piece.
const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Page {
    bytes: Box<[u8]>,
    /// A bit for each slot at which a piece begins: finds the piece before another.
    starts: [u64; PAGE_UNITS / 64],
    live_units: usize,
}

impl Page {
    fn new() -> Self {
        Self { bytes: vec![0; PAGE_BYTES].into_boxed_slice(), starts: [0; PAGE_UNITS / 64], live_units: 0 }
    }

    fn mark(&mut self, slot: usize, starts: bool) {
        let bit = 1 << (slot % 64);
        if starts {
            self.starts[slot / 64] |= bit;
        } else {
            self.starts[slot / 64] &= !bit;
        }
    }

    /// Start of the piece before the one at `slot`.
    fn before(&self, slot: usize) -> Option<usize> {
        let below = self.starts[slot / 64] & ((1 << (slot % 64)) - 1);
        if below != 0 {
            return Some(slot / 64 * 64 + (63 - below.leading_zeros() as usize));
        }
        (0..slot / 64)
            .rev()
            .find(|word| self.starts[*word] != 0)
            .map(|word| word * 64 + (63 - self.starts[word].leading_zeros() as usize))
    }

    fn units(&self, slot: usize) -> usize {
        let at = slot * UNIT_BYTES;
        usize::from(u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]]))
    }

    fn is_free(&self, slot: usize) -> bool {
        self.bytes[slot * UNIT_BYTES + 2] == 0
    }

    fn link(&self, slot: usize, at: usize) -> u32 {
        let at = slot * UNIT_BYTES + at;
        let bytes = &self.bytes;
        u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
    }

    fn set_link(&mut self, slot: usize, at: usize, handle: u32) {
        let at = slot * UNIT_BYTES + at;
        self.bytes[at..at + 4].copy_from_slice(&handle.to_le_bytes());
    }
}

/// Where a free piece keeps the handle of the next and of the previous one of its size.
const NEXT_AT: usize = 4;
const PREVIOUS_AT: usize = 8;

/// Pages of pieces.
#[derive(Debug)]
pub struct Arena {
    pages: Vec<Option<Page>>,
    vacant: Vec<usize>,
    /// First free piece of each size in units.
    free: Vec<u32>,
    /// A bit for each size that has a free piece.
    sizes: [u64; PAGE_UNITS / 64 + 1],
    page_count: usize,
}

impl Default for Arena {
    fn default() -> Self {
        Self {
            pages: Vec::new(),
            vacant: Vec::new(),
            free: vec![NONE; PAGE_UNITS + 1],
            sizes: [0; PAGE_UNITS / 64 + 1],
            page_count: 0,
        }
    }
}

fn split(handle: u32) -> (usize, usize) {
    ((handle >> SLOT_BITS) as usize, handle as usize % PAGE_UNITS)
}

fn join(page: usize, slot: usize) -> u32 {
    ((page << SLOT_BITS) | slot) as u32
}

impl Arena {
    /// Units that `bytes` take.
    pub fn units_for(bytes: usize) -> usize {
        bytes.div_ceil(UNIT_BYTES)
    }

    /// Bytes of a piece, its head included.
    pub fn get(&self, handle: u32) -> &[u8] {
        let (page, slot) = split(handle);
        match self.pages.get(page).and_then(Option::as_ref) {
            Some(page) => &page.bytes[slot * UNIT_BYTES..][..page.units(slot) * UNIT_BYTES],
            None => &[],
        }
    }

    /// Bytes of a piece to write to. Its units are set.
    pub fn get_mut(&mut self, handle: u32) -> &mut [u8] {
        let (page, slot) = split(handle);
        match self.pages.get_mut(page).and_then(Option::as_mut) {
            Some(page) => {
                let bytes = page.units(slot) * UNIT_BYTES;
                &mut page.bytes[slot * UNIT_BYTES..][..bytes]
            }
            None => &mut [],
        }
    }

    /// Units of a piece.
    pub fn units(&self, handle: u32) -> usize {
        self.get(handle).len() / UNIT_BYTES
    }

    /// A piece of `units`; `None` once all 64 GiB are in use. Best fit, so that pages fill before new ones are taken.
    pub fn allocate(&mut self, units: usize) -> Option<u32> {
        let (handle, found) = match self.find_size(units) {
            Some(found) => (self.free[found], found),
            None => (self.add_page()?, PAGE_UNITS),
        };
        self.unlink(handle);
        let (page_number, slot) = split(handle);
        let page = self.pages.get_mut(page_number).and_then(Option::as_mut)?;
        page.live_units += units;
        set_head(page, slot, units, 1);
        if found > units {
            self.add_free(page_number, slot + units, found - units);
        }
        Some(handle)
    }

    /// Gives a piece back.
    pub fn release(&mut self, handle: u32) {
        let (page_number, mut slot) = split(handle);
        let Some(page) = self.pages.get_mut(page_number).and_then(Option::as_mut) else { return };
        let mut units = page.units(slot);
        page.live_units -= units;
        page.mark(slot, false);
        let after = slot + units;
        let joins_after = after < PAGE_UNITS && page.is_free(after);
        let before = page.before(slot).filter(|before| page.is_free(*before));
        if joins_after {
            units += page.units(after);
            page.mark(after, false);
        }
        if let Some(before) = before {
            units += page.units(before);
            page.mark(before, false);
            slot = before;
        }
        if joins_after {
            self.unlink(join(page_number, after));
        }
        if let Some(before) = before {
            self.unlink(join(page_number, before));
        }
        if units == PAGE_UNITS {
            self.pages[page_number] = None;
            self.vacant.push(page_number);
            self.page_count -= 1;
        } else {
            self.add_free(page_number, slot, units);
        }
    }

    /// Bytes that the arena holds.
    pub fn allocated_bytes(&self) -> usize {
        self.page_count * (PAGE_BYTES + PAGE_OVERHEAD_BYTES)
    }

    /// The smallest size of at least `units` that has a free piece.
    fn find_size(&self, units: usize) -> Option<usize> {
        let first = units / 64;
        let here = self.sizes[first] & (u64::MAX << (units % 64));
        if here != 0 {
            return Some(first * 64 + here.trailing_zeros() as usize);
        }
        (first + 1..self.sizes.len())
            .find(|word| self.sizes[*word] != 0)
            .map(|word| word * 64 + self.sizes[word].trailing_zeros() as usize)
    }

    /// A new page as one free piece.
    fn add_page(&mut self) -> Option<u32> {
        let number = match self.vacant.pop() {
            Some(number) => number,
            None if self.pages.len() < PAGES_MAX => {
                self.pages.push(None);
                self.pages.len() - 1
            }
            None => return None,
        };
        self.pages[number] = Some(Page::new());
        self.page_count += 1;
        self.add_free(number, 0, PAGE_UNITS);
        Some(join(number, 0))
    }

    fn add_free(&mut self, page_number: usize, slot: usize, units: usize) {
        let handle = join(page_number, slot);
        let next = self.free[units];
        if let Some(page) = self.pages[page_number].as_mut() {
            set_head(page, slot, units, 0);
            page.set_link(slot, NEXT_AT, next);
            page.set_link(slot, PREVIOUS_AT, NONE);
        }
        self.set_link(next, PREVIOUS_AT, handle);
        self.free[units] = handle;
        self.sizes[units / 64] |= 1 << (units % 64);
    }

    fn unlink(&mut self, handle: u32) {
        let (page, slot) = split(handle);
        let Some(page) = self.pages.get(page).and_then(Option::as_ref) else { return };
        let (units, next, previous) = (page.units(slot), page.link(slot, NEXT_AT), page.link(slot, PREVIOUS_AT));
        self.set_link(next, PREVIOUS_AT, previous);
        if previous == NONE {
            self.free[units] = next;
            if next == NONE {
                self.sizes[units / 64] &= !(1 << (units % 64));
            }
        } else {
            self.set_link(previous, NEXT_AT, next);
        }
    }

    fn set_link(&mut self, handle: u32, at: usize, to: u32) {
        if handle == NONE {
            return;
        }
        let (page, slot) = split(handle);
        if let Some(page) = self.pages.get_mut(page).and_then(Option::as_mut) {
            page.set_link(slot, at, to);
        }
    }
}

fn set_head(page: &mut Page, slot: usize, units: usize, flags: u8) {
    let at = slot * UNIT_BYTES;
    // A page has 4,096 units: the length fits.
    page.bytes[at..at + 2].copy_from_slice(&(units as u16).to_le_bytes());
    page.bytes[at + 2] = flags;
    page.mark(slot, true);
}

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

    use super::*;

    /// Walks every page: pieces join without gaps, free neighbours are one, sums agree.
    fn check(arena: &Arena, live: &[(u32, usize)]) {
        let mut live_units = 0;
        for page in arena.pages.iter().flatten() {
            let (mut slot, mut free_before, mut page_live) = (0, false, 0);
            while slot < PAGE_UNITS {
                assert!(page.starts[slot / 64] & (1 << (slot % 64)) != 0);
                let free = page.is_free(slot);
                assert!(!(free && free_before), "two free neighbours");
                free_before = free;
                page_live += if free { 0 } else { page.units(slot) };
                slot += page.units(slot);
            }
            assert_eq!(slot, PAGE_UNITS);
            assert_eq!(page_live, page.live_units);
            live_units += page_live;
        }
        assert_eq!(live_units, live.iter().map(|(_, units)| units).sum::<usize>());
    }

    #[test]
    fn steady_churn_of_mixed_sizes_wastes_little() {
        let mut random = SmallRng::seed_from_u64(1);
        let mut arena = Arena::default();
        let mut live: Vec<(u32, usize)> = Vec::new();
        for round in 0..200_000 {
            if live.len() > 5_000 {
                let (handle, units) = live.swap_remove(random.random_range(0..live.len()));
                assert_eq!(arena.units(handle), units);
                assert_eq!(arena.get(handle)[3], units as u8, "nobody wrote over it");
                arena.release(handle);
            }
            let units = if random.random_bool(0.1) { random.random_range(1..700) } else { random.random_range(1..40) };
            let handle = arena.allocate(units).unwrap();
            arena.get_mut(handle)[3] = units as u8;
            live.push((handle, units));
            if round % 50_000 == 0 {
                check(&arena, &live);
            }
        }
        check(&arena, &live);
        let used = live.iter().map(|(_, units)| units * UNIT_BYTES).sum::<usize>();
        assert!(used * 100 > arena.allocated_bytes() * 80, "{used} of {}", arena.allocated_bytes());
        for (handle, _) in live {
            arena.release(handle);
        }
        assert_eq!(arena.allocated_bytes(), 0);
    }
}
