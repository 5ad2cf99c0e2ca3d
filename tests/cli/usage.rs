//! Help, completions, and what happens when there is no server.

use std::process::{Command, Stdio};

use crate::{Store, finish, support};

const COMMANDS: [&str; 14] = [
    "bench", "get", "put", "del", "incr", "touch", "list", "scan", "watch", "count", "txn", "lock", "export", "import",
];

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
        let widest = help.text().lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(100), "{command}: a line is wider than the help is set");
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
fn another_listener_is_told_from_the_right_one() {
    let store = Store::start();
    let ran = store.run(&["get", "k", "--endpoint", &store.server.http]).ends(69);
    assert!(ran.err.starts_with("tandem: UNIMPLEMENTED: ") && ran.err.contains("16701"), "{ran:?}");
}

/// Runs a line of shell on a terminal, if there is a program that makes one.
fn on_terminal(store: &Store, line: &str) -> Option<String> {
    let program = support::binary().display().to_string();
    let mut script = Command::new("script");
    script.args(["-qec", &line.replace("tandem ", &format!("{program} ")), "/dev/null"]).stdin(Stdio::null());
    script.env("TANDEM_ENDPOINT", &store.server.grpc).env("SHELL", "/bin/sh").current_dir(store.directory.path());
    let ran = crate::ran(script.output().ok()?).done();
    Some(ran.text().replace("\r\n", "\n"))
}

#[test]
fn a_terminal_gets_text_and_no_byte_of_a_value_steers_it() {
    let store = Store::start();
    store.run_with_input(&["put", "k", "-"], b"\x1b[2Jred\xff").done();
    let Some(value) = on_terminal(&store, "tandem get k") else {
        println!("skipped: script is not there");
        return;
    };
    assert_eq!(value, "\\u{1b}[2Jred\\xff\n");
    let table = on_terminal(&store, "tandem list --all").unwrap();
    assert!(table.starts_with("KEY ") && table.contains("\\u{1b}[2Jred"), "{table:?}");
    // A bar is drawn beside what goes into a file, and goes.
    let drawn = on_terminal(&store, "tandem export > all.ndjson").unwrap();
    assert!(drawn.contains("tandem: exported 1 entries"), "{drawn:?}");
    assert_eq!(std::fs::read_to_string(store.directory.path().join("all.ndjson")).unwrap().lines().count(), 2);
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
