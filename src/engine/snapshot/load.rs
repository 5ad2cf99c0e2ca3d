//! Loads a snapshot into an empty store, by as many threads as there are cores, and checks that it is what was written.

use std::{
    num::NonZero,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use prost::Message as _;

use super::answers;
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
    model::{EntryRef, wire},
    pb::storage::{SnapshotAnswers, SnapshotHeader},
    store::{Loaded, Loader, Store},
};

/// The store and the state that a snapshot holds.
pub fn load(snapshot: &Reader, progress: &Progress) -> Result<(Arc<Store>, State), RecoveryError> {
    let marks = marks_of(snapshot)?;
    let store = Arc::new(Store::new());
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let all = All {
        snapshot,
        frames: snapshot.frames(),
        progress,
        store: &store,
        loaded: Loaded::default(),
        failed: AtomicBool::new(false),
        error: Mutex::new(None),
        hash: Mutex::default(),
        answers: Mutex::default(),
    };
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(|| all.read()))));
    let All { frames, loaded, error, hash, answers, .. } = all;
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
    Ok((store, marks.with(window)))
}

fn marks_of(snapshot: &Reader) -> Result<Marks, RecoveryError> {
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

/// Answers of the frames, in their order.
type AnswersByFrame = Vec<(u64, Vec<(String, u64, Remembered)>)>;

fn window_of(marks: &Marks, mut by_frame: AnswersByFrame, hash: &mut StateHash) -> Option<Window> {
    by_frame.sort_by_key(|(number, _)| *number);
    let answers = by_frame.into_iter().flat_map(|(_, answers)| answers);
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
    /// Somebody met an error: the others may stop.
    failed: AtomicBool,
    /// The error that is nearest to the beginning: those behind it may follow from it.
    error: Mutex<Option<RecoveryError>>,
    hash: Mutex<StateHash>,
    answers: Mutex<AnswersByFrame>,
}

impl All<'_> {
    fn read(&self) {
        let mut loader = Loader::new(self.store);
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
        if frame.kind == Kind::Answers {
            let answers = answers_of(&frame).ok_or_else(nonsense)?;
            self.answers.lock().push((frame.number, answers));
        } else {
            let entries: Vec<EntryRef<'_>> = wire::list(frame.payload).collect::<Option<_>>().ok_or_else(nonsense)?;
            if entries.len() != frame.items as usize {
                return Err(nonsense());
            }
            entries.iter().for_each(|entry| hash.entry(entry));
            loader.add(&entries).map_err(|error| self.snapshot.damaged(frame.offset, &error.to_string()))?;
        }
        self.progress.advance(frame.payload.len() as u64);
        Ok(true)
    }
}

fn answers_of(frame: &Frame<'_>) -> Option<Vec<(String, u64, Remembered)>> {
    let answers = SnapshotAnswers::decode(frame.payload).ok()?.answers;
    if answers.len() != frame.items as usize {
        return None;
    }
    answers.into_iter().map(answers::of_pb).collect()
}
