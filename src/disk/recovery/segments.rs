//! The segments of the log: finds a tear, tells it from damage, replays what is whole.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{NOTHING, Recovering, Recovery, RecoveryError, RecoveryErrorKind, Refused, Replayed, Tear};
use crate::disk::{
    file_system::{File, FileSystem, read_whole},
    frame::{self, Frame, Head, Kind},
    progress::{Phase, Progress},
    segment::{self, HEADER_BYTES, Header, HeaderProblem},
    wal::Active,
};

/// The first segment of a log, or of one that goes on behind a snapshot.
pub fn create_first(fs: &dyn FileSystem, directory: &Path, header: &Header, bytes: u64) -> io::Result<Active> {
    let path = directory.join(segment::file_name(header.first_index));
    let temporary = path.with_extension("tmp");
    let file = fs.create(&temporary)?;
    file.write_all_at(&header.encode(), 0)?;
    segment::fill(&*file, HEADER_BYTES as u64, bytes)?;
    file.sync_data()?;
    fs.rename(&temporary, &path)?;
    fs.sync_directory(directory)?;
    Ok(Active { file, sequence: header.sequence, bytes, position: HEADER_BYTES as u64 })
}

/// Zeros are looked for in so many bytes at once.
const BLOCK_BYTES: usize = 4096;

/// A segment that has a successor.
#[derive(Debug)]
pub struct Ended {
    /// The file.
    pub path: PathBuf,
    /// Where its whole frames end.
    pub end: usize,
    /// Something other than zeros lies behind them.
    pub torn: bool,
}

/// A segment that was read.
pub struct Scan {
    /// Where its frames end.
    pub end: usize,
    /// Index behind its last record.
    pub next_index: u64,
    /// The last frame is CLOSE.
    pub closed: bool,
}

/// The last segment as it was found, and what was found before it.
pub struct Found {
    /// What recovery found.
    pub recovery: Recovery,
    /// The last segment's header.
    pub header: Header,
    path: PathBuf,
    bytes: Vec<u8>,
    /// Where its whole frames end.
    end: usize,
}

/// Replays what the segments hold behind record `base_index`, which a snapshot holds. Segments wholly behind it are not read.
/// Changes nothing on disk.
pub fn recover(
    fs: &dyn FileSystem,
    directory: &Path,
    names: &[(u64, String)],
    base_index: u64,
    state: &mut dyn Recovering,
    progress: &Progress,
) -> Result<Found, RecoveryError> {
    // The caller has seen that the log reaches back to the snapshot.
    let behind = names.iter().rposition(|(first_index, _)| *first_index <= base_index + 1).unwrap_or(0);
    let files = open_all(fs, directory, &names[behind..], progress)?;
    let count = files.len();
    let mut recovery = Recovery { segments: count, ..NOTHING };
    let mut next_index = names[behind].0;
    let mut before: Option<Header> = None;
    // Where the segment before ended, in case its successor proves that more was there.
    let mut ended: Option<Ended> = None;
    for (position, (first_index, path, file)) in files.into_iter().enumerate() {
        let bytes = read_whole(&*file).map_err(|error| RecoveryError::io(&path, error))?;
        let header = check_header(&path, &bytes, first_index, before.as_ref())?;
        progress.advance(HEADER_BYTES as u64);
        check_order(&path, first_index, next_index, ended.as_ref())?;
        let scan = scan(&path, &bytes, &header, progress, &mut |_, frame| {
            if frame.head.kind != Kind::Record || frame.head.index <= base_index {
                return Ok(());
            }
            recovery.records += 1;
            recovery.replayed_bytes += frame.length as u64;
            state.replay(Replayed { index: frame.head.index, payload: frame.payload })
        })?;
        next_index = scan.next_index;
        if position + 1 < count {
            let torn = bytes[scan.end..].iter().any(|byte| *byte != 0);
            ended = Some(Ended { path, end: scan.end, torn });
            before = Some(header);
            continue;
        }
        let rest = &bytes[scan.end..];
        check_damage(&path, rest, scan.end, &header, next_index)?;
        if next_index <= base_index {
            let reason = format!(
                "the log ends before index {next_index}, and everything up to {base_index} was on disk: a snapshot holds it"
            );
            return Err(RecoveryError::new(RecoveryErrorKind::Damaged, &path, Some(scan.end as u64), reason));
        }
        recovery.last_index = next_index - 1;
        recovery.tear = tear(&path, rest, scan.end);
        recovery.clean = scan.closed && recovery.tear.is_none();
        return Ok(Found { recovery, header, path, bytes, end: scan.end });
    }
    Err(RecoveryError::io(directory, "no segment to read"))
}

