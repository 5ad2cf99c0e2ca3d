//! `tandem scan` and `tandem watch`: what goes on, and what goes on over more than one connection.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, ChildStdout},
};

use crate::{Store, relay::Relay, support};

#[test]
fn a_range_is_scanned_in_each_format() {
    let store = Store::start();
    for (key, value) in [("a/1", "x"), ("a/2", "y"), ("b", "z"), ("c/1", "")] {
        store.run(&["put", key, value]).done();
    }
    assert_eq!(store.run(&["scan", "--all", "--keys-only"]).done().text(), "a/1\na/2\nb\nc/1\n");
    assert_eq!(store.run(&["scan", "--all", "--delimiter", "/", "--keys-only"]).done().text(), "a/\nb\nc/\n");
    let folded = store.run(&["scan", "--all", "--delimiter", "/", "--keys-only", "--descending"]).done();
    assert_eq!(folded.text(), "c/\nb\na/\n");
    assert_eq!(store.run(&["scan", "--all", "--limit", "2"]).done().text(), "a/1\tx\na/2\ty\n");
    assert!(store.run(&["scan", "--prefix", "a/", "-o", "text"]).done().text().starts_with("KEY "));
    let lines = store.run(&["scan", "--all", "--delimiter", "/", "-o", "json"]).done();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let url = store.server.url("/v1/kv?all&delimiter=/");
    let headers = [("accept", "application/x-ndjson")];
    let by_rest = runtime.block_on(support::send(&support::client(), "GET", &url, &headers, b""));
    assert_eq!(lines.text(), by_rest.text());
    assert!(lines.text().lines().last().unwrap().starts_with("{\"end\":true,"), "{lines:?}");
    let cut = store.run(&["scan", "--all", "--limit", "1", "-o", "json"]).done();
    assert_eq!(cut.text().lines().count(), 1, "what was not read to its end has no end mark: {cut:?}");
}

#[test]
fn a_range_is_deleted_and_counted_before() {
    let store = Store::start();
    let input: String = (0..1_500).map(|n| format!("{{\"key\":\"tmp/{n}\",\"value\":\"\"}}\n")).collect();
    store.run_with_input(&["import"], input.as_bytes()).done();
    store.run(&["put", "kept", "1"]).done();
    let dry = store.run(&["del", "--prefix", "tmp/", "--dry-run", "-o", "text"]).done();
    assert_eq!(dry.text(), "1500 keys would be deleted (dry run: nothing was changed)\n");
    let deleted = store.run(&["del", "--prefix", "tmp/", "-o", "json"]).done().json();
    assert_eq!((&deleted["deleted"], &deleted["complete"]), (&1_500.into(), &true.into()), "{deleted}");
    assert_eq!(store.run(&["del", "--prefix", "tmp/"]).done().out, b"0\n");
    for everything in [&["del"][..], &["del", "--prefix", ""], &["del", "--start", ""], &["del", "k", "--all"]] {
        store.run(everything).ends(64);
    }
    store.run(&["del", "--all", "--if-exists"]).ends(64);
    assert_eq!(store.run(&["count", "--all"]).done().out, b"1\n");
    assert_eq!(store.run(&["del", "--all"]).done().out, b"1\n");
}

/// A watcher that runs until it is dropped.
struct Watcher {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Watcher {
    fn start(store: &Store, arguments: &[&str]) -> Self {
        let mut child = store.command(&[&["watch"], arguments].concat()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.lines.read_line(&mut line).unwrap() > 0, "the watcher ended");
        line.trim_end_matches('\n').to_owned()
    }

