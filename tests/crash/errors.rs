//! Operations that fail: what the log cannot do without ends it, everything else is an alarm.

use std::{io, path::PathBuf};

use futures_util::future::join_all;
use parking_lot::Mutex;
use tandem::{
    disk::{RecoveryErrorKind, simulated::Operation},
    engine::Health,
    error::{Outcome, Reason},
};

use super::{
    crashes::{Seen, check, whole_workload, workload},
    *,
};

fn errno(number: i32) -> Option<io::Error> {
    Some(io::Error::from_raw_os_error(number))
}

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

#[tokio::test]
async fn fail_stop_after_a_failed_write_or_sync_and_a_clean_restart() {
    for failing in [Operation::Write, Operation::Sync] {
        for number in [EIO, ENOSPC] {
            let disk = SimulatedFileSystem::default();
            let engine = open(&disk, SyncMode::Always).unwrap();
            propose(&engine, put("kept", "1"), with(Durability::Unspecified, "")).await.unwrap();
            disk.inject(move |operation, path| {
                let active = path.extension().is_some_and(|extension| extension == "wal");
                (operation == failing && active).then(|| errno(number)).flatten()
            });
            let error = propose(&engine, put("lost", "1"), with(Durability::Unspecified, "")).await.unwrap_err();
            assert_eq!((error.reason, error.outcome()), (Reason::CommitUnknown, Some(Outcome::Unknown)));
            disk.heal();
            let error = propose(&engine, put("late", "1"), with(Durability::Unspecified, "")).await.unwrap_err();
            assert_eq!(error.reason, Reason::WalFailed);
            assert_eq!(value(&engine, "kept").as_deref(), Some("1"), "reads go on");
            assert_eq!(value(&engine, "lost"), None, "what was not acknowledged is not shown");
            assert_eq!(*engine.health().borrow(), Health::WalFailed);
            assert!(!engine.close());
            drop(engine);
            let engine = reopen(&disk, "restart");
            assert_eq!(value(&engine, "kept").as_deref(), Some("1"));
            propose(&engine, put("late", "2"), with(Durability::Unspecified, "")).await.unwrap();
            assert!(engine.close());
        }
    }
}

#[tokio::test]
async fn a_rotation_that_fails_is_fail_stop() {
    for failing in [Operation::Open, Operation::Rename, Operation::SyncDirectory, Operation::Create] {
        let disk = SimulatedFileSystem::default();
        let engine = open(&disk, SyncMode::Always).unwrap();
        propose(&engine, put("kept", "1"), with(Durability::Unspecified, "")).await.unwrap();
        disk.inject(move |operation, _| (operation == failing).then(|| errno(EIO)).flatten());
        let text = "x".repeat(4_000);
        let mut acknowledged = 0;
        // Create hits the preparer, which fails the rotation after the next: the log must stop within two segments.
        for number in 0..60 {
            let key = format!("key-{number}");
            match propose(&engine, put(&key, &text), with(Durability::Unspecified, "")).await {
                Ok(_) => acknowledged = number + 1,
                Err(error) => {
                    assert!([Reason::CommitUnknown, Reason::WalFailed].contains(&error.reason), "{error}");
                    break;
                }
            }
        }
        assert!(acknowledged < 60, "{failing:?} went unnoticed");
        disk.heal();
        drop(engine);
        let engine = reopen(&disk.after_crash(Survives::Nothing, 1), "restart");
        for number in 0..acknowledged {
            assert!(value(&engine, &format!("key-{number}")).is_some(), "{failing:?}: {number} of {acknowledged}");
        }
    }
}

