//! The retry window: what became of the last writes that bore a request id. Part of the state, rebuilt by replay.
//!
//! Bounded by record time, count and bytes, whichever is first. The map is split in many small ones and the order is
//! kept in chunks, so that no insertion ever moves more than a few kilobytes. A full chunk never changes: a snapshot shares
//! the chunks instead of copying a million answers.

use std::{
    borrow::Borrow,
    collections::{HashSet, VecDeque},
    hash::{Hash, Hasher},
    sync::Arc,
};

use twox_hash::XxHash3_64;

use super::judge::Effect;

/// Maps that the ids are spread over.
const MAPS: usize = 256;
/// Ids in a chunk of the order.
const CHUNK_IDS: usize = 1_024;
/// Bytes that an id takes besides its text: map slot, order slot, the shared text's header.
const ID_OVERHEAD_BYTES: usize = 176;

/// Bounds of the window, set by a logged Settings record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// How long an answer is remembered, in record time.
    pub window_ms: u64,
    /// How many are remembered at most.
    pub ids: u64,
    /// How many bytes they may take at most.
    pub bytes: u64,
}

/// A remembered answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Fingerprint of the command.
    pub fingerprint: [u8; 16],
    /// Revision of the record that answered.
    pub revision: u64,
    /// What it did.
    pub effect: Effect,
}

/// An answer with its id and time: never changes.
#[derive(Debug)]
struct Answer {
    id: Box<str>,
    answered_ms: u64,
    remembered: Remembered,
}

/// An answer in a map, found by its id.
#[derive(Debug)]
struct ById(Arc<Answer>);

impl Borrow<str> for ById {
    fn borrow(&self) -> &str {
        &self.0.id
    }
}

impl Hash for ById {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id.hash(state);
    }
}

impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for ById {}

/// The remembered answers.
#[derive(Debug)]
pub struct Window {
    maps: Vec<HashSet<ById>>,
    /// The order in which they were given: full chunks, then one that fills.
    full: VecDeque<Arc<[Arc<Answer>]>>,
    filling: Vec<Arc<Answer>>,
    /// Answers at the beginning of the first chunk that are forgotten.
    forgotten: usize,
    bounds: Bounds,
    ids: u64,
    bytes: u64,
}

/// The answers at one moment, shared with the window.
#[derive(Debug)]
pub struct Answers {
    chunks: Vec<Arc<[Arc<Answer>]>>,
    forgotten: usize,
}

impl Answers {
    /// Every one, in the order they were given.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64, &Remembered)> {
        self.chunks.iter().flat_map(|chunk| chunk.iter()).skip(self.forgotten).map(|answer| answer.parts())
    }
}

impl Answer {
    fn parts(&self) -> (&str, u64, &Remembered) {
        (&self.id, self.answered_ms, &self.remembered)
    }
}

impl Default for Window {
    fn default() -> Self {
        Self {
            maps: (0..MAPS).map(|_| HashSet::new()).collect(),
            full: VecDeque::new(),
            filling: Vec::new(),
            forgotten: 0,
            bounds: Bounds::default(),
            ids: 0,
            bytes: 0,
        }
    }
}

fn map_of(id: &str) -> usize {
    usize::try_from(XxHash3_64::oneshot(id.as_bytes())).unwrap_or(0) % MAPS
}

/// Bytes of one operation's result among several.
const ITEM_BYTES: usize = 40;

fn cost_bytes(id: &str, effect: &Effect) -> u64 {
    let items = match effect {
        Effect::One(_) | Effect::Range { .. } => 0,
        Effect::Batch(items) => items.len(),
        Effect::Txn { result, .. } => result.as_ref().map_or(0, |items| items.len()),
    };
    (id.len() + ID_OVERHEAD_BYTES + items * ITEM_BYTES) as u64
}

impl Window {
    /// The bounds in force.
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Sets the bounds as of `time_ms`.
    pub fn set_bounds(&mut self, bounds: Bounds, time_ms: u64) {
        self.bounds = bounds;
        self.forget(time_ms);
    }

    /// What became of the write with this id.
    pub fn find(&self, id: &str) -> Option<&Remembered> {
        self.maps[map_of(id)].get(id).map(|found| &found.0.remembered)
    }

    /// Remembers an answer given at `time_ms`. The id is not in the window yet.
    pub fn remember(&mut self, id: &str, time_ms: u64, remembered: Remembered) {
        self.add(id, time_ms, remembered);
        self.forget(time_ms);
    }

    /// A window as it was, from its bounds and its answers in the order they were given. False if an id is there twice.
    pub fn restore(bounds: Bounds, answers: impl Iterator<Item = (String, u64, Remembered)>) -> Option<Self> {
        let mut window = Self { bounds, ..Self::default() };
        for (id, answered_ms, remembered) in answers {
            if window.find(&id).is_some() {
                return None;
            }
            window.add(&id, answered_ms, remembered);
        }
        Some(window)
    }

    fn add(&mut self, id: &str, answered_ms: u64, remembered: Remembered) {
        self.ids += 1;
        self.bytes += cost_bytes(id, &remembered.effect);
        let answer = Arc::new(Answer { id: id.into(), answered_ms, remembered });
        self.maps[map_of(id)].insert(ById(Arc::clone(&answer)));
        if self.filling.capacity() == 0 {
            self.filling.reserve_exact(CHUNK_IDS);
        }
        self.filling.push(answer);
        if self.filling.len() == CHUNK_IDS {
            self.full.push_back(self.filling.drain(..).collect());
        }
    }

