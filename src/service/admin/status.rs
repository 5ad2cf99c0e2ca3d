//! How the server is, in one answer.

use std::time::SystemTime;

use super::Admin;
use crate::{
    engine::{Engine, LastSnapshot},
    error::Result,
    metrics::{Operation, resident_bytes},
    model::{duration_to_pb, timestamp_from_ms},
    pb::admin::{Alarm, Disk, Health, Loading, Memory, SnapshotState, StatusRequest, StatusResponse},
    service::{self, Call},
};

impl Admin {
    /// How the server is; answers while it loads or stops, too.
    pub async fn status(&self, call: &Call, _: StatusRequest) -> Result<StatusResponse> {
        let answer = self.check_allowed().map(|()| self.look());
        self.service().counted(call, Operation::Status, answer)
    }

    fn look(&self) -> StatusResponse {
        let service = self.service();
        let uptime = self.0.started.elapsed().unwrap_or_default();
        let failing = service.checks().into_iter().filter(|check| !check.ok);
        let mut status = StatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            health: health_to_pb(service.health()).into(),
            start_time: Some(self.0.started.into()),
            uptime: Some(duration_to_pb(uptime)),
            alarms: failing.map(|check| Alarm { name: check.name.to_owned(), detail: check.detail }).collect(),
            ..StatusResponse::default()
        };
        match service.engine() {
            Ok(engine) => look_into(engine, &mut status),
            Err(_) => {
                let step = service.progress().read();
                let (done_bytes, total_bytes) = (step.done_bytes, step.total_bytes);
                status.loading = Some(Loading { phase: step.phase.name().to_owned(), done_bytes, total_bytes });
            }
        }
        status
    }
}

fn look_into(engine: &Engine, status: &mut StatusResponse) {
    let totals = engine.totals();
    status.store_id = hexadecimal(&engine.store_id());
    // In this order: what is on disk is never said to lie ahead of what is there.
    status.synced_revision = engine.synced_revision();
    status.store_revision = engine.revision();
    status.keys = totals.keys;
    status.expiring_keys = totals.expiring;
    status.watchers = engine.watchers() as u64;
    status.queued_writes = engine.queue_depth() as u64;
    let (_, limit_bytes, full) = engine.memory();
    status.memory = Some(Memory {
        data_bytes: totals.data_bytes,
        used_bytes: totals.used_bytes,
        allocated_bytes: totals.allocated_bytes,
        resident_bytes: resident_bytes().unwrap_or_default(),
        limit_bytes: if limit_bytes == u64::MAX { 0 } else { limit_bytes },
        full,
    });
    let (free_bytes, reserve_bytes) = engine.disk_room();
    status.disk = Some(Disk { free_bytes, reserve_bytes, full: engine.disk_full() });
    let snapshots = engine.snapshot_status();
    let state = match snapshots.last {
        None => SnapshotState::default(),
        Some(LastSnapshot { index, bytes, time_ms }) => {
            let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let age = age.saturating_sub(std::time::Duration::from_millis(time_ms));
            SnapshotState {
                last_index: index,
                last_bytes: bytes,
                last_time: Some(timestamp_from_ms(time_ms)),
                last_age: Some(duration_to_pb(age)),
                running: false,
            }
        }
    };
    status.snapshots = Some(SnapshotState { running: snapshots.running, ..state });
}

fn health_to_pb(health: service::Health) -> Health {
    match health {
        service::Health::Loading => Health::Loading,
        service::Health::Ready => Health::Ready,
        service::Health::Draining => Health::Draining,
        service::Health::WalFailed => Health::WalFailed,
    }
}

/// Digits of bytes, lower case.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
