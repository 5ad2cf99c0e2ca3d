//! The state and how a record changes it.
//!
//! `apply` is deterministic: it reads no clock, no randomness, no environment, no configuration and no limit. The same log
//! gives the same state, and the same [state hash](super::state_hash), wherever and whenever it is applied.

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;

use crate::{
    error::Reason,
    limits::{Limits, OFFSET_STEP_RESTORE},
    model::{Conditions, EntryRef, KeySpan, Refusal},
    pb::{
        self, EventKind,
        storage::{Evict, Expire, LogRecord, Open, Settings, log_record::Command},
    },
    store::{INSIDE_BYTES_MAX, Place, Places, Store},
};

use super::{
    judge::{self, Effect, Judgement, KeyWrite, Plan, judge},
    snapshot::{Kept, Restored},
    waiters::Waiters,
    watch::{
        changes::{Change, Changes, Draft},
        hub::Hub,
    },
    window::{Bounds, Remembered, Window},
};

/// The rules of this version of the program. A log says which rules hold from where.
pub const APPLY_VERSION: u32 = 1;

/// What a record did.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The record's revision, or of a replayed answer that of the first one.
    pub revision: u64,
    /// What it did.
    pub effect: Effect,
    /// Of each operation the entry before or the entry read, where it was asked for. Empty where no operation ran, and where
    /// one operation alone has nothing to show.
    pub seen: Vec<Option<pb::Entry>>,
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

    /// The state besides entries and answers.
    pub fn marks(&self) -> Marks {
        Marks {
            index: self.index,
            term: self.term,
            time_ms: self.time_ms,
            offset: self.offset,
            apply_version: self.apply_version,
            bounds: self.window.bounds(),
        }
    }
}

/// The small numbers of a [`State`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Index of the last applied record.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// Record time.
    pub time_ms: u64,
    /// Revision = index + offset.
    pub offset: u64,
    /// The rules in force.
    pub apply_version: u32,
    /// Bounds of the retry window.
    pub bounds: Bounds,
}

impl Marks {
    /// The state with these marks and this window.
    pub fn with(self, window: Window) -> State {
        let Self { index, term, time_ms, offset, apply_version, bounds: _ } = self;
        State { index, term, time_ms, offset, apply_version, window }
    }
}

/// Applies records in log order; the only one that writes to the store.
#[derive(Debug)]
pub struct Applier {
    store: Arc<Store>,
    waiters: Arc<Waiters>,
    hub: Arc<Hub>,
    published: Arc<AtomicU64>,
    state: State,
    /// What the record at hand has changed so far.
    changed: Vec<Change>,
}

impl Default for Applier {
    /// An applier over an empty store that nobody waits for or watches.
    fn default() -> Self {
        Self::new(Arc::default(), Arc::new(Waiters::new(0)), Arc::new(Hub::new(&Limits::default())))
    }
}

impl Applier {
    /// An applier over an empty store.
    pub fn new(store: Arc<Store>, waiters: Arc<Waiters>, hub: Arc<Hub>) -> Self {
        Self::over(Restored { store, state: State::default(), history: Kept::default() }, waiters, hub)
    }

