//! One server for each data directory: a lock file that the operating system releases even after a kill.

use std::{io, path::Path};

use super::{
    file_system::{FileSystem, LockGuard},
    recovery::{RecoveryError, RecoveryErrorKind},
};

/// Takes the lock of a data directory.
pub fn take(file_system: &dyn FileSystem, directory: &Path) -> Result<Box<dyn LockGuard>, RecoveryError> {
    let path = directory.join("lock");
    file_system.lock(&path, &std::process::id().to_string()).map_err(|error| {
        if error.kind() != io::ErrorKind::WouldBlock {
            return RecoveryError::io(&path, error);
        }
        let holder = match error.to_string().trim() {
            "" => "another server".to_owned(),
            pid => format!("another server (process {pid})"),
        };
        RecoveryError {
            kind: RecoveryErrorKind::Locked,
            file: path,
            offset: None,
            reason: format!("{holder} uses this data directory"),
            remedy: "stop that server, or choose another --data-dir".into(),
        }
    })
}
