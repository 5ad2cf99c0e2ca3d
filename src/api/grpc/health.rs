//! `grpc.health.v1`: says what the service's health says.

use tonic_health::{ServingStatus, server::HealthReporter};

use crate::service::{Health, Service};

/// Names that clients may ask for: the whole server, and its service.
const NAMES: [&str; 2] = ["", "tandem.v1.KvService"];

/// Keeps the answers up to date for as long as the service lives.
pub async fn follow_health(service: Service, reporter: HealthReporter) {
    let mut health = service.health_changed();
    // Not to keep the service alive by watching it.
    drop(service);
    loop {
        let status = match *health.borrow_and_update() {
            Health::Ready => ServingStatus::Serving,
            Health::Loading | Health::Draining | Health::WalFailed => ServingStatus::NotServing,
        };
        for name in NAMES {
            reporter.set_service_status(name, status).await;
        }
        if health.changed().await.is_err() {
            return;
        }
    }
}