    /// An applier over what a snapshot holds.
    pub fn over(restored: Restored, waiters: Arc<Waiters>, hub: Arc<Hub>) -> Self {
        let Restored { store, state, history } = restored;
        let published = Arc::new(AtomicU64::new(state.revision()));
        hub.begin_with(history.after_revision, history.records, state.revision());
        Self { store, waiters, hub, published, state, changed: Vec::new() }
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
        let revision = self.state.revision();
        self.published.store(revision, Ordering::Release);
        for change in &self.changed {
            self.waiters.changed(change.key());
        }
        self.hub.add(revision, Changes::take(revision, &mut self.changed));
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
            Command::DeleteRange(request) => self.delete_range(request, revision),
            Command::Settings(settings) => {
                self.settings(settings);
                done(revision)
            }
            Command::Expire(expire) => {
                self.expire(expire, revision);
                done(revision)
            }
            Command::Evict(evict) => self.evict(evict, revision),
            Command::Put(_) | Command::Delete(_) | Command::Increment(_) | Command::Touch(_) => {
                match KeyWrite::of(command) {
                    Some(write) => self.once(record, revision, |applier| applier.write(write, revision)),
                    None => done(revision),
                }
            }
            Command::BatchWrite(batch) => self.once(record, revision, |applier| applier.batch(batch, revision)),
            Command::Txn(txn) => self.once(record, revision, |applier| applier.txn(txn, revision)),
        }
    }

    fn open(&mut self, open: &Open) {
        if open.offset >= self.state.offset + OFFSET_STEP_RESTORE {
            // Revisions of before may name changes that the restored state never saw.
            self.hub.begin_with(self.state.index + open.offset, Vec::new(), self.state.index + open.offset);
        }
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

    fn expire(&mut self, expire: &Expire, revision: u64) {
        for expired in &expire.keys {
            self.store.write(&expired.key, |place| {
                let due = place.entry().is_some_and(|entry| {
                    entry.metadata.revision == expired.revision && entry.metadata.expired_at(self.state.time_ms)
                });
                if due {
                    // No reader sees the entry gone at an earlier revision.
                    self.published.store(revision, Ordering::Release);
                    remove(place, EventKind::Expire, &mut self.changed);
                }
            });
        }
    }

    fn evict(&mut self, evict: &Evict, revision: u64) -> Applied {
        let mut deleted = 0;
        for evicted in &evict.keys {
            self.store.write(&evicted.key, |place| {
                if place.entry().is_some_and(|entry| entry.metadata.revision == evicted.revision) {
                    // No reader sees the entry gone at an earlier revision.
                    self.published.store(revision, Ordering::Release);
                    deleted += 1;
                    remove(place, EventKind::Evict, &mut self.changed);
                }
            });
        }
        Applied { revision, effect: Effect::Range { deleted, next: None }, seen: Vec::new(), replayed: false }
    }

    /// The first keys of a range, all under one lock.
    fn delete_range(&mut self, request: &pb::DeleteRangeRequest, revision: u64) -> Applied {
        // A range that means nothing is refused before it is logged.
        let Ok(span) = KeySpan::from_pb(request.range.as_ref()) else { return done(revision) };
        let limit = usize::try_from(request.max_keys).unwrap_or(usize::MAX);
        let mut deleted = 0;
        let next = self.store.write_first(&span.start, span.end.as_deref(), limit, |place| {
            self.published.store(revision, Ordering::Release);
            let expired = place.entry().is_some_and(|entry| entry.metadata.expired_at(self.state.time_ms));
            deleted += u64::from(!expired);
            remove(place, if expired { EventKind::Expire } else { EventKind::Delete }, &mut self.changed);
        });
        Applied { revision, effect: Effect::Range { deleted, next }, seen: Vec::new(), replayed: false }
    }

    /// Does it, unless the request id says that it was done before.
    fn once(&mut self, record: &LogRecord, revision: u64, run: impl FnOnce(&mut Self) -> Applied) -> Applied {
        if record.request_id.is_empty() {
            return run(self);
        }
        self.state.window.forget(self.state.time_ms);
        if let Some(first) = self.state.window.find(&record.request_id) {
            let same = first.fingerprint[..] == record.fingerprint[..];
            let reused = Effect::One(Err(Refusal::new(Reason::RequestIdReused, None)));
            return Applied {
                revision: if same { first.revision } else { revision },
                effect: if same { first.effect.clone() } else { reused },
                seen: Vec::new(),
                replayed: same,
            };
        }
        let applied = run(self);
        let mut fingerprint = [0; 16];
        for (to, from) in fingerprint.iter_mut().zip(&record.fingerprint) {
            *to = *from;
        }
        let remembered = Remembered { fingerprint, revision, effect: applied.effect.clone() };
        self.state.window.remember(&record.request_id, self.state.time_ms, remembered);
        applied
    }

    fn write(&mut self, write: KeyWrite<'_>, revision: u64) -> Applied {
        let time_ms = self.state.time_ms;
        let (judgement, previous) = self.store.write(write.key(), |place| {
            let done = judge_and_carry_out(place, write, time_ms, revision, &mut self.changed);
            self.published.store(revision, Ordering::Release);
            done
        });
        Applied {
            revision,
            effect: Effect::One(judgement),
            seen: previous.map(Some).into_iter().collect(),
            replayed: false,
        }
    }

    /// Each write on its own, under one lock.
    fn batch(&mut self, batch: &pb::BatchWriteRequest, revision: u64) -> Applied {
        let time_ms = self.state.time_ms;
        // An operation without content is refused before it is logged.
        let writes: Vec<_> = batch.writes.iter().filter_map(KeyWrite::of_op).collect();
        let keys: Vec<_> = writes.iter().map(|write| write.key()).collect();
        let mut seen = Vec::with_capacity(writes.len());
        let mut items = Vec::with_capacity(writes.len());
        self.store.write_many(&keys, |places| {
            for (number, write) in writes.iter().enumerate() {
                let done = places.at(number, write.key(), |place| {
                    judge_and_carry_out(place, *write, time_ms, revision, &mut self.changed)
                });
                let (judgement, previous) = done.unwrap_or((Ok(judge::Change::default()), None));
                items.push(judgement);
                seen.push(previous);
            }
            self.published.store(revision, Ordering::Release);
        });
        Applied { revision, effect: Effect::Batch(items.into()), seen, replayed: false }
    }

    /// Guards, reads and writes are judged against the state before; then everything is carried out, or nothing.
    fn txn(&mut self, txn: &pb::TxnRequest, revision: u64) -> Applied {
        let time_ms = self.state.time_ms;
        let guards = txn.guards.iter().map(|guard| &guard.key);
        let keys: Vec<_> = guards.chain(txn.then.iter().chain(&txn.otherwise).filter_map(key_of)).collect();
        let (effect, seen) = self.store.write_many(&keys, |places| {
            let mut succeeded = true;
            for (number, guard) in txn.guards.iter().enumerate() {
                let holds = places.at(number, &guard.key, |place| {
                    let entry = place.entry().filter(|entry| !entry.metadata.expired_at(time_ms));
                    Conditions::from_pb(&guard.conditions).is_ok_and(|all| all.check(entry.as_ref()).is_ok())
                });
                succeeded &= holds.unwrap_or(false);
            }
            let (branch, first) = match succeeded {
                true => (&txn.then, txn.guards.len()),
                false => (&txn.otherwise, txn.guards.len() + txn.then.len()),
            };
            let done = carry_out_branch(places, branch, first, time_ms, revision, &mut self.changed);
            self.published.store(revision, Ordering::Release);
            match done {
                Ok((changes, seen)) => (Effect::Txn { succeeded, result: Ok(changes.into()) }, seen),
                Err(aborted) => (Effect::Txn { succeeded, result: Err(aborted) }, Vec::new()),
            }
        });
        Applied { revision, effect, seen, replayed: false }
    }
}

