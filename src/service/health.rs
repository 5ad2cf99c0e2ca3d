//! Whether the server may be sent requests, and why not.

use tokio::sync::watch;

use super::Service;
use crate::engine;

/// How the server is, as its probes say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It reads its data.
    Loading,
    /// It serves.
    Ready,
    /// It stops; what is in flight is finished.
    Draining,
    /// The log failed: reads only, until a restart.
    WalFailed,
}

/// One line of the detailed readiness answer.
#[derive(Clone, Debug)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// Whether it is well.
    pub ok: bool,
    /// More, for people.
    pub detail: String,
}

/// Keeps the health and tells everyone of changes.
#[derive(Debug)]
pub(super) struct HealthBoard(watch::Sender<Health>);

impl Default for HealthBoard {
    fn default() -> Self {
        Self(watch::Sender::new(Health::Loading))
    }
}

impl HealthBoard {
    /// The engine is there: follow its health for as long as it lives. Needs a runtime; without one the health is
    /// taken once.
    pub(super) fn opened(&self, mut engine: watch::Receiver<engine::Health>) {
        let health = self.0.clone();
        let follow = move |state: engine::Health| {
            health.send_modify(|health| match (state, *health) {
                (_, Health::Draining) => {}
                (engine::Health::Ready, _) => *health = Health::Ready,
                (engine::Health::WalFailed, _) => *health = Health::WalFailed,
            });
        };
        follow(*engine.borrow_and_update());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                while engine.changed().await.is_ok() {
                    let state = *engine.borrow_and_update();
                    follow(state);
                }
            });
        }
    }

    /// Resolves once the server stops.
    pub(super) async fn until_draining(&self) {
        // The sender lives in `self`: this cannot end early.
        let _ = self.0.subscribe().wait_for(|health| *health == Health::Draining).await;
    }
}

impl Service {
    /// How the server is.
    pub fn health(&self) -> Health {
        match *self.inner.health.0.borrow() {
            // Whoever was told that a write failed finds it here, even if the board has not heard of it yet.
            Health::Ready if self.log_has_failed() => Health::WalFailed,
            health => health,
        }
    }

    fn log_has_failed(&self) -> bool {
        self.engine().is_ok_and(|engine| *engine.health().borrow() == engine::Health::WalFailed)
    }

    /// How the server is, and every change of that.
    pub fn health_changed(&self) -> watch::Receiver<Health> {
        self.inner.health.0.subscribe()
    }

    /// The server stops: probes say so, and requests that wait for news are answered.
    pub fn drain(&self) {
        self.inner.health.0.send_replace(Health::Draining);
    }

    /// Sets the gauges of readiness and alarms.
    pub fn show_health(&self) {
        self.metrics().ready(self.health() == Health::Ready);
        for check in self.checks() {
            self.metrics().alarm(check.name, !check.ok);
        }
    }

    /// What the detailed readiness answer says.
    pub fn checks(&self) -> Vec<Check> {
        let health = self.health();
        let step = self.inner.progress.read();
        let loading = format!("the data is being read: {}, {}%", step.phase.name(), step.percent());
        let mut checks = vec![
            check("loaded", health != Health::Loading, "the data is read", &loading),
            check("serving", health != Health::Draining, "requests are taken", "the server stops"),
            check(
                "log",
                health != Health::WalFailed,
                "writes are taken",
                "it failed: restart the server once the disk is well",
            ),
        ];
        if let Ok(engine) = self.engine() {
            let totals = engine.totals();
            let (free_bytes, reserve_bytes) = engine.disk_room();
            let full = if engine.disk_full() { ": growth is refused until there is room, deletes go on" } else { "" };
            let detail = format!("{free_bytes} bytes free, reserve {reserve_bytes}{full}");
            checks.push(Check { name: "disk", ok: !engine.disk_full(), detail });
            let (used_bytes, limit_bytes, full) = engine.memory();
            let full_detail = if full { ": growth is refused until it is below 90%, deletes go on" } else { "" };
            let detail = format!("{used_bytes} bytes of {limit_bytes} used{full_detail}");
            checks.push(Check { name: "memory", ok: !full, detail });
            let snapshots = engine.snapshot_status();
            let last = match snapshots.last {
                Some(last) => format!("the last one ends at index {} and has {} bytes", last.index, last.bytes),
                None => "none yet: the log is kept whole".to_owned(),
            };
            checks.push(check("snapshot", snapshots.alarm.is_none(), &last, snapshots.alarm.as_deref().unwrap_or("")));
            let detail = format!("{} waiting of {}", engine.queue_depth(), self.limits().queue_items);
            checks.push(Check { name: "queue", ok: engine.queue_depth() < self.limits().queue_items, detail });
            let detail = format!("{} keys, {} bytes, revision {}", totals.keys, totals.data_bytes, engine.revision());
            checks.push(Check { name: "store", ok: true, detail });
        }
        checks
    }
}

fn check(name: &'static str, ok: bool, well: &str, not_well: &str) -> Check {
    Check { name, ok, detail: if ok { well } else { not_well }.to_owned() }
}
