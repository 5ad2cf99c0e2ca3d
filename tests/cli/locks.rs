//! `tandem lock`: one holder at a time, a fence that rises, and no command that outlives its lock.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
};

use crate::{Store, ran};

/// A holder whose command has begun: it printed its fence, and ends when its input ends.
struct Holder {
    child: Child,
    fence: u64,
}

impl Holder {
    fn start(store: &Store, options: &[&str]) -> Self {
        let script = "echo $TANDEM_FENCE; exec cat";
        let arguments = [&["lock", "the-lock"], options, &["--", "sh", "-c", script]].concat();
        let mut child = store.command(&arguments).stdin(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, fence: line.trim().parse().unwrap_or_else(|_| panic!("no fence: {line:?}")) }
    }

    /// Ends the command's input, and gives the exit code.
    fn finish(mut self) -> Option<i32> {
        drop(self.child.stdin.take());
        self.child.wait().unwrap().code()
    }
}

#[test]
fn a_lock_has_one_holder_at_a_time_and_its_fence_rises() {
    let store = Store::start();
    let first = Holder::start(&store, &[]);
    let refused = store.run(&["lock", "the-lock", "--", "true"]).ends(1);
    assert!(refused.err.starts_with("tandem: KEY_EXISTS: "), "{refused:?}");
    let held = store.run(&["get", "the-lock", "-o", "json"]).done().json();
    assert_eq!(held["create_revision"], first.fence);
    assert!(held["expire_time"].is_string(), "{held}");
    let fence = first.fence;
    assert_eq!(first.finish(), Some(0));
    store.run(&["get", "the-lock"]).ends(1);
    let second = Holder::start(&store, &[]);
    assert!(second.fence > fence);
    assert_eq!(second.finish(), Some(0));
}

#[test]
fn a_holder_waits_until_the_lock_is_let_go_or_expires() {
    let store = Store::start();
    let first = Holder::start(&store, &[]);
    let fence = first.fence;
    let in_vain = store.run(&["lock", "the-lock", "--wait=50ms", "--", "true"]).ends(1);
    assert!(in_vain.err.starts_with("tandem: KEY_EXISTS: "), "{in_vain:?}");
    let waiting = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| Holder::start(&store, &["--wait"]));
        assert_eq!(first.finish(), Some(0));
        waiting.join().unwrap()
    });
    assert!(waiting.fence > fence);
    assert_eq!(waiting.finish(), Some(0));
    // Of a holder that vanished the lock expires.
    store.run(&["put", "the-lock", "nobody", "--ttl", "300ms"]).done();
    assert_eq!(Holder::start(&store, &["--wait"]).finish(), Some(0));
}

#[test]
fn the_exit_code_is_the_commands() {
    let store = Store::start();
    store.run(&["lock", "k", "--", "sh", "-c", "exit 7"]).ends(7);
    store.run(&["lock", "k", "--", "sh", "-c", "kill -KILL $$"]).ends(128 + 9);
    let ran = store.run(&["lock", "k", "--", "/no/such/program"]).ends(64);
    assert!(ran.err.contains("/no/such/program"), "{ran:?}");
    // Each of them let the lock go.
    store.run(&["get", "k"]).ends(1);
}

#[test]
fn a_lock_is_kept_alive_for_longer_than_its_time_to_live() {
    let store = Store::start();
    let holder = Holder::start(&store, &["--ttl", "2s"]);
    let expires = || store.run(&["get", "the-lock", "-o", "json"]).done().json()["expire_time"].to_string();
    let (first, mut changes, mut last) = (expires(), 0, expires());
    while changes < 4 {
        let now = expires();
        changes += usize::from(now != last);
        last = now;
    }
    assert!(last > first);
    assert_eq!(holder.finish(), Some(0));
}

#[test]
fn a_command_is_ended_when_its_lock_is_lost() {
    let store = Store::start();
    let mut holder = Holder::start(&store, &["--ttl", "1s"]);
    let _open = holder.child.stdin.take();
    // Somebody removes the key, and another takes it: the touch must not prolong the other's lock.
    store.run(&["del", "the-lock"]).done();
    store.run(&["put", "the-lock", "another", "--if-absent", "--ttl", "1h"]).done();
    let ended = ran(holder.child.wait_with_output().unwrap()).ends(69);
    assert!(ended.err.contains("LOCK_LOST: "), "{ended:?}");
    assert_eq!(store.run(&["get", "the-lock"]).done().out, b"another");
}

#[test]
fn a_command_is_killed_that_does_not_end_when_the_server_is_gone() {
    let store = Store::start();
    let script = "trap '' TERM; echo begun; while :; do sleep 0.1; done";
    let mut child = store.command(&["lock", "k", "--ttl", "1s", "--", "sh", "-c", script]).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "begun\n");
    let Store { server, directory: _directory } = store;
    server.kill();
    let ended = ran(child.wait_with_output().unwrap()).ends(69);
    assert!(ended.err.contains("LOCK_LOST: "), "{ended:?}");
    // The whole group is gone: nobody holds the pipe any more.
    line.clear();
    assert_eq!(out.read_line(&mut line).unwrap(), 0);
}

#[test]
fn signals_reach_the_command() {
    let store = Store::start();
    let script = "trap 'echo terminated; exit 5' TERM; echo begun; while :; do sleep 0.01; done";
    let mut child = store.command(&["lock", "k", "--", "sh", "-c", script]).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    line.clear();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "terminated\n");
    assert_eq!(child.wait().unwrap().code(), Some(5));
    store.run(&["get", "k"]).ends(1);
}
