//! What the applier captures between two records, and how it is asked to.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
    mpsc,
};

use parking_lot::Mutex;

use crate::{
    engine::{
        apply::{Applier, Marks},
        window::Answers,
    },
    limits::SNAPSHOT_OVERTAKEN_BYTES_MAX,
    pb::storage::{LogId, Settings, SnapshotHeader},
    store::{Store, View},
};

/// The state as of one record: the small part of it, and a view of the entries.
#[derive(Debug)]
pub struct Captured {
    /// The numbers.
    pub marks: Marks,
    /// The remembered answers.
    pub answers: Answers,
    /// The entries, to be walked.
    pub view: Arc<View>,
    /// Where they are.
    pub store: Arc<Store>,
    /// Says when every record until here is on disk; closed without a word if that failed. `None`: they are.
    pub synced: Option<mpsc::Receiver<()>>,
}

impl Captured {
    /// Captures what an applier has applied. Short: nothing is copied that grows with the store.
    pub fn of(applier: &Applier, synced: Option<mpsc::Receiver<()>>) -> Self {
        let state = applier.state();
        Self {
            marks: state.marks(),
            answers: state.window.share(),
            view: applier.store().begin_view(state.revision(), SNAPSHOT_OVERTAKEN_BYTES_MAX),
            store: applier.shared_store(),
            synced,
        }
    }
}

impl Drop for Captured {
    fn drop(&mut self) {
        self.store.end_view();
    }
}

/// The marks as a snapshot's header says them.
pub fn header(marks: &Marks, history_after_revision: u64) -> SnapshotHeader {
    SnapshotHeader {
        last: Some(LogId { term: marks.term, index: marks.index }),
        time_ms: marks.time_ms,
        offset: marks.offset,
        apply_version: marks.apply_version,
        settings: Some(Settings {
            request_window_ms: marks.bounds.window_ms,
            request_window_ids: marks.bounds.ids,
            request_window_bytes: marks.bounds.bytes,
        }),
        program_version: env!("CARGO_PKG_VERSION").to_owned(),
        history_after_revision,
    }
}

/// A wish for a capture: one thread wishes, the log thread grants between two groups.
#[derive(Debug, Default)]
pub struct Wish {
    /// What the log thread looks at, once a group.
    made: AtomicBool,
    answer: Mutex<Option<mpsc::SyncSender<Captured>>>,
}

impl Wish {
    /// Wishes for a capture. The log thread is to be nudged then.
    pub fn make(&self) -> mpsc::Receiver<Captured> {
        let (answer, granted) = mpsc::sync_channel(1);
        *self.answer.lock() = Some(answer);
        self.made.store(true, Ordering::Release);
        granted
    }

    /// Grants a wish, if there is one: once a group, and then hardly ever.
    pub fn grant(&self, capture: impl FnOnce() -> Captured) {
        if self.made.load(Ordering::Relaxed) {
            self.made.store(false, Ordering::Relaxed);
            if let Some(answer) = self.answer.lock().take() {
                // If nobody waits for it any more, the capture ends here.
                drop(answer.send(capture()));
            }
        }
    }
}
