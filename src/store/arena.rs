//! Pieces of memory by 32-bit handle, in [pages](super::page) of 256 KiB.
//!
//! A handle is a page number and a slot of 4 bytes within it, so one arena reaches 16 GiB. Free pieces are linked by size,
//! and join their free neighbours at once; a page without a live piece is given back. When much is free but spread over
//! many pages, the emptiest one is closed: its owner moves what lives there elsewhere, piece by piece, and the page goes.

use super::{
    filling::Filling,
    page::{
        ARENA_BITS, FIRST_SLOT, LINKED_UNITS_MIN, NEXT_AT, PAGE_BYTES, PAGE_UNITS, PIECE_UNITS_MAX, PREVIOUS_AT, Page,
        UNIT_BYTES,
    },
};

const SLOT_BITS: u32 = PAGE_UNITS.trailing_zeros();
const PAGES_MAX: usize = 1 << (32 - SLOT_BITS);
/// No piece.
pub const NONE: u32 = 0;

/// Sizes below this have a list of their own; sixteen lists share each doubling above it.
const EXACT_UNITS: usize = 4_096;
const BINS: usize = EXACT_UNITS + 64;

/// Pages are worth closing below this part of life, in hundredths: moving more would gain too little.
const CLOSE_BELOW: usize = 85;
/// Evacuation begins when less than this part of the pages is live, in hundredths …
const BEGIN_BELOW: usize = 80;
/// … and goes on up to this one.
const END_ABOVE: usize = 90;
/// So many pages may be free in part without a reason to evacuate.
const SLACK_PAGES: usize = 1;

/// Pages of pieces.
#[derive(Debug)]
pub struct Arena {
    pages: Vec<Option<Page>>,
    vacant: Vec<usize>,
    /// An empty page: what a write needs at most, so that none stops halfway for want of memory.
    spare: Option<Page>,
    /// First free piece of each size.
    free: Vec<u32>,
    /// A bit for each size that has a free piece.
    sizes: [u64; BINS / 64],
    page_count: usize,
    live_units: usize,
    /// The closed page.
    closed: Option<usize>,
    evacuating: bool,
    /// Whether use is noted.
    pub tracks_use: bool,
}

impl Default for Arena {
    fn default() -> Self {
        Self {
            pages: Vec::new(),
            vacant: Vec::new(),
            spare: None,
            free: vec![NONE; BINS],
            sizes: [0; BINS / 64],
            page_count: 0,
            live_units: 0,
            closed: None,
            evacuating: false,
            tracks_use: false,
        }
    }
}

fn split(handle: u32) -> (usize, usize) {
    ((handle >> SLOT_BITS) as usize, handle as usize % PAGE_UNITS)
}

/// The handle of a piece.
pub fn join(page: usize, slot: usize) -> u32 {
    ((page << SLOT_BITS) | slot) as u32
}

/// The list that holds free pieces of this size.
fn bin_of(units: usize) -> usize {
    if units < EXACT_UNITS {
        return units;
    }
    let doubling = units.ilog2() as usize;
    EXACT_UNITS + (doubling - EXACT_UNITS.ilog2() as usize) * 16 + (units >> (doubling - 4)) % 16
}

/// The first list of which every piece has room for this many units.
fn bin_for(units: usize) -> usize {
    let whole = units < EXACT_UNITS || units.is_multiple_of(1 << (units.ilog2() - 4));
    bin_of(units) + usize::from(!whole)
}

impl Arena {
    /// Units that `bytes` take.
    pub fn units_for(bytes: usize) -> usize {
        bytes.div_ceil(UNIT_BYTES)
    }

    /// Bytes from the start of a piece on; its owner knows where it ends.
    pub fn get(&self, handle: u32) -> &[u8] {
        let (page, slot) = split(handle);
        self.pages.get(page).and_then(Option::as_ref).map_or(&[], |page| page.from(slot))
    }

