//! The log over the simulated file system: round trips, the rows of recovery's table, a crash at every operation.

use std::{
    io,
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use proptest::prelude::*;

use super::{
    frame::{HEAD_BYTES, PREFIX_BYTES, framed_bytes},
    segment::HEADER_BYTES,
    simulated::{Operation, SimulatedFileSystem, Survives},
    *,
};

const SEGMENT_BYTES: u64 = 64 * 1024;
const SURVIVALS: [Survives; 4] = [Survives::Nothing, Survives::Everything, Survives::Prefix, Survives::Anything];

fn first_segment() -> &'static Path {
    Path::new("data/wal/00000000000000000001.wal")
}

/// What a log gave back: the bodies of its records.
#[derive(Default)]
struct Bodies(Vec<Vec<u8>>);

impl Recovering for Bodies {
    fn load(&mut self, _: &snapshot::Reader, _: &Progress) -> Result<(), RecoveryError> {
        panic!("there is no snapshot")
    }

    fn reset(&mut self) {
        self.0.clear();
    }

    fn replay(&mut self, replayed: Replayed<'_>) -> Result<(), Refused> {
        assert_eq!(replayed.index, self.0.len() as u64 + 1);
        self.0.push(replayed.payload[PREFIX_BYTES..].to_vec());
        Ok(())
    }
}

type Opened = Result<(Wal, Recovery, Vec<Vec<u8>>), RecoveryError>;

/// Opens the log and gives the bodies it holds.
fn open_log(disk: &SimulatedFileSystem) -> Opened {
    let mut bodies = Bodies::default();
    let options = WalOptions { segment_bytes: SEGMENT_BYTES, store_directory: "data".into() };
    let (wal, recovery) = open(Arc::new(disk.clone()), options, &mut bodies, &Progress::default())?;
    Ok((wal, recovery, bodies.0))
}

/// A body that tells its index, of varied length.
fn body(index: u64) -> Vec<u8> {
    let mut body = index.to_le_bytes().to_vec();
    body.resize(8 + (index as usize * 37) % 900, index as u8);
    body
}

fn append(wal: &mut Wal, count: u64, synced: bool) {
    let first = wal.written_index() + 1;
    for index in first..first + count {
        assert_eq!(wal.stage(1, 1_000 + index, &body(index)).unwrap(), index);
    }
    wal.write().unwrap();
    if synced {
        wal.sync().unwrap();
    }
}

fn expect_bodies(bodies: &[Vec<u8>], count: u64) {
    assert_eq!(bodies.len() as u64, count);
    for (place, found) in bodies.iter().enumerate() {
        assert_eq!(*found, body(place as u64 + 1));
    }
}

/// A disk with a log of `count` synced records over several segments, closed or killed.
fn filled(count: u64, closed: bool) -> SimulatedFileSystem {
    let disk = SimulatedFileSystem::default();
    let (mut wal, recovery, _) = open_log(&disk).unwrap();
    assert!(recovery.new_store && recovery.clean);
    for _ in 0..count / 10 {
        append(&mut wal, 10, true);
    }
    if closed {
        wal.close().unwrap();
    }
    disk
}

fn refused(disk: &SimulatedFileSystem) -> RecoveryError {
    disk.put_file(Path::new("data/wal/next"), vec![0; 10]);
    let error = open_log(disk).map(|(_, recovery, _)| recovery).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&error.file.display().to_string()) && text.contains("Remedy"), "{text}");
    assert!(disk.list(Path::new("data/wal")).unwrap().contains(&"next".to_owned()), "nothing was changed");
    error
}

#[test]
fn a_closed_log_goes_on_where_it_ended() {
    let disk = filled(400, true);
    let (mut wal, recovery, bodies) = open_log(&disk).unwrap();
    expect_bodies(&bodies, 400);
    assert!(recovery.clean && recovery.tear.is_none() && recovery.segments > 2, "{recovery:?}");
    append(&mut wal, 5, true);
    wal.close().unwrap();
    expect_bodies(&open_log(&disk).unwrap().2, 405);
}

#[test]
fn a_killed_log_is_rewritten_and_goes_on() {
    let disk = filled(400, false);
    for start in 0..3 {
        let (mut wal, recovery, bodies) = open_log(&disk).unwrap();
        expect_bodies(&bodies, 400 + start);
        assert!(!recovery.clean && recovery.tear.is_none());
        append(&mut wal, 1, true);
    }
}

