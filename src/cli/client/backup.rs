//! `tandem backup`: a snapshot of a running server, in a file that is whole or not there.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use tonic::Streaming;

use super::{
    connection::OpsFlags,
    failure::{Failure, Result, say},
    progress::Progress,
};
use crate::{
    disk::{RealFileSystem, WholeFile},
    engine::offline::check_snapshot,
    pb::admin::{BackupHead, BackupRequest, BackupResponse, backup_response::Part},
};

/// Where a backup goes.
#[derive(Args, Debug)]
pub struct Backup {
    /// The file; `-`: standard output.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Replace a file that is there.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    ops: OpsFlags,
}

impl Backup {
    pub async fn run(self) -> Result<()> {
        let file = (self.file != Path::new("-")).then_some(&*self.file);
        // Before a snapshot is taken for nothing.
        let mut whole = file.map(|file| begin(file, self.force)).transpose()?;
        let mut parts = self.ops.connect().await?.backup(BackupRequest {}).await?.into_inner();
        let head = head_of(&mut parts).await?;
        match &mut whole {
            None => copy(&mut parts, &head, &mut io::stdout().lock(), "standard output", true).await?,
            Some(whole) => {
                let name = whole.temporary().display().to_string();
                copy(&mut parts, &head, whole, &name, false).await?;
                check(whole.temporary(), &head)?;
            }
        }
        if let (Some(whole), Some(file)) = (whole, file) {
            refuse_existing(file, self.force)?;
            whole.publish().map_err(|error| unwritable(file, &error))?;
        }
        say(format!("revision {}, state hash {}", head.revision, head.state_hash));
        Ok(())
    }
}

/// The file that the backup becomes.
fn begin(file: &Path, force: bool) -> Result<WholeFile> {
    if file.is_dir() {
        return Err(Failure::refused(format!("OUTPUT: {} is a directory: name a file in it", file.display())));
    }
    refuse_existing(file, force)?;
    if file.file_name().is_none() {
        return Err(Failure::usage(format!("{}: name a file, or - for standard output", file.display())));
    }
    WholeFile::create(Arc::new(RealFileSystem), file).map_err(|error| unwritable(file, &error))
}

async fn head_of(parts: &mut Streaming<BackupResponse>) -> Result<BackupHead> {
    match parts.message().await?.and_then(|message| message.part) {
        Some(Part::Head(head)) => Ok(head),
        _ => Err(Failure::unavailable(
            "INTERNAL: the server did not say what the backup is: is it as new as this program?",
        )),
    }
}

async fn copy(
    parts: &mut Streaming<BackupResponse>,
    head: &BackupHead,
    to: &mut impl Write,
    name: &str,
    prints: bool,
) -> Result<()> {
    let mut progress = Progress::of_bytes("backed up", head.bytes, prints);
    let mut bytes = 0;
    while let Some(message) = parts.message().await? {
        if let Some(Part::Chunk(chunk)) = message.part {
            to.write_all(&chunk).map_err(|error| unwritable(Path::new(name), &error))?;
            bytes += chunk.len() as u64;
            progress.add_bytes(chunk.len() as u64);
        }
    }
    to.flush().map_err(|error| unwritable(Path::new(name), &error))?;
    if bytes != head.bytes {
        return Err(Failure::unavailable(format!(
            "UNAVAILABLE: the backup broke off after {bytes} of {} bytes: begin it again",
            head.bytes
        )));
    }
    progress.finish();
    Ok(())
}

/// Whether the file is the snapshot that the server spoke of, to its last byte.
fn check(path: &Path, head: &BackupHead) -> Result<()> {
    let mut progress = Progress::of_bytes("checked", head.bytes, false);
    let summary = check_snapshot(&RealFileSystem, path, |bytes| progress.add_bytes(bytes));
    let summary = summary.map_err(|error| {
        Failure::refused(format!(
            "DAMAGED: what arrived is not a whole snapshot: {}: begin the backup again",
            error.reason
        ))
    })?;
    progress.finish();
    if (summary.revision, &summary.state_hash) != (head.revision, &head.state_hash) {
        return Err(Failure::refused(
            "DAMAGED: what arrived is another snapshot than was announced: begin the backup again",
        ));
    }
    Ok(())
}

fn refuse_existing(wanted: &Path, force: bool) -> Result<()> {
    if !force && wanted.exists() {
        return Err(Failure::refused(format!(
            "OUTPUT: {} is there already: name another file, or say --force to replace it",
            wanted.display()
        )));
    }
    Ok(())
}

fn unwritable(file: &Path, error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::unavailable("OUTPUT: whoever read the backup went away before its end"),
        _ => Failure::unavailable(format!(
            "OUTPUT: {} cannot be written: {error}: make room or write elsewhere",
            file.display()
        )),
    }
}
