//! Help, completions, and what happens when there is no server.

use std::process::{Command, Stdio};

use crate::{Store, finish, support};

const COMMANDS: [&str; 13] =
    ["get", "put", "del", "incr", "touch", "list", "scan", "watch", "count", "txn", "lock", "export", "import"];

fn tandem(arguments: &[&str]) -> crate::Ran {
    finish(Command::new(support::binary()).args(arguments).stdin(Stdio::null()))
}

#[test]
fn every_command_has_help_with_examples() {
    for command in COMMANDS {
        let help = tandem(&[command, "--help"]).done();
        for part in ["Examples:\n  tandem ", "--endpoint", "TANDEM_ENDPOINT"] {
            assert!(help.text().contains(part), "{command}: no {part}: {}", help.text());
        }
        assert!(!help.text().contains("--data-dir"), "{command}: the server's flags are none of its own");
    }
}

#[test]
fn every_shell_completes_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = tandem(&["completions", shell]).done();
        for command in COMMANDS {
            assert!(script.text().contains(command), "{shell}: {command}");
        }
    }
    if Command::new("bash").arg("--version").output().is_ok() {
        let script = "source <(\"$0\" completions bash); COMP_WORDS=(tandem inc); COMP_CWORD=1; _tandem tandem inc tandem; echo ${COMPREPLY[@]}";
        let completed = finish(Command::new("bash").args(["-c", script]).arg(support::binary())).done();
        assert_eq!(completed.text(), "incr\n");
    }
}

#[test]
fn a_server_that_cannot_be_reached_is_exit_code_69_and_says_what_to_do() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ran = tandem(&["get", "k", "--endpoint", &format!("http://{closed}")]).ends(69);
    assert!(ran.err.starts_with("tandem: UNAVAILABLE: ") && ran.err.contains("TANDEM_ENDPOINT"), "{ran:?}");
    assert!(ran.err.contains("refused"), "{ran:?}");
}

#[test]
fn a_server_that_does_not_answer_is_exit_code_69() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = silent.local_addr().unwrap().to_string();
    let ran = tandem(&["get", "k", "--timeout", "200ms", "--endpoint", &endpoint]).ends(69);
    assert!(ran.err.starts_with("tandem: DEADLINE: ") && ran.err.contains("--timeout"), "{ran:?}");
}

#[test]
fn wrong_usage_is_exit_code_64() {
    for arguments in [
        &["get"][..],
        &["put", "k"],
        &["put", "k", "v", "--ttl", "60"],
        &["put", "k", "v", "--ttl", "1s", "--keep-ttl"],
        &["touch", "k"],
        &["list"],
        &["list", "--prefix", "a", "--all"],
        &["list", "--all", "--limit", "1001"],
        &["lock", "k"],
        &["get", "k", "--endpoint", "https://127.0.0.1:1"],
        &["get", "k", "--data-dir", "x"],
        &["--data-dir", "x", "get", "k"],
        &["completions", "tcsh"],
    ] {
        let ran = tandem(arguments).ends(64);
        assert!(!ran.err.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_reader_that_closed_the_pipe_has_read_enough() {
    let store = Store::start();
    store.run_with_input(&["put", "big", "-"], &vec![b'x'; 1 << 20]).done();
    let mut child = store.command(&["get", "big"]).spawn().unwrap();
    drop(child.stdout.take());
    let ended = crate::ran(child.wait_with_output().unwrap()).done();
    assert_eq!(ended.err, "");
}
