//! The rows of recovery's table that are about snapshots.

use std::path::{Path, PathBuf};

use prost::Message as _;

use super::*;
use crate::{
    disk::{
        Recovering, header,
        simulated::SimulatedFileSystem,
        snapshot::{Draft, Kind, Writer},
    },
    pb::storage::{LogId, SnapshotHeader},
};

const RECORDS: u64 = 400;

/// A state that only knows how it came about.
#[derive(Debug, Default, PartialEq, Eq)]
struct Came {
    from_snapshot: u64,
    last_index: u64,
}

impl Recovering for Came {
    fn load(&mut self, snapshot: &Reader, _: &Progress) -> Result<(), RecoveryError> {
        let frames = snapshot.frames();
        let mut buffer = Vec::new();
        while let Some(frame) = frames.next(&mut buffer)? {
            assert_eq!(frame.payload, [1; 100]);
        }
        frames.finish()?;
        *self = Self { from_snapshot: snapshot.index(), last_index: snapshot.index() };
        Ok(())
    }

    fn reset(&mut self) {
        *self = Self::default();
    }

    fn replay(&mut self, record: Replayed<'_>) -> Result<(), Refused> {
        assert_eq!(record.index, self.last_index + 1, "no record twice, none left out");
        self.last_index = record.index;
        Ok(())
    }
}

fn open_store(disk: &SimulatedFileSystem) -> Result<(Came, Recovery), RecoveryError> {
    let mut came = Came::default();
    let options = WalOptions { segment_bytes: 64 * 1024, store_directory: "data".into() };
    let (wal, recovery) = open(Arc::new(disk.clone()), options, &mut came, &Progress::default())?;
    drop(wal);
    Ok((came, recovery))
}

fn snapshot(index: u64) -> PathBuf {
    Path::new("data/snapshots").join(folder::file_name(index))
}

fn write_snapshot(disk: &SimulatedFileSystem, store_id: [u8; 16], index: u64) {
    write_snapshot_with(disk, store_id, index, |_| {});
}

/// The same, with more frames.
fn write_snapshot_with(disk: &SimulatedFileSystem, store_id: [u8; 16], index: u64, more: impl FnOnce(&mut Writer)) {
    let mut writer = Writer::create(Arc::new(disk.clone()), Path::new("data/snapshots"), store_id, index).unwrap();
    let mut draft = Draft::default();
    let header = SnapshotHeader { last: Some(LogId { term: 1, index }), ..Default::default() };
    draft.payload().extend(header.encode_to_vec());
    writer.frame(Kind::Header, 1, &mut draft).unwrap();
    for _ in 0..20 {
        draft.payload().extend([1; 100]);
        writer.frame(Kind::Entries, 1, &mut draft).unwrap();
    }
    more(&mut writer);
    writer.seal(0).unwrap();
    writer.publish().unwrap();
}

/// A store of 400 records in several segments, with snapshots at 150 and at 300.
fn stored() -> SimulatedFileSystem {
    let disk = SimulatedFileSystem::default();
    let options = WalOptions { segment_bytes: 64 * 1024, store_directory: "data".into() };
    let (mut wal, _) = open(Arc::new(disk.clone()), options, &mut Came::default(), &Progress::default()).unwrap();
    for index in 1..=RECORDS {
        wal.stage(1, index, &vec![7; 700]).unwrap();
        wal.write().unwrap();
        wal.sync().unwrap();
        if index == 150 || index == 300 {
            write_snapshot(&disk, wal.store_id(), index);
        }
    }
    wal.close().unwrap();
    disk
}

fn segments(disk: &SimulatedFileSystem) -> Vec<PathBuf> {
    let names = disk.list(Path::new("data/wal")).unwrap();
    names.iter().filter(|name| name.ends_with(".wal")).map(|name| Path::new("data/wal").join(name)).collect()
}

fn break_it(disk: &SimulatedFileSystem, path: &Path) {
    disk.corrupt(path, |bytes| bytes[4096 + 300] ^= 1);
}

/// Refused, and nothing is changed.
fn refused(disk: &SimulatedFileSystem) -> RecoveryError {
    disk.put_file(Path::new("data/snapshots/00000000000000000500.tmp"), vec![0; 10]);
    let before = disk.list(Path::new("data/snapshots")).unwrap();
    let error = open_store(disk).unwrap_err();
    assert!(error.to_string().contains("Remedy"), "{error}");
    assert_eq!(disk.list(Path::new("data/snapshots")).unwrap(), before, "nothing is changed");
    error
}

#[test]
fn the_newest_snapshot_is_loaded_and_what_follows_is_replayed() {
    let disk = stored();
    let (came, recovery) = open_store(&disk).unwrap();
    assert_eq!(came, Came { from_snapshot: 300, last_index: RECORDS });
    assert_eq!((recovery.records, recovery.last_index), (100, RECORDS));
    assert_eq!(recovery.snapshot.map(|used| used.index), Some(300));
    assert!(recovery.clean && recovery.damaged.is_empty());
    assert!(recovery.segments < segments(&disk).len(), "what lies behind the snapshot is not read");
}