    /// Bytes of a piece of so many units, to write to: all but [`ARENA_BITS`] of the first one.
    pub fn get_mut(&mut self, handle: u32, units: usize) -> &mut [u8] {
        let (page, slot) = split(handle);
        match self.page_mut(page) {
            Some(page) => page.piece_mut(slot, units),
            None => &mut [],
        }
    }

    /// Sees to it that pieces of a page in all can be had; false: neither address space nor memory is left.
    pub fn reserve(&mut self) -> bool {
        if self.spare.is_none() && (self.page_count < PAGES_MAX) {
            self.spare = Page::new().ok();
        }
        self.spare.is_some() && self.page_count < PAGES_MAX
    }

    /// A piece of `units`; `None` when neither address space nor memory is left. Best fit, so that pages fill before new
    /// ones are taken.
    pub fn allocate(&mut self, units: usize) -> Option<u32> {
        loop {
            let handle = match self.find_size(units) {
                Some(bin) => self.free[bin],
                None => self.add_page()?,
            };
            self.unlink(handle);
            let (number, slot) = split(handle);
            let page = self.page_mut(number)?;
            if page.closed {
                // It stays free and out of reach until its page goes.
                continue;
            }
            let found = page.free_units(slot);
            page.take(slot);
            page.live_units += units;
            self.live_units += units;
            if found > units {
                self.add_free(number, slot + units, found - units);
            } else {
                self.page_mut(number)?.tell_behind(slot + units, false);
            }
            return Some(handle);
        }
    }

    /// Gives a piece of so many units back.
    pub fn release(&mut self, handle: u32, units: usize) {
        let (number, slot) = split(handle);
        let Some(page) = self.page_mut(number) else { return };
        page.live_units -= units;
        let behind = slot + units;
        let behind = (behind < PAGE_UNITS && page.is_free(behind)).then_some(behind);
        let before = page.free_before(slot);
        let (mut start, mut total) = (slot, units);
        if let Some(behind) = behind {
            total += page.free_units(behind);
        }
        if let Some(before) = before {
            total += slot - before;
            start = before;
        }
        self.live_units -= units;
        for neighbour in behind.into_iter().chain(before) {
            self.unlink(join(number, neighbour));
        }
        if total == PIECE_UNITS_MAX {
            self.drop_page(number);
        } else {
            self.add_free(number, start, total);
        }
    }

    /// A page that is filled elsewhere, without the arena, until it [comes in](Self::take_in); `None` when neither address
    /// space nor memory is left.
    pub fn lend(&mut self) -> Option<Filling> {
        let (number, page) = self.new_page()?;
        Some(Filling::new(number, page))
    }

    /// Takes a page in that was filled elsewhere.
    pub fn take_in(&mut self, filling: Filling) {
        let (number, page, slot) = filling.into_parts();
        self.live_units += page.live_units;
        self.pages[number] = Some(page);
        if slot < PAGE_UNITS {
            self.add_free(number, slot, PAGE_UNITS - slot);
        }
    }

    /// Copies a piece into another one of the same size.
    pub fn copy(&mut self, from: u32, to: u32, units: usize) {
        let ((from_page, from_slot), (to_page, to_slot)) = (split(from), split(to));
        // A closed page gives no pieces: the two are in different ones.
        if let Ok([Some(source), Some(target)]) = self.pages.get_disjoint_mut([from_page, to_page]) {
            let piece = target.piece_mut(to_slot, units);
            let kept = piece[0] & ARENA_BITS;
            piece.copy_from_slice(&source.from(from_slot)[..units * UNIT_BYTES]);
            piece[0] = piece[0] & !ARENA_BITS | kept;
        }
    }

    /// Notes that a piece was used, where that is tracked.
    pub fn mark(&self, handle: u32) {
        if self.tracks_use {
            let (page, slot) = split(handle);
            if let Some(page) = self.pages.get(page).and_then(Option::as_ref) {
                page.mark(slot);
            }
        }
    }

