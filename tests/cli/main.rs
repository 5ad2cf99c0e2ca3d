//! The command line against a real server: what it prints in each format, and its exit codes.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod bench;
mod locks;
mod many;
mod moves;
mod one;
mod relay;
mod streams;
#[path = "../support/mod.rs"]
mod support;
mod usage;

use std::{
    ffi::OsStr,
    io::Write as _,
    process::{Command, Stdio},
};

use support::Server;
use tempfile::TempDir;

/// A server, and the program that talks to it.
pub struct Store {
    pub server: Server,
    /// Where the program runs, and where the server's data is.
    pub directory: TempDir,
}

/// What a run of the program gave.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: Vec<u8>,
    pub err: String,
}

impl Ran {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.out).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The exit code was this one.
    #[track_caller]
    pub fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    #[track_caller]
    pub fn done(self) -> Self {
        self.ends(0)
    }
}

impl Store {
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { server: Server::start(&directory.path().join("data")), directory }
    }

    /// The program with arguments, ready to run; its output is no terminal.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Command {
        let mut command = Command::new(support::binary());
        command.args(arguments).env("TANDEM_ENDPOINT", format!("http://{}", self.server.grpc));
        command.current_dir(self.directory.path()).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn run<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Ran {
        finish(&mut self.command(arguments))
    }

    pub fn run_with_input<A: AsRef<OsStr>>(&self, arguments: &[A], input: &[u8]) -> Ran {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writing = std::thread::spawn(move || pipe.write_all(&input));
        let output = child.wait_with_output().unwrap();
        let _ = writing.join().unwrap();
        ran(output)
    }
}

pub fn finish(command: &mut Command) -> Ran {
    ran(command.output().unwrap())
}

pub fn ran(output: std::process::Output) -> Ran {
    Ran { code: output.status.code(), out: output.stdout, err: String::from_utf8(output.stderr).unwrap() }
}
