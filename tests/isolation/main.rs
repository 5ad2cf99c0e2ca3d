//! No reader ever sees half a record, and scans and pages hold what they promise while writers run: through both doors of a
//! real server.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod accounts;
mod banners;
#[path = "../support/doors/mod.rs"]
mod doors;
mod pages;
#[path = "../support/mod.rs"]
mod support;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tandem::pb::{self, key_range::Kind as Range, write_op::Op};
use tokio::task::JoinSet;

use self::{doors::Door, support::Server};

/// A server, its doors, and those who are busy with it.
struct Scene {
    _data: tempfile::TempDir,
    server: Server,
    /// gRPC, REST.
    doors: [Arc<Door>; 2],
    over: Arc<AtomicBool>,
    busy: JoinSet<()>,
}

impl Scene {
    async fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let server = Server::start(data.path());
        let doors = [Arc::new(Door::over_grpc(&server.grpc).await), Arc::new(Door::over_rest(&server.http))];
        Self { _data: data, server, doors, over: Arc::default(), busy: JoinSet::new() }
    }

    /// Has `turn` taken again and again, through a connection of its own to each door, until the scene is over.
    async fn again_and_again<Turn: Future<Output = ()> + Send>(
        &mut self,
        turn: impl Fn(Arc<Door>) -> Turn + Copy + Send + 'static,
    ) {
        let doors = [Door::over_grpc(&self.server.grpc).await, Door::over_rest(&self.server.http)];
        for door in doors.map(Arc::new) {
            let over = Arc::clone(&self.over);
            self.busy.spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    turn(Arc::clone(&door)).await;
                }
            });
        }
    }

    /// Waits for everyone; who saw what may not be fails here.
    async fn end(mut self) {
        self.over.store(true, Ordering::Relaxed);
        while let Some(ended) = self.busy.join_next().await {
            ended.unwrap();
        }
        drop(self.doors);
        assert_eq!(self.server.stop(), Some(0));
    }
}

fn prefix(prefix: &str) -> Option<pb::KeyRange> {
    Some(pb::KeyRange { kind: Some(Range::Prefix(prefix.to_owned().into())) })
}

fn put(key: String, value: impl ToString) -> pb::WriteOp {
    let request = pb::PutRequest { key: key.into(), value: value.to_string().into(), ..Default::default() };
    pb::WriteOp { op: Some(Op::Put(request)) }
}

fn delete(key: String) -> pb::WriteOp {
    pb::WriteOp { op: Some(Op::Delete(pb::DeleteRequest { key: key.into(), ..Default::default() })) }
}

/// All of these in one record.
async fn write_together(door: &Door, writes: Vec<pb::WriteOp>) {
    let answer = door.batch_write(pb::BatchWriteRequest { writes, options: None }).await.unwrap();
    let failed = |result: &pb::OpResult| matches!(result.kind, Some(pb::op_result::Kind::Error(_)));
    assert!(!answer.results.iter().any(failed), "{answer:?}");
}

fn number(entry: &pb::Entry) -> i64 {
    std::str::from_utf8(&entry.value).unwrap().parse().unwrap()
}

fn entry_of(result: pb::ReadResult) -> pb::Entry {
    match result.kind {
        Some(pb::read_result::Kind::Entry(entry)) => entry,
        other => panic!("no entry: {other:?}"),
    }
}

/// A page with everything.
async fn list(door: &Door, of: &str) -> Vec<pb::Entry> {
    let request = pb::ListRequest { range: prefix(of), page_size: 1_000, ..Default::default() };
    let page = door.list(request).await.unwrap();
    assert!(page.next_page_token.is_empty());
    page.entries
}

/// The batches of a scan, as gRPC shows them; over REST they cannot be told apart.
async fn batches(door: &Door, request: pb::ScanRequest) -> Vec<pb::ScanResponse> {
    let Door::Grpc(client) = door else { panic!("not gRPC") };
    let mut stream = client.clone().scan(request).await.unwrap().into_inner();
    let mut batches: Vec<pb::ScanResponse> = Vec::new();
    while let Some(batch) = stream.message().await.unwrap() {
        assert!(batches.last().is_none_or(|last| last.store_revision <= batch.store_revision));
        batches.push(batch);
    }
    batches
}