    /// Whether a piece was used since this was last asked.
    pub fn take_mark(&self, handle: u32) -> bool {
        let (page, slot) = split(handle);
        self.pages.get(page).and_then(Option::as_ref).is_some_and(|page| page.take_mark(slot))
    }

    /// Bytes of the pages.
    pub fn allocated_bytes(&self) -> usize {
        self.page_count * PAGE_BYTES
    }

    /// Bytes of the live pieces.
    pub fn live_bytes(&self) -> usize {
        self.live_units * UNIT_BYTES
    }

    /// Whether so much is free, spread over so many pages, that some should be emptied.
    pub fn is_sparse(&self) -> bool {
        let least = if self.evacuating { END_ABOVE } else { BEGIN_BELOW };
        let units = self.page_count * PAGE_UNITS;
        self.live_units * 100 < units * least && self.live_units + SLACK_PAGES * PAGE_UNITS < units
    }

    /// A live piece that should move elsewhere, in the page that is being emptied. The emptiest page is closed first where
    /// none is; `None` when enough is done.
    pub fn next_to_move(&mut self) -> Option<u32> {
        if self.closed.is_none() {
            self.evacuating = self.is_sparse() && self.close_emptiest();
        }
        let number = self.closed?;
        let page = self.page_mut(number)?;
        // What was emptied already is one free piece at the beginning.
        let free = if page.is_free(FIRST_SLOT) { page.free_units(FIRST_SLOT) } else { 0 };
        (FIRST_SLOT + free < PAGE_UNITS).then(|| join(number, FIRST_SLOT + free))
    }

    fn close_emptiest(&mut self) -> bool {
        let pages = self.pages.iter().enumerate();
        let lives = pages.filter_map(|(number, page)| page.as_ref().map(|page| (page.live_units, number)));
        match lives.min() {
            Some((live_units, number)) if live_units * 100 < PAGE_UNITS * CLOSE_BELOW => {
                if let Some(page) = self.page_mut(number) {
                    page.closed = true;
                }
                self.closed = Some(number);
                true
            }
            _ => false,
        }
    }

    fn page_mut(&mut self, number: usize) -> Option<&mut Page> {
        self.pages.get_mut(number).and_then(Option::as_mut)
    }

    /// The first list with a piece that has room for `units`.
    fn find_size(&self, units: usize) -> Option<usize> {
        let bin = bin_for(units);
        let first = bin / 64;
        let here = self.sizes.get(first)? & (u64::MAX << (bin % 64));
        if here != 0 {
            return Some(first * 64 + here.trailing_zeros() as usize);
        }
        (first + 1..self.sizes.len())
            .find(|word| self.sizes[*word] != 0)
            .map(|word| word * 64 + self.sizes[word].trailing_zeros() as usize)
    }

    /// A new page as one free piece.
    fn add_page(&mut self) -> Option<u32> {
        let (number, page) = self.new_page()?;
        self.pages[number] = Some(page);
        self.add_free(number, FIRST_SLOT, PIECE_UNITS_MAX);
        Some(join(number, FIRST_SLOT))
    }

    /// A new page, and its number, where it is not yet.
    fn new_page(&mut self) -> Option<(usize, Page)> {
        if self.page_count == PAGES_MAX {
            return None;
        }
        let page = match self.spare.take() {
            Some(page) => page,
            None => Page::new().ok()?,
        };
        let number = self.vacant.pop().unwrap_or_else(|| {
            self.pages.push(None);
            self.pages.len() - 1
        });
        self.page_count += 1;
        Some((number, page))
    }

    fn drop_page(&mut self, number: usize) {
        let Some(mut page) = self.pages.get_mut(number).and_then(Option::take) else { return };
        self.page_count -= 1;
        if self.closed == Some(number) {
            self.closed = None;
        }
        if self.page_count == 0 {
            // A shard that is filled and emptied in turn keeps its one page.
            page.closed = false;
            self.spare = Some(page);
            self.pages = Vec::new();
            self.vacant = Vec::new();
        } else {
            self.vacant.push(number);
        }
    }