#[test]
fn a_missing_snapshot_costs_only_time_while_the_log_reaches_back() {
    let disk = stored();
    disk.take_file(&snapshot(300));
    assert_eq!(open_store(&disk).unwrap().0, Came { from_snapshot: 150, last_index: RECORDS });
    disk.take_file(&snapshot(150));
    assert_eq!(open_store(&disk).unwrap().0, Came { from_snapshot: 0, last_index: RECORDS });
}

#[test]
fn a_missing_snapshot_that_the_log_cannot_replace_refuses_the_start() {
    let disk = stored();
    let first = segments(&disk)[0].clone();
    disk.take_file(&first);
    disk.take_file(&snapshot(150));
    assert_eq!(open_store(&disk).unwrap().0.from_snapshot, 300);
    disk.take_file(&snapshot(300));
    let error = refused(&disk);
    assert_eq!(error.kind, RecoveryErrorKind::Gap);
    assert!(error.reason.contains("no snapshot holds what came before"), "{error}");

    // A snapshot is there, but it ends before the log begins.
    let disk = stored();
    segments(&disk).iter().take(4).for_each(|segment| drop(disk.take_file(segment)));
    disk.take_file(&snapshot(300));
    assert_eq!(refused(&disk).kind, RecoveryErrorKind::Gap);
}

#[test]
fn a_torn_or_corrupt_snapshot_falls_back_on_the_older_one_loudly() {
    let changes: [fn(&mut Vec<u8>); 3] =
        [|bytes| bytes[4096 + 300] ^= 1, |bytes| bytes.truncate(5_000), |bytes| bytes[40] ^= 1];
    for change in changes {
        let disk = stored();
        disk.corrupt(&snapshot(300), change);
        let (came, recovery) = open_store(&disk).unwrap();
        assert_eq!(came, Came { from_snapshot: 150, last_index: RECORDS });
        let damaged = &recovery.damaged[0];
        assert_eq!((damaged.kind, &damaged.file), (RecoveryErrorKind::Damaged, &snapshot(300)));
        let left = disk.list(Path::new("data/snapshots")).unwrap();
        assert_eq!(left, [folder::file_name(150), "00000000000000000300.damaged".into()], "put aside");
        assert!(open_store(&disk).unwrap().1.damaged.is_empty(), "told once");
    }
}

#[test]
fn corrupt_snapshots_fall_back_on_the_whole_log() {
    let disk = stored();
    break_it(&disk, &snapshot(300));
    break_it(&disk, &snapshot(150));
    let (came, recovery) = open_store(&disk).unwrap();
    assert_eq!(came, Came { from_snapshot: 0, last_index: RECORDS });
    assert_eq!((recovery.damaged.len(), recovery.records), (2, RECORDS));
}

#[test]
fn a_corrupt_snapshot_that_nothing_can_replace_refuses_the_start() {
    let disk = stored();
    segments(&disk).iter().take(2).for_each(|segment| drop(disk.take_file(segment)));
    disk.take_file(&snapshot(150));
    break_it(&disk, &snapshot(300));
    let error = refused(&disk);
    assert_eq!((error.kind, &error.file), (RecoveryErrorKind::Damaged, &snapshot(300)));
    assert!(error.offset.is_some() && error.reason.contains("the log begins at index"), "{error}");
}

#[test]
fn a_segment_that_is_needed_for_the_fallback_must_be_whole() {
    let disk = stored();
    break_it(&disk, &snapshot(300));
    let behind = segments(&disk).iter().rposition(|path| path < &Path::new("data/wal").join(segment::file_name(290)));
    let needed = segments(&disk)[behind.unwrap()].clone();
    disk.corrupt(&needed, |bytes| bytes[4096 + 50] ^= 1);
    assert_eq!(refused(&disk).file, needed);
    // With the newest snapshot it is not needed, and not read.
    let disk = stored();
    disk.corrupt(&segments(&disk)[0], |bytes| bytes[4096 + 50] ^= 1);
    assert_eq!(open_store(&disk).unwrap().0.from_snapshot, 300);
}

#[test]
fn a_snapshot_under_another_ones_name_is_refused() {
    let disk = stored();
    let bytes = disk.take_file(&snapshot(150));
    disk.put_file(&snapshot(301), bytes);
    let error = refused(&disk);
    assert_eq!((error.kind, &error.file), (RecoveryErrorKind::Foreign, &snapshot(301)));
}

