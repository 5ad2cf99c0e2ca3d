//! A guard that depends on no clock: how many instructions the hot paths take, counted by valgrind's callgrind and held to
//! the figures that are checked in.
//!
//!     cargo run --release --features measuring --bin instructions              counts; fails where a path needs over 5% more
//!     cargo run --release --features measuring --bin instructions -- --write   counts, and writes the figures anew
//!
//! Another compiler makes other instructions: where it, or the kind of processor, is another than the figures', this says so
//! and compares nothing. A path that needs over 5% less is told of, so that the figures are written anew and stay tight.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[path = "../paths/mod.rs"]
mod paths;

use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf, process::Command};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What a count may differ by.
const TOLERANCE: f64 = 0.05;
/// Calls before the counted ones: what is made once is made.
const WARM_UP: usize = 200;
/// Calls that are counted.
const COUNTED: usize = 1_000;

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => compare(),
        ["--write"] => write(),
        ["--run", name] => run(name),
        _ => panic!("takes nothing, or --write"),
    }
}

/// Within callgrind.
fn run(name: &str) {
    let (_, set_up) = paths::PATHS.into_iter().find(|(found, _)| *found == name).unwrap();
    let mut path = set_up();
    repeat(WARM_UP, &mut path);
    counted_calls(&mut path);
    // Threads of an engine may still be running: nobody waits for them.
    std::process::exit(0);
}

fn repeat(times: usize, path: &mut paths::Path) {
    (0..times).for_each(|_| path());
}

/// Callgrind counts while this runs, on this thread.
#[inline(never)]
fn counted_calls(path: &mut paths::Path) {
    repeat(COUNTED, std::hint::black_box(path));
}

/// Instructions of one call.
fn count(name: &str) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=*counted_calls*", "--collect-atstart=no"])
        .arg("--callgrind-out-file=/dev/null")
        .arg(std::env::current_exe().unwrap())
        .args(["--run", name])
        .output()
        .expect("valgrind, which must be installed");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {text}");
    let total = text.lines().find_map(|line| line.split_once("Collected : ")).unwrap_or_else(|| panic!("{text}")).1;
    total.trim().parse::<u64>().unwrap() / COUNTED as u64
}

fn counts() -> BTreeMap<String, u64> {
    paths::PATHS.into_iter().map(|(name, _)| (name.to_owned(), count(name))).collect()
}

fn file() -> PathBuf {
    let name = format!("benches/instructions/{}.txt", std::env::consts::ARCH);
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn compiler() -> String {
    let said = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).arg("--version").output();
    String::from_utf8(said.expect("a compiler").stdout).unwrap().trim().to_owned()
}

fn write() {
    let mut text = format!("{}\n", compiler());
    for (name, count) in counts() {
        writeln!(text, "{count:>8} {name}").unwrap();
    }
    std::fs::write(file(), &text).unwrap();
    print!("{text}");
}

fn compare() {
    let Ok(text) = std::fs::read_to_string(file()) else {
        return println!("nothing compared: {} is not there; --write makes it", file().display());
    };
    let (written_by, lines) = text.split_once('\n').unwrap();
    if written_by != compiler() {
        return println!(
            "nothing compared: the figures are of {written_by}, this is {}; --write makes new ones",
            compiler()
        );
    }
    let known: BTreeMap<_, _> = lines
        .lines()
        .map(|line| line.trim_start().split_once(' ').unwrap())
        .map(|(count, name)| (name, count))
        .collect();
    let mut worse = Vec::new();
    for (name, count) in counts() {
        let before: u64 =
            known.get(&name[..]).unwrap_or_else(|| panic!("{name} has no figure: --write")).parse().unwrap();
        let change = count as f64 / before as f64 - 1.0;
        let remark = match change {
            _ if change > TOLERANCE => "more than it may: find out why, or --write",
            _ if change < -TOLERANCE => "less: --write keeps it so",
            _ => "",
        };
        println!("{count:>8} {name}: {:+.1}% {remark}", change * 100.0);
        worse.extend((change > TOLERANCE).then_some(name));
    }
    assert!(worse.is_empty(), "more instructions than before: {}", worse.join(", "));
}
