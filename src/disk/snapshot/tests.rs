//! Snapshots as bytes: round trips, and every way in which a file can be less than what was written.

use std::{path::Path, sync::Arc};

use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::{
    disk::{
        FileSystem, RecoveryError, RecoveryErrorKind,
        simulated::{Operation, SimulatedFileSystem, Survives},
    },
    pb::storage::{LogId, SnapshotHeader},
};

const DIRECTORY: &str = "data/snapshots";

fn path() -> std::path::PathBuf {
    Path::new(DIRECTORY).join(folder::file_name(9))
}

fn write(disk: &SimulatedFileSystem, payloads: &[Vec<u8>]) -> std::io::Result<()> {
    let mut writer = Writer::create(Arc::new(disk.clone()), Path::new(DIRECTORY), [7; 16], 9)?;
    let mut draft = Draft::default();
    let header = SnapshotHeader { last: Some(LogId { term: 1, index: 9 }), ..Default::default() };
    draft.payload().extend(header.encode_to_vec());
    writer.frame(Kind::Header, 1, &mut draft)?;
    for payload in payloads {
        draft.payload().extend(payload);
        writer.frame(Kind::Entries, 2, &mut draft)?;
    }
    writer.seal(5)?;
    writer.publish().map(drop)
}

fn read(disk: &SimulatedFileSystem) -> Result<Vec<Vec<u8>>, RecoveryError> {
    let reader = Reader::open(disk, &path())?;
    let frames = reader.frames();
    let mut payloads = Vec::new();
    let mut buffer = Vec::new();
    while let Some(frame) = frames.next(&mut buffer)? {
        assert_eq!((frame.kind, frame.items, frame.number), (Kind::Entries, 2, payloads.len() as u64 + 1));
        payloads.push(frame.payload.to_vec());
    }
    frames.finish()?;
    Ok(payloads)
}

fn payloads() -> Vec<Vec<u8>> {
    (0..40_u8).map(|number| vec![number; usize::from(number) * 501]).collect()
}

fn written() -> SimulatedFileSystem {
    let disk = SimulatedFileSystem::default();
    write(&disk, &payloads()).unwrap();
    disk
}

#[test]
fn a_snapshot_reads_back_and_leaves_no_temporary_file() {
    let disk = written();
    assert_eq!(read(&disk).unwrap(), payloads());
    assert_eq!(disk.list(Path::new(DIRECTORY)).unwrap(), [folder::file_name(9)]);
    let reader = Reader::open(&disk, &path()).unwrap();
    assert_eq!((reader.index(), reader.store_id(), reader.bytes() % 4096), (9, [7; 16], 0));
    assert_eq!((reader.footer().entries, reader.footer().frames), (80, 41));
    assert_eq!(reader.footer().state_hash[..], 5_u128.to_be_bytes());
}

#[test]
fn a_real_file_is_the_same_as_a_simulated_one() {
    let directory = tempfile::tempdir().unwrap();
    let real: Arc<dyn FileSystem> = Arc::new(crate::disk::RealFileSystem);
    let mut writer = Writer::create(Arc::clone(&real), directory.path(), [7; 16], 9).unwrap();
    let mut draft = Draft::default();
    let header = SnapshotHeader { last: Some(LogId { term: 1, index: 9 }), ..Default::default() };
    draft.payload().extend(header.encode_to_vec());
    writer.frame(Kind::Header, 1, &mut draft).unwrap();
    for payload in payloads() {
        draft.payload().extend(payload);
        writer.frame(Kind::Entries, 2, &mut draft).unwrap();
    }
    writer.seal(5).unwrap();
    let bytes = std::fs::read(writer.publish().unwrap()).unwrap();
    assert!(bytes == written().take_file(&path()));
}

#[test]
fn a_snapshot_cut_anywhere_is_torn() {
    let whole = written().take_file(&path());
    for length in (0..whole.len()).step_by(1_001).chain([whole.len() - 1, whole.len() - 4096]) {
        let disk = SimulatedFileSystem::default();
        disk.put_file(&path(), whole[..length].to_vec());
        let error = read(&disk).unwrap_err();
        assert_eq!(error.kind, RecoveryErrorKind::Damaged, "cut at {length}");
        assert!(error.offset.is_some());
    }
}

