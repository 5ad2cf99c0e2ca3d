//! A load that makes sense, as it is carried out and reported.

use std::time::Duration;

use serde::{Serialize, Serializer};

use super::options::{Distribution, Protocol, Workload};
use crate::cli::client::write::Durability;

/// What is to be done.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    pub workload: Workload,
    pub protocol: Protocol,
    pub endpoint: String,
    pub connections: u32,
    pub in_flight: u32,
    pub threads: usize,
    /// Requests a second; `None`: closed loop.
    pub rate: Option<u64>,
    #[serde(rename = "duration_s", serialize_with = "seconds")]
    pub duration: Duration,
    #[serde(rename = "warmup_s", serialize_with = "seconds")]
    pub warmup: Duration,
    #[serde(serialize_with = "durability")]
    pub durability: Option<Durability>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_size: Option<u32>,
    pub keys: u64,
    pub key_bytes: usize,
    pub value_bytes: usize,
    pub distribution: Distribution,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zipf_exponent: Option<f64>,
    /// Whether every key is written first.
    #[serde(rename = "load")]
    pub fill: bool,
    pub seed: u64,
    #[serde(rename = "timeout_s", serialize_with = "seconds")]
    pub timeout: Duration,
}

impl Plan {
    /// In one line, for people.
    pub fn describe(&self) -> String {
        let workload = match self.workload {
            Workload::Get => "get".to_owned(),
            Workload::Put => "put".to_owned(),
            Workload::Mixed => format!("mixed with {}% reads", 100.0 * self.read_ratio.unwrap_or_default()),
            Workload::BatchGet => format!("batch-get of {} keys", self.batch_keys()),
            Workload::BatchWrite => format!("batch-write of {} keys", self.batch_keys()),
            Workload::Scan => format!("scan of {} keys", self.batch_keys()),
            Workload::Watch => "watch".to_owned(),
        };
        let door = self.protocol.name();
        let pace = self.rate.map_or_else(|| "closed loop".to_owned(), |rate| format!("open loop at {rate}/s"));
        format!("{workload} over {door}, {} connections x {} in flight, {pace}", self.connections, self.in_flight)
    }

    /// Keys of each batch.
    pub fn batch_keys(&self) -> u64 {
        self.batch_size.unwrap_or(1).into()
    }
}

fn seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

// serde calls it with a reference.
#[expect(clippy::trivially_copy_pass_by_ref)]
fn durability<S: Serializer>(level: &Option<Durability>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(durability_text(*level).unwrap_or("default"))
}

/// A level's name, where one was asked for.
pub fn durability_text(level: Option<Durability>) -> Option<&'static str> {
    match level? {
        Durability::Written => Some("written"),
        Durability::Fsynced => Some("fsynced"),
    }
}
