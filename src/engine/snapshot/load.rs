//! Loads a snapshot into an empty store, by as many threads as there are cores, and checks that it is what was written.
//!
//! Each entry is read, hashed and put into its shard at one go, while the processor's nearest cache holds it.

use std::{
    num::NonZero,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use prost::Message as _;

use super::{
    answers,
    history::{self, Kept},
};
use crate::{
    disk::{
        Progress, RecoveryError, RecoveryErrorKind,
        snapshot::{Frame, Frames, HEADER_AT, Kind, Reader},
    },
    engine::{
        apply::{APPLY_VERSION, Marks, State},
        state_hash::StateHash,
        window::{Bounds, Remembered, Window},
    },
    model::wire,
    pb::{
        self,
        storage::{SnapshotAnswers, SnapshotHeader, SnapshotHistory},
    },
    store::{Loaded, Loader, Store},
};

/// Each thread leaves a page of every shard filled in part, 2 MiB in all: one that reads less is not worth them.
const THREAD_BYTES_MIN: u64 = 64 << 20;

/// What a snapshot holds.
#[derive(Debug)]
pub struct Restored {
    /// The entries.
    pub store: Arc<Store>,
    /// The state besides them.
    pub state: State,
    /// The watch history.
    pub history: Kept,
}

/// Reads a snapshot whole.
pub fn load(snapshot: &Reader, progress: &Progress) -> Result<Restored, RecoveryError> {
    let marks = marks_of(snapshot)?;
    let store = Arc::new(Store::new());
    let most = usize::try_from(snapshot.bytes() / THREAD_BYTES_MIN).unwrap_or(usize::MAX) + 1;
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(most);
    let all = All {
        snapshot,
        frames: snapshot.frames(),
        progress,
        store: &store,
        loaded: Loaded::default(),
        // Whatever the footer says: no entry is shorter than eight bytes.
        entries_of_thread: snapshot.footer().entries.min(snapshot.bytes() / 8) as usize / threads,
        failed: AtomicBool::new(false),
        error: Mutex::new(None),
        hash: Mutex::default(),
        answers: Mutex::default(),
        events: Mutex::default(),
    };
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(|| all.read()))));
    let All { frames, loaded, error, hash, answers, events, .. } = all;
    if let Some(error) = error.into_inner() {
        return Err(error);
    }
    frames.finish()?;
    let end = snapshot.footer().frames_end;
    if !order(&loaded, &store, threads) || store.totals().keys != snapshot.footer().entries {
        return Err(snapshot.damaged(end, "a key is there twice"));
    }
    let mut hash = hash.into_inner();
    let window = window_of(&marks, answers.into_inner(), &mut hash)
        .ok_or_else(|| snapshot.damaged(end, "a request id is there twice"))?;
    hash.rest(&marks);
    if hash.sum().to_be_bytes()[..] != snapshot.footer().state_hash[..] {
        return Err(snapshot.damaged(end, "the state does not have the hash that the footer says"));
    }
    let history = history_of(snapshot, events.into_inner())
        .ok_or_else(|| snapshot.damaged(end, "the events of the watch history are out of order"))?;
    Ok(Restored { store, state: marks.with(window), history })
}

pub(super) fn marks_of(snapshot: &Reader) -> Result<Marks, RecoveryError> {
    let SnapshotHeader { last, time_ms, offset, apply_version, settings, .. } = snapshot.header();
    let (Some(last), Some(settings)) = (last, settings) else {
        return Err(snapshot.damaged(HEADER_AT, "the header lacks the last record or the settings"));
    };
    if *apply_version > APPLY_VERSION {
        let reason = format!("apply version {apply_version} is newer than this program's {APPLY_VERSION}");
        return Err(RecoveryError::new(RecoveryErrorKind::Future, snapshot.path(), Some(HEADER_AT), reason));
    }
    let bounds = Bounds {
        window_ms: settings.request_window_ms,
        ids: settings.request_window_ids,
        bytes: settings.request_window_bytes,
    };
    Ok(Marks {
        index: last.index,
        term: last.term,
        time_ms: *time_ms,
        offset: *offset,
        apply_version: *apply_version,
        bounds,
    })
}