    /// Writes a free piece and links it, where it has room for links and its page is open.
    fn add_free(&mut self, number: usize, slot: usize, units: usize) {
        let Some(page) = self.pages.get_mut(number).and_then(Option::as_mut) else { return };
        page.set_free(slot, units);
        if page.closed || units < LINKED_UNITS_MIN {
            return;
        }
        let bin = bin_of(units);
        let (handle, next) = (join(number, slot), self.free[bin]);
        page.set_linked(slot, true);
        page.set_link(slot, NEXT_AT, next);
        page.set_link(slot, PREVIOUS_AT, NONE);
        self.set_link(next, PREVIOUS_AT, handle);
        self.free[bin] = handle;
        self.sizes[bin / 64] |= 1 << (bin % 64);
    }

    /// Takes a free piece out of its list, if it is in one.
    fn unlink(&mut self, handle: u32) {
        let (number, slot) = split(handle);
        let Some(page) = self.page_mut(number) else { return };
        if !page.is_linked(slot) {
            return;
        }
        page.set_linked(slot, false);
        let (bin, next, previous) =
            (bin_of(page.free_units(slot)), page.link(slot, NEXT_AT), page.link(slot, PREVIOUS_AT));
        self.set_link(next, PREVIOUS_AT, previous);
        if previous == NONE {
            self.free[bin] = next;
            if next == NONE {
                self.sizes[bin / 64] &= !(1 << (bin % 64));
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
        if let Some(page) = self.page_mut(page) {
            page.set_link(slot, at, to);
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

    use super::*;

    /// Handles and units of live pieces; each piece's fifth byte on is its own.
    type Live = Vec<(u32, usize)>;

    /// Walks every page: pieces join without gaps, free neighbours are one, sums and lists agree.
    fn check(arena: &Arena, live: &Live) {
        let mut starts: Vec<_> = live.clone();
        starts.sort_unstable();
        for (number, page) in arena.pages.iter().enumerate() {
            let Some(page) = page else { continue };
            let (mut slot, mut free_before, mut page_live) = (FIRST_SLOT, None, 0);
            while slot < PAGE_UNITS {
                if page.is_free(slot) {
                    assert!(free_before.is_none(), "two free neighbours");
                    let units = page.free_units(slot);
                    assert!(page.closed || page.is_linked(slot) == (units >= LINKED_UNITS_MIN));
                    free_before = Some(slot);
                    slot += units;
                } else {
                    let place = starts.binary_search_by_key(&join(number, slot), |(handle, _)| *handle).unwrap();
                    assert_eq!(page.free_before(slot), free_before.take());
                    page_live += starts[place].1;
                    slot += starts[place].1;
                }
            }
            assert_eq!((slot, page_live), (PAGE_UNITS, page.live_units));
        }
        assert_eq!(arena.live_bytes(), live.iter().map(|(_, units)| units * UNIT_BYTES).sum::<usize>());
    }

    #[test]
    fn pages_that_were_filled_elsewhere_are_like_any_other() {
        let (mut arena, mut live, mut random) = (Arena::default(), Live::new(), SmallRng::seed_from_u64(11));
        let mut fillings = [arena.lend().unwrap(), arena.lend().unwrap()];
        assert_eq!((arena.allocated_bytes(), arena.live_bytes()), (2 * PAGE_BYTES, 0));
        for number in 0..20_000 {
            let filling = &mut fillings[number % 2];
            let units = random.random_range(2..120);
            if !filling.has_room(units) {
                let filled = std::mem::replace(filling, arena.lend().unwrap());
                arena.take_in(filled);
            }
            let (handle, piece) = filling.add(units);
            let last = piece.len() - 1;
            (piece[1], piece[last]) = (units as u8, units as u8);
            live.push((handle, units));
        }
        // One to the last unit.
        let [mut full, other] = fillings;
        let units = (1..=PIECE_UNITS_MAX).rev().find(|units| full.has_room(*units)).unwrap();
        let (handle, piece) = full.add(units);
        let last = piece.len() - 1;
        (piece[1], piece[last]) = (units as u8, units as u8);
        live.push((handle, units));
        arena.take_in(full);
        arena.take_in(other);
        check(&arena, &live);
        churn(&mut arena, &mut live, &mut random, 40_000, 5_000);
        check(&arena, &live);
        for (handle, units) in std::mem::take(&mut live) {
            assert_own(&arena, handle, units);
            arena.release(handle, units);
        }
        check(&arena, &live);
        assert_eq!(arena.allocated_bytes(), 0);
    }

    fn add(arena: &mut Arena, live: &mut Live, units: usize) {
        let handle = arena.allocate(units).unwrap();
        let piece = arena.get_mut(handle, units);
        let last = piece.len() - 1;
        piece[1] = units as u8;
        piece[last] = units as u8;
        live.push((handle, units));
    }

    fn assert_own(arena: &Arena, handle: u32, units: usize) {
        let piece = &arena.get(handle)[..units * UNIT_BYTES];
        assert_eq!((piece[1], piece[piece.len() - 1]), (units as u8, units as u8), "nobody wrote over it");
    }

    fn churn(arena: &mut Arena, live: &mut Live, random: &mut SmallRng, rounds: usize, keep: usize) {
        for _ in 0..rounds {
            if live.len() > keep {
                let (handle, units) = live.swap_remove(random.random_range(0..live.len()));
                assert_own(arena, handle, units);
                arena.release(handle, units);
            }
            let units =
                if random.random_bool(0.1) { random.random_range(1..3_000) } else { random.random_range(1..160) };
            add(arena, live, units);
        }
    }

    #[test]
    fn every_size_finds_a_list_whose_pieces_have_room() {
        for units in 1..=PIECE_UNITS_MAX {
            assert!(bin_of(units) < BINS && bin_for(units) >= bin_of(units));
            assert!(units == 1 || bin_of(units) >= bin_of(units - 1));
            assert!(units == PIECE_UNITS_MAX || bin_for(units + 1) > bin_of(units));
        }
    }

    #[test]
    fn steady_churn_of_mixed_sizes_wastes_little() {
        let mut random = SmallRng::seed_from_u64(1);
        let (mut arena, mut live) = (Arena::default(), Live::new());
        for _ in 0..4 {
            churn(&mut arena, &mut live, &mut random, 50_000, 20_000);
            check(&arena, &live);
        }
        assert!(
            arena.live_bytes() * 100 > arena.allocated_bytes() * 80,
            "{} of {}",
            arena.live_bytes(),
            arena.allocated_bytes()
        );
        for (handle, units) in live {
            arena.release(handle, units);
        }
        assert_eq!(arena.allocated_bytes(), 0);
    }

    #[test]
    fn a_page_that_is_emptied_gives_no_pieces_and_goes() {
        let mut random = SmallRng::seed_from_u64(2);
        let (mut arena, mut live) = (Arena::default(), Live::new());
        churn(&mut arena, &mut live, &mut random, 100_000, 50_000);
        let full = arena.allocated_bytes();
        while live.len() > 5_000 {
            let (handle, units) = live.swap_remove(random.random_range(0..live.len()));
            arena.release(handle, units);
        }
        let mut round = 0;
        while let Some(handle) = arena.next_to_move() {
            let place = live.iter().position(|(other, _)| *other == handle).unwrap();
            let (_, units) = live[place];
            let new = arena.allocate(units).unwrap();
            arena.copy(handle, new, units);
            arena.release(handle, units);
            live[place] = (new, units);
            // Life goes on beside it.
            churn(&mut arena, &mut live, &mut random, 1, 5_000);
            round += 1;
            if round % 500 == 0 {
                check(&arena, &live);
            }
        }
        check(&arena, &live);
        live.iter().for_each(|(handle, units)| assert_own(&arena, *handle, *units));
        assert!(arena.allocated_bytes() * 5 < full, "{} of {full}", arena.allocated_bytes());
        assert!(!arena.is_sparse());
    }
}