/// The key of an operation. Operations without content are refused before they are logged.
fn key_of(op: &pb::TxnOp) -> Option<&Bytes> {
    match op.op.as_ref()? {
        pb::txn_op::Op::Get(get) => Some(&get.key),
        pb::txn_op::Op::Write(write) => KeyWrite::of_op(write).map(KeyWrite::key),
    }
}

/// What a branch did: of each operation the change, and the entry before or read.
type Branch = (Vec<Option<judge::Change>>, Vec<Option<pb::Entry>>);

/// Judges all operations, then carries all out. The keys of `branch` have the numbers from `first` on.
fn carry_out_branch(
    places: &mut Places<'_>,
    branch: &[pb::TxnOp],
    first: usize,
    time_ms: u64,
    revision: u64,
    changed: &mut Vec<Change>,
) -> Result<Branch, (usize, Refusal)> {
    let mut changes = Vec::with_capacity(branch.len());
    let mut seen = Vec::with_capacity(branch.len());
    let mut plans = Vec::with_capacity(branch.len());
    for (number, op) in branch.iter().enumerate() {
        let Some(key) = key_of(op) else { continue };
        let judged = places.at(first + number, key, |place| {
            let entry = place.entry().filter(|entry| !entry.metadata.expired_at(time_ms));
            match KeyWrite::of_txn_op(op) {
                None => Ok((None, entry.map(|entry| entry.to_pb(KeyWrite::reads_value(op))), None)),
                Some(write) => {
                    let (change, plan) = judge(write, entry.as_ref(), time_ms, revision)?;
                    let previous = entry.filter(|_| write.return_previous()).map(|entry| entry.to_pb(true));
                    Ok((Some(change), previous, Some(plan)))
                }
            }
        });
        let Some(judged) = judged else { continue };
        let (change, entry, plan) = judged.map_err(|refusal| (number, refusal))?;
        changes.push(change);
        seen.push(entry);
        plans.extend(plan.map(|plan| (number, key, plan)));
    }
    for (number, key, plan) in plans {
        // All that judging can refuse was judged; what is left is the address space of a shard.
        if let Some(Err(refusal)) = places.at(first + number, key, |place| carry_out(place, plan, time_ms, changed)) {
            return Err((number, refusal));
        }
    }
    Ok((changes, seen))
}