#[test]
fn leftovers_of_a_first_start_make_a_new_store() {
    let disk = SimulatedFileSystem::default();
    disk.put_file(&first_segment().with_extension("tmp"), vec![1; 10]);
    disk.put_file(Path::new("data/wal/next"), vec![0; 10]);
    assert!(open_log(&disk).unwrap().1.new_store);
    assert!(disk.list(Path::new("data/wal")).unwrap().iter().all(|name| !name.ends_with(".tmp")), "they are removed");
}

#[test]
fn a_segment_without_frames_is_gone_on_in() {
    let disk = SimulatedFileSystem::default();
    drop(open_log(&disk).unwrap());
    let (_, recovery, bodies) = open_log(&disk).unwrap();
    assert!(bodies.is_empty() && !recovery.clean && !recovery.new_store);
}

#[test]
fn a_second_opening_is_refused_by_the_lock() {
    let disk = SimulatedFileSystem::default();
    let held = open_log(&disk).unwrap();
    let error = open_log(&disk).map(|_| ()).unwrap_err();
    assert_eq!(error.kind, RecoveryErrorKind::Locked);
    assert!(error.to_string().contains(&std::process::id().to_string()));
    drop(held);
    open_log(&disk).unwrap();
}

/// Ten records: five synced, then five of one group that was only written.
fn half_synced() -> SimulatedFileSystem {
    let disk = SimulatedFileSystem::default();
    let (mut wal, ..) = open_log(&disk).unwrap();
    append(&mut wal, 5, true);
    append(&mut wal, 5, false);
    disk
}

fn offset_of(index: u64) -> usize {
    HEADER_BYTES + (1..index).map(|index| framed_bytes(PREFIX_BYTES + body(index).len())).sum::<usize>()
}

#[test]
fn a_tear_is_cut_and_told() {
    let disk = half_synced();
    disk.corrupt(first_segment(), |bytes| bytes[offset_of(8) + HEAD_BYTES + 3] ^= 1);
    let (_, recovery, bodies) = open_log(&disk).unwrap();
    expect_bodies(&bodies, 7);
    let tear = recovery.tear.unwrap();
    assert_eq!((tear.file.as_path(), tear.offset), (first_segment(), offset_of(8) as u64));
    assert!(tear.bytes_cut > 0);
    assert!(open_log(&disk).unwrap().1.tear.is_none(), "the rewritten segment has none");
}

#[test]
fn damage_below_a_synced_index_refuses_the_start() {
    for index in 1..=5 {
        let disk = half_synced();
        disk.corrupt(first_segment(), |bytes| bytes[offset_of(index) + HEAD_BYTES + 3] ^= 1);
        let error = refused(&disk);
        assert_eq!(error.kind, RecoveryErrorKind::Damaged);
        assert_eq!(error.offset, Some(offset_of(index) as u64));
    }
}

#[test]
fn a_mark_turns_a_tear_into_damage() {
    let disk = SimulatedFileSystem::default();
    let (mut wal, ..) = open_log(&disk).unwrap();
    append(&mut wal, 5, true);
    wal.mark().unwrap();
    drop(wal);
    disk.corrupt(first_segment(), |bytes| bytes[offset_of(5) + HEAD_BYTES] ^= 1);
    assert_eq!(refused(&disk).kind, RecoveryErrorKind::Damaged);
}

#[test]
fn damage_in_a_segment_that_has_a_successor_refuses_the_start() {
    let disk = filled(400, false);
    let mut last = 0;
    disk.corrupt(first_segment(), |bytes| {
        last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        bytes[last] ^= 1;
    });
    let error = refused(&disk);
    assert_eq!((error.kind, error.file.as_path()), (RecoveryErrorKind::Damaged, first_segment()));
}

fn segments(disk: &SimulatedFileSystem) -> Vec<std::path::PathBuf> {
    let directory = Path::new("data/wal");
    let mut names = disk.list(directory).unwrap();
    names.retain(|name| name.ends_with(".wal"));
    names.sort();
    names.into_iter().map(|name| directory.join(name)).collect()
}

#[test]
fn a_missing_segment_is_a_gap() {
    for missing in [0, 1] {
        let disk = filled(400, true);
        disk.take_file(&segments(&disk)[missing]);
        assert_eq!(refused(&disk).kind, RecoveryErrorKind::Gap, "segment {missing}");
    }
}

