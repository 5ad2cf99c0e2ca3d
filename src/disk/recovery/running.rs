//! Checks the log of a running store: reads its segments piece by piece, so that little memory is taken, and changes
//! nothing. Segments may go meanwhile, because a snapshot made them superfluous, and the last one grows.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{RecoveryError, RecoveryErrorKind, segments::read_header};
use crate::{
    disk::{
        file_system::{File, FileSystem},
        frame::{self, Kind},
        segment::{self, HEADER_BYTES},
    },
    limits::{RECORD_BYTES_MAX, VERIFY_STEP_BYTES},
};

/// What a segment holds, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentCheck {
    /// The file.
    pub path: PathBuf,
    /// Bytes of header and frames.
    pub bytes: u64,
    /// Records.
    pub records: u64,
    /// What would refuse a start.
    pub damage: Option<RecoveryError>,
}

/// Checks each segment; records up to `synced_index` must be there. `advance` gets the bytes that were read now and says
/// whether to go on; `None`: it said no.
pub fn check_running(
    fs: &dyn FileSystem,
    directory: &Path,
    synced_index: u64,
    advance: &mut dyn FnMut(u64) -> bool,
) -> io::Result<Option<Vec<SegmentCheck>>> {
    let mut names: Vec<_> =
        fs.list(directory)?.into_iter().filter_map(|name| Some((segment::first_index_of(&name)?, name))).collect();
    names.sort();
    let mut checks: Vec<SegmentCheck> = Vec::with_capacity(names.len());
    // Where the one before ended: index behind its last record, and offset.
    let mut before: Option<(u64, u64)> = None;
    for (first_index, name) in names {
        let path = directory.join(name);
        let file = match fs.open_to_read(&path) {
            // A snapshot made it superfluous.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                before = None;
                continue;
            }
            opened => opened?,
        };
        if let (Some((next_index, end)), Some(last)) = (before, checks.last_mut())
            && next_index != first_index
        {
            let reason =
                format!("its records end before index {next_index}, and the next segment begins at {first_index}");
            last.damage.get_or_insert_with(|| damaged(&last.path, end, reason));
        }
        match check_segment(fs, &*file, path, first_index, advance) {
            Found::Gone => before = None,
            Found::Stopped => return Ok(None),
            Found::Segment { check, end } => {
                checks.push(check);
                before = end;
            }
        }
    }
    if let (Some((next_index, end)), Some(last)) = (before, checks.last_mut())
        && next_index <= synced_index
    {
        let reason =
            format!("its records end before index {next_index}, and everything up to {synced_index} was on disk");
        last.damage = Some(damaged(&last.path, end, reason));
    }
    Ok(Some(checks))
}

/// What became of the check of a segment.
enum Found {
    /// A snapshot made it superfluous meanwhile.
    Gone,
    /// It was told to stop.
    Stopped,
    /// It was read.
    Segment {
        check: SegmentCheck,
        /// Index behind its last record, and offset; `None` where it could not be read to its end.
        end: Option<(u64, u64)>,
    },
}

fn check_segment(
    fs: &dyn FileSystem,
    file: &dyn File,
    path: PathBuf,
    first_index: u64,
    advance: &mut dyn FnMut(u64) -> bool,
) -> Found {
    let sequence = match read_header(fs, &path, first_index) {
        Ok(header) => header.sequence,
        Err(_) if is_gone(fs, &path) => return Found::Gone,
        Err(error) => {
            let check = SegmentCheck { path, bytes: 0, records: 0, damage: Some(error) };
            return Found::Segment { check, end: None };
        }
    };
    let mut reading = Reading { file, sequence, window: Vec::new(), at: HEADER_BYTES as u64, next_index: first_index };
    let damage = match reading.read(advance) {
        Ok(true) => None,
        Ok(false) => return Found::Stopped,
        Err(error) => Some(RecoveryError::io(&path, error)),
    };
    let end = damage.is_none().then_some((reading.next_index, reading.at));
    let records = reading.next_index - first_index;
    Found::Segment { check: SegmentCheck { path, bytes: reading.at, records, damage }, end }
}

