//! What can be asked of `tandem bench`, and whether it makes sense.

use std::{fs, path::PathBuf, time::Duration};

use clap::{ArgAction, Args, ValueEnum};
use serde::Serialize;

use super::{keys::Keys, plan::Plan};
use crate::{
    cli::client::{
        arguments::time_span,
        failure::{Failure, Result},
        write::Durability,
    },
    limits::{BATCH_KEYS_MAX, KEY_BYTES_MAX, RESPONSE_BYTES_MAX, VALUE_BYTES_MAX},
    notation::{parse_bytes, show_bytes},
};

/// What the requests do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// Read one key.
    Get,
    /// Write one key.
    Put,
    /// Read or write one key: --read-ratio.
    Mixed,
    /// Read --batch-size keys at once.
    BatchGet,
    /// Write --batch-size keys at once.
    BatchWrite,
    /// Read --batch-size neighbouring keys as a stream.
    Scan,
    /// Write one key and wait until a watcher is told of it.
    Watch,
}

/// Which door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// REST: HTTP/1.1, or HTTP/2 if a connection has several requests in flight.
    Rest,
    /// gRPC.
    Grpc,
}

/// Which keys are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Distribution {
    /// Each as often as any other.
    Uniform,
    /// Few of them most of the time: --zipf-exponent.
    Zipf,
}

/// How the result looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// One document with everything, and a point for each second.
    Json,
}

/// A load, and how it is reported.
#[derive(Args, Debug)]
pub struct Options {
    /// What the requests do.
    #[arg(long, value_enum, default_value = "get", help_heading = "Load")]
    workload: Workload,
    /// Requests a second, sent at their times whether or not earlier ones were answered; latencies count from those
    /// times. Without it each place sends its next request when the one before is answered.
    #[arg(long, value_name = "PER_SECOND", value_parser = clap::value_parser!(u64).range(1..=10_000_000), help_heading = "Load")]
    rate: Option<u64>,
    /// How long it is measured.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time_span, help_heading = "Load")]
    duration: Duration,
    /// How long the load runs before it is measured.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = time_span, help_heading = "Load")]
    warmup: Duration,
    /// Connections.
    #[arg(long, value_name = "NUMBER", default_value = "16", value_parser = clap::value_parser!(u32).range(1..=10_000), help_heading = "Load")]
    connections: u32,
    /// Requests in flight on each connection.
    #[arg(long, value_name = "NUMBER", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=256), help_heading = "Load")]
    in_flight: u32,
    /// Threads that make the load; otherwise one for each core.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=256), help_heading = "Load")]
    threads: Option<u32>,
    /// The least durability of writes; otherwise what the server's wal.sync says.
    #[arg(long, value_enum, value_name = "LEVEL", help_heading = "Load")]
    durability: Option<Durability>,
    /// Reads among the requests of a mixed load, from 0 to 1; otherwise 0.5.
    #[arg(long, value_name = "PART", help_heading = "Load")]
    read_ratio: Option<f64>,
    /// Keys of a batch or a scan; otherwise 100.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=BATCH_KEYS_MAX as i64), help_heading = "Load")]
    batch_size: Option<u32>,
    /// How many keys there are, all beginning with bench/.
    #[arg(long, value_name = "NUMBER", default_value = "100000", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000_000), help_heading = "Keys and values")]
    keys: u64,
    /// Size of each key, such as 32.
    #[arg(long, value_name = "SIZE", default_value = "32", value_parser = size, help_heading = "Keys and values")]
    key_size: usize,
    /// Size of each value, such as 256 or 4KiB.
    #[arg(long, value_name = "SIZE", default_value = "256", value_parser = size, help_heading = "Keys and values")]
    value_size: usize,
    /// Which keys are asked for.
    #[arg(long, value_enum, default_value = "uniform", help_heading = "Keys and values")]
    distribution: Distribution,
    /// How much few keys are preferred; otherwise 0.99.
    #[arg(long, value_name = "EXPONENT", help_heading = "Keys and values")]
    zipf_exponent: Option<f64>,
    /// Write every key first; without either flag only loads that read do.
    #[arg(long, overrides_with = "no_load", action = ArgAction::SetTrue, help_heading = "Keys and values")]
    load: bool,
    /// Write nothing first.
    #[arg(long, overrides_with = "load", action = ArgAction::SetTrue, help_heading = "Keys and values")]
    no_load: bool,
    /// What chance begins with: the same seed asks for the same keys.
    #[arg(long, value_name = "NUMBER", default_value = "1", help_heading = "Keys and values")]
    seed: u64,
    /// How the result looks.
    #[arg(long, short, value_enum, default_value = "table", value_name = "FORMAT", help_heading = "Output")]
    pub output: Output,
    /// Draw throughput and latencies into this file, FILE.svg.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub plot: Option<PathBuf>,
    /// Which door.
    #[arg(long, value_enum, default_value = "grpc", help_heading = "Connection")]
    protocol: Protocol,
    /// The server's listener of that door; otherwise TANDEM_ENDPOINT, or over REST TANDEM_REST_ENDPOINT if it is set, or
    /// the default port on this machine.
    #[arg(long, value_name = "URL", help_heading = "Connection")]
    endpoint: Option<String>,
    /// How long to wait for a connection, and at the end for answers.
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = time_span, help_heading = "Connection")]
    timeout: Duration,
}

