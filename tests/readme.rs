//! The README's commands, run as they stand there, against a server on free ports.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod support;

use std::{path::Path, process::Command};

use support::Server;

/// The block behind `<!-- run by tests/readme.rs: NAME -->`.
fn block(name: &str) -> String {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let marker = format!("<!-- run by tests/readme.rs: {name} -->\n```sh\n");
    let rest = readme.split_once(&marker).unwrap_or_else(|| panic!("no block {name}")).1;
    rest.split_once("```").unwrap().0.to_owned()
}

fn has(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    assert!(there || std::env::var_os("TANDEM_REQUIRE_TOOLS").is_none(), "{program} is not there");
    there
}

/// Runs a block with the default addresses replaced by the server's.
fn run(block: &str, server: &Server, directory: &Path) -> String {
    let script = block.replace("127.0.0.1:16700", &server.http).replace("127.0.0.1:16701", &server.grpc);
    // `tandem` is the program under test, and talks to this server.
    let tandem = format!("tandem() {{ TANDEM_ENDPOINT={} '{}' \"$@\"; }}", server.grpc, support::binary().display());
    let script = format!("{tandem}\n{script}");
    let output = Command::new("bash").args(["-euc", &script]).current_dir(directory).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{script}\n{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn the_curl_lines_do_what_they_show() {
    if !has("curl") {
        println!("skipped: curl is not there");
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let text = run(&block("curl"), &server, data.path());
    let statuses: Vec<_> = text.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(statuses, ["201", "200", "201", "200", "204"], "{text}");
    assert!(text.contains("\r\n\r\nhello"), "{text}");
}

#[test]
fn the_command_line_does_what_it_shows() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let text = run(&block("command line"), &server, data.path());
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[1].starts_with("hello5"), "{text}");
    assert!(text.contains("\nphoto ") && text.contains("\n3\n") && text.ends_with("exit code 1\n"), "{text}");
    assert!(text.contains(r#"{"entries":[{"key":"greeting","value":"hello","#), "{text}");
}

#[test]
fn a_load_is_borne_over_both_doors_and_drawn() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let text = run(&block("bench"), &server, data.path());
    assert!(text.contains("mixed with 90% reads over gRPC") && text.contains("put over REST"), "{text}");
    assert!(std::fs::read_to_string(data.path().join("put.svg")).unwrap().starts_with("<svg"));
}

#[test]
fn a_lock_is_held_as_the_command_line_and_curl_show() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let fence = |text: &str| text.trim().strip_prefix("working with fence ").unwrap().parse::<u64>().unwrap();
    let first = fence(&run(&block("lock"), &server, data.path()));
    if !has("curl") {
        println!("skipped: curl is not there");
        return;
    }
    let second = fence(&run(&block("lock by curl"), &server, data.path()));
    assert!(second > first);
    // It was let go.
    assert!(fence(&run(&block("lock"), &server, data.path())) > second);
}

#[test]
fn the_python_call_does_what_it_shows() {
    // Installs packages: only where everything is required.
    if std::env::var_os("TANDEM_REQUIRE_TOOLS").is_none() {
        println!("skipped: run by .ci/run, which may install packages");
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path());
    let directory = tempfile::tempdir().unwrap();
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    std::os::unix::fs::symlink(proto, directory.path().join("proto")).unwrap();
    let text = run(&block("python"), &server, directory.path());
    assert!(text.contains("created: true") && text.contains("b'hello from Python'"), "{text}");
}