fn order(loaded: &Loaded, store: &Store, threads: usize) -> bool {
    let (next, unique) = (AtomicUsize::new(0), AtomicBool::new(true));
    let work = || {
        loop {
            let shard = next.fetch_add(1, Ordering::Relaxed);
            if shard >= loaded.shards() {
                return;
            }
            if !loaded.order(store, shard) {
                unique.store(false, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    unique.into_inner()
}

/// What frames of one kind hold, with their numbers.
type ByFrame<T> = Vec<(u64, Vec<T>)>;
/// A remembered answer with its id and time.
pub(super) type Answer = (String, u64, Remembered);

fn in_order<T>(mut by_frame: ByFrame<T>) -> impl Iterator<Item = T> {
    by_frame.sort_by_key(|(number, _)| *number);
    by_frame.into_iter().flat_map(|(_, items)| items)
}

fn history_of(snapshot: &Reader, events: ByFrame<pb::Event>) -> Option<Kept> {
    let records = history::of_events(in_order(events))?.into_iter().map(Arc::new).collect();
    Some(Kept { after_revision: snapshot.header().history_after_revision, records })
}

fn window_of(marks: &Marks, answers: ByFrame<Answer>, hash: &mut StateHash) -> Option<Window> {
    let answers = in_order(answers);
    Window::restore(
        marks.bounds,
        answers.inspect(|(id, answered_ms, remembered)| hash.answer(id, *answered_ms, remembered)),
    )
}

/// What the threads share.
struct All<'load> {
    snapshot: &'load Reader,
    frames: Frames<'load>,
    progress: &'load Progress,
    store: &'load Store,
    loaded: Loaded,
    entries_of_thread: usize,
    /// Somebody met an error: the others may stop.
    failed: AtomicBool,
    /// The error that is nearest to the beginning: those behind it may follow from it.
    error: Mutex<Option<RecoveryError>>,
    hash: Mutex<StateHash>,
    answers: Mutex<ByFrame<Answer>>,
    events: Mutex<ByFrame<pb::Event>>,
}

impl All<'_> {
    fn read(&self) {
        let mut loader = Loader::new(self.store, self.entries_of_thread);
        let mut hash = StateHash::default();
        let mut buffer = Vec::new();
        loop {
            match self.read_next(&mut loader, &mut hash, &mut buffer) {
                Ok(true) if !self.failed.load(Ordering::Relaxed) => {}
                Ok(_) => break,
                Err(error) => {
                    self.failed.store(true, Ordering::Relaxed);
                    let mut first = self.error.lock();
                    if first.as_ref().is_none_or(|first| error.offset < first.offset) {
                        *first = Some(error);
                    }
                    break;
                }
            }
        }
        loader.finish(&self.loaded);
        self.hash.lock().add(hash.sum());
    }

    /// Reads the next frame; false if there is none.
    fn read_next(
        &self,
        loader: &mut Loader<'_>,
        hash: &mut StateHash,
        buffer: &mut Vec<u8>,
    ) -> Result<bool, RecoveryError> {
        let Some(frame) = self.frames.next(buffer)? else { return Ok(false) };
        let nonsense = || self.snapshot.damaged(frame.offset, "a frame does not hold what it says");
        match frame.kind {
            Kind::Answers => {
                let answers = answers_of(&frame).ok_or_else(nonsense)?;
                self.answers.lock().push((frame.number, answers));
            }
            Kind::History => {
                let events = SnapshotHistory::decode(frame.payload).map_err(|_| nonsense())?.events;
                if events.len() != frame.items as usize {
                    return Err(nonsense());
                }
                self.events.lock().push((frame.number, events));
            }
            Kind::Entries | Kind::Header | Kind::Footer | Kind::Reserved(_) => {
                let mut count = 0;
                for entry in wire::list(frame.payload) {
                    let entry = entry.ok_or_else(nonsense)?;
                    hash.entry(&entry);
                    loader.add(&entry).map_err(|error| self.snapshot.damaged(frame.offset, &error.to_string()))?;
                    count += 1;
                }
                if count != frame.items {
                    return Err(nonsense());
                }
            }
        }
        self.progress.advance(frame.payload.len() as u64);
        Ok(true)
    }
}

pub(super) fn answers_of(frame: &Frame<'_>) -> Option<Vec<Answer>> {
    let answers = SnapshotAnswers::decode(frame.payload).ok()?.answers;
    if answers.len() != frame.items as usize {
        return None;
    }
    answers.into_iter().map(answers::of_pb).collect()
}
