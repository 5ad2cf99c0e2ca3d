//! `tandem snapshot ls|cat|verify`.

use serde_json::json;

use super::{break_at, restores::with_backup, support::Server};

#[tokio::test]
async fn snapshots_are_listed_with_what_they_say_of_themselves() {
    let store = with_backup().await.store;
    for arguments in [&["--data-dir", "data"][..], &["backup.snap"]] {
        let ran = store.run(&[&["snapshot", "ls", "--json"], arguments].concat()).ends(0);
        let line = &ran.lines()[0];
        assert_eq!(
            (&line["ok"], &line["keys"], &line["program_version"]),
            (&json!(true), &json!(11), &json!(env!("CARGO_PKG_VERSION")))
        );
        assert!(line["revision"].as_u64().unwrap() >= line["index"].as_u64().unwrap());
        let ran = store.run(&[&["snapshot", "ls"], arguments].concat()).ends(0);
        assert!(ran.out.contains("STATE HASH") && ran.out.contains(line["state_hash"].as_str().unwrap()), "{ran:?}");
    }
}

#[tokio::test]
async fn entries_answers_and_history_are_printed_as_the_schema_has_them() {
    let store = with_backup().await.store;
    let lines = |part: &str| store.run(&["snapshot", "cat", "backup.snap", "--json", "--part", part]).ends(0).lines();
    let entries = lines("entries");
    assert_eq!(entries.len(), 11);
    // n = 9
    let entry = entries.iter().find(|entry| entry["key"] == "bg==").unwrap();
    assert_eq!((&entry["value"], &entry["version"]), (&json!("OQ=="), &json!("10")));
    assert!(entry["update_time"].as_str().unwrap().ends_with('Z'), "{entry}");
    let history = lines("history");
    assert_eq!(history.len(), 20);
    assert_eq!(history[0]["kind"], "EVENT_KIND_PUT");
    let answers = lines("answers");
    assert_eq!((answers.len(), &answers[0]["request_id"]), (20, &json!("n=0")));
    let ran = store.run(&["snapshot", "cat", "--data-dir", "data"]).ends(0);
    assert!(ran.out.starts_with("KEY ") && ran.out.lines().any(|line| line.starts_with("n ")), "{ran:?}");
    for (part, text) in [("answers", "done, version 1"), ("history", "n = 3")] {
        let ran = store.run(&["snapshot", "cat", "backup.snap", "--part", part]).ends(0);
        assert!(ran.out.contains(text), "{part}: {ran:?}");
    }
}

#[tokio::test]
async fn a_damaged_snapshot_is_exit_code_1_with_file_offset_and_remedy() {
    let store = with_backup().await.store;
    let ran = store.run(&["snapshot", "verify", "backup.snap", "--data-dir", "data"]).ends(64);
    assert!(!ran.err.is_empty());
    let ran = store.run(&["snapshot", "verify", "backup.snap"]).ends(0);
    assert!(ran.out.contains("backup.snap: whole, 11 keys at revision ") && ran.out.contains("state hash "), "{ran:?}");
    break_at(&store.directory.path().join("backup.snap"), 4096 + 300);
    for command in ["verify", "cat"] {
        let ran = store.run(&["snapshot", command, "backup.snap"]).ends(1);
        assert!(ran.err.contains("backup.snap at offset ") && ran.err.contains("Remedy: "), "{command}: {ran:?}");
    }
    let ran = store.run(&["snapshot", "verify", "backup.snap", "--json"]).ends(1);
    assert_eq!(ran.lines()[0]["kind"], "damaged");
    // The one in the directory is whole still.
    store.run(&["snapshot", "verify", "--data-dir", "data"]).ends(0);
}

#[tokio::test]
async fn a_running_server_verifies_its_snapshots_and_its_log_and_damage_is_exit_code_1() {
    let mut store = with_backup().await.store;
    let snapshot = store.files("snapshots")[0].clone();
    let server = Server::start(&store.directory.path().join("data"));
    let endpoint = format!("http://{}", server.ops);
    store.server = Some(server);
    for command in ["snapshot", "wal"] {
        let ran = store.run(&[command, "verify", "--endpoint", &endpoint]).ends(0);
        let lines: Vec<_> = ran.out.lines().collect();
        assert!(lines[0].starts_with("snapshots/") && lines[0].contains(": whole, 11 keys, state hash "), "{ran:?}");
        assert!(lines[1].starts_with("wal/") && lines[1].contains(": whole, "), "{ran:?}");
        let ran = store.run(&[command, "verify", "--json", "--endpoint", &endpoint]).ends(0);
        let (first, second) = (&ran.lines()[0], &ran.lines()[1]);
        assert_eq!((&first["ok"], &first["keys"]), (&json!(true), &json!(11)));
        assert!(
            first["state_hash"].as_str().unwrap().len() == 32 && second["records"].as_u64().unwrap() > 0,
            "{ran:?}"
        );
    }
    break_at(&snapshot, 4096 + 300);
    let ran = store.run(&["snapshot", "verify", "--endpoint", &endpoint]).ends(1);
    assert!(ran.err.contains(" at offset ") && ran.err.contains("Remedy: ") && ran.out.contains("wal/"), "{ran:?}");
    let ran = store.run(&["wal", "verify", "--json", "--endpoint", &endpoint]).ends(1);
    assert_eq!(ran.lines()[0]["ok"], json!(false));
    assert!(ran.lines()[0]["reason"].as_str().unwrap().contains("Remedy: "), "{ran:?}");
}

#[tokio::test]
async fn a_snapshot_of_a_newer_format_is_refused_by_name() {
    let store = with_backup().await.store;
    let path = store.directory.path().join("backup.snap");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[8] = 2;
    std::fs::write(&path, bytes).unwrap();
    for command in [&["snapshot", "ls", "backup.snap"][..], &["restore", "backup.snap", "--data-dir", "new"]] {
        let ran = store.run(command).ends(2);
        assert!(ran.err.contains("backup.snap at offset 0: format version 2 is newer than 1"), "{ran:?}");
    }
    assert!(!store.directory.path().join("new").exists(), "nothing was made");
}
