//! Concurrent histories over both doors are linearizable, and watchers running beside them are told exactly the log: in
//! peace, and through `kill -9` and restart.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[path = "../support/asks.rs"]
mod asks;
mod checker;
mod clients;
mod doctored;
#[path = "../support/doors/mod.rs"]
mod doors;
#[path = "../support/reference.rs"]
mod reference;
#[path = "../support/mod.rs"]
mod support;
mod timeline;
mod watchers;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tandem::pb::{self, write_op::Op};
use tokio::{sync::watch, task::JoinHandle};

use self::{
    asks::Ask,
    checker::{Answer, Call, Report, Watched, check, check_watched},
    clients::{Client, Clock},
    doors::Door,
    support::Server,
    timeline::Timeline,
    watchers::{Addresses, From, Over, Watcher},
};

/// Clients of each door.
const CLIENTS: usize = 6;
/// Watchers are told at once what there is.
const HEARD_WITHIN: Duration = Duration::from_secs(120);
/// Under no prefix but that of everything, and under `k/`: when it changes, that is the end.
const LAST: &str = "k/~last";

fn addresses(server: &Server) -> Addresses {
    Addresses { http: server.http.clone(), grpc: server.grpc.clone() }
}

async fn clients(server: &Server, generation: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let name = (generation * CLIENTS + number) * 2;
        clients.push(Client::new(name, Door::over_grpc(&server.grpc).await));
        clients.push(Client::new(name + 1, Door::over_rest(&server.http)));
    }
    clients
}

fn watch(watcher: Watcher, addresses: &watch::Sender<Addresses>) -> JoinHandle<Watched> {
    tokio::spawn(watcher.watch_until(LAST.into(), addresses.subscribe()))
}

/// From the beginning, through each door, of everything or of a part; some hang up and resume.
fn early_watchers(addresses: &watch::Sender<Addresses>) -> Vec<JoinHandle<Watched>> {
    let from = From::Revision(1);
    [
        Watcher { over: Over::Grpc, from, prefix: "", hangs_up_after: usize::MAX },
        Watcher { over: Over::Grpc, from, prefix: "k/", hangs_up_after: 70 },
        Watcher { over: Over::Ndjson, from, prefix: "", hangs_up_after: 90 },
        Watcher { over: Over::EventStream, from, prefix: "", hangs_up_after: 50 },
        Watcher { over: Over::EventStream, from: From::State, prefix: "k/", hangs_up_after: usize::MAX },
    ]
    .map(|watcher| watch(watcher, addresses))
    .into()
}

/// Who comes in the middle of it all.
fn late_watchers(addresses: &watch::Sender<Addresses>) -> Vec<JoinHandle<Watched>> {
    let mut watchers = Vec::new();
    for over in [Over::Grpc, Over::Ndjson, Over::EventStream] {
        for (from, prefix) in [(From::Now, "k/"), (From::State, ""), (From::Revision(1), "")] {
            watchers.push(watch(Watcher { over, from, prefix, hangs_up_after: usize::MAX }, addresses));
        }
    }
    watchers
}

/// Has everyone stop and look: the log as a watcher from the beginning is told it now, the calls, the watchers.
async fn judge(server: &Server, mut calls: Vec<Call>, clock: Clock, watchers: Vec<JoinHandle<Watched>>) -> Report {
    let mut client = Client::new(usize::MAX, Door::over_grpc(&server.grpc).await);
    let keys = ["k/a", "k/b", "k/c", "k/d", "n/1", "n/2"].map(Bytes::from).to_vec();
    calls.push(client.call(clock, Ask::BatchGet(keys)).await);
    let last = Op::Put(pb::PutRequest { key: LAST.into(), ..Default::default() });
    calls.push(client.call(clock, Ask::Write(last)).await);
    let sender = watch::Sender::new(addresses(server));
    let log = Watcher { over: Over::Grpc, from: From::Revision(1), prefix: "", hangs_up_after: usize::MAX };
    let log = watch(log, &sender).await.unwrap();
    let timeline = Timeline::new(&log.groups).unwrap_or_else(|why| panic!("{why}"));
    for watcher in watchers {
        // All there is to hear was said before: a watcher that still waits would wait for ever.
        let watched = tokio::time::timeout(HEARD_WITHIN, watcher).await.expect("a watcher heard no end").unwrap();
        check_watched(&timeline, &watched).unwrap_or_else(|why| panic!("{why}"));
    }
    let report = check(&timeline, &calls).unwrap_or_else(|why| panic!("{why}"));
    println!("{} calls, {} records in the log: {report:?}", calls.len(), timeline.groups.len());
    report
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_calls_through_both_doors_are_linearizable_and_watchers_are_told_exactly_the_log() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let sender = watch::Sender::new(addresses(&server));
    let mut watchers = early_watchers(&sender);
    let (clock, answered) = (Clock::start(), Arc::new(AtomicUsize::new(0)));
    let calls_each = 250;
    let work: Vec<_> = clients(&server, 0)
        .await
        .into_iter()
        .map(|client| tokio::spawn(client.work(clock, calls_each, Arc::clone(&answered))))
        .collect();
    support::eventually("half of the work", async || {
        (answered.load(Ordering::Relaxed) > CLIENTS * calls_each).then_some(())
    })
    .await;
    watchers.extend(late_watchers(&sender));
    let mut calls = Vec::new();
    for client in work {
        calls.extend(client.await.unwrap());
    }
    let report = judge(&server, calls, clock, watchers).await;
    assert!(report.reads > 500 && report.writes > 500 && report.refused > 0 && report.expired > 0, "{report:?}");
    assert_eq!(report.lost, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_through_kill_9_are_linearizable_and_watchers_miss_nothing() {
    let data = tempfile::tempdir().unwrap();
    let mut server = Server::start(data.path());
    let sender = watch::Sender::new(addresses(&server));
    let mut watchers = early_watchers(&sender);
    let clock = Clock::start();
    let mut calls: Vec<Call> = Vec::new();
    for generation in 0..3 {
        let answered = Arc::new(AtomicUsize::new(0));
        let work: Vec<_> = clients(&server, generation)
            .await
            .into_iter()
            .map(|client| tokio::spawn(client.work(clock, usize::MAX >> 32, Arc::clone(&answered))))
            .collect();
        if generation == 1 {
            watchers.extend(late_watchers(&sender));
        }
        // In the middle of it, at another moment each time.
        let goal = 200 + generation * 77;
        support::eventually("some work", async || (answered.load(Ordering::Relaxed) > goal).then_some(())).await;
        server.kill();
        for client in work {
            calls.extend(client.await.unwrap());
        }
        server = Server::start(data.path());
        sender.send_replace(addresses(&server));
    }
    assert!(calls.iter().any(|call| matches!(call.answer, Answer::Lost)));
    let report = judge(&server, calls, clock, watchers).await;
    assert!(report.writes > 100 && report.expired > 0, "{report:?}");
}
