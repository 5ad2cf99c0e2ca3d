//! Checking the files of a running server: it reads them itself, every snapshot and the log up to what is on disk.

use indicatif::{HumanBytes, HumanCount};
use serde::Serialize;

use super::{Done, verdict::Verdict};
use crate::{
    cli::client::{carry_out, connection::OpsFlags, failure::say},
    pb::admin::{FileCheck, FileKind, VerifyIntegrityRequest},
};

/// A whole file, as JSON: by the names that the other ways of verifying have.
#[derive(Debug, Serialize)]
struct WholeJson<'check> {
    file: &'check str,
    ok: bool,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_hash: Option<&'check str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    records: Option<u64>,
}

/// Asks the server, waits for as long as it reads, and tells of each file.
pub fn verify(server: &OpsFlags, verdict: &mut Verdict) -> Done {
    let verified = carry_out(async {
        Ok(server.connect().await?.verify_integrity(VerifyIntegrityRequest {}).await?.into_inner())
    })?;
    for check in &verified.files {
        if check.damage.is_empty() {
            whole(verdict, check)?;
        } else {
            verdict.bad_elsewhere(&check.file, &check.damage)?;
        }
    }
    let files = HumanCount(verified.files.len() as u64);
    say(format_args!("the server read {} in {files} files", HumanBytes(verified.bytes)));
    Ok(())
}

fn whole(verdict: &mut Verdict, check: &FileCheck) -> Done {
    let FileCheck { file, bytes, items, state_hash, .. } = check;
    let is_snapshot = check.kind() == FileKind::Snapshot;
    if verdict.is_json() {
        return verdict.output.json(&WholeJson {
            file,
            ok: true,
            bytes: *bytes,
            keys: is_snapshot.then_some(*items),
            state_hash: is_snapshot.then_some(state_hash),
            records: (!is_snapshot).then_some(*items),
        });
    }
    if is_snapshot {
        verdict.output.line(format_args!("{file}: whole, {items} keys, state hash {state_hash}"))
    } else {
        verdict.output.line(format_args!("{file}: whole, {items} records"))
    }
}