#[test]
fn a_record_that_is_missing_or_duplicate_within_a_segment_is_refused() {
    for strange_index in [4, 6] {
        let disk = half_synced();
        disk.corrupt(first_segment(), |bytes| {
            let whole = frame::decode(&bytes[offset_of(5)..], 1).unwrap();
            let mut strange = Vec::new();
            let head = frame::Head { index: strange_index, ..whole.head };
            frame::encode(&mut strange, head, &[whole.payload]);
            bytes[offset_of(5)..offset_of(5) + strange.len()].copy_from_slice(&strange);
        });
        let error = refused(&disk);
        assert_eq!((error.kind, error.offset), (RecoveryErrorKind::Gap, Some(offset_of(5) as u64)));
        assert!(error.reason.contains(&format!("a frame says index {strange_index}, and 5 was to come")), "{error}");
    }
}

#[test]
fn overlapping_segments_are_refused() {
    let disk = filled(400, true);
    let second = segments(&disk)[1].clone();
    let mut bytes = disk.take_file(&second);
    let header = segment::Header::decode(&bytes).unwrap();
    let lower = segment::Header { first_index: header.first_index - 1, ..header };
    bytes[..HEADER_BYTES].copy_from_slice(&lower.encode());
    disk.put_file(&second.with_file_name(segment::file_name(lower.first_index)), bytes);
    assert_eq!(refused(&disk).kind, RecoveryErrorKind::Gap);
}

#[test]
fn foreign_files_are_refused_by_name() {
    let disk = filled(100, true);
    disk.put_file(Path::new("data/wal/holiday.jpg"), vec![1, 2, 3]);
    let error = refused(&disk);
    assert_eq!(error.kind, RecoveryErrorKind::Foreign);
    assert!(error.to_string().contains("holiday.jpg"));

    let disk = filled(400, true);
    disk.corrupt(&segments(&disk)[1], |bytes| bytes[..8].copy_from_slice(b"NOTATALL"));
    assert_eq!(refused(&disk).kind, RecoveryErrorKind::Foreign);

    // A segment of another store, with the right name and the right index.
    let (disk, other) = (filled(400, true), filled(400, true));
    let second = segments(&disk)[1].clone();
    disk.take_file(&second);
    disk.put_file(&second, other.take_file(&second));
    assert_eq!(refused(&disk).kind, RecoveryErrorKind::Foreign);

    // A segment under another one's name.
    let disk = filled(400, true);
    let bytes = disk.take_file(&segments(&disk)[0]);
    disk.put_file(Path::new("data/wal/00000000000000000002.wal"), bytes);
    assert_eq!(refused(&disk).kind, RecoveryErrorKind::Foreign);
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let disk = filled(100, true);
    disk.corrupt(first_segment(), |bytes| bytes[8] = 2);
    let error = refused(&disk);
    assert_eq!(error.kind, RecoveryErrorKind::Future);
    assert!(error.to_string().contains("version 2"), "{error}");
}

#[test]
fn a_frame_of_a_newer_kind_is_refused() {
    let disk = SimulatedFileSystem::default();
    drop(open_log(&disk).unwrap());
    disk.corrupt(first_segment(), |bytes| {
        let head = frame::Head { kind: frame::Kind::Reserved(4), sequence: 1, index: 0, synced_index: 0 };
        let mut vote = Vec::new();
        frame::encode(&mut vote, head, &[b"a vote"]);
        bytes[HEADER_BYTES..HEADER_BYTES + vote.len()].copy_from_slice(&vote);
    });
    assert_eq!(refused(&disk).kind, RecoveryErrorKind::Future);
}

#[test]
fn a_damaged_header_or_an_empty_file_is_refused() {
    let changes: [fn(&mut Vec<u8>); 4] =
        [|bytes| bytes[33] ^= 1, Vec::clear, |bytes| bytes.truncate(100), |bytes| bytes[..HEADER_BYTES].fill(0)];
    for change in changes {
        let disk = filled(100, true);
        disk.corrupt(first_segment(), change);
        assert_eq!(refused(&disk).kind, RecoveryErrorKind::Damaged);
    }
}

