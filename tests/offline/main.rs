//! The commands that look into files and restore them, through the program, over what a server left.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod logs;
mod restores;
mod snapshots;
#[path = "../support/mod.rs"]
mod support;
mod usage;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use support::{Answer, Server, client, send};
use tempfile::TempDir;

/// A folder with the data of a server, running or not.
pub struct Store {
    pub directory: TempDir,
    pub server: Option<Server>,
}

/// What a run of the program gave.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// The exit code was this one.
    #[track_caller]
    pub fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    /// Each line as JSON.
    pub fn lines(&self) -> Vec<serde_json::Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

pub fn tandem(directory: &Path, arguments: &[&str]) -> Ran {
    let Output { status, stdout, stderr } =
        Command::new(support::binary()).args(arguments).current_dir(directory).stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: status.code(), out: text(stdout), err: text(stderr) }
}

impl Store {
    /// A running server over an empty directory.
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let server = Server::start(&directory.path().join("data"));
        Self { directory, server: Some(server) }
    }

    /// Runs the program beside the data, which lies in `data`.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        tandem(self.directory.path(), arguments)
    }

    pub async fn send(&self, method: &str, path: &str, body: &str) -> Answer {
        let url = self.server.as_ref().unwrap().url(path);
        send(&client(), method, &url, &[], body.as_bytes()).await
    }

    /// Puts a key, and gives the revision.
    pub async fn put(&self, key: &str, value: &str) -> u64 {
        let answer = self.send("PUT", &format!("/v1/kv/{key}"), value).await;
        answer.header("kv-revision").unwrap_or_else(|| panic!("{answer:?}")).parse().unwrap()
    }

    pub fn stop(&mut self) {
        assert_eq!(self.server.take().unwrap().stop(), Some(0));
    }

    pub fn kill(&mut self) {
        self.server.take().unwrap().kill();
    }

    /// Files of a folder of the data, in order.
    pub fn files(&self, folder: &str) -> Vec<PathBuf> {
        let mut files: Vec<_> = fs::read_dir(self.directory.path().join("data").join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "wal" || extension == "snap"))
            .collect();
        files.sort();
        files
    }
}

/// Flips a bit of a file.
pub fn break_at(path: &Path, offset: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[offset] ^= 1;
    fs::write(path, bytes).unwrap();
}