fn judge_and_carry_out(
    place: &mut Place<'_>,
    write: KeyWrite<'_>,
    time_ms: u64,
    revision: u64,
    changed: &mut Vec<Change>,
) -> (Judgement, Option<pb::Entry>) {
    let entry = place.entry().filter(|entry| !entry.metadata.expired_at(time_ms));
    let judged = judge(write, entry.as_ref(), time_ms, revision);
    // A refused write shows nothing.
    let previous = match (&entry, &judged) {
        (Some(entry), Ok(_)) if write.return_previous() => Some(entry.to_pb(true)),
        _ => None,
    };
    (judged.and_then(|(change, plan)| carry_out(place, plan, time_ms, changed).map(|()| change)), previous)
}

fn done(revision: u64) -> Applied {
    Applied { revision, effect: Effect::One(Ok(judge::Change::default())), seen: Vec::new(), replayed: false }
}

/// Carries a plan out and notes what it changed.
fn carry_out(place: &mut Place<'_>, plan: Plan<'_>, time_ms: u64, changed: &mut Vec<Change>) -> Result<(), Refusal> {
    match plan {
        Plan::Put { value, content_type, metadata } => {
            let before = place.entry();
            let content_type = match content_type {
                Some(content_type) => Cow::Borrowed(content_type),
                None => before.map(|entry| entry.content_type.to_owned()).unwrap_or_default().into(),
            };
            // Judging saw no expired entry: for watchers it goes first.
            let expired = before.filter(|entry| entry.metadata.expired_at(time_ms));
            let expiry = expired.map(|entry| Draft::new(place.key(), Some(&entry), 0));
            let alive = if expired.is_some() { None } else { before };
            // A larger value is shared with the store.
            let value_bytes = if value.len() <= INSIDE_BYTES_MAX { value.len() } else { 0 };
            let draft = Draft::new(place.key(), alive.as_ref(), content_type.len() + value_bytes);
            place
                .put(&value, &content_type, metadata)
                .map_err(|error| Refusal { reason: error.reason, current_revision: 0 })?;
            changed.extend(expiry.map(|draft| draft.done(EventKind::Expire, None)));
            changed.push(draft.done(EventKind::Put, place.entry().as_ref()));
        }
        Plan::Touch(metadata) => {
            let before = place.entry();
            let draft = Draft::new(place.key(), before.as_ref(), before.as_ref().map_or(0, EntryRef::inline_bytes));
            place.touch(metadata);
            changed.push(draft.done(EventKind::Touch, place.entry().as_ref()));
        }
        Plan::Remove => remove(place, EventKind::Delete, changed),
    }
    Ok(())
}

/// Removes an entry and notes why.
fn remove(place: &mut Place<'_>, kind: EventKind, changed: &mut Vec<Change>) {
    let draft = Draft::new(place.key(), place.entry().as_ref(), 0);
    if place.remove() {
        changed.push(draft.done(kind, None));
    }
}