    /// Forgets what is out of bounds at `time_ms`. Also called by every record that looks an id up, so that a quiet
    /// store forgets in record time too.
    pub fn forget(&mut self, time_ms: u64) {
        while let Some(oldest) = self.oldest() {
            let within = oldest.answered_ms.saturating_add(self.bounds.window_ms) > time_ms
                && self.ids <= self.bounds.ids
                && self.bytes <= self.bounds.bytes;
            if within {
                return;
            }
            let oldest = Arc::clone(oldest);
            self.ids -= 1;
            self.bytes -= cost_bytes(&oldest.id, &oldest.remembered.effect);
            self.maps[map_of(&oldest.id)].remove(&*oldest.id);
            self.forgotten += 1;
            match self.full.front() {
                Some(chunk) if self.forgotten < chunk.len() => {}
                Some(_) => {
                    self.full.pop_front();
                    self.forgotten = 0;
                }
                None if self.forgotten < self.filling.len() => {}
                None => {
                    self.filling.clear();
                    self.forgotten = 0;
                }
            }
        }
    }

    fn oldest(&self) -> Option<&Arc<Answer>> {
        match self.full.front() {
            Some(chunk) => chunk.get(self.forgotten),
            None => self.filling.get(self.forgotten),
        }
    }

    /// How far back the window reaches at `time_ms`: its full length while nothing had to go early.
    pub fn reach_ms(&self, time_ms: u64) -> u64 {
        let full = self.ids >= self.bounds.ids || self.bytes.saturating_add(1_024) >= self.bounds.bytes;
        match self.oldest() {
            Some(oldest) if full => time_ms.saturating_sub(oldest.answered_ms).min(self.bounds.window_ms),
            _ => self.bounds.window_ms,
        }
    }

    /// Every remembered answer, in the order they were given.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64, &Remembered)> {
        let chunks = self.full.iter().flat_map(|chunk| chunk.iter());
        chunks.chain(&self.filling).skip(self.forgotten).map(|answer| answer.parts())
    }

    /// The answers as they are now: takes one chunk's copying, however many there are.
    pub fn share(&self) -> Answers {
        let filling = Arc::from(self.filling.as_slice());
        Answers { chunks: self.full.iter().cloned().chain([filling]).collect(), forgotten: self.forgotten }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::judge::Change;

    fn remembered(revision: u64) -> Remembered {
        Remembered { fingerprint: [0; 16], revision, effect: Effect::One(Ok(Change::default())) }
    }

    fn window(bounds: Bounds) -> Window {
        let mut window = Window::default();
        window.set_bounds(bounds, 0);
        window
    }

    const WIDE: Bounds = Bounds { window_ms: 1_000, ids: 10_000, bytes: 1 << 30 };

    #[test]
    fn an_answer_is_remembered_for_the_window_and_no_longer() {
        let mut window = window(WIDE);
        window.remember("a", 100, remembered(1));
        window.forget(1_099);
        assert!(window.find("a").is_some());
        window.forget(1_100);
        assert!(window.find("a").is_none());
        assert_eq!((window.ids, window.bytes), (0, 0));
    }

    #[test]
    fn answers_that_were_shared_stay_as_they_were_and_make_the_same_window() {
        let mut window = window(Bounds { ids: 3_000, ..WIDE });
        (0..4_100).for_each(|revision| window.remember(&format!("id-{revision}"), revision / 50, remembered(revision)));
        let owned =
            |(id, answered_ms, remembered): (&str, u64, &Remembered)| (id.to_owned(), answered_ms, remembered.clone());
        let before: Vec<_> = window.iter().map(owned).collect();
        let shared = window.share();
        (4_100..9_000).for_each(|revision| window.remember(&format!("id-{revision}"), 90, remembered(revision)));
        assert!(shared.iter().map(owned).eq(before.iter().cloned()) && before.len() == 3_000);
        let mut restored = Window::restore(window.bounds(), shared.iter().map(owned)).unwrap();
        assert!(restored.iter().map(owned).eq(before.iter().cloned()));
        (4_100..9_000).for_each(|revision| restored.remember(&format!("id-{revision}"), 90, remembered(revision)));
        assert!(restored.iter().eq(window.iter()));
        assert_eq!((restored.ids, restored.bytes), (window.ids, window.bytes));
        let twice = before[..2].iter().chain(&before[..1]).cloned();
        assert!(Window::restore(WIDE, twice).is_none());
    }

    #[test]
    fn the_oldest_goes_first_when_there_are_too_many_or_too_large_ones() {
        let mut window = window(Bounds { ids: 3_000, ..WIDE });
        for revision in 0..5_000 {
            window.remember(&format!("id-{revision}"), revision / 50, remembered(revision));
        }
        assert_eq!(window.iter().count(), 3_000);
        assert!(window.find("id-1999").is_none());
        assert_eq!(window.find("id-2000").map(|found| found.revision), Some(2_000));
        assert!(window.reach_ms(100) < WIDE.window_ms);
        window.set_bounds(Bounds { bytes: 10 * cost_bytes("id-4999", &remembered(1).effect), ..WIDE }, 100);
        assert_eq!(window.iter().count(), 10);
    }
}