/// Makes the last segment the active one: as it is after a clean stop, otherwise written anew.
pub fn activate(fs: &dyn FileSystem, directory: &Path, found: Found) -> Result<Active, RecoveryError> {
    let Found { recovery, header, path, bytes, end } = found;
    if recovery.clean {
        let file = fs.open(&path).map_err(|error| RecoveryError::io(&path, error))?;
        return Ok(Active { file, sequence: header.sequence, bytes: bytes.len() as u64, position: end as u64 });
    }
    rewrite(fs, directory, &path, &bytes, end, &header).map_err(|error| RecoveryError::io(&path, error))
}

/// A segment to be read: its first index, its path, the file.
type Opened = (u64, PathBuf, Arc<dyn File>);

fn open_all(
    fs: &dyn FileSystem,
    directory: &Path,
    names: &[(u64, String)],
    progress: &Progress,
) -> Result<Vec<Opened>, RecoveryError> {
    let mut files = Vec::with_capacity(names.len());
    let mut total_bytes = 0;
    for (first_index, name) in names {
        let path = directory.join(name);
        let file = fs.open_to_read(&path).map_err(|error| RecoveryError::io(&path, error))?;
        total_bytes += file.length().map_err(|error| RecoveryError::io(&path, error))?;
        files.push((*first_index, path, file));
    }
    progress.begin(Phase::Log, total_bytes);
    Ok(files)
}

/// What the header of a segment says, or why it cannot be the one that its name says.
pub fn read_header(fs: &dyn FileSystem, path: &Path, first_index: u64) -> Result<Header, RecoveryError> {
    let mut bytes = vec![0; HEADER_BYTES];
    let read = fs.open_to_read(path).and_then(|file| file.read_at(&mut bytes, 0));
    let read = read.map_err(|error| RecoveryError::io(path, error))?;
    check_header(path, &bytes[..read], first_index, None)
}

/// What the first bytes of a segment say, or why it cannot be the one that its name says, behind the one before.
pub fn check_header(
    path: &Path,
    bytes: &[u8],
    first_index: u64,
    before: Option<&Header>,
) -> Result<Header, RecoveryError> {
    let refuse = |kind, reason: String| Err(RecoveryError::new(kind, path, Some(0), reason));
    let header = match Header::decode(bytes) {
        Ok(header) => header,
        Err(HeaderProblem::Foreign) => {
            return refuse(RecoveryErrorKind::Foreign, "not a segment of a Tandem log".into());
        }
        Err(HeaderProblem::Future(version)) => {
            let reason = format!("format version {version} is newer than {}", segment::FORMAT.version);
            return refuse(RecoveryErrorKind::Future, reason);
        }
        Err(HeaderProblem::Damaged) => {
            return refuse(RecoveryErrorKind::Damaged, "the segment's header is damaged or missing".into());
        }
    };
    if header.first_index != first_index {
        let reason =
            format!("the file's name says it begins at index {first_index}, its header {}", header.first_index);
        return refuse(RecoveryErrorKind::Foreign, reason);
    }
    check_follows(path, &header, before)?;
    Ok(header)
}

/// The segment must be of the same store as the one before, and be written after it.
pub fn check_follows(path: &Path, header: &Header, before: Option<&Header>) -> Result<(), RecoveryError> {
    let refuse = |kind, reason: &str| Err(RecoveryError::new(kind, path, Some(0), reason.to_owned()));
    match before {
        Some(before) if before.store_id != header.store_id => {
            refuse(RecoveryErrorKind::Foreign, "the segment belongs to another store")
        }
        Some(before) if before.sequence >= header.sequence => {
            refuse(RecoveryErrorKind::Damaged, "the segment's sequence does not follow the one before")
        }
        _ => Ok(()),
    }
}

/// The segment must begin where the one before ended.
pub fn check_order(path: &Path, first_index: u64, next_index: u64, ended: Option<&Ended>) -> Result<(), RecoveryError> {
    if first_index == next_index {
        return Ok(());
    }
    if first_index < next_index {
        let reason = format!("the segment begins at index {first_index}, which the one before holds already");
        return Err(RecoveryError::new(RecoveryErrorKind::Gap, path, None, reason));
    }
    match ended {
        // The segment before was synced whole before its successor began: a bad frame at its end is damage.
        Some(before) if before.torn => {
            let reason = format!(
                "the record with index {next_index} was on disk and is damaged: the next segment begins at index {first_index}"
            );
            Err(RecoveryError::new(RecoveryErrorKind::Damaged, &before.path, Some(before.end as u64), reason))
        }
        _ => {
            let reason =
                format!("the segment begins at index {first_index}, and {next_index} was to come: one is missing");
            Err(RecoveryError::new(RecoveryErrorKind::Gap, path, None, reason))
        }
    }
}

/// Gets each frame of a segment with its offset; an error of it is one of the file.
pub type Visit<'visit> = dyn FnMut(u64, &Frame<'_>) -> Result<(), Refused> + 'visit;

