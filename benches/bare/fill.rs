//! Fills a Tandem with keys as `benches/compare` asks for them: `bench/` and a number of 26 digits.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use tandem::pb::{self, kv_service_client::KvServiceClient};
use tonic::transport::Endpoint;

use super::VALUE;

const CONNECTIONS: usize = 4;
const BATCH: u64 = 1_000;

/// Returns once all keys are written, though not synced.
pub fn fill(address: &str, keys: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let next = Arc::new(AtomicU64::new(0));
        let mut writers = tokio::task::JoinSet::new();
        for _ in 0..CONNECTIONS {
            let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
            let (mut store, next) = (KvServiceClient::new(endpoint.connect().await.unwrap()), Arc::clone(&next));
            writers.spawn(async move {
                loop {
                    let first = next.fetch_add(BATCH, Ordering::Relaxed);
                    if first >= keys {
                        return;
                    }
                    store.batch_write(batch(first, keys.min(first + BATCH))).await.unwrap();
                }
            });
        }
        while let Some(done) = writers.join_next().await {
            done.unwrap();
        }
    });
}

fn batch(first: u64, end: u64) -> pb::BatchWriteRequest {
    let put = |number| pb::PutRequest {
        key: format!("bench/{number:026}").into(),
        value: Bytes::from_static(&VALUE),
        ..Default::default()
    };
    let writes = (first..end).map(|number| pb::WriteOp { op: Some(pb::write_op::Op::Put(put(number))) }).collect();
    let options = pb::WriteOptions { durability: pb::Durability::Written.into(), ..Default::default() };
    pb::BatchWriteRequest { writes, options: Some(options) }
}
