//! Real `kill -9` under load from both doors: acknowledged writes lost, counted over many cycles, must be none.
//!
//! `TANDEM_KILL_CYCLES` sets the number of cycles.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod support;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use tandem::pb::{self, kv_service_client::KvServiceClient};

/// Writers of each door. Each writes keys of its own, one after another.
const WRITERS: usize = 8;
const KEYS_EACH: u64 = 50;

/// For each key the number last acknowledged, and the one last tried.
type Ledger = Arc<Mutex<HashMap<String, (u64, u64)>>>;

fn tried(ledger: &Ledger, key: &str, number: u64) {
    ledger.lock().entry(key.to_owned()).or_default().1 = number;
}

fn acknowledged(ledger: &Ledger, key: &str, number: u64, total: &AtomicU64) {
    ledger.lock().entry(key.to_owned()).or_default().0 = number;
    total.fetch_add(1, Ordering::Relaxed);
}

async fn write_over_grpc(address: String, writer: usize, first: u64, ledger: Ledger, total: Arc<AtomicU64>) {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    let Ok(channel) = endpoint.connect().await else { return };
    let mut client = KvServiceClient::new(channel);
    for number in first.. {
        let key = format!("grpc-{writer}-{}", number % KEYS_EACH);
        tried(&ledger, &key, number);
        let request =
            pb::PutRequest { key: key.clone().into(), value: number.to_string().into(), ..Default::default() };
        match client.put(request).await {
            Ok(_) => acknowledged(&ledger, &key, number, &total),
            Err(_) => return,
        }
    }
}

async fn write_over_rest(address: String, writer: usize, first: u64, ledger: Ledger, total: Arc<AtomicU64>) {
    let client = support::client();
    for number in first.. {
        let key = format!("rest-{writer}-{}", number % KEYS_EACH);
        tried(&ledger, &key, number);
        let url = format!("http://{address}/v1/kv/{key}");
        match support::try_send(&client, "PUT", &url, &[], number.to_string().as_bytes()).await {
            Ok(answer) if answer.status < 300 => acknowledged(&ledger, &key, number, &total),
            _ => return,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_write_is_lost_to_kill_9() {
    let cycles: u64 = std::env::var("TANDEM_KILL_CYCLES").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    let data = tempfile::tempdir().unwrap();
    let ledger = Ledger::default();
    let total = Arc::new(AtomicU64::new(0));
    let client = support::client();
    let mut checked = 0;
    for cycle in 0..cycles {
        let server = support::Server::start(data.path());
        if cycle > 0 {
            assert!(server.banner[2].contains("unclean stop"), "{}", server.banner[2]);
        }
        let expected = ledger.lock().clone();
        for (key, (acknowledged, tried)) in expected {
            let answer = support::send(&client, "GET", &server.url(&format!("/v1/kv/{key}")), &[], b"").await;
            let found = if answer.status == 404 { 0 } else { answer.text().parse().unwrap() };
            assert!(
                found >= acknowledged && found <= tried,
                "cycle {cycle}: {key} holds {found}; {acknowledged} was acknowledged, {tried} the last one tried"
            );
            checked += 1;
        }
        let before = total.load(Ordering::Relaxed);
        let first = (cycle + 1) * 1_000_000;
        let mut writers = Vec::new();
        for writer in 0..WRITERS {
            let (ledger_, total_) = (Arc::clone(&ledger), Arc::clone(&total));
            writers.push(tokio::spawn(write_over_grpc(server.grpc.clone(), writer, first, ledger_, total_)));
            let (ledger_, total_) = (Arc::clone(&ledger), Arc::clone(&total));
            writers.push(tokio::spawn(write_over_rest(server.http.clone(), writer, first, ledger_, total_)));
        }
        // Under way, and at another moment of it in each cycle.
        let goal = before + 100 + cycle * 97 % 1_000;
        support::eventually("writes are under way", async || (total.load(Ordering::Relaxed) >= goal).then_some(()))
            .await;
        server.kill();
        for writer in writers {
            writer.await.unwrap();
        }
    }
    println!("{cycles} kills, {} acknowledged writes, {checked} checks, 0 lost", total.load(Ordering::Relaxed));
}
