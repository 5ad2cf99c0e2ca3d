//! How much memory the store may take: what the configuration says, or a part of what the machine or its cgroup grants.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::config::MemoryLimit;

/// A limit at or above this is none: what cgroup v1 shows for "unlimited", and more than any machine has.
const UNLIMITED_BYTES: u64 = 1 << 60;

/// A limit, and whose share it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Bytes that the store may take.
    pub bytes: u64,
    /// Where that comes from, for people.
    pub source: String,
}

/// The limit in bytes. `root` is `/` but in tests.
pub fn resolve(limit: MemoryLimit, root: &Path) -> Resolved {
    let percent = match limit {
        MemoryLimit::Bytes(bytes) => return Resolved { bytes, source: "store.memory_limit".into() },
        MemoryLimit::Percent(percent) => percent,
    };
    let granted = match (cgroup_bytes(root), machine_bytes(root)) {
        (Some(cgroup), machine) if machine.is_none_or(|machine| cgroup <= machine) => {
            Some((cgroup, "the cgroup's limit"))
        }
        (_, machine) => machine.map(|machine| (machine, "the machine's memory")),
    };
    match granted {
        Some((bytes, of)) => {
            // Two steps, so that no multiplication overflows.
            let bytes = bytes / 100 * u64::from(percent) + bytes % 100 * u64::from(percent) / 100;
            Resolved { bytes, source: format!("{percent}% of {of}") }
        }
        None => Resolved { bytes: u64::MAX, source: "no limit: what the machine has could not be read".into() },
    }
}

fn machine_bytes(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1_024)
}

/// The tightest limit of the process's cgroup and those above it.
fn cgroup_bytes(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let mounted = root.join("sys/fs/cgroup");
    let limits = text.lines().flat_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        match controllers {
            "" => limits_above(&mounted, path, "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                limits_above(&mounted.join("memory"), path, "memory.limit_in_bytes")
            }
            _ => Vec::new(),
        }
    });
    limits.filter(|bytes| *bytes < UNLIMITED_BYTES).min()
}

/// The limits from a cgroup up to the top. Within a container the path may be one of the host's, which is not there: then
/// the top, which is the container's own, is what counts.
fn limits_above(mounted: &Path, path: &str, file: &str) -> Vec<u64> {
    let mut folder = PathBuf::from(path.trim_start_matches('/'));
    let mut limits = Vec::new();
    loop {
        let limit = fs::read_to_string(mounted.join(&folder).join(file)).ok();
        // `max` is no number, and no limit.
        limits.extend(limit.and_then(|limit| limit.trim().parse::<u64>().ok()));
        if !folder.pop() {
            return limits;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [("proc/meminfo", "MemFree: 1 kB\nMemTotal:       1000000 kB\n")].iter().chain(files) {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn resolved(files: &[(&str, &str)]) -> u64 {
        resolve(MemoryLimit::Percent(50), machine(files).path()).bytes
    }

    #[test]
    fn without_a_cgroup_limit_the_machine_counts() {
        assert_eq!(resolved(&[]), 512_000_000);
        assert_eq!(resolved(&[("proc/self/cgroup", "0::/a\n"), ("sys/fs/cgroup/a/memory.max", "max\n")]), 512_000_000);
        let v1 = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(resolved(&[("proc/self/cgroup", "4:memory:/\n"), v1]), 512_000_000);
        let larger = ("sys/fs/cgroup/memory.max", "9000000000\n");
        assert_eq!(resolved(&[("proc/self/cgroup", "0::/\n"), larger]), 512_000_000);
    }

    #[test]
    fn the_tightest_limit_on_the_way_up_counts() {
        let files = [
            ("proc/self/cgroup", "0::/slice/unit\n"),
            ("sys/fs/cgroup/slice/memory.max", "200000000\n"),
            ("sys/fs/cgroup/slice/unit/memory.max", "400000000\n"),
        ];
        assert_eq!(resolved(&files), 100_000_000);
        let within_a_container = [("proc/self/cgroup", "0::/host/path\n"), ("sys/fs/cgroup/memory.max", "300000000\n")];
        assert_eq!(resolved(&within_a_container), 150_000_000);
        let version_1 = [
            ("proc/self/cgroup", "5:cpu,memory:/docker/x\n1:name=systemd:/\n"),
            ("sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes", "100000000\n"),
        ];
        assert_eq!(resolved(&version_1), 50_000_000);
    }

    #[test]
    fn what_is_said_in_bytes_is_taken_as_it_is() {
        let none = machine(&[]);
        assert_eq!(resolve(MemoryLimit::Bytes(7), none.path()).bytes, 7);
        let nowhere = resolve(MemoryLimit::Percent(70), Path::new("/nowhere"));
        assert_eq!(nowhere.bytes, u64::MAX);
    }
}
