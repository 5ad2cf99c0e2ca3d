//! Checks a snapshot frame by frame, without loading it: every checksum, every count, the state's hash. Takes little memory,
//! and does not see a key that is there twice, as loading does.

use prost::Message as _;

use super::load::{answers_of, marks_of};
use crate::{
    disk::{
        RecoveryError,
        snapshot::{Frame, Kind, Reader},
    },
    engine::state_hash::StateHash,
    model::{EntryRef, wire},
    pb::storage::SnapshotHistory,
};

/// Reads a snapshot whole. `advance` gets the bytes that were read now and says whether to go on; false: it said no.
pub fn check(snapshot: &Reader, advance: &mut dyn FnMut(u64) -> bool) -> Result<bool, RecoveryError> {
    let marks = marks_of(snapshot)?;
    let frames = snapshot.frames();
    let mut hash = StateHash::default();
    let mut buffer = Vec::new();
    while let Some(frame) = frames.next(&mut buffer)? {
        if !add(&frame, &mut hash) {
            return Err(snapshot.damaged(frame.offset, "a frame does not hold what it says"));
        }
        if !advance(frame.payload.len() as u64) {
            return Ok(false);
        }
    }
    frames.finish()?;
    hash.rest(&marks);
    if hash.sum().to_be_bytes()[..] != snapshot.footer().state_hash[..] {
        let end = snapshot.footer().frames_end;
        return Err(snapshot.damaged(end, "the state does not have the hash that the footer says"));
    }
    Ok(true)
}

/// Adds what a frame holds; false if it does not hold what it says.
fn add(frame: &Frame<'_>, hash: &mut StateHash) -> bool {
    let items = match frame.kind {
        Kind::Answers => answers_of(frame).map(|answers| {
            answers.iter().for_each(|(id, answered_ms, remembered)| hash.answer(id, *answered_ms, remembered));
            answers.len()
        }),
        Kind::History => SnapshotHistory::decode(frame.payload).ok().map(|history| history.events.len()),
        Kind::Entries | Kind::Header | Kind::Footer | Kind::Reserved(_) => {
            let entries: Option<Vec<EntryRef<'_>>> = wire::list(frame.payload).collect();
            entries.map(|entries| {
                entries.iter().for_each(|entry| hash.entry(entry));
                entries.len()
            })
        }
    };
    items == Some(frame.items as usize)
}
