//! A real server process on free ports, and a plain HTTP client, for the suites.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod described;

use std::{
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::{client::legacy, rt::TokioExecutor};

/// The program under test: `TANDEM_BINARY`, or the one that cargo built beside the tests.
pub fn binary() -> PathBuf {
    match std::env::var_os("TANDEM_BINARY") {
        Some(binary) => std::fs::canonicalize(binary).unwrap(),
        None => env!("CARGO_BIN_EXE_tandem").into(),
    }
}

/// A running server.
pub struct Server {
    pub child: Child,
    pub http: String,
    pub grpc: String,
    pub ops: String,
    pub banner: Vec<String>,
}

/// Why a server did not start.
#[derive(Debug)]
pub struct NotStarted {
    pub code: Option<i32>,
    pub stderr: String,
}

impl Server {
    /// Starts a server over `data` with more arguments, and waits for its banner.
    pub fn try_start(data: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Self, NotStarted> {
        Self::try_start_by(Command::new(binary()), data, arguments, environment)
    }

    /// The same by a command that runs the program with the arguments it gets.
    pub fn try_start_by(
        command: Command,
        data: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Self, NotStarted> {
        Self::try_start_at(command, data, "127.0.0.1:0", arguments, environment)
    }

    /// The same with an ops listener elsewhere.
    pub fn try_start_at(
        mut command: Command,
        data: &Path,
        ops_address: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Self, NotStarted> {
        let free = "127.0.0.1:0";
        let mut child = command
            .args(["--http-address", free, "--grpc-address", free, "--ops-address", ops_address, "--data-dir"])
            .arg(data)
            .args(arguments)
            .envs(environment.iter().copied())
            .current_dir(data.parent().unwrap_or(data))
            .stdout(Stdio::piped())
            .stderr(if std::env::var_os("TANDEM_TEST_LOGS").is_some() { Stdio::inherit() } else { Stdio::piped() })
            .spawn()
            .unwrap();
        let mut banner = Vec::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines().take(3) {
            banner.push(line.unwrap());
        }
        if banner.len() < 3 {
            let mut stderr = String::new();
            if let Some(mut pipe) = child.stderr.take() {
                pipe.read_to_string(&mut stderr).unwrap();
            }
            return Err(NotStarted { code: child.wait().unwrap().code(), stderr });
        }
        // Nobody reads the logs from here on; a full pipe must not hold the server up.
        if let Some(mut pipe) = child.stderr.take() {
            std::thread::spawn(move || std::io::copy(&mut pipe, &mut std::io::sink()));
        }
        let address = |name: &str| {
            let rest = banner[0].split(name).nth(1).unwrap_or_else(|| panic!("no {name} in {banner:?}"));
            rest.trim_start_matches("http://").split([',', ' ']).next().unwrap().to_owned()
        };
        let (http, grpc, ops) = (address("REST "), address("gRPC "), address("ops "));
        Ok(Self { child, http, grpc, ops, banner })
    }

    pub fn start(data: &Path) -> Self {
        Self::start_with(data, &[])
    }

    pub fn start_with(data: &Path, environment: &[(&str, &str)]) -> Self {
        Self::try_start(data, &[], environment).unwrap_or_else(|error| panic!("{error:?}"))
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }

    /// SIGKILL: nothing is tidied up.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal by its number.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// SIGTERM, and the exit code.
    pub fn stop(mut self) -> Option<i32> {
        self.signal("TERM");
        self.child.wait().unwrap().code()
    }

    /// Waits for the server to end by itself.
    pub fn exit_code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub type Client = legacy::Client<legacy::connect::HttpConnector, Full<Bytes>>;

pub fn client() -> Client {
    legacy::Client::builder(TokioExecutor::new()).build_http()
}

/// An answer, whole.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.text()))
    }
}

pub async fn send(client: &Client, method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    try_send(client, method, url, headers, body).await.unwrap()
}

pub async fn try_send(
    client: &Client,
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Answer, legacy::Error> {
    let mut request = http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = client.request(request.body(Full::new(Bytes::copy_from_slice(body))).unwrap()).await?;
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let answer = Answer { status: parts.status.as_u16(), headers: parts.headers, body };
    described::check(method, url, &answer);
    Ok(answer)
}

/// Every byte that could mean something in a path, escaped.
pub fn escape(bytes: &[u8]) -> String {
    bytes
        .iter()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(*byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// Polls until `probe` gives something, for half a minute at most.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut probe: impl FnMut() -> F) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "did not happen: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