/// Reads the frames of a segment until the first bad one, and shows them to `visit`.
pub fn scan(
    path: &Path,
    bytes: &[u8],
    header: &Header,
    progress: &Progress,
    visit: &mut Visit<'_>,
) -> Result<Scan, RecoveryError> {
    let mut scan = Scan { end: HEADER_BYTES, next_index: header.first_index, closed: false };
    while let Some(frame) = frame::decode(&bytes[scan.end..], header.sequence) {
        let refuse = |kind, reason| Err(RecoveryError::new(kind, path, Some(scan.end as u64), reason));
        let expected_index = match frame.head.kind {
            Kind::Record => scan.next_index,
            Kind::Mark | Kind::Close => scan.next_index - 1,
            Kind::Reserved(number) => {
                return refuse(
                    RecoveryErrorKind::Future,
                    format!("a frame of kind {number}, which a newer version writes"),
                );
            }
        };
        if frame.head.index != expected_index {
            let reason = format!("a frame says index {}, and {expected_index} was to come", frame.head.index);
            return refuse(RecoveryErrorKind::Gap, reason);
        }
        if let Err(Refused { kind, reason }) = visit(scan.end as u64, &frame) {
            return refuse(kind, reason);
        }
        scan.next_index += u64::from(frame.head.kind == Kind::Record);
        scan.closed = frame.head.kind == Kind::Close;
        scan.end += frame.length;
        progress.advance(frame.length as u64);
    }
    progress.advance((bytes.len() - scan.end) as u64);
    Ok(scan)
}

/// What a crash left behind the whole frames of a segment, where it left something.
pub fn tear(path: &Path, rest: &[u8], end: usize) -> Option<Tear> {
    let bytes_cut = without_zeros(rest) as u64;
    (bytes_cut > 0).then(|| Tear { file: path.to_owned(), offset: end as u64, bytes_cut })
}

/// How many bytes there are up to the last one that is not zero: mostly none of tens of megabytes, looked at block by block.
fn without_zeros(mut bytes: &[u8]) -> usize {
    while let Some((before, last)) = bytes.split_last_chunk::<BLOCK_BYTES>()
        && *last == [0; BLOCK_BYTES]
    {
        bytes = before;
    }
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// Refuses if any whole frame behind the end knew the index at the end to be on disk.
pub fn check_damage(
    path: &Path,
    rest: &[u8],
    end: usize,
    header: &Header,
    next_index: u64,
) -> Result<(), RecoveryError> {
    let proof = (0..without_zeros(rest)).step_by(8).find_map(|at| {
        // Much of what lies there may be zeros.
        if rest[at..].first_chunk::<16>().is_none_or(|head| head[8..16] == [0; 8]) {
            return None;
        }
        frame::decode(&rest[at..], header.sequence).filter(|frame| frame.head.synced_index >= next_index)
    });
    match proof {
        None => Ok(()),
        Some(frame) => {
            let reason = format!(
                "the record with index {next_index} was on disk and is damaged: a later frame knew everything up to index \
                 {} to be synced",
                frame.head.synced_index
            );
            Err(RecoveryError::new(RecoveryErrorKind::Damaged, path, Some(end as u64), reason))
        }
    }
}

/// Writes the valid part of the last segment anew, under a new sequence.
fn rewrite(
    fs: &dyn FileSystem,
    directory: &Path,
    path: &Path,
    bytes: &[u8],
    end: usize,
    header: &Header,
) -> io::Result<Active> {
    let header = Header { sequence: header.sequence + 1, ..*header };
    let temporary = path.with_extension("tmp");
    let file = fs.create(&temporary)?;
    file.write_all_at(&header.encode(), 0)?;
    let mut read = HEADER_BYTES;
    let mut written = HEADER_BYTES as u64;
    let mut buffer = Vec::new();
    while read < end {
        let Some(frame) = frame::decode(&bytes[read..end], header.sequence - 1) else {
            return Err(io::Error::other("a frame that was whole a moment ago is not"));
        };
        read += frame.length;
        frame::encode(&mut buffer, Head { sequence: header.sequence, ..frame.head }, &[frame.payload]);
        if buffer.len() >= 1 << 20 || read == end {
            file.write_all_at(&buffer, written)?;
            written += buffer.len() as u64;
            buffer.clear();
        }
    }
    segment::fill(&*file, written, bytes.len() as u64)?;
    file.sync_data()?;
    fs.rename(&temporary, path)?;
    fs.sync_directory(directory)?;
    Ok(Active { file, sequence: header.sequence, bytes: bytes.len() as u64, position: written })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_counted_off_from_the_end_to_the_last_byte_that_is_not() {
        let mut bytes = vec![0; 3 * BLOCK_BYTES + 5];
        assert_eq!((without_zeros(&bytes), without_zeros(&[])), (0, 0));
        for last in [0, 4, 5, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 4, 2 * BLOCK_BYTES + 7, 3 * BLOCK_BYTES + 4] {
            bytes[last] = 1;
            assert_eq!(without_zeros(&bytes), last + 1);
        }
    }
}