/// The rarest choice of keys that still is one: past this all requests are for one key.
const ZIPF_EXPONENT_MAX: f64 = 10.0;
const ZIPF_EXPONENT: f64 = 0.99;
const READ_RATIO: f64 = 0.5;
const BATCH_SIZE: u32 = 100;

impl Options {
    /// What is to be done, if that makes sense.
    pub fn check(&self) -> Result<Plan> {
        self.check_pairs()?;
        self.check_sizes()?;
        let batch_size = self.batch_size.unwrap_or(BATCH_SIZE);
        if self.workload.has_batches() && u64::from(batch_size) > self.keys {
            return usage(format!("--batch-size {batch_size} is more than the --keys {}: raise --keys", self.keys));
        }
        let answer_bytes = batch_size as usize * (self.value_size + self.key_size + 64);
        if self.workload == Workload::BatchGet && answer_bytes > RESPONSE_BYTES_MAX {
            return usage(format!(
                "--batch-size {batch_size} with --value-size {}: the server answers at most {} at once: lower one of them",
                self.value_size,
                show_bytes(RESPONSE_BYTES_MAX as u64)
            ));
        }
        let places = u64::from(self.connections) * u64::from(self.in_flight);
        if self.workload == Workload::Watch && places > self.keys {
            return usage(format!(
                "--keys {} are fewer than the {places} requests in flight: each watches a key of its own: raise --keys",
                self.keys
            ));
        }
        if self.duration.is_zero() {
            return usage("--duration 0s measures nothing: give it a second or more");
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = self.threads.map_or(cores, |threads| threads as usize).min(self.connections as usize);
        Ok(Plan {
            workload: self.workload,
            protocol: self.protocol,
            endpoint: self.endpoint(),
            connections: self.connections,
            in_flight: self.in_flight,
            threads,
            rate: self.rate,
            duration: self.duration,
            warmup: self.warmup,
            durability: self.durability,
            read_ratio: (self.workload == Workload::Mixed).then(|| self.read_ratio.unwrap_or(READ_RATIO)),
            batch_size: self.workload.has_batches().then_some(batch_size),
            keys: self.keys,
            key_bytes: self.key_size,
            value_bytes: self.value_size,
            distribution: self.distribution,
            zipf_exponent: (self.distribution == Distribution::Zipf)
                .then(|| self.zipf_exponent.unwrap_or(ZIPF_EXPONENT)),
            fill: self.load || (!self.no_load && self.workload.reads()),
            seed: self.seed,
            timeout: self.timeout,
        })
    }

    /// The file that is drawn into, made before anything is measured for nothing.
    pub fn open_plot(&self) -> Result<Option<(PathBuf, fs::File)>> {
        let Some(path) = &self.plot else { return Ok(None) };
        let named = path.display();
        if path.extension().is_none_or(|extension| extension != "svg") {
            return usage(format!("--plot {named}: only SVG is drawn: give it a name that ends in .svg"));
        }
        // What is there stays until there is something new.
        match fs::File::options().write(true).create(true).truncate(false).open(path) {
            Ok(file) => Ok(Some((path.clone(), file))),
            Err(error) => usage(format!("--plot {named} cannot be written: {error}: name another file")),
        }
    }

    /// Options that mean something with another one only.
    fn check_pairs(&self) -> Result<()> {
        if self.read_ratio.is_some() && self.workload != Workload::Mixed {
            return usage("--read-ratio is for mixed loads: add --workload mixed, or leave it out");
        }
        if self.read_ratio.is_some_and(|ratio| !(0.0..=1.0).contains(&ratio)) {
            return usage("--read-ratio is a part of all requests: give it as 0 to 1, such as 0.95");
        }
        if self.batch_size.is_some() && !self.workload.has_batches() {
            return usage(
                "--batch-size is for batches and scans: add --workload batch-get, batch-write or scan, or leave it out",
            );
        }
        if self.zipf_exponent.is_some() && self.distribution != Distribution::Zipf {
            return usage("--zipf-exponent is for Zipf keys: add --distribution zipf, or leave it out");
        }
        if self.zipf_exponent.is_some_and(|exponent| !(exponent > 0.0 && exponent <= ZIPF_EXPONENT_MAX)) {
            return usage(format!("--zipf-exponent is above 0 and at most {ZIPF_EXPONENT_MAX}, such as 0.99"));
        }
        Ok(())
    }

    fn check_sizes(&self) -> Result<()> {
        let least = Keys::bytes_min(self.keys);
        if self.key_size < least || self.key_size > KEY_BYTES_MAX {
            return usage(format!(
                "--key-size {}: {} keys take names of {least} to {KEY_BYTES_MAX} bytes: choose a size between, or change --keys",
                self.key_size, self.keys
            ));
        }
        if self.value_size > VALUE_BYTES_MAX {
            return usage(format!(
                "--value-size {}: no server takes values of more than {}: lower it",
                self.value_size,
                show_bytes(VALUE_BYTES_MAX as u64)
            ));
        }
        Ok(())
    }

    fn endpoint(&self) -> String {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let named = self.endpoint.clone();
        match self.protocol {
            Protocol::Grpc => named.or_else(|| variable("TANDEM_ENDPOINT")),
            Protocol::Rest => {
                named.or_else(|| variable("TANDEM_REST_ENDPOINT")).or_else(|| variable("TANDEM_ENDPOINT"))
            }
        }
        .unwrap_or_else(|| self.protocol.default_endpoint().to_owned())
    }
}

impl Workload {
    /// Whether it asks for many keys at once.
    fn has_batches(self) -> bool {
        matches!(self, Self::BatchGet | Self::BatchWrite | Self::Scan)
    }

    /// Whether it asks for keys that ought to be there.
    fn reads(self) -> bool {
        matches!(self, Self::Get | Self::Mixed | Self::BatchGet | Self::Scan)
    }
}

impl Protocol {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rest => "REST",
            Self::Grpc => "gRPC",
        }
    }

    fn default_endpoint(self) -> &'static str {
        match self {
            Self::Rest => "http://127.0.0.1:16700",
            Self::Grpc => "http://127.0.0.1:16701",
        }
    }
}

fn size(text: &str) -> Result<usize, String> {
    parse_bytes(text)
        .and_then(|bytes| usize::try_from(bytes).ok())
        .ok_or_else(|| "write a number of bytes, or one of KiB or MiB, such as 4KiB".to_owned())
}

fn usage<T>(text: impl Into<String>) -> Result<T> {
    Err(Failure::usage(text))
}
