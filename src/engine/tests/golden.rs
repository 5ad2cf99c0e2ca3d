//! Golden logs: each version of apply's rules gives the states that it gave when it was new, for ever.
//!
//! `tests/fixtures/apply/<version>.ndjson` holds logs of records of every kind, one record a line, with the hash of the state
//! behind it. A difference means that old logs would lead to other states: raise `APPLY_VERSION`, and keep the old rules for
//! logs that say the old version. `TANDEM_WRITE_FIXTURES=1` writes the file of a new version, and never over one that is there.

use std::{collections::HashSet, fs, path::PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use proptest::{
    strategy::{Strategy as _, ValueTree as _},
    test_runner::TestRunner,
};
use prost::Message as _;
use serde::{Deserialize, Serialize};

use super::records;
use crate::{
    engine::{
        apply::{APPLY_VERSION, Applier},
        state_hash::state_hash,
    },
    pb::storage::{LogRecord, Open, log_record::Command},
};

/// Logs in the file of a version.
const LOGS: usize = 24;

/// A line of the file.
#[derive(Deserialize, Serialize)]
struct Golden {
    log: usize,
    /// The encoded `LogRecord`.
    record: String,
    state_hash: String,
}

fn file(version: u32) -> PathBuf {
    let name = format!("tests/fixtures/apply/{version}.ndjson");
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn hash(applier: &Applier) -> String {
    format!("{:032x}", state_hash(applier.store(), applier.state()))
}

/// Logs as this version applies them: each begins as a server's does.
fn written_anew() -> String {
    let mut runner = TestRunner::deterministic();
    let mut lines = String::new();
    for log in 0..LOGS {
        let mut applier = Applier::default();
        let open = Command::Open(Open { term: 1, offset: 0, apply_version: APPLY_VERSION });
        let open = LogRecord { index: 1, term: 1, time_ms: 1_000, command: Some(open), ..LogRecord::default() };
        let records = records().new_tree(&mut runner).unwrap().current().into_iter();
        let behind = records.map(|record| LogRecord { index: record.index + 1, term: 1, ..record });
        for record in std::iter::once(open).chain(behind) {
            applier.apply(&record);
            let record = BASE64_STANDARD.encode(record.encode_to_vec());
            lines += &serde_json::to_string(&Golden { log, record, state_hash: hash(&applier) }).unwrap();
            lines.push('\n');
        }
    }
    lines
}

#[test]
fn every_version_of_apply_gives_the_states_that_it_gave_when_it_was_new() {
    if std::env::var_os("TANDEM_WRITE_FIXTURES").is_some() && !file(APPLY_VERSION).exists() {
        fs::create_dir_all(file(APPLY_VERSION).parent().unwrap()).unwrap();
        fs::write(file(APPLY_VERSION), written_anew()).unwrap();
    }
    for version in 1..=APPLY_VERSION {
        let text = fs::read_to_string(file(version)).unwrap();
        let (mut applier, mut log) = (Applier::default(), 0);
        let mut kinds = HashSet::new();
        for (number, line) in text.lines().enumerate() {
            let golden: Golden = serde_json::from_str(line).unwrap();
            if golden.log != log {
                (applier, log) = (Applier::default(), golden.log);
            }
            let record = LogRecord::decode(&BASE64_STANDARD.decode(golden.record).unwrap()[..]).unwrap();
            kinds.insert(std::mem::discriminant(record.command.as_ref().unwrap()));
            applier.apply(&record);
            assert_eq!(hash(&applier), golden.state_hash, "version {version}, line {}: {record:?}", number + 1);
        }
        assert!(kinds.len() >= 11, "version {version}: only {} kinds of commands", kinds.len());
    }
}