/// Whether a file is there no more.
pub fn is_gone(fs: &dyn FileSystem, path: &Path) -> bool {
    fs.open(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

fn damaged(path: &Path, offset: u64, reason: String) -> RecoveryError {
    RecoveryError::new(RecoveryErrorKind::Damaged, path, Some(offset), reason)
}

/// A segment on its way through a window.
struct Reading<'file> {
    file: &'file dyn File,
    sequence: u32,
    window: Vec<u8>,
    /// Where the next frame begins in the file, which is where the window begins.
    at: u64,
    next_index: u64,
}

impl Reading<'_> {
    /// Reads frames until the first bad one, which is the end. False: it was told to stop.
    fn read(&mut self, advance: &mut dyn FnMut(u64) -> bool) -> io::Result<bool> {
        let frame_bytes_max = frame::framed_bytes(RECORD_BYTES_MAX);
        let mut wanted_bytes = VERIFY_STEP_BYTES;
        loop {
            let read_bytes = self.fill(wanted_bytes)?;
            if !advance(read_bytes as u64) {
                return Ok(false);
            }
            let taken = self.take_frames();
            if taken > 0 {
                self.window.drain(..taken);
                self.at += taken as u64;
                wanted_bytes = VERIFY_STEP_BYTES;
            } else if read_bytes > 0 && wanted_bytes < frame_bytes_max {
                // Perhaps a frame that is longer than the window.
                wanted_bytes = frame_bytes_max;
            } else {
                return Ok(true);
            }
        }
    }

    /// Fills the window up to so many bytes, as far as the file goes.
    fn fill(&mut self, wanted_bytes: usize) -> io::Result<usize> {
        let filled = self.window.len();
        let mut end = filled;
        self.window.resize(wanted_bytes.max(filled), 0);
        while end < self.window.len() {
            match self.file.read_at(&mut self.window[end..], self.at + end as u64)? {
                0 => break,
                read => end += read,
            }
        }
        self.window.truncate(end);
        Ok(end - filled)
    }

    /// Takes whole frames off the window that go on where the last one ended; gives their bytes.
    fn take_frames(&mut self) -> usize {
        let mut taken = 0;
        while let Some(frame) = frame::decode(&self.window[taken..], self.sequence) {
            let expected = match frame.head.kind {
                Kind::Record => self.next_index,
                Kind::Mark | Kind::Close | Kind::Reserved(_) => self.next_index - 1,
            };
            if frame.head.index != expected {
                break;
            }
            self.next_index += u64::from(frame.head.kind == Kind::Record);
            taken += frame.length;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::simulated::SimulatedFileSystem;

    const FOLDER: &str = "data/wal";

    /// A segment with records of so many bytes, and its file's bytes.
    fn put_segment(disk: &SimulatedFileSystem, sequence: u32, first_index: u64, records: &[usize]) -> PathBuf {
        let mut bytes = segment::Header { sequence, store_id: [7; 16], first_index }.encode();
        bytes.resize(HEADER_BYTES, 0);
        for (number, payload_bytes) in records.iter().enumerate() {
            let head =
                frame::Head { kind: Kind::Record, sequence, index: first_index + number as u64, synced_index: 0 };
            frame::encode(&mut bytes, head, &[&vec![9; *payload_bytes]]);
        }
        bytes.resize(bytes.len() + 4_096, 0);
        let path = Path::new(FOLDER).join(segment::file_name(first_index));
        disk.put_file(&path, bytes);
        path
    }

    fn check(disk: &SimulatedFileSystem, synced_index: u64) -> Vec<SegmentCheck> {
        check_running(disk, Path::new(FOLDER), synced_index, &mut |_| true).unwrap().unwrap()
    }

    #[test]
    fn a_whole_log_is_whole_with_records_of_any_size() {
        let disk = SimulatedFileSystem::default();
        put_segment(&disk, 1, 1, &[40, VERIFY_STEP_BYTES + 5, 40, 3 * VERIFY_STEP_BYTES]);
        put_segment(&disk, 2, 5, &[40; 3]);
        let checks = check(&disk, 7);
        assert_eq!(checks.iter().map(|check| check.records).collect::<Vec<_>>(), [4, 3]);
        assert!(checks.iter().all(|check| check.damage.is_none()), "{checks:?}");
    }

    #[test]
    fn what_is_damaged_or_missing_is_told_with_its_place() {
        let disk = SimulatedFileSystem::default();
        let first = put_segment(&disk, 1, 1, &[40; 10]);
        put_segment(&disk, 2, 11, &[40; 3]);
        let short = check(&disk, 20);
        assert!(short[0].damage.is_none());
        let damage = short[1].damage.as_ref().unwrap();
        assert!(damage.reason.contains("before index 14") && damage.reason.contains("up to 20"), "{damage}");
        let file = disk.open(&first).unwrap();
        let offset = HEADER_BYTES as u64 + 5 * frame::framed_bytes(40) as u64;
        file.write_all_at(b"damage", offset + 40).unwrap();
        let checks = check(&disk, 13);
        let damage = checks[0].damage.as_ref().unwrap();
        assert_eq!((damage.offset, checks[0].records), (Some(offset), 5));
        assert!(checks[1].damage.is_none());
    }

    #[test]
    fn it_stops_when_it_is_told_to() {
        let disk = SimulatedFileSystem::default();
        put_segment(&disk, 1, 1, &[40; 10]);
        assert_eq!(check_running(&disk, Path::new(FOLDER), 10, &mut |_| false).unwrap(), None);
    }
}
