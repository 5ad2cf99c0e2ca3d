//! Help, completions, wrong usage, and what a running server forbids.

use super::{Store, tandem};

const COMMANDS: [&[&str]; 7] = [
    &["wal", "cat"],
    &["wal", "verify"],
    &["wal", "stat"],
    &["snapshot", "ls"],
    &["snapshot", "cat"],
    &["snapshot", "verify"],
    &["restore"],
];

#[test]
fn every_command_has_help_with_examples_and_is_completed() {
    let directory = tempfile::tempdir().unwrap();
    let script = tandem(directory.path(), &["completions", "bash"]).ends(0).out;
    for command in COMMANDS {
        let help = tandem(directory.path(), &[command, &["--help"]].concat()).ends(0).out;
        assert!(help.contains(&format!("Examples:\n  tandem {}", command.join(" "))), "{help}");
        assert!(help.contains("--data-dir"), "{help}");
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{command:?}: a line is too wide: {help}");
        assert!(script.contains(&command.join("__")) || script.contains(&command.join("__subcmd__")), "{command:?}");
    }
}

#[test]
fn wrong_usage_is_exit_code_64() {
    let directory = tempfile::tempdir().unwrap();
    for arguments in [
        &["wal"][..],
        &["wal", "cat"],
        &["wal", "cat", "a.wal", "--data-dir", "data"],
        &["wal", "cat", "a.wal", "--from", "x"],
        &["wal", "verify", "a.wal", "--replay"],
        &["wal", "verify", "--endpoint", "http://127.0.0.1:1", "--replay"],
        &["wal", "verify", "a.wal", "--endpoint=http://127.0.0.1:1"],
        &["wal", "verify", "--endpoint", "https://127.0.0.1:1"],
        &["wal", "stat", "--endpoint", "http://127.0.0.1:1"],
        &["snapshot", "verify"],
        &["snapshot", "verify", "--data-dir", "data", "--endpoint"],
        &["snapshot", "cat", "a.snap", "--part", "all"],
        &["restore", "a.snap"],
        &["restore", "a.snap", "--data-dir", "d", "--to-revision", "1"],
        &["restore", "a.snap", "--data-dir", "d", "--wal", "w", "--to-time", "yesterday"],
        &[
            "restore",
            "a.snap",
            "--data-dir",
            "d",
            "--wal",
            "w",
            "--to-time",
            "2026-01-01T00:00:00Z",
            "--to-revision",
            "1",
        ],
        &["--data-dir", "data", "wal", "cat"],
    ] {
        assert!(!tandem(directory.path(), arguments).ends(64).err.is_empty(), "{arguments:?}");
    }
}

#[tokio::test]
async fn a_running_servers_directory_is_refused_with_the_remedy_and_its_files_are_read() {
    let store = Store::start();
    store.put("a", "1").await;
    for command in [&["wal", "cat"][..], &["wal", "verify"], &["wal", "stat"], &["snapshot", "ls"]] {
        let ran = store.run(&[command, &["--data-dir", "data"]].concat()).ends(2);
        let pid = store.server.as_ref().unwrap().child.id();
        assert!(ran.err.contains(&format!("process {pid}")) && ran.err.contains("Remedy: stop that server"), "{ran:?}");
    }
    let segment = store.files("wal")[0].display().to_string();
    let ran = store.run(&["wal", "cat", &segment]).ends(0);
    assert!(ran.out.contains("a = 1 (1 bytes)"), "{ran:?}");
    store.run(&["wal", "verify", &segment]).ends(0);
}

#[test]
fn a_server_that_cannot_be_asked_is_exit_code_69() {
    let directory = tempfile::tempdir().unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for command in ["wal", "snapshot"] {
        let ran = tandem(directory.path(), &[command, "verify", "--endpoint", &closed]).ends(69);
        assert!(ran.err.contains("UNAVAILABLE: ") && ran.err.contains("TANDEM_OPS_ENDPOINT"), "{ran:?}");
    }
}

#[test]
fn what_is_not_there_or_not_a_store_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let ran = tandem(directory.path(), &["wal", "cat", "--data-dir", "."]).ends(2);
    assert!(ran.err.contains("there is no store"), "{ran:?}");
    assert!(std::fs::read_dir(directory.path()).unwrap().next().is_none(), "nothing was made");
    let ran = tandem(directory.path(), &["wal", "verify", "nowhere.wal"]).ends(2);
    assert!(ran.err.contains("nowhere.wal"), "{ran:?}");
}
