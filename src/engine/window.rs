//! The retry window: what became of the last writes that bore a request id. Part of the state, rebuilt by replay.
//!
//! Bounded by record time, count and bytes, whichever is first. The map is split in many small ones and the order is
//! kept in chunks, so that no insertion ever moves more than a few kilobytes.

use std::{
    collections::{HashMap, VecDeque},
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

/// The remembered answers.
#[derive(Debug)]
pub struct Window {
    maps: Vec<HashMap<Arc<str>, Remembered>>,
    order: VecDeque<VecDeque<(Arc<str>, u64)>>,
    bounds: Bounds,
    ids: u64,
    bytes: u64,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            maps: (0..MAPS).map(|_| HashMap::new()).collect(),
            order: VecDeque::new(),
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
        self.maps[map_of(id)].get(id)
    }

    /// Remembers an answer given at `time_ms`. The id is not in the window yet.
    pub fn remember(&mut self, id: &str, time_ms: u64, remembered: Remembered) {
        let id: Arc<str> = id.into();
        self.ids += 1;
        self.bytes += cost_bytes(&id, &remembered.effect);
        self.maps[map_of(&id)].insert(Arc::clone(&id), remembered);
        match self.order.back_mut() {
            Some(chunk) if chunk.len() < CHUNK_IDS => chunk.push_back((id, time_ms)),
            _ => {
                let mut chunk = VecDeque::with_capacity(CHUNK_IDS);
                chunk.push_back((id, time_ms));
                self.order.push_back(chunk);
            }
        }
        self.forget(time_ms);
    }

    /// Forgets what is out of bounds at `time_ms`. Also called by every record that looks an id up, so that a quiet
    /// store forgets in record time too.
    pub fn forget(&mut self, time_ms: u64) {
        while let Some(chunk) = self.order.front_mut() {
            let Some((id, answered_ms)) = chunk.front() else {
                self.order.pop_front();
                continue;
            };
            let within = answered_ms.saturating_add(self.bounds.window_ms) > time_ms
                && self.ids <= self.bounds.ids
                && self.bytes <= self.bounds.bytes;
            if within {
                return;
            }
            self.ids -= 1;
            if let Some(forgotten) = self.maps[map_of(id)].remove(id) {
                self.bytes -= cost_bytes(id, &forgotten.effect);
            }
            chunk.pop_front();
        }
    }

    /// How far back the window reaches at `time_ms`: its full length while nothing had to go early.
    pub fn reach_ms(&self, time_ms: u64) -> u64 {
        let full = self.ids >= self.bounds.ids || self.bytes.saturating_add(1_024) >= self.bounds.bytes;
        let oldest = self.order.front().and_then(VecDeque::front).map(|(_, answered_ms)| *answered_ms);
        match oldest {
            Some(oldest_ms) if full => time_ms.saturating_sub(oldest_ms).min(self.bounds.window_ms),
            _ => self.bounds.window_ms,
        }
    }

    /// Every remembered answer, in the order they were given.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64, &Remembered)> {
        self.order.iter().flatten().filter_map(|(id, answered_ms)| {
            let remembered = self.find(id)?;
            Some((&**id, *answered_ms, remembered))
        })
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
