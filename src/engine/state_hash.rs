//! One number for a whole state: equal for two stores that applied the same log.
//!
//! The sum, modulo 2^128, of XXH3-128 over each entry and over each remembered answer, plus that of the rest. A sum does
//! not depend on the order in which shards are walked. Layout that is hashed, little-endian, lengths as u64:
//!
//! ```text
//! entry       'E' key-length key value-length value type-length content-type
//!             revision create_revision version update_time_ms expire_time_ms+1 (0: never)
//! remembered  'W' id-length id answered_ms fingerprint revision kind, then
//!             kind 0, one: item · kind 1, batch: count items · kind 2, transaction: succeeded aborted_by+1 (0: not) count items
//! item        reason current_revision created version number (a read: all 0)
//! rest        'S' index term time_ms offset apply_version window_ms window_ids window_bytes
//! ```

use twox_hash::XxHash3_128;

use super::{
    apply::{Marks, State},
    judge::{Change, Effect, Judgement},
    window::Remembered,
};
use crate::{model::EntryRef, store::Store};

/// The state's hash.
pub fn state_hash(store: &Store, state: &State) -> u128 {
    let mut hash = StateHash::default();
    store.for_each(|entry| hash.entry(&entry));
    for (id, answered_ms, remembered) in state.window.iter() {
        hash.answer(id, answered_ms, remembered);
    }
    hash.rest(&state.marks());
    hash.sum()
}

/// A hash that is summed up part by part, in any order.
#[derive(Debug, Default)]
pub struct StateHash {
    sum: u128,
    /// What is hashed next: kept for its memory.
    bytes: Vec<u8>,
}

impl StateHash {
    /// Adds an entry.
    pub fn entry(&mut self, entry: &EntryRef<'_>) {
        lay_out_entry(&mut self.bytes, entry);
        self.add_bytes();
    }

    /// Adds a remembered answer.
    pub fn answer(&mut self, id: &str, answered_ms: u64, remembered: &Remembered) {
        lay_out_remembered(&mut self.bytes, id, answered_ms, remembered);
        self.add_bytes();
    }

    /// Adds what there is once.
    pub fn rest(&mut self, marks: &Marks) {
        lay_out_rest(&mut self.bytes, marks);
        self.add_bytes();
    }

    /// Adds what another one has summed up.
    pub fn add(&mut self, sum: u128) {
        self.sum = self.sum.wrapping_add(sum);
    }

    /// The sum of all that was added.
    pub fn sum(&self) -> u128 {
        self.sum
    }

    fn add_bytes(&mut self) {
        self.add(XxHash3_128::oneshot(&self.bytes));
        self.bytes.clear();
    }
}

fn number(bytes: &mut Vec<u8>, number: u64) {
    bytes.extend_from_slice(&number.to_le_bytes());
}

fn text(bytes: &mut Vec<u8>, text: &[u8]) {
    number(bytes, text.len() as u64);
    bytes.extend_from_slice(text);
}

fn lay_out_entry(bytes: &mut Vec<u8>, entry: &EntryRef<'_>) {
    bytes.push(b'E');
    text(bytes, entry.key);
    text(bytes, entry.value.as_slice());
    text(bytes, entry.content_type.as_bytes());
    let metadata = &entry.metadata;
    let fields = [
        metadata.revision,
        metadata.create_revision,
        metadata.version,
        metadata.update_time_ms,
        metadata.expire_time_ms.map_or(0, |deadline_ms| deadline_ms + 1),
    ];
    bytes.extend_from_slice(fields.map(u64::to_le_bytes).as_flattened());
}

fn lay_out_remembered(bytes: &mut Vec<u8>, id: &str, answered_ms: u64, remembered: &Remembered) {
    bytes.push(b'W');
    text(bytes, id.as_bytes());
    number(bytes, answered_ms);
    bytes.extend_from_slice(&remembered.fingerprint);
    number(bytes, remembered.revision);
    match &remembered.effect {
        // Never remembered.
        Effect::Range { .. } => {}
        Effect::One(judgement) => {
            number(bytes, 0);
            lay_out_item(bytes, *judgement);
        }
        Effect::Batch(items) => {
            number(bytes, 1);
            number(bytes, items.len() as u64);
            items.iter().for_each(|item| lay_out_item(bytes, *item));
        }
        Effect::Txn { succeeded, result } => {
            number(bytes, 2);
            number(bytes, u64::from(*succeeded));
            match result {
                Ok(items) => {
                    number(bytes, 0);
                    number(bytes, items.len() as u64);
                    items.iter().for_each(|item| lay_out_item(bytes, Ok(item.unwrap_or_default())));
                }
                Err((aborted_by, refusal)) => {
                    number(bytes, *aborted_by as u64 + 1);
                    number(bytes, 1);
                    lay_out_item(bytes, Err(*refusal));
                }
            }
        }
    }
}

fn lay_out_item(bytes: &mut Vec<u8>, judgement: Judgement) {
    let (refusal, change) = match judgement {
        Ok(change) => (None, change),
        Err(refusal) => (Some(refusal), Change::default()),
    };
    number(bytes, refusal.map_or(0, |refusal| refusal.reason as u64));
    number(bytes, refusal.map_or(0, |refusal| refusal.current_revision));
    number(bytes, u64::from(change.created));
    number(bytes, change.version);
    bytes.extend_from_slice(&change.number.to_le_bytes());
}

fn lay_out_rest(bytes: &mut Vec<u8>, marks: &Marks) {
    bytes.push(b'S');
    let bounds = marks.bounds;
    for field in [
        marks.index,
        marks.term,
        marks.time_ms,
        marks.offset,
        u64::from(marks.apply_version),
        bounds.window_ms,
        bounds.ids,
        bounds.bytes,
    ] {
        number(bytes, field);
    }
}
