//! The command that runs for an event of `tandem watch --exec`.

use std::{
    ffi::{OsStr, OsString},
    io::Write as _,
    os::unix::ffi::OsStringExt as _,
    process::{Command, Stdio},
};

use base64::prelude::{BASE64_STANDARD, Engine as _};

use super::failure::{Failure, Result, say};
use crate::{api::rest::kind_text, pb};

/// Runs it to its end. One that fails is told of, and the next event comes.
pub fn run(command: &OsStr, revision: u64, event: &pb::Event) -> Result<()> {
    let entry = event.entry.clone().unwrap_or_default();
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(command).stdin(Stdio::piped());
    shell.env("TANDEM_KIND", kind_text(event.kind())).env("TANDEM_REVISION", revision.to_string());
    shell.env("TANDEM_KEY_BASE64", BASE64_STANDARD.encode(&entry.key));
    // An environment cannot hold a zero byte.
    match entry.key.contains(&0) {
        true => shell.env_remove("TANDEM_KEY"),
        false => shell.env("TANDEM_KEY", OsString::from_vec(entry.key.to_vec())),
    };
    let cannot = |error| Failure::unavailable(format!("INTERNAL: --exec: sh cannot be run: {error}"));
    let mut child = shell.spawn().map_err(cannot)?;
    if let Some(mut input) = child.stdin.take() {
        // It need not read.
        let _ = input.write_all(&entry.value);
    }
    let ended = child.wait().map_err(cannot)?;
    if !ended.success() {
        say(format_args!("--exec: revision {revision}: the command failed: {ended}"));
    }
    Ok(())
}
