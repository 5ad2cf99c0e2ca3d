//! The state: records applied to it, and reads of it.

use std::hint::black_box;

use bytes::Bytes;
use tandem::{
    engine::{Step, apply::Applier},
    pb::{
        self, expiry,
        storage::{Expire, ExpiredKey, LogRecord, log_record::Command},
    },
    store::Store,
};

use super::{Path, VALUE, key, numbers};

const KEYS: u64 = 10_000;
const SCANNED: usize = 100;
const DUE_MAX: usize = 256;

/// A state, and the index of its last record.
#[derive(Default)]
struct State {
    applier: Applier,
    index: u64,
}

impl State {
    fn of(keys: u64) -> Self {
        let mut state = Self::default();
        for number in 0..keys {
            state.apply(put(key(number)));
        }
        state
    }

    fn apply(&mut self, command: Command) {
        self.index += 1;
        let time_ms = 1_800_000_000_000 + self.index;
        let record = LogRecord { index: self.index, term: 1, time_ms, command: Some(command), ..Default::default() };
        black_box(self.applier.apply(&record));
    }
}

fn put(key: Bytes) -> Command {
    Command::Put(pb::PutRequest { key, value: Bytes::from_static(&VALUE), ..Default::default() })
}

pub fn apply_put() -> Path {
    let (mut state, mut next) = (State::of(KEYS), numbers(KEYS));
    Box::new(move || state.apply(put(key(next()))))
}

/// A key that is to live for a millisecond: it is written, found due and removed, as the expirer does it.
pub fn expire() -> Path {
    let mut state = State::of(KEYS);
    let ttl = prost_types::Duration { seconds: 0, nanos: 1_000_000 };
    let expiry = Some(pb::Expiry { kind: Some(expiry::Kind::Ttl(ttl)) });
    Box::new(move || {
        let key = Bytes::from_static(b"soon gone, as thirty-two bytes..");
        let value = Bytes::from_static(&VALUE);
        state.apply(Command::Put(pb::PutRequest { key, value, expiry, ..Default::default() }));
        let due = state.applier.store().due(u64::MAX, DUE_MAX);
        let keys: Vec<_> = due.into_iter().map(|(key, revision)| ExpiredKey { key, revision }).collect();
        assert_eq!(keys.len(), 1);
        state.apply(Command::Expire(Expire { keys }));
    })
}

fn store(keys: u64) -> std::sync::Arc<Store> {
    State::of(keys).applier.shared_store()
}

pub fn get(keys: u64) -> Path {
    let (store, mut next) = (store(keys), numbers(keys));
    Box::new(move || {
        let key = key(next());
        black_box(store.read(&key, |entry| entry.unwrap().to_pb(true)));
    })
}

pub fn scan() -> Path {
    let (store, mut next) = (store(KEYS), numbers(KEYS));
    Box::new(move || {
        let mut left = SCANNED;
        let visit = |entry: tandem::model::EntryRef<'_>| {
            black_box(entry.to_pb(true));
            left -= 1;
            if left == 0 { Step::Stop } else { Step::Next }
        };
        store.walk(&key(next()), None, false, || (), visit);
    })
}