#[tokio::test]
async fn a_full_disk_refuses_growth_lets_deletes_go_on_and_clears_itself() {
    let disk = SimulatedFileSystem::default();
    let engine = open(&disk, SyncMode::Always).unwrap();
    propose(&engine, put("kept", "1"), with(Durability::Unspecified, "")).await.unwrap();
    disk.inject(|operation, path| {
        let next = path == Path::new("data/wal/next.tmp");
        (operation == Operation::Write && next).then(|| errno(ENOSPC)).flatten()
    });
    let text = "x".repeat(3_000);
    let mut number = 0;
    let error = loop {
        match propose(&engine, put("grows", &text), with(Durability::Unspecified, "")).await {
            Ok(_) => number += 1,
            Err(error) => break error,
        }
        assert!(number < 100, "never full");
    };
    assert_eq!((error.reason, engine.disk_full()), (Reason::DiskFull, true));
    propose(&engine, delete("kept"), with(Durability::Unspecified, "")).await.unwrap();
    assert_eq!(*engine.health().borrow(), Health::Ready);
    disk.heal();
    let started = Instant::now();
    while propose(&engine, put("grows", "again"), with(Durability::Unspecified, "")).await.is_err() {
        assert!(started.elapsed() < Duration::from_secs(30), "the alarm did not clear");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(engine.close());
}

/// The operation of this number fails, once; which one it is, is told.
fn fail_once(disk: &SimulatedFileSystem, number: u64) -> Arc<Mutex<Option<(Operation, PathBuf)>>> {
    let failed = Arc::new(Mutex::new(None));
    let (tell, mut left) = (Arc::clone(&failed), number);
    disk.inject(move |operation, path| {
        if operation == Operation::Read || left == 0 {
            return None;
        }
        left -= 1;
        if left > 0 {
            return None;
        }
        *tell.lock() = Some((operation, path.to_owned()));
        errno(EIO)
    });
    failed
}

#[tokio::test]
async fn an_error_at_any_operation_ends_the_log_or_is_an_alarm_and_loses_nothing() {
    let operations = whole_workload(SyncMode::Always).await;
    for number in 1..=operations {
        let disk = SimulatedFileSystem::default();
        let failed = fail_once(&disk, number);
        let mut seen = Seen::default();
        let what = format!("{number} of {operations} fails");
        if let Some(engine) = open(&disk, SyncMode::Always) {
            let ready_before = failed.lock().is_none();
            workload(&disk, &engine, &mut seen).await;
            let failed = failed.lock().clone();
            match failed {
                // What is removed has no name any more.
                Some((_, path)) if path.starts_with("data/snapshots") || path == Path::new("") => {
                    assert_eq!(*engine.health().borrow(), Health::Ready, "{what}: {path:?} is not the log's");
                    engine.snapshot().await.unwrap_or_else(|error| panic!("{what}: {error}"));
                    assert_eq!(engine.snapshot_status().alarm, None, "{what}: the next one clears the alarm");
                }
                Some((Operation::Write | Operation::Sync, path))
                    if ready_before && path.extension().is_some_and(|extension| extension == "wal") =>
                {
                    // Just after the answer that told of it.
                    let mut health = engine.health();
                    let stopped = health.wait_for(|health| *health == Health::WalFailed);
                    let stopped = tokio::time::timeout(Duration::from_secs(30), stopped).await;
                    assert!(stopped.is_ok(), "{what}: {path:?} is the active segment, and the log goes on");
                }
                _ => {}
            }
            if *engine.health().borrow() == Health::WalFailed {
                let refused = propose(&engine, put("late", "1"), with(Durability::Written, "")).await.unwrap_err();
                assert_eq!(refused.reason, Reason::WalFailed, "{what}: never again after a failure");
            }
            engine.close();
        }
        for survives in [Survives::Nothing, Survives::Everything] {
            check(&disk.after_crash(survives, number), &seen, &format!("{what}, {survives:?} survives")).await;
        }
    }
}

/// The file of the read of this number cannot be read from then on; which one it is, is told.
fn fail_reads(disk: &SimulatedFileSystem, number: u64) -> Arc<Mutex<Option<PathBuf>>> {
    let failed = Arc::new(Mutex::new(None));
    let (tell, mut left) = (Arc::clone(&failed), number);
    disk.inject(move |operation, path| {
        if operation != Operation::Read {
            return None;
        }
        left = left.saturating_sub(1);
        let mut failing = tell.lock();
        if left == 0 && failing.is_none() {
            *failing = Some(path.to_owned());
        }
        (failing.as_deref() == Some(path)).then(|| errno(EIO)).flatten()
    });
    failed
}

#[tokio::test]
async fn a_file_that_cannot_be_read_refuses_the_start_by_name_or_is_done_without_loudly() {
    let disk = SimulatedFileSystem::default();
    let engine = open(&disk, SyncMode::Always).unwrap();
    let mut seen = Seen::default();
    workload(&disk, &engine, &mut seen).await;
    let unclean = copy(&disk);
    assert!(engine.close());
    let (mut refused, mut done_without) = (0, 0);
    for number in 1.. {
        let disk = copy(&unclean);
        let failed = fail_reads(&disk, number);
        let opened = try_open(&disk, &options(SyncMode::Always));
        let Some(path) = failed.lock().clone() else { break };
        match opened {
            Err(error) => {
                refused += 1;
                assert_eq!((error.kind, &error.file), (RecoveryErrorKind::Io, &path), "{error}");
                for directory in ["data/wal", "data/snapshots"] {
                    assert_eq!(names(&disk, directory), names(&unclean, directory), "a refused start changes nothing");
                }
                disk.heal();
                check(&disk, &seen, &format!("{path:?} can be read again")).await;
            }
            Ok((engine, opened)) => {
                done_without += 1;
                assert_eq!(opened.recovery.damaged.first().map(|damaged| &damaged.file), Some(&path));
                assert!(engine.snapshot_status().alarm.is_some(), "it is said");
                drop(engine);
                check(&disk, &seen, &format!("without {path:?}")).await;
            }
        }
    }
    assert!(refused > 0 && done_without > 0, "{refused} refused, {done_without} done without");
}

/// A disk with so many bytes left: written to until it is full, shrunk, given room again.
async fn fill(left_bytes: usize) {
    let what = format!("{left_bytes} bytes left");
    let disk = SimulatedFileSystem::default();
    let engine = open(&disk, SyncMode::Always).unwrap();
    propose(&engine, put("kept", "1"), with(Durability::Unspecified, "")).await.unwrap();
    disk.set_capacity_bytes(Some(disk.used_bytes() + left_bytes));
    let text = "x".repeat(3_000);
    let mut acknowledged = 0;
    let refused = loop {
        match propose(&engine, put(&format!("key-{acknowledged}"), &text), with(Durability::Unspecified, "")).await {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
        // Snapshots meet the full disk too, and more often than not before the log does.
        if acknowledged % 7 == 6
            && let Err(error) = engine.snapshot().await
        {
            assert_eq!(error.reason, Reason::DiskFull, "{what}: {error}");
            assert!(engine.snapshot_status().alarm.is_some(), "{what}");
        }
        assert!(acknowledged < 1_000, "{what}: never full");
    };
    assert_eq!((refused.reason, engine.disk_full()), (Reason::DiskFull, true), "{what}: {refused}");
    assert_eq!(*engine.health().borrow(), Health::Ready, "{what}: an alarm, not the end");
    propose(&engine, delete("kept"), with(Durability::Unspecified, "")).await.unwrap();
    let crashed = disk.after_crash(Survives::Nothing, 1);
    disk.set_capacity_bytes(None);
    let started = Instant::now();
    while propose(&engine, put("again", "1"), with(Durability::Unspecified, "")).await.is_err() {
        assert!(started.elapsed() < Duration::from_secs(60), "{what}: the alarm did not clear");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    engine.snapshot().await.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(engine.snapshot_status().alarm, None, "{what}");
    assert!(engine.close());
    drop(engine);
    for disk in [disk, crashed] {
        let engine = reopen(&disk, &what);
        for number in 0..acknowledged {
            assert!(value(&engine, &format!("key-{number}")).is_some(), "{what}: {number} of {acknowledged} lost");
        }
        assert_eq!(value(&engine, "kept"), None, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fills_up_at_any_allocation_is_an_alarm_that_clears_itself() {
    for several in (0..300_000).step_by(7_001).collect::<Vec<_>>().chunks(8) {
        join_all(several.iter().map(|left_bytes| fill(*left_bytes))).await;
    }
}
