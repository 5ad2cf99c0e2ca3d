//! `tandem backup`: a snapshot of a running server, in a file that is whole or not there.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use clap::Args;
use tonic::Streaming;

use super::{
    connection::OpsFlags,
    failure::{Failure, Result, say},
    progress::Progress,
};
use crate::{
    disk::RealFileSystem,
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
        let to_stdout = self.file == Path::new("-");
        // Before a snapshot is taken for nothing.
        let mut temporary = if to_stdout { None } else { Some(Temporary::create(&self.file, self.force)?) };
        let mut parts = self.ops.connect().await?.backup(BackupRequest {}).await?.into_inner();
        let head = head_of(&mut parts).await?;
        match &mut temporary {
            None => copy(&mut parts, &head, &mut io::stdout().lock(), "standard output").await?,
            Some(temporary) => {
                let name = temporary.path.display().to_string();
                copy(&mut parts, &head, &mut temporary.file, &name).await?;
                check(&temporary.path, &head)?;
            }
        }
        if let Some(temporary) = temporary {
            temporary.publish(&self.file)?;
        }
        say(format!("revision {}, state hash {}", head.revision, head.state_hash));
        Ok(())
    }
}

async fn head_of(parts: &mut Streaming<BackupResponse>) -> Result<BackupHead> {
    match parts.message().await?.and_then(|message| message.part) {
        Some(Part::Head(head)) => Ok(head),
        _ => Err(Failure::unavailable(
            "INTERNAL: the server did not say what the backup is: is it as new as this program?",
        )),
    }
}

async fn copy(parts: &mut Streaming<BackupResponse>, head: &BackupHead, to: &mut impl Write, name: &str) -> Result<()> {
    let mut progress = Progress::of_bytes("backed up", head.bytes);
    let mut bytes = 0;
    while let Some(message) = parts.message().await? {
        if let Some(Part::Chunk(chunk)) = message.part {
            to.write_all(&chunk).map_err(|error| unwritable(name, &error))?;
            bytes += chunk.len() as u64;
            progress.add_bytes(chunk.len() as u64);
        }
    }
    to.flush().map_err(|error| unwritable(name, &error))?;
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
    let mut progress = Progress::of_bytes("checked", head.bytes);
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

/// A file in the making, beside the one that it becomes. Dropped before, it leaves nothing.
struct Temporary {
    path: PathBuf,
    file: fs::File,
    force: bool,
}

impl Temporary {
    fn create(wanted: &Path, force: bool) -> Result<Self> {
        refuse_existing(wanted, force)?;
        let Some(name) = wanted.file_name() else {
            return Err(Failure::usage(format!("{}: name a file, or - for standard output", wanted.display())));
        };
        let mut temporary = name.to_owned();
        temporary.push(format!(".{}.tmp", std::process::id()));
        let path = wanted.with_file_name(temporary);
        let file = fs::File::create(&path).map_err(|error| unwritable(&path.display().to_string(), &error))?;
        Ok(Self { path, file, force })
    }

    /// On disk for good, and under its own name.
    fn publish(self, wanted: &Path) -> Result<()> {
        refuse_existing(wanted, self.force)?;
        let folder = wanted.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let published = (|| {
            self.file.sync_all()?;
            fs::rename(&self.path, wanted)?;
            fs::File::open(folder)?.sync_all()
        })();
        published.map_err(|error| unwritable(&wanted.display().to_string(), &error))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Not there any more once it has its name.
        let _ = fs::remove_file(&self.path);
    }
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

fn unwritable(name: &str, error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::unavailable("OUTPUT: whoever read the backup went away before its end"),
        _ => Failure::unavailable(format!("OUTPUT: {name} cannot be written: {error}: make room or write elsewhere")),
    }
}