#[test]
fn missing_repeated_and_exchanged_frames_are_found() {
    let whole = written().take_file(&path());
    let begins = |number: usize| {
        // The header's frame, then those of `payloads`.
        let header = codec::framed_bytes(
            SnapshotHeader { last: Some(LogId { term: 1, index: 9 }), ..Default::default() }.encoded_len(),
        );
        4096 + header + payloads()[..number].iter().map(|payload| codec::framed_bytes(payload.len())).sum::<usize>()
    };
    let (third, fourth, fifth) = (begins(3), begins(4), begins(5));
    let changes = [
        [&whole[..third], &whole[fourth..]].concat(),
        [&whole[..fourth], &whole[third..]].concat(),
        [&whole[..third], &whole[fourth..fifth], &whole[third..fourth], &whole[fifth..]].concat(),
    ];
    for (number, bytes) in changes.into_iter().enumerate() {
        let disk = SimulatedFileSystem::default();
        disk.put_file(&path(), bytes);
        assert_eq!(read(&disk).unwrap_err().kind, RecoveryErrorKind::Damaged, "change {number}");
    }
}

#[test]
fn foreign_and_future_files_are_told_apart_from_damaged_ones() {
    for (change, kind) in [
        (b"NOTATALL\x01".as_slice(), RecoveryErrorKind::Foreign),
        (b"TANDEMSN\x02", RecoveryErrorKind::Future),
        (b"TANDEMSN\x00", RecoveryErrorKind::Damaged),
        (&[0; 4096], RecoveryErrorKind::Damaged),
    ] {
        let disk = written();
        disk.corrupt(&path(), |bytes| bytes[..change.len()].copy_from_slice(change));
        assert_eq!(read(&disk).unwrap_err().kind, kind);
    }
    let disk = SimulatedFileSystem::default();
    let mut writer = Writer::create(Arc::new(disk.clone()), Path::new(DIRECTORY), [7; 16], 9).unwrap();
    let mut draft = Draft::default();
    let header = SnapshotHeader { last: Some(LogId { term: 1, index: 9 }), ..Default::default() };
    draft.payload().extend(header.encode_to_vec());
    writer.frame(Kind::Header, 1, &mut draft).unwrap();
    writer.frame(Kind::Reserved(6), 0, &mut draft).unwrap();
    writer.seal(0).unwrap();
    writer.publish().unwrap();
    assert_eq!(read(&disk).unwrap_err().kind, RecoveryErrorKind::Future);
}

#[test]
fn a_crash_at_any_operation_leaves_a_whole_snapshot_or_none_by_that_name() {
    let whole = written();
    for operation in 1..=whole.operations() {
        let disk = SimulatedFileSystem::default();
        disk.crash_at(operation);
        let published = write(&disk, &payloads()).is_ok();
        for survives in [Survives::Nothing, Survives::Everything, Survives::Prefix, Survives::Anything] {
            let restarted = disk.after_crash(survives, operation);
            let named = restarted.list(Path::new(DIRECTORY)).unwrap().contains(&folder::file_name(9));
            assert!(named || !published, "crash at {operation}, {survives:?}: a published snapshot is gone");
            if named {
                assert_eq!(read(&restarted).unwrap(), payloads(), "crash at {operation}, {survives:?}");
            }
        }
    }
}

#[test]
fn a_failed_write_gives_its_room_back() {
    for failing in [Operation::Write, Operation::Sync, Operation::Rename] {
        let disk = SimulatedFileSystem::default();
        disk.inject(move |operation, _| (operation == failing).then(|| std::io::Error::from_raw_os_error(28)));
        assert!(write(&disk, &payloads()).is_err());
        assert_eq!((disk.used_bytes(), disk.list(Path::new(DIRECTORY)).unwrap().len()), (0, 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn any_flipped_bit_is_found(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let disk = written();
        let mut matters = true;
        disk.corrupt(&path(), |bytes| {
            let at = at.index(bytes.len());
            let footer = bytes.len() - 4096;
            // Zeros behind the header, behind the frames and behind the footer's frame say nothing.
            matters = !(60..4096).contains(&at) && (at < footer || at < footer + 64) && (at >= footer || bytes[at..footer].iter().any(|byte| *byte != 0));
            bytes[at] ^= 1 << bit;
        });
        prop_assert!(!matters || read(&disk).is_err());
    }
}
