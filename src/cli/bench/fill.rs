//! Before a load: is the right server there, and writing every key of the load.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::task::JoinSet;

use super::{
    ask::{Ask, Refusal},
    door::{Door, Lines},
    keys::{Keys, Values},
    line::Target,
    options::Protocol,
    plan::Plan,
};
use crate::{
    cli::client::{
        failure::{Failure, Result},
        progress::Progress,
        write::Durability,
    },
    limits::{BATCH_WRITES_MAX, IMPORT_BATCH_BYTES},
};

/// Batches on their way at a time.
const WRITERS: u32 = 4;

/// Asks the server something that costs nothing, so that a wrong address or door is told before anything else.
pub async fn probe(plan: &Plan, target: &Target) -> Result<()> {
    let keys = Keys::of(plan);
    let asked = async {
        let mut door = Lines::connect(plan, target).await?.place().await?;
        door.perform(Ask::Count(keys.key(0), keys.key(1))).await
    };
    let patience = tokio::time::timeout(plan.timeout, asked).await;
    let asked = patience.unwrap_or_else(|_| Err(Refusal::broken("no answer came within the time of --timeout")));
    asked.map(drop).map_err(|refusal| unavailable(plan, &refusal))
}

/// Why a load cannot begin.
pub fn unavailable(plan: &Plan, refusal: &Refusal) -> Failure {
    let variable = match plan.protocol {
        Protocol::Rest => "TANDEM_REST_ENDPOINT",
        Protocol::Grpc => "TANDEM_ENDPOINT",
    };
    Failure::unavailable(format!(
        "{}: {}: start a server at {}, or name another's {} listener by --endpoint or {variable}",
        refusal.reason,
        refusal.message,
        plan.endpoint,
        plan.protocol.name(),
    ))
}

/// Writes every key, in batches.
pub async fn fill(plan: &Plan, target: &Target, values: &Values) -> Result<()> {
    // What is measured later says how durable it is; this only has to be there.
    let plan = Plan { durability: Some(Durability::Written), in_flight: WRITERS, ..plan.clone() };
    let lines = Lines::connect(&plan, target).await.map_err(|refusal| unavailable(&plan, &refusal))?;
    let keys = Keys::of(&plan);
    let entry_bytes = plan.key_bytes + plan.value_bytes;
    let batch = (IMPORT_BATCH_BYTES / entry_bytes).clamp(1, BATCH_WRITES_MAX) as u64;
    let next = Arc::new(AtomicU64::new(0));
    let mut writers = JoinSet::new();
    let (sender, mut written) = tokio::sync::mpsc::channel(WRITERS as usize);
    for _ in 0..WRITERS {
        let door = lines.place().await.map_err(|refusal| unavailable(&plan, &refusal))?;
        let writer = Writer { door, keys, values: values.clone(), batch, next: Arc::clone(&next) };
        let sender = sender.clone();
        writers.spawn(async move { writer.run(&sender).await });
    }
    drop(sender);
    let mut progress = Progress::new("loaded", Some(plan.keys), false);
    let mut position = 0;
    while let Some(entries) = written.recv().await {
        position += entries;
        progress.add(entries, entries * entry_bytes as u64);
        progress.at(position);
    }
    while let Some(writer) = writers.join_next().await {
        if let Ok(Err(refusal)) = writer {
            return Err(Failure::unavailable(format!(
                "{}: {}: the keys could not be loaded: ask for fewer or smaller ones, or for none by --no-load",
                refusal.reason, refusal.message
            )));
        }
    }
    progress.finish();
    Ok(())
}

#[derive(Debug)]
struct Writer {
    door: Door,
    keys: Keys,
    values: Values,
    batch: u64,
    next: Arc<AtomicU64>,
}

impl Writer {
    async fn run(mut self, written: &tokio::sync::mpsc::Sender<u64>) -> Result<(), Refusal> {
        loop {
            let first = self.next.fetch_add(self.batch, Ordering::Relaxed);
            let last = self.keys.count().min(first.saturating_add(self.batch));
            if first >= last {
                return Ok(());
            }
            let write = |number| (self.keys.key(number), self.values.at(number as usize));
            let writes = (first..last).map(write).collect();
            self.door.perform(Ask::BatchWrite(writes)).await?;
            let _ = written.send(last - first).await;
        }
    }
}