    /// The next line as JSON that is no mark of progress.
    fn json(&mut self) -> serde_json::Value {
        loop {
            let message: serde_json::Value = serde_json::from_str(&self.line()).unwrap();
            if message.as_object().unwrap().len() > 1 {
                return message;
            }
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn revision_of(ran: crate::Ran) -> u64 {
    ran.done().text().trim().parse().unwrap()
}

#[test]
fn changes_are_watched_in_each_format() {
    let store = Store::start();
    let first = revision_of(store.run(&["put", "a", "1"]));
    let from = first.to_string();
    let put = revision_of(store.run(&["put", "a", "2\t"]));
    let deleted = revision_of(store.run(&["del", "a"]));
    store.run(&["put", "b", "other"]).done();
    let mut raw = Watcher::start(&store, &["a", "--from", &from]);
    let lines = [raw.line(), raw.line(), raw.line()];
    assert_eq!(
        lines,
        [format!("put\t{first}\ta\t1"), format!("put\t{put}\ta\t2\t"), format!("delete\t{deleted}\ta\t")]
    );
    let mut text = Watcher::start(&store, &["a", "--from", &from, "-o", "text", "--previous"]);
    let lines = [text.line(), text.line(), text.line()];
    assert!(lines[0].ends_with("put     a = 1") && lines[1].ends_with("put     a = 2\\t  (before: 1)"), "{lines:#?}");
    assert!(lines[2].ends_with("delete  a  (before: 2\\t)"), "{lines:#?}");
    let mut json =
        Watcher::start(&store, &["--prefix", "a", "--from", &from, "-o", "json", "--kinds", "delete,expire"]);
    let message = json.json();
    assert_eq!((&message["revision"], &message["events"][0]["kind"]), (&deleted.into(), &"delete".into()), "{message}");
}

#[test]
fn the_state_comes_first_where_it_is_asked_for() {
    let store = Store::start();
    store.run(&["put", "a", "1"]).done();
    let mut watcher = Watcher::start(&store, &["--all", "--initial-state"]);
    assert!(watcher.line().ends_with("\ta\t1"));
    assert!(watcher.line().starts_with("synced\t"));
    store.run(&["put", "b", "2"]).done();
    assert!(watcher.line().ends_with("\tb\t2"));
}

#[test]
fn a_watcher_goes_on_when_the_server_is_back_and_misses_nothing() {
    let mut store = Store::start();
    let relay = Relay::to(&store.server.grpc);
    store.run(&["put", "k", "0"]).done();
    let mut watcher = Watcher::start(&store, &["k", "--initial-state", "--endpoint", &relay.address]);
    assert!(watcher.line().ends_with("\tk\t0"));
    assert!(watcher.line().starts_with("synced\t"));
    for signal in ["KILL", "TERM"] {
        store.run(&["put", "k", &format!("before {signal}")]).done();
        assert!(watcher.line().ends_with(&format!("before {signal}")));
        store.server.signal(signal);
        store.server.exit_code();
        // The watcher cannot reach the next server, and so misses this.
        store.server = support::Server::start(&store.directory.path().join("data"));
        store.run(&["put", "k", &format!("meanwhile {signal}")]).done();
        relay.turn_to(&store.server.grpc);
        assert!(watcher.line().ends_with(&format!("meanwhile {signal}")));
    }
}

#[test]
fn a_command_runs_for_each_event() {
    let store = Store::start();
    let from = revision_of(store.run(&["put", "a", "1"])).to_string();
    store.run(&["put", "b c", "two\nlines"]).done();
    store.run(&["del", "a"]).done();
    let script = "echo \"$TANDEM_KIND:$TANDEM_KEY:$TANDEM_KEY_BASE64:$TANDEM_REVISION:$(cat | wc -c)\"; exit 3";
    let mut watcher = Watcher::start(&store, &["--all", "--from", &from, "--exec", script]);
    let lines = [watcher.line(), watcher.line(), watcher.line()];
    assert_eq!(lines[0], format!("put:a:YQ==:{from}:1"));
    assert!(lines[1].starts_with("put:b c:YiBj:") && lines[1].ends_with(":9"), "{lines:#?}");
    assert!(lines[2].starts_with("delete:a:YQ==:") && lines[2].ends_with(":0"), "{lines:#?}");
    // A command that fails is told of, and does not end the watch.
    watcher.child.kill().unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut watcher.child.stderr.take().unwrap(), &mut said).unwrap();
    assert!(said.contains("the command failed: exit status: 3"), "{said}");
}

#[test]
fn what_cannot_be_watched_is_refused() {
    let store = Store::start();
    let ran = store.run(&["watch", "k", "--from", "99999999"]).ends(2);
    assert!(ran.err.starts_with("tandem: REVISION_FUTURE: "), "{ran:?}");
    store.run(&["watch"]).ends(64);
    store.run(&["watch", "k", "--all"]).ends(64);
    store.run(&["watch", "k", "--kinds", "puts"]).ends(64);
}

#[test]
fn a_scan_ends_with_its_reader() {
    let store = Store::start();
    let input: String = (0..20_000).map(|n| format!("{{\"key\":\"{n:0100}\",\"value\":\"\"}}\n")).collect();
    store.run_with_input(&["import"], input.as_bytes()).done();
    let mut child = store.command(&["scan", "--all"]).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ended = crate::ran(child.wait_with_output().unwrap()).done();
    assert_eq!(ended.err, "");
}
