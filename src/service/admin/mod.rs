//! What operators ask of a server, without a transport. Both ways into the ops listener call this.

mod backup;
mod keyspace;
mod slow;
mod snapshots;
mod status;
mod verify;

use std::{sync::Arc, time::SystemTime};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use self::backup::BackingUp;
use super::{Call, Service};
use crate::{
    error::{Error, Reason, Result},
    limits::BACKUPS_MAX,
    metrics::Operation,
    pb::admin::{SyncRequest, SyncResponse},
};

/// The administration of a store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Admin(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    service: Service,
    /// `server.admin` allows it.
    allowed: bool,
    started: SystemTime,
    /// What may be done at once.
    backups: Arc<Semaphore>,
    verifications: Arc<Semaphore>,
}

impl Admin {
    /// The administration of this service, refused throughout where it is not allowed. The process starts now.
    pub fn new(service: Service, allowed: bool) -> Self {
        let (backups, verifications) = (Arc::new(Semaphore::new(BACKUPS_MAX)), Arc::new(Semaphore::new(1)));
        Self(Arc::new(Inner { service, allowed, started: SystemTime::now(), backups, verifications }))
    }

    /// What is administered.
    pub fn service(&self) -> &Service {
        &self.0.service
    }

    /// Brings everything that was acknowledged to disk.
    pub async fn sync(&self, call: &Call, _: SyncRequest) -> Result<SyncResponse> {
        let answer = async {
            self.check_allowed()?;
            let synced_revision = self.service().engine()?.sync(call.deadline).await?;
            Ok(SyncResponse { synced_revision })
        };
        self.service().counted(call, Operation::Sync, answer.await)
    }

    /// PERMISSION_DENIED unless the configuration allows it.
    fn check_allowed(&self) -> Result<()> {
        if self.0.allowed {
            return Ok(());
        }
        Err(Error::new(
            Reason::PermissionDenied,
            "the administration is off, as it is by default where the ops listener is not on loopback: set server.admin \
             to on if only operators reach that listener",
        ))
    }
}

/// A place among those that do something at once; OVERLOADED when all are taken.
fn place(places: &Arc<Semaphore>, taken: &'static str) -> Result<OwnedSemaphorePermit> {
    Arc::clone(places).try_acquire_owned().map_err(|_| Error::new(Reason::Overloaded, taken))
}

/// Runs what reads files, or takes long, elsewhere than on the core that serves. Dropped, it runs to its end all the same.
async fn elsewhere<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::new(Reason::Draining, "the server stops")),
        },
    }
}
