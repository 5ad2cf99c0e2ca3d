//! A small file system of its own, to be filled up: an image behind a loop device, or memory. Needs the right to mount.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// What lies on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ext4,
    Xfs,
    Tmpfs,
}

/// Mounted until dropped.
pub struct SmallDisk {
    directory: tempfile::TempDir,
    mounted: bool,
}

/// Runs a command; the error says why it did not work.
fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{name}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr).trim().replace('\n', " ");
    if output.status.success() { Ok(()) } else { Err(format!("{name}: {text}")) }
}

impl SmallDisk {
    /// Makes one; an error is the reason why this machine cannot.
    pub fn mount(kind: Kind, mib: u64) -> Result<Self, String> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("mounted")).unwrap();
        let mut disk = Self { directory, mounted: false };
        let (image, target) = (disk.directory.path().join("image"), disk.path());
        if kind == Kind::Tmpfs {
            run(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"]).arg(target))?;
        } else {
            run(Command::new("truncate").arg(format!("--size={mib}M")).arg(&image))?;
            let (maker, options) = if kind == Kind::Ext4 { ("mkfs.ext4", "-Fq") } else { ("mkfs.xfs", "-fq") };
            run(Command::new(maker).arg(options).arg(&image))?;
            run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(target))?;
        }
        disk.mounted = true;
        Ok(disk)
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join("mounted")
    }

    /// For a server.
    pub fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }

    pub fn free_bytes(&self) -> u64 {
        let disk = rustix::fs::statvfs(self.path()).unwrap();
        disk.f_bavail * disk.f_frsize
    }

    /// Takes all room but this much; again, what was given back since.
    pub fn fill(&self, left_bytes: u64) {
        while self.free_bytes() > left_bytes {
            let taken_bytes = std::fs::metadata(self.ballast()).map_or(0, |metadata| metadata.len());
            let bytes = taken_bytes + (self.free_bytes() - left_bytes);
            if !take(&self.ballast(), bytes) && !take(&self.ballast(), taken_bytes + 4_096) {
                return;
            }
        }
    }

    /// Gives it back.
    pub fn release(&self) {
        let _ = std::fs::remove_file(self.ballast());
    }
}

fn take(path: &Path, bytes: u64) -> bool {
    run(Command::new("fallocate").args(["--length", &bytes.to_string()]).arg(path)).is_ok()
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if self.mounted
            && let Err(reason) = run(Command::new("umount").arg("--lazy").arg(self.path()))
        {
            println!("{} stays mounted: {reason}", self.path().display());
        }
    }
}
