//! `tandem wal cat|verify|stat`.

use std::{fs, os::unix::fs::PermissionsExt as _};

use serde_json::json;

use super::{Store, break_at};

/// A stopped server's data, in which every kind of command that clients send was logged; and the revisions of `n` = 0 to 9.
async fn stopped() -> (Store, Vec<u64>) {
    let mut store = Store::start();
    let mut revisions = Vec::new();
    for number in 0..10 {
        revisions.push(store.put("n", &number.to_string()).await);
    }
    store.put("odd%1Bkey%0A?ttl=1h", "x").await;
    store.send("POST", "/v1/counters/c", "").await;
    store.send("PATCH", "/v1/kv/n?ttl=2h", "").await;
    store
        .send(
            "POST",
            "/v1/kv:batchWrite",
            r#"{"writes":[{"put":{"key":"b1","value":"1"}},{"put":{"key":"b2","value":"2"}}]}"#,
        )
        .await;
    store.send("POST", "/v1/kv:txn", r#"{"then":[{"put":{"key":"t","value":"1"}}]}"#).await;
    store.send("DELETE", "/v1/kv/t", "").await;
    store.send("DELETE", "/v1/kv?prefix=b", "").await;
    store.stop();
    (store, revisions)
}

#[tokio::test]
async fn the_log_is_printed_for_people_and_no_byte_steers_the_terminal() {
    let (store, revisions) = stopped().await;
    let ran = store.run(&["wal", "cat", "--data-dir", "data"]).ends(0);
    let lines: Vec<_> = ran.out.lines().collect();
    assert!(lines[0].split_whitespace().eq(["REVISION", "INDEX", "TIME", "COMMAND", "WHAT"]), "{ran:?}");
    let ninth = lines.iter().find(|line| line.contains("n = 9 ")).unwrap();
    assert!(ninth.trim_start().starts_with(&revisions[9].to_string()) && ninth.contains(" put "), "{ninth}");
    for part in ["open ", "settings ", "increment ", "touch ", "batch_write ", "txn ", "delete ", "delete_range "] {
        assert!(lines.iter().any(|line| line.contains(part)), "no {part}: {ran:?}");
    }
    assert!(ran.out.contains("ttl 1h") && !ran.out.contains('\u{1b}'), "{ran:?}");
}

#[tokio::test]
async fn json_lines_are_log_records_of_the_schema() {
    use prost::Message as _;
    use prost_reflect::{DescriptorPool, DynamicMessage};
    use tandem::pb::storage::{LogRecord, log_record::Command};

    let (store, revisions) = stopped().await;
    let ran = store.run(&["wal", "cat", "--data-dir", "data", "--json"]).ends(0);
    let pool = DescriptorPool::decode(tandem::pb::ALL_DESCRIPTORS).unwrap();
    let descriptor = pool.get_message_by_name("tandem.storage.v1.LogRecord").unwrap();
    let mut records = Vec::new();
    for line in ran.out.lines() {
        let mut json = serde_json::Deserializer::from_str(line);
        let read = DynamicMessage::deserialize(descriptor.clone(), &mut json).unwrap();
        records.push(LogRecord::decode(&read.encode_to_vec()[..]).unwrap());
    }
    assert!(records.iter().enumerate().all(|(place, record)| record.index == place as u64 + 1));
    assert!(matches!(records[0].command, Some(Command::Open(_))));
    let last = records.iter().find(|record| record.index == revisions[9]).unwrap();
    assert!(matches!(&last.command, Some(Command::Put(put)) if put.value == "9"), "{last:?}");
    let line = ran.lines().into_iter().find(|line| line["index"] == json!(revisions[9].to_string())).unwrap();
    assert_eq!((&line["put"]["key"], &line["put"]["value"]), (&json!("bg=="), &json!("OQ==")));
}

#[tokio::test]
async fn a_part_of_the_log_is_printed_by_its_revisions() {
    let (store, revisions) = stopped().await;
    let (from, to) = (revisions[3].to_string(), revisions[5].to_string());
    let ran = store.run(&["wal", "cat", "--data-dir", "data", "--from", &from, "--to", &to, "--json"]).ends(0);
    let indexes: Vec<_> = ran.lines().iter().map(|line| line["index"].as_str().unwrap().to_owned()).collect();
    assert_eq!(indexes, revisions[3..=5].iter().map(u64::to_string).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_log_is_counted_by_command() {
    let (store, revisions) = stopped().await;
    let counted = &store.run(&["wal", "stat", "--data-dir", "data", "--json"]).ends(0).lines()[0];
    assert_eq!(counted["commands"]["put"]["records"], 11);
    assert_eq!(counted["commands"]["open"]["records"], 1);
    assert!(counted["commands"]["put"]["bytes"].as_u64().unwrap() >= 11 * 64);
    assert_eq!((&counted["first"]["index"], &counted["first"]["revision"]), (&json!(1), &json!(1)));
    assert!(counted["last"]["revision"].as_u64().unwrap() > revisions[9]);
    assert_eq!(
        (&counted["segments"][0]["end"], &counted["synced_index"]),
        (&json!("closed"), &counted["last"]["index"])
    );
    let ran = store.run(&["wal", "stat", "--data-dir", "data"]).ends(0);
    for part in ["SEQUENCE", "COMMAND", "put ", "all ", "from 2", "on disk for sure up to index"] {
        assert!(ran.out.contains(part), "no {part}: {ran:?}");
    }
}

#[tokio::test]
async fn a_whole_log_is_verified_and_replayed_to_its_state_hash() {
    let (store, _) = stopped().await;
    let ran = store.run(&["wal", "verify", "--data-dir", "data", "--replay", "--json"]).ends(0);
    let lines = ran.lines();
    assert_eq!((&lines[0]["ok"], &lines[0]["closed"]), (&json!(true), &json!(true)));
    assert_eq!(lines[1]["keys"], 3);
    assert_eq!(lines[1]["state_hash"].as_str().unwrap().len(), 32);
    // Files that nobody may write are read too.
    let segment = &store.files("wal")[0];
    fs::set_permissions(segment, fs::Permissions::from_mode(0o400)).unwrap();
    store.run(&["wal", "verify", segment.to_str().unwrap()]).ends(0);
}

#[tokio::test]
async fn damage_is_exit_code_1_with_file_offset_and_remedy() {
    let (store, _) = stopped().await;
    let segment = store.files("wal")[0].clone();
    break_at(&segment, 4096 + 40);
    for command in ["verify", "cat", "stat"] {
        let ran = store.run(&["wal", command, "--data-dir", "data"]).ends(1);
        let place = format!("{} at offset 4096: ", "data/wal/00000000000000000001.wal");
        assert!(ran.err.contains(&place) && ran.err.contains("Remedy: "), "{command}: {ran:?}");
    }
    let ran = store.run(&["wal", "verify", "--data-dir", "data", "--json"]).ends(1);
    let line = &ran.lines()[0];
    assert_eq!((&line["ok"], &line["kind"], &line["offset"]), (&json!(false), &json!("damaged"), &json!(4096)));
}

#[tokio::test]
async fn a_torn_tail_is_told_and_is_no_damage() {
    let mut store = Store::start();
    store.put("a", "1").await;
    store.kill();
    let segment = store.files("wal")[0].clone();
    let whole = store.run(&["wal", "stat", "--data-dir", "data", "--json"]).ends(0).lines()[0]["segments"][0].clone();
    assert_eq!(whole["end"], "open");
    let end = whole["frames_end"].as_u64().unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    bytes[end as usize + 3] = 7;
    fs::write(&segment, bytes).unwrap();
    let ran = store.run(&["wal", "verify", "--data-dir", "data", "--json"]).ends(0);
    assert_eq!(ran.lines()[0]["torn_at"], end);
    assert!(store.run(&["wal", "cat", "--data-dir", "data"]).ends(0).err.contains("a torn tail"));
}

#[tokio::test]
async fn foreign_and_newer_files_are_refused_by_name() {
    let (store, _) = stopped().await;
    let segment = store.files("wal")[0].clone();
    let newer = store.directory.path().join("newer");
    let mut bytes = fs::read(&segment).unwrap();
    bytes[8] = 2;
    fs::write(&newer, &bytes).unwrap();
    let ran = store.run(&["wal", "verify", "newer", segment.to_str().unwrap()]).ends(2);
    assert!(ran.err.contains("newer at offset 0: format version 2 is newer than 1"), "{ran:?}");
    assert!(ran.out.contains("00000000000000000001.wal: whole"), "the others are looked at: {ran:?}");
    fs::write(&newer, "holiday").unwrap();
    store.run(&["wal", "cat", "newer"]).ends(1);
    fs::write(&newer, vec![b'x'; 5_000]).unwrap();
    assert!(store.run(&["wal", "cat", "newer"]).ends(2).err.contains("not a segment of a Tandem log"));
}

#[tokio::test]
async fn a_log_that_does_not_reach_back_is_missing_something() {
    let (store, _) = stopped().await;
    fs::remove_file(&store.files("wal")[0]).unwrap();
    store.run(&["wal", "verify", "--data-dir", "data"]).ends(0);
    let (store, _) = stopped().await;
    let segment = store.files("wal")[0].clone();
    fs::create_dir_all(store.directory.path().join("data/snapshots")).unwrap();
    fs::copy(&segment, store.directory.path().join("data/snapshots/00000000000000000900.snap")).unwrap();
    let ran = store.run(&["wal", "verify", "--data-dir", "data"]).ends(1);
    assert!(ran.err.contains("the log ends before index 900, which a snapshot holds"), "{ran:?}");
}