#[test]
fn foreign_files_and_another_stores_snapshots_are_refused_by_name() {
    let disk = stored();
    disk.put_file(Path::new("data/snapshots/holiday.jpg"), vec![1]);
    assert!(refused(&disk).to_string().contains("holiday.jpg"));

    let disk = stored();
    disk.corrupt(&snapshot(300), |bytes| bytes[..8].copy_from_slice(b"NOTATALL"));
    assert_eq!(refused(&disk).kind, RecoveryErrorKind::Foreign);

    let disk = stored();
    disk.take_file(&snapshot(300));
    write_snapshot(&disk, [9; 16], 300);
    let error = refused(&disk);
    assert_eq!(error.kind, RecoveryErrorKind::Foreign);
    assert!(error.reason.contains("another store"), "{error}");
}

#[test]
fn a_snapshot_of_a_newer_format_is_refused_and_not_fallen_back_from() {
    let disk = stored();
    disk.corrupt(&snapshot(300), |bytes| bytes[8] = 2);
    let error = refused(&disk);
    assert_eq!(error.kind, RecoveryErrorKind::Future);
    assert!(error.to_string().contains("version 2"), "{error}");
}

#[test]
fn a_snapshot_with_a_frame_of_a_newer_kind_is_future() {
    let disk = stored();
    let bytes = disk.take_file(&snapshot(300));
    let store_id = header::decode(crate::disk::snapshot::FORMAT, &bytes).unwrap().store_id;
    write_snapshot_with(&disk, store_id, 300, |writer| {
        writer.frame(Kind::Reserved(6), 0, &mut Draft::default()).unwrap();
    });
    let error = refused(&disk);
    assert_eq!((error.kind, &error.file), (RecoveryErrorKind::Future, &snapshot(300)));
    assert!(error.reason.contains("kind 6"), "{error}");
}

#[test]
fn a_snapshot_that_is_not_what_its_footer_says_is_corrupt() {
    // Each frame is 128 bytes: here the second of the entries is left out, and there it stands twice.
    let changes: [fn(&mut Vec<u8>, usize); 2] = [
        |bytes, second| {
            let footer = bytes.len() - 4096;
            bytes.copy_within(second + 128..footer, second);
        },
        |bytes, second| bytes.copy_within(second..second + 128, second + 128),
    ];
    for change in changes {
        let disk = stored();
        disk.corrupt(&snapshot(300), |bytes| {
            let first = bytes.windows(100).position(|window| window == [1; 100]).unwrap() - 24;
            change(bytes, first + 128);
        });
        let (came, recovery) = open_store(&disk).unwrap();
        assert_eq!(came, Came { from_snapshot: 150, last_index: RECORDS });
        assert_eq!(recovery.damaged[0].kind, RecoveryErrorKind::Damaged);
    }
}

#[test]
fn the_mark_of_a_restore_that_was_cut_short_refuses_the_start() {
    let disk = stored();
    disk.put_file(&Path::new("data").join(RESTORING), Vec::new());
    let error = refused(&disk);
    assert_eq!(error.kind, RecoveryErrorKind::Gap);
    assert!(error.remedy.contains("remove the directory and restore again"), "{error}");
}

#[test]
fn every_row_of_recoverys_table_names_a_test_that_is_there() {
    let tests =
        [include_str!("tests.rs"), include_str!("../tests.rs"), include_str!("../../engine/tests/strange_files.rs")]
            .concat();
    let rows = include_str!("mod.rs").lines().filter(|line| line.starts_with("//! | "));
    let named: Vec<_> = rows.filter(|row| !row.contains("| test |")).map(|row| row.split('`').rev().nth(1)).collect();
    assert!(named.len() > 30);
    for name in named {
        let name = name.unwrap();
        assert!(tests.contains(&format!("#[test]\nfn {name}() {{")), "no test {name}");
    }
}

#[test]
fn snapshots_without_a_log_are_refused() {
    let disk = stored();
    segments(&disk).iter().for_each(|segment| drop(disk.take_file(segment)));
    let error = refused(&disk);
    assert_eq!(error.kind, RecoveryErrorKind::Gap);
    assert!(error.reason.contains("the log is missing"), "{error}");
}

#[test]
fn a_log_that_ends_before_its_snapshot_has_lost_something() {
    let disk = stored();
    for path in segments(&disk).iter().filter(|path| **path > Path::new("data/wal").join(segment::file_name(200))) {
        disk.take_file(path);
    }
    let error = refused(&disk);
    assert_eq!(error.kind, RecoveryErrorKind::Damaged);
    assert!(error.reason.contains("a snapshot holds it"), "{error}");
}

#[test]
fn leftovers_go_and_damaged_ones_that_were_put_aside_stay() {
    let disk = stored();
    disk.put_file(Path::new("data/snapshots/00000000000000000500.tmp"), vec![0; 10]);
    disk.put_file(Path::new("data/snapshots/00000000000000000200.damaged"), vec![0; 10]);
    open_store(&disk).unwrap();
    let left = disk.list(Path::new("data/snapshots")).unwrap();
    assert_eq!(left, [folder::file_name(150), "00000000000000000200.damaged".into(), folder::file_name(300)]);
}
