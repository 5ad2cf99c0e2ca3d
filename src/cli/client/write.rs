//! What all commands that write one key share: conditions, expiries, options, and how the answer is shown.

use std::time::Duration;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{
    arguments::{bytes, time, time_span},
    failure::Result,
    output::{Format, Output},
};
use crate::{
    api::rest::{EntryJson, ScanItem},
    model::duration_to_pb,
    pb::{self, condition::Kind as Is, expiry::Kind as Expires},
};

/// Conditions: all that are given must hold.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Conditions (exit code 1 if one does not hold)")]
pub struct ConditionFlags {
    /// Only if the key is absent.
    #[arg(long, conflicts_with = "if_exists")]
    if_absent: bool,
    /// Only if the key exists.
    #[arg(long)]
    if_exists: bool,
    /// Only if the entry has this version; 0: the key is absent.
    #[arg(long, value_name = "VERSION")]
    if_version: Option<u64>,
    /// Only if the entry has this revision; 0: the key is absent.
    #[arg(long, value_name = "REVISION")]
    if_revision: Option<u64>,
    /// Only if the value is exactly this.
    #[arg(long, value_name = "VALUE", value_parser = bytes())]
    if_value: Option<Bytes>,
}

impl ConditionFlags {
    /// As the schema says them.
    pub fn to_pb(&self) -> Vec<pb::Condition> {
        let exists = match (self.if_absent, self.if_exists) {
            (true, _) => Some(false),
            (_, true) => Some(true),
            _ => None,
        };
        let kinds = [
            exists.map(Is::Exists),
            self.if_version.map(Is::Version),
            self.if_revision.map(Is::Revision),
            self.if_value.clone().map(Is::Value),
        ];
        kinds.into_iter().flatten().map(|kind| pb::Condition { kind: Some(kind) }).collect()
    }
}

/// When an entry expires.
#[derive(Args, Clone, Debug)]
#[group(id = "expiry", multiple = false)]
pub struct ExpiryFlags {
    /// Expire so long after the write, such as 60s.
    #[arg(long, value_name = "TIME", value_parser = time_span)]
    ttl: Option<Duration>,
    /// Expire at this time, such as 2030-01-01T00:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = time)]
    expire_time: Option<prost_types::Timestamp>,
}

impl ExpiryFlags {
    /// As the schema says it, where one was given.
    pub fn to_pb(&self) -> Option<pb::Expiry> {
        let ttl = self.ttl.map(|ttl| Expires::Ttl(duration_to_pb(ttl)));
        let kind = ttl.or(self.expire_time.map(Expires::ExpireTime))?;
        Some(pb::Expiry { kind: Some(kind) })
    }
}

/// How safe a write is when it is acknowledged.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Durability {
    /// Handed to the server's operating system.
    Written,
    /// On disk.
    Fsynced,
}

/// How a write is carried out.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "How")]
pub struct HowFlags {
    /// Makes a repetition safe: the same id answers with the first one's outcome.
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// The least durability at which to answer; otherwise what the server's wal.sync says.
    #[arg(long, value_enum, value_name = "LEVEL")]
    durability: Option<Durability>,
    /// Judge the write and answer as it would be answered, and change nothing.
    #[arg(long)]
    dry_run: bool,
}

impl HowFlags {
    /// As the schema says it.
    pub fn to_pb(&self) -> pb::WriteOptions {
        pb::WriteOptions {
            request_id: self.request_id.clone().unwrap_or_default(),
            durability: durability_to_pb(self.durability).into(),
            validate_only: self.dry_run,
        }
    }
}

/// As the schema says it.
pub fn durability_to_pb(durability: Option<Durability>) -> pb::Durability {
    match durability {
        None => pb::Durability::Unspecified,
        Some(Durability::Written) => pb::Durability::Written,
        Some(Durability::Fsynced) => pb::Durability::Fsynced,
    }
}

/// What a write of one key did.
#[derive(Debug, Default)]
pub struct Written {
    /// For people.
    pub verb: &'static str,
    /// Revision and durability.
    pub result: pb::WriteResult,
    /// Whether the key was absent.
    pub created: Option<bool>,
    /// The entry's version.
    pub version: Option<u64>,
    /// A counter's new number.
    pub value: Option<i64>,
    /// The entry before.
    pub previous: Option<pb::Entry>,
}

/// Revision and durability as JSON.
#[derive(Debug, Serialize)]
pub struct ResultJson {
    revision: u64,
    durability: &'static str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    replayed: bool,
}

impl ResultJson {
    /// The JSON of a write's result.
    pub fn new(result: pb::WriteResult) -> Self {
        let durability = match result.durability() {
            pb::Durability::Unspecified => "unspecified",
            pb::Durability::Written => "written",
            pb::Durability::Fsynced => "fsynced",
        };
        Self { revision: result.revision, durability, replayed: result.replayed }
    }
}

/// The names of the schema; the number as a string, as REST writes it.
#[derive(Debug, Serialize)]
struct WrittenJson<'answer> {
    #[serde(flatten)]
    result: ResultJson,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<EntryJson<'answer>>,
}

impl Written {
    /// Shows what was done. Raw is a counter's number, else the entry before where there is one, else the revision.
    pub fn show(&self, output: &mut Output) -> Result<()> {
        match output.format() {
            Format::Json => output.json(&WrittenJson {
                result: ResultJson::new(self.result),
                created: self.created,
                version: self.version,
                value: self.value.map(|value| value.to_string()),
                previous: self.previous.as_ref().map(|entry| EntryJson::new(entry, true, false)),
            }),
            Format::Raw => match (self.value, &self.previous) {
                (Some(value), _) => output.line(value),
                (None, Some(previous)) => output.bytes(&previous.value),
                (None, None) => output.line(self.result.revision),
            },
            Format::Text => {
                output.line(self.sentence())?;
                self.previous.as_ref().map_or(Ok(()), |entry| output.items(&[ScanItem::Entry(entry)], true))
            }
        }
    }

    fn sentence(&self) -> String {
        let mut facts = Vec::new();
        facts.extend(self.version.map(|version| format!("version {version}")));
        match self.result.revision {
            0 => facts.push("dry run: nothing was changed".to_owned()),
            revision => facts.push(format!("revision {revision}")),
        }
        if self.result.replayed {
            facts.push("this was done before, under the same request id".to_owned());
        }
        let before = if self.previous.is_some() { "; before:" } else { "" };
        let what = self.value.map_or_else(|| self.verb.to_owned(), |value| value.to_string());
        format!("{what} ({}){before}", facts.join(", "))
    }
}
