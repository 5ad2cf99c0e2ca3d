//! The state and how a record changes it.
//!
//! `apply` is deterministic: it reads no clock, no randomness, no environment, no configuration and no limit. The same log
//! gives the same state, and the same [state hash](super::state_hash), wherever and whenever it is applied.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::{
    error::Reason,
    model::Refusal,
    pb::{
        self,
        storage::{Expire, LogRecord, Open, Settings, log_record::Command},
    },
    store::{Place, Store},
};

use super::{
    judge::{Change, KeyWrite, Plan, judge},
    waiters::Waiters,
    window::{Bounds, Remembered, Window},
};

/// The rules of this version of the program. A log says which rules hold from where.
pub const APPLY_VERSION: u32 = 1;

/// What a record did.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The record's revision, or of a replayed answer that of the first one.
    pub revision: u64,
    /// What it did to its key; internal records change no key of a caller's.
    pub result: Result<Change, Refusal>,
    /// The entry before, where it was asked for.
    pub previous: Option<pb::Entry>,
    /// The answer is a remembered one.
    pub replayed: bool,
}

/// The state besides the entries.
#[derive(Debug, Default)]
pub struct State {
    /// Index of the last applied record.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// Record time: never falls.
    pub time_ms: u64,
    /// Revision = index + offset.
    pub offset: u64,
    /// The rules in force.
    pub apply_version: u32,
    /// Remembered answers.
    pub window: Window,
}

impl State {
    /// Revision of the last applied record.
    pub fn revision(&self) -> u64 {
        self.index + self.offset
    }
}

/// Applies records in log order; the only one that writes to the store.
#[derive(Debug)]
pub struct Applier {
    store: Arc<Store>,
    waiters: Arc<Waiters>,
    published: Arc<AtomicU64>,
    state: State,
}

impl Applier {
    /// An applier over an empty store.
    pub fn new(store: Arc<Store>, waiters: Arc<Waiters>) -> Self {
        Self { store, waiters, published: Arc::default(), state: State::default() }
    }

    /// Revision of the last applied record, as readers see it. A record that changes a key sets it before it lets the
    /// key's shard go: so a reader that holds its shards' locks reads the very revision that they show.
    pub fn published(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.published)
    }

    /// The state besides the entries.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The store it writes to, to share with readers.
    pub fn shared_store(&self) -> Arc<Store> {
        Arc::clone(&self.store)
    }

    /// The store it writes to.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Applies one record.
    pub fn apply(&mut self, record: &LogRecord) -> Applied {
        let applied = self.apply_command(record);
        self.published.store(self.state.revision(), Ordering::Release);
        applied
    }

    fn apply_command(&mut self, record: &LogRecord) -> Applied {
        self.state.index = record.index;
        self.state.term = record.term;
        self.state.time_ms = self.state.time_ms.max(record.time_ms);
        if let Some(Command::Open(open)) = &record.command {
            self.open(open);
        }
        let revision = self.state.revision();
        let Some(command) = &record.command else {
            return done(revision);
        };
        match command {
            Command::Open(_) => done(revision),
            Command::Settings(settings) => {
                self.settings(settings);
                done(revision)
            }
            Command::Expire(expire) => {
                self.expire(expire);
                done(revision)
            }
            Command::Put(_) | Command::Delete(_) | Command::Increment(_) | Command::Touch(_) => {
                match KeyWrite::of(command) {
                    Some(write) => self.write_once(record, write, revision),
                    None => done(revision),
                }
            }
        }
    }

    fn open(&mut self, open: &Open) {
        self.state.offset = self.state.offset.max(open.offset);
        self.state.apply_version = open.apply_version;
    }

    fn settings(&mut self, settings: &Settings) {
        let bounds = Bounds {
            window_ms: settings.request_window_ms,
            ids: settings.request_window_ids,
            bytes: settings.request_window_bytes,
        };
        self.state.window.set_bounds(bounds, self.state.time_ms);
    }

    fn expire(&mut self, expire: &Expire) {
        for expired in &expire.keys {
            let removed = self.store.write(&expired.key, |place| {
                let due = place.entry().is_some_and(|entry| {
                    entry.metadata.revision == expired.revision && entry.metadata.expired_at(self.state.time_ms)
                });
                due && place.remove()
            });
            if removed {
                self.waiters.changed(&expired.key);
            }
        }
    }

    /// Writes a key, unless the request id says that it was written before.
    fn write_once(&mut self, record: &LogRecord, write: KeyWrite<'_>, revision: u64) -> Applied {
        if record.request_id.is_empty() {
            return self.write(write, revision);
        }
        self.state.window.forget(self.state.time_ms);
        if let Some(first) = self.state.window.find(&record.request_id) {
            let same = first.fingerprint[..] == record.fingerprint[..];
            let result = if same { first.result } else { Err(Refusal::new(Reason::RequestIdReused, None)) };
            return Applied {
                revision: if same { first.revision } else { revision },
                result,
                previous: None,
                replayed: same,
            };
        }
        let applied = self.write(write, revision);
        let mut fingerprint = [0; 16];
        for (to, from) in fingerprint.iter_mut().zip(&record.fingerprint) {
            *to = *from;
        }
        let remembered = Remembered { fingerprint, revision, result: applied.result };
        self.state.window.remember(&record.request_id, self.state.time_ms, remembered);
        applied
    }

    fn write(&mut self, write: KeyWrite<'_>, revision: u64) -> Applied {
        let time_ms = self.state.time_ms;
        let applied = self.store.write(write.key(), |place| {
            let entry = place.entry().filter(|entry| !entry.metadata.expired_at(time_ms));
            let judged = judge(write, entry.as_ref(), time_ms, revision);
            // A refused write shows nothing.
            let previous = match (&entry, &judged) {
                (Some(entry), Ok(_)) if write.return_previous() => Some(entry.to_pb(true)),
                _ => None,
            };
            let result = judged.and_then(|(change, plan)| carry_out(place, plan).map(|()| change));
            self.published.store(revision, Ordering::Release);
            Applied { revision, result, previous, replayed: false }
        });
        if applied.result.is_ok() {
            self.waiters.changed(write.key());
        }
        applied
    }
}

fn done(revision: u64) -> Applied {
    Applied { revision, result: Ok(Change::default()), previous: None, replayed: false }
}

fn carry_out(place: &mut Place<'_>, plan: Plan) -> Result<(), Refusal> {
    match plan {
        Plan::Put { value, content_type, metadata } => {
            let content_type = match content_type {
                Some(content_type) => content_type,
                None => place.entry().map(|entry| entry.content_type.to_owned()).unwrap_or_default(),
            };
            place
                .put(&value, &content_type, metadata)
                .map_err(|error| Refusal { reason: error.reason, current_revision: 0 })
        }
        Plan::Touch(metadata) => {
            place.touch(metadata);
            Ok(())
        }
        Plan::Remove => {
            place.remove();
            Ok(())
        }
    }
}
