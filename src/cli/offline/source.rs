//! What to look into: files by name, those of a stopped server's data directory, or those of a running server.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::{
    cli::client::connection::OpsFlags,
    disk::{RealFileSystem, RecoveryError},
    engine::offline::{DataDirectory, in_log_order},
};

/// Files, or a data directory.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false)]
pub struct Source {
    /// The files. A running server's may be read too.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// All that lie in a stopped server's data directory.
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
}

/// Files, a data directory, or a running server.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false)]
pub struct SourceOrServer {
    /// The files. A running server's may be read too.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// All that lie in a stopped server's data directory.
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
    /// All of a running server, which reads them itself: by its ops listener, or without a URL by that of
    /// TANDEM_OPS_ENDPOINT, else http://127.0.0.1:16702.
    #[arg(long, value_name = "URL", num_args = 0..=1)]
    endpoint: Option<Option<String>>,
}

impl SourceOrServer {
    /// The running server, where one is asked for.
    pub fn server(&self) -> Option<OpsFlags> {
        self.endpoint.clone().map(OpsFlags::of)
    }

    /// The files or the data directory.
    pub fn source(self) -> Source {
        Source { files: self.files, data_dir: self.data_dir }
    }
}

/// The files, and where they come from a data directory, what keeps a server from starting there.
#[derive(Debug)]
pub struct Found {
    /// The files, in order.
    pub files: Vec<PathBuf>,
    /// Snapshots that tell which revisions the log's records gave.
    pub snapshots: Vec<PathBuf>,
    /// The data directory, held so that no server starts there meanwhile.
    pub held: Option<DataDirectory<'static>>,
}

impl Source {
    /// The data directory, where one is named.
    pub fn data_dir(&self) -> Option<&Path> {
        self.data_dir.as_deref()
    }

    /// Segments, in the order of the log.
    pub fn segments(&self) -> Result<Found, RecoveryError> {
        let Some(path) = &self.data_dir else {
            let files = in_log_order(&RealFileSystem, self.files.clone());
            return Ok(Found { files, snapshots: Vec::new(), held: None });
        };
        let held = DataDirectory::open(&RealFileSystem, path)?;
        Ok(Found { files: held.segments()?, snapshots: held.snapshots()?, held: Some(held) })
    }

    /// Snapshots: as they were named, or of a data directory, oldest first.
    pub fn snapshots(&self) -> Result<Found, RecoveryError> {
        let Some(path) = &self.data_dir else {
            return Ok(Found { files: self.files.clone(), snapshots: Vec::new(), held: None });
        };
        let held = DataDirectory::open(&RealFileSystem, path)?;
        Ok(Found { files: held.snapshots()?, snapshots: Vec::new(), held: Some(held) })
    }
}