#[test]
fn a_record_that_the_engine_refuses_stops_the_start() {
    struct Refuses;
    impl Recovering for Refuses {
        fn load(&mut self, _: &snapshot::Reader, _: &Progress) -> Result<(), RecoveryError> {
            Ok(())
        }
        fn reset(&mut self) {}
        fn replay(&mut self, _: Replayed<'_>) -> Result<(), Refused> {
            Err(Refused::damaged("nonsense"))
        }
    }
    let disk = filled(100, true);
    let options = WalOptions { segment_bytes: SEGMENT_BYTES, store_directory: "data".into() };
    let error = open(Arc::new(disk), options, &mut Refuses, &Progress::default()).map(|_| ()).unwrap_err();
    assert_eq!((error.kind, error.offset), (RecoveryErrorKind::Damaged, Some(HEADER_BYTES as u64)));
}

#[test]
fn a_large_record_gets_a_segment_that_holds_it() {
    let disk = SimulatedFileSystem::default();
    let options = WalOptions { segment_bytes: 8 << 20, store_directory: "data".into() };
    let progress = Progress::default();
    let (mut wal, _) = open(Arc::new(disk.clone()), options.clone(), &mut Bodies::default(), &progress).unwrap();
    let large = vec![7; 3 << 20];
    wal.stage(1, 1, &large).unwrap();
    wal.stage(1, 1, b"small").unwrap();
    wal.write().unwrap();
    wal.close().unwrap();
    let mut bodies = Bodies::default();
    open(Arc::new(disk), options, &mut bodies, &progress).unwrap();
    assert_eq!(bodies.0, [large, b"small".to_vec()]);
    let step = progress.read();
    assert_eq!((step.phase, step.percent()), (Phase::Log, 100));
}

fn raw(error: i32) -> Option<io::Error> {
    Some(io::Error::from_raw_os_error(error))
}

#[test]
fn a_failed_write_or_sync_stops_the_log_for_good() {
    for failing in [Operation::Write, Operation::Sync] {
        for errno in [5, 28] {
            let disk = filled(50, true);
            let (mut wal, ..) = open_log(&disk).unwrap();
            disk.inject(move |operation, path| {
                (operation == failing && path == first_segment()).then(|| raw(errno)).flatten()
            });
            wal.stage(1, 1, &body(51)).unwrap();
            let failed = wal.write().and_then(|_| wal.sync());
            assert!(matches!(failed, Err(WalError::Failed(_))), "{failed:?}");
            disk.heal();
            assert!(matches!(wal.sync(), Err(WalError::Failed(_))), "a failed sync is not tried again");
            assert!(matches!(wal.stage(1, 1, b"x"), Err(WalError::Failed(_))));
            drop(wal);
            let restarted = disk.after_crash(Survives::Nothing, 0);
            expect_bodies(&open_log(&restarted).unwrap().2, 50);
        }
    }
}

#[test]
fn what_a_failed_sync_left_in_the_cache_is_made_durable_or_cut() {
    let disk = filled(50, true);
    let (mut wal, ..) = open_log(&disk).unwrap();
    disk.inject(|operation, _| (operation == Operation::Sync).then(|| raw(5)).flatten());
    wal.stage(1, 1, &body(51)).unwrap();
    wal.write().unwrap();
    assert!(wal.sync().is_err());
    disk.heal();
    drop(wal);
    // A restart of the process alone still sees the bytes in the cache. Once it serves them, they are on disk.
    let (wal, _, bodies) = open_log(&disk).unwrap();
    expect_bodies(&bodies, 51);
    drop(wal);
    expect_bodies(&open_log(&disk.after_crash(Survives::Nothing, 0)).unwrap().2, 51);
}

#[test]
fn a_full_disk_is_an_alarm_that_clears_itself() {
    let disk = SimulatedFileSystem::default();
    let (mut wal, ..) = open_log(&disk).unwrap();
    append(&mut wal, 1, true);
    // Wait until the next segment is ready, then leave no room for the one after it.
    while disk.used_bytes() < 2 * SEGMENT_BYTES as usize {
        std::thread::yield_now();
    }
    disk.set_capacity_bytes(Some(disk.used_bytes()));
    let mut index = 2;
    let full = loop {
        match wal.stage(1, 1, &body(index)) {
            Ok(staged) => assert_eq!(staged, index),
            Err(error) => break error,
        }
        index += 1;
    };
    assert!(matches!(full, WalError::Full), "{full:?}");
    assert!(wal.disk_full().load(Ordering::Relaxed));
    wal.write().unwrap();
    wal.sync().unwrap();
    disk.set_capacity_bytes(None);
    while wal.disk_full().load(Ordering::Relaxed) {
        std::thread::yield_now();
    }
    append(&mut wal, 20, true);
    wal.close().unwrap();
    expect_bodies(&open_log(&disk).unwrap().2, index - 1 + 20);
}

