//! Verifying what is on disk, for as long as somebody waits for it.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use super::{Admin, elsewhere, place};
use crate::{
    engine,
    error::Result,
    metrics::Operation,
    model::duration_to_pb,
    pb::admin::{FileCheck, FileKind, VerifyIntegrityRequest, VerifyIntegrityResponse},
    service::{Call, Health},
};

/// Says that nobody waits any more, when it is dropped.
struct Waiting(Arc<AtomicBool>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Admin {
    /// Reads every file of the store and checks it.
    pub async fn verify_integrity(&self, call: &Call, _: VerifyIntegrityRequest) -> Result<VerifyIntegrityResponse> {
        let answer = self.verify().await;
        self.service().counted(call, Operation::VerifyIntegrity, answer)
    }

    async fn verify(&self) -> Result<VerifyIntegrityResponse> {
        self.check_allowed()?;
        let service = self.service().clone();
        service.engine()?;
        let place = place(&self.0.verifications, "a verification runs already: wait until it ends")?;
        let waiting = Waiting(Arc::default());
        let gone = Arc::clone(&waiting.0);
        let started = Instant::now();
        let checks = elsewhere(move || {
            // Held until the work ends, not until its caller goes.
            let _place = place;
            let stopped = || gone.load(Ordering::Relaxed) || service.health() == Health::Draining;
            service.engine()?.verify(&stopped)
        });
        let files: Vec<FileCheck> = checks.await?.iter().map(check_to_pb).collect();
        drop(waiting);
        Ok(VerifyIntegrityResponse {
            intact: files.iter().all(|check| check.damage.is_empty()),
            bytes: files.iter().map(|check| check.bytes).sum(),
            files,
            elapsed: Some(duration_to_pb(started.elapsed())),
        })
    }
}

fn check_to_pb(check: &engine::FileCheck) -> FileCheck {
    let (kind, folder) = match check.kind {
        engine::FileKind::Snapshot => (FileKind::Snapshot, "snapshots"),
        engine::FileKind::Segment => (FileKind::Segment, "wal"),
    };
    FileCheck {
        kind: kind.into(),
        file: Path::new(folder).join(check.path.file_name().unwrap_or_default()).display().to_string(),
        bytes: check.bytes,
        items: check.items,
        state_hash: check.state_hash.clone(),
        damage: check.damage.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}
