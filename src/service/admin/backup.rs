//! Backups: a snapshot that is taken and read, piece by piece, as its reader takes it. Nothing waits in a queue; who stops
//! reading stops the disk, and who goes away ends it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::{Admin, elsewhere, place, status::hexadecimal};
use crate::{
    disk::File,
    error::{Error, Reason, Result},
    limits::BACKUP_CHUNK_BYTES,
    metrics::Operation,
    model::timestamp_from_ms,
    pb::admin::{BackupHead, BackupRequest},
    service::Call,
};

/// A backup that is being read.
#[derive(Debug)]
pub struct BackingUp {
    admin: Admin,
    head: BackupHead,
    file: Arc<dyn File>,
    position: u64,
    bytes_per_second: u64,
    started: Instant,
    /// Its place among those at once.
    _place: OwnedSemaphorePermit,
}

impl Admin {
    /// Takes a snapshot and opens it.
    pub async fn backup(&self, call: &Call, _: BackupRequest) -> Result<BackingUp> {
        let answer = self.begin_backup().await;
        self.service().counted(call, Operation::Backup, answer)
    }

    async fn begin_backup(&self) -> Result<BackingUp> {
        self.check_allowed()?;
        let engine = self.service().engine()?;
        let place = place(&self.0.backups, "as many backups run as may at once: wait until one ends")?;
        let (taken, file) = engine.backup().await?;
        let head = BackupHead {
            bytes: taken.bytes,
            index: taken.index,
            revision: taken.revision,
            time: Some(timestamp_from_ms(taken.time_ms)),
            state_hash: hexadecimal(&taken.state_hash.to_be_bytes()),
            store_id: hexadecimal(&engine.store_id()),
        };
        tracing::info!(revision = head.revision, bytes = head.bytes, "a backup is being read");
        let bytes_per_second = engine.snapshot_bytes_per_second();
        let admin = self.clone();
        Ok(BackingUp { admin, head, file, position: 0, bytes_per_second, started: Instant::now(), _place: place })
    }
}

impl BackingUp {
    /// What it is.
    pub fn head(&self) -> &BackupHead {
        &self.head
    }

    /// The next bytes; `None` when all were given.
    pub async fn next(&mut self) -> Option<Result<Bytes>> {
        let left_bytes = self.head.bytes - self.position;
        if left_bytes == 0 {
            return None;
        }
        let step_bytes = left_bytes.min(BACKUP_CHUNK_BYTES as u64);
        let due = Duration::from_secs_f64((self.position + step_bytes) as f64 / self.bytes_per_second as f64);
        let (file, position) = (Arc::clone(&self.file), self.position);
        let read = elsewhere(move || read_exact(&*file, position, step_bytes as usize));
        let read = async {
            tokio::time::sleep_until((self.started + due).into()).await;
            read.await
        };
        let read = tokio::select! {
            read = read => read,
            () = self.admin.service().inner.health.until_draining() => {
                Err(Error::new(Reason::Draining, "the server stops: this backup is not whole, begin another one"))
            }
        };
        match &read {
            Ok(bytes) => self.position += bytes.len() as u64,
            Err(error) => tracing::error!(%error, position, "a backup was broken off"),
        }
        Some(read)
    }
}

fn read_exact(file: &dyn File, position: u64, bytes: usize) -> Result<Bytes> {
    let mut buffer = vec![0; bytes];
    let mut filled = 0;
    while filled < bytes {
        match file.read_at(&mut buffer[filled..], position + filled as u64) {
            Ok(0) => return Err(Error::internal("the snapshot ends before its end: check the disk")),
            Ok(read) => filled += read,
            Err(error) => {
                return Err(Error::internal(format!("the snapshot cannot be read: {error}: check the disk")));
            }
        }
    }
    Ok(buffer.into())
}