/// A workload that ends early if the machine stops. Gives the last index that was synced and the last one staged.
fn workload(disk: &SimulatedFileSystem) -> (u64, u64) {
    let Ok((mut wal, ..)) = open_log(disk) else { return (0, 0) };
    let (mut synced, mut staged) = (0, 0);
    for group in 0..40_u64 {
        for _ in 0..=group % 7 {
            let index = staged + 1;
            match wal.stage(1, index, &[body(index), body(index * 3)].concat()) {
                Ok(_) => staged = index,
                Err(_) => return (synced, staged),
            }
        }
        if wal.write().is_err() {
            return (synced, staged);
        }
        if group % 3 != 1 {
            if wal.sync().is_err() {
                return (synced, staged);
            }
            synced = staged;
        }
        if group == 11 && wal.mark().is_err() {
            return (synced, staged);
        }
    }
    if wal.close().is_ok() { (staged, staged) } else { (synced, staged) }
}

fn check_recovered(disk: &SimulatedFileSystem, synced: u64, staged: u64, what: &str) -> u64 {
    let (wal, _, bodies) = open_log(disk).unwrap_or_else(|error| panic!("{what}: {error}"));
    drop(wal);
    let found = bodies.len() as u64;
    assert!(found >= synced, "{what}: {found} records, {synced} were synced");
    assert!(found <= staged, "{what}: {found} records, only {staged} were ever staged");
    for (place, found) in bodies.iter().enumerate() {
        let index = place as u64 + 1;
        assert_eq!(*found, [body(index), body(index * 3)].concat(), "{what}");
    }
    found
}

#[test]
fn a_crash_at_any_operation_loses_no_synced_record() {
    let whole = SimulatedFileSystem::default();
    let (_, staged) = workload(&whole);
    assert!(staged > 150, "the workload ran to its end");
    for operation in 1..=whole.operations() {
        let disk = SimulatedFileSystem::default();
        disk.crash_at(operation);
        let (synced, staged) = workload(&disk);
        for survives in SURVIVALS {
            for seed in 0..3 {
                let what = format!("crash at {operation}, {survives:?}, seed {seed}");
                let restarted = disk.after_crash(survives, seed);
                let found = check_recovered(&restarted, synced, staged, &what);
                // What a start served once is there for ever: a second crash takes nothing of it.
                let again = restarted.after_crash(Survives::Nothing, seed);
                check_recovered(&again, found, found, &format!("{what}, again"));
            }
        }
    }
}

#[test]
fn a_crash_during_recovery_loses_nothing_either() {
    let disk = SimulatedFileSystem::default();
    disk.crash_at(60);
    let (synced, staged) = workload(&disk);
    for survives in SURVIVALS {
        let torn = disk.after_crash(survives, 5);
        let probe = torn.after_crash(Survives::Everything, 0);
        drop(open_log(&probe));
        for operation in 1..=probe.operations() {
            let recovering = torn.after_crash(Survives::Everything, 0);
            recovering.crash_at(operation);
            drop(open_log(&recovering));
            for survives_again in SURVIVALS {
                let restarted = recovering.after_crash(survives_again, operation);
                let what = format!("{survives:?}, then crash at {operation} of recovery, {survives_again:?}");
                check_recovered(&restarted, synced, staged, &what);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn any_flipped_bit_in_a_closed_log_is_found(at in 0_usize..20_000, bit in 0_u8..8) {
        let disk = filled(40, true);
        let mut inside = false;
        disk.corrupt(first_segment(), |bytes| {
            let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
            // The header's unused rest and the CLOSE at the very end prove nothing about themselves.
            let at = HEADER_BYTES + at % (end - HEADER_BYTES - HEAD_BYTES);
            inside = at < end - HEAD_BYTES;
            bytes[at] ^= 1 << bit;
        });
        prop_assert!(inside);
        prop_assert_eq!(refused(&disk).kind, RecoveryErrorKind::Damaged);
    }
}
